//! A layer problem made ready to solve: dead inputs out, inputs sorted, ridge in, H factored with as little damping as
//! it takes. METHOD sections 2 and 5.

use faer::Par;

use super::problem::Problem;
use crate::compute::solver::dense::{self, Cholesky};
use crate::error::{Error, Result};

/// H_ii below this share of the largest is nothing: even inputs scaled by 1e-6 and 1e6 are 1e-24 apart.
const DEAD: f64 = 1e-28;
/// A smaller pivot of the unit-diagonal H is rounding error.
const LEAST_PIVOT: f64 = 1e-12;
/// The ladder's first rung, and where it ends, in units of the unit-diagonal H: rounding noise never needs so much.
const DAMPING: (f64, f64) = (1e-11, 0.05);

/// The problem over live inputs, sorted by rising H_ii (the error feedback starts at the last).
///
/// The objective of row o at w (n values) is `rest[o] + (w - free) H (w - free)^T`: the problem's own objective with
/// ridge and damping, less the constant that dead inputs add to the ridge.
#[derive(Debug)]
pub(super) struct System {
    /// Inputs of the problem in the system's order.
    pub live: Vec<usize>,
    pub n: usize,
    pub m: usize,
    /// n x n, with ridge and damping.
    pub h: Vec<f64>,
    /// m x n, with ridge and damping pulling towards the prior.
    pub b: Vec<f64>,
    /// n: sqrt(H_ii); `h[i][j] / (unit[i] unit[j])` has a unit diagonal.
    pub unit: Vec<f64>,
    /// Factor of that unit-diagonal matrix.
    pub factor: Cholesky,
    /// What the ladder had to add to the diagonal of the unit-diagonal H; 0 mostly.
    pub damping: f64,
    /// m x n: W* = B H^-1.
    pub free: Vec<f64>,
    /// m: objective at W*.
    pub rest: Vec<f64>,
}

impl System {
    /// # Errors
    /// `Input`: h is so far from positive semidefinite that it cannot be a Gram matrix.
    pub fn new(p: &Problem) -> Result<Self> {
        let top = (0..p.n).map(|i| p.h[i * p.n + i]).fold(0.0, f64::max);
        let mut live: Vec<usize> = (0..p.n).filter(|&i| p.h[i * p.n + i] > DEAD * top).collect();
        live.sort_by(|&i, &j| p.h[i * p.n + i].total_cmp(&p.h[j * p.n + j]).then(i.cmp(&j)));
        let (n, m) = (live.len(), p.m);
        let mean = live.iter().map(|&i| p.h[i * p.n + i]).sum::<f64>() / n.max(1) as f64;
        let mu = p.ridge * mean;
        let mut h = vec![0.0; n * n];
        for (row, &i) in h.chunks_exact_mut(n.max(1)).zip(&live) {
            for (v, &j) in row.iter_mut().zip(&live) {
                // both triangles count: sums from a device may differ in their last bits
                *v = 0.5 * (p.h[i * p.n + j] + p.h[j * p.n + i]);
            }
        }
        let prior = |o: usize, k: usize| p.prior.as_ref().map_or(0.0, |w| w[o * p.n + live[k]]);
        let mut b: Vec<f64> = (0..m * n).map(|at| p.b[at / n * p.n + live[at % n]]).collect();
        for k in 0..n {
            h[k * n + k] += mu;
        }
        let unit: Vec<f64> = (0..n).map(|k| h[k * n + k].sqrt()).collect();
        let (factor, damping) = factor(&h, &unit)?;
        // What ridge and damping pull with: on input k, mu + damping H_kk.
        let pull: Vec<f64> = unit.iter().map(|u| mu + damping * u * u).collect();
        for (k, u) in unit.iter().enumerate() {
            h[k * n + k] += damping * u * u;
        }
        let mut system = System {
            live: Vec::new(),
            n,
            m,
            h,
            b: Vec::new(),
            unit,
            factor,
            damping,
            free: Vec::new(),
            rest: Vec::new(),
        };
        let mut constant = p.tt.clone();
        for o in 0..m {
            for k in 0..n {
                let w0 = prior(o, k);
                b[o * n + k] += pull[k] * w0;
                if let Some(c) = &mut constant {
                    c[o] += pull[k] * w0 * w0;
                }
            }
        }
        system.b = b;
        system.free =
            system.unconstrained(p.prior.as_ref().map(|_| (0..m * n).map(|at| prior(at / n, at % n)).collect()));
        system.rest = match constant {
            None => vec![0.0; m],
            Some(c) => (0..m)
                .map(|o| (c[o] - dense::dot(&system.free[o * n..(o + 1) * n], &system.b[o * n..(o + 1) * n])).max(0.0))
                .collect(),
        };
        system.live = live;
        Ok(system)
    }

