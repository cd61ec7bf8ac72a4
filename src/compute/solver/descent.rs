//! Coordinate descent on the grid: one column at a time goes to the level that is best with all others fixed, until no
//! column moves. Monotone; a sweep costs n, a move n more. METHOD section 5.4 [R QuantEase, CDQuant].

use super::feedback::Row;
use super::{Real, Steps, dense};

/// What one row's descent shares with all others.
#[derive(Debug, Clone, Copy)]
pub struct Gram<'a, T> {
    /// n x n, symmetric, positive diagonal.
    pub h: &'a [T],
    pub n: usize,
}

/// Descends on f(q) = s^2 q H q^T - 2 s q b^T, with the stored values s q. `row.w` is not read.
///
/// `q` (n): levels in units of the scale, in and out. `hq` (n): H q, in and out. Returns the number of sweeps that moved
/// something; stops after `sweeps` of them.
pub fn twin<T: Real>(
    gram: Gram<'_, T>,
    steps: &Steps<T>,
    b: &[T],
    row: Row<'_, T>,
    scale: T,
    (q, hq): (&mut [T], &mut [T]),
    sweeps: usize,
) -> usize {
    let Gram { h, n } = gram;
    // A move must gain more than rounding errors can feign, or two levels could swap for ever.
    let hair = T::of(if size_of::<T>() == 4 { 1e-5 } else { 1e-12 });
    for sweep in 0..sweeps {
        let mut moved = false;
        for j in (0..n).rev() {
            let curvature = h[j * n + j];
            let best = q[j] - (scale * hq[j] - b[j]) / (scale * curvature);
            let level = match row.bounds {
                None => steps.nearest(best),
                Some((lower, upper)) => steps.nearest_within(best, lower[j] / scale, upper[j] / scale),
            };
            let (from, to) = (q[j] - best, level - best);
            if level != q[j] && to * to < from * from * (T::of(1.0) - hair) {
                let by = level - q[j];
                q[j] = level;
                dense::axpy(hq, by, &h[j * n..(j + 1) * n]);
                moved = true;
            }
        }
        if !moved {
            return sweep;
        }
    }
    sweeps
}
