//! Elementwise maps in place (shaders/activate.wgsl): the trained network's activations, per-channel affine maps, sums, and
//! what currents lack of response-aware targets.

use rayon::prelude::*;

use super::buffer::{Buffer, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Shader};
use crate::error::{Error, Result};
use crate::network::{Activation, Shape};

const SHADER: Shader = Shader { name: "activate.wgsl", source: include_str!("../../shaders/activate.wgsl") };
/// Elements of one task of the twin.
const BLOCK: usize = 4096;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    kind: u32,
    alpha: f32,
    beta: f32,
    channels: u32,
    area: u32,
    /// For shared/keep.
    zero: u32,
}

/// y <- activation(y), within 1e-6 relative of `Activation::apply` (where that is a normal f32).
pub fn apply(dev: &Device, activation: Activation, y: &mut Buffer<f32>) -> Result<()> {
    if activation == Activation::Linear {
        return Ok(());
    }
    if let Some(gpu) = dev.gpu() {
        let (kind, alpha, beta) = match activation {
            Activation::Linear => (0, 0.0, 0.0),
            Activation::Relu => (1, 0.0, 0.0),
            Activation::Clip { lo, hi } => (2, lo, hi),
            Activation::LeakyRelu { alpha } => (3, alpha, 0.0),
            Activation::Elu { alpha } => (4, alpha, 0.0),
            Activation::Sigmoid => (5, 0.0, 0.0),
            Activation::HardSigmoid { alpha, beta } => (6, alpha, beta),
            Activation::Tanh => (7, 0.0, 0.0),
            Activation::Softplus => (8, 0.0, 0.0),
            Activation::Remainder => (9, 0.0, 0.0),
        };
        let params = Params { len: y.len() as u32, kind, alpha, beta, channels: 1, area: 1, zero: 0 };
        // The tables of `affine` are not read; empty ones stand in.
        let none = dev.zeros::<f32>(0)?;
        let groups = y.len().div_ceil(256) as u64;
        return gpu.run(
            &Dispatch { shader: SHADER, entry: "activate", scalar: "f32", constants: &[], params, groups },
            &[Bind::In(none.gpu()?), Bind::In(none.gpu()?), Bind::Out(y.gpu()?)],
        );
    }
    let y = y.host_mut()?;
    match activation {
        Activation::Relu => each(y, |z| z.max(0.0)),
        Activation::Clip { lo, hi } => each(y, |z| z.max(lo).min(hi)),
        Activation::LeakyRelu { alpha } => each(y, |z| if z < 0.0 { alpha * z } else { z }),
        other => each(y, |z| other.apply(z as f64) as f32),
    }
    Ok(())
}

fn each(y: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    y.par_chunks_mut(BLOCK).for_each(|block| block.iter_mut().for_each(|v| *v = f(*v)));
}

/// y <- a[channel] y + b[channel]; `y`: images of `shape`, `a` and `b`: one per channel. Errors: lengths.
pub fn affine(dev: &Device, shape: Shape, a: &Buffer<f32>, b: &Buffer<f32>, y: &mut Buffer<f32>) -> Result<()> {
    expect_len("affine: factors", a, shape.c)?;
    expect_len("affine: offsets", b, shape.c)?;
    if shape.is_empty() || !y.len().is_multiple_of(shape.len()) {
        return Err(Error::work("affine", format!("{} elements are no images of {shape}", y.len())));
    }
    if let Some(gpu) = dev.gpu() {
        let params = Params {
            len: y.len() as u32,
            kind: 0,
            alpha: 0.0,
            beta: 0.0,
            channels: shape.c as u32,
            area: shape.area() as u32,
            zero: 0,
        };
        let groups = y.len().div_ceil(256) as u64;
        return gpu.run(
            &Dispatch { shader: SHADER, entry: "affine", scalar: "f32", constants: &[], params, groups },
            &[Bind::In(a.gpu()?), Bind::In(b.gpu()?), Bind::Out(y.gpu()?)],
        );
    }
    let (a, b) = (a.host()?, b.host()?);
    y.host_mut()?.par_chunks_mut(shape.area()).enumerate().for_each(|(plane, y)| {
        let c = plane % shape.c;
        y.iter_mut().for_each(|v| *v = a[c] * *v + b[c]);
    });
    Ok(())
}

/// y <- y + x. Errors: lengths.
pub fn add(dev: &Device, x: &Buffer<f32>, y: &mut Buffer<f32>) -> Result<()> {
    joined(dev, ("add", 0.0), x, y, |x, y| x + y)
}

/// rest <- `needed(u, rest, top)`, element by element. Errors: lengths.
pub fn lacking(dev: &Device, top: f32, u: &Buffer<f32>, rest: &mut Buffer<f32>) -> Result<()> {
    joined(dev, ("lacking", top), u, rest, |u, rest| needed(u, rest, top))
}

/// y <- f(x, y), element by element: on a GPU, `entry` of the shader with its `alpha`.
fn joined(
    dev: &Device,
    (entry, alpha): (&'static str, f32),
    x: &Buffer<f32>,
    y: &mut Buffer<f32>,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<()> {
    expect_len(entry, x, y.len())?;
    if let Some(gpu) = dev.gpu() {
        let params = Params { len: y.len() as u32, kind: 0, alpha, beta: 0.0, channels: 1, area: 1, zero: 0 };
        // The second table is not read; an empty one stands in.
        let none = dev.zeros::<f32>(0)?;
        let groups = y.len().div_ceil(256) as u64;
        return gpu.run(
            &Dispatch { shader: SHADER, entry, scalar: "f32", constants: &[], params, groups },
            &[Bind::In(x.gpu()?), Bind::In(none.gpu()?), Bind::Out(y.gpu()?)],
        );
    }
    let x = x.host()?;
    let blocks = y.host_mut()?.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK));
    blocks.for_each(|(y, x)| y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x, *y)));
    Ok(())
}

/// What a current, which lacks `rest` of u, lacks of the nearest one that gives the response clip(u, 0, top).
fn needed(u: f32, rest: f32, top: f32) -> f32 {
    let current = u - rest;
    if u <= 0.0 {
        (-current).min(0.0)
    } else if u >= top {
        (top - current).max(0.0)
    } else {
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn a_current_beyond_the_end_lacks_nothing() {
        // (u, current) -> what is lacking
        for (u, current, lacks) in [
            (-2.0, -0.5, 0.0),
            (-2.0, 0.25, -0.25),
            (0.5, 0.25, 0.25),
            (0.5, -0.5, 1.0),
            (3.0, 2.0, 0.0),
            (3.0, 0.5, 0.5),
        ] {
            assert_eq!(needed(u, u - current, 1.0), lacks, "u = {u}, current = {current}");
        }
    }
}
