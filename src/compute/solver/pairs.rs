//! Pair moves: where no single level can change for the better, two at once may. METHOD section 5.5.
//!
//! For every column i and each of its two neighbouring levels, the column j is looked for whose step to a neighbouring
//! level makes up most for it; the two steps are taken at once if together they gain. A sweep costs 2 n^2 a row.

use rayon::prelude::*;

use super::descent::{Gram, Inputs};
use super::feedback::Row;
use super::{Real, Steps, dense};
use crate::compute::buffer::{Buffer, expect_len};
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Shader};
use crate::compute::simd::vectorized;
use crate::error::Result;

const SHADER: Shader = Shader { name: "solver/pairs.wgsl", source: include_str!("../../../shaders/solver/pairs.wgsl") };

/// Loop iterations of an invocation in one dispatch: some drivers end loops after 65,535 without a word.
const MOST_ITERATIONS: usize = 30_000;

/// A row's neighbouring levels, as steps from where its columns stand; 0 where there is none.
struct Reach<T> {
    up: Vec<T>,
    down: Vec<T>,
}

impl<T: Real> Reach<T> {
    fn new(steps: &Steps<T>, row: Row<'_, T>, scale: T, q: &[T]) -> Self {
        let mut reach = Self { up: vec![T::default(); q.len()], down: vec![T::default(); q.len()] };
        (0..q.len()).for_each(|j| reach.update(steps, row, scale, q[j], j));
        reach
    }

    fn update(&mut self, steps: &Steps<T>, row: Row<'_, T>, scale: T, level: T, j: usize) {
        let within = row.bounds.map(|(lower, upper)| (lower[j] / scale, upper[j] / scale));
        let (down, up) = steps.neighbours(level, within);
        (self.up[j], self.down[j]) = (up, down);
    }
}

/// One sweep over the columns of a row, on f(q) = s^2 q H q^T - 2 s q b^T with the stored values s q. `row.w` is not
/// read.
///
/// `q` (n): levels in units of the scale, in and out. `hq` (n): H q, in and out. Returns the number of moves.
pub fn twin<T: Real>(
    gram: Gram<'_, T>,
    steps: &Steps<T>,
    b: &[T],
    row: Row<'_, T>,
    scale: T,
    (q, hq): (&mut [T], &mut [T]),
) -> usize {
    let Gram { h, n } = gram;
    // A move must gain more than rounding errors can feign, or two pairs could swap for ever.
    let hair = T::of(if size_of::<T>() == 4 { 1e-5 } else { 1e-12 });
    let two = T::of(2.0);
    let mut reach = Reach::new(steps, row, scale, q);
    // of every column: half the slope, and the curvature
    let mut slope: Vec<T> = hq.iter().zip(b).map(|(hq, b)| scale * *hq - *b).collect();
    let curve: Vec<T> = (0..n).map(|j| scale * h[j * n + j]).collect();
    let mut gain = vec![T::default(); n];
    let mut moves = 0;
    for i in (0..n).rev() {
        for step in [reach.up[i], reach.down[i]] {
            if step == T::default() {
                continue;
            }
            let alone = step * (two * slope[i] + step * curve[i]);
            let along = &h[i * n..(i + 1) * n];
            let by = scale * step;
            vectorized(
                #[inline(always)]
                || {
                    for j in 0..n {
                        let g = two * (slope[j] + by * along[j]);
                        let (up, down) = (reach.up[j], reach.down[j]);
                        gain[j] = (up * (g + up * curve[j])).least(down * (g + down * curve[j]));
                    }
                },
            );
            gain[i] = T::default();
            let (mut best, mut partner) = (T::default(), n);
            for (j, g) in gain.iter().enumerate() {
                if *g < best {
                    (best, partner) = (*g, j);
                }
            }
            if partner == n || alone + best >= -hair * (alone - best) {
                continue;
            }
            let j = partner;
            let g = two * (slope[j] + by * along[j]);
            let up = reach.up[j] * (g + reach.up[j] * curve[j]);
            let other = if up == best { reach.up[j] } else { reach.down[j] };
            for (k, step) in [(i, step), (j, other)] {
                q[k] = steps.nearest(q[k] + step);
                dense::axpy(hq, step, &h[k * n..(k + 1) * n]);
                dense::axpy(&mut slope, scale * step, &h[k * n..(k + 1) * n]);
                reach.update(steps, row, scale, q[k], k);
            }
            moves += 1;
            break;
        }
    }
    moves
}

