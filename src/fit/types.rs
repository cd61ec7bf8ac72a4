//! Axon types: every input has one of K types, alike for all rows, every row has K values of its own, and a weight is its
//! row's value for the input's type, or nothing: w_oi = c_oi s_o[g_i], c binary (TrueNorth). Types, values and c are all
//! part of the fit; the values are integers times the row's scale.
//!
//! From a start (k-means of the inputs' columns) the columns are rounded one after the other with error feedback, each
//! taking the type that costs all rows least; then descent over the inputs (type and c at once, which the rows decide
//! together) and the best values for the codes (P^T H P v = P^T b) take turns. Neither step makes it worse; the best of
//! several starts is kicked (some inputs get other types) and settled again. METHOD section 5 has the parts; the combination is ours, and heuristic.

use rayon::prelude::*;

use super::palette::row_values;
use super::quantize::{Quantized, Task};
use super::solve::{Method, Spec};
use super::system::System;
use crate::chip::Grid;
use crate::compute::solver::dense;
use crate::error::{Error, Result};

/// Most types.
const MOST: usize = 16;
/// Starts of small layers, and multiplications of one sweep of all starts above which there are fewer.
const STARTS: usize = 64;
const WORK: usize = 1 << 28;
/// Rounds in which the best takes kicks, as many each round as there were starts over this; share of the inputs that a
/// kick gives other types.
const KICKS: usize = 4;
const SHARE: f64 = 0.1;
/// Rounds of k-means, of descent and values, and of descent with whole values.
const MEANS: usize = 20;
const ROUNDS: usize = 30;
const WHOLE: usize = 10;
/// Share of the objective that a round must gain.
const GAIN: f64 = 1e-4;

/// # Errors
/// `Input`: no types or too many; no integer grid; with a box, a palette or signs of inputs.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let Some(count) = spec.types else { return Ok(()) };
    let regular = spec.grid.as_ref().and_then(Grid::regular).is_some_and(|(low, high, step)| {
        step == 1.0 && low < 0.0 && high > 0.0 //
    });
    let message = match () {
        () if !(1..=MOST).contains(&count) => format!("{count} is outside 1..={MOST}"),
        () if !regular => "their values need a grid of integers of both signs".into(),
        () if !(spec.lower.is_none() && spec.upper.is_none()) => "know no box".into(),
        () if spec.power_of_two => "know no scales that are powers of two".into(),
        () if spec.method == Method::Exact => "are not searched by the exact method".into(),
        () => return Ok(()),
    };
    Err(Error::input("types", message))
}

/// Types of the inputs and levels of the weights.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    /// n.
    pub types: Vec<u8>,
    /// Levels and scales.
    pub stored: Quantized,
}

/// Rounding to nearest: types by k-means of the unconstrained columns, values by their means, with the max-abs scale.
///
/// # Errors
/// None: it is not cancelled.
pub(super) fn nearest(task: &Task<'_>, count: usize) -> Result<Typed> {
    let mut state = State::begin(task.system, count, 0);
    state.round();
    state.whole(task, false, &|| false)
}

/// The best found.
///
/// # Errors
/// `Interrupted`: cancelled.
pub(super) fn solve(
    task: &Task<'_>,
    count: usize,
    method: Method,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Typed> {
    let system = task.system;
    let baseline = nearest(task, count)?;
    if method == Method::Rtn || system.n == 0 {
        return Ok(baseline);
    }
    let work = system.m * system.n * system.n;
    let starts = (WORK / work.max(1)).clamp(2, STARTS);
    let settles = method != Method::Feedback;
    let one = |start: usize| -> Result<(f64, State<'_>)> {
        let mut state = State::begin(system, count, start);
        state.feedback();
        if settles {
            state.settle(ROUNDS, true, cancelled)?;
        } else {
            state.refresh();
        }
        Ok((state.objective(), state))
    };
    let found = (0..starts).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
    let Some(mut best) = found.into_iter().reduce(better) else { return Ok(baseline) };
    for round in 0..if settles { KICKS } else { 0 } {
        let kicked = |at: usize| -> Result<(f64, State<'_>)> {
            let mut state = best.1.clone();
            state.kick((round * STARTS + at) as u64);
            state.settle(ROUNDS, true, cancelled)?;
            Ok((state.objective(), state))
        };
        let found = (0..starts.div_ceil(KICKS)).into_par_iter().map(kicked).collect::<Result<Vec<_>>>()?;
        best = found.into_iter().fold(best, better);
    }
    let found = best.1.whole(task, settles, cancelled)?;
    let cost = |typed: &Typed| task.costs(&typed.stored).iter().sum::<f64>();
    Ok(if cost(&found) < cost(&baseline) { found } else { baseline })
}

/// The cheaper one, the first of equals.
fn better<'a>(a: (f64, State<'a>), b: (f64, State<'a>)) -> (f64, State<'a>) {
    if b.0 < a.0 { b } else { a }
}

