//! K-best search along the factor: error feedback that keeps the K best partial solutions instead of one. METHOD
//! section 5.5 (K-best sphere decoding; K = 1 is error feedback).
//!
//! Columns are taken from the last to the first, as in `feedback`. Every path (a choice of levels for the columns so
//! far, whose cost sum (L_jj (q_j - c_j))^2 is exact) branches into the `BRANCHES` levels nearest to its own centre;
//! the K cheapest of all branches go on. A lane (one row with one scale) costs K n^2 / 2 multiplications.

use rayon::prelude::*;

use super::feedback::{Factor, Inputs, Row};
use super::{Real, Steps};
use crate::compute::buffer::{Buffer, expect_len};
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Shader};
use crate::compute::simd::vectorized;
use crate::error::{Error, Result};

const SHADER: Shader = Shader { name: "solver/kbest.wgsl", source: include_str!("../../../shaders/solver/kbest.wgsl") };

/// Levels that a path branches into.
pub const BRANCHES: usize = 4;
/// Most paths of a lane: their branches fill the shader's workgroup memory.
pub const MOST_PATHS: usize = 64;
/// Invocations of a workgroup of the shader.
const THREADS: usize = 128;
/// Loop iterations of an invocation in one dispatch: some drivers end loops after 65,535 without a word.
const MOST_ITERATIONS: usize = 30_000;

/// Bytes of the larger buffer that a lane of `n` columns needs on a GPU.
pub fn device_bytes(n: usize, paths: usize) -> u64 {
    4 * paths as u64 * (2 * n as u64 + 1)
}

/// What the twin works in, kept between lanes.
#[derive(Debug)]
pub struct Room<T> {
    /// paths x n each: sum of d_k L_ki / L_ii over the columns k taken so far, of the paths before and after a column.
    passed: [Vec<T>; 2],
    /// paths: cost so far.
    cost: Vec<T>,
    /// (cost, branch = path * BRANCHES + rank) of a column.
    branches: Vec<(T, u32)>,
    /// n x paths: the path that each path came from, and the level that it took.
    trail: Vec<(u32, T)>,
}

impl<T: Real> Room<T> {
    /// Room for lanes of `n` columns and `paths` paths.
    pub fn new(n: usize, paths: usize) -> Self {
        let zeros = || vec![T::default(); paths * n];
        Self {
            passed: [zeros(), zeros()],
            cost: Vec::with_capacity(paths),
            branches: Vec::with_capacity(paths * BRANCHES),
            trail: vec![(0, T::default()); paths * n],
        }
    }
}

/// Rounds one lane with `paths` paths (at least one). `q` (n) receives the levels of the best path. Returns d H d^T;
/// infinity if a column's bounds hold no level.
pub fn twin<T: Real>(
    factor: Factor<'_, T>,
    steps: &Steps<T>,
    (row, scale): (Row<'_, T>, T),
    paths: usize,
    room: &mut Room<T>,
    q: &mut [T],
) -> T {
    vectorized(
        #[inline(always)]
        || {
            let n = factor.diagonal.len();
            let Room { passed: [now, next], cost, branches, trail } = room;
            now[..n].fill(T::default());
            cost.clear();
            cost.push(T::default());
            for j in (0..n).rev() {
                branches.clear();
                let mut levels = [[T::default(); BRANCHES]; MOST_PATHS];
                let within = row.bounds.map(|(lower, upper)| (lower[j] / scale, upper[j] / scale));
                for (path, so_far) in cost.iter().enumerate() {
                    let centre = row.w[j] - now[path * n + j];
                    let count = steps.nearest_few(centre / scale, within, &mut levels[path]);
                    if count == 0 {
                        levels[path][0] = steps.nearest(centre / scale);
                        branches.push((T::INFINITY, (path * BRANCHES) as u32));
                    }
                    for (rank, level) in levels[path][..count].iter().enumerate() {
                        let e = factor.diagonal[j] * (*level * scale - centre);
                        branches.push((*so_far + e * e, (path * BRANCHES + rank) as u32));
                    }
                }
                let order = |a: &(T, u32), b: &(T, u32)| {
                    a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal).then(a.1.cmp(&b.1)) //
                };
                if branches.len() > paths {
                    branches.select_nth_unstable_by(paths - 1, order);
                    branches.truncate(paths);
                }
                branches.sort_unstable_by(order);
                cost.clear();
                for (path, &(total, branch)) in branches.iter().enumerate() {
                    let (parent, rank) = (branch as usize / BRANCHES, branch as usize % BRANCHES);
                    let level = levels[parent][rank];
                    cost.push(total);
                    trail[j * paths + path] = (parent as u32, level);
                    let d = level * scale - row.w[j];
                    let (from, to) = (&now[parent * n..parent * n + j], &mut next[path * n..path * n + j]);
                    let unit = &factor.unit[j * n..j * n + j];
                    to.iter_mut().zip(from).zip(unit).for_each(|((to, from), u)| *to = *from + d * *u);
                }
                std::mem::swap(now, next);
            }
            let mut path = 0;
            for j in 0..n {
                let (parent, level) = trail[j * paths + path];
                q[j] = level;
                path = parent as usize;
            }
            cost[0]
        },
    )
}

