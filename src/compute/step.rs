//! The time-stepped simulation of one layer of neurons: all steps in one dispatch, the state in registers
//! (shaders/neuron/). The meaning of a step is src/neuron/step.rs.

use rayon::prelude::*;

use super::buffer::{Buffer, Element, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Shader};
use super::simd::vectorized;
use crate::error::{Error, Result};
use crate::network::Shape;
use crate::neuron::step::{self, State};
use crate::neuron::{Model, Reset};

const INTEGER: Shader =
    Shader { name: "neuron/integer.wgsl", source: include_str!("../../shaders/neuron/integer.wgsl") };
const REAL: Shader = Shader { name: "neuron/real.wgsl", source: include_str!("../../shaders/neuron/real.wgsl") };
const READOUT: Shader =
    Shader { name: "neuron/readout.wgsl", source: include_str!("../../shaders/neuron/readout.wgsl") };
/// Steps of one dispatch: some drivers end a loop after 65,535 iterations without a word.
pub const MOST_STEPS: usize = 32_768;

/// A layer's neurons and how long they run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSpec {
    pub model: Model,
    pub steps: usize,
    /// `steps`, or 1 for a constant current.
    pub steps_in: usize,
    /// Steps of input that the neurons integrate before their first chance to fire; at their last chances nothing
    /// comes in any more, not even the bias.
    pub settle: usize,
    /// Trains are summed over the steps.
    pub counted: bool,
    pub images: usize,
    /// One image's neurons; parameters are per channel.
    pub shape: Shape,
    /// Bounds of the potential, integers only.
    pub floor: i32,
    pub ceil: i32,
}

impl StepSpec {
    fn neurons(&self) -> usize {
        self.images * self.shape.len()
    }

    fn check<T: Element>(&self, current: &Buffer<T>, per_channel: &[&Buffer<T>], v_end: &Buffer<T>) -> Result<()> {
        if self.steps_in != self.steps && self.steps_in != 1 {
            return Err(Error::work("simulation", format!("{} steps from {}", self.steps, self.steps_in)));
        }
        if self.steps > MOST_STEPS {
            return Err(Error::work("simulation", format!("{} steps, at most {MOST_STEPS}", self.steps)));
        }
        expect_len("simulation: current", current, self.steps_in * self.neurons())?;
        for b in per_channel {
            expect_len("simulation: parameter per channel", b, self.shape.c)?;
        }
        expect_len("simulation: potential", v_end, self.neurons())
    }

    /// Frames of the trains.
    fn frames(&self) -> usize {
        if self.counted { 1 } else { self.steps }
    }

    fn params(&self) -> [u32; 14] {
        [
            self.steps as u32,
            self.steps_in as u32,
            self.settle.min(self.steps) as u32,
            self.neurons() as u32,
            self.shape.len() as u32,
            self.shape.area() as u32,
            (self.model.reset == Reset::Zero) as u32,
            self.model.refractory,
            step::most_spikes(&self.model) as u32,
            self.model.strict as u32,
            self.floor as u32,
            self.ceil as u32,
            self.model.dash,
            self.counted as u32,
        ]
    }
}

