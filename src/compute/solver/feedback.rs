//! Error feedback: rounds the columns of W one after the other, each time moving what is left to make up for the error
//! (GPTQ = LDLQ = Babai's nearest plane). METHOD section 5.3.
//!
//! With H = L L^T (L lower), d = q - w and centre c_j = w_j - sum_{k > j} d_k L_kj / L_jj, the objective is exactly
//! d H d^T = sum_j (L_jj (q_j - c_j))^2. Columns are taken from the last to the first, so the caller sorts the inputs by
//! rising H_jj; each is rounded to the level nearest to its centre.
//!
//! Work is cut into *lanes*: one row of W rounded with one scale. A lane costs n^2 / 2 multiplications.

use rayon::prelude::*;

use super::steps::columns_a_dispatch;
use super::{Real, Steps};
use crate::compute::buffer::{Buffer, expect_len};
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Shader};
use crate::compute::simd::vectorized;
use crate::error::{Error, Result};

const SHADER: Shader =
    Shader { name: "solver/feedback.wgsl", source: include_str!("../../../shaders/solver/feedback.wgsl") };

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
    vectorized(
        #[inline(always)]
        || {
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
        },
    );
}

/// The problem that a batch of lanes rounds: `rows` rows of `n` columns.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub n: usize,
    pub rows: usize,
    /// n x n by rows: L_ji / L_ii below the diagonal, L_ii on it; the rest is not read.
    pub unit: &'a Buffer<f32>,
    /// rows x n.
    pub w: &'a Buffer<f32>,
    /// 2 x rows x n: lower bounds, then upper ones.
    pub bounds: Option<&'a Buffer<f32>>,
}

/// Rounds lane by lane: lane l is row `lane_rows[l]` with `scales[l]`. `q` (lanes x n) receives the levels, `cost`
/// (lanes) d H d^T; beyond 3e38 if a column's bounds hold no level. Levels by row are those of the lane's row.
///
/// # Errors
/// `Work`: lengths that do not agree, or the device failed.
pub fn feedback(
    dev: &Device,
    inputs: &Inputs<'_>,
    steps: &Steps<f32>,
    (lane_rows, scales): (&Buffer<u32>, &Buffer<f32>),
    q: &mut Buffer<f32>,
    cost: &mut Buffer<f32>,
) -> Result<()> {
    let Inputs { n, rows, unit, w, bounds } = *inputs;
    let lanes = scales.len();
    expect_len("feedback: unit", unit, n * n)?;
    expect_len("feedback: w", w, rows * n)?;
    if let Some(bounds) = bounds {
        expect_len("feedback: bounds", bounds, 2 * rows * n)?;
    }
    expect_len("feedback: lanes", lane_rows, lanes)?;
    expect_len("feedback: q", q, lanes * n)?;
    expect_len("feedback: cost", cost, lanes)?;
    if n == 0 || rows == 0 || lanes == 0 {
        return Ok(());
    }
    let Some(gpu) = dev.gpu() else {
        return on_host(inputs, steps, (lane_rows.host()?, scales.host()?), q.host_mut()?, cost.host_mut()?);
    };
    dev.fill(q, 0.0)?;
    dev.fill(cost, 0.0)?;
    let levels = dev.upload(steps.list())?;
    let mut first = n;
    while first > 0 {
        let to = first.saturating_sub(columns_a_dispatch(n));
        let [a, b, c, d] = steps.params();
        let counts = [n, lanes, rows, usize::from(bounds.is_some()), first, to].map(|v| v as u32);
        let params: [u32; 10] = [a, b, c, d, counts[0], counts[1], counts[2], counts[3], counts[4], counts[5]];
        gpu.run(
            &Dispatch {
                shader: SHADER,
                entry: "round_columns",
                scalar: "f32",
                constants: &[],
                params,
                groups: lanes as u64,
            },
            &[
                Bind::In(unit.gpu()?),
                Bind::In(w.gpu()?),
                Bind::In(lane_rows.gpu()?),
                Bind::In(scales.gpu()?),
                Bind::In(bounds.unwrap_or(w).gpu()?),
                Bind::In(levels.gpu()?),
                Bind::Out(q.gpu()?),
                Bind::Out(cost.gpu()?),
            ],
        )?;
        first = to;
    }
    Ok(())
}

fn on_host(
    inputs: &Inputs<'_>,
    steps: &Steps<f32>,
    (lane_rows, scales): (&[u32], &[f32]),
    q: &mut [f32],
    cost: &mut [f32],
) -> Result<()> {
    let (n, rows, unit, w) = (inputs.n, inputs.rows, inputs.unit.host()?, inputs.w.host()?);
    if let Some(bad) = lane_rows.iter().find(|r| **r as usize >= rows) {
        return Err(Error::work("feedback", format!("row {bad} of {rows}")));
    }
    let bounds = inputs.bounds.map(Buffer::host).transpose()?.map(|b| b.split_at(rows * n));
    let diagonal: Vec<f32> = (0..n).map(|i| unit[i * n + i]).collect();
    let factor = Factor { unit, diagonal: &diagonal };
    // lanes that are carried together share their levels
    let at_once = if steps.by_row() { 1 } else { LANES };
    let work = lane_rows.par_chunks(at_once).zip(scales.par_chunks(at_once));
    work.zip(q.par_chunks_mut(at_once * n)).zip(cost.par_chunks_mut(at_once)).for_each(
        |(((rows, scales), q), cost)| {
            let lane = |(row, scale): (&u32, &f32)| {
                let at = *row as usize * n..(*row as usize + 1) * n;
                (Row { w: &w[at.clone()], bounds: bounds.map(|(l, u)| (&l[at.clone()], &u[at.clone()])) }, *scale)
            };
            let lanes: Vec<_> = rows.iter().zip(scales).map(lane).collect();
            let found = twin(factor, &steps.of_row(rows[0] as usize), &lanes, Some(q));
            cost.iter_mut().zip(found).for_each(|(to, from)| *to = from.min(3.4e38));
        },
    );
    Ok(())
}
