//! Coordinate descent on the grid in the space of samples (shaders/solver/sample_sweep.wgsl): the same moves as `descent`,
//! found from the samples themselves instead of their Gram matrix. A sweep costs 2 S a column and row instead of n, and
//! needs S n numbers instead of n^2: the way to go with fewer samples than inputs.
//!
//! With other probes the first, `forced` sweep from real values is error feedback: `feedback` makes them.

use rayon::prelude::*;

use super::{Real, Steps};
use crate::compute::buffer::{Buffer, expect_len};
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Shader};
use crate::compute::simd::vectorized;
use crate::error::Result;

const SHADER: Shader =
    Shader { name: "solver/sample_sweep.wgsl", source: include_str!("../../../shaders/solver/sample_sweep.wgsl") };

/// Loop iterations of an invocation in one dispatch: some drivers end loops after 65,535 without a word.
const MOST_ITERATIONS: usize = 30_000;
/// Rows that a core takes together, so that a column is read once for all of them.
const ROWS: usize = 16;
/// Partial sums of a product over samples: as many as the widest vectors hold several of.
const LANES: usize = 32;

/// What all rows share.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a, T> {
    /// n x S: an input's samples side by side.
    pub x: &'a [T],
    /// n x S, n: how far residuals and the distance from the prior push a column.
    pub probe: &'a [T],
    pub pull: &'a [T],
    pub samples: usize,
}

/// Probes and pulls of descent on |X^T v - t|^2 + mu |v - prior|^2, where residuals are X^T v - t: x_j / c_j and mu / c_j
/// with the curvature c_j = |x_j|^2 + mu. `x` is n x S.
pub fn descent(x: &[f64], samples: usize, mu: f64) -> (Vec<f64>, Vec<f64>) {
    let curve = |along: &[f64]| along.iter().map(|v| v * v).sum::<f64>() + mu;
    let curves: Vec<f64> = x.chunks_exact(samples).map(curve).collect();
    let probe = x.iter().enumerate().map(|(at, v)| v / curves[at / samples]).collect();
    (probe, curves.iter().map(|c| mu / c).collect())
}

/// Probes of error feedback from the continuous optimum, where residuals are X^T (v - v*), zeros to begin with: a column
/// is rounded where the best real values of the columns still to come put it. With F the columns up to j (those that are
/// rounded later, and j itself) and G_F = (X_F^T X_F + mu)^-1 over samples, probe_j = G_F x_j; a rank-one update a column.
/// `x` is n x S, `mu` > 0.
pub fn feedback(x: &[f64], samples: usize, mu: f64) -> Vec<f64> {
    let mut inverse = vec![0.0; samples * samples];
    (0..samples).for_each(|s| inverse[s * samples + s] = 1.0 / mu);
    let mut probes = Vec::with_capacity(x.len());
    for along in x.chunks_exact(samples) {
        let mut push: Vec<f64> =
            inverse.par_chunks_exact(samples).with_min_len(64).map(|row| product(row, along)).collect();
        let by = 1.0 / (1.0 + product(&push, along));
        inverse.par_chunks_exact_mut(samples).with_min_len(64).zip(&push).for_each(|(row, p)| {
            let by = by * p;
            vectorized(
                #[inline(always)]
                || row.iter_mut().zip(&push).for_each(|(v, q)| *v -= by * *q),
            );
        });
        push.iter_mut().for_each(|v| *v *= by);
        probes.extend(push);
    }
    probes
}

/// One sweep over a row, from the last column to the first.
///
/// `v` (n): stored values, in and out; on the grid unless `forced`. `r` (S): residuals, in and out. Returns the number of
/// moves.
pub fn twin<T: Real>(
    columns: Columns<'_, T>,
    steps: &Steps<T>,
    prior: &[T],
    scale: T,
    (v, r): (&mut [T], &mut [T]),
    forced: bool,
) -> usize {
    (0..v.len()).rev().filter(|&j| column(columns, steps, j, prior[j], scale, (&mut v[j], r), forced)).count()
}

/// Column `j` of a row; whether it moved.
#[inline]
fn column<T: Real>(
    columns: Columns<'_, T>,
    steps: &Steps<T>,
    j: usize,
    prior: T,
    scale: T,
    (v, r): (&mut T, &mut [T]),
    forced: bool,
) -> bool {
    let Columns { x, probe, pull, samples } = columns;
    // A move must gain more than rounding errors can feign, or two levels could swap for ever.
    let hair = T::of(if size_of::<T>() == 4 { 1e-5 } else { 1e-12 });
    let at = j * samples..(j + 1) * samples;
    let best = *v - product(&probe[at.clone()], r) - pull[j] * (*v - prior);
    let found = steps.nearest(best / scale) * scale;
    let (from, to) = (*v - best, found - best);
    if found == *v || !(forced || to * to < from * from * (T::of(1.0) - hair)) {
        return false;
    }
    let by = found - *v;
    *v = found;
    let along = &x[at];
    vectorized(
        #[inline(always)]
        || r.iter_mut().zip(along).for_each(|(r, x)| *r += by * *x),
    );
    true
}

