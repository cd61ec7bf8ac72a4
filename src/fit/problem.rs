//! The layer problem as sums over samples: everything a solver needs of the data. METHOD section 2.

use crate::compute::solver::dense;
use crate::error::{Error, Result};

/// A centred input whose share of its raw sum of squares is below this is constant: what is left is rounding.
const CONSTANT_INPUT: f64 = 1e-11;

/// min over W: sum_s ||W x_s - t_s||^2 + mu ||W - W0||^2 over centred x and t.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Inputs of a row.
    pub n: usize,
    /// Rows: outputs that share H.
    pub m: usize,
    /// n x n, symmetric: sum (x - xm)(x - xm)^T, without the ridge. A constant input has a row and column of zeros.
    pub h: Vec<f64>,
    /// m x n: sum (t - tm)(x - xm)^T, without the ridge.
    pub b: Vec<f64>,
    /// m: sum (t - tm)^2. `None` if unknown: then the unconstrained solution is taken to leave no residual, and
    /// objectives count only what the constraint costs.
    pub tt: Option<Vec<f64>>,
    /// m x n: W0, what the ridge pulls towards and what dead inputs get; zeros if `None`.
    pub prior: Option<Vec<f64>>,
    /// mu in units of the mean of H's diagonal over live inputs. 0 for none; 1e-6 is a mild one.
    pub ridge: f64,
}

/// Raw (not centred) sums over samples.
#[derive(Debug, Clone, Copy)]
pub struct Sums<'a> {
    /// n x n: sum x x^T.
    pub h: &'a [f64],
    /// m x n: sum t x^T.
    pub b: &'a [f64],
    /// n: sum x.
    pub x: &'a [f64],
    /// m: sum t.
    pub t: &'a [f64],
    /// m: sum t^2.
    pub tt: &'a [f64],
    /// Samples.
    pub count: f64,
}

impl Problem {
    /// Centres raw sums in f64, which removes the bias from the problem: H = sum x x^T - S xm xm^T, and so on.
    /// No prior, no ridge: set these fields afterwards.
    ///
    /// # Errors
    /// `Work`: lengths that do not agree, no samples, NaN or infinity.
    pub fn from_sums(sums: Sums<'_>) -> Result<Self> {
        let Sums { h, b, x, t, tt, count } = sums;
        let (n, m) = (x.len(), t.len());
        if count <= 0.0 || count.is_nan() {
            return Err(Error::work("layer problem", "there are no samples"));
        }
        let mut problem =
            Problem { n, m, h: h.to_vec(), b: b.to_vec(), tt: Some(tt.to_vec()), prior: None, ridge: 0.0 };
        problem.check()?;
        if x.iter().chain(t).any(|v| !v.is_finite()) {
            return Err(Error::work("layer problem", "the sums hold NaN or infinity"));
        }
        for (all, left) in [(&mut problem.h, x), (&mut problem.b, t)] {
            for (row, a) in all.chunks_exact_mut(n.max(1)).zip(left) {
                row.iter_mut().zip(x).for_each(|(v, b)| *v -= a * b / count);
            }
        }
        problem.tt = Some(tt.iter().zip(t).map(|(tt, t)| (tt - t * t / count).max(0.0)).collect());
        for i in 0..n {
            if problem.h[i * n + i] <= CONSTANT_INPUT * h[i * n + i] {
                problem.silence(i);
            }
        }
        Ok(problem)
    }

    /// Without a bias: the raw sums as they are.
    ///
    /// # Errors
    /// As `from_sums`.
    pub fn from_sums_without_bias(sums: Sums<'_>) -> Result<Self> {
        let (n, m) = (sums.x.len(), sums.t.len());
        let (h, b, tt) = (sums.h.to_vec(), sums.b.to_vec(), Some(sums.tt.to_vec()));
        let problem = Problem { n, m, h, b, tt, prior: None, ridge: 0.0 };
        problem.check()?;
        Ok(problem)
    }

    /// From H and B alone (`tt` unknown).
    ///
    /// # Errors
    /// As `check`.
    pub fn from_gram(n: usize, m: usize, h: Vec<f64>, b: Vec<f64>) -> Result<Self> {
        let problem = Problem { n, m, h, b, tt: None, prior: None, ridge: 0.0 };
        problem.check()?;
        Ok(problem)
    }

