//! One layer of neurons on a device, ready to run on batch after batch.

use crate::compute::conv::{self, Conv, Start};
use crate::compute::step::{self, StepSpec};
use crate::compute::{Buffer, Device, time};
use crate::error::{Error, Result};
use crate::network::Shape;
use crate::neuron::Model;

use super::bits::BitLayer;
use super::network::{Layer, Schedule, SpikingNetwork, State, Weights};
use super::simulate::Output;
use super::trains::{Trains, align};

pub(super) struct LayerRunner {
    model: Model,
    steps: usize,
    settle: usize,
    /// Of constant current in the layered schedule: steps like any other, and only the totals are read.
    counted: bool,
    /// Per block: how often one step of it is heard.
    times: Vec<i32>,
    fires: bool,
    potential: (i32, i32),
    unit: Vec<f64>,
    convs: Vec<Conv>,
    parameters: Parameters,
    /// Per channel: what integer biases add over T.
    added: Vec<i64>,
    /// The same layer for spike bits, where it fits.
    bits: Option<BitLayer>,
}

enum Parameters {
    Integer {
        weights: Vec<Buffer<i32>>,
        /// Proven bounds of each block's |current|.
        bounds: Vec<u64>,
        bias: Buffer<i32>,
        threshold: Buffer<i32>,
        initial: Buffer<i32>,
    },
    Real {
        weights: Vec<Buffer<f32>>,
        bias: Buffer<f32>,
        threshold: Buffer<f32>,
        initial: Buffer<f32>,
    },
}

impl LayerRunner {
    pub(super) fn new(dev: &Device, net: &SpikingNetwork, layer: &Layer, shape: Shape) -> Result<Self> {
        let sources: Vec<usize> = layer.synapses.iter().map(|s| s.source).collect();
        let (layered, settles) = (net.schedule == Schedule::Layered, net.settles(&sources));
        let steps = if settles { net.steps as i32 } else { 1 };
        let convs = layer
            .synapses
            .iter()
            .map(|s| Conv { input: net.nodes[s.source].shape, output: shape, window: s.window, groups: s.groups })
            .collect();
        let at_once = |b: &i32| if layer.fires { b.saturating_mul(steps) } else { b.wrapping_mul(steps) };
        let mut added = vec![];
        let parameters = match &layer.state {
            State::Integer { bias, threshold, initial } => {
                added.extend(bias.iter().map(|b| i64::from(*b) * i64::from(net.steps)));
                let mut weights = Vec::new();
                let mut bounds = Vec::new();
                for synapses in &layer.synapses {
                    let Weights::Codes { codes, shift } = &synapses.weight else {
                        return Err(Error::work("", "a layer with integer state has real synapses"));
                    };
                    let shifted: Vec<i32> = codes.iter().map(|c| c << shift).collect();
                    let fan_in = (shifted.len() / shape.c).max(1);
                    let largest = shifted
                        .chunks(fan_in)
                        .map(|row| row.iter().map(|c| u64::from(c.unsigned_abs())).sum::<u64>())
                        .max()
                        .unwrap_or(0);
                    bounds.push(largest.saturating_mul(net.nodes[synapses.source].peak.saturating_mul(steps as u64)));
                    weights.push(dev.upload(&shifted)?);
                }
                Parameters::Integer {
                    weights,
                    bounds,
                    bias: dev.upload(&bias.iter().map(at_once).collect::<Vec<_>>())?,
                    threshold: dev.upload(threshold)?,
                    initial: dev.upload(initial)?,
                }
            }
            State::Real { bias, initial } => {
                let mut weights = Vec::new();
                for synapses in &layer.synapses {
                    let Weights::Real(w) = &synapses.weight else {
                        return Err(Error::work("", "a layer with real state has integer synapses"));
                    };
                    weights.push(dev.upload(w)?);
                }
                Parameters::Real {
                    weights,
                    bias: dev.upload(&bias.iter().map(|b| b * steps as f32).collect::<Vec<_>>())?,
                    threshold: dev.upload(&vec![1.0; shape.c])?,
                    initial: dev.upload(initial)?,
                }
            }
        };
        let model = if settles {
            Model { max_spikes: net.model.max_spikes.saturating_mul(net.steps), ..net.model }
        } else {
            net.model
        };
        Ok(Self {
            bits: BitLayer::new(dev, net, layer, shape, model)?,
            model,
            steps: if settles { 1 } else { net.steps as usize },
            settle: if layered { 0 } else { layer.settle as usize },
            counted: layered && !settles,
            times: net.times(&sources),
            fires: layer.fires,
            potential: net.potential,
            unit: layer.unit.iter().map(|u| u / f64::from(net.steps)).collect(),
            convs,
            parameters,
            added,
        })
    }

    pub(super) fn fires(&self) -> bool {
        self.fires
    }

    /// Steps of the trains that it gives.
    fn frames(&self) -> usize {
        if self.counted { 1 } else { self.steps }
    }

    fn spec(&self, steps_in: usize, images: usize, shape: Shape) -> StepSpec {
        let (floor, ceil) = self.potential;
        let (model, steps, settle, counted) = (self.model, self.steps, self.settle, self.counted);
        StepSpec { model, steps, steps_in, settle, counted, images, shape, floor, ceil }
    }

