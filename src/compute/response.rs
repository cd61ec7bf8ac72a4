//! Closed-form responses of neurons to a constant current, elementwise (shaders/neuron/response.wgsl): spike counts,
//! and the currents for wanted rates. The meaning is src/neuron/response.rs and src/neuron/continuous.rs.

use rayon::prelude::*;

use super::buffer::{Buffer, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Gpu, Shader};
use super::step::MOST_STEPS;
use crate::error::{Error, Result};
use crate::network::Shape;
use crate::neuron::continuous::ContinuousLif;
use crate::neuron::{Model, Reset};

const SHADER: Shader =
    Shader { name: "neuron/response.wgsl", source: include_str!("../../shaders/neuron/response.wgsl") };
/// Elements of one task of the twin.
const BLOCK: usize = 4096;
/// Counts up to here are whole in f32.
const MOST_SPIKES: u64 = 1 << 24;

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    channels: u32,
    area: u32,
    steps: u32,
    zero_reset: u32,
    refractory: u32,
    most_spikes: u32,
    strict: u32,
    decay: f32,
    decay_rate: f32,
    most_current: f32,
    most_rate: f32,
    tau_rc: f32,
    tau_ref: f32,
    tau_ref_rest: f32,
    softness: f32,
    log_softness: f32,
    zero: u32,
}

impl Params {
    fn of(model: &Model, len: usize) -> Self {
        Params {
            len: len as u32,
            channels: 1,
            area: 1,
            zero_reset: (model.reset == Reset::Zero) as u32,
            refractory: model.refractory,
            most_spikes: model.max_spikes,
            strict: model.strict as u32,
            decay: model.decay,
            decay_rate: -f64::from(model.decay).ln() as f32,
            most_current: model.inverse(model.max_rate()) as f32,
            most_rate: model.max_rate() as f32,
            ..Params::default()
        }
    }

    fn continuous(lif: &ContinuousLif, len: usize) -> Self {
        let tau_ref = lif.tau_ref as f32;
        Params {
            len: len as u32,
            tau_rc: lif.tau_rc as f32,
            tau_ref,
            tau_ref_rest: (lif.tau_ref - f64::from(tau_ref)) as f32,
            ..Params::default()
        }
    }
}

/// counts = spikes of `model` in `steps` steps of constant current, `Model::count`. `current` (thresholds per step) and
/// `counts`: images x shape; `v0` (thresholds, in [0, 1)): one per channel. Devices may differ by a spike where rounding
/// the current in f32 decides. Errors: lengths, too many steps or spikes.
pub fn count(
    dev: &Device,
    model: &Model,
    steps: u32,
    shape: Shape,
    v0: &Buffer<f32>,
    current: &Buffer<f32>,
    counts: &mut Buffer<i32>,
) -> Result<()> {
    if shape.is_empty() || !current.len().is_multiple_of(shape.len()) {
        return Err(Error::work("response", format!("{} elements are no images of {shape}", current.len())));
    }
    if steps as usize > MOST_STEPS || u64::from(model.max_spikes) * u64::from(steps) > MOST_SPIKES {
        return Err(Error::work(
            "response",
            format!("{steps} steps of up to {} spikes are too many", model.max_spikes),
        ));
    }
    expect_len("response: initial potential", v0, shape.c)?;
    expect_len("response: counts", counts, current.len())?;
    if let Some(gpu) = dev.gpu() {
        let params =
            Params { steps, channels: shape.c as u32, area: shape.area() as u32, ..Params::of(model, current.len()) };
        // The shader has the currents and the values of the maps in place under one name, which is writable.
        return run(gpu, "count", params, &[Bind::Out(current.gpu()?), Bind::In(v0.gpu()?), Bind::Out(counts.gpu()?)]);
    }
    let (current, v0) = (current.host()?, v0.host()?);
    let planes = current.par_chunks(shape.area()).enumerate();
    counts.host_mut()?.par_chunks_mut(shape.area()).zip(planes).for_each(|(counts, (plane, current))| {
        let v0 = f64::from(v0[plane % shape.c]);
        counts.iter_mut().zip(current).for_each(|(n, &j)| *n = model.count(f64::from(j), v0, steps) as i32);
    });
    Ok(())
}

/// y <- the current (thresholds per step) for the rate y (spikes per step), `Model::inverse`, within 1e-5 relative;
/// for a leaky neuron's rate below zero, 1 + y, to 1e-6 absolute.
pub fn inverse(dev: &Device, model: &Model, y: &mut Buffer<f32>) -> Result<()> {
    match dev.gpu() {
        Some(gpu) => run(gpu, "inverse", Params::of(model, y.len()), &[Bind::Out(y.gpu()?)]),
        None => each(y, |rate| model.inverse(rate)),
    }
}

/// y <- the rate (spikes per second) under the current y, `ContinuousLif::rate`, within 1e-5 relative.
pub fn continuous_rate(dev: &Device, lif: &ContinuousLif, y: &mut Buffer<f32>) -> Result<()> {
    match dev.gpu() {
        Some(gpu) => run(gpu, "lif_rate", Params::continuous(lif, y.len()), &[Bind::Out(y.gpu()?)]),
        None => each(y, |j| lif.rate(j)),
    }
}

/// y <- the smooth rate under the current y, `ContinuousLif::smooth_rate`, within 1e-5 relative. `s` > 0.
pub fn continuous_smooth_rate(dev: &Device, lif: &ContinuousLif, s: f64, y: &mut Buffer<f32>) -> Result<()> {
    match dev.gpu() {
        Some(gpu) => {
            let params = Params { softness: s as f32, log_softness: s.ln() as f32, ..Params::continuous(lif, y.len()) };
            run(gpu, "lif_smooth", params, &[Bind::Out(y.gpu()?)])
        }
        None => each(y, |j| lif.smooth_rate(j, s)),
    }
}

/// y <- the current for the rate y, `ContinuousLif::inverse`, within 1e-5 relative.
pub fn continuous_inverse(dev: &Device, lif: &ContinuousLif, y: &mut Buffer<f32>) -> Result<()> {
    match dev.gpu() {
        Some(gpu) => run(gpu, "lif_inverse", Params::continuous(lif, y.len()), &[Bind::Out(y.gpu()?)]),
        None => each(y, |rate| lif.inverse(rate)),
    }
}

fn each(y: &mut Buffer<f32>, f: impl Fn(f64) -> f64 + Sync) -> Result<()> {
    y.host_mut()?.par_chunks_mut(BLOCK).for_each(|block| block.iter_mut().for_each(|v| *v = f(f64::from(*v)) as f32));
    Ok(())
}

fn run(gpu: &Gpu, entry: &'static str, params: Params, buffers: &[Bind<'_>]) -> Result<()> {
    let groups = u64::from(params.len).div_ceil(256);
    gpu.run(&Dispatch { shader: SHADER, entry, scalar: "f32", constants: &[], params, groups }, buffers)
}
