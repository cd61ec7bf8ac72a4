//! A layer problem made ready to solve: dead inputs out, inputs sorted, ridge in, H factored with as little damping as
//! it takes. METHOD sections 2 and 5.

use faer::Par;
use rayon::prelude::*;

use super::factorize::{self, Rough, Solver};
use super::problem::Problem;
use crate::compute::solver::dense::{self, Cholesky};
use crate::compute::{Device, Team};
use crate::error::Result;

/// H_ii below this share of the largest is nothing: even inputs scaled by 1e-6 and 1e6 are 1e-24 apart.
const DEAD: f64 = 1e-28;
/// Entries of a matrix below which a second core costs more than it brings.
pub(super) const PARALLEL_FROM: usize = 1 << 16;
/// Most rounds of refinement with a factor in f32, and the relative size of the last correction at which W* is as good
/// as by one in f64.
const MOST_ROUNDS: usize = 8;
const REFINED: f64 = 1e-11;

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
    /// The factor is good to f32 only; W* is not.
    rough: bool,
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
        Self::with(p, None)
    }

    /// As `new`, but a large H is factored on the first real GPU of `team`, if it has any.
    pub fn on(team: &Team, p: &Problem) -> Result<Self> {
        Self::with(p, team.devices().find(|dev| factorize::pays(dev, p.n)))
    }

    fn with(p: &Problem, dev: Option<&Device>) -> Result<Self> {
        let top = (0..p.n).map(|i| p.h[i * p.n + i]).fold(0.0, f64::max);
        let mut live: Vec<usize> = (0..p.n).filter(|&i| p.h[i * p.n + i] > DEAD * top).collect();
        live.sort_by(|&i, &j| p.h[i * p.n + i].total_cmp(&p.h[j * p.n + j]).then(i.cmp(&j)));
        let (n, m) = (live.len(), p.m);
        let mean = live.iter().map(|&i| p.h[i * p.n + i]).sum::<f64>() / n.max(1) as f64;
        let mu = p.ridge * mean;
        let mut h = vec![0.0; n * n];
        let rows = h.par_chunks_exact_mut(n.max(1)).with_min_len(PARALLEL_FROM.div_ceil(n.max(1)));
        rows.zip(&live).for_each(|(row, &i)| {
            for (v, &j) in row.iter_mut().zip(&live) {
                // both triangles count: sums from a device may differ in their last bits
                *v = 0.5 * (p.h[i * p.n + j] + p.h[j * p.n + i]);
            }
        });
        let prior = |o: usize, k: usize| p.prior.as_ref().map_or(0.0, |w| w[o * p.n + live[k]]);
        let mut b: Vec<f64> = (0..m * n).map(|at| p.b[at / n * p.n + live[at % n]]).collect();
        for k in 0..n {
            h[k * n + k] += mu;
        }
        let unit: Vec<f64> = (0..n).map(|k| h[k * n + k].sqrt()).collect();
        let quick = match dev.and_then(|dev| Rough::new(dev, &h, &unit)) {
            Some(rough) => rough.factor()?.map(|factor| (rough, factor)),
            None => None,
        };
        let (quick, (factor, damping)) = match quick {
            Some((rough, factor)) => (Some(rough), (factor, 0.0)),
            None => (None, factorize::exactly(&h, &unit)?),
        };
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
            rough: quick.is_some(),
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
        let start = p.prior.as_ref().map(|_| (0..m * n).map(|at| prior(at / n, at % n)).collect::<Vec<_>>());
        let start = start.unwrap_or_else(|| vec![0.0; m * n]);
        if let Some(quick) = &quick {
            match system.refined(start.clone(), quick)? {
                Some(free) => system.free = free,
                None => {
                    tracing::debug!("H of {n} inputs: refinement does not converge from f32, factored on the CPU");
                    // the damping that is zero in f32 is zero in f64
                    (system.factor, _) = factorize::exactly(&system.h, &system.unit)?;
                    system.rough = false;
                }
            }
        }
        if !system.rough {
            system.free = system.unconstrained(start)?;
        }
        system.rest = match constant {
            None => vec![0.0; m],
            Some(c) => (0..m)
                .map(|o| (c[o] - dense::dot(&system.free[o * n..(o + 1) * n], &system.b[o * n..(o + 1) * n])).max(0.0))
                .collect(),
        };
        system.live = live;
        Ok(system)
    }

    /// W* by the factor and two rounds of refinement, from `w` (m x n).
    fn unconstrained(&self, mut w: Vec<f64>) -> Result<Vec<f64>> {
        let rounds = if w.iter().all(|v| *v == 0.0) { 3 } else { 2 };
        for _ in 0..rounds {
            self.correct(&mut w, &Solver::Exact(&self.factor))?;
        }
        Ok(w)
    }

    /// W* by a factor in f32 and residuals in f64, from `w` (m x n); none if that does not converge.
    fn refined(&self, mut w: Vec<f64>, factor: &Rough) -> Result<Option<Vec<f64>>> {
        let mut before = f64::INFINITY;
        for _ in 0..MOST_ROUNDS {
            let change = self.correct(&mut w, &Solver::Rough(factor))?;
            if change <= REFINED {
                return Ok(Some(w));
            }
            if change >= 0.5 * before {
                break;
            }
            before = change;
        }
        Ok(None)
    }

    /// One round of refinement; the size of the correction relative to the row, of the worst row.
    fn correct(&self, w: &mut [f64], solver: &Solver<'_>) -> Result<f64> {
        let (n, m) = (self.n, self.m);
        let par = dense::par(n * n * m);
        let mut residual = vec![0.0; m * n];
        self.gradient(w, &mut residual, par);
        self.precondition(&mut residual, solver, par)?;
        w.iter_mut().zip(&residual).for_each(|(w, r)| *w -= r);
        // in units where H has a unit diagonal
        let size = |row: &[f64]| row.iter().zip(&self.unit).map(|(v, u)| (v * u).powi(2)).sum::<f64>().sqrt();
        let rows = residual.chunks_exact(n.max(1)).zip(w.chunks_exact(n.max(1)));
        let relative = |(change, row): (&[f64], &[f64])| match (size(change), size(row)) {
            (0.0, _) => 0.0,
            (change, row) => change / row,
        };
        // a NaN is no convergence
        Ok(rows.map(relative).fold(0.0, |worst: f64, v| if v.is_nan() { f64::INFINITY } else { worst.max(v) }))
    }

    /// The inverse of the unit-diagonal H (n x n) in f64.
    ///
    /// # Errors
    /// As `new`.
    pub fn inverse(&self) -> Result<Vec<f64>> {
        let par = dense::par(self.n.pow(3));
        Ok(match self.rough {
            false => self.factor.inverse(par),
            true => factorize::exactly(&self.h, &self.unit)?.0.inverse(par),
        })
    }

    /// out (m x n) = w H - B.
    pub fn gradient(&self, w: &[f64], out: &mut [f64], par: Par) {
        if w.is_empty() {
            return;
        }
        dense::product(out, false, w, &self.h, (self.m, self.n, self.n), par);
        out.iter_mut().zip(&self.b).for_each(|(g, b)| *g -= b);
    }

    /// x (rows x n) = x H^-1 by a factor of the unit-diagonal H.
    fn precondition(&self, x: &mut [f64], solver: &Solver<'_>, par: Par) -> Result<()> {
        if x.is_empty() {
            return Ok(());
        }
        let divide = |x: &mut [f64]| {
            x.chunks_exact_mut(self.n).for_each(|row| row.iter_mut().zip(&self.unit).for_each(|(v, u)| *v /= u));
        };
        divide(x);
        solver.solve(x, self.m, par)?;
        divide(x);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::{Choice, Limits};

    /// A problem with a spectrum from 1 down to `least`.
    fn problem(n: usize, m: usize, least: f64) -> Problem {
        let mut rng = fastrand::Rng::with_seed(1);
        let samples = 3 * n;
        let mut x: Vec<f64> = (0..samples * n).map(|_| rng.f64() - 0.5).collect();
        // the last inputs are nearly copies of the first
        for row in x.chunks_exact_mut(n) {
            (0..n / 8).for_each(|k| row[n - 1 - k] = row[k] + least * row[n - 1 - k]);
        }
        let mut h = vec![0.0; n * n];
        dense::add_outer(&mut h, 1.0, &x, &x, (samples, n, n));
        let b = (0..m * n).map(|_| rng.f64() - 0.5).collect();
        Problem::from_gram(n, m, h, b).unwrap()
    }

    /// The device's factor gives the same W* and inverse as f64, in several bands too; where f32 cannot carry the
    /// factorization it is done in f64.
    #[test]
    fn a_factor_in_f32_is_refined_to_f64() {
        for (least, rough) in [(0.5, true), (1e-5, false), (1e-3, false)] {
            let p = problem(200, 120, least);
            let exact = System::new(&p).unwrap();
            for limits in [Limits::Own, Limits::Buffer(80_000)] {
                let dev = Device::open_with(Choice::Gpu, limits).unwrap();
                let system = System::with(&p, Some(&dev)).unwrap();
                assert_eq!(system.rough, rough, "{least}");
                assert_eq!(system.damping, exact.damping);
                let near = |a: &[f64], b: &[f64]| {
                    let size = b.iter().fold(0.0f64, |s, v| s.max(v.abs()));
                    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-9 * size)
                };
                assert!(near(&system.free, &exact.free), "W* at {least}");
                assert!(near(&system.inverse().unwrap(), &exact.inverse().unwrap()), "inverse at {least}");
            }
        }
    }

    /// A device without room for the factor is no error.
    #[test]
    fn without_room_the_cpu_does_it() {
        let p = problem(400, 2, 0.5);
        let dev = Device::open_with(Choice::Gpu, Limits::Buffer(50_000)).unwrap();
        let system = System::with(&p, Some(&dev)).unwrap();
        assert!(!system.rough);
        assert_eq!(system.free, System::new(&p).unwrap().free);
    }
}
