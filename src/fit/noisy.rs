//! Grids whose weights are programmed with noise: the codes of the least expected error.
//!
//! A row that is programmed as s (q + e), e of mean zero and independent, has the expected error
//!     sum_s' ||s q x - t||^2 + s^2 sum_i P_i v(q_i),    P_i = sum x_i^2 (of the rates themselves: no bias makes up for noise),
//! with v the variance of a code. The first part is the layer problem's own. The second wants small scales, because noise is
//! in codes, and codes of little noise. Found from the solution without noise, for several smaller scales, by coordinate
//! descent over codes to a fixed point; the best scale is kept, of every row or of all where they share it.

use rayon::prelude::*;

use super::problem::Problem;
use super::solve::{Method, Solution, Spec, solve_with};
use crate::chip::{Grid, ScaleOwner};
use crate::compute::Team;
use crate::compute::solver::dense;
use crate::error::{Error, Result};

/// Scales that are tried, in that of the solution without noise.
const SCALES: [f64; 5] = [1.0, 0.84, 0.7, 0.59, 0.5];
const MOST_SWEEPS: usize = 30;

/// What programming does to a layer's stored weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Noise {
    /// n: sum of x_i^2 over the samples, not centred.
    pub power: Vec<f64>,
    /// Of the levels 0, 1, ..., in levels squared; alike for both signs.
    pub variance: Vec<f64>,
}

impl Noise {
    fn of(&self, level: f64) -> f64 {
        self.variance[(level.abs() as usize).min(self.variance.len() - 1)]
    }

    /// Per row: the expected squared error that the noise adds to a solution on `grid`.
    pub fn expected(&self, solution: &Solution, grid: &Grid) -> Vec<f64> {
        let codes = solution.codes.as_deref().unwrap_or_default();
        let row = |(codes, scale): (&[i32], &f64)| {
            let sum: f64 = codes.iter().zip(&self.power).map(|(q, p)| p * self.of(grid.value(*q))).sum();
            scale * scale * sum
        };
        codes.chunks(self.power.len().max(1)).zip(&solution.scale).map(row).collect()
    }
}

