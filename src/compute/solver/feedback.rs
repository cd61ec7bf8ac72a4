//! Error feedback: rounds the columns of W one after the other, each time moving what is left to make up for the error
//! (GPTQ = LDLQ = Babai's nearest plane). METHOD section 5.3.
//!
//! With H = L L^T (L lower), d = q - w and centre c_j = w_j - sum_{k > j} d_k L_kj / L_jj, the objective is exactly
//! d H d^T = sum_j (L_jj (q_j - c_j))^2. Columns are taken from the last to the first, so the caller sorts the inputs by
//! rising H_jj; each is rounded to the level nearest to its centre.
//!
//! Work is cut into *lanes*: one row of W rounded with one scale. A lane costs n^2 / 2 multiplications.

use super::{Real, Steps};

/// Lanes that the twin carries at once: one pass over L serves them all.
pub const LANES: usize = 8;
/// Columns rounded before their errors are passed on to the columns still to come.
const BLOCK: usize = 16;

/// What all lanes share.
#[derive(Debug, Clone, Copy)]
pub struct Factor<'a, T> {
    /// n x n by rows, L_ji / L_ii below the diagonal; the rest is not read.
    pub unit: &'a [T],
    /// n: L_ii.
    pub diagonal: &'a [T],
}

/// One row of the problem: its values and what the box allows.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a, T> {
    /// n: the values to round.
    pub w: &'a [T],
    /// n each: the interval of stored values, if there is one.
    pub bounds: Option<(&'a [T], &'a [T])>,
}

/// Rounds up to `LANES` lanes. `q` (lanes x n) receives the levels (in units of the lane's scale), where wanted.
/// Returns d H d^T of each lane; infinity if a column's bounds hold no level at its scale.
pub fn twin<T: Real>(
    factor: Factor<'_, T>,
    steps: &Steps<T>,
    lanes: &[(Row<'_, T>, T)],
    mut q: Option<&mut [T]>,
) -> [T; LANES] {
    let n = factor.diagonal.len();
    let count = lanes.len().min(LANES);
    let mut cost = [T::default(); LANES];
    if count == 0 {
        return cost;
    }
    // acc[i] = sum of d_k L_ki / L_ii over the columns k that were passed on; by column, then lane
    let mut acc = vec![[T::default(); LANES]; n];
    let mut error = [[T::default(); LANES]; BLOCK];
    let mut end = n;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        for j in (start..end).rev() {
            for (lane, (row, scale)) in lanes.iter().enumerate().take(LANES) {
                let centre = row.w[j] - acc[j][lane];
                let level = match row.bounds {
                    None => steps.nearest(centre / *scale),
                    Some((lower, upper)) => {
                        steps.nearest_within(centre / *scale, lower[j] / *scale, upper[j] / *scale) //
                    }
                };
                let value = level * *scale;
                let e = factor.diagonal[j] * (value - centre);
                cost[lane] += e * e;
                if row.bounds.is_some_and(|(lower, upper)| {
                    value < lower[j] - T::HAIR * *scale || value > upper[j] + T::HAIR * *scale
                }) {
                    cost[lane] = T::INFINITY;
                }
                error[j - start][lane] = value - row.w[j];
                if let Some(q) = &mut q {
                    q[lane * n + j] = level;
                }
            }
            pass_on(&mut acc[start..j], &error[j - start..j - start + 1], |_, i| factor.unit[j * n + start + i]);
        }
        pass_on(&mut acc[..start], &error[..end - start], |k, i| factor.unit[(start + k) * n + i]);
        end = start;
    }
    cost
}

/// acc[i] += sum_k error[k] unit(k, i).
#[inline]
fn pass_on<T: Real>(acc: &mut [[T; LANES]], error: &[[T; LANES]], unit: impl Fn(usize, usize) -> T) {
    for (i, acc) in acc.iter_mut().enumerate() {
        let mut sum = *acc;
        for (k, error) in error.iter().enumerate() {
            let u = unit(k, i);
            for lane in 0..LANES {
                sum[lane] += error[lane] * u;
            }
        }
        *acc = sum;
    }
}
