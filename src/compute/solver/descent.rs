//! Coordinate descent on the grid: one column at a time goes to the level that is best with all others fixed, until no
//! column moves. Monotone; a sweep costs n, a move n more. METHOD section 5.4 [R QuantEase, CDQuant].

use rayon::prelude::*;

use super::feedback::Row;
use super::steps::columns_a_dispatch;
use super::{Real, Steps, dense};
use crate::compute::buffer::{Buffer, expect_len};
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Shader};
use crate::error::Result;

const SHADER: Shader =
    Shader { name: "solver/descent.wgsl", source: include_str!("../../../shaders/solver/descent.wgsl") };

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

/// The rows that descend: m of them, n columns.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub n: usize,
    pub m: usize,
    /// n x n, symmetric, positive diagonal.
    pub h: &'a Buffer<f32>,
    /// m x n.
    pub b: &'a Buffer<f32>,
    /// m: scales; a row whose scale is not positive rests.
    pub scales: &'a Buffer<f32>,
    /// 2 x m x n: lower bounds, then upper ones.
    pub bounds: Option<&'a Buffer<f32>>,
}

/// Descends every row to a fixed point, or for `sweeps` sweeps. `q` and `hq` (m x n): levels and H times them, in and
/// out. m: which rows moved.
///
/// # Errors
/// `Work`: lengths that do not agree, or the device failed.
pub fn descent(
    dev: &Device,
    inputs: &Inputs<'_>,
    steps: &Steps<f32>,
    q: &mut Buffer<f32>,
    hq: &mut Buffer<f32>,
    sweeps: usize,
) -> Result<Vec<bool>> {
    let Inputs { n, m, h, b, scales, bounds } = *inputs;
    expect_len("descent: h", h, n * n)?;
    expect_len("descent: b", b, m * n)?;
    expect_len("descent: scales", scales, m)?;
    if let Some(bounds) = bounds {
        expect_len("descent: bounds", bounds, 2 * m * n)?;
    }
    expect_len("descent: q", q, m * n)?;
    expect_len("descent: hq", hq, m * n)?;
    if n == 0 || m == 0 {
        return Ok(vec![false; m]);
    }
    let Some(gpu) = dev.gpu() else {
        return on_host(inputs, steps, q.host_mut()?, hq.host_mut()?, sweeps);
    };
    let levels = dev.upload(steps.list())?;
    let mut moved = dev.zeros::<u32>(m)?;
    let mut ever = vec![false; m];
    for _ in 0..sweeps {
        dev.fill(&mut moved, 0)?;
        let mut first = n;
        while first > 0 {
            let to = first.saturating_sub(columns_a_dispatch(n));
            let [low, high, step, count] = steps.params();
            let counts = [n, m, usize::from(bounds.is_some()), first, to, 0].map(|v| v as u32);
            let params: [u32; 10] =
                [low, high, step, count, counts[0], counts[1], counts[2], counts[3], counts[4], counts[5]];
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
            first = to;
        }
        let moves = dev.download(&moved)?;
        if moves.iter().all(|moves| *moves == 0) {
            break;
        }
        ever.iter_mut().zip(moves).for_each(|(ever, moves)| *ever |= moves > 0);
    }
    Ok(ever)
}

fn on_host(inputs: &Inputs<'_>, steps: &Steps<f32>, q: &mut [f32], hq: &mut [f32], sweeps: usize) -> Result<Vec<bool>> {
    let (n, m) = (inputs.n, inputs.m);
    let (gram, b, scales) = (Gram { h: inputs.h.host()?, n }, inputs.b.host()?, inputs.scales.host()?);
    let bounds = inputs.bounds.map(Buffer::host).transpose()?.map(|b| b.split_at(m * n));
    let rows = q.par_chunks_exact_mut(n).zip(hq.par_chunks_exact_mut(n)).enumerate();
    let moved = rows.map(|(o, state)| {
        let at = o * n..(o + 1) * n;
        let row = Row { w: &[], bounds: bounds.map(|(l, u)| (&l[at.clone()], &u[at.clone()])) };
        scales[o] > 0.0 && twin(gram, &steps.of_row(o), &b[at], row, scales[o], state, sweeps) > 0
    });
    Ok(moved.collect())
}