/// As `solve_with` on a grid of integers, but for weights that are programmed with noise. The solution's objectives are
/// those of the codes as they are, without noise.
///
/// # Errors
/// As `solve_with`; `Input`: no grid of integers.
pub fn solve_noisy(
    on: impl Into<Team>,
    problem: &Problem,
    spec: &Spec,
    noise: &Noise,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Solution> {
    let grid = spec.grid.as_ref().filter(|g| g.regular().is_some() && !g.is_unsigned());
    let grid = grid.ok_or_else(|| Error::input("noise", "needs a signed grid of integers"))?;
    let team = &on.into();
    let first = solve_with(team, problem, spec, cancelled)?;
    let metric = Metric::of(problem);
    let scales: &[f64] = if spec.scale.is_some() { &SCALES[..1] } else { &SCALES };
    // per scale: codes, objective and expected error of each row
    let mut tried: Vec<(Vec<f64>, Vec<Found>)> = Vec::new();
    for factor in scales {
        let scale: Vec<f64> = first.scale.iter().map(|s| s * factor).collect();
        let begun = match *factor == 1.0 {
            true => first.clone(),
            // the codes are looked for again: a quick start will do
            false => {
                let method = if spec.method == Method::Auto { Method::Descent } else { spec.method };
                solve_with(team, problem, &Spec { scale: Some(scale.clone()), method, ..spec.clone() }, cancelled)?
            }
        };
        let rows = (0..problem.m).into_par_iter().map(|o| metric.descend(&begun, o, spec, grid, noise)).collect();
        tried.push((scale, rows));
    }
    let total = |rows: &[Found]| rows.iter().map(|r| r.expected).sum::<f64>();
    let of_all = (0..tried.len()).min_by(|a, b| total(&tried[*a].1).total_cmp(&total(&tried[*b].1))).unwrap_or(0);
    let mut best = first;
    let codes = best.codes.get_or_insert_default();
    for o in 0..problem.m {
        let own = |a: &usize, b: &usize| tried[*a].1[o].expected.total_cmp(&tried[*b].1[o].expected);
        let at = match spec.owner == ScaleOwner::Layer || spec.power_of_two {
            true => of_all,
            false => (0..tried.len()).min_by(own).unwrap_or(0),
        };
        let (scale, found) = (tried[at].0[o], &tried[at].1[o]);
        let range = o * problem.n..(o + 1) * problem.n;
        best.scale[o] = scale;
        best.objective.grid[o] = found.objective;
        // what was found for a grid without noise is the bound of no other
        best.objective.bound[o] = best.objective.bound[o].min(found.objective);
        codes[range.clone()].copy_from_slice(&found.codes);
        best.w[range].iter_mut().zip(&found.codes).for_each(|(w, q)| *w = scale * grid.value(*q));
    }
    let (value, bound): (f64, f64) = (best.objective.grid.iter().sum(), best.objective.bound.iter().sum());
    best.gap = if value > 0.0 { (value - bound) / value } else { 0.0 };
    Ok(best)
}

struct Found {
    codes: Vec<i32>,
    /// Without noise, and with what it is expected to add.
    objective: f64,
    expected: f64,
}

/// H with its ridge.
struct Metric {
    n: usize,
    h: Vec<f64>,
}

impl Metric {
    fn of(problem: &Problem) -> Self {
        let n = problem.n;
        let diagonal = |i: usize| problem.h[i * n + i];
        let live = (0..n).filter(|&i| diagonal(i) > 0.0).count().max(1);
        let mu = problem.ridge * (0..n).map(diagonal).sum::<f64>() / live as f64;
        let mut h = problem.h.clone();
        (0..n).filter(|&i| diagonal(i) > 0.0).for_each(|i| h[i * n + i] += mu);
        Self { n, h }
    }

    /// Codes of row `o` from `begun`'s: each in turn the best of all levels with the others as they are, until none moves.
    fn descend(&self, begun: &Solution, o: usize, spec: &Spec, grid: &Grid, noise: &Noise) -> Found {
        let (n, scale, levels) = (self.n, begun.scale[o], grid.levels());
        let range = o * n..(o + 1) * n;
        let begin = begun.codes.as_ref().map_or(&[][..], |codes| &codes[range.clone()]);
        let mut level: Vec<f64> = begin.iter().map(|q| grid.value(*q)).collect();
        let mut gradient = vec![0.0; n];
        for (i, (level, free)) in level.iter().zip(&begun.free[range]).enumerate() {
            let off = scale * level - free;
            if self.h[i * n + i] > 0.0 {
                dense::axpy(&mut gradient, off, &self.h[i * n..(i + 1) * n]);
            }
        }
        let (mut gained, mut moved, mut sweeps) = (0.0, true, 0);
        while moved && sweeps < MOST_SWEEPS {
            (moved, sweeps) = (false, sweeps + 1);
            for i in (0..n).filter(|&i| self.h[i * n + i] > 0.0) {
                let (lower, upper) = (spec.lower_at(o, i, n), spec.upper_at(o, i, n));
                let row = &self.h[i * n..(i + 1) * n];
                // what a move costs: of the problem, and of the noise
                let cost = |to: f64| {
                    let step = scale * (to - level[i]);
                    let of_noise = scale * scale * noise.power[i] * (noise.of(to) - noise.of(level[i]));
                    (step * (2.0 * gradient[i] + step * row[i]), of_noise)
                };
                let inside = |to: &&f64| (lower..=upper).contains(&(scale * **to));
                let best = levels.iter().filter(inside).map(|&to| (to, cost(to)));
                let best = best.min_by(|a, b| (a.1.0 + a.1.1).total_cmp(&(b.1.0 + b.1.1)));
                let Some((to, (change, _))) = best.filter(|(_, c)| c.0 + c.1 < -1e-12 * row[i] * scale * scale) else {
                    continue;
                };
                let step = scale * (to - level[i]);
                level[i] = to;
                gained += change;
                dense::axpy(&mut gradient, step, row);
                moved = true;
            }
        }
        let objective = (begun.objective.grid[o] + gained).max(0.0);
        let noisy: f64 = level.iter().zip(&noise.power).map(|(l, p)| p * noise.of(*l)).sum();
        let codes = level.iter().map(|l| grid.nearest(*l).0).collect();
        Found { codes, objective, expected: objective + scale * scale * noisy }
    }
}
