//! The time-stepped simulation, node by node: a layer sees its sources' whole spike trains and gives its own, which is
//! the same as stepping all layers at once, because a spike reaches the next layer in the step in which it is fired.
//!
//! With integer synapses everything here is integer arithmetic: the same spikes on every device, bit for bit.

use crate::compute::conv::{self, Conv, Start};
use crate::compute::pool::{self, Pool};
use crate::compute::step::{self, StepSpec};
use crate::compute::{Buffer, Device, gather, time};
use crate::error::{Error, Result};
use crate::network::Shape;
use crate::neuron::Model;

pub use super::activity::Activity;
use super::activity::{FanOut, fan_out};
use super::network::{Layer, Schedule, SpikingNetwork, SpikingNode, SpikingOp, State, Weights};

/// Spike trains of one node for a batch: counts `[steps][images][shape]`. `steps` is 1 where the trains are constant,
/// and in the layered schedule, where only the totals over T matter.
pub struct Trains {
    pub steps: usize,
    pub images: usize,
    pub data: Buffer<i32>,
}

impl Trains {
    /// Counts summed over the steps, `[images][shape]`; exact, as f32, below 2^24.
    pub fn totals(&self, dev: &Device) -> Result<Buffer<f32>> {
        let len = self.data.len() / self.steps;
        let mut y = dev.scratch(len)?;
        time::total(dev, self.steps, len, &self.data, &mut y)?;
        Ok(y)
    }
}

/// What a node gives.
pub enum Output {
    Trains(Trains),
    /// A readout's accumulated potential over T, to be decoded like rates, `[images][shape]`.
    Values(Vec<f32>),
}

/// Rates of a node are its totals times this.
pub fn rate_per_total(net: &SpikingNetwork, node: usize) -> f64 {
    if net.nodes[node].constant && net.schedule == Schedule::Streaming { 1.0 } else { 1.0 / f64::from(net.steps) }
}

/// The coded input as trains.
pub fn encode(dev: &Device, net: &SpikingNetwork, raw: &[f32], images: usize) -> Result<Trains> {
    if net.schedule == Schedule::Layered {
        return encode_total(dev, net, raw, images);
    }
    let codes = net.input.encode(raw, net.nodes[0].shape.area());
    Ok(Trains { steps: 1, images, data: dev.upload(&codes)? })
}

/// The coded input summed over T.
pub fn encode_total(dev: &Device, net: &SpikingNetwork, raw: &[f32], images: usize) -> Result<Trains> {
    let mut codes = net.input.encode(raw, net.nodes[0].shape.area());
    codes.iter_mut().for_each(|x| *x = x.saturating_mul(net.steps as i32));
    Ok(Trains { steps: 1, images, data: dev.upload(&codes)? })
}

/// One node's parameters on a device, ready to run on batch after batch.
pub struct Runner {
    kind: Kind,
    shape: Shape,
    sources: Vec<usize>,
}

enum Kind {
    Layer(Box<LayerRunner>),
    SumPool { pool: Pool, weight: Buffer<u32> },
    MaxPool { pool: Pool },
    Concat { parts: Vec<Part> },
    Gather { index: Buffer<u32>, source_len: usize },
}

/// A Concat's source, copied as it is to `offset` of each image.
struct Part {
    index: Buffer<u32>,
    offset: usize,
}

