//! Accelerated projected gradient for least squares in a box, all rows at once; every row restarts its own momentum
//! when that points uphill (O'Donoghue and Candes 2015). METHOD section 4.
//!
//! min 1/2 w H w^T - b w^T, lower <= w <= upper, with L >= the largest eigenvalue of H:
//!
//! ```text
//! w+ <- clip(y - (y H - b) / L)
//! if (y - w+) . (w+ - w) > 0 then t <- 1
//! t+ <- (1 + sqrt(1 + 4 t^2)) / 2;  y <- w+ + (t - 1) / t+ (w+ - w)
//! ```

use faer::Par;

use super::{Real, dense};
use crate::compute::buffer::{Buffer, expect_len};
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Shader};
use crate::error::Result;

const SHADER: Shader =
    Shader { name: "solver/box_gradient.wgsl", source: include_str!("../../../shaders/solver/box_gradient.wgsl") };

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
    if n == 0 {
        return;
    }
    let m = data.b.len() / n;
    let one = T::of(1.0);
    let mut next = vec![T::default(); m * n];
    for _ in 0..count {
        dense::product(&mut next, false, &state.y, data.h, (m, n, n), par);
        let rows = next.chunks_exact_mut(n).zip(state.w.chunks_exact(n)).zip(state.y.chunks_exact_mut(n));
        for (o, ((next, w), y)) in rows.enumerate().take(m) {
            let mut uphill = T::default();
            for (i, next) in next.iter_mut().enumerate() {
                let at = o * n + i;
                let step = y[i] - data.step * (*next - data.b[at]);
                *next = step.most(data.lower[at]).least(data.upper[at]);
                uphill += (y[i] - *next) * (*next - w[i]);
            }
            let t = if uphill > T::default() { one } else { state.t[o] };
            let t_next = (one + T::of((one + T::of(4.0) * t * t).to_f64().sqrt())) / T::of(2.0);
            let momentum = (t - one) / t_next;
            state.t[o] = t_next;
            for ((y, next), w) in y.iter_mut().zip(next.iter()).zip(w) {
                *y = *next + momentum * (*next - *w);
            }
        }
        std::mem::swap(&mut state.w, &mut next);
    }
}

/// `Data` on a device: m rows of n.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub n: usize,
    pub m: usize,
    pub h: &'a Buffer<f32>,
    pub b: &'a Buffer<f32>,
    /// 2 x m x n: lower bounds, then upper ones.
    pub bounds: &'a Buffer<f32>,
    pub step: f32,
}

/// `State` on a device.
#[derive(Debug)]
pub struct Buffers {
    pub w: Buffer<f32>,
    pub y: Buffer<f32>,
    pub t: Buffer<f32>,
    /// m x n: scratch.
    pub next: Buffer<f32>,
}

/// Runs `count` iterations.
///
/// # Errors
/// `Work`: lengths that do not agree, or the device failed.
pub fn box_gradient(dev: &Device, inputs: &Inputs<'_>, state: &mut Buffers, count: usize) -> Result<()> {
    let Inputs { n, m, h, b, bounds, step } = *inputs;
    expect_len("box_gradient: h", h, n * n)?;
    expect_len("box_gradient: bounds", bounds, 2 * m * n)?;
    expect_len("box_gradient: t", &state.t, m)?;
    for buffer in [b, &state.w, &state.y, &state.next] {
        expect_len("box_gradient: state", buffer, m * n)?;
    }
    if n == 0 || m == 0 {
        return Ok(());
    }
    let Some(gpu) = dev.gpu() else {
        let (lower, upper) = bounds.host()?.split_at(m * n);
        let data = Data { n, b: b.host()?, lower, upper, h: h.host()?, step };
        let mut host = State { w: state.w.host()?.to_vec(), y: state.y.host()?.to_vec(), t: state.t.host()?.to_vec() };
        twin(data, &mut host, count, dense::par(m * n * n));
        dev.write(&mut state.w, 0, &host.w)?;
        dev.write(&mut state.y, 0, &host.y)?;
        return dev.write(&mut state.t, 0, &host.t);
    };
    let buffers = [
        Bind::In(h.gpu()?),
        Bind::In(b.gpu()?),
        Bind::In(bounds.gpu()?),
        Bind::Out(state.y.gpu()?),
        Bind::Out(state.next.gpu()?),
        Bind::Out(state.w.gpu()?),
        Bind::Out(state.t.gpu()?),
    ];
    for _ in 0..count {
        for (entry, groups) in [("descend", m.div_ceil(64) * n.div_ceil(64)), ("momentum", m)] {
            gpu.run(
                &Dispatch {
                    shader: SHADER,
                    entry,
                    scalar: "f32",
                    constants: &[],
                    params: [m as u32, n as u32, step.to_bits(), 0],
                    groups: groups as u64,
                },
                &buffers,
            )?;
        }
    }
    Ok(())
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
        if value <= 0.0 || value.is_nan() {
            break;
        }
        v = next.iter().map(|x| x / value).collect();
    }
    (1.02 * value).min(row_sum).max(f64::MIN_POSITIVE)
}
