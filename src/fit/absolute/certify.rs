//! What is proven of each output: the best weights inside the box so far, and the best dual bound.
//!
//! For any y with |y| <= 1 (sum) or |y|_1 <= 1 (largest), the measure of X v - d is at least y (X v - d), and that is at
//! least -y d + sum over inputs of the smaller of lower g and upper g, with g = X^T y: a bound on the optimum. Where a
//! weight has no bound, y is projected so that g vanishes, and what rounding leaves of g counts against a bound that
//! every optimal weight keeps: v = (X^T X)^-1 X^T (r + d), with r's measure at most that of the best weights known.

use rayon::prelude::*;

use super::scaled::Scaled;
use crate::compute::solver::absolute::{Measure, State};
use crate::compute::solver::dense;

/// Gap that counts as none, relative to the measure of the targets themselves.
const NOTHING: f64 = 1e-10;

/// (value - bound) / value; 0 where a gap is nothing beside the target's own measure.
pub(super) fn relative(value: f64, bound: f64, own: f64) -> f64 {
    if value - bound <= NOTHING * own { 0.0 } else { (value - bound) / value }
}

/// The measure of residuals.
pub(super) fn measured(measure: Measure, residuals: impl Iterator<Item = f64>) -> f64 {
    match measure {
        Measure::Sum => residuals.map(f64::abs).sum(),
        Measure::Largest => residuals.map(f64::abs).fold(0.0, f64::max),
    }
}

/// Best constant to add to residuals, negated: their median or midrange.
pub(super) fn centre(measure: Measure, residuals: &mut [f64]) -> f64 {
    residuals.sort_by(f64::total_cmp);
    match measure {
        Measure::Sum => residuals[residuals.len() / 2],
        Measure::Largest => 0.5 * (residuals[0] + residuals[residuals.len() - 1]),
    }
}

/// In scaled units; the outward figures are the problem's.
pub(super) struct Certificate {
    /// m x k.
    v: Vec<f64>,
    value: Vec<f64>,
    bound: Vec<f64>,
    size: Vec<f64>,
    own: Vec<f64>,
}

impl Certificate {
    /// Starts with weights near zero and the bound 0.
    pub fn new(scaled: &Scaled) -> Self {
        let shape = scaled.shape;
        let mut found = Certificate {
            v: vec![0.0; shape.m * shape.k],
            value: vec![f64::INFINITY; shape.m],
            bound: vec![0.0; shape.m],
            size: scaled.size.clone(),
            own: vec![0.0; shape.m],
        };
        for (own, d) in found.own.iter_mut().zip(scaled.d.chunks_exact(shape.rows)) {
            *own = measured(shape.measure, d[..shape.samples].iter().copied());
        }
        let all: Vec<usize> = (0..shape.m).collect();
        let zero = vec![0.0; shape.m * shape.k];
        found.improve(scaled, &all, &zero);
        found
    }

    /// Takes the iteration's weights and duals of `outputs`.
    pub fn look(&mut self, scaled: &Scaled, outputs: &[usize], state: &State<f64>, rho: &[f64]) {
        self.improve(scaled, outputs, &state.w);
        self.bounded(scaled, outputs, &state.u, rho);
    }

    /// The outputs whose gap is above `tolerance`.
    pub fn open(&self, tolerance: f64) -> Vec<usize> {
        (0..self.value.len()).filter(|&o| self.gap(o) > tolerance).collect()
    }

    /// An output's relative gap.
    pub fn gap(&self, o: usize) -> f64 {
        relative(self.value[o], self.bound[o], self.own[o])
    }

    /// Keeps `v` (of `outputs`), moved into the box, where it is better than what is known.
    fn improve(&mut self, scaled: &Scaled, outputs: &[usize], v: &[f64]) {
        let shape = scaled.shape;
        let (k, samples) = (shape.k, shape.samples);
        let better = |(at, &o): (usize, &usize)| {
            let sides = scaled.lowest[o * k..].iter().zip(&scaled.highest[o * k..]);
            let mut inside: Vec<f64> = v[at * k..(at + 1) * k]
                .iter()
                .zip(sides)
                .map(|(v, (low, high))| if v.is_finite() { v.max(*low).min(*high) } else { 0f64.max(*low).min(*high) })
                .collect();
            let d = &scaled.d[o * shape.rows..][..samples];
            let fitted = |s: usize| dense::dot(&scaled.x[s * k..(s + 1) * k], &inside);
            let mut r: Vec<f64> = d.iter().enumerate().map(|(s, d)| fitted(s) - d).collect();
            if scaled.bias {
                let shift = centre(shape.measure, &mut r.clone());
                r.iter_mut().for_each(|r| *r -= shift);
                inside[k - 1] -= shift;
            }
            (o, measured(shape.measure, r.into_iter()), inside)
        };
        let found: Vec<_> = outputs.par_iter().enumerate().map(better).collect();
        for (o, value, inside) in found {
            if value < self.value[o] {
                self.value[o] = value;
                self.v[o * k..(o + 1) * k].copy_from_slice(&inside);
            }
        }
    }