/// A search: real values, or whole ones times `scale`.
#[derive(Clone)]
struct State<'a> {
    system: &'a System,
    count: usize,
    types: Vec<usize>,
    /// m x K.
    values: Vec<f64>,
    /// m x n: each 0 or the row's value for the input's type.
    q: Vec<f64>,
    /// m x n: q H - b.
    gradient: Vec<f64>,
}

impl<'a> State<'a> {
    /// Types and values by k-means of the columns of W*, where a column counts as near if each of its weights is near the
    /// row's value or near zero. The first start takes evenly spaced columns, the others random ones.
    fn begin(system: &'a System, count: usize, start: usize) -> Self {
        let (n, m) = (system.n, system.m);
        let w = |o: usize, i: usize| system.free[o * n + i];
        let mut rng = fastrand::Rng::with_seed(start as u64);
        let mut values = vec![0.0; m * count];
        for k in 0..count.min(n) {
            let column = if start == 0 { (2 * k + 1) * n / (2 * count.min(n)) } else { rng.usize(..n) };
            (0..m).for_each(|o| values[o * count + k] = w(o, column));
        }
        let mut types = vec![0usize; n];
        for _ in 0..MEANS {
            let mut moved = false;
            for (i, now) in types.iter_mut().enumerate() {
                let cost = |k: usize| (0..m).map(|o| miss(w(o, i), values[o * count + k])).sum::<f64>();
                let best = least((0..count).map(cost));
                moved |= best != *now;
                *now = best;
            }
            // the mean of the weights that take it; a value that none takes goes to the heavier side
            let mut sums = vec![(0.0, 0.0); m * count];
            let mut sides = vec![(0.0f64, 0.0f64); m * count];
            for (i, k) in types.iter().enumerate() {
                for o in 0..m {
                    let (v, at) = (w(o, i), o * count + k);
                    if (v - values[at]).abs() < v.abs() {
                        sums[at] = (sums[at].0 + v, sums[at].1 + 1.0);
                    }
                    sides[at] = (sides[at].0.max(v), sides[at].1.min(v));
                }
            }
            for ((value, (sum, taken)), (most, least)) in values.iter_mut().zip(&sums).zip(&sides) {
                *value = match *taken > 0.0 {
                    true => sum / taken,
                    false => 0.5 * if *most > -least { *most } else { *least },
                };
            }
            if !moved {
                break;
            }
        }
        Self { system, count, types, values, q: vec![0.0; m * n], gradient: Vec::new() }
    }

    fn value(&self, o: usize, k: usize) -> f64 {
        self.values[o * self.count + k]
    }

    /// The nearest of what the types and values allow to W*.
    fn round(&mut self) {
        let n = self.system.n;
        for (at, q) in self.q.iter_mut().enumerate() {
            let value = self.values[at / n * self.count + self.types[at % n]];
            let w = self.system.free[at];
            *q = if (w - value).abs() < w.abs() { value } else { 0.0 };
        }
    }

