//! A layer problem with fewer samples than inputs, solved from the samples themselves: S x S and S x n matrices instead
//! of n x n ones (a dense layer of 25088 inputs has a Gram matrix of 5 GB, and 256 images of 51 MB). METHOD section 2.
//!
//! With K = X X^T + mu I over centred samples (X: S x n) the continuous solution is W* = W0 + (T - W0 X^T) K^-1 X, by the
//! push-through identity. The grid follows by error feedback and coordinate descent in the space of samples
//! (compute/solver/sample_sweep.rs), at a scale searched on the true objective.

mod grid;

use super::absolute::Samples;
use super::signs::Signs;
use super::solve::{Method, Objectives, Solution, Spec, Status, gaps};
use crate::compute::Device;
use crate::compute::solver::dense::{self, Cholesky};
use crate::error::{Error, Result};

/// |x_j|^2 below this share of the largest is nothing.
const DEAD: f64 = 1e-28;
/// The ladder's first rung and its end, in units of the mean of H's diagonal.
const DAMPING: (f64, f64) = (1e-11, 0.05);
/// Inputs from which the n x n matrices of the other form cost more than its better search for levels brings.
const MANY: usize = 2048;

/// Whether this form can do what `spec` asks for.
pub fn applies(spec: &Spec) -> bool {
    let methods = [Method::Auto, Method::Rtn, Method::Feedback, Method::Descent];
    !spec.is_boxed()
        && spec.palette.is_none()
        && spec.types.is_none()
        && spec.signs == Signs::Free
        && methods.contains(&spec.method)
}

/// Whether this form is the better one: it applies, there are fewer samples than inputs, and the Gram matrix is large.
pub fn pays(spec: &Spec, n: usize, samples: usize) -> bool {
    applies(spec) && samples < n && n > MANY
}

/// The problem over live inputs, sorted by rising norm (sweeps start at the last), centred if there is a bias.
struct Dual<'a> {
    n: usize,
    m: usize,
    samples: usize,
    /// Inputs of the problem in this order.
    live: Vec<usize>,
    /// n x S.
    x: Vec<f64>,
    /// m x S.
    t: Vec<f64>,
    /// m x n: W0.
    prior: Vec<f64>,
    /// Ridge and damping.
    mu: f64,
    damping: f64,
    /// m x n: W*.
    free: Vec<f64>,
    /// m: objective at W*.
    rest: Vec<f64>,
    spec: &'a Spec,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Solves a layer problem in the space of samples. `prior` (m x n): what the ridge pulls towards (zeros if `None`);
