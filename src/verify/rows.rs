//! Rows of a solved layer problem, checked against their definition and against the interior point.

use rayon::prelude::*;
use serde::Serialize;

use super::interior::Row;
use crate::chip::Grid;
use crate::error::Result;
use crate::fit::{Problem, Solution, Spec};

/// Inputs beyond which a dense row takes an interior point minutes: there the optimality conditions alone are checked.
const LARGEST: usize = 1200;
/// Two evaluations of one objective may differ by this share of it,
const SAME: f64 = 1e-6;
/// and by this share of the row's own target, which is what rounding in f64 leaves.
const ROUNDING: f64 = 1e-9;
/// Sums over samples are rounded: a perfect fit may leave this share of the target less than nothing. The solver counts
/// that as zero, and so does the check.
const NOISE: f64 = 1e-6;
/// Largest scaled projected gradient of continuous weights that count as optimal, where no optimum is at hand.
const STATIONARY: f64 = 1e-4;
/// `fit` drops inputs below this share of the largest.
const DEAD: f64 = 1e-28;

/// One row looked at.
#[derive(Debug, Clone, Serialize)]
pub struct RowCheck {
    pub row: usize,
    pub inputs: usize,
    /// Objective of the stored weights: as the solver says, and computed again.
    pub stored: f64,
    pub stored_again: f64,
    /// Objective of the best continuous weights in the box: as the solver says, and by the interior point (null beyond
    /// its size).
    pub fit: f64,
    pub optimum: Option<f64>,
    /// The solver's proven lower bound of `stored`.
    pub bound: f64,
    /// Largest projected gradient of the continuous weights, relative to the largest |b|; null where they were not kept
    /// (weights on a grid in a box).
    pub kkt: Option<f64>,
    pub verdict: Verdict,
}

/// What the check says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Agrees,
    /// Says what does not.
    Disagrees(String),
}

impl Verdict {
    pub fn agrees(&self) -> bool {
        *self == Verdict::Agrees
    }
}

/// `count` of `m` rows, evenly spread, the first at `seed` modulo the distance.
pub fn sampled(m: usize, count: usize, seed: u64) -> Vec<usize> {
    let count = count.min(m);
    let distance = m.checked_div(count).unwrap_or(1).max(1);
    let first = (seed % distance as u64) as usize;
    (0..count).map(|k| (k * m / count + first).min(m - 1)).collect()
}

/// Checks `rows` of a solution, in parallel.
///
/// # Errors
/// Work: the interior point did not converge.
pub fn check(problem: &Problem, spec: &Spec, solution: &Solution, rows: &[usize]) -> Result<Vec<RowCheck>> {
    let setting = Setting::new(problem, spec, solution);
    rows.par_iter().map(|&o| setting.check(o)).collect()
}

struct Setting<'a> {
    problem: &'a Problem,
    spec: &'a Spec,
    solution: &'a Solution,
    live: Vec<usize>,
    /// n x n over live inputs, with ridge and damping.
    h: Vec<f64>,
    /// What ridge and damping pull with.
    pull: Vec<f64>,
}

impl<'a> Setting<'a> {
    fn new(problem: &'a Problem, spec: &'a Spec, solution: &'a Solution) -> Self {
        let n = problem.n;
        let diagonal = |i: usize| problem.h[i * n + i];
        let top = (0..n).map(diagonal).fold(0.0, f64::max);
        let live: Vec<usize> = (0..n).filter(|&i| diagonal(i) > DEAD * top).collect();
        let ridge = problem.ridge * live.iter().map(|&i| diagonal(i)).sum::<f64>() / live.len().max(1) as f64;
        let pull: Vec<f64> = live.iter().map(|&i| ridge + solution.damping * (diagonal(i) + ridge)).collect();
        let mut h: Vec<f64> = live
            .iter()
            .flat_map(|&i| live.iter().map(move |&j| (i, j)))
            .map(|(i, j)| 0.5 * (problem.h[i * n + j] + problem.h[j * n + i]))
            .collect();
        pull.iter().enumerate().for_each(|(k, p)| h[k * live.len() + k] += p);
        Self { problem, spec, solution, live, h, pull }
    }

    fn live<T: Copy>(&self, of: impl Fn(usize) -> T) -> Vec<T> {
        self.live.iter().map(|&i| of(i)).collect()
    }

    fn quantized(&self) -> bool {
        self.solution.codes.is_some()
    }