    /// Column after column from the last (the largest H_ii), its rounding made up for by those still to come.
    fn feedback(&mut self) {
        let (n, m, system) = (self.system.n, self.system.m, self.system);
        let mut left = system.free.clone();
        for j in (0..n).rev() {
            let cost = |k: usize| (0..m).map(|o| miss(left[o * n + j], self.value(o, k))).sum::<f64>();
            let k = least((0..self.count).map(cost));
            self.types[j] = k;
            // L_ji / L_ii of H = L L^T, from the factor of the unit-diagonal form
            let lower = |i: usize| {
                let factor = &system.factor;
                system.unit[j] * factor.data[i * n + j] / (system.unit[i] * factor.diagonal(i))
            };
            let row: Vec<f64> = (0..j).map(lower).collect();
            for o in 0..m {
                let (w, value) = (left[o * n + j], self.value(o, k));
                let q = if (w - value).abs() < w.abs() { value } else { 0.0 };
                self.q[o * n + j] = q;
                dense::axpy(&mut left[o * n..o * n + j], system.free[o * n + j] - q, &row);
            }
        }
    }

    /// Gives some inputs other types and sets them to zero, and all that take one value in some rows.
    fn kick(&mut self, seed: u64) {
        let (n, count) = (self.system.n, self.count);
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..((n as f64 * SHARE).ceil() as usize).max(1) {
            let i = rng.usize(..n);
            self.types[i] = rng.usize(..count);
            self.q.iter_mut().skip(i).step_by(n).for_each(|q| *q = 0.0);
        }
        for row in self.q.chunks_exact_mut(n) {
            let k = rng.usize(..count);
            if rng.f64() >= SHARE {
                continue;
            }
            row.iter_mut().zip(&self.types).filter(|(_, kind)| **kind == k).for_each(|(q, _)| *q = 0.0);
        }
        self.refit();
        self.refresh();
        self.place_unused();
    }

    fn objective(&self) -> f64 {
        let both = self.q.iter().zip(self.gradient.iter().zip(&self.system.b));
        both.map(|(q, (g, b))| q * (g - b)).sum()
    }

    fn refresh(&mut self) {
        let (n, m) = (self.system.n, self.system.m);
        self.gradient = self.system.b.iter().map(|b| -b).collect();
        // the starts have the cores
        dense::product(&mut self.gradient, true, &self.q, &self.system.h, (m, n, n), faer::Par::Seq);
    }