struct LayerRunner {
    model: Model,
    steps: usize,
    schedule: Schedule,
    fires: bool,
    potential: (i32, i32),
    unit: Vec<f64>,
    convs: Vec<Conv>,
    parameters: Parameters,
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

impl Runner {
    /// Uploads node `index` of `net`; later nodes need not exist yet.
    pub fn new(dev: &Device, net: &SpikingNetwork, index: usize) -> Result<Runner> {
        let node = &net.nodes[index];
        let shape_of = |source: usize| net.nodes[source].shape;
        let kind = match &node.op {
            SpikingOp::Input => return Err(Error::work(&node.name, "the input has nothing to run")),
            SpikingOp::Neurons(layer) => Kind::Layer(Box::new(LayerRunner::new(dev, net, layer, node.shape)?)),
            SpikingOp::SumPool { source, window, weight } => Kind::SumPool {
                pool: Pool { input: shape_of(*source), output: node.shape, window: *window },
                weight: dev.upload(weight)?,
            },
            SpikingOp::MaxPool { source, window } => {
                Kind::MaxPool { pool: Pool { input: shape_of(*source), output: node.shape, window: *window } }
            }
            SpikingOp::Concat { sources } => {
                let mut offset = 0;
                let mut parts = Vec::new();
                for &source in sources {
                    let len = shape_of(source).len();
                    parts.push(Part { index: dev.upload(&(0..len as u32).collect::<Vec<_>>())?, offset });
                    offset += len;
                }
                Kind::Concat { parts }
            }
            SpikingOp::Gather { source, index } => {
                Kind::Gather { index: dev.upload(index)?, source_len: shape_of(*source).len() }
            }
        };
        Ok(Runner { kind, shape: node.shape, sources: node.sources() })
    }

    /// The nodes whose trains `run` wants, in this order.
    pub fn sources(&self) -> &[usize] {
        &self.sources
    }

    /// A firing integer layer's counts over T from each of several initial potentials (one a channel, in integer units),
    /// `[images][shape]` each.
    ///
    /// # Errors
    /// `Work`: not such a layer, or the device failed.
    pub fn counts_from(
        &self,
        dev: &Device,
        images: usize,
        inputs: &[&Trains],
        initials: &[Vec<i32>],
    ) -> Result<Vec<Buffer<f32>>> {
        match &self.kind {
            Kind::Layer(layer) if layer.fires => layer.counts_from(dev, images, self.shape, inputs, initials),
            _ => Err(Error::work("simulation", "initial potentials are tried on layers that fire")),
        }
    }

    /// Runs a batch; `inputs` in the order of `sources`.
    pub fn run(&self, dev: &Device, images: usize, inputs: &[&Trains]) -> Result<Output> {
        if let Kind::Layer(layer) = &self.kind {
            return layer.run(dev, images, self.shape, inputs);
        }
        let steps = inputs.iter().map(|t| t.steps).max().unwrap_or(1);
        let aligned = align(dev, inputs, steps)?;
        let inputs: Vec<&Trains> = inputs.iter().zip(&aligned).map(|(t, a)| a.as_ref().unwrap_or(t)).collect();
        let frames = steps * images;
        let mut data = dev.scratch(frames * self.shape.len())?;
        match &self.kind {
            Kind::Layer(_) => {}
            Kind::SumPool { pool, weight } => pool::sum_weighted(dev, pool, weight, &inputs[0].data, &mut data)?,
            Kind::MaxPool { pool } => pool::winner(dev, pool, steps, &inputs[0].data, &mut data)?,
            Kind::Concat { parts } => {
                for (part, input) in parts.iter().zip(&inputs) {
                    let len = part.index.len();
                    let out = self.shape.len();
                    gather::into(dev, &part.index, frames, len, &input.data, part.offset, out, &mut data)?;
                }
            }
            Kind::Gather { index, source_len } => {
                gather::into(dev, index, frames, *source_len, &inputs[0].data, 0, self.shape.len(), &mut data)?;
            }
        }
        Ok(Output::Trains(Trains { steps, images, data }))
    }
}

/// Constant trains that run beside spiking ones are repeated over the steps; None where nothing is to be done.
fn align(dev: &Device, inputs: &[&Trains], steps: usize) -> Result<Vec<Option<Trains>>> {
    inputs
        .iter()
        .map(|t| {
            if t.steps == steps {
                return Ok(None);
            }
            let once = dev.view(&t.data)?;
            Ok(Some(Trains { steps, images: t.images, data: dev.upload(&once.repeat(steps))? }))
        })
        .collect()
}

impl LayerRunner {
    fn new(dev: &Device, net: &SpikingNetwork, layer: &Layer, shape: Shape) -> Result<Self> {
        let layered = net.schedule == Schedule::Layered;
        let times = if layered { net.steps as i32 } else { 1 };
        let convs = layer
            .synapses
            .iter()
            .map(|s| Conv { input: net.nodes[s.source].shape, output: shape, window: s.window, groups: s.groups })
            .collect();
        let parameters = match &layer.state {
            State::Integer { bias, threshold, initial } => {
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
                    bounds.push(largest.saturating_mul(net.nodes[synapses.source].peak.saturating_mul(times as u64)));
                    weights.push(dev.upload(&shifted)?);
                }
                Parameters::Integer {
                    weights,
                    bounds,
                    bias: dev.upload(&bias.iter().map(|b| b.saturating_mul(times)).collect::<Vec<_>>())?,
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
                    bias: dev.upload(&bias.iter().map(|b| b * times as f32).collect::<Vec<_>>())?,
                    threshold: dev.upload(&vec![1.0; shape.c])?,
                    initial: dev.upload(initial)?,
                }
            }
        };
        let model = if layered {
            Model { max_spikes: net.model.max_spikes.saturating_mul(net.steps), ..net.model }
        } else {
            net.model
        };
        Ok(Self {
            model,
            steps: if layered { 1 } else { net.steps as usize },
            schedule: net.schedule,
            fires: layer.fires,
            potential: net.potential,
            unit: layer.unit.iter().map(|u| u / f64::from(net.steps)).collect(),
            convs,
            parameters,
        })
    }

