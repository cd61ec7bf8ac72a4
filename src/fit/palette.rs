//! Palettes: every row (output) stores its weights as codes for K values of its own, which are part of the fit.
//!
//! From a start (k-means, quantiles, even spacing) codes and values take turns: error feedback and coordinate descent
//! choose the codes, and for given codes the best values solve P^T H P v = P^T b exactly, P (n x K) the codes' indicator.
//! Neither step makes it worse; the best of several starts is kept for every row. METHOD section 5.
//!
//! A row's levels are held in units of its largest |w|, so that tolerances of the kernels mean what they do elsewhere.

mod start;
mod values;

use rayon::prelude::*;

use super::quantize::{Quantized, Task};
use super::rounding::{Lane, Rounding, Rows};
use super::solve::{Method, Spec};
use crate::chip::ScaleOwner;
use crate::compute::solver::{Steps, dense};
use crate::error::{Error, Result};
use start::Start;
use values::Row;
pub(super) use values::{nearest as position, row_values};

/// Most values of a palette: a code is a byte at most.
const MOST_VALUES: usize = 256;
/// Most rounds of codes and values.
const ROUNDS: usize = 60;
/// Most rounds of error feedback with values that have settled.
const RESTARTS: usize = 4;
/// A round must gain this share of the row's own size to be followed by another.
const GAIN: f64 = 1e-9;

/// Rows with their palettes.
#[derive(Debug, Clone)]
pub(super) struct Palettes {
    /// m x K, rising along a row, in units of the row's scale.
    pub levels: Vec<f64>,
    /// Codes as levels, and the scales.
    pub stored: Quantized,
}

/// # Errors
/// `Input`: no values, or more than a byte can tell apart; a grid or scales beside the palette.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let Some(count) = spec.palette else { return Ok(()) };
    let message = match () {
        () if !(1..=MOST_VALUES).contains(&count) => format!("{count} is outside 1..={MOST_VALUES}"),
        () if spec.grid.is_some() => "takes the place of a grid: not both".into(),
        () if spec.scale.is_some() || spec.power_of_two => "has no scale".into(),
        () if spec.owner == ScaleOwner::Layer => "is every output's own, not the layer's".into(),
        () => return Ok(()),
    };
    Err(Error::input("palette", message))
}

/// K-means of each row's unconstrained weights, all inputs alike: what weight clustering ships, and the baseline.
pub(super) fn nearest(task: &Task<'_>, count: usize) -> Palettes {
    let begun = begin(task, count, &task.system.free, Start::Plain);
    Palettes { stored: begun.rounded(task, &task.system.free), ..begun }
}

/// The best palettes and codes found. The scales of `task` are given ones.
///
/// # Errors
/// The device failed, or the work was cancelled.
pub(super) fn solve(task: &Task<'_>, count: usize, method: Method, rounding: &mut dyn Rounding) -> Result<Palettes> {
    let baseline = nearest(task, count);
    if method == Method::Rtn {
        return Ok(baseline);
    }
    let mut search = Search { task, count, rounding };
    let mut kept = Kept { cost: task.costs(&baseline.stored), best: baseline.clone() };
    let starts = [Start::Weighted, Start::Quantiles, Start::Even, Start::Plain];
    for start in starts {
        let mut begun = begin(task, count, task.around, start);
        begun.stored.levels = search.feedback(&begun)?;
        kept.take(task, &task.costs(&begun.stored), &begun);
        if method != Method::Feedback {
            let (cost, settled) = search.settle(begun)?;
            kept.take(task, &cost, &settled);
        }
    }
    if method == Method::Feedback {
        return Ok(kept.best);
    }
    let (cost, settled) = search.settle(baseline)?;
    kept.take(task, &cost, &settled);
    for _ in 0..RESTARTS {
        let mut again = kept.best.clone();
        again.stored.levels = search.feedback(&again)?;
        let (cost, settled) = search.settle(again)?;
        if !kept.take(task, &cost, &settled) {
            break;
        }
    }
    Ok(kept.best)
}

/// The best of every row so far.
struct Kept {
    cost: Vec<f64>,
    best: Palettes,
}

impl Kept {
    /// Takes over the rows that are better; whether there was one.
    fn take(&mut self, task: &Task<'_>, cost: &[f64], other: &Palettes) -> bool {
        let (n, count) = (task.system.n, other.levels.len() / task.system.m.max(1));
        let better: Vec<usize> = (0..cost.len()).filter(|&o| cost[o] < self.cost[o]).collect();
        for &o in &better {
            self.cost[o] = cost[o];
            let (codes, values) = (o * n..(o + 1) * n, o * count..(o + 1) * count);
            self.best.stored.levels[codes.clone()].copy_from_slice(&other.stored.levels[codes]);
            self.best.levels[values.clone()].copy_from_slice(&other.levels[values]);
        }
        !better.is_empty()
    }
}

