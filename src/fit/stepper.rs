//! The first-order methods of the box solver, with their state: on this machine's cores in f64, or on a GPU.

use super::continuous::{Batch, keep};
use super::solve::Method;
use crate::compute::solver::dense::{self, Cholesky};
use crate::compute::solver::{admm, box_gradient};

/// A first-order method over the rows of a batch.
pub(super) trait Stepper {
    /// `count` iterations; the point inside the box (rows x n) that they lead to.
    fn run(&mut self, batch: &Batch, count: usize) -> Vec<f64>;
    /// Goes on with the rows `open` (rising) alone.
    fn keep(&mut self, open: &[usize]);
}

/// The method's stepper, starting at `w` (rows x n, inside the box).
pub(super) fn start(batch: &Batch, method: Method, w: &[f64]) -> Box<dyn Stepper> {
    if method == Method::Gradient {
        let step = 1.0 / box_gradient::largest_eigenvalue(&batch.h, batch.n);
        return Box::new(Gradient { state: box_gradient::start(batch.n, w.to_vec()), step });
    }
    let k = shifted_inverse(batch, FIRST_RHO);
    let state = admm::start(admm_data(batch, &k, FIRST_RHO), w.to_vec());
    Box::new(Admm { n: batch.n, state, k, rho: FIRST_RHO })
}

/// ADMM's first penalty, for H with a unit diagonal; balanced later.
const FIRST_RHO: f64 = 0.1;

struct Gradient {
    state: box_gradient::State<f64>,
    step: f64,
}

impl Stepper for Gradient {
    fn run(&mut self, batch: &Batch, count: usize) -> Vec<f64> {
        let Batch { n, h, b, lower, upper, .. } = batch;
        let data = box_gradient::Data { n: *n, b, lower, upper, h, step: self.step };
        box_gradient::twin(data, &mut self.state, count, batch.par());
        self.state.w.clone()
    }

    fn keep(&mut self, open: &[usize]) {
        let n = self.state.w.len() / self.state.t.len().max(1);
        keep(&mut self.state.w, open, n);
        keep(&mut self.state.y, open, n);
        keep(&mut self.state.t, open, 1);
    }
}

struct Admm {
    n: usize,
    state: admm::State<f64>,
    /// n x n: (H + rho I)^-1.
    k: Vec<f64>,
    rho: f64,
}

impl Stepper for Admm {
    fn run(&mut self, batch: &Batch, count: usize) -> Vec<f64> {
        let Admm { state, k, rho, .. } = self;
        admm::twin(admm_data(batch, k, *rho), state, count - 1, batch.par());
        let before = state.z.clone();
        admm::twin(admm_data(batch, k, *rho), state, 1, batch.par());
        let wanted = balanced(&state.w, &state.z, &state.u, &before, *rho);
        if !(0.25..=4.0).contains(&(wanted / *rho)) {
            state.u.iter_mut().for_each(|u| *u *= *rho / wanted);
            let v = state.z.iter().zip(&state.u).zip(&batch.b).map(|((z, u), b)| b + wanted * (z - u));
            state.v = v.collect();
            *rho = wanted;
            *k = shifted_inverse(batch, wanted);
        }
        state.z.clone()
    }

    fn keep(&mut self, open: &[usize]) {
        let admm::State { z, u, w, v } = &mut self.state;
        [z, u, w, v].into_iter().for_each(|all| keep(all, open, self.n));
    }
}

fn admm_data<'a>(batch: &'a Batch, k: &'a [f64], rho: f64) -> admm::Data<'a, f64> {
    admm::Data { n: batch.n, b: &batch.b, lower: &batch.lower, upper: &batch.upper, k, rho }
}

/// Residual balancing: the rho at which the relative primal and dual residuals would be alike.
fn balanced(w: &[f64], z: &[f64], u: &[f64], before: &[f64], rho: f64) -> f64 {
    let norm = |all: &mut dyn Iterator<Item = f64>| all.map(|v| v * v).sum::<f64>().sqrt();
    let primal = norm(&mut w.iter().zip(z).map(|(w, z)| w - z));
    let primal_size = norm(&mut w.iter().copied()).max(norm(&mut z.iter().copied()));
    let dual = rho * norm(&mut z.iter().zip(before).map(|(a, b)| a - b));
    let dual_size = rho * norm(&mut u.iter().copied());
    let tiny = f64::MIN_POSITIVE;
    let ratio = (primal / primal_size.max(tiny)) / (dual / dual_size.max(tiny)).max(tiny);
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