    /// The same samples with given biases instead of the best ones: sum_s ||W x_s + bias - t_s||^2, with H = H + S xm
    /// xm^T and so on. `x` (n) and `t` (m): the means that this problem was centred with; `count`: samples.
    ///
    /// # Errors
    /// As `check`.
    pub fn with_bias(&self, x: &[f64], t: &[f64], count: f64, bias: &[f64]) -> Result<Self> {
        let n = self.n;
        let left: Vec<f64> = t.iter().zip(bias).map(|(t, b)| t - b).collect();
        let mut problem = self.clone();
        for (all, left) in [(&mut problem.h, x), (&mut problem.b, left.as_slice())] {
            for (row, a) in all.chunks_exact_mut(n.max(1)).zip(left) {
                row.iter_mut().zip(x).for_each(|(v, b)| *v += count * a * b);
            }
        }
        if let Some(tt) = &mut problem.tt {
            tt.iter_mut().zip(&left).for_each(|(tt, left)| *tt += count * left * left);
        }
        problem.check()?;
        Ok(problem)
    }

    /// The problem of rounding `free` (m x n), this one's solution without a grid: sum_s ||W x_s - t_s||^2 + mu ||W - free||^2
    /// with `ridge` for mu, whose own solution is `free` again. How far the trained weights are to be believed against the
    /// samples is settled by then: what a stored weight is off costs in currents, which H alone measures, not in distance
    /// from the trained weights.
    pub fn rounding(self, free: &[f64], ridge: f64) -> Self {
        let n = self.n;
        let mut b = vec![0.0; self.m * n];
        dense::product(&mut b, false, free, &self.h, (self.m, n, n), dense::par(self.m * n * n));
        let left = |(o, tt): (usize, &f64)| {
            let row = o * n..(o + 1) * n;
            let (w, met) = (&free[row.clone()], &b[row.clone()]);
            // what `free` leaves of the targets, on top of its own
            tt - 2.0 * dense::dot(w, &self.b[row]) + 2.0 * dense::dot(w, met)
        };
        let tt = self.tt.as_ref().map(|tt| tt.iter().enumerate().map(left).collect());
        Self { b, tt, prior: Some(free.to_vec()), ridge, ..self }
    }

    /// Takes input `i` out: it does not vary, so no weight of it matters.
    pub(crate) fn silence(&mut self, i: usize) {
        for j in 0..self.n {
            self.h[i * self.n + j] = 0.0;
            self.h[j * self.n + i] = 0.0;
        }
        for o in 0..self.m {
            self.b[o * self.n + i] = 0.0;
        }
    }

    /// # Errors
    /// `Work`: lengths that do not agree, NaN or infinity, a negative ridge.
    pub fn check(&self) -> Result<()> {
        let (n, m) = (self.n, self.m);
        let lengths = [
            ("h", self.h.len(), n * n),
            ("b", self.b.len(), m * n),
            ("tt", self.tt.as_ref().map_or(m, Vec::len), m),
            ("prior", self.prior.as_ref().map_or(m * n, Vec::len), m * n),
        ];
        for (name, has, want) in lengths {
            if has != want {
                return Err(Error::work(
                    format!("layer problem: {name}"),
                    format!("{has} values where {want} are needed"),
                ));
            }
        }
        let all =
            [("h", Some(&self.h)), ("b", Some(&self.b)), ("tt", self.tt.as_ref()), ("prior", self.prior.as_ref())];
        for (name, values) in all {
            if values.is_some_and(|v| v.iter().any(|x| !x.is_finite())) {
                return Err(Error::work(format!("layer problem: {name}"), "holds NaN or infinity"));
            }
        }
        if !(self.ridge >= 0.0 && self.ridge.is_finite()) {
            return Err(Error::work("ridge", format!("{} is not a number >= 0", self.ridge)));
        }
        Ok(())
    }

    /// b = tm - W xm for the sums that the problem was centred with; m values for `w` (m x n).
    pub fn bias(w: &[f64], sums: &Sums<'_>) -> Vec<f64> {
        let n = sums.x.len();
        let row = |o: usize| w[o * n..(o + 1) * n].iter().zip(sums.x).map(|(w, x)| w * x).sum::<f64>();
        sums.t.iter().enumerate().map(|(o, t)| (t - row(o)) / sums.count).collect()
    }
}
