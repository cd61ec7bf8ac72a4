//! A dense layer with fewer calibration images than inputs: fitted from the rates and pre-activations themselves, S x n
//! and S x m, where the Gram matrix, n x n, would be much the larger. METHOD section 2.

use std::sync::{Mutex, PoisonError};

use super::encode;
use super::layer::{Rows, Solved, Task};
use super::survey::Pass;
use super::walk::Walk;
use crate::error::Result;
use crate::fit::{self, Problem, Samples};
use crate::network::{Block, Shape};

/// What a pass over the calibration images found.
pub(super) struct Sampled {
    /// S x n: totals, in the order of a row's columns.
    x: Vec<f64>,
    /// S x cout: trained pre-activations.
    z: Vec<f64>,
}

/// Whether every neuron of a layer of `shape` reads its sources whole, so that an image is a sample.
pub(super) fn dense(blocks: &[Block], shape: Shape, source: impl Fn(usize) -> Shape) -> bool {
    let whole = |b: &Block| {
        let source = source(b.source);
        b.groups == 1 && b.window.kernel == [source.h, source.w] && b.window.pad == [0, 0]
    };
    shape.area() == 1 && blocks.iter().all(whole)
}

impl Walk<'_> {
    pub(super) fn is_dense(&self, task: &Task) -> bool {
        dense(task.blocks, task.shape, |source| self.spiking.nodes[source].shape)
    }

    /// Whether the layer is fitted from its samples.
    pub(super) fn by_samples(&self, task: &Task) -> bool {
        let linear = !task.fires || !encode::inverts(&self.spiking.model);
        let all = self.pattern(task).is_all(task.inputs());
        linear
            && all
            && self.is_dense(task)
            && self.plain()
            && self.noise.is_none()
            && (fit::dual_pays(&self.spec(), task.inputs(), self.images.len())
                || self.beyond_budget(task) && self.images.len() < task.inputs() && fit::dual_applies(&self.spec()))
    }

    /// As `survey`: the samples, and pre-activations per channel to choose thresholds by.
    pub(super) fn survey_samples(&mut self, task: &Task, keep: bool) -> Result<(Sampled, Vec<Vec<f32>>)> {
        let (n, m, all) = (task.inputs(), task.shape.c, self.images.len());
        let found = Mutex::new(Sampled { x: vec![0.0; all * n], z: vec![0.0; all * m] });
        let mut pass = Pass::new(self, task, keep)?;
        let mut none = self.states(|_, _, _| Ok(()))?;
        pass.over(self, 0..all, &mut none, |at, xs, z, ()| {
            let (images, first) = (at.images(), at.first());
            let parts = xs.iter().map(|x| at.dev.view(x)).collect::<Result<Vec<_>>>()?;
            let z = at.dev.view(z)?;
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            for (image, row) in found.x[first * n..].chunks_exact_mut(n).take(images).enumerate() {
                let values = parts.iter().flat_map(|part| {
                    let width = part.len() / images;
                    &part[image * width..(image + 1) * width]
                });
                row.iter_mut().zip(values).for_each(|(x, v)| *x = f64::from(*v));
            }
            found.z[first * m..].iter_mut().zip(z.iter()).for_each(|(into, v)| *into = f64::from(*v));
            Ok(())
        })?;
        let seen = pass.finish(self);
        Ok((found.into_inner().unwrap_or_else(PoisonError::into_inner), seen))
    }

    /// Fits the layer's rows. Columns are in the units of a shifted code, as in `solve`.
    pub(super) fn solve_samples(&self, task: &Task, rows: &Rows, mut found: Sampled) -> Result<Solved> {
        let (n, m) = (task.inputs(), task.shape.c * rows.population);
        let scales = task.scales();
        let prior = self.prior(task, rows, &scales);
        found.x.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(&scales).for_each(|(x, s)| *x *= s));
        let count = found.x.len() / n;
        let target = |at: usize| {
            let (s, row) = (at / m, at % m);
            rows.gain[row] * found.z[s * task.shape.c + row / rows.population] + rows.offset[row]
        };
        let t: Vec<f64> = (0..count * m).map(target).collect();
        let samples = Samples { n, m, x: &found.x, t: &t, bias: true };
        let cancelled = || self.watch.cancelled();
        let given = (Some(prior.as_slice()), task.ridge);
        let solution = fit::solve_dual(self.team.first(), &samples, given, &self.spec(), &cancelled)?;
        let sum = |rows: &[f64], width: usize| -> Vec<f64> {
            (0..width).map(|j| rows.iter().skip(j).step_by(width).sum()).collect()
        };
        let (x, t_sum) = (sum(&found.x, n), sum(&t, m));
        let sums = fit::Sums { h: &[], b: &[], x: &x, t: &t_sum, tt: &[], count: count as f64 };
        let bias = Problem::bias(&solution.w, &sums);
        let centred = |(at, t): (usize, &f64)| (t - t_sum[at % m] / count as f64).powi(2);
        let tt = t.iter().enumerate().map(centred).sum();
        Ok(Solved { solutions: vec![solution], bias, tt, noise: None, samples: count as u64 })
    }
}
