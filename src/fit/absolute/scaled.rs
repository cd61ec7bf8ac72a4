//! The samples made ready for the iteration: inputs centred and of unit size, targets of unit size, the box as further
//! rows, and the projector.

use super::Samples;
use crate::compute::solver::absolute::{Measure, Shape};
use crate::compute::solver::dense::{self, Cholesky};
use crate::error::{Error, Result};
use crate::fit::bounds::Bounds;

/// Inputs whose spread is below this share of their size are constant.
const CONSTANT: f64 = 1e-12;
/// Weight of the box's rows beside the samples'.
const BOX: f64 = 0.5;
/// First rung of the damping ladder, relative to the unit diagonal.
const DAMPING: f64 = 1e-12;

/// Scaled weights v and the problem's w: w_i = v_i size / unit_i; the last v is the bias' where there is one.
pub(super) struct Scaled {
    pub shape: Shape,
    pub n: usize,
    pub bias: bool,
    /// Inputs that vary, in order.
    pub live: Vec<usize>,
    /// Per live input: mean (0 without a bias) and root mean square around it.
    mean: Vec<f64>,
    unit: Vec<f64>,
    /// Per output: size and mean of the targets.
    pub size: Vec<f64>,
    centre: Vec<f64>,
    /// samples x k: the samples alone.
    pub x: Vec<f64>,
    /// k x rows: A^T with the box.
    pub a: Vec<f64>,
    /// rows x k: A (A^T A)^-1.
    pub p: Vec<f64>,
    /// m x rows.
    pub d: Vec<f64>,
    /// m x (rows - samples), in units of the box's rows.
    pub lower: Vec<f64>,
    pub upper: Vec<f64>,
    /// m x k: bounds of the scaled weights; infinite where there is none.
    pub lowest: Vec<f64>,
    pub highest: Vec<f64>,
    /// Factor of X^T X, for projecting and for bounding weights.
    pub factor: Cholesky,
    /// Largest absolute row sum of (X^T X)^-1.
    pub inverse_norm: f64,
    /// m x n: what dead inputs get, and m: what that gives on them.
    dead: Vec<f64>,
    constant: Vec<f64>,
}

impl Scaled {
    pub fn new(given: Samples<'_>, measure: Measure, lower: &Bounds, upper: &Bounds) -> Result<Scaled> {
        let Samples { n, m, x, t, bias } = given;
        let samples = given.count();
        let count = samples as f64;
        let column = |i: usize| x.iter().skip(i).step_by(n);
        let square: Vec<f64> = (0..n).map(|i| column(i).map(|v| v * v).sum::<f64>() / count).collect();
        let means: Vec<f64> = (0..n).map(|i| if bias { column(i).sum::<f64>() / count } else { 0.0 }).collect();
        let spread = |i: usize| (column(i).map(|v| (v - means[i]).powi(2)).sum::<f64>() / count).sqrt();
        let spreads: Vec<f64> = (0..n).map(spread).collect();
        let live: Vec<usize> = (0..n).filter(|&i| spreads[i] > CONSTANT * square[i].sqrt()).collect();
        let (mean, unit): (Vec<f64>, Vec<f64>) = live.iter().map(|&i| (means[i], spreads[i])).unzip();
        let k = live.len() + usize::from(bias);
        let boxed = !(live.is_empty() || lower.is_none() && upper.is_none());
        let rows = samples + if boxed { live.len() } else { 0 };

        let mut scaled = vec![0.0; samples * k];
        for (row, x) in scaled.chunks_exact_mut(k.max(1)).zip(x.chunks_exact(n)) {
            row.fill(1.0);
            for (v, (&i, (mean, unit))) in row.iter_mut().zip(live.iter().zip(mean.iter().zip(&unit))) {
                *v = (x[i] - mean) / unit;
            }
        }
        let target = |o: usize| t.iter().skip(o).step_by(m);
        let centre: Vec<f64> = (0..m).map(|o| if bias { target(o).sum::<f64>() / count } else { 0.0 }).collect();
        let size: Vec<f64> = (0..m)
            .map(|o| (target(o).map(|t| (t - centre[o]).powi(2)).sum::<f64>() / count).sqrt())
            .map(|size| if size > 0.0 { size } else { 1.0 })
            .collect();
        let mut d = vec![0.0; m * rows];
        for (o, d) in d.chunks_exact_mut(rows.max(1)).enumerate() {
            d.iter_mut().zip(target(o)).for_each(|(d, t)| *d = (t - centre[o]) / size[o]);
        }

        let edge = |side: &Bounds, open: f64| -> Vec<f64> {
            let scale = |o: usize, j: usize, i: usize| side.at(o, i, n, open) * unit[j] / size[o];
            (0..m)
                .flat_map(|o| {
                    let inputs = live.iter().enumerate().map(move |(j, &i)| scale(o, j, i));
                    inputs.chain(bias.then_some(open)).collect::<Vec<_>>()
                })
                .collect()
        };
        let (lowest, highest) = (edge(lower, f64::NEG_INFINITY), edge(upper, f64::INFINITY));
        let weight = BOX * count.sqrt();
        let within = |all: &[f64]| -> Vec<f64> {
            let rows = all.chunks_exact(k.max(1)).flat_map(|row| &row[..live.len()]);
            if boxed { rows.map(|v| (v * weight).clamp(-1e30, 1e30)).collect() } else { vec![] }
        };

        let mut a = vec![0.0; k * rows];
        for (s, row) in scaled.chunks_exact(k.max(1)).enumerate() {
            row.iter().enumerate().for_each(|(j, v)| a[j * rows + s] = *v);
        }
        if boxed {
            (0..live.len()).for_each(|j| a[j * rows + samples + j] = weight);
        }
        let mut gram = vec![0.0; k * k];
        dense::add_outer(&mut gram, 1.0, &scaled, &scaled, (samples, k, k));
        let factor = factored(&gram, k, count)?;
        let inverse = factor.inverse(dense::par(k * k * k));
        let sums = inverse.chunks_exact(k.max(1)).map(|row| row.iter().map(|v| v.abs()).sum::<f64>());
        let inverse_norm = sums.fold(0.0, f64::max);
        let projector = if boxed {
            let mut gram = gram;
            (0..live.len()).for_each(|j| gram[j * k + j] += weight * weight);
            factored(&gram, k, count)?
        } else {
            factor.clone()
        };
        // A row of A times the inverse: solves of the transposed matrix's columns.
        let mut p: Vec<f64> = (0..rows * k).map(|at| a[at % k.max(1) * rows + at / k.max(1)]).collect();
        projector.solve(&mut p, rows, dense::par(rows * k * k));

        let (mut dead, mut constant) = (vec![0.0; m * n], vec![0.0; m]);
        for o in 0..m {
            for i in (0..n).filter(|i| live.binary_search(i).is_err()) {
                let (low, high) = (lower.at(o, i, n, f64::NEG_INFINITY), upper.at(o, i, n, f64::INFINITY));
                dead[o * n + i] = 0f64.max(low).min(high);
                constant[o] += dead[o * n + i] * means[i];
            }
        }
        let shape = Shape { m, k, samples, rows, measure };
        let (lower, upper) = (within(&lowest), within(&highest));
        Ok(Scaled {
            shape,
            n,
            bias,
            live,
            mean,
            unit,
            size,
            centre,
            x: scaled,
            a,
            p,
            d,
            lower,
            upper,
            lowest,
            highest,
            factor,
            inverse_norm,
            dead,
            constant,
        })
    }

