//! The ridge of a layer problem by cross-validation: what is fitted to all folds of the samples but one is tried on that
//! one. Folds are to be of whole images, because the positions of one image are much alike.
//!
//! Everything is known from the folds' sums: with W and b fitted to the other folds, the error on a fold is
//!     sum t^2 - 2 (W . B + b t) + W H W^T + 2 b W x + S b^2,
//! with that fold's raw sums. No sample is looked at again.

use faer::Par;
use rayon::prelude::*;

use super::problem::{Problem, Sums};
use crate::compute::solver::dense::{self, Cholesky};
use crate::error::Result;

/// Ridges that are tried, relative to the mean diagonal of H: from where numbers say nothing to where only the prior is
/// left. The search starts at START and goes on while it gains.
const TRIED: [f64; 9] = [1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0];
const START: usize = 3;

/// One part of the samples: raw sums over them, with targets less what the prior gives, so that the ridge pulls to zero.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    /// n x n: sum x x^T.
    pub h: Vec<f64>,
    /// m x n: sum t x^T.
    pub b: Vec<f64>,
    /// n: sum x.
    pub x: Vec<f64>,
    /// m: sum t.
    pub t: Vec<f64>,
    /// m: sum t^2.
    pub tt: Vec<f64>,
    /// Samples.
    pub count: f64,
}

impl Fold {
    fn sums(&self) -> Sums<'_> {
        Sums { h: &self.h, b: &self.b, x: &self.x, t: &self.t, tt: &self.tt, count: self.count }
    }

    /// `sign` times `other` on top.
    fn add(&mut self, sign: f64, other: &Fold) {
        let pairs = [
            (&mut self.h, &other.h),
            (&mut self.b, &other.b),
            (&mut self.x, &other.x),
            (&mut self.t, &other.t),
            (&mut self.tt, &other.tt),
        ];
        for (all, part) in pairs {
            all.iter_mut().zip(part).for_each(|(a, p)| *a += sign * p);
        }
        self.count += sign * other.count;
    }

    /// sum over rows of weight * squared error of `w` (m x n) and `bias` (m) on these samples.
    fn error(&self, w: &[f64], bias: &[f64], weight: &[f64]) -> f64 {
        let (n, m) = (self.x.len(), self.t.len());
        let mut wh = vec![0.0; m * n];
        dense::product(&mut wh, false, w, &self.h, (m, n, n), Par::Seq);
        let row = |o: usize| {
            let (w, wh, b) = (&w[o * n..(o + 1) * n], &wh[o * n..(o + 1) * n], bias[o]);
            let cross = dense::dot(w, &self.b[o * n..(o + 1) * n]) + b * self.t[o];
            let square = dense::dot(w, wh) + 2.0 * b * dense::dot(w, &self.x) + self.count * b * b;
            weight[o] * (self.tt[o] - 2.0 * cross + square)
        };
        (0..m).map(row).sum()
    }
}

/// The ridge, relative to the mean diagonal of H over live inputs, whose fits to all folds but one have the least squared
/// error on that one, summed over folds and problems. `problems`: folds of each, at least two; `weight`: for each its
/// rows' weights.
///
/// # Errors
/// `Work`: sums whose lengths do not agree, or that hold NaN or infinity.
pub fn cross_validated(problems: &[Vec<Fold>], weight: &[Vec<f64>]) -> Result<f64> {
    let totals: Vec<Fold> = problems.iter().map(|folds| total(folds)).collect();
    let pairs: Vec<(usize, usize)> =
        problems.iter().enumerate().flat_map(|(p, folds)| (0..folds.len()).map(move |f| (p, f))).collect();
    let error = |at: usize| -> Result<f64> {
        let one = |&(p, f): &(usize, usize)| held_out(&totals[p], &problems[p][f], &weight[p], TRIED[at]);
        let errors = pairs.par_iter().map(one).collect::<Result<Vec<f64>>>()?;
        Ok(errors.iter().sum())
    };
    let (mut best, mut least) = (START, error(START)?);
    for way in [1, -1isize] {
        while let Some(next) = best.checked_add_signed(way).filter(|&at| at < TRIED.len()) {
            let found = error(next)?;
            if found >= least {
                break;
            }
            (best, least) = (next, found);
        }
        if best > START {
            break;
        }
    }
    Ok(TRIED[best])
}