    /// W* by the factor and two rounds of refinement, from `start` (m x n) if given.
    fn unconstrained(&self, start: Option<Vec<f64>>) -> Vec<f64> {
        let (n, m) = (self.n, self.m);
        let par = dense::par(n * n * m);
        let mut rounds = 2;
        let mut w = start.unwrap_or_else(|| vec![0.0; m * n]);
        if w.iter().all(|v| *v == 0.0) {
            rounds = 3;
        }
        let mut residual = vec![0.0; m * n];
        for _ in 0..rounds {
            self.gradient(&w, &mut residual, par);
            self.precondition(&mut residual, par);
            w.iter_mut().zip(&residual).for_each(|(w, r)| *w -= r);
        }
        w
    }

    /// out (m x n) = w H - B.
    pub fn gradient(&self, w: &[f64], out: &mut [f64], par: Par) {
        if w.is_empty() {
            return;
        }
        dense::product(out, false, w, &self.h, (self.m, self.n, self.n), par);
        out.iter_mut().zip(&self.b).for_each(|(g, b)| *g -= b);
    }

    /// x (rows x n) = x H^-1 by the factor.
    fn precondition(&self, x: &mut [f64], par: Par) {
        if x.is_empty() {
            return;
        }
        let divide = |x: &mut [f64]| {
            x.chunks_exact_mut(self.n).for_each(|row| row.iter_mut().zip(&self.unit).for_each(|(v, u)| *v /= u));
        };
        divide(x);
        self.factor.solve(x, self.m, par);
        divide(x);
    }

    /// m: objective of every row at `w` (m x n).
    pub fn objectives(&self, w: &[f64]) -> Vec<f64> {
        let (n, m) = (self.n, self.m);
        if n == 0 {
            return self.rest.clone();
        }
        let d: Vec<f64> = w.iter().zip(&self.free).map(|(w, f)| w - f).collect();
        let mut hd = vec![0.0; m * n];
        dense::product(&mut hd, false, &d, &self.h, (m, n, n), dense::par(m * n * n));
        let rows = d.chunks_exact(n).zip(hd.chunks_exact(n));
        rows.zip(&self.rest).map(|((d, hd), rest)| rest + dense::dot(d, hd).max(0.0)).collect()
    }

    /// m: what each row has to explain, sum t^2 (or as much of it as is known).
    pub fn targets(&self) -> Vec<f64> {
        let n = self.n;
        let own = |o: usize| dense::dot(&self.free[o * n..(o + 1) * n], &self.b[o * n..(o + 1) * n]).max(0.0);
        (0..self.m).map(|o| self.rest[o] + own(o)).collect()
    }

    /// Raises lower bounds of the rows' objectives (m) to others, of what lies above the unconstrained optimum: row by
    /// row, or all of them if only their sum is proven.
    pub fn raise(&self, bound: &mut [f64], above: &[f64], together: bool) {
        let other: Vec<f64> = above.iter().zip(&self.rest).map(|(above, rest)| rest + above).collect();
        let all = other.iter().sum::<f64>() > bound.iter().sum();
        for (bound, other) in bound.iter_mut().zip(other) {
            *bound = if together && all { other } else { bound.max(if together { 0.0 } else { other }) };
        }
    }

    /// Row-major values over live inputs (m x n) of a function over the problem's inputs.
    pub fn gather(&self, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        (0..self.m).flat_map(|o| self.live.iter().map(move |&i| (o, i))).map(|(o, i)| value(o, i)).collect()
    }
}

/// Factors the unit-diagonal form of `h`, adding to its diagonal as little of 1e-11, 1e-10, .. as makes it positive
/// definite. Returns the factor and what was added.
fn factor(h: &[f64], unit: &[f64]) -> Result<(Cholesky, f64)> {
    let n = unit.len();
    let par = dense::par(n * n * n / 3);
    let mut damping = 0.0;
    loop {
        let mut a: Vec<f64> = (0..n * n).map(|at| h[at] / (unit[at / n] * unit[at % n])).collect();
        for k in 0..n {
            a[k * n + k] = 1.0 + damping;
        }
        let enough = |c: &Cholesky| (0..n).all(|k| c.diagonal(k).powi(2) >= LEAST_PIVOT);
        match Cholesky::new(a, n, par).filter(enough) {
            Some(found) => return Ok((found, damping)),
            None if damping < DAMPING.1 => damping = if damping == 0.0 { DAMPING.0 } else { damping * 10.0 },
            None => {
                return Err(Error::input("h", "is not positive semidefinite: it cannot be a sum of x x^T"));
            }
        }
    }
}