    /// Runs a batch; `inputs`: one for each block of synapses.
    pub(super) fn run(&self, dev: &Device, images: usize, shape: Shape, inputs: &[&Trains]) -> Result<Output> {
        if let Some(bits) = &self.bits
            && let Some(trains) = bits.run(dev, images, inputs)?
        {
            return Ok(Output::Trains(trains));
        }
        let (steps_in, current) = self.current(dev, images, shape, inputs)?;
        let spec = self.spec(steps_in, images, shape);
        let len = images * shape.len();
        if self.fires {
            let frames = self.frames();
            let mut trains = dev.scratch(frames * len)?;
            match (&self.parameters, &current) {
                (Parameters::Integer { bias, threshold, initial, .. }, Current::Integer(current)) => {
                    step::integer(dev, &spec, current, bias, threshold, initial, &mut trains, &mut dev.scratch(len)?)?;
                }
                (Parameters::Real { bias, threshold, initial, .. }, Current::Real(current)) => {
                    step::real(dev, &spec, current, bias, threshold, initial, &mut trains, &mut dev.scratch(len)?)?;
                }
                _ => return Err(mixed()),
            }
            return Ok(Output::Trains(Trains::new(frames, images, trains)));
        }
        let end: Vec<f64> = match (&self.parameters, &current) {
            (Parameters::Integer { bias, initial, .. }, Current::Integer(current)) => {
                let mut end = dev.scratch(len)?;
                step::accumulate(dev, &spec, current, bias, initial, &mut end)?;
                // the sum wraps at 32 bits; what the biases add may be more than that, what synapses bring is not
                let area = shape.area();
                let whole = |(i, &v): (usize, &i32)| {
                    let added = self.added[i / area % shape.c];
                    (added + i64::from(v.wrapping_sub(added as i32))) as f64
                };
                dev.view(&end)?.iter().enumerate().map(whole).collect()
            }
            (Parameters::Real { bias, initial, .. }, Current::Real(current)) => {
                let mut end = dev.scratch(len)?;
                step::accumulate(dev, &spec, current, bias, initial, &mut end)?;
                dev.view(&end)?.iter().map(|&v| f64::from(v)).collect()
            }
            _ => return Err(mixed()),
        };
        let area = shape.area();
        let values = end.iter().enumerate().map(|(i, v)| (v * self.unit[i / area % shape.c]) as f32).collect();
        Ok(Output::Values(values))
    }

    /// The synaptic current of a batch, `[steps or 1][images][shape]`, and its number of steps.
    fn current(&self, dev: &Device, images: usize, shape: Shape, inputs: &[&Trains]) -> Result<(usize, Current)> {
        let steps_in = inputs.iter().map(|t| t.steps).max().unwrap_or(1);
        let inputs = align(dev, inputs, steps_in, &self.times)?;
        let frames = steps_in * images;
        let current = match &self.parameters {
            Parameters::Integer { weights, bounds, .. } => {
                let mut current = dev.scratch(frames * shape.len())?;
                for (k, conv) in self.convs.iter().enumerate() {
                    let start = if k == 0 { Start::Zero } else { Start::Keep };
                    conv::integer(dev, conv, frames, &inputs[k], &weights[k], start, bounds[k], &mut current)?;
                }
                Current::Integer(current)
            }
            Parameters::Real { weights, .. } => {
                let mut current = dev.scratch(frames * shape.len())?;
                for (k, conv) in self.convs.iter().enumerate() {
                    let mut x = dev.scratch(inputs[k].len())?;
                    time::total(dev, 1, inputs[k].len(), &inputs[k], &mut x)?;
                    let start = if k == 0 { Start::Zero } else { Start::Keep };
                    conv::real(dev, conv, frames, &x, &weights[k], start, &mut current)?;
                }
                Current::Real(current)
            }
        };
        Ok((steps_in, current))
    }

    /// Counts over T from each of several initial potentials (one a channel, in integer units): `[images][shape]` each.
    pub(super) fn counts_from(
        &self,
        dev: &Device,
        images: usize,
        shape: Shape,
        inputs: &[&Trains],
        initials: &[Vec<i32>],
    ) -> Result<Vec<Buffer<f32>>> {
        if let Some(bits) = &self.bits
            && let Some(counts) = bits.counts(dev, images, inputs, initials)?
        {
            return Ok(counts);
        }
        let Parameters::Integer { bias, threshold, .. } = &self.parameters else {
            return Err(Error::work("simulation", "initial potentials are tried on integer layers"));
        };
        let (steps_in, Current::Integer(current)) = self.current(dev, images, shape, inputs)? else {
            return Err(mixed());
        };
        // only the totals are read
        let (spec, len) = (StepSpec { counted: true, ..self.spec(steps_in, images, shape) }, images * shape.len());
        let one = |initial: &Vec<i32>| {
            let initial = dev.upload(initial)?;
            let (mut data, mut end) = (dev.scratch(len)?, dev.scratch(len)?);
            step::integer(dev, &spec, &current, bias, threshold, &initial, &mut data, &mut end)?;
            Trains::new(1, images, data).totals(dev)
        };
        initials.iter().map(one).collect()
    }
}

/// What the synapses of a layer bring, in its integer units or in thresholds.
enum Current {
    Integer(Buffer<i32>),
    Real(Buffer<f32>),
}

fn mixed() -> Error {
    Error::work("simulation", "a layer mixes integer and real parameters")
}
