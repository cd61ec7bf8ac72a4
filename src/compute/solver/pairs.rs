//! Pair moves: where no single level can change for the better, two at once may. METHOD section 5.5.
//!
//! For every column i and each of its two neighbouring levels, the column j < i is looked for whose step to a
//! neighbouring level makes up most for it; the two steps are taken at once if together they gain. A sweep costs n^2 a
//! row at most.

use std::borrow::Cow;

use rayon::prelude::*;

use super::descent::{Gram, Inputs};
use super::feedback::Row;
use super::{Real, Steps, dense};
use crate::compute::buffer::{Buffer, expect_len};
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Gpu, Shader};
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

/// What the search for partners reads: H in f32, which is enough to find them, and how strongly each column is tied.
#[derive(Debug, Clone)]
pub struct Screen<'a> {
    /// n x n.
    h: Cow<'a, [f32]>,
    /// n: the largest |H_ij|, j other than i.
    ties: Vec<f32>,
}

impl<'a> Screen<'a> {
    /// Of H (n x n).
    pub fn new(h: Cow<'a, [f32]>, n: usize) -> Self {
        let tie = |i: usize| {
            let row = &h[i * n..(i + 1) * n];
            row[..i].iter().chain(&row[i + 1..]).fold(0.0f32, |most, v| most.max(v.abs()))
        };
        Self { ties: (0..n).map(tie).collect(), h }
    }
}

/// Columns that are searched at once.
const WIDTH: usize = 16;

/// A row's steps to neighbouring levels in f32: taking one costs `alone` + (s step_i H_ij) * `along`.
struct Partners {
    /// [up, down], n each, padded to whole `WIDTH`s.
    alone: [Vec<f32>; 2],
    along: [Vec<f32>; 2],
    /// The longest step.
    longest: f32,
}

impl Partners {
    fn new<T: Real>(reach: &Reach<T>, slope: &[T], curve: &[T]) -> Self {
        let padded = slope.len().next_multiple_of(WIDTH);
        let zeros = || [vec![0.0; padded], vec![0.0; padded]];
        let mut all = Self { alone: zeros(), along: zeros(), longest: 0.0 };
        all.refresh(reach, slope, curve);
        all
    }

    fn refresh<T: Real>(&mut self, reach: &Reach<T>, slope: &[T], curve: &[T]) {
        let two = T::of(2.0);
        self.longest = 0.0;
        for (side, steps) in [&reach.up, &reach.down].into_iter().enumerate() {
            for (j, &step) in steps.iter().enumerate() {
                self.alone[side][j] = (step * (two * slope[j] + step * curve[j])).to_f64() as f32;
                self.along[side][j] = (two * step).to_f64() as f32;
                self.longest = self.longest.max(step.to_f64().abs() as f32);
            }
        }
    }

    /// The partner that gains most of the columns whose `tied` (s step_i H_ij by j) is given: (gain, column).
    fn best(&self, by: f32, tied: &[f32]) -> (f32, usize) {
        let n = tied.len();
        let mut least = [0.0f32; WIDTH];
        vectorized(
            #[inline(always)]
            || {
                let at =
                    |of: &'_ [f32], j: usize| -> [f32; WIDTH] { of[j..j + WIDTH].try_into().unwrap_or([0.0; WIDTH]) };
                let mut j = 0;
                while j < n {
                    let mut tie = [0.0; WIDTH];
                    if j + WIDTH <= n {
                        tie = at(tied, j);
                    } else {
                        tie[..n - j].copy_from_slice(&tied[j..]);
                    }
                    let (up, down) = (at(&self.alone[0], j), at(&self.alone[1], j));
                    let (by_up, by_down) = (at(&self.along[0], j), at(&self.along[1], j));
                    // beyond the last column alone says what a step costs there: never less than nothing by a pair
                    let live = if j + WIDTH <= n { WIDTH } else { n - j };
                    for l in 0..live {
                        let c = by * tie[l];
                        let (u, d) = (up[l] + by_up[l] * c, down[l] + by_down[l] * c);
                        let g = if u < d { u } else { d };
                        least[l] = if g < least[l] { g } else { least[l] };
                    }
                    j += WIDTH;
                }
            },
        );
        let gain = least.iter().fold(0.0f32, |a, b| a.min(*b));
        if gain == 0.0 {
            return (0.0, n);
        }
        let found = (0..n).find(|&j| {
            let c = by * tied[j];
            (self.alone[0][j] + self.along[0][j] * c).min(self.alone[1][j] + self.along[1][j] * c) <= gain
        });
        (gain, found.unwrap_or(n))
    }
}

