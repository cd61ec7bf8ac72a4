//! Kernels of the spiking simulation, and elementwise maps.

use super::super::sizes::Sizes;
use super::super::work;
use super::{Case, integers, reals};
use crate::compute::conv::Conv;
use crate::compute::lookup::{self, Synapses};
use crate::compute::spikes::Spikes;
use crate::compute::step::{self, StepSpec};
use crate::compute::{Buffer, Device, activate, response as closed, time};
use crate::error::{Error, Result};
use crate::network::{Activation, Shape, Window};
use crate::neuron::Model;

const WINDOW: Window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };
const THRESHOLD: i32 = 400;
/// Channels of `lookup` at most: its tables must stay in cache.
const MOST_CHANNELS: usize = 64;

/// A layer's neurons in integers, all steps.
pub fn integrate_and_fire(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, shape) = (dev.clone(), Shape::new(s.channels, s.side, s.side));
    let (images, steps) = (s.spike_images, s.steps);
    let (floor, ceil) = (i32::MIN / 2, i32::MAX / 2);
    let spec =
        StepSpec { model: Model::IF, steps, steps_in: steps, settle: 0, counted: false, images, shape, floor, ceil };
    let neurons = images * shape.len();
    let current = dev.upload(&integers(1, steps * neurons, -100, 300))?;
    let bias = dev.upload(&integers(2, shape.c, -20, 20))?;
    let threshold = dev.upload(&vec![THRESHOLD; shape.c])?;
    let v0 = dev.upload(&vec![THRESHOLD / 2; shape.c])?;
    let (mut trains, mut v_end) = (dev.zeros(steps * neurons)?, dev.zeros(neurons)?);
    Ok(Some(Case {
        shape: format!("{images} x {shape}, {steps} steps"),
        once: Box::new(move || {
            let elapsed =
                dev.timed(|| step::integer(&dev, &spec, &current, &bias, &threshold, &v0, &mut trains, &mut v_end))?;
            Ok((elapsed, work::step(neurons, steps)))
        }),
    }))
}

/// A whole layer on spike bits; the CPU's own way.
pub fn lookup(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    if dev.is_gpu() {
        return Ok(None);
    }
    let shape = Shape::new(s.channels.min(MOST_CHANNELS), s.side, s.side);
    let conv = Conv { input: shape, output: shape, window: WINDOW, groups: 1 };
    let (dev, images, steps) = (dev.clone(), s.spike_images, s.steps);
    // The sums over a row must fit 16 bits, as those of 4-bit weights do.
    let codes = integers(1, shape.c * conv.depth(), -7, 7);
    let (bias, threshold) = (vec![0; shape.c], vec![THRESHOLD / 4; shape.c]);
    let (floor, ceil) = (i32::MIN / 2, i32::MAX / 2);
    let neurons =
        lookup::Neurons { model: Model::IF, steps, settle: 0, shape, bias: &bias, threshold: &threshold, floor, ceil };
    let Some(layer) = lookup::Layer::new(&[Synapses { conv, codes: &codes, shift: 0 }], &neurons) else {
        return Ok(None);
    };
    let counts = integers(2, steps * images * shape.len(), 0, 1);
    let x = Spikes::pack(images, shape, steps, &counts)
        .ok_or_else(|| Error::work("lookup", "more than one spike in a step"))?;
    let initial = vec![THRESHOLD / 8; shape.c];
    Ok(Some(Case {
        shape: format!("{images} x {shape}, 3x3 to {}, {steps} steps", shape.c),
        once: Box::new(move || {
            let elapsed = dev.timed(|| {
                std::hint::black_box(layer.run(images, &[&x], None, &initial));
                Ok(())
            })?;
            Ok((elapsed, work::lookup(&conv, images, steps)))
        }),
    }))
}

/// Spike counts under constant currents.
pub fn response(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, steps, len) = (dev.clone(), s.steps as u32, s.elements);
    let shape = Shape::new(8, 8, 8);
    let v0 = dev.upload(&vec![0.5; shape.c])?;
    let current = dev.upload(&reals(1, len))?;
    let mut counts = dev.zeros(len)?;
    Ok(Some(Case {
        shape: format!("{len} neurons, {steps} steps"),
        once: Box::new(move || {
            let elapsed = dev.timed(|| closed::count(&dev, &Model::IF, steps, shape, &v0, &current, &mut counts))?;
            Ok((elapsed, work::response(len)))
        }),
    }))
}

/// Spikes of all steps, added up.
pub fn time_total(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, steps) = (dev.clone(), s.steps);
    let len = s.spike_images * s.channels * s.side * s.side;
    let trains = dev.upload(&integers(1, steps * len, 0, 1))?;
    let mut y = dev.zeros(len)?;
    Ok(Some(Case {
        shape: format!("{len} neurons, {steps} steps"),
        once: Box::new(move || {
            let elapsed = dev.timed(|| time::total(&dev, steps, len, &trains, &mut y))?;
            Ok((elapsed, work::total(len, steps)))
        }),
    }))
}

/// An activation in place. Runs after the first find its own results, which costs the same.
fn map(dev: &Device, s: &Sizes, activation: Activation, operations: usize) -> Result<Option<Case>> {
    let (dev, len) = (dev.clone(), s.elements);
    let mut y: Buffer<f32> = dev.upload(&reals(1, len))?;
    Ok(Some(Case {
        shape: format!("{len} elements"),
        once: Box::new(move || {
            let elapsed = dev.timed(|| activate::apply(&dev, activation, &mut y))?;
            Ok((elapsed, work::map(len, operations)))
        }),
    }))
}

/// One comparison.
pub fn relu(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    map(dev, s, Activation::Relu, 1)
}

/// Counted as four operations, the exponential being one of them.
pub fn sigmoid(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    map(dev, s, Activation::Sigmoid, 4)
}
