//! The time-stepped simulation, node by node: a layer sees its sources' whole spike trains and gives its own, which is
//! the same as stepping all layers at once, because a spike reaches the next layer in the step in which it is fired.
//!
//! With integer synapses everything here is integer arithmetic: the same spikes on every device, bit for bit.

use crate::compute::pool::{self, Pool};
use crate::compute::{Buffer, Device, gather};
use crate::error::{Error, Result};
use crate::network::Shape;

pub use super::activity::Activity;
use super::activity::{FanOut, fan_out};
use super::layer::LayerRunner;
use super::network::{SpikingNetwork, SpikingNode, SpikingOp};
use super::trains::align;
pub use super::trains::{Counts, Trains};

/// What a node gives.
pub enum Output {
    Trains(Trains),
    /// A readout's accumulated potential over T, to be decoded like rates, `[images][shape]`.
    Values(Vec<f32>),
}

/// Rates of a node are its totals times this.
pub fn rate_per_total(net: &SpikingNetwork, node: usize) -> f64 {
    if net.nodes[node].constant { 1.0 } else { 1.0 / f64::from(net.steps) }
}

/// The coded input as trains.
pub fn encode(dev: &Device, net: &SpikingNetwork, raw: &[f32], images: usize) -> Result<Trains> {
    let codes = net.input.encode(raw, net.nodes[0].shape.area());
    Ok(Trains::new(1, images, dev.upload(&codes)?))
}

/// The coded input summed over T.
pub fn encode_total(dev: &Device, net: &SpikingNetwork, raw: &[f32], images: usize) -> Result<Trains> {
    let mut codes = net.input.encode(raw, net.nodes[0].shape.area());
    codes.iter_mut().for_each(|x| *x = x.saturating_mul(net.steps as i32));
    Ok(Trains::new(1, images, dev.upload(&codes)?))
}

/// One node's parameters on a device, ready to run on batch after batch.
pub struct Runner {
    kind: Kind,
    shape: Shape,
    sources: Vec<usize>,
    /// Per source: how often one step of it is heard.
    times: Vec<i32>,
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
        let sources = node.sources();
        let times = net.times(&sources);
        Ok(Runner { kind, shape: node.shape, sources, times })
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
            Kind::Layer(layer) if layer.fires() => layer.counts_from(dev, images, self.shape, inputs, initials),
            _ => Err(Error::work("simulation", "initial potentials are tried on layers that fire")),
        }
    }

    /// Runs a batch; `inputs` in the order of `sources`.
    pub fn run(&self, dev: &Device, images: usize, inputs: &[&Trains]) -> Result<Output> {
        if let Kind::Layer(layer) = &self.kind {
            return layer.run(dev, images, self.shape, inputs);
        }
        let steps = inputs.iter().map(|t| t.steps).max().unwrap_or(1);
        let inputs = align(dev, inputs, steps, &self.times)?;
        let frames = steps * images;
        let mut data = dev.scratch(frames * self.shape.len())?;
        match &self.kind {
            Kind::Layer(_) => {}
            Kind::SumPool { pool, weight } => pool::sum_weighted(dev, pool, weight, &inputs[0], &mut data)?,
            Kind::MaxPool { pool } => pool::winner(dev, pool, steps, &inputs[0], &mut data)?,
            Kind::Concat { parts } => {
                for (part, input) in parts.iter().zip(&inputs) {
                    let len = part.index.len();
                    let out = self.shape.len();
                    gather::into(dev, &part.index, frames, len, input, part.offset, out, &mut data)?;
                }
            }
            Kind::Gather { index, source_len } => {
                gather::into(dev, index, frames, *source_len, &inputs[0], 0, self.shape.len(), &mut data)?;
            }
        }
        Ok(Output::Trains(Trains::new(steps, images, data)))
    }
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
                        let total = match i == net.output {
                            true => trains.totals(dev)?,
                            false => trains.sums(dev, node.shape.len(), trains.most(node.peak, net.steps))?,
                        };
                        let total = dev.download(&total)?;
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
