//! One row of a box least squares to machine precision by block principal pivoting (Judice and Pires 1994; Kim and Park
//! 2011 for the rule that keeps it finite), and the certificate that says how far from optimal a point can be.
//!
//! Guess which inputs are held at a bound, solve for the others, exchange all that violate their sign or bound, until
//! none does. With G = H^-1 at hand and A the held inputs, the solve is small: w = w* - G_:A y with
//! G_AA y = w*_A - bound_A, and the gradient is -y on A and zero elsewhere.

use faer::Par;

use crate::compute::solver::dense::{self, Cholesky};

/// Most exchanges; a handful suffice from a good start.
const EXCHANGES: usize = 60;
/// Exchanges of everything at once that may fail to reduce the violations before only one input is exchanged.
const PATIENCE: usize = 3;
/// A bound counts as violated by more than this, relative to the size of the row's weights; a sign by as much.
const HAIR: f64 = 1e-12;

/// One row: min 1/2 w H w^T - b w^T, lower <= w <= upper, H with unit diagonal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    /// n x n.
    pub h: &'a [f64],
    pub b: &'a [f64],
    pub lower: &'a [f64],
    pub upper: &'a [f64],
    /// w* = b H^-1.
    pub free: &'a [f64],
    /// n x n: H^-1.
    pub inverse: &'a [f64],
    /// A lower bound of H's smallest eigenvalue.
    pub least_eigenvalue: f64,
}

impl Row<'_> {
    pub fn gradient(&self, w: &[f64]) -> Vec<f64> {
        let n = self.b.len();
        let mut g: Vec<f64> = self.b.iter().map(|b| -b).collect();
        for (i, w) in w.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            dense::axpy(&mut g, *w, &self.h[i * n..(i + 1) * n]);
        }
        g
    }

    /// How far 1/2 w H w^T - b w^T can at most be above the optimum, given its gradient there: for every v in the box,
    /// f(v) >= f(w) + g (v - w) + lambda/2 ||v - w||^2, and the right side is minimised entry by entry.
    pub fn gap(&self, w: &[f64], g: &[f64]) -> f64 {
        let lambda = self.least_eigenvalue;
        let entry = |i: usize| {
            let v = (w[i] - g[i] / lambda).max(self.lower[i]).min(self.upper[i]);
            let d = w[i] - v;
            d * (g[i] - 0.5 * lambda * d)
        };
        (0..w.len()).map(entry).sum::<f64>().max(0.0)
    }

    /// Moves `w` (inside the box) to the optimum, starting from the bounds that it holds. Whether it got there; if not,
    /// `w` is inside the box, but need not be better than before.
    pub fn pivot(&self, w: &mut [f64]) -> bool {
        let n = w.len();
        let mut side: Vec<Side> = (0..n).map(|i| self.side(i, w[i])).collect();
        let size = self.free.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        let hair = HAIR * size;
        let (mut fewest, mut patience) = (n + 1, PATIENCE);
        for _ in 0..EXCHANGES {
            let held: Vec<usize> = (0..n).filter(|&i| side[i] != Side::Free).collect();
            let Some(g) =
                (if 2 * held.len() <= n { self.through_inverse(&held, &side, w) } else { self.directly(&side, w) })
            else {
                break;
            };
            let violated: Vec<(usize, Side)> = (0..n)
                .filter_map(|i| match side[i] {
                    Side::Free if w[i] < self.lower[i] - hair => Some((i, Side::Lower)),
                    Side::Free if w[i] > self.upper[i] + hair => Some((i, Side::Upper)),
                    Side::Lower if g[i] < -hair && self.lower[i] < self.upper[i] => Some((i, Side::Free)),
                    Side::Upper if g[i] > hair && self.lower[i] < self.upper[i] => Some((i, Side::Free)),
                    _ => None,
                })
                .collect();
            if violated.is_empty() {
                self.clip(w);
                return true;
            }
            if violated.len() < fewest {
                (fewest, patience) = (violated.len(), PATIENCE);
            } else {
                patience = patience.saturating_sub(1);
            }
            let from = if patience > 0 { 0 } else { violated.len() - 1 };
            violated[from..].iter().for_each(|&(i, to)| side[i] = to);
        }
        self.clip(w);
        false
    }

    fn side(&self, i: usize, w: f64) -> Side {
        if w <= self.lower[i] {
            Side::Lower
        } else if w >= self.upper[i] {
            Side::Upper
        } else {
            Side::Free
        }
    }

    fn held_at(&self, i: usize, side: Side) -> f64 {
        if side == Side::Lower { self.lower[i] } else { self.upper[i] }
    }

    fn clip(&self, w: &mut [f64]) {
        w.iter_mut().zip(self.lower.iter().zip(self.upper)).for_each(|(w, (l, u))| *w = w.max(*l).min(*u));
    }

    /// Sets `w` to the optimum with `held` at their bounds, through G; returns the gradient there.
    fn through_inverse(&self, held: &[usize], side: &[Side], w: &mut [f64]) -> Option<Vec<f64>> {
        let n = w.len();
        let mut y: Vec<f64> = held.iter().map(|&i| self.free[i] - self.held_at(i, side[i])).collect();
        w.copy_from_slice(self.free);
        let mut g = vec![0.0; n];
        if !held.is_empty() {
            Cholesky::new(block(self.inverse, n, held), held.len(), Par::Seq)?.solve(&mut y, 1, Par::Seq);
        }
        for (&i, y) in held.iter().zip(&y) {
            dense::axpy(w, -y, &self.inverse[i * n..(i + 1) * n]);
            g[i] = -y;
        }
        held.iter().for_each(|&i| w[i] = self.held_at(i, side[i]));
        Some(g)
    }

    /// The same through H_FF of the free inputs F.
    fn directly(&self, side: &[Side], w: &mut [f64]) -> Option<Vec<f64>> {
        for i in 0..w.len() {
            w[i] = if side[i] == Side::Free { 0.0 } else { self.held_at(i, side[i]) };
        }
        let free: Vec<usize> = (0..w.len()).filter(|&i| side[i] == Side::Free).collect();
        let g = self.gradient(w);
        for (&i, step) in free.iter().zip(self.newton(&free, &g)?) {
            w[i] = step;
        }
        Some(self.gradient(w))
    }

    /// One Newton step of the inputs inside the box, through H_FF: takes out the rounding errors that G brought in.
    pub fn refine(&self, w: &mut [f64]) {
        let g = self.gradient(w);
        let free: Vec<usize> = (0..w.len()).filter(|&i| self.side(i, w[i]) == Side::Free).collect();
        let Some(step) = self.newton(&free, &g) else { return };
        free.iter().zip(&step).for_each(|(&i, step)| w[i] += step);
        self.clip(w);
    }

    /// -H_FF^-1 g_F.
    fn newton(&self, free: &[usize], g: &[f64]) -> Option<Vec<f64>> {
        let mut step: Vec<f64> = free.iter().map(|&i| -g[i]).collect();
        if !free.is_empty() {
            Cholesky::new(block(self.h, g.len(), free), free.len(), Par::Seq)?.solve(&mut step, 1, Par::Seq);
        }
        Some(step)
    }
}

/// Where an input stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Free,
    Lower,
    Upper,
}

/// Rows and columns `of` a symmetric n x n matrix.
fn block(a: &[f64], n: usize, of: &[usize]) -> Vec<f64> {
    of.iter().flat_map(|&i| of.iter().map(move |&j| a[i * n + j])).collect()
}
