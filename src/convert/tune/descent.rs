//! Steps of one layer's parameters: Adam along the principal axes of the layer's inputs. Inputs that a rectifier gave and
//! windows that overlap have most of their power along few axes; Adam alone minds the scale of each parameter's gradient,
//! and gets along the others slowly. As SOAP does (Vyas et al., ICLR 2025), but on the inputs' side alone, with axes that are found once.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};

use super::adam::Adam;
use super::gradients::Gradient;
use crate::compute::gram::Sums;

/// Most parameters of a row that axes are looked for: finding them takes some n^3 operations, a step 4 n^2 a row.
const MOST: usize = 1200;
/// Samples for each parameter of a row without which axes would be those of chance.
const SAMPLES: usize = 4;
/// Power of an axis, in units of the largest, below which inputs are as good as constant, and nothing moves along it.
const STILL: f64 = 1e-7;

pub struct Descent {
    /// Per input of a row, and for its bias: the unit of a step.
    units: Vec<f64>,
    axes: Option<Axes>,
    adam: Adam,
}

/// Group by group.
struct Axes {
    /// n x n, an axis a column.
    of: Vec<f32>,
    still: Vec<bool>,
}

/// Whether axes of `inputs` inputs can be told from so many samples.
pub fn has_axes(inputs: usize, samples: usize) -> bool {
    inputs < MOST && samples >= SAMPLES * (inputs + 1)
}

impl Descent {
    /// `units`: of each input's weights, and of the bias.
    pub fn new(rows: usize, units: Vec<f64>) -> Self {
        let adam = Adam::new(rows * units.len());
        Self { units, axes: None, adam }
    }

    /// Before the first step: `sums` of the layer's inputs.
    pub fn turn(&mut self, sums: &Sums) {
        let (inputs, n) = (sums.n, self.units.len());
        let mut axes = Axes { of: vec![], still: vec![] };
        for (h, x_sum) in sums.h.chunks_exact(inputs * inputs).zip(sums.x_sum.chunks_exact(inputs)) {
            let moment = |i: usize, j: usize| match (i < inputs, j < inputs) {
                (true, true) => h[i * inputs + j],
                (false, false) => sums.count as f64,
                _ => x_sum[i.min(j)],
            };
            let moments = Mat::from_fn(n, n, |i, j| moment(i, j) / sums.count as f64 * self.units[i] * self.units[j]);
            let Ok(found) = moments.self_adjoint_eigen(Side::Lower) else { return };
            let (axis, power) = (found.U(), found.S());
            let largest = (0..n).fold(0.0f64, |most, k| most.max(power[k]));
            axes.of.extend((0..n * n).map(|at| axis[(at / n, at % n)] as f32));
            axes.still.extend((0..n).map(|k| power[k] <= STILL * largest));
        }
        self.axes = Some(axes);
    }

    /// What is to be added to the parameters.
    pub fn step(&mut self, rate: f64, gradient: &Gradient) -> Gradient {
        let n = self.units.len();
        let rows = gradient.bias.len();
        let mut given = Vec::with_capacity(rows * n);
        for (weights, &bias) in gradient.weights.chunks_exact(n - 1).zip(&gradient.bias) {
            given.extend(weights.iter().chain([&bias]).zip(&self.units).map(|(g, unit)| (g * unit) as f32));
        }
        let moves = match &self.axes {
            None => self.adam.step(rate, &given),
            Some(axes) => {
                let mut along = turned(&axes.of, n, &given, false);
                let each = along.len() / (axes.still.len() / n);
                for (along, still) in along.chunks_exact_mut(each).zip(axes.still.chunks_exact(n)) {
                    let all = along.chunks_exact_mut(n).flat_map(|row| row.iter_mut().zip(still));
                    all.filter(|(_, still)| **still).for_each(|(along, _)| *along = 0.0);
                }
                turned(&axes.of, n, &self.adam.step(rate, &along), true)
            }
        };
        let mut step = Gradient { weights: Vec::with_capacity(rows * (n - 1)), bias: Vec::with_capacity(rows) };
        for row in moves.chunks_exact(n) {
            let mut row = row.iter().zip(&self.units).map(|(by, unit)| f64::from(*by) * unit);
            step.weights.extend(row.by_ref().take(n - 1));
            step.bias.extend(row);
        }
        step
    }
}