/// Integrate-and-fire in integers, bit for bit the same on every device. `current`: steps_in x images x len; `bias`,
/// `threshold` (>= 1), `v0`: one per channel; `trains`: steps (counted: 1) x images x len spikes; `v_end`: images x
/// len. The potential saturates at floor and ceil. Errors: lengths, too many steps, a leaky model.
#[expect(clippy::too_many_arguments, reason = "a kernel's inputs and outputs")]
pub fn integer(
    dev: &Device,
    spec: &StepSpec,
    current: &Buffer<i32>,
    bias: &Buffer<i32>,
    threshold: &Buffer<i32>,
    v0: &Buffer<i32>,
    trains: &mut Buffer<i32>,
    v_end: &mut Buffer<i32>,
) -> Result<()> {
    if spec.model.decay != 0.0 {
        return Err(Error::work("simulation", "the integer simulation knows no leak"));
    }
    spec.check(current, &[bias, threshold, v0], v_end)?;
    expect_len("simulation: spike trains", trains, spec.frames() * spec.neurons())?;
    if let Some(gpu) = dev.gpu() {
        return gpu.run(
            &dispatch(INTEGER, "simulate", "i32", spec.neurons(), spec.params()),
            &[
                Bind::In(current.gpu()?),
                Bind::In(bias.gpu()?),
                Bind::In(threshold.gpu()?),
                Bind::In(v0.gpu()?),
                Bind::Out(trains.gpu()?),
                Bind::Out(v_end.gpu()?),
            ],
        );
    }
    let (model, floor, ceil) = (spec.model, spec.floor, spec.ceil);
    let drive = |j: i32, b: i32| j.saturating_add(b);
    let wait = |v: i32, drive: i32| step::integrate(floor, ceil, step::leak(model.dash, v), drive);
    let parameters = [bias.host()?, threshold.host()?, v0.host()?];
    let (current, trains, v_end) = (current.host()?, trains.host_mut()?, v_end.host_mut()?);
    if step::most_spikes(&model) == 1 && model.refractory == 0 {
        let one = |s: &mut State<i32>, drive: i32, theta: i32| step::integer_once(&model, floor, ceil, s, drive, theta);
        twin(spec, drive, wait, one, current, parameters, trains, v_end);
    } else {
        let one = |s: &mut State<i32>, drive: i32, theta: i32| step::integer(&model, floor, ceil, s, drive, theta);
        twin(spec, drive, wait, one, current, parameters, trains, v_end);
    }
    Ok(())
}

/// Integrate-and-fire, leaky or not, in f32; shapes as in `integer`, floor and ceil unused, thresholds > 0.
/// Devices may differ by a rounding, and so by a spike where a potential lands on a threshold.
#[expect(clippy::too_many_arguments, reason = "a kernel's inputs and outputs")]
pub fn real(
    dev: &Device,
    spec: &StepSpec,
    current: &Buffer<f32>,
    bias: &Buffer<f32>,
    threshold: &Buffer<f32>,
    v0: &Buffer<f32>,
    trains: &mut Buffer<i32>,
    v_end: &mut Buffer<f32>,
) -> Result<()> {
    if spec.model.dash != 0 {
        return Err(Error::work("simulation", "the simulation in reals knows no leak by shifts"));
    }
    spec.check(current, &[bias, threshold, v0], v_end)?;
    expect_len("simulation: spike trains", trains, spec.frames() * spec.neurons())?;
    if let Some(gpu) = dev.gpu() {
        let mut params = spec.params();
        params[10] = spec.model.decay.to_bits();
        return gpu.run(
            &dispatch(REAL, "simulate", "f32", spec.neurons(), params),
            &[
                Bind::In(current.gpu()?),
                Bind::In(bias.gpu()?),
                Bind::In(threshold.gpu()?),
                Bind::In(v0.gpu()?),
                Bind::Out(trains.gpu()?),
                Bind::Out(v_end.gpu()?),
            ],
        );
    }
    let wait = |v: f32, drive: f32| step::integrate_real(&spec.model, v, drive);
    let one = |s: &mut State<f32>, drive: f32, theta: f32| step::real(&spec.model, s, drive, theta);
    let (bias, threshold, v0) = (bias.host()?, threshold.host()?, v0.host()?);
    let (current, parameters) = (current.host()?, [bias, threshold, v0]);
    twin(spec, |j, b| j + b, wait, one, current, parameters, trains.host_mut()?, v_end.host_mut()?);
    Ok(())
}

/// A readout that never fires: v_end = v0 + sum over steps of (current + bias). Model, floor and ceil are unused; an
/// integer sum must fit an i32. Shapes as in `integer`.
pub fn accumulate<T: Summed>(
    dev: &Device,
    spec: &StepSpec,
    current: &Buffer<T>,
    bias: &Buffer<T>,
    v0: &Buffer<T>,
    v_end: &mut Buffer<T>,
) -> Result<()> {
    spec.check(current, &[bias, v0], v_end)?;
    if let Some(gpu) = dev.gpu() {
        return gpu.run(
            &dispatch(READOUT, "accumulate", T::WGSL, spec.neurons(), spec.params()),
            &[Bind::In(current.gpu()?), Bind::In(bias.gpu()?), Bind::In(v0.gpu()?), Bind::Out(v_end.gpu()?)],
        );
    }
    let (current, bias, v0, neurons) = (current.host()?, bias.host()?, v0.host()?, spec.neurons());
    v_end.host_mut()?.par_iter_mut().enumerate().for_each(|(i, v)| {
        let channel = i % spec.shape.len() / spec.shape.area();
        let mut sum = T::default();
        for t in 0..spec.steps_in {
            sum = sum.plus(current[t * neurons + i].plus(bias[channel]));
        }
        if spec.steps_in == 1 {
            sum = sum.times(spec.steps as u32);
        }
        *v = v0[channel].plus(sum);
    });
    Ok(())
}