impl Palettes {
    /// The weights `w` (m x n) at their nearest levels within the box.
    fn rounded(&self, task: &Task<'_>, w: &[f64]) -> Quantized {
        let (n, scale) = (task.system.n, self.stored.scale.clone());
        let steps = Steps::Rows { count: self.levels.len() / task.system.m.max(1), lists: self.levels.clone() };
        let levels = (0..task.system.m).flat_map(|o| {
            let (steps, scale) = (steps.of_row(o).into_owned(), scale[o]);
            let level = move |at: usize| match task.bounds {
                None => steps.nearest(w[at] / scale),
                Some((lower, upper)) => steps.nearest_within(w[at] / scale, lower[at] / scale, upper[at] / scale),
            };
            (o * n..(o + 1) * n).map(level)
        });
        Quantized { levels: levels.collect(), scale: scale.clone() }
    }
}

/// Levels for the weights `w` (m x n); no codes yet.
fn begin(task: &Task<'_>, count: usize, w: &[f64], start: Start) -> Palettes {
    let (n, system) = (task.system.n, task.system);
    let scale = task.max_abs_scales();
    let weights: Vec<f64> = (0..n).map(|i| system.h[i * n + i]).collect();
    let row = |o: usize| {
        let w: Vec<f64> = w[o * n..(o + 1) * n].iter().map(|w| w / scale[o]).collect();
        let mut levels = start.levels(&w, &weights, count);
        if let Some((lower, upper)) = task.bounds {
            let least = lower[o * n..(o + 1) * n].iter().fold(f64::INFINITY, |a, b| a.min(*b)) / scale[o];
            let most = upper[o * n..(o + 1) * n].iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b)) / scale[o];
            levels.iter_mut().for_each(|v| *v = v.max(least).min(most));
        }
        levels
    };
    let levels = (0..system.m).into_par_iter().flat_map_iter(row).collect();
    Palettes { levels, stored: Quantized { levels: vec![0.0; system.m * n], scale } }
}

/// The search for palettes of `count` values.
struct Search<'a> {
    task: &'a Task<'a>,
    count: usize,
    rounding: &'a mut dyn Rounding,
}

impl Search<'_> {
    fn relevel(&mut self, p: &Palettes) {
        self.rounding.relevel(Steps::Rows { lists: p.levels.clone(), count: self.count });
    }

    /// Error feedback to the levels of `p`.
    fn feedback(&mut self, p: &Palettes) -> Result<Vec<f64>> {
        self.relevel(p);
        let lanes: Vec<Lane> =
            p.stored.scale.iter().enumerate().map(|(row, scale)| Lane { row, scale: *scale }).collect();
        self.rounding.levels(&lanes, 1)
    }

    /// Codes and values in turn until neither moves a row. Returns the rows' objectives, less a constant a row.
    fn settle(&mut self, begun: Palettes) -> Result<(Vec<f64>, Palettes)> {
        let (task, count, system) = (self.task, self.count, self.task.system);
        let (n, m) = (system.n, system.m);
        let mut p = begun;
        let mut hq = vec![0.0; m * n];
        if n == 0 {
            return Ok((vec![0.0; m], p));
        }
        dense::product(&mut hq, false, &p.stored.levels, &system.h, (m, n, n), dense::par(m * n * n));
        let size = |o: usize| dense::dot(&system.free[o * n..(o + 1) * n], &system.b[o * n..(o + 1) * n]);
        let mut cost = task.costs(&p.stored);
        let mut going = vec![true; m];
        for _ in 0..ROUNDS {
            self.relevel(&p);
            self.rounding.descend(Rows::all(&mut p.stored, &mut hq, &going))?;
            let rows = p.levels.par_chunks_mut(count).zip(p.stored.levels.par_chunks_mut(n)).zip(hq.par_chunks_mut(n));
            rows.enumerate().filter(|(o, _)| going[*o]).for_each(|(o, ((levels, q), hq))| {
                let at = o * n..(o + 1) * n;
                let bounds = task.bounds.map(|(lower, upper)| (&lower[at.clone()], &upper[at.clone()]));
                Row { n, h: &system.h, b: &system.b[at.clone()], scale: p.stored.scale[o], bounds }
                    .refit(levels, q, hq);
            });
            for o in (0..m).filter(|&o| going[o]).collect::<Vec<_>>() {
                let now = task.cost(&p.stored, o, &hq[o * n..(o + 1) * n]);
                going[o] = now < cost[o] - GAIN * size(o) || cost[o].is_infinite() && now.is_finite();
                cost[o] = now;
            }
            if !going.contains(&true) {
                break;
            }
        }
        Ok((cost, p))
    }
}