    fn check(&self, o: usize) -> Result<RowCheck> {
        let (p, n) = (self.problem, self.problem.n);
        let w0 = self.live(|i| p.prior.as_ref().map_or(0.0, |w| w[o * n + i]));
        let mut b = self.live(|i| p.b[o * n + i]);
        b.iter_mut().zip(&w0).zip(&self.pull).for_each(|((b, w), pull)| *b += pull * w);
        let pulled: f64 = w0.iter().zip(&self.pull).map(|(w, pull)| pull * w * w).sum();
        let open = self.live(|_| f64::INFINITY);
        let closed = open.iter().map(|v| -v).collect();
        let mut row = Row { h: self.h.clone(), b, constant: 0.0, lower: closed, upper: open };
        let w = self.live(|i| self.solution.w[o * n + i]);
        let free = self.live(|i| self.solution.free[o * n + i]);
        row.constant = match &p.tt {
            Some(tt) => tt[o] + pulled,
            // Objectives then count from the unconstrained optimum.
            None => -row.objective(&free),
        };
        let own = row.constant.abs().max(f64::MIN_POSITIVE);
        let below = row.objective(&free).min(0.0);
        if below > -NOISE * own {
            row.constant -= below;
        }
        let bounded = self.spec.is_boxed();
        let unsigned = self.spec.grid.as_ref().is_some_and(Grid::is_unsigned);
        let boxed = bounded || unsigned || self.solution.signs.is_some();
        if bounded {
            row.lower = self.live(|i| self.spec.lower_at(o, i, n));
            row.upper = self.live(|i| self.spec.upper_at(o, i, n));
        }
        if unsigned && self.solution.signs.is_none() {
            row.lower.iter_mut().for_each(|low| *low = low.max(0.0));
        }
        if let Some(signs) = &self.solution.signs {
            for ((low, high), sign) in row.lower.iter_mut().zip(&mut row.upper).zip(self.live(|i| signs[i])) {
                if sign > 0 { *low = low.max(0.0) } else { *high = high.min(0.0) }
            }
        }
        let continuous = if boxed { (!self.quantized()).then_some(&w) } else { Some(&free) };
        let optimum = if self.live.len() <= LARGEST { Some(row.least()?.objective) } else { None };
        let objective = &self.solution.objective;
        let mut found = RowCheck {
            row: o,
            inputs: self.live.len(),
            stored: objective.grid[o],
            stored_again: row.objective(&w),
            fit: objective.fit[o],
            optimum,
            bound: objective.bound[o],
            kkt: continuous.map(|w| row.kkt(w)),
            verdict: Verdict::Agrees,
        };
        if let Some(what) = self.disagreement(&found, &row, &w, own, o) {
            found.verdict = Verdict::Disagrees(what);
        }
        Ok(found)
    }

    fn disagreement(&self, found: &RowCheck, row: &Row, w: &[f64], own: f64, o: usize) -> Option<String> {
        let slack = |value: f64, share: f64| share * value.abs() + ROUNDING * own;
        let outside = |(w, (l, u)): (&f64, (&f64, &f64))| *w < l - 1e-9 * l.abs() || *w > u + 1e-9 * u.abs();
        if let Some(i) = w.iter().zip(row.lower.iter().zip(&row.upper)).position(outside) {
            return Some(format!("weight {} = {} is outside its bounds", self.live[i], w[i]));
        }
        if let (Some(grid), Some(codes)) = (&self.spec.grid, &self.solution.codes) {
            let n = self.problem.n;
            let (codes, scale) = (&codes[o * n..(o + 1) * n], self.solution.scale[o]);
            let stored = &self.solution.w[o * n..(o + 1) * n];
            let off = |(q, w): (&i32, &f64)| {
                let level = grid.value(*q);
                grid.nearest(level).0 != *q || (level * scale - w).abs() > 1e-9 * w.abs()
            };
            let magnitude = |(i, w): (usize, &f64)| self.solution.signs.as_ref().map_or(*w, |s| w * f64::from(s[i]));
            let magnitudes: Vec<f64> = stored.iter().enumerate().map(magnitude).collect();
            if let Some(i) = codes.iter().zip(&magnitudes).position(off) {
                return Some(format!(
                    "weight {i} = {} is not its code {} times the scale {scale}",
                    stored[i], codes[i]
                ));
            }
        }
        if let (Some(palette), Some(codes)) = (&self.solution.palette, &self.solution.codes) {
            let (n, m) = (self.problem.n, self.problem.m);
            let own = &palette[o * palette.len() / m..(o + 1) * palette.len() / m];
            let value = |i: usize| usize::try_from(codes[o * n + i]).ok().and_then(|code| own.get(code));
            let sign = |i: usize| self.solution.signs.as_ref().map_or(1.0, |s| f64::from(s[i]));
            let off = |i: &usize| value(*i).is_none_or(|v| v * sign(*i) != self.solution.w[o * n + i]);
            if let Some(i) = (0..n).find(off) {
                return Some(format!("weight {i} = {} is not its palette's value", self.solution.w[o * n + i]));
            }
        }
        if (found.stored - found.stored_again).abs() > slack(found.stored, SAME) {
            return Some("the objective of the stored weights comes out otherwise".into());
        }
        if found.bound > found.stored_again + slack(found.stored, SAME) {
            return Some("the lower bound is above the objective".into());
        }
        match (found.optimum, found.kkt) {
            (Some(best), _) if (found.fit - best).abs() > slack(best, self.spec.tolerance.max(SAME)) => {
                Some("the continuous optimum comes out otherwise".into())
            }
            // On a grid the bound may be above the continuous optimum: it holds for what is stored.
            (Some(best), _) if !self.quantized() && found.bound > best + slack(best, SAME) => {
                Some("the lower bound is above the optimum".into())
            }
            (None, Some(kkt)) if kkt > STATIONARY => Some("the continuous weights are not stationary".into()),
            _ => None,
        }
    }
}