fn product<T: Real>(a: &[T], b: &[T]) -> T {
    vectorized(
        #[inline(always)]
        || {
            let mut parts = [T::default(); LANES];
            let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
            let tail: T = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(a, b)| *a * *b).sum();
            for (a, b) in a_lanes.zip(b_lanes) {
                for l in 0..LANES {
                    parts[l] += a[l] * b[l];
                }
            }
            parts.into_iter().sum::<T>() + tail
        },
    )
}

/// The rows that are swept: m of them, n columns, S samples.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub n: usize,
    pub m: usize,
    pub samples: usize,
    /// n x S each.
    pub x: &'a Buffer<f32>,
    pub probe: &'a Buffer<f32>,
    /// m x n: what the ridge pulls towards.
    pub prior: &'a Buffer<f32>,
    /// m scales (a row whose scale is not positive rests), then n pulls.
    pub factors: &'a Buffer<f32>,
}

/// One sweep over every row. `v` (m x n) and `r` (m x S): stored values and residuals, in and out. m: moves of each row.
///
/// # Errors
/// `Work`: lengths that do not agree, or the device failed.
pub fn sweep(
    dev: &Device,
    inputs: &Inputs<'_>,
    steps: &Steps<f32>,
    v: &mut Buffer<f32>,
    r: &mut Buffer<f32>,
    forced: bool,
) -> Result<Vec<u32>> {
    let Inputs { n, m, samples, x, probe, prior, factors } = *inputs;
    expect_len("sample sweep: x", x, n * samples)?;
    expect_len("sample sweep: prior", prior, m * n)?;
    expect_len("sample sweep: probes", probe, n * samples)?;
    expect_len("sample sweep: factors", factors, m + n)?;
    expect_len("sample sweep: values", v, m * n)?;
    expect_len("sample sweep: residuals", r, m * samples)?;
    if n == 0 || m == 0 || samples == 0 {
        return Ok(vec![0; m]);
    }
    let Some(gpu) = dev.gpu() else {
        let (prior, (scales, pull)) = (prior.host()?, factors.host()?.split_at(m));
        let columns = Columns { x: x.host()?, probe: probe.host()?, pull, samples };
        let own: Vec<_> = (0..m).map(|o| steps.of_row(o)).collect();
        let mut moved = vec![0; m];
        let state = v.host_mut()?.par_chunks_mut(ROWS * n).zip(r.host_mut()?.par_chunks_mut(ROWS * samples));
        state.zip(moved.par_chunks_mut(ROWS)).enumerate().for_each(|(chunk, ((v, r), moved))| {
            for j in (0..n).rev() {
                for (k, (r, moved)) in r.chunks_exact_mut(samples).zip(moved.iter_mut()).enumerate() {
                    let o = chunk * ROWS + k;
                    let state = (&mut v[k * n + j], r);
                    let going = scales[o] > 0.0;
                    *moved +=
                        u32::from(going && column(columns, &own[o], j, prior[o * n + j], scales[o], state, forced));
                }
            }
        });
        return Ok(moved);
    };
    let levels = dev.upload(steps.list())?;
    let mut moved = dev.zeros::<u32>(m)?;
    dev.fill(&mut moved, 0)?;
    // a column: the product, its sum, a search, the move
    let column = 2 * samples.div_ceil(64) + 6 + 52;
    let mut first = n;
    while first > 0 {
        let last = first.saturating_sub((MOST_ITERATIONS / column).max(1));
        let [a, b, c, d] = steps.params();
        let [e, f, g, h, i, j] = [n, m, samples, first, last, usize::from(forced)].map(|v| v as u32);
        let params: [u32; 12] = [a, b, c, d, e, f, g, h, i, j, 0, 0];
        gpu.run(
            &Dispatch { shader: SHADER, entry: "sweep", scalar: "f32", constants: &[], params, groups: m as u64 },
            &[
                Bind::In(x.gpu()?),
                Bind::In(probe.gpu()?),
                Bind::In(prior.gpu()?),
                Bind::In(factors.gpu()?),
                Bind::In(levels.gpu()?),
                Bind::Out(v.gpu()?),
                Bind::Out(r.gpu()?),
                Bind::Out(moved.gpu()?),
            ],
        )?;
        first = last;
    }
    dev.download(&moved)
}