/// Rows of `n`, as many for each of the groups of `axes`, along their axes, or back.
fn turned(axes: &[f32], n: usize, rows: &[f32], back: bool) -> Vec<f32> {
    let each = rows.len() / (axes.len() / (n * n));
    let mut out = vec![0.0; rows.len()];
    for ((axes, rows), out) in axes.chunks_exact(n * n).zip(rows.chunks_exact(each)).zip(out.chunks_exact_mut(each)) {
        let axes = MatRef::from_row_major_slice(axes, n, n);
        let axes = if back { axes.transpose().as_dyn_stride() } else { axes.as_dyn_stride() };
        let (rows, out) =
            (MatRef::from_row_major_slice(rows, each / n, n), MatMut::from_row_major_slice_mut(out, each / n, n));
        matmul(out, Accum::Replace, rows, axes, 1.0, Par::rayon(0));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two groups of two rows, three inputs of which one is always zero; the second nearly repeats the first.
    fn sums(rng: &mut fastrand::Rng) -> (Sums, Vec<[[f64; 3]; 2]>) {
        let samples: Vec<[[f64; 3]; 2]> = (0..400)
            .map(|_| {
                [0.0, 1.0].map(|group| {
                    let (common, own) = (rng.f64() + 1.0, rng.f64() - 0.5);
                    [common, common + 0.05 * own + group, 0.0]
                })
            })
            .collect();
        let mut sums =
            Sums { groups: 2, n: 3, m: 2, count: 400, h: vec![], b: vec![], x_sum: vec![], z_sum: vec![], zz: vec![] };
        for g in 0..2 {
            let sum = |f: &dyn Fn(&[f64; 3]) -> f64| samples.iter().map(|s| f(&s[g])).sum::<f64>();
            sums.h.extend((0..9).map(|at| sum(&|x| x[at / 3] * x[at % 3])));
            sums.x_sum.extend((0..3).map(|i| sum(&|x| x[i])));
        }
        (sums, samples)
    }

    /// Half the mean squared error of rows that should give `right`'s values, and its gradient.
    fn error(samples: &[[[f64; 3]; 2]], right: &Gradient, at: &Gradient) -> (f64, Gradient) {
        let mut gradient = Gradient { weights: vec![0.0; 12], bias: vec![0.0; 4] };
        let (mut error, part) = (0.0, 1.0 / samples.len() as f64);
        for x in samples {
            for row in 0..4 {
                let x = &x[row / 2];
                let value = |of: &Gradient| (0..3).map(|i| of.weights[row * 3 + i] * x[i]).sum::<f64>() + of.bias[row];
                let off = value(at) - value(right);
                error += 0.5 * part * off * off;
                (0..3).for_each(|i| gradient.weights[row * 3 + i] += part * off * x[i]);
                gradient.bias[row] += part * off;
            }
        }
        (error, gradient)
    }

    #[test]
    fn axes_lead_to_the_least_where_inputs_nearly_repeat_each_other() {
        let mut rng = fastrand::Rng::with_seed(3);
        let (sums, samples) = sums(&mut rng);
        let right = Gradient {
            weights: (0..12).map(|_| 2.0 * rng.f64() - 1.0).collect(),
            bias: (0..4).map(|_| rng.f64()).collect(),
        };
        let lacking = |turn: bool| {
            let mut at = Gradient { weights: vec![0.0; 12], bias: vec![0.0; 4] };
            let mut descent = Descent::new(4, vec![1.0, 1.0, 1.0, 0.5]);
            if turn {
                descent.turn(&sums);
            }
            let start = error(&samples, &right, &at).0;
            for k in 0..300 {
                let step = descent.step(0.05 * (1.0 - k as f64 / 300.0), &error(&samples, &right, &at).1);
                at.weights.iter_mut().zip(&step.weights).for_each(|(w, by)| *w += by);
                at.bias.iter_mut().zip(&step.bias).for_each(|(b, by)| *b += by);
            }
            // the input that is always zero says nothing
            assert!(at.weights.iter().skip(2).step_by(3).all(|w| *w == 0.0), "{:?}", at.weights);
            error(&samples, &right, &at).0 / start
        };
        let [own, turned] = [false, true].map(lacking);
        assert!(turned < 0.2 * own && turned < 1e-4, "{own}, along axes {turned}");
    }

    #[test]
    fn axes_want_samples_and_not_too_many_inputs() {
        assert!(has_axes(9, 40) && !has_axes(9, 39));
        assert!(has_axes(MOST - 1, 1 << 20) && !has_axes(MOST, 1 << 20));
    }
}