/// Rounds lane by lane with `paths` paths: lane l is row `lane_rows[l]` with `scales[l]`. `q` (lanes x n) receives the
/// levels, `cost` (lanes) d H d^T; beyond 3e38 if a column's bounds hold no level.
///
/// On a GPU it takes two buffers of up to `device_bytes` a lane for its own use.
///
/// # Errors
/// `Work`: lengths that do not agree, no paths or more than `MOST_PATHS`, or the device failed.
pub fn kbest(
    dev: &Device,
    inputs: &Inputs<'_>,
    steps: &Steps<f32>,
    (lane_rows, scales): (&Buffer<u32>, &Buffer<f32>),
    paths: usize,
    q: &mut Buffer<f32>,
    cost: &mut Buffer<f32>,
) -> Result<()> {
    let Inputs { n, rows, unit, w, bounds } = *inputs;
    let lanes = scales.len();
    if !(1..=MOST_PATHS).contains(&paths) {
        return Err(Error::work("K-best", format!("{paths} paths where 1 to {MOST_PATHS} are possible")));
    }
    expect_len("K-best: unit", unit, n * n)?;
    expect_len("K-best: w", w, rows * n)?;
    if let Some(bounds) = bounds {
        expect_len("K-best: bounds", bounds, 2 * rows * n)?;
    }
    expect_len("K-best: lanes", lane_rows, lanes)?;
    expect_len("K-best: q", q, lanes * n)?;
    expect_len("K-best: cost", cost, lanes)?;
    if n == 0 || rows == 0 || lanes == 0 {
        return Ok(());
    }
    let Some(gpu) = dev.gpu() else {
        return on_host(inputs, steps, (lane_rows.host()?, scales.host()?), paths, q.host_mut()?, cost.host_mut()?);
    };
    let levels = dev.upload(steps.list())?;
    // the shader takes zeros for its start
    let state = dev.zeros::<f32>(lanes * paths * (2 * n + 1))?;
    let trail = dev.zeros::<u32>(2 * lanes * paths * n)?;
    let sorted = (paths * BRANCHES).next_power_of_two();
    let stages = sorted.ilog2() as usize;
    // what a column costs an invocation: sorting, searching a list, passing on
    let column = stages * stages * 2 + 64 + n.div_ceil(THREADS) * (1 + paths.div_ceil(4));
    let mut first = n;
    while first > 0 {
        let last = first.saturating_sub((MOST_ITERATIONS / column).max(1));
        let [a, b, c, d] = steps.params();
        let counts = [n, lanes, rows, usize::from(bounds.is_some()), paths, first, last, sorted].map(|v| v as u32);
        let [e, f, g, h, i, j, k, l] = counts;
        let params: [u32; 12] = [a, b, c, d, e, f, g, h, i, j, k, l];
        gpu.run(
            &Dispatch { shader: SHADER, entry: "search", scalar: "f32", constants: &[], params, groups: lanes as u64 },
            &[
                Bind::In(unit.gpu()?),
                Bind::In(w.gpu()?),
                Bind::In(lane_rows.gpu()?),
                Bind::In(scales.gpu()?),
                Bind::In(bounds.unwrap_or(w).gpu()?),
                Bind::In(levels.gpu()?),
                Bind::Out(state.gpu()?),
                Bind::Out(trail.gpu()?),
            ],
        )?;
        first = last;
    }
    let params: [u32; 12] = [0, 0, 0, 0, n as u32, lanes as u32, 0, 0, paths as u32, 0, 0, 0];
    let groups = lanes.div_ceil(64) as u64;
    gpu.run(
        &Dispatch { shader: SHADER, entry: "trace", scalar: "f32", constants: &[], params, groups },
        &[Bind::In(state.gpu()?), Bind::In(trail.gpu()?), Bind::Out(q.gpu()?), Bind::Out(cost.gpu()?)],
    )
}

fn on_host(
    inputs: &Inputs<'_>,
    steps: &Steps<f32>,
    (lane_rows, scales): (&[u32], &[f32]),
    paths: usize,
    q: &mut [f32],
    cost: &mut [f32],
) -> Result<()> {
    let (n, rows, unit, w) = (inputs.n, inputs.rows, inputs.unit.host()?, inputs.w.host()?);
    if let Some(bad) = lane_rows.iter().find(|r| **r as usize >= rows) {
        return Err(Error::work("K-best", format!("row {bad} of {rows}")));
    }
    let bounds = inputs.bounds.map(Buffer::host).transpose()?.map(|b| b.split_at(rows * n));
    let diagonal: Vec<f32> = (0..n).map(|i| unit[i * n + i]).collect();
    let factor = Factor { unit, diagonal: &diagonal };
    let lanes = lane_rows.par_iter().zip(scales).zip(q.par_chunks_exact_mut(n)).zip(cost);
    lanes.for_each_init(
        || Room::new(n, paths),
        |room, (((row, scale), q), cost)| {
            let at = *row as usize * n..(*row as usize + 1) * n;
            let number = *row as usize;
            let row = Row { w: &w[at.clone()], bounds: bounds.map(|(l, u)| (&l[at.clone()], &u[at.clone()])) };
            *cost = twin(factor, &steps.of_row(number), (row, *scale), paths, room, q).min(3.4e38);
        },
    );
    Ok(())
}
