//! A layer's problem under what the chip can hold: grid, range, signs, and scales that leave room for the biases.

use super::layer::{Rows, Solved, Task};
use super::quantize;
use super::walk::Walk;
use crate::chip::ScaleOwner;
use crate::compute::gram::Sums;
use crate::error::Result;
use crate::fit::{Bounds, Signs, Spec};

/// Of a scale, which becomes a threshold: the error that this adds is below 1e-8 of the targets' square, and no device's
/// rounding moves it.
const SCALE_BITS: i32 = 13;
/// K of K-best, where the grid is coarse enough for it: a conversion gains less from more than it costs.
const PATHS: usize = 8;
/// Fits again with scales that leave room for the biases, which move a little each time.
const TRIES: usize = 4;

impl Walk<'_> {
    /// Solves it. Where its biases are too wide for the chip at the best scales, the scales are only as fine as the biases
    /// allow, and the weights are fitted to those; where groups have to share a scale, they take the coarsest.
    pub(super) fn solve_within(&self, task: &Task, rows: &Rows, targets: &Sums) -> Result<Solved> {
        let m = task.shape.c * rows.population / task.groups;
        let limits = self.limits(task);
        let mut specs = self.specs(task, rows);
        let mut tried = self.solve(task, rows, targets, &specs, true)?;
        if self.rules.grid.is_none() {
            return Ok(tried);
        }
        let mut least = vec![0.0f64; tried.bias.len()];
        for _ in 0..TRIES {
            let scale: Vec<f64> = tried.solutions.iter().flat_map(|s| s.scale.iter().copied()).collect();
            let now = quantize::least_scales(&tried.bias, task.fires, &limits);
            least.iter_mut().zip(&now).for_each(|(all, now)| *all = all.max(*now));
            let mut wanted: Vec<f64> = scale.iter().zip(&least).map(|(scale, least)| scale.max(*least)).collect();
            if limits.one_scale {
                let most = wanted.iter().copied().fold(0.0, f64::max);
                wanted.fill(most);
            }
            if wanted == scale {
                break;
            }
            for (spec, scale) in specs.iter_mut().zip(wanted.chunks(m)) {
                spec.scale = Some(scale.to_vec());
            }
            tried = self.solve(task, rows, targets, &specs, true)?;
        }
        Ok(tried)
    }

    /// What the chip can hold, and how it is looked for, without what depends on the layer.
    pub(super) fn spec(&self) -> Spec {
        Spec {
            grid: self.rules.grid.clone(),
            owner: self.rules.owner,
            scale_bits: SCALE_BITS,
            power_of_two: self.rules.power_of_two,
            method: self.options.method,
            paths: PATHS,
            ..Spec::default()
        }
    }

    /// Whether nothing of what the chip asks for depends on the layer.
    pub(super) fn plain(&self) -> bool {
        self.rules.range.is_none() && !self.rules.sign_of_source && self.rules.owner != ScaleOwner::Layer
    }

    /// For each group's problem.
    fn specs(&self, task: &Task, rows: &Rows) -> Vec<Spec> {
        let m = task.shape.c * rows.population / task.groups;
        let (lower, upper) = self.range(task, m);
        let own = Spec { lower, upper, ..self.spec() };
        let Some(signs) = self.rules.sign_of_source.then(|| self.sources_signs(task)).flatten() else {
            // Inputs have no sign of their own: their magnitudes may be given either.
            let grid =
                if self.rules.sign_of_source { own.grid.as_ref().map(|g| g.with_signs()) } else { own.grid.clone() };
            return vec![Spec { grid, ..own }; task.groups];
        };
        let spec = |signs: super::signs::Columns| {
            let bound = |open: f64, closed: i8| -> Bounds {
                let row = signs.given.iter().map(|g| if *g == closed { 0.0 } else { open });
                Bounds::Element(row.collect::<Vec<_>>().repeat(m))
            };
            let (lower, upper) = match signs.given.iter().all(|g| *g == 0) {
                true => (Bounds::None, Bounds::None),
                false => (bound(f64::NEG_INFINITY, 1), bound(f64::INFINITY, -1)),
            };
            Spec { signs: Signs::Input, sign_groups: Some(signs.group), lower, upper, ..own.clone() }
        };
        signs.into_iter().map(spec).collect()
    }

    /// Bounds of the weights (m x n) from the chip's range, which is per spike; for the network's input, per full input. A
    /// readout's unit is free, so that its range is no bound.
    fn range(&self, task: &Task, m: usize) -> (Bounds, Bounds) {
        let Some([low, high]) = self.rules.range.filter(|_| task.fires) else { return (Bounds::None, Bounds::None) };
        let per_code = task.blocks.iter().zip(&task.columns).flat_map(|(b, c)| {
            let source = &self.spiking.nodes[b.source];
            let size = if source.constant { source.peak as f64 } else { 1.0 };
            std::iter::repeat_n(1.0 / (size * f64::from(1u32 << c.shift)), c.channels * c.taps)
        });
        let per_code: Vec<f64> = per_code.collect();
        let bound = |v: f64| Bounds::Element(per_code.iter().map(|p| v * p).collect::<Vec<_>>().repeat(m));
        (bound(low), bound(high))
    }
}