/// One sweep over every row whose scale is positive. `q` and `hq` (m x n): levels and H times them, in and out. m:
/// which rows moved.
///
/// # Errors
/// `Work`: lengths that do not agree, or the device failed.
pub fn pairs(
    dev: &Device,
    inputs: &Inputs<'_>,
    steps: &Steps<f32>,
    q: &mut Buffer<f32>,
    hq: &mut Buffer<f32>,
) -> Result<Vec<bool>> {
    let Inputs { n, m, h, b, scales, bounds } = *inputs;
    expect_len("pairs: h", h, n * n)?;
    expect_len("pairs: b", b, m * n)?;
    expect_len("pairs: scales", scales, m)?;
    if let Some(bounds) = bounds {
        expect_len("pairs: bounds", bounds, 2 * m * n)?;
    }
    expect_len("pairs: q", q, m * n)?;
    expect_len("pairs: hq", hq, m * n)?;
    if n == 0 || m == 0 {
        return Ok(vec![false; m]);
    }
    let Some(gpu) = dev.gpu() else {
        return on_host(inputs, steps, q.host_mut()?, hq.host_mut()?);
    };
    let levels = dev.upload(steps.list())?;
    let mut moved = dev.zeros::<u32>(m)?;
    dev.fill(&mut moved, 0)?;
    // a column: both neighbours' searches over all columns with their levels, and the move
    let column = 3 * n.div_ceil(64) * (1 + if steps.list().len() > 1 { 100 } else { 0 }) + 20;
    let mut first = n;
    while first > 0 {
        let last = first.saturating_sub((MOST_ITERATIONS / column).max(1));
        let [low, high, step, count] = steps.params();
        let [e, f, g, i, j] = [n, m, usize::from(bounds.is_some()), first, last].map(|v| v as u32);
        let params: [u32; 12] = [low, high, step, count, e, f, g, i, j, 0, 0, 0];
        gpu.run(
            &Dispatch { shader: SHADER, entry: "sweep", scalar: "f32", constants: &[], params, groups: m as u64 },
            &[
                Bind::In(h.gpu()?),
                Bind::In(b.gpu()?),
                Bind::In(scales.gpu()?),
                Bind::In(bounds.unwrap_or(b).gpu()?),
                Bind::In(levels.gpu()?),
                Bind::Out(q.gpu()?),
                Bind::Out(hq.gpu()?),
                Bind::Out(moved.gpu()?),
            ],
        )?;
        first = last;
    }
    Ok(dev.download(&moved)?.iter().map(|moves| *moves > 0).collect())
}

fn on_host(inputs: &Inputs<'_>, steps: &Steps<f32>, q: &mut [f32], hq: &mut [f32]) -> Result<Vec<bool>> {
    let (n, m) = (inputs.n, inputs.m);
    let (gram, b, scales) = (Gram { h: inputs.h.host()?, n }, inputs.b.host()?, inputs.scales.host()?);
    let bounds = inputs.bounds.map(Buffer::host).transpose()?.map(|b| b.split_at(m * n));
    let rows = q.par_chunks_exact_mut(n).zip(hq.par_chunks_exact_mut(n)).enumerate();
    let moved = rows.map(|(o, state)| {
        let at = o * n..(o + 1) * n;
        let row = Row { w: &[], bounds: bounds.map(|(l, u)| (&l[at.clone()], &u[at.clone()])) };
        scales[o] > 0.0 && twin(gram, &steps.of_row(o), &b[at], row, scales[o], state) > 0
    });
    Ok(moved.collect())
}
