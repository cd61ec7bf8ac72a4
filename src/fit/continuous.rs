//! Continuous weights in a box: block pivoting of each row from the clipped unconstrained optimum; where that does not
//! converge (or by name), ADMM or accelerated projected gradient over all rows at once and pivoting from what they
//! reach, until a certificate holds. METHOD section 4.
//!
//! Works in the unit-diagonal scaling of H, where badly scaled inputs do no harm.

use faer::Par;
use rayon::prelude::*;

use super::factorize::with_unit_diagonal;
use super::offload::least_work;
use super::polish::Row;
use super::solve::Method;
use super::stepper::{self, Stepper};
use super::system::System;
use crate::compute::solver::dense;
use crate::compute::{Device, Stop, Team};
use crate::error::{Error, Result};

/// Iterations between looks at the certificate.
const CHECK: usize = 10;
/// Relative gap from which the polish takes over: the active sets are nearly right then.
const HAND_OVER: f64 = 0.3;
/// Iterations after which the polish tries its luck with every row, and again after twice as many.
const FIRST_POLISH: usize = 20;

/// What the box solver found.
#[derive(Debug, Clone)]
pub(super) struct Boxed {
    /// m x n, live inputs.
    pub w: Vec<f64>,
    /// m: proven lower bound of each row's objective.
    pub bound: Vec<f64>,
    pub iterations: usize,
    /// Whether every row got within the tolerance.
    pub certified: bool,
}

/// What all rows of a system share.
struct Scaled {
    /// n x n, unit diagonal.
    h: Vec<f64>,
    /// n x n: H^-1.
    inverse: Vec<f64>,
    least_eigenvalue: f64,
}

/// The box problem of the rows that are still open, scaled.
pub(super) struct Batch<'a> {
    pub n: usize,
    /// The system's rows that this batch holds.
    pub rows: Vec<usize>,
    /// n x n, unit diagonal.
    pub h: &'a [f64],
    /// rows x n each.
    pub b: Vec<f64>,
    pub lower: Vec<f64>,
    pub upper: Vec<f64>,
    /// rows x n: the unconstrained optimum.
    free: Vec<f64>,
    /// Objective that no weights can undercut, and the value of 1/2 w H w - b w there: both per row.
    rest: Vec<f64>,
    least: Vec<f64>,
    shared: &'a Scaled,
}

/// A row that left its batch.
struct Done {
    row: usize,
    /// n.
    w: Vec<f64>,
    gap: f64,
}

/// What came of some rows.
struct Part {
    done: Vec<Done>,
    iterations: usize,
    certified: bool,
}

