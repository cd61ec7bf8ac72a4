//! The response of a layer in closed form: each neuron's spike count under its mean current, without stepping. For a
//! current that really is constant this is the simulation's count; for spiking input it leaves out that spikes come
//! unevenly.

use crate::compute::activate;
use crate::compute::conv::{self, Conv, Start};
use crate::compute::{Buffer, Device, response};
use crate::error::{Error, Result};
use crate::network::Shape;
use crate::neuron::Model;

use super::network::{SpikingNetwork, SpikingOp, Weights};
use super::simulate::Trains;

/// One firing layer on a device.
pub struct Responder {
    model: Model,
    steps: u32,
    shape: Shape,
    convs: Vec<Conv>,
    /// Stored codes (shifted) or real synapses.
    weights: Vec<Buffer<f32>>,
    /// Per channel: thresholds per step for one unit of summed input over T, and the bias.
    scale: Buffer<f32>,
    bias: Buffer<f32>,
    initial: Buffer<f32>,
}

impl Responder {
    /// Uploads node `index` of `net`. Errors: the node is not a layer of neurons, or its parts do not fit.
    pub fn new(dev: &Device, net: &SpikingNetwork, index: usize) -> Result<Self> {
        let node = &net.nodes[index];
        let SpikingOp::Neurons(layer) = &node.op else {
            return Err(Error::work(&node.name, "has no neurons to respond"));
        };
        let convs = layer
            .synapses
            .iter()
            .map(|s| Conv { input: net.nodes[s.source].shape, output: node.shape, window: s.window, groups: s.groups })
            .collect();
        let weights = layer
            .synapses
            .iter()
            .map(|s| match &s.weight {
                Weights::Codes { codes, shift } => {
                    dev.upload(&codes.iter().map(|&c| (i64::from(c) << shift) as f32).collect::<Vec<_>>())
                }
                Weights::Real(w) => dev.upload(w),
            })
            .collect::<Result<_>>()?;
        let steps = f64::from(net.steps);
        let scale: Vec<f32> = layer.unit.iter().map(|u| (u / steps) as f32).collect();
        let (bias, initial) = layer.state.real(&layer.unit);
        Ok(Self {
            model: net.model,
            steps: net.steps,
            shape: node.shape,
            convs,
            weights,
            scale: dev.upload(&scale)?,
            bias: dev.upload(&bias)?,
            initial: dev.upload(&initial)?,
        })
    }

    /// Counts over T from the sources' totals over T, all trains of one step.
    pub fn run(&self, dev: &Device, images: usize, inputs: &[&Trains]) -> Result<Trains> {
        if inputs.iter().any(|t| t.steps != 1) {
            return Err(Error::work("response", "a source's total is missing"));
        }
        let totals = inputs.iter().map(|t| t.totals(dev)).collect::<Result<Vec<_>>>()?;
        let current = self.currents(dev, images, &totals)?;
        Ok(Trains::new(1, images, self.counts(dev, &current)?))
    }

    /// Mean currents (thresholds per step), images x shape, from the sources' totals over T.
    pub fn currents(&self, dev: &Device, images: usize, totals: &[Buffer<f32>]) -> Result<Buffer<f32>> {
        let mut current = dev.scratch(images * self.shape.len())?;
        for (k, conv) in self.convs.iter().enumerate() {
            let x = totals.get(k).ok_or_else(|| Error::work("response", "a source's total is missing"))?;
            let start = if k == 0 { Start::Zero } else { Start::Keep };
            conv::real(dev, conv, images, x, &self.weights[k], start, &mut current)?;
        }
        activate::affine(dev, self.shape, &self.scale, &self.bias, &mut current)?;
        Ok(current)
    }

    /// Spikes in T steps of constant currents.
    pub fn counts(&self, dev: &Device, current: &Buffer<f32>) -> Result<Buffer<i32>> {
        let mut data = dev.scratch(current.len())?;
        response::count(dev, &self.model, self.steps, self.shape, &self.initial, current, &mut data)?;
        Ok(data)
    }
}
