//! From the live inputs that the solvers see back to all inputs of a problem.

use super::palette::{self, Palettes};
use super::problem::Problem;
use super::quantize::Quantized;
use super::system::System;
use crate::chip::Grid;
use crate::compute::solver::Steps;

/// What dead inputs get depends on the box (output, input) and the prior.
pub(super) struct Rest<'a> {
    pub problem: &'a Problem,
    pub system: &'a System,
    pub lower: &'a dyn Fn(usize, usize) -> f64,
    pub upper: &'a dyn Fn(usize, usize) -> f64,
}

impl Rest<'_> {
    /// Continuous weights of all inputs; dead ones get the prior, within the box.
    pub fn spread(&self, w: &[f64]) -> Vec<f64> {
        self.live(w, self.dead(|v, o, i| v.max((self.lower)(o, i)).min((self.upper)(o, i))))
    }

    /// Stored weights and codes of all inputs; dead ones get the level nearest to the prior.
    pub fn store(&self, grid: &Grid, q: &Quantized) -> (Vec<f64>, Vec<i32>) {
        let levels = self.levels(&Steps::of(grid), q);
        let codes = levels.iter().map(|v| grid.nearest(*v).0).collect();
        let w = levels.iter().enumerate().map(|(at, level)| level * q.scale[at / self.problem.n]).collect();
        (w, codes)
    }

    /// As `store`; dead inputs get zero.
    pub fn store_live(&self, grid: &Grid, q: &Quantized) -> (Vec<f64>, Vec<i32>) {
        let n = self.problem.n;
        let levels = self.live(&q.levels, vec![0.0; n * self.problem.m]);
        let codes = levels.iter().map(|v| grid.nearest(*v).0).collect();
        let w = levels.iter().enumerate().map(|(at, level)| level * q.scale[at / n]).collect();
        (w, codes)
    }

    /// Stored weights and codes of all inputs, and the rows' palettes (m x K).
    pub fn store_palettes(&self, p: &Palettes) -> (Vec<f64>, Vec<i32>, Vec<f64>) {
        let (n, count) = (self.problem.n, p.levels.len() / self.problem.m);
        let all = self.levels(&Steps::Rows { lists: p.levels.clone(), count }, &p.stored);
        let code = |(at, v): (usize, &f64)| palette::position(&p.levels[at / n * count..][..count], *v);
        let codes: Vec<usize> = all.iter().enumerate().map(code).collect();
        let values: Vec<f64> = p.levels.iter().enumerate().map(|(at, v)| v * p.stored.scale[at / count]).collect();
        let w = codes.iter().enumerate().map(|(at, code)| values[at / n * count + code]).collect();
        (w, codes.into_iter().map(|code| code as i32).collect(), values)
    }

    /// Levels of all inputs.
    fn levels(&self, steps: &Steps<f64>, q: &Quantized) -> Vec<f64> {
        let dead = self.dead(|v, o, i| {
            let s = q.scale[o];
            steps.of_row(o).nearest_within(v / s, (self.lower)(o, i) / s, (self.upper)(o, i) / s)
        });
        self.live(&q.levels, dead)
    }

    /// `all` (m x n of the problem) with the live inputs' values taken from `live`.
    fn live(&self, live: &[f64], mut all: Vec<f64>) -> Vec<f64> {
        for (at, v) in live.iter().enumerate() {
            all[at / self.system.n * self.problem.n + self.system.live[at % self.system.n]] = *v;
        }
        all
    }

    fn dead(&self, value: impl Fn(f64, usize, usize) -> f64) -> Vec<f64> {
        let (n, m) = (self.problem.n, self.problem.m);
        let mut dead = vec![true; n];
        self.system.live.iter().for_each(|&i| dead[i] = false);
        let prior = |at: usize| self.problem.prior.as_ref().map_or(0.0, |p| p[at]);
        (0..m * n).map(|at| if dead[at % n] { value(prior(at), at / n, at % n) } else { 0.0 }).collect()
    }
}
