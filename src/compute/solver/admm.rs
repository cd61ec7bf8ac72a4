//! ADMM for least squares in a box, all rows at once. METHOD section 4.
//!
//! min 1/2 w H w^T - b w^T, lower <= w <= upper, with K = (H + rho I)^-1 at hand:
//!
//!     w <- (b + rho (z - u)) K        r <- relax w + (1 - relax) z
//!     z <- clip(r + u)                u <- u + r - z
//!
//! One product of m x n by n x n an iteration, and elementwise work that rides along with it.

use faer::Par;

use super::{Real, dense};

/// Over-relaxation that most problems like (Boyd and others 2011, section 3.4.3).
pub const RELAX: f64 = 1.6;

/// The iteration's state, m x n each.
#[derive(Debug, Clone)]
pub struct State<T> {
    /// Inside the box: the answer.
    pub z: Vec<T>,
    /// Scaled dual.
    pub u: Vec<T>,
    /// Solves the least squares, outside the box until converged.
    pub w: Vec<T>,
    /// b + rho (z - u), what the next product starts from.
    pub v: Vec<T>,
}

/// What stays the same between iterations. Slices are m x n but for `k`.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a, T> {
    pub n: usize,
    pub b: &'a [T],
    pub lower: &'a [T],
    pub upper: &'a [T],
    /// n x n: (H + rho I)^-1.
    pub k: &'a [T],
    pub rho: T,
}

/// Starts at `z` (m x n, inside the box) with no dual.
pub fn start<T: Real>(data: Data<'_, T>, z: Vec<T>) -> State<T> {
    let v = z.iter().zip(data.b).map(|(z, b)| *b + data.rho * *z).collect();
    State { u: vec![T::default(); z.len()], w: z.clone(), v, z }
}

/// Runs `count` iterations.
pub fn twin<T: Real>(data: Data<'_, T>, state: &mut State<T>, count: usize, par: Par) {
    let n = data.n;
    let m = data.b.len() / n.max(1);
    let relax = T::of(RELAX);
    for _ in 0..count {
        dense::product(&mut state.w, false, &state.v, data.k, (m, n, n), par);
        for i in 0..m * n {
            let relaxed = relax * state.w[i] + (T::of(1.0) - relax) * state.z[i] + state.u[i];
            let z = relaxed.most(data.lower[i]).least(data.upper[i]);
            state.z[i] = z;
            state.u[i] = relaxed - z;
            state.v[i] = data.b[i] + data.rho * (z - state.u[i]);
        }
    }
}
