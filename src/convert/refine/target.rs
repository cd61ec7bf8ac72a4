//! A refined layer's targets, in the place of the trained pre-activations.

use super::super::linear::Linear;
use super::super::walk::Walk;
use super::super::worker::At;
use crate::compute::gram::PatchSpec;
use crate::compute::{Buffer, Device, gather};
use crate::error::Result;
use crate::network::Shape;

/// The refined layer: the rows that stay, over the whole trained sources.
pub struct Refined {
    /// Per block: the node that it reads, and its patches.
    pub sources: Vec<usize>,
    pub blocks: Vec<PatchSpec>,
    /// rows x n over the blocks' patch entries in order.
    pub w: Vec<f32>,
    pub bias: Vec<f32>,
    /// What readers lack of their targets, a share of these: with the trained channels, and with these.
    pub before: f64,
    pub after: f64,
}

/// What a refined layer is to give, on a device.
pub struct Target {
    node: usize,
    layer: Linear,
    sources: Vec<usize>,
    /// Values of the layer that stay, and per value of the trained layer which of them it is.
    len: usize,
    place: Buffer<u32>,
}

impl Target {
    /// `kept`: channels that stay of layer `node`.
    pub fn new(walk: &Walk<'_>, dev: &Device, node: usize, kept: &[usize], refined: &Refined) -> Result<Self> {
        let shape = walk.network.nodes[node].shape;
        let area = shape.area();
        let place = |i: usize| kept.binary_search(&(i / area)).map_or(u32::MAX, |c| (c * area + i % area) as u32);
        Ok(Self {
            node,
            layer: Linear::new(dev, &refined.blocks, Shape { c: kept.len(), ..shape }, &refined.w, &refined.bias)?,
            sources: refined.sources.clone(),
            len: kept.len() * area,
            place: dev.upload(&(0..shape.len()).map(place).collect::<Vec<_>>())?,
        })
    }
}

impl At<'_> {
    /// The pre-activations that layer `node` is to give in the place of the trained ones, if it is refined.
    pub fn refined(&mut self, node: usize) -> Result<Option<Buffer<f32>>> {
        let Some(target) = self.worker.refined.take_if(|t| t.node == node) else { return Ok(None) };
        let xs = target.sources.iter().map(|&s| self.activations(s)).collect::<Result<Vec<_>>>();
        let z = xs.and_then(|xs| target.layer.run(self.dev, self.images(), &xs.iter().collect::<Vec<_>>()));
        self.worker.refined = Some(target);
        z.map(Some)
    }

    /// The same as activations of the trained layer's channels, zero for those that are gone.
    pub fn refined_activations(&mut self, node: usize) -> Result<Option<Buffer<f32>>> {
        let Some(mut z) = self.refined(node)? else { return Ok(None) };
        self.activate(node, &mut z)?;
        let Some(target) = &self.worker.refined else { return Ok(None) };
        let mut all = self.dev.scratch(self.images() * target.place.len())?;
        gather::into(self.dev, &target.place, self.images(), target.len, &z, 0, target.place.len(), &mut all)?;
        Ok(Some(all))
    }
}