/// Numbers that a readout adds up, as the shader does: integers wrap.
pub trait Summed: Element {
    fn plus(self, other: Self) -> Self;
    fn times(self, n: u32) -> Self;
}

impl Summed for f32 {
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn times(self, n: u32) -> Self {
        self * n as f32
    }
}

impl Summed for i32 {
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    fn times(self, n: u32) -> Self {
        self.wrapping_mul(n as i32)
    }
}

fn dispatch<P>(
    shader: Shader,
    entry: &'static str,
    scalar: &'static str,
    neurons: usize,
    params: P,
) -> Dispatch<'static, P> {
    Dispatch { shader, entry, scalar, constants: &[], params, groups: neurons.div_ceil(64) as u64 }
}

/// Blocks of neurons in parallel; within a block step by step, so that the trains are written along their rows.
/// `drive` of a current and a bias; `wait`: a step without a chance to fire, (potential, drive) -> potential; `one`: a
/// step, (state, drive, threshold) -> spikes.
#[expect(clippy::too_many_arguments, reason = "a kernel's inputs and outputs, and what its steps do")]
fn twin<T: Element>(
    spec: &StepSpec,
    drive: impl Fn(T, T) -> T + Sync,
    wait: impl Fn(T, T) -> T + Sync,
    one: impl Fn(&mut State<T>, T, T) -> i32 + Sync,
    current: &[T],
    [bias, threshold, v0]: [&[T]; 3],
    trains: &mut [i32],
    v_end: &mut [T],
) {
    const BLOCK: usize = 1024;
    let neurons = spec.neurons();
    if neurons == 0 {
        return;
    }
    // Each block's share of every step's row.
    let mut rows: Vec<Vec<&mut [i32]>> =
        (0..neurons.div_ceil(BLOCK)).map(|_| Vec::with_capacity(spec.frames())).collect();
    for row in trains.chunks_mut(neurons) {
        for (block, part) in rows.iter_mut().zip(row.chunks_mut(BLOCK)) {
            block.push(part);
        }
    }
    rows.par_iter_mut().zip(v_end.par_chunks_mut(BLOCK)).enumerate().for_each(|(block, (rows, v_end))| {
        let first = block * BLOCK;
        let channels = (first..first + v_end.len()).map(|i| i % spec.shape.len() / spec.shape.area());
        let [bias, threshold, v0] = [bias, threshold, v0].map(|p| channels.clone().map(|c| p[c]).collect::<Vec<T>>());
        v_end.copy_from_slice(&v0);
        let row_of = |t: usize| &current[if spec.steps_in == 1 { 0 } else { t } * neurons + first..][..channels.len()];
        let settle = spec.settle.min(spec.steps);
        for t in 0..settle {
            let drives = row_of(t).iter().zip(&bias).map(|(&j, &b)| drive(j, b));
            v_end.iter_mut().zip(drives).for_each(|(v, drive)| *v = wait(*v, drive));
        }
        let mut waits = vec![0u32; v_end.len()];
        let nothing = vec![T::default(); v_end.len()];
        for t in 0..spec.steps {
            let row = &mut rows[if spec.counted { 0 } else { t }];
            let before = spec.counted && t > 0;
            let last = t + settle >= spec.steps;
            let (current, bias) = if last { (&nothing[..], &nothing) } else { (row_of(t + settle), &bias) };
            vectorized(|| {
                let parameters = current.iter().zip(bias).zip(&threshold);
                for (((v, wait), spikes), ((&j, &b), &theta)) in
                    v_end.iter_mut().zip(&mut waits).zip(row.iter_mut()).zip(parameters)
                {
                    let mut state = State { v: *v, wait: *wait };
                    let more = one(&mut state, drive(j, b), theta);
                    *spikes = if before { *spikes + more } else { more };
                    (*v, *wait) = (state.v, state.wait);
                }
            });
        }
    });
}