/// Solves every row to a relative gap of `tolerance`, or as near as `most` iterations come. Rows that are done leave the
/// batch, so that slow ones do not hold the others up.
///
/// `lower` and `upper`: m x n over live inputs. First-order iterations run on the devices of `team`, each of which has its
/// share of the rows.
pub(super) fn solve(
    team: &Team,
    system: &System,
    (lower, upper): (&[f64], &[f64]),
    method: Method,
    (tolerance, most): (f64, usize),
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Boxed> {
    let (n, m) = (system.n, system.m);
    let mut found = Boxed { w: system.free.clone(), bound: system.rest.clone(), iterations: 0, certified: true };
    let touched = |o: &usize| (o * n..(o + 1) * n).any(|i| system.free[i] < lower[i] || system.free[i] > upper[i]);
    let rows: Vec<usize> = (0..m).filter(touched).collect();
    if rows.is_empty() {
        return Ok(found);
    }
    let shared = Scaled::new(system)?;
    let goal = Goal { method, tolerance, most, cancelled };
    let some = |dev: &Device, rows: Vec<usize>, stop: &Stop| {
        solve_rows(dev, system, Batch::new(system, &shared, rows, lower, upper), (lower, upper), &goal, stop)
    };
    // what is not worth one device's latency stays whole
    let parts = match rows.len() * n * n < team.devices().map(least_work).max().unwrap_or(0) {
        true => vec![some(team.first(), rows, &Stop::default())?],
        false => team.each(team.split(0..rows.len()).into_iter().map(|at| rows[at].to_vec()), some)?,
    };
    let mut gap = vec![0.0; m];
    for part in parts {
        found.iterations = found.iterations.max(part.iterations);
        found.certified &= part.certified;
        for Done { row, w, gap: own } in part.done {
            found.w[row * n..(row + 1) * n].copy_from_slice(&w);
            gap[row] = own;
        }
    }
    let objectives = system.objectives(&found.w);
    for o in (0..m).filter(touched) {
        found.bound[o] = (objectives[o] - gap[o]).max(system.rest[o]);
    }
    Ok(found)
}

/// How well the rows are to be solved.
struct Goal<'a> {
    method: Method,
    tolerance: f64,
    /// Iterations.
    most: usize,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Solves the rows of `batch` on `dev`.
fn solve_rows(
    dev: &Device,
    system: &System,
    mut batch: Batch<'_>,
    (lower, upper): (&[f64], &[f64]),
    &Goal { method, tolerance, most, cancelled }: &Goal<'_>,
    stop: &Stop,
) -> Result<Part> {
    let n = batch.n;
    let mut found = Part { done: Vec::with_capacity(batch.rows.len()), iterations: 0, certified: true };
    let mut w = batch.clipped();
    let mut state = batch.certify(&w);
    let mut first_order: Option<Box<dyn Stepper>> = None;
    // The methods by name are first-order ones: they run before any polish.
    let by_name = method == Method::Admm || method == Method::Gradient;
    let mut next_polish = if by_name { FIRST_POLISH } else { 0 };
    loop {
        if cancelled() {
            return Err(Error::interrupted());
        }
        let last = found.iterations >= most;
        let all = last || found.iterations >= next_polish;
        next_polish = if all { (2 * next_polish).max(FIRST_POLISH) } else { next_polish };
        let near = if all { f64::INFINITY } else { HAND_OVER };
        if all || found.iterations > 0 {
            batch.polish(&mut w, &mut state, tolerance, near);
        }
        let open: Vec<usize> = (0..batch.rows.len()).filter(|&r| !last && !state[r].within(tolerance)).collect();
        if open.len() < batch.rows.len() {
            // rows that stay are told again later
            for (r, &row) in batch.rows.iter().enumerate().filter(|(r, _)| open.binary_search(r).is_err()) {
                found.certified &= !last || state[r].within(tolerance);
                // scaling back must not take a weight off its bound
                let weight = |k: usize| {
                    let (from, to) = (r * n + k, row * n + k);
                    if w[from] == batch.lower[from] {
                        lower[to]
                    } else if w[from] == batch.upper[from] {
                        upper[to]
                    } else {
                        (w[from] / system.unit[k]).max(lower[to]).min(upper[to])
                    }
                };
                found.done.push(Done { row, w: (0..n).map(weight).collect(), gap: state[r].gap });
            }
            batch.keep(&open);
            keep(&mut w, &open, n);
            state = open.iter().map(|&r| state[r]).collect();
            if let Some(stepper) = &mut first_order {
                stepper.keep(&batch, &open)?;
            }
        }
        if open.is_empty() || stop.asked() {
            break;
        }
        let steps = CHECK.min(most - found.iterations);
        let stepper = match &mut first_order {
            Some(stepper) => stepper,
            none => none.insert(stepper::start(dev, &batch, method, &w)?),
        };
        let point = stepper.run(&batch, steps)?;
        found.iterations += steps;
        for (r, now) in batch.certify(&point).into_iter().enumerate() {
            if now.gap < state[r].gap {
                state[r] = now;
                w[r * n..(r + 1) * n].copy_from_slice(&point[r * n..(r + 1) * n]);
            }
        }
    }
    Ok(found)
}

/// Keeps the rows `open` (rising) of a matrix with n columns.
pub(super) fn keep(all: &mut Vec<f64>, open: &[usize], n: usize) {
    for (to, &from) in open.iter().enumerate() {
        all.copy_within(from * n..(from + 1) * n, to * n);
    }
    all.truncate(open.len() * n);
}

impl Scaled {
    fn new(system: &System) -> Result<Self> {
        let (n, unit) = (system.n, &system.unit);
        let h = with_unit_diagonal(&system.h, unit);
        let inverse = system.inverse()?;
        let trace: f64 = (0..n).map(|k| inverse[k * n + k]).sum();
        // rounding in the trace must not make the bound too good
        Ok(Self { h, least_eigenvalue: 0.99 / trace, inverse })
    }
}

impl<'a> Batch<'a> {
    fn new(system: &System, shared: &'a Scaled, rows: Vec<usize>, lower: &[f64], upper: &[f64]) -> Self {
        let (n, unit) = (system.n, &system.unit);
        let scaled = |all: &[f64], power: i32| -> Vec<f64> {
            rows.iter()
                .flat_map(|&o| (0..n).map(move |k| (o, k)))
                .map(|(o, k)| all[o * n + k] * unit[k].powi(power))
                .collect()
        };
        let least = rows
            .iter()
            .map(|&o| -0.5 * dense::dot(&system.free[o * n..(o + 1) * n], &system.b[o * n..(o + 1) * n]))
            .collect();
        Self {
            n,
            h: &shared.h,
            b: scaled(&system.b, -1),
            lower: scaled(lower, 1),
            upper: scaled(upper, 1),
            free: scaled(&system.free, 1),
            rest: rows.iter().map(|&o| system.rest[o]).collect(),
            least,
            shared,
            rows,
        }
    }

    fn keep(&mut self, open: &[usize]) {
        let n = self.n;
        let all = [&mut self.b, &mut self.lower, &mut self.upper, &mut self.free];
        all.into_iter().for_each(|all| keep(all, open, n));
        [&mut self.rest, &mut self.least].into_iter().for_each(|all| keep(all, open, 1));
        self.rows = open.iter().map(|&r| self.rows[r]).collect();
    }

    /// For products of all rows with an n x n matrix.
    pub fn par(&self) -> Par {
        dense::par(self.rows.len() * self.n * self.n)
    }

    /// The unconstrained optimum, clipped to the box.
    fn clipped(&self) -> Vec<f64> {
        (0..self.b.len()).map(|at| self.free[at].max(self.lower[at]).min(self.upper[at])).collect()
    }

    fn row(&self, r: usize) -> Row<'_> {
        let at = r * self.n..(r + 1) * self.n;
        Row {
            h: self.h,
            b: &self.b[at.clone()],
            lower: &self.lower[at.clone()],
            upper: &self.upper[at],
            free: &self.free[r * self.n..(r + 1) * self.n],
            inverse: &self.shared.inverse,
            least_eigenvalue: self.shared.least_eigenvalue,
        }
    }

    /// Certificates of all rows at `w` (rows x n, inside the box).
    fn certify(&self, w: &[f64]) -> Vec<Certificate> {
        let (n, count) = (self.n, self.rows.len());
        let mut g = vec![0.0; w.len()];
        dense::product(&mut g, false, w, self.h, (count, n, n), self.par());
        g.iter_mut().zip(&self.b).for_each(|(g, b)| *g -= b);
        (0..count).map(|r| self.certificate(r, &w[r * n..(r + 1) * n], &g[r * n..(r + 1) * n])).collect()
    }

    fn certificate(&self, r: usize, w: &[f64], g: &[f64]) -> Certificate {
        let row = self.row(r);
        let half: f64 = w.iter().zip(g.iter().zip(row.b)).map(|(w, (g, b))| 0.5 * w * (g - b)).sum();
        Certificate {
            gap: 2.0 * row.gap(w, g),
            // a perfect fit has no objective to be relative to: then the target's own size counts
            size: (self.rest[r] + 2.0 * (half - self.least[r])).max(1e-9 * (self.rest[r] - 2.0 * self.least[r])),
            polished: false,
        }
    }

    /// Polishes the rows that are within `near` of their optimum, but not far within `tolerance`; keeps what is better.
    fn polish(&self, w: &mut [f64], state: &mut [Certificate], tolerance: f64, near: f64) {
        w.par_chunks_exact_mut(self.n).zip(state.par_iter_mut()).enumerate().for_each(|(r, (w, state))| {
            if state.polished || state.within(1e-4 * tolerance) || !state.within(near) {
                return;
            }
            state.polished = true;
            let row = self.row(r);
            let mut trial = w.to_vec();
            let reached = row.pivot(&mut trial);
            let mut now = self.certificate(r, &trial, &row.gradient(&trial));
            if reached && !now.within(1e-3 * tolerance) {
                row.refine(&mut trial);
                now = self.certificate(r, &trial, &row.gradient(&trial));
            }
            if now.gap < state.gap {
                *state = Certificate { polished: true, ..now };
                w.copy_from_slice(&trial);
            }
        });
    }
}

/// How far a row is from its optimum.
#[derive(Debug, Clone, Copy)]
struct Certificate {
    /// The objective is at most this much above the optimum.
    gap: f64,
    /// The objective, what the gap is relative to.
    size: f64,
    /// Whether the polish made this point, so that it need not try again.
    polished: bool,
}

impl Certificate {
    fn within(&self, tolerance: f64) -> bool {
        self.gap <= tolerance * self.size
    }
}