/// `ridge` in units of the mean of H's diagonal over live inputs. The bound is the continuous optimum.
///
/// # Errors
/// `Input`: `spec` asks for what this form cannot do (see `applies`). `Work`: lengths that do not agree, NaN or infinity,
/// the device failed. `Interrupted`: cancelled.
pub fn solve_dual(
    dev: &Device,
    samples: &Samples<'_>,
    (prior, ridge): (Option<&[f64]>, f64),
    spec: &Spec,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Solution> {
    if !applies(spec) {
        let message =
            "the form by samples has no bounds, masks, palettes or signs by input, and only rtn, feedback and descent";
        return Err(Error::input("form", message));
    }
    let dual = Dual::new(samples, (prior, ridge), spec, cancelled)?;
    let (n, m) = (samples.n, samples.m);
    // dead inputs keep the prior
    let mut w = prior.map_or(vec![0.0; m * n], <[f64]>::to_vec);
    let spread = |all: &mut [f64], live: &[f64]| {
        for (at, v) in live.iter().enumerate() {
            all[at / dual.n * n + dual.live[at % dual.n]] = *v;
        }
    };
    let mut free = w.clone();
    spread(&mut free, &dual.free);
    let mut solution = Solution {
        w: Vec::new(),
        codes: None,
        palette: None,
        types: None,
        signs: None,
        scale: vec![1.0; m],
        free,
        objective: Objectives {
            rtn: dual.rest.clone(),
            fit: dual.rest.clone(),
            grid: dual.rest.clone(),
            bound: dual.rest.clone(),
        },
        status: Status::Optimal,
        iterations: 0,
        gap: 0.0,
        worst_gap: 0.0,
        damping: dual.damping,
        note: Some(format!("solved in the space of its {} samples", dual.samples)),
    };
    match &spec.grid {
        None => spread(&mut w, &dual.free),
        Some(grid) => {
            let found = grid::solve(dev, &dual, grid)?;
            spread(&mut w, &found.values);
            let codes: Vec<i32> = w.iter().enumerate().map(|(at, w)| grid.nearest(w / found.scale[at / n]).0).collect();
            w.iter_mut().enumerate().for_each(|(at, w)| *w = found.scale[at / n] * grid.value(codes[at]));
            solution.codes = Some(codes);
            (solution.objective.rtn, solution.objective.grid) = (found.rtn, found.objective);
            solution.scale = found.scale;
        }
    }
    solution.w = w;
    let own: Vec<f64> = (0..m).map(|o| dual.target(o).iter().map(|t| t * t).sum()).collect();
    (solution.gap, solution.worst_gap) = gaps(&solution.objective, &own);
    if solution.worst_gap > spec.tolerance {
        solution.status = Status::Heuristic;
    }
    Ok(solution)
}

impl<'a> Dual<'a> {
    fn new(
        given: &Samples<'_>,
        (prior, ridge): (Option<&[f64]>, f64),
        spec: &'a Spec,
        cancelled: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Self> {
        let (all, m, samples) = (given.n, given.m, given.count());
        let lengths = all > 0 && m > 0 && samples > 0 && given.x.len() == samples * all && given.t.len() == samples * m;
        if !lengths || prior.is_some_and(|w| w.len() != m * all) {
            return Err(Error::work("layer problem", "the samples' lengths do not agree, or there are none"));
        }
        if given.x.iter().chain(given.t).chain(prior.unwrap_or(&[])).any(|v| !v.is_finite()) {
            return Err(Error::work("layer problem", "holds NaN or infinity"));
        }
        let x = columns(given.x, all, given.bias);
        let t = columns(given.t, m, given.bias);
        let square = |j: usize| x[j * samples..(j + 1) * samples].iter().map(|v| v * v).sum::<f64>();
        let squares: Vec<f64> = (0..all).map(square).collect();
        let top = squares.iter().copied().fold(0.0, f64::max);
        let mut live: Vec<usize> = (0..all).filter(|&j| squares[j] > DEAD * top).collect();
        live.sort_by(|&i, &j| squares[i].total_cmp(&squares[j]).then(i.cmp(&j)));
        let n = live.len();
        let mean = live.iter().map(|&j| squares[j]).sum::<f64>() / n.max(1) as f64;
        let x: Vec<f64> = live.iter().flat_map(|&j| x[j * samples..(j + 1) * samples].iter().copied()).collect();
        let prior: Vec<f64> = (0..m * n).map(|at| prior.map_or(0.0, |w| w[at / n * all + live[at % n]])).collect();
        let mut kernel = vec![0.0; samples * samples];
        if n > 0 {
            dense::add_outer(&mut kernel, 1.0, &x, &x, (n, samples, samples));
        }
        let (factor, mu, damping) = factor(&kernel, samples, ridge * mean, mean)?;
        let mut dual =
            Self { n, m, samples, live, x, t, prior, mu, damping, free: vec![], rest: vec![], spec, cancelled };
        let left: Vec<f64> = dual.residuals(&dual.prior).into_iter().map(|r| -r).collect();
        let mut pull = left.clone();
        factor.solve(&mut pull, m, dense::par(m * samples * samples));
        dual.free = dual.prior.clone();
        if n > 0 {
            let transposed: Vec<f64> = (0..samples * n).map(|at| dual.x[at % n * samples + at / n]).collect();
            dense::product(&mut dual.free, true, &pull, &transposed, (m, samples, n), dense::par(m * samples * n));
        }
        let rows = left.chunks_exact(samples).zip(pull.chunks_exact(samples));
        dual.rest = rows.map(|(left, pull)| (mu * dense::dot(left, pull)).max(0.0)).collect();
        Ok(dual)
    }

    fn target(&self, o: usize) -> &[f64] {
        &self.t[o * self.samples..(o + 1) * self.samples]
    }

    /// m x S: w X^T - t for `w` (m x n).
    fn residuals(&self, w: &[f64]) -> Vec<f64> {
        let (n, m, samples) = (self.n, self.m, self.samples);
        let mut r: Vec<f64> = self.t.iter().map(|t| -t).collect();
        if n > 0 {
            dense::product(&mut r, true, w, &self.x, (m, n, samples), dense::par(m * n * samples));
        }
        r
    }

    /// m: objective of every row at `w` (m x n).
    fn objectives(&self, w: &[f64]) -> Vec<f64> {
        let r = self.residuals(w);
        let square = |v: f64| v * v;
        (0..self.m)
            .map(|o| {
                let (at, of) = (o * self.n..(o + 1) * self.n, o * self.samples..(o + 1) * self.samples);
                let ridge: f64 = w[at.clone()].iter().zip(&self.prior[at]).map(|(w, p)| square(w - p)).sum();
                r[of].iter().map(|r| square(*r)).sum::<f64>() + self.mu * ridge
            })
            .collect()
    }

    fn stop(&self) -> Result<()> {
        if (self.cancelled)() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

/// width x S from S x width, each column less its mean if `centred`.
fn columns(rows: &[f64], width: usize, centred: bool) -> Vec<f64> {
    let samples = rows.len() / width;
    let mut out = vec![0.0; rows.len()];
    for (j, column) in out.chunks_exact_mut(samples).enumerate() {
        column.iter_mut().enumerate().for_each(|(s, v)| *v = rows[s * width + j]);
        if centred {
            // twice: what the first mean rounds off, the second takes
            for _ in 0..2 {
                let mean = column.iter().sum::<f64>() / samples as f64;
                column.iter_mut().for_each(|v| *v -= mean);
            }
        }
    }
    out
}

/// Factors `kernel` (S x S) plus mu on its diagonal; where that is singular to rounding, plus as little of 1e-11, 1e-10,
/// .. of `mean` as it takes. Returns the factor, all that was added, and the damping.
fn factor(kernel: &[f64], samples: usize, ridge: f64, mean: f64) -> Result<(Cholesky, f64, f64)> {
    let trace: f64 = (0..samples).map(|s| kernel[s * samples + s]).sum();
    let mut damping = 0.0;
    loop {
        let mu = ridge + damping * mean;
        let mut a = kernel.to_vec();
        // all inputs dead: any positive diagonal will do
        (0..samples).for_each(|s| a[s * samples + s] += if trace > 0.0 { mu } else { 1.0 });
        let least = 1e-13 * trace / samples as f64;
        let enough = |c: &Cholesky| (0..samples).all(|s| c.diagonal(s).powi(2) > least);
        match Cholesky::new(a, samples, dense::par(samples.pow(3) / 3)).filter(enough) {
            Some(found) => return Ok((found, mu, damping)),
            None if damping < DAMPING.1 => damping = if damping == 0.0 { DAMPING.0 } else { damping * 10.0 },
            None => return Err(Error::work("layer problem", "the samples' products are not positive definite")),
        }
    }
}
