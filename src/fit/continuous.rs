//! Continuous weights in a box: ADMM or accelerated projected gradient over all rows at once, then an active-set polish
//! of each row, until a certificate holds. METHOD section 4.
//!
//! Works in the unit-diagonal scaling of H, where badly scaled inputs do no harm.

use faer::Par;
use rayon::prelude::*;

use super::polish::Row;
use super::solve::Method;
use super::system::System;
use crate::compute::solver::dense::{self, Cholesky};
use crate::compute::solver::{admm, box_gradient};
use crate::error::{Error, Result};

/// Iterations between looks at the certificate.
const CHECK: usize = 10;
/// Relative gap from which the polish takes over: the active sets are nearly right then.
const HAND_OVER: f64 = 3e-2;

/// What the box solver found.
#[derive(Debug, Clone)]
pub(super) struct Boxed {
    /// m x n, live inputs.
    pub w: Vec<f64>,
    /// m: proven lower bound of each row's objective.
    pub bound: Vec<f64>,
    pub iterations: usize,
}

/// The box problem of the rows that the box touches, scaled.
struct Batch {
    n: usize,
    rows: Vec<usize>,
    /// n x n, unit diagonal.
    h: Vec<f64>,
    b: Vec<f64>,
    lower: Vec<f64>,
    upper: Vec<f64>,
    /// Objective that no weights can undercut, and the value of 1/2 w H w - b w there: both per row.
    rest: Vec<f64>,
    least: Vec<f64>,
    least_eigenvalue: f64,
}