    fn spec(&self, steps_in: usize, images: usize, shape: Shape) -> StepSpec {
        let (floor, ceil) = self.potential;
        StepSpec { model: self.model, steps: self.steps, steps_in, images, shape, floor, ceil }
    }

    fn run(&self, dev: &Device, images: usize, shape: Shape, inputs: &[&Trains]) -> Result<Output> {
        let (steps_in, current) = self.current(dev, images, shape, inputs)?;
        let spec = self.spec(steps_in, images, shape);
        let len = images * shape.len();
        if self.fires {
            let mut trains = dev.scratch(self.steps * len)?;
            match (&self.parameters, &current) {
                (Parameters::Integer { bias, threshold, initial, .. }, Current::Integer(current)) => {
                    step::integer(dev, &spec, current, bias, threshold, initial, &mut trains, &mut dev.scratch(len)?)?;
                }
                (Parameters::Real { bias, threshold, initial, .. }, Current::Real(current)) => {
                    step::real(dev, &spec, current, bias, threshold, initial, &mut trains, &mut dev.scratch(len)?)?;
                }
                _ => return Err(mixed()),
            }
            return Ok(Output::Trains(Trains { steps: self.steps, images, data: trains }));
        }
        debug_assert!(self.schedule == Schedule::Streaming || steps_in == 1);
        let end: Vec<f64> = match (&self.parameters, &current) {
            (Parameters::Integer { bias, initial, .. }, Current::Integer(current)) => {
                let mut end = dev.scratch(len)?;
                step::accumulate(dev, &spec, current, bias, initial, &mut end)?;
                dev.view(&end)?.iter().map(|&v| f64::from(v)).collect()
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
        let aligned = align(dev, inputs, steps_in)?;
        let inputs: Vec<&Trains> = inputs.iter().zip(&aligned).map(|(t, a)| a.as_ref().unwrap_or(t)).collect();
        let frames = steps_in * images;
        let current = match &self.parameters {
            Parameters::Integer { weights, bounds, .. } => {
                let mut current = dev.scratch(frames * shape.len())?;
                for (k, conv) in self.convs.iter().enumerate() {
                    let start = if k == 0 { Start::Zero } else { Start::Keep };
                    conv::integer(dev, conv, frames, &inputs[k].data, &weights[k], start, bounds[k], &mut current)?;
                }
                Current::Integer(current)
            }
            Parameters::Real { weights, .. } => {
                let mut current = dev.scratch(frames * shape.len())?;
                for (k, conv) in self.convs.iter().enumerate() {
                    let mut x = dev.scratch(inputs[k].data.len())?;
                    time::total(dev, 1, inputs[k].data.len(), &inputs[k].data, &mut x)?;
                    let start = if k == 0 { Start::Zero } else { Start::Keep };
                    conv::real(dev, conv, frames, &x, &weights[k], start, &mut current)?;
                }
                Current::Real(current)
            }
        };
        Ok((steps_in, current))
    }

    /// Counts over T from each of several initial potentials (one a channel, in integer units): `[images][shape]` each.
    fn counts_from(
        &self,
        dev: &Device,
        images: usize,
        shape: Shape,
        inputs: &[&Trains],
        initials: &[Vec<i32>],
    ) -> Result<Vec<Buffer<f32>>> {
        let Parameters::Integer { bias, threshold, .. } = &self.parameters else {
            return Err(Error::work("simulation", "initial potentials are tried on integer layers"));
        };
        let (steps_in, Current::Integer(current)) = self.current(dev, images, shape, inputs)? else {
            return Err(mixed());
        };
        let (spec, len) = (self.spec(steps_in, images, shape), images * shape.len());
        let one = |initial: &Vec<i32>| {
            let initial = dev.upload(initial)?;
            let (mut data, mut end) = (dev.scratch(self.steps * len)?, dev.scratch(len)?);
            step::integer(dev, &spec, &current, bias, threshold, &initial, &mut data, &mut end)?;
            Trains { steps: self.steps, images, data }.totals(dev)
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

/// A whole network on a device.
pub struct Simulation<'a> {
    net: &'a SpikingNetwork,
    runners: Vec<Option<Runner>>,
    last_use: Vec<usize>,
    fan_out: Vec<Vec<FanOut>>,
}

impl<'a> Simulation<'a> {
    pub fn new(dev: &Device, net: &'a SpikingNetwork) -> Result<Self> {
        let runners = (0..net.nodes.len())
            .map(|i| if i == 0 { Ok(None) } else { Runner::new(dev, net, i).map(Some) })
            .collect::<Result<_>>()?;
        let last_use = crate::network::last_uses(net.nodes.len(), net.output, |i| net.nodes[i].sources());
        Ok(Self { net, runners, last_use, fan_out: fan_out(net) })
    }

    /// Runs a batch of raw images (CHW); gives the decoded output, `[images][output]` in ANN units, and adds to
    /// `activity`.
    pub fn run(&self, dev: &Device, images: usize, raw: &[f32], activity: &mut Activity) -> Result<Vec<f32>> {
        let net = self.net;
        activity.spikes.resize(net.nodes.len(), 0);
        activity.synaptic_operations.resize(net.nodes.len(), 0);
        let mut live: Vec<Option<Trains>> = vec![Some(encode(dev, net, raw, images)?)];
        let mut output = vec![];
        for (i, node) in net.nodes.iter().enumerate().skip(1) {
            let Some(runner) = &self.runners[i] else { return Err(Error::work(&node.name, "a second input node")) };
            let inputs = runner
                .sources()
                .iter()
                .map(|&s| live[s].as_ref().ok_or_else(|| Error::work(&node.name, "its source was dropped too early")))
                .collect::<Result<Vec<_>>>()?;
            match runner.run(dev, images, &inputs)? {
                Output::Values(values) if i == net.output => return Ok(decoded(node, &values)),
                Output::Values(_) => return Err(Error::work(&node.name, "a readout before the output")),
                Output::Trains(trains) => {
                    if node.firing().is_some() || !self.fan_out[i].is_empty() || i == net.output {
                        let total = dev.download(&trains.totals(dev)?)?;
                        if node.firing().is_some() {
                            activity.spikes[i] += total.iter().map(|&n| n as u64).sum::<u64>();
                        }
                        for fan in &self.fan_out[i] {
                            activity.synaptic_operations[fan.target] += fan.operations(&total);
                        }
                        if i == net.output {
                            output = total;
                        }
                    }
                    live.push(Some(trains));
                }
            }
            for (j, &last) in self.last_use.iter().enumerate() {
                if last == i && j < live.len() {
                    live[j] = None;
                }
            }
        }
        let node = &net.nodes[net.output];
        let rate = rate_per_total(net, net.output);
        let rates: Vec<f32> = output.iter().map(|&n| (f64::from(n) * rate) as f32).collect();
        Ok(decoded(node, &rates))
    }
}

/// A batch of a node's rates (or accumulated values) as values of the trained network.
fn decoded(node: &SpikingNode, rates: &[f32]) -> Vec<f32> {
    rates.chunks_exact(node.shape.len()).flat_map(|r| node.decode.values(r, node.shape.area())).collect()
}