fn total(folds: &[Fold]) -> Fold {
    let mut all = folds.first().cloned().unwrap_or_default();
    folds.iter().skip(1).for_each(|f| all.add(1.0, f));
    all
}

/// Error on `fold` of what is fitted to the rest of `total`.
fn held_out(total: &Fold, fold: &Fold, weight: &[f64], ridge: f64) -> Result<f64> {
    let mut rest = total.clone();
    rest.add(-1.0, fold);
    let Problem { n, m, mut h, b, .. } = Problem::from_sums(rest.sums())?;
    let live = (0..n).filter(|&i| h[i * n + i] > 0.0).count().max(1);
    let mu = ridge * (0..n).map(|i| h[i * n + i]).sum::<f64>() / live as f64;
    // inputs that do not vary here take no part, whatever stands on their diagonal
    (0..n).for_each(|i| h[i * n + i] = if h[i * n + i] > 0.0 { h[i * n + i] + mu } else { 1.0 });
    let mut w = b;
    match Cholesky::new(h, n, Par::Seq) {
        Some(factor) => factor.solve(&mut w, m, Par::Seq),
        None => return Ok(f64::INFINITY),
    }
    let bias = Problem::bias(&w, &rest.sums());
    Ok(fold.error(&w, &bias, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Samples {
        x: Vec<f64>,
        t: Vec<f64>,
        n: usize,
    }

    impl Samples {
        /// t = (first input) * `signal` + noise; n inputs.
        fn new(count: usize, n: usize, signal: f64, seed: u64) -> Self {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut normal = || (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
            let x: Vec<f64> = (0..count * n).map(|_| 1.0 + normal()).collect();
            let t = x.chunks(n).map(|x| 3.0 + signal * x.iter().sum::<f64>() + normal()).collect();
            Self { x, t, n }
        }

        fn fold(&self, range: std::ops::Range<usize>) -> Fold {
            let n = self.n;
            let mut f =
                Fold { h: vec![0.0; n * n], b: vec![0.0; n], x: vec![0.0; n], t: vec![0.0], tt: vec![0.0], count: 0.0 };
            for s in range {
                let (x, t) = (&self.x[s * n..(s + 1) * n], self.t[s]);
                for i in 0..n {
                    (0..n).for_each(|j| f.h[i * n + j] += x[i] * x[j]);
                    f.b[i] += t * x[i];
                    f.x[i] += x[i];
                }
                (f.t[0], f.tt[0], f.count) = (f.t[0] + t, f.tt[0] + t * t, f.count + 1.0);
            }
            f
        }
    }

    #[test]
    fn the_error_is_that_of_the_samples() {
        let samples = Samples::new(30, 4, 0.5, 1);
        let (w, bias) = ([0.3, -0.2, 0.7, 0.1], [1.5]);
        let one = |(x, t): (&[f64], &f64)| (dense::dot(x, &w) + bias[0] - t).powi(2);
        let expected: f64 = samples.x.chunks(4).zip(&samples.t).map(one).sum();
        let found = samples.fold(0..30).error(&w, &bias, &[2.0]);
        assert!((found - 2.0 * expected).abs() < 1e-9 * expected, "{found}, {expected}");
    }

    #[test]
    fn noise_asks_for_a_ridge_and_signal_for_none() {
        let chosen = |signal: f64| {
            let samples = Samples::new(80, 30, signal, 2);
            let folds: Vec<Fold> = (0..4).map(|f| samples.fold(f * 20..(f + 1) * 20)).collect();
            cross_validated(&[folds], &[vec![1.0]]).unwrap()
        };
        let (noise, signal) = (chosen(0.0), chosen(10.0));
        assert!(noise >= 3.0 && signal <= 3e-3, "{noise} for noise, {signal} for signal");
    }

    #[test]
    fn an_input_that_varies_in_one_fold_alone_is_no_trouble() {
        let mut samples = Samples::new(40, 3, 1.0, 4);
        (0..30).for_each(|s| samples.x[s * 3] = 0.0);
        let folds: Vec<Fold> = (0..4).map(|f| samples.fold(f * 10..(f + 1) * 10)).collect();
        assert!(cross_validated(&[folds], &[vec![1.0]]).unwrap() > 0.0);
    }
}