    /// Where every output's rho begins.
    pub fn first_rho(&self) -> f64 {
        match self.shape.measure {
            Measure::Sum => 10.0,
            Measure::Largest => 1.0,
        }
    }

    /// m x rows: A v - d, for some outputs' d (m x rows) and v (m x k).
    pub fn residuals(&self, m: usize, d: &[f64], v: &[f64]) -> Vec<f64> {
        let Shape { k, rows, .. } = self.shape;
        let mut r: Vec<f64> = d.iter().map(|d| -d).collect();
        if k > 0 {
            dense::product(&mut r, true, v, &self.a, (m, k, rows), dense::par(m * k * rows));
        }
        r
    }

    /// k: X^T y of one output's dual.
    pub fn products(&self, y: &[f64]) -> Vec<f64> {
        let k = self.shape.k;
        let mut g = vec![0.0; k];
        y.iter().zip(self.x.chunks_exact(k.max(1))).for_each(|(y, x)| dense::axpy(&mut g, *y, x));
        g
    }

    /// The problem's weights (m x n) and biases (m) for scaled ones (m x k).
    pub fn unscaled(&self, v: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let Shape { m, k, .. } = self.shape;
        let mut w = self.dead.clone();
        let mut bias = vec![0.0; m];
        for o in 0..m {
            let v = &v[o * k..(o + 1) * k];
            let mut shift = self.constant[o];
            for (j, &i) in self.live.iter().enumerate() {
                let weight = v[j] * self.size[o] / self.unit[j];
                w[o * self.n + i] = weight;
                shift += weight * self.mean[j];
            }
            if self.bias {
                bias[o] = self.centre[o] + v[k - 1] * self.size[o] - shift;
            }
        }
        (w, bias)
    }
}

/// A factor of a Gram matrix whose diagonal is about `count`, damped as little as it takes.
fn factored(gram: &[f64], k: usize, count: f64) -> Result<Cholesky> {
    let mut damping = 0.0;
    loop {
        let mut h = gram.to_vec();
        (0..k).for_each(|j| h[j * k + j] += damping * count);
        match Cholesky::new(h, k, dense::par(k * k * k / 3)) {
            Some(f) if (0..k).all(|j| f.diagonal(j).powi(2) > DAMPING * count) => return Ok(f),
            _ if damping < 1e-2 => damping = if damping == 0.0 { 10.0 * DAMPING } else { damping * 10.0 },
            _ => return Err(Error::work("layer problem", "x cannot be factored")),
        }
    }
}