/// Solves every row to a relative gap of `tolerance`, or as near as `most` iterations come.
///
/// `lower` and `upper`: m x n over live inputs.
pub(super) fn solve(
    system: &System,
    (lower, upper): (&[f64], &[f64]),
    method: Method,
    (tolerance, most): (f64, usize),
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Boxed> {
    let (n, m) = (system.n, system.m);
    let mut found = Boxed { w: system.free.clone(), bound: system.rest.clone(), iterations: 0 };
    let touched = |o: &usize| (o * n..(o + 1) * n).any(|i| system.free[i] < lower[i] || system.free[i] > upper[i]);
    let rows: Vec<usize> = (0..m).filter(touched).collect();
    if rows.is_empty() {
        return Ok(found);
    }
    let batch = Batch::new(system, rows, lower, upper);
    let count = batch.rows.len();
    let par = dense::par(count * n * n);
    let mut w: Vec<f64> = (0..count * n)
        .map(|at| {
            (system.free[batch.rows[at / n] * n + at % n] * system.unit[at % n])
                .max(batch.lower[at])
                .min(batch.upper[at])
        })
        .collect();
    let mut state = batch.certify(&w, par);
    let mut stepper = Stepper::new(&batch, method, w.clone());
    while found.iterations < most && !state.iter().all(|c| c.within(tolerance)) {
        if cancelled() {
            return Err(Error::interrupted());
        }
        let steps = CHECK.min(most - found.iterations);
        let point = stepper.run(&batch, steps, par);
        found.iterations += steps;
        for (r, now) in batch.certify(point, par).into_iter().enumerate() {
            if now.gap < state[r].gap {
                state[r] = now;
                w[r * n..(r + 1) * n].copy_from_slice(&point[r * n..(r + 1) * n]);
            }
        }
        if found.iterations >= most || state.iter().all(|c| c.within(HAND_OVER)) {
            batch.polish(&mut w, &mut state, tolerance);
        }
    }
    for (r, &o) in batch.rows.iter().enumerate() {
        for k in 0..n {
            found.w[o * n + k] = (w[r * n + k] / system.unit[k]).max(lower[o * n + k]).min(upper[o * n + k]);
        }
    }
    let objectives = system.objectives(&found.w);
    for (r, &o) in batch.rows.iter().enumerate() {
        found.bound[o] = (objectives[o] - state[r].gap).max(system.rest[o]);
    }
    Ok(found)
}

impl Batch {
    fn new(system: &System, rows: Vec<usize>, lower: &[f64], upper: &[f64]) -> Self {
        let (n, unit) = (system.n, &system.unit);
        let scaled = |all: &[f64], power: i32| -> Vec<f64> {
            rows.iter()
                .flat_map(|&o| (0..n).map(move |k| (o, k)))
                .map(|(o, k)| all[o * n + k] * unit[k].powi(power))
                .collect()
        };
        let h = (0..n * n).map(|at| system.h[at] / (unit[at / n] * unit[at % n])).collect();
        let least = rows
            .iter()
            .map(|&o| -0.5 * dense::dot(&system.free[o * n..(o + 1) * n], &system.b[o * n..(o + 1) * n]))
            .collect();
        let trace = system.factor.trace_of_inverse(dense::par(n * n * n / 3));
        Self {
            n,
            h,
            b: scaled(&system.b, -1),
            lower: scaled(lower, 1),
            upper: scaled(upper, 1),
            rest: rows.iter().map(|&o| system.rest[o]).collect(),
            least,
            // rounding in the trace must not make the bound too good
            least_eigenvalue: 0.99 / trace,
            rows,
        }
    }

    fn row(&self, r: usize) -> Row<'_> {
        let of = |all: &'_ [f64]| -> std::ops::Range<usize> {
            debug_assert!(all.len() >= (r + 1) * self.n);
            r * self.n..(r + 1) * self.n
        };
        Row {
            h: &self.h,
            b: &self.b[of(&self.b)],
            lower: &self.lower[of(&self.lower)],
            upper: &self.upper[of(&self.upper)],
            least_eigenvalue: self.least_eigenvalue,
        }
    }

    /// Certificates of all rows at `w` (rows x n, inside the box).
    fn certify(&self, w: &[f64], par: Par) -> Vec<Certificate> {
        let (n, count) = (self.n, self.rows.len());
        let mut g = vec![0.0; w.len()];
        dense::product(&mut g, false, w, &self.h, (count, n, n), par);
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

    /// Polishes every row that is not within `tolerance` of its optimum to far below it.
    fn polish(&self, w: &mut [f64], state: &mut [Certificate], tolerance: f64) {
        w.par_chunks_exact_mut(self.n).zip(state.par_iter_mut()).enumerate().for_each(|(r, (w, state))| {
            if !state.polished {
                let row = self.row(r);
                row.polish(w, 0.5e-4 * tolerance * state.size);
                *state = Certificate { polished: true, ..self.certificate(r, w, &row.gradient(w)) };
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

/// Either first-order method with its state.
enum Stepper {
    Admm { state: admm::State<f64>, k: Vec<f64>, rho: f64 },
    Gradient { state: box_gradient::State<f64>, step: f64 },
}

impl Stepper {
    fn new(batch: &Batch, method: Method, w: Vec<f64>) -> Self {
        if method == Method::Gradient {
            let step = 1.0 / box_gradient::largest_eigenvalue(&batch.h, batch.n);
            return Stepper::Gradient { state: box_gradient::start(batch.n, w), step };
        }
        let rho = 0.1;
        let k = shifted_inverse(batch, rho);
        let state = admm::start(batch.admm(&k, rho), w);
        Stepper::Admm { state, k, rho }
    }

    /// `count` iterations; the point inside the box that they lead to.
    fn run(&mut self, batch: &Batch, count: usize, par: Par) -> &[f64] {
        match self {
            Stepper::Gradient { state, step } => {
                let Batch { n, h, b, lower, upper, .. } = batch;
                let data = box_gradient::Data { n: *n, b, lower, upper, h, step: *step };
                box_gradient::twin(data, state, count, par);
                &state.w
            }
            Stepper::Admm { state, k, rho } => {
                admm::twin(batch.admm(k, *rho), state, count - 1, par);
                let before = state.z.clone();
                admm::twin(batch.admm(k, *rho), state, 1, par);
                let wanted = balanced(state, &before, *rho);
                if !(0.25..=4.0).contains(&(wanted / *rho)) {
                    state.u.iter_mut().for_each(|u| *u *= *rho / wanted);
                    *rho = wanted;
                    *k = shifted_inverse(batch, wanted);
                    let v = state.z.iter().zip(&state.u).zip(&batch.b).map(|((z, u), b)| b + wanted * (z - u));
                    state.v = v.collect();
                }
                &state.z
            }
        }
    }
}

impl Batch {
    fn admm<'a>(&'a self, k: &'a [f64], rho: f64) -> admm::Data<'a, f64> {
        admm::Data { n: self.n, b: &self.b, lower: &self.lower, upper: &self.upper, k, rho }
    }
}

/// Residual balancing: the rho at which the relative primal and dual residuals would be alike.
fn balanced(state: &admm::State<f64>, before: &[f64], rho: f64) -> f64 {
    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|v| v * v).sum::<f64>().sqrt();
    let primal = norm(&mut state.w.iter().zip(&state.z).map(|(w, z)| w - z));
    let primal_size = norm(&mut state.w.iter().copied()).max(norm(&mut state.z.iter().copied()));
    let dual = rho * norm(&mut state.z.iter().zip(before).map(|(a, b)| a - b));
    let dual_size = rho * norm(&mut state.u.iter().copied());
    let ratio = (primal / primal_size.max(1e-300)) / (dual / dual_size.max(1e-300)).max(1e-300);
    (rho * ratio.sqrt().clamp(0.1, 10.0)).clamp(1e-6, 1e3)
}

/// (H + rho I)^-1.
fn shifted_inverse(batch: &Batch, rho: f64) -> Vec<f64> {
    let n = batch.n;
    let par = dense::par(n * n * n);
    let mut a = batch.h.clone();
    (0..n).for_each(|k| a[k * n + k] += rho);
    match Cholesky::new(a, n, par) {
        Some(factor) => factor.inverse(par),
        // H itself was factored, so H + rho I can be; were it not, this K makes the iteration a gradient step
        None => (0..n * n).map(|at| if at / n == at % n { 1.0 / (n as f64 + rho) } else { 0.0 }).collect(),
    }
}
