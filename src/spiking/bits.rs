//! A layer on spike bits, for the CPU: blocks of sources that are constant give one current, the others go through
//! `compute::lookup`. Bit for bit what currents and steps one after the other give.

use crate::compute::conv::{self, Conv, Start};
use crate::compute::lookup::{self, Neurons, Synapses};
use crate::compute::{Buffer, Device};
use crate::error::Result;
use crate::network::Shape;
use crate::neuron::Model;

use super::network::{Layer, Schedule, SpikingNetwork, State, Weights};
use super::trains::{Packed, Trains};

pub(super) struct BitLayer {
    layer: lookup::Layer,
    shape: Shape,
    steps: usize,
    /// Blocks whose source is constant, with their weights and bounds, and those whose source spikes.
    constant: Vec<Constant>,
    spiking: Vec<(usize, Shape)>,
    initial: Vec<i32>,
}

struct Constant {
    block: usize,
    conv: Conv,
    weights: Buffer<i32>,
    bound: u64,
}

impl BitLayer {
    /// None where the layer or its sources do not fit this way: on a GPU, layered, real-valued, a readout, or what
    /// `lookup::Layer` refuses.
    pub fn new(dev: &Device, net: &SpikingNetwork, layer: &Layer, shape: Shape, model: Model) -> Result<Option<Self>> {
        let State::Integer { bias, threshold, initial } = &layer.state else { return Ok(None) };
        if dev.is_gpu() || model.dash > 0 || net.schedule == Schedule::Layered || !layer.fires {
            return Ok(None);
        }
        let (mut constant, mut spiking, mut synapses) = (vec![], vec![], vec![]);
        for (block, s) in layer.synapses.iter().enumerate() {
            let source = &net.nodes[s.source];
            let Weights::Codes { codes, shift } = &s.weight else { return Ok(None) };
            let conv = Conv { input: source.shape, output: shape, window: s.window, groups: s.groups };
            if source.constant {
                let shifted: Vec<i32> = codes.iter().map(|c| c << shift).collect();
                let rows = shifted.chunks(conv.depth());
                let largest = rows.map(|row| row.iter().map(|c| u64::from(c.unsigned_abs())).sum::<u64>()).max();
                let bound = largest.unwrap_or(0).saturating_mul(source.peak);
                constant.push(Constant { block, conv, weights: dev.upload(&shifted)?, bound });
            } else if source.peak > 1 {
                return Ok(None);
            } else {
                spiking.push((block, source.shape));
                synapses.push(Synapses { conv, codes, shift: *shift });
            }
        }
        let (floor, ceil) = net.potential;
        let (steps, settle) = (net.steps as usize, layer.settle as usize);
        let neurons = Neurons { model, steps, settle, shape, bias, threshold, floor, ceil };
        let made = lookup::Layer::new(&synapses, &neurons);
        let bound = constant.iter().fold(0u64, |sum, c| sum.saturating_add(c.bound));
        let holds = made.filter(|layer| layer.holds(bound, initial) && layer.holds(bound, threshold));
        Ok(holds.map(|layer| Self { layer, shape, steps: neurons.steps, constant, spiking, initial: initial.clone() }))
    }

    /// The layer's trains; none where a source that should spike does so more than once a step.
    pub fn run(&self, dev: &Device, images: usize, inputs: &[&Trains]) -> Result<Option<Trains>> {
        let Some(spikes) = self.spikes(dev, inputs)? else { return Ok(None) };
        let constant = self.constant(dev, images, inputs)?;
        let constant = constant.as_ref().map(Buffer::host).transpose()?;
        let spikes: Vec<_> = spikes.iter().map(|s| &**s).collect();
        Ok(Some(self.layer.run(images, &spikes, constant, &self.initial).into()))
    }

    /// Counts over T from each of several initial potentials, none above the threshold: `[images][shape]` each.
    pub fn counts(
        &self,
        dev: &Device,
        images: usize,
        inputs: &[&Trains],
        initials: &[Vec<i32>],
    ) -> Result<Option<Vec<Buffer<f32>>>> {
        let Some(spikes) = self.spikes(dev, inputs)? else { return Ok(None) };
        let constant = self.constant(dev, images, inputs)?;
        let constant = constant.as_ref().map(Buffer::host).transpose()?;
        let spikes: Vec<_> = spikes.iter().map(|s| &**s).collect();
        let mut counts =
            initials.iter().map(|_| dev.scratch(images * self.shape.len())).collect::<Result<Vec<Buffer<f32>>>>()?;
        let mut into = counts.iter_mut().map(Buffer::host_mut).collect::<Result<Vec<_>>>()?;
        self.layer.counts(images, &spikes, constant, initials, &mut into);
        Ok(Some(counts))
    }

    fn spikes<'a>(&self, dev: &Device, inputs: &[&'a Trains]) -> Result<Option<Vec<Packed<'a>>>> {
        if self.spiking.iter().any(|&(block, _)| inputs[block].steps != self.steps) {
            return Ok(None);
        }
        self.spiking.iter().map(|&(block, shape)| inputs[block].packed(dev, shape)).collect()
    }

    /// The current of the constant sources, if there are any.
    fn constant(&self, dev: &Device, images: usize, inputs: &[&Trains]) -> Result<Option<Buffer<i32>>> {
        if self.constant.is_empty() {
            return Ok(None);
        }
        let mut current = dev.scratch(images * self.shape.len())?;
        for (n, c) in self.constant.iter().enumerate() {
            let start = if n == 0 { Start::Zero } else { Start::Keep };
            let input = inputs[c.block].counts(dev)?;
            conv::integer(dev, &c.conv, images, &input, &c.weights, start, c.bound, &mut current)?;
        }
        Ok(Some(current))
    }
}
