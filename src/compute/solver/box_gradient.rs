//! Accelerated projected gradient for least squares in a box, all rows at once; every row restarts its own momentum
//! when that points uphill (O'Donoghue and Candes 2015). METHOD section 4.
//!
//! min 1/2 w H w^T - b w^T, lower <= w <= upper, with L >= the largest eigenvalue of H:
//!
//!     w+ <- clip(y - (y H - b) / L)
//!     if (y - w+) . (w+ - w) > 0 then t <- 1
//!     t+ <- (1 + sqrt(1 + 4 t^2)) / 2;  y <- w+ + (t - 1) / t+ (w+ - w)

use faer::Par;

use super::{Real, dense};

/// The iteration's state.
#[derive(Debug, Clone)]
pub struct State<T> {
    /// m x n, inside the box: the answer.
    pub w: Vec<T>,
    /// m x n: where the next gradient is taken.
    pub y: Vec<T>,
    /// m: Nesterov's t.
    pub t: Vec<T>,
}

/// What stays the same between iterations. Slices are m x n but for `h`.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a, T> {
    pub n: usize,
    pub b: &'a [T],
    pub lower: &'a [T],
    pub upper: &'a [T],
    /// n x n.
    pub h: &'a [T],
    /// 1 / L.
    pub step: T,
}

/// Starts at `w` (m x n, inside the box).
pub fn start<T: Real>(n: usize, w: Vec<T>) -> State<T> {
    State { y: w.clone(), t: vec![T::of(1.0); w.len() / n.max(1)], w }
}

/// Runs `count` iterations.
pub fn twin<T: Real>(data: Data<'_, T>, state: &mut State<T>, count: usize, par: Par) {
    let n = data.n;
    let m = data.b.len() / n.max(1);
    let one = T::of(1.0);
    let mut next = vec![T::default(); m * n];
    for _ in 0..count {
        dense::product(&mut next, false, &state.y, data.h, (m, n, n), par);
        for o in 0..m {
            let mut uphill = T::default();
            for i in o * n..(o + 1) * n {
                let step = state.y[i] - data.step * (next[i] - data.b[i]);
                next[i] = step.most(data.lower[i]).least(data.upper[i]);
                uphill += (state.y[i] - next[i]) * (next[i] - state.w[i]);
            }
            let t = if uphill > T::default() { one } else { state.t[o] };
            let t_next = (one + T::of((one + T::of(4.0) * t * t).to_f64().sqrt())) / T::of(2.0);
            let momentum = (t - one) / t_next;
            state.t[o] = t_next;
            for i in o * n..(o + 1) * n {
                state.y[i] = next[i] + momentum * (next[i] - state.w[i]);
            }
        }
        std::mem::swap(&mut state.w, &mut next);
    }
}

/// An upper bound of the largest eigenvalue of `h` (n x n, symmetric): 1.02 times what power iteration finds, and no
/// more than the largest absolute row sum.
pub fn largest_eigenvalue(h: &[f64], n: usize) -> f64 {
    let row_sum = h.chunks_exact(n.max(1)).map(|r| r.iter().map(|v| v.abs()).sum::<f64>()).fold(0.0, f64::max);
    // a start that is orthogonal to no eigenvector one would meet
    let mut v: Vec<f64> = (0..n).map(|i| 1.0 + 0.5 * ((i * 7 + 3) % 11) as f64 / 11.0).collect();
    let mut value = 0.0;
    for _ in 0..60 {
        let next: Vec<f64> = h.chunks_exact(n.max(1)).map(|row| dense::dot(row, &v)).collect();
        value = dense::dot(&next, &next).sqrt();
        if !(value > 0.0) {
            break;
        }
        v = next.iter().map(|x| x / value).collect();
    }
    (1.02 * value).min(row_sum).max(f64::MIN_POSITIVE)
}
