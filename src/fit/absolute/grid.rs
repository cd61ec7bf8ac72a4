//! From continuous weights that are best by magnitude to weights on a grid: the grid solver's weights near them under
//! the inputs' Gram matrix, then single steps of codes as long as one lowers the measure itself.

use rayon::prelude::*;

use super::certify::{centre, measured};
use super::{AbsoluteFit, Samples};
use crate::chip::Grid;
use crate::compute::Device;
use crate::compute::solver::absolute::Measure;
use crate::compute::solver::dense;
use crate::error::Result;
use crate::fit::{Method, Problem, Spec, solve_with};

/// Sweeps over an output's codes.
const MOST_SWEEPS: usize = 20;

/// Replaces the fit's continuous weights by stored ones.
pub(super) fn store(
    fit: &mut AbsoluteFit,
    dev: &Device,
    samples: Samples<'_>,
    measure: Measure,
    grid: &Grid,
    spec: &Spec,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<()> {
    let Samples { n, m, x, t, bias } = samples;
    let count = samples.count();
    // H of the inputs (centred with a bias), and the continuous weights as its unconstrained optimum.
    let means: Vec<f64> = match bias {
        true => (0..n).map(|i| x.iter().skip(i).step_by(n).sum::<f64>() / count as f64).collect(),
        false => vec![0.0; n],
    };
    let centred: Vec<f64> = x.chunks_exact(n).flat_map(|row| row.iter().zip(&means).map(|(x, m)| x - m)).collect();
    let mut h = vec![0.0; n * n];
    dense::add_outer(&mut h, 1.0, &centred, &centred, (count, n, n));
    let mut b = vec![0.0; m * n];
    dense::product(&mut b, false, &fit.w, &h, (m, n, n), dense::par(m * n * n));
    let problem = Problem { prior: Some(fit.w.clone()), ..Problem::from_gram(n, m, h, b)? };
    let near = solve_with(dev, &problem, spec, cancelled)?;
    let nearest = solve_with(&Device::cpu(), &problem, &Spec { method: Method::Rtn, ..spec.clone() }, cancelled)?;
    let row = |w: &[f64], scale: f64, codes: &[i32], o: usize| Row {
        grid,
        measure,
        samples,
        scale,
        codes: codes.to_vec(),
        residuals: residuals(samples, w, o),
    };
    let rtn = |o: usize| {
        let mut row = row(&nearest.w[o * n..(o + 1) * n], 1.0, &[], o);
        row.shift();
        row.value()
    };
    fit.rtn = (0..m).into_par_iter().map(rtn).collect();
    let codes = near.codes.unwrap_or_default();
    let found: Vec<(Row, f64)> = (0..m)
        .into_par_iter()
        .map(|o| {
            let part = o * n..(o + 1) * n;
            let mut row = row(&near.w[part.clone()], near.scale[o], &codes[part], o);
            row.descend();
            let shift = row.shift();
            (row, shift)
        })
        .collect();
    fit.scale = near.scale;
    fit.codes = Some(found.iter().flat_map(|(row, _)| row.codes.iter().copied()).collect());
    fit.w = found.iter().flat_map(|(row, _)| row.codes.iter().map(|q| grid.value(*q) * row.scale)).collect();
    fit.objective = found.iter().map(|(row, _)| row.value()).collect();
    fit.bias = vec![0.0; m];
    if bias {
        // The shifts along the way add up to the bias: what the residuals hold beyond w x - t.
        for (o, (row, _)) in found.iter().enumerate() {
            let w = &fit.w[o * n..(o + 1) * n];
            let plain: f64 = x[..n].iter().zip(w).map(|(x, w)| x * w).sum::<f64>() - t[o];
            fit.bias[o] = row.residuals[0] - plain;
        }
    }
    Ok(())
}

/// w x - t for every sample.
fn residuals(samples: Samples<'_>, w: &[f64], o: usize) -> Vec<f64> {
    let rows = samples.x.chunks_exact(samples.n).zip(samples.t.chunks_exact(samples.m));
    rows.map(|(x, t)| dense::dot(x, w) - t[o]).collect()
}

struct Row<'a> {
    grid: &'a Grid,
    measure: Measure,
    samples: Samples<'a>,
    scale: f64,
    codes: Vec<i32>,
    residuals: Vec<f64>,
}

impl Row<'_> {
    fn value(&self) -> f64 {
        measured(self.measure, self.residuals.iter().copied())
    }

    /// Moves the residuals to their best constant, where there is a bias; returns by how much.
    fn shift(&mut self) -> f64 {
        if !self.samples.bias {
            return 0.0;
        }
        let shift = centre(self.measure, &mut self.residuals.clone());
        self.residuals.iter_mut().for_each(|r| *r -= shift);
        shift
    }

    /// Steps of single codes, to a fixed point.
    fn descend(&mut self) {
        let n = self.samples.n;
        self.shift();
        for _ in 0..MOST_SWEEPS {
            let mut moved = false;
            for i in 0..n {
                let now = self.value();
                let column = |s: usize| self.samples.x[s * n + i];
                let better = [-1, 1].into_iter().filter_map(|step| {
                    let level = self.grid.value(self.codes[i].saturating_add(step));
                    let delta = (level - self.grid.value(self.codes[i])) * self.scale;
                    let residuals = self.residuals.iter().enumerate().map(|(s, r)| r + delta * column(s));
                    let value = if delta == 0.0 { f64::INFINITY } else { measured(self.measure, residuals) };
                    (value < now * (1.0 - 1e-12)).then_some((value, level, delta))
                });
                if let Some((_, level, delta)) = better.min_by(|a, b| a.0.total_cmp(&b.0)) {
                    self.residuals.iter_mut().enumerate().for_each(|(s, r)| *r += delta * self.samples.x[s * n + i]);
                    self.codes[i] = self.grid.nearest(level).0;
                    moved = true;
                }
            }
            self.shift();
            if !moved {
                return;
            }
        }
    }
}
