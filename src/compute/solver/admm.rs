//! ADMM for least squares in a box, all rows at once. METHOD section 4.
//!
//! min 1/2 w H w^T - b w^T, lower <= w <= upper, with K = (H + rho I)^-1 at hand:
//!
//! ```text
//! w <- (b + rho (z - u)) K        r <- relax w + (1 - relax) z
//! z <- clip(r + u)                u <- u + r - z
//! ```
//!
//! One product of m x n by n x n an iteration, and elementwise work that rides along with it.

use faer::Par;

use super::{Real, dense};
use crate::compute::buffer::{Buffer, expect_len};
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Shader};
use crate::error::Result;

const SHADER: Shader = Shader { name: "solver/admm.wgsl", source: include_str!("../../../shaders/solver/admm.wgsl") };

/// Over-relaxation that most problems like (Boyd and others 2011, section 3.4.3).
pub const RELAX: f64 = 1.6;

/// The iteration's state, m x n each.
#[derive(Debug, Clone)]
pub struct State<T> {
    /// Inside the box: the answer.
    pub z: Vec<T>,
    /// Scaled dual.
    pub u: Vec<T>,
    /// Solves the least squares, outside the box until converged.
    pub w: Vec<T>,
    /// b + rho (z - u), what the next product starts from.
    pub v: Vec<T>,
}

/// What stays the same between iterations. Slices are m x n but for `k`.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a, T> {
    pub n: usize,
    pub b: &'a [T],
    pub lower: &'a [T],
    pub upper: &'a [T],
    /// n x n: (H + rho I)^-1.
    pub k: &'a [T],
    pub rho: T,
}

/// Starts at `z` (m x n, inside the box) with no dual.
pub fn start<T: Real>(data: Data<'_, T>, z: Vec<T>) -> State<T> {
    let v = z.iter().zip(data.b).map(|(z, b)| *b + data.rho * *z).collect();
    State { u: vec![T::default(); z.len()], w: z.clone(), v, z }
}

/// Runs `count` iterations.
pub fn twin<T: Real>(data: Data<'_, T>, state: &mut State<T>, count: usize, par: Par) {
    let n = data.n;
    let m = data.b.len() / n.max(1);
    let relax = T::of(RELAX);
    for _ in 0..count {
        dense::product(&mut state.w, false, &state.v, data.k, (m, n, n), par);
        for i in 0..m * n {
            let relaxed = relax * state.w[i] + (T::of(1.0) - relax) * state.z[i] + state.u[i];
            let z = relaxed.most(data.lower[i]).least(data.upper[i]);
            state.z[i] = z;
            state.u[i] = relaxed - z;
            state.v[i] = data.b[i] + data.rho * (z - state.u[i]);
        }
    }
}

/// `Data` on a device: m rows of n.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub n: usize,
    pub m: usize,
    pub k: &'a Buffer<f32>,
    pub b: &'a Buffer<f32>,
    /// 2 x m x n: lower bounds, then upper ones.
    pub bounds: &'a Buffer<f32>,
    pub rho: f32,
}

/// `State` on a device.
#[derive(Debug)]
pub struct Buffers {
    pub z: Buffer<f32>,
    pub u: Buffer<f32>,
    pub w: Buffer<f32>,
    pub v: Buffer<f32>,
    /// The v of the next iteration, while the present one is still read.
    pub v_next: Buffer<f32>,
}

/// Runs `count` iterations.
///
/// # Errors
/// `Work`: lengths that do not agree, or the device failed.
pub fn admm(dev: &Device, inputs: &Inputs<'_>, state: &mut Buffers, count: usize) -> Result<()> {
    let Inputs { n, m, k, b, bounds, rho } = *inputs;
    expect_len("admm: k", k, n * n)?;
    expect_len("admm: bounds", bounds, 2 * m * n)?;
    for buffer in [b, &state.z, &state.u, &state.w, &state.v, &state.v_next] {
        expect_len("admm: state", buffer, m * n)?;
    }
    if n == 0 || m == 0 {
        return Ok(());
    }
    let Some(gpu) = dev.gpu() else {
        let (lower, upper) = bounds.host()?.split_at(m * n);
        let data = Data { n, b: b.host()?, lower, upper, k: k.host()?, rho };
        let take = |buffer: &Buffer<f32>| buffer.host().map(<[f32]>::to_vec);
        let mut host = State { z: take(&state.z)?, u: take(&state.u)?, w: take(&state.w)?, v: take(&state.v)? };
        twin(data, &mut host, count, dense::par(m * n * n));
        dev.write(&mut state.z, 0, &host.z)?;
        dev.write(&mut state.u, 0, &host.u)?;
        dev.write(&mut state.w, 0, &host.w)?;
        return dev.write(&mut state.v, 0, &host.v);
    };
    for _ in 0..count {
        gpu.run(
            &Dispatch {
                shader: SHADER,
                entry: "iterate",
                scalar: "f32",
                constants: &[],
                params: [m as u32, n as u32, rho.to_bits(), (RELAX as f32).to_bits()],
                groups: (m.div_ceil(64) * n.div_ceil(64)) as u64,
            },
            &[
                Bind::In(k.gpu()?),
                Bind::In(b.gpu()?),
                Bind::In(bounds.gpu()?),
                Bind::In(state.v.gpu()?),
                Bind::Out(state.v_next.gpu()?),
                Bind::Out(state.w.gpu()?),
                Bind::Out(state.z.gpu()?),
                Bind::Out(state.u.gpu()?),
            ],
        )?;
        std::mem::swap(&mut state.v, &mut state.v_next);
    }
    Ok(())
}