    /// Descent and, with `refit`, the best values in turn.
    fn settle(&mut self, rounds: usize, refit: bool, cancelled: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        let size: f64 = self.system.free.iter().zip(&self.system.b).map(|(w, b)| w * b).sum();
        self.refresh();
        let mut before = self.objective();
        for _ in 0..rounds {
            if cancelled() {
                return Err(Error::interrupted());
            }
            let moved = self.descend();
            if refit {
                self.refit();
                self.refresh();
                self.place_unused();
            }
            let now = self.objective();
            // less a constant, the objective is what is above W*
            if !moved || before - now < GAIN * (now + size).max(0.0) {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// One sweep over the inputs: the type, and which rows take it, with the least objective while all else stays.
    fn descend(&mut self) -> bool {
        let (n, m, system, count) = (self.system.n, self.system.m, self.system, self.count);
        let mut any = false;
        for i in (0..n).rev() {
            let curvature = system.h[i * n + i];
            let change = |state: &Self, o: usize, to: f64| {
                let step = to - state.q[o * n + i];
                step * (2.0 * state.gradient[o * n + i] + step * curvature)
            };
            let cost = |k: usize| {
                (0..m).map(|o| change(self, o, 0.0).min(change(self, o, self.value(o, k)))).sum::<f64>() //
            };
            let k = least((0..count).map(cost));
            self.types[i] = k;
            for o in 0..m {
                let value = self.value(o, k);
                let to = if change(self, o, value) < change(self, o, 0.0) { value } else { 0.0 };
                let step = to - self.q[o * n + i];
                if step != 0.0 {
                    any = true;
                    self.q[o * n + i] = to;
                    dense::axpy(&mut self.gradient[o * n..(o + 1) * n], step, &system.h[i * n..(i + 1) * n]);
                }
            }
        }
        any
    }

    /// A value that no weight of its row takes goes where one weight alone would gain the most.
    fn place_unused(&mut self) {
        let (n, count) = (self.system.n, self.count);
        for o in 0..self.system.m {
            let (q, g) = (&self.q[o * n..(o + 1) * n], &self.gradient[o * n..(o + 1) * n]);
            let mut used = vec![false; count];
            q.iter().zip(&self.types).filter(|(q, _)| **q != 0.0).for_each(|(_, k)| used[*k] = true);
            let mut most = vec![0.0; count];
            for (i, k) in self.types.iter().enumerate().filter(|(_, k)| !used[**k]) {
                let curvature = self.system.h[i * n + i];
                if g[i] * g[i] / curvature > most[*k] {
                    most[*k] = g[i] * g[i] / curvature;
                    self.values[o * count + k] = -g[i] / curvature;
                }
            }
        }
    }

    /// The best values for the codes, row by row.
    fn refit(&mut self) {
        let (n, count) = (self.system.n, self.count);
        for o in 0..self.system.m {
            let q = &mut self.q[o * n..(o + 1) * n];
            let code = |(i, q): (usize, &f64)| (*q != 0.0).then(|| self.types[i]);
            let codes: Vec<Option<usize>> = q.iter().enumerate().map(code).collect();
            let b = &self.system.b[o * n..(o + 1) * n];
            let values = &mut self.values[o * count..(o + 1) * count];
            row_values(&self.system.h, b, &codes, values);
            q.iter_mut().zip(&codes).for_each(|(q, code)| *q = code.map_or(0.0, |k| values[k]));
        }
    }

    /// Values as whole numbers of the row's scale, given or the finest that holds them all; with `better` the codes are
    /// settled again.
    fn whole(mut self, task: &Task<'_>, better: bool, cancelled: &(dyn Fn() -> bool + Sync)) -> Result<Typed> {
        let (n, m, count) = (self.system.n, self.system.m, self.count);
        let (low, high, _) = task.grid.regular().unwrap_or((-1.0, 1.0, 1.0));
        let scale_of = |o: usize, values: &[f64]| match task.fixed {
            Some(fixed) => fixed[o],
            None => {
                let most = values[o * count..(o + 1) * count].iter().fold(0f64, |m, v| m.max(v / high).max(v / low));
                if most > 0.0 { super::snap::snapped(most, task.scale_bits) } else { 1.0 }
            }
        };
        let mut scale: Vec<f64> = (0..m).map(|o| scale_of(o, &self.values)).collect();
        if task.owner == crate::chip::ScaleOwner::Layer {
            let most = scale.iter().copied().fold(0.0, f64::max);
            scale.fill(most);
        }
        let mut best: Option<(f64, Vec<usize>, Vec<f64>)> = None;
        for _ in 0..if better { WHOLE } else { 1 } {
            for (at, value) in self.values.iter_mut().enumerate() {
                let s = scale[at / count];
                *value = (*value / s).round().max(low).min(high) * s;
            }
            for (at, q) in self.q.iter_mut().enumerate() {
                *q = if *q == 0.0 { 0.0 } else { self.values[at / n * count + self.types[at % n]] };
            }
            if !better {
                break;
            }
            self.settle(ROUNDS, false, cancelled)?;
            let now = self.objective();
            if best.as_ref().is_some_and(|b| now >= b.0) {
                break;
            }
            best = Some((now, self.types.clone(), self.q.clone()));
            self.refit();
        }
        if let Some((_, types, q)) = best {
            (self.types, self.q) = (types, q);
        }
        let levels = self.q.iter().enumerate().map(|(at, q)| (q / scale[at / n]).round()).collect();
        Ok(Typed { types: self.types.iter().map(|k| *k as u8).collect(), stored: Quantized { levels, scale } })
    }
}

/// Squared error of `w` at the nearer of `value` and zero.
fn miss(w: f64, value: f64) -> f64 {
    (w * w).min((w - value) * (w - value))
}

/// Index of the least, the first of equals.
fn least(costs: impl Iterator<Item = f64>) -> usize {
    costs.enumerate().fold((0, f64::INFINITY), |best, (k, cost)| if cost < best.1 { (k, cost) } else { best }).0
}