    /// Keeps the bounds that the duals prove, where they are better.
    fn bounded(&mut self, scaled: &Scaled, outputs: &[usize], u: &[f64], rho: &[f64]) {
        let shape = scaled.shape;
        let (k, samples) = (shape.k, shape.samples);
        let reach = |o: usize| Reach::new(scaled, o, self.value[o]);
        let bounds: Vec<f64> = outputs
            .par_iter()
            .enumerate()
            .map(|(at, &o)| {
                let mut y: Vec<f64> = u[at * shape.rows..][..samples].iter().map(|u| u * rho[at]).collect();
                let reach = reach(o);
                let mut g = scaled.products(&y);
                // Twice, as the first leaves what rounding makes of large numbers.
                for _ in 0..2 {
                    let mut step: Vec<f64> = (0..k).map(|j| reach.excess(j, g[j])).collect();
                    scaled.factor.solve(&mut step, 1, faer::Par::Seq);
                    // The factor is that of all inputs: the step also moves the bounded ones' g, which is allowed.
                    y.iter_mut().zip(scaled.x.chunks_exact(k.max(1))).for_each(|(y, x)| *y -= dense::dot(x, &step));
                    g = scaled.products(&y);
                }
                let most = match shape.measure {
                    Measure::Sum => y.iter().fold(1f64, |m, y| m.max(y.abs())),
                    Measure::Largest => y.iter().map(|y| y.abs()).sum::<f64>().max(1.0),
                };
                let d = &scaled.d[o * shape.rows..][..samples];
                let inputs: f64 = (0..k).map(|j| (reach.lower[j] * g[j]).min(reach.upper[j] * g[j])).sum();
                (inputs - dense::dot(&y, d)) / most
            })
            .collect();
        outputs.iter().zip(bounds).for_each(|(&o, b)| self.bound[o] = b.max(self.bound[o]));
    }

    /// The largest relative gap.
    pub fn worst(&self) -> f64 {
        (0..self.value.len()).map(|o| self.gap(o)).fold(0.0, f64::max)
    }

    fn outward<'a>(&'a self, of: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        of.iter().zip(&self.size).map(|(v, size)| v * size)
    }

    pub fn objectives(&self) -> Vec<f64> {
        self.outward(&self.value).collect()
    }

    pub fn bounds(&self) -> Vec<f64> {
        self.outward(&self.bound).collect()
    }

    /// The measure of the centred targets.
    pub fn owns(&self) -> Vec<f64> {
        self.outward(&self.own).collect()
    }

    pub fn own(&self) -> f64 {
        self.owns().iter().sum()
    }

    /// Weights and biases in the problem's units.
    pub fn weights(&self, scaled: &Scaled) -> (Vec<f64>, Vec<f64>) {
        scaled.unscaled(&self.v)
    }
}

/// Bounds that an optimal output's weights keep, and which of them the problem does not give.
struct Reach {
    lower: Vec<f64>,
    upper: Vec<f64>,
    /// No bound below, above.
    open: Vec<(bool, bool)>,
}

impl Reach {
    fn new(scaled: &Scaled, o: usize, value: f64) -> Self {
        let shape = scaled.shape;
        let k = shape.k;
        let side = |all: &[f64]| all[o * k..(o + 1) * k].to_vec();
        let (mut lower, mut upper) = (side(&scaled.lowest), side(&scaled.highest));
        let open: Vec<(bool, bool)> =
            lower.iter().zip(&upper).map(|(l, u)| (l.is_infinite(), u.is_infinite())).collect();
        if open.iter().any(|o| o.0 || o.1) {
            // |v_j| <= |(X^T X)^-1|_j . |X^T (r + d)| <= .. |X|_max (|r|_1 + |d|_1): crude, but g is next to nothing.
            let d = &scaled.d[o * shape.rows..][..shape.samples];
            let sum = match shape.measure {
                Measure::Sum => value,
                Measure::Largest => value * shape.samples as f64,
            };
            let mass = sum + d.iter().map(|d| d.abs()).sum::<f64>();
            let largest = scaled.x.iter().fold(0f64, |m, x| m.max(x.abs()));
            let spread = largest * mass * scaled.inverse_norm;
            for j in 0..k {
                lower[j] = lower[j].max(-spread);
                upper[j] = upper[j].min(spread);
            }
        }
        Self { lower, upper, open }
    }

    /// The part of g_j that an open side would be charged for: lower g where g > 0, upper g where g < 0.
    fn excess(&self, j: usize, g: f64) -> f64 {
        if if g > 0.0 { self.open[j].0 } else { self.open[j].1 } { g } else { 0.0 }
    }
}
