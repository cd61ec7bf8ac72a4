//! ADMM for fits that measure their residuals by magnitude (sum or largest), all outputs at once. METHOD sections 4, 7.
//!
//! min over w of g(A w - d), where A (rows x k) are the samples and, below them, a scaled identity that carries the box:
//! g is |.|_1 or |.|_inf over the samples and the box's indicator over the rest. With P = A (A^T A)^-1 (rows x k):
//!
//! ```text
//! w <- (d + z - u) P              r <- relax (w A^T - d) + (1 - relax) z + u
//! z <- prox_(g / rho)(r)          u <- r - z
//! ```
//!
//! Two products an iteration, m x rows by rows x k and back; P does not depend on rho, which every output has its own of.

use faer::Par;
use rayon::prelude::*;

use super::{Real, dense};
use crate::compute::buffer::{Buffer, expect_len};
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Gpu, Shader};
use crate::error::Result;

const SHADER: Shader =
    Shader { name: "solver/absolute.wgsl", source: include_str!("../../../shaders/solver/absolute.wgsl") };

/// Over-relaxation (Boyd and others 2011, section 3.4.3).
pub const RELAX: f64 = 1.6;

/// Which magnitude counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The sum over samples.
    Sum,
    /// The largest.
    Largest,
}

/// The sizes.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Outputs.
    pub m: usize,
    /// Weights of an output, its bias among them.
    pub k: usize,
    pub samples: usize,
    /// Samples plus rows of the box.
    pub rows: usize,
    pub measure: Measure,
}

/// What stays the same between iterations.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a, T> {
    pub shape: Shape,
    /// k x rows: A^T.
    pub a: &'a [T],
    /// rows x k.
    pub p: &'a [T],
    /// m x rows: targets; 0 for the box.
    pub d: &'a [T],
    /// m x (rows - samples), each.
    pub lower: &'a [T],
    pub upper: &'a [T],
    /// m.
    pub rho: &'a [T],
}

/// The iteration's state.
#[derive(Debug, Clone)]
pub struct State<T> {
    /// m x k: the weights.
    pub w: Vec<T>,
    /// m x rows: residuals after the prox.
    pub z: Vec<T>,
    /// m x rows: scaled dual.
    pub u: Vec<T>,
}

/// Starts at nothing.
pub fn start<T: Real>(shape: Shape) -> State<T> {
    let zeros = |len| vec![T::default(); len];
    State { w: zeros(shape.m * shape.k), z: zeros(shape.m * shape.rows), u: zeros(shape.m * shape.rows) }
}

/// Runs `count` iterations.
pub fn twin<T: Real>(data: Data<'_, T>, state: &mut State<T>, count: usize, par: Par) {
    let Shape { m, k, samples, rows, measure } = data.shape;
    let boxes = rows - samples;
    let (relax, keep) = (T::of(RELAX), T::of(1.0 - RELAX));
    let mut v = vec![T::default(); m * rows];
    for _ in 0..count {
        for (((v, d), z), u) in v.iter_mut().zip(data.d).zip(&state.z).zip(&state.u) {
            *v = *d + *z - *u;
        }
        dense::product(&mut state.w, false, &v, data.p, (m, rows, k), par);
        dense::product(&mut v, false, &state.w, data.a, (m, k, rows), par);
        let each = v.par_chunks_mut(rows).zip(state.z.par_chunks_mut(rows)).zip(state.u.par_chunks_mut(rows));
        each.enumerate().for_each(|(o, ((r, z), u))| {
            for (((r, d), z), u) in r.iter_mut().zip(&data.d[o * rows..]).zip(&*z).zip(&*u) {
                *r = relax * (*r - *d) + keep * *z + *u;
            }
            let least = T::of(1.0) / data.rho[o];
            let cut = match measure {
                Measure::Sum => least,
                Measure::Largest => level(&r[..samples], least),
            };
            for (z, r) in z.iter_mut().zip(&r[..samples]) {
                *z = match measure {
                    Measure::Sum => (*r - cut).most(T::default()) + (*r + cut).least(T::default()),
                    Measure::Largest => r.most(-cut).least(cut),
                };
            }
            let bounds = data.lower[o * boxes..].iter().zip(&data.upper[o * boxes..]);
            for ((z, r), (lower, upper)) in z[samples..].iter_mut().zip(&r[samples..]).zip(bounds) {
                *z = r.most(*lower).least(*upper);
            }
            for ((u, r), z) in u.iter_mut().zip(&*r).zip(&*z) {
                *u = *r - *z;
            }
        });
    }
}