/// One sweep over the columns of a row, on f(q) = s^2 q H q^T - 2 s q b^T with the stored values s q. `row.w` is not
/// read.
///
/// `q` (n): levels in units of the scale, in and out. `hq` (n): H q, in and out. Returns the number of moves.
pub fn twin<T: Real>(
    (gram, screen): (Gram<'_, T>, &Screen<'_>),
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
    let mut partners = Partners::new(&reach, &slope, &curve);
    let mut moves = 0;
    for i in (1..n).rev() {
        for step in [reach.up[i], reach.down[i]] {
            if step == T::default() {
                continue;
            }
            let alone = step * (two * slope[i] + step * curve[i]);
            let by = scale * step;
            let by_single = by.to_f64() as f32;
            // where no single step gains, a partner brings this much at most
            let most = 2.0 * by_single.abs() * partners.longest * screen.ties[i];
            if alone.to_f64() as f32 >= most * 1.001 {
                continue;
            }
            let (gain, j) = partners.best(by_single, &screen.h[i * n..i * n + i]);
            if j >= i || alone.to_f64() as f32 + gain >= 0.0 {
                continue;
            }
            let g = two * (slope[j] + by * h[i * n + j]);
            let (up, down) = (reach.up[j], reach.down[j]);
            let (up_gain, down_gain) = (up * (g + up * curve[j]), down * (g + down * curve[j]));
            let (best, other) = if up_gain <= down_gain { (up_gain, up) } else { (down_gain, down) };
            if best >= T::default() || alone + best >= -hair * (alone - best) {
                continue;
            }
            for (k, step) in [(i, step), (j, other)] {
                q[k] = steps.nearest(q[k] + step);
                dense::axpy(hq, step, &h[k * n..(k + 1) * n]);
                dense::axpy(&mut slope, scale * step, &h[k * n..(k + 1) * n]);
                reach.update(steps, row, scale, q[k], k);
            }
            partners.refresh(&reach, &slope, &curve);
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
    let factors = factors(dev, gpu, inputs)?;
    let mut moved = dev.zeros::<u32>(m)?;
    dev.fill(&mut moved, 0)?;
    // a column: the search over all columns with their levels, who found the best, and the move
    let column = 2 * n.div_ceil(64) * (1 + if steps.list().len() > 1 { 100 } else { 0 }) + 40;
    let mut first = n;
    while first > 0 {
        let last = first.saturating_sub((MOST_ITERATIONS / column).max(1));
        let [low, high, step, count] = steps.params();
        let [e, f, g, i, j] = [n, m, usize::from(bounds.is_some()), first, last].map(|v| v as u32);
        let params: [u32; 12] = [low, high, step, count, e, f, g, i, j, steps.longest().to_bits(), 0, 0];
        gpu.run(
            &Dispatch { shader: SHADER, entry: "sweep", scalar: "f32", constants: &[], params, groups: m as u64 },
            &[
                Bind::In(h.gpu()?),
                Bind::In(b.gpu()?),
                Bind::In(factors.gpu()?),
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

/// The shader's `factors`, of H that may change between calls.
fn factors(dev: &Device, gpu: &Gpu, inputs: &Inputs<'_>) -> Result<Buffer<f32>> {
    let Inputs { n, m, h, scales, .. } = *inputs;
    let mut factors = dev.scratch::<f32>(m + 2 * n)?;
    dev.copy(scales, 0, &mut factors, 0, m)?;
    let params: [u32; 12] = [0, 0, 0, 0, n as u32, m as u32, 0, 0, 0, 0, 0, 0];
    gpu.run(
        &Dispatch { shader: SHADER, entry: "measure", scalar: "f32", constants: &[], params, groups: n as u64 },
        &[Bind::In(h.gpu()?), Bind::Out(factors.gpu()?)],
    )?;
    Ok(factors)
}

fn on_host(inputs: &Inputs<'_>, steps: &Steps<f32>, q: &mut [f32], hq: &mut [f32]) -> Result<Vec<bool>> {
    let (n, m) = (inputs.n, inputs.m);
    let (h, b, scales) = (inputs.h.host()?, inputs.b.host()?, inputs.scales.host()?);
    let (gram, screen) = (Gram { h, n }, Screen::new(Cow::Borrowed(h), n));
    let bounds = inputs.bounds.map(Buffer::host).transpose()?.map(|b| b.split_at(m * n));
    let rows = q.par_chunks_exact_mut(n).zip(hq.par_chunks_exact_mut(n)).enumerate();
    let moved = rows.map(|(o, state)| {
        let at = o * n..(o + 1) * n;
        let row = Row { w: &[], bounds: bounds.map(|(l, u)| (&l[at.clone()], &u[at.clone()])) };
        scales[o] > 0.0 && twin((gram, &screen), &steps.of_row(o), &b[at], row, scales[o], state) > 0
    });
    Ok(moved.collect())
}
