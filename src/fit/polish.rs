//! Active-set polish of one row of a box least squares: projected Newton steps (Bertsekas 1982) to machine precision,
//! and the certificate that says how far from optimal a point can be.

use faer::Par;

use crate::compute::solver::dense::{self, Cholesky};

/// Most Newton steps; a handful suffice from a good start.
const STEPS: usize = 60;

/// One row: min 1/2 w H w^T - b w^T, lower <= w <= upper, H with unit diagonal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    /// n x n.
    pub h: &'a [f64],
    pub b: &'a [f64],
    pub lower: &'a [f64],
    pub upper: &'a [f64],
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

    /// Inputs that are free to move at `w`: inside the box, or pushed inwards by the gradient.
    fn free(&self, w: &[f64], g: &[f64]) -> Vec<usize> {
        let held = |i: usize| (w[i] <= self.lower[i] && g[i] >= 0.0) || (w[i] >= self.upper[i] && g[i] <= 0.0);
        (0..w.len()).filter(|&i| !held(i)).collect()
    }

    /// Moves `w` (inside the box) to the optimum. Stops when the certificate is below `enough` or nothing is gained.
    /// Returns the certificate.
    pub fn polish(&self, w: &mut [f64], enough: f64) -> f64 {
        let n = self.b.len();
        let mut g = self.gradient(w);
        let mut gap = self.gap(w, &g);
        for _ in 0..STEPS {
            if gap <= enough {
                break;
            }
            let free = self.free(w, &g);
            let Some(step) = self.newton(&free, &g) else { break };
            let value = |d: &[f64], g: &[f64], gd: &[f64]| {
                // f(w + d) - f(w) = d (g(w) + g(w + d)) / 2
                0.5 * d.iter().zip(g.iter().zip(gd)).map(|(d, (a, b))| d * (a + b)).sum::<f64>()
            };
            let mut length = 1.0;
            let mut taken = false;
            while length > 1e-6 {
                let mut trial = w.to_vec();
                for (&i, s) in free.iter().zip(&step) {
                    trial[i] = (w[i] + length * s).max(self.lower[i]).min(self.upper[i]);
                }
                let d: Vec<f64> = trial.iter().zip(w.iter()).map(|(t, w)| t - w).collect();
                let trial_g = self.gradient(&trial);
                if value(&d, &g, &trial_g) < 1e-4 * dense::dot(&d, &g) {
                    w.copy_from_slice(&trial);
                    g = trial_g;
                    taken = true;
                    break;
                }
                length *= 0.5;
            }
            if !taken {
                break;
            }
            debug_assert_eq!(w.len(), n);
            gap = self.gap(w, &g);
        }
        gap
    }

    /// -H_FF^-1 g_F.
    fn newton(&self, free: &[usize], g: &[f64]) -> Option<Vec<f64>> {
        let (n, k) = (self.b.len(), free.len());
        if k == 0 {
            return None;
        }
        let mut sub = Vec::with_capacity(k * k);
        for &i in free {
            let row = &self.h[i * n..(i + 1) * n];
            sub.extend(free.iter().map(|&j| row[j]));
        }
        let factor = Cholesky::new(sub, k, Par::Seq)?;
        let mut step: Vec<f64> = free.iter().map(|&i| -g[i]).collect();
        factor.solve(&mut step, 1, Par::Seq);
        Some(step)
    }
}