/// The level t >= 0 at which the magnitudes above it sum to `mass`: sum max(|r| - t, 0) = mass; 0 if all of them sum to
/// less.
fn level<T: Real>(r: &[T], mass: T) -> T {
    let mut sizes: Vec<T> = r.iter().map(|r| r.most(-*r)).collect();
    sizes.sort_by(|a, b| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal));
    let mut sum = T::default();
    for (count, size) in sizes.iter().enumerate() {
        sum += *size;
        let t = (sum - mass) / T::of((count + 1) as f64);
        if sizes.get(count + 1).is_none_or(|next| *next <= t) {
            return t.most(T::default());
        }
    }
    T::default()
}

/// `Data` on a device.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub shape: Shape,
    pub a: &'a Buffer<f32>,
    pub p: &'a Buffer<f32>,
    pub d: &'a Buffer<f32>,
    /// 2 x m x (rows - samples): lower bounds, then upper ones; a single 0 without a box.
    pub bounds: &'a Buffer<f32>,
    pub rho: &'a Buffer<f32>,
}

/// `State` on a device.
#[derive(Debug)]
pub struct Buffers {
    pub w: Buffer<f32>,
    pub z: Buffer<f32>,
    pub u: Buffer<f32>,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    m: u32,
    k: u32,
    samples: u32,
    rows: u32,
    largest: u32,
    relax: f32,
}

/// Runs `count` iterations.
///
/// # Errors
/// `Work`: lengths that do not agree, or the device failed.
pub fn absolute(dev: &Device, inputs: &Inputs<'_>, state: &mut Buffers, count: usize) -> Result<()> {
    let Shape { m, k, samples, rows, measure } = inputs.shape;
    let boxes = rows - samples;
    for (name, buffer, len) in [
        ("absolute: a", inputs.a, k * rows),
        ("absolute: p", inputs.p, rows * k),
        ("absolute: d", inputs.d, m * rows),
        ("absolute: bounds", inputs.bounds, (2 * m * boxes).max(1)),
        ("absolute: rho", inputs.rho, m),
        ("absolute: w", &state.w, m * k),
        ("absolute: z", &state.z, m * rows),
        ("absolute: u", &state.u, m * rows),
    ] {
        expect_len(name, buffer, len)?;
    }
    if m == 0 || k == 0 || samples == 0 {
        return Ok(());
    }
    if let Some(gpu) = dev.gpu() {
        let params = Params {
            m: m as u32,
            k: k as u32,
            samples: samples as u32,
            rows: rows as u32,
            largest: (measure == Measure::Largest) as u32,
            relax: RELAX as f32,
        };
        for _ in 0..count {
            iterate(gpu, params, inputs, state)?;
        }
        return Ok(());
    }
    let bounds = inputs.bounds.host()?;
    let (lower, upper) = if boxes == 0 { (&[][..], &[][..]) } else { bounds.split_at(m * boxes) };
    let data = Data {
        shape: inputs.shape,
        a: inputs.a.host()?,
        p: inputs.p.host()?,
        d: inputs.d.host()?,
        lower,
        upper,
        rho: inputs.rho.host()?,
    };
    let mut host = State { w: state.w.host()?.to_vec(), z: state.z.host()?.to_vec(), u: state.u.host()?.to_vec() };
    twin(data, &mut host, count, dense::par(m * k * rows));
    dev.write(&mut state.w, 0, &host.w)?;
    dev.write(&mut state.z, 0, &host.z)?;
    dev.write(&mut state.u, 0, &host.u)
}

fn iterate(gpu: &Gpu, params: Params, inputs: &Inputs<'_>, state: &mut Buffers) -> Result<()> {
    let (m, k, rows) = (u64::from(params.m), u64::from(params.k), u64::from(params.rows));
    let run = |entry, groups, buffers: &[Bind<'_>]| {
        gpu.run(&Dispatch { shader: SHADER, entry, scalar: "f32", constants: &[], params, groups }, buffers)
    };
    let (w, z, u) = (state.w.gpu()?, state.z.gpu()?, state.u.gpu()?);
    let fixed = [
        Bind::In(inputs.a.gpu()?),
        Bind::In(inputs.p.gpu()?),
        Bind::In(inputs.d.gpu()?),
        Bind::In(inputs.bounds.gpu()?),
        Bind::In(inputs.rho.gpu()?),
    ];
    let bind = || fixed.iter().copied().chain([Bind::Out(w), Bind::Out(z), Bind::Out(u)]).collect::<Vec<_>>();
    run("weights", m.div_ceil(64) * k.div_ceil(64), &bind())?;
    run("residuals", m.div_ceil(64) * rows.div_ceil(64), &bind())?;
    if params.largest == 1 {
        run("largest", m, &bind())?;
    }
    Ok(())
}
