//! The trained network's own forward pass on a device: what the fit takes its targets from and what the spiking
//! network is compared with.

use crate::compute::conv::{self, Conv, Start};
use crate::compute::pool::{self, Pool};
use crate::compute::{Buffer, Device, activate, gather};
use crate::error::{Error, Result};
use crate::network::{Activation, Network, Op, Shape, last_uses};

/// One node's parameters on a device, ready to run on batch after batch.
pub struct NodeRunner {
    shape: Shape,
    kind: Kind,
}

enum Kind {
    Neurons { convs: Vec<Conv>, weights: Vec<Buffer<f32>>, bias: Buffer<f32>, activation: Activation },
    AveragePool { pool: Pool, divisor: Buffer<u32> },
    MaxPool { pool: Pool },
    Concat { parts: Vec<(Buffer<u32>, usize)> },
    Gather { index: Buffer<u32>, source_len: usize },
}

impl NodeRunner {
    pub fn new(dev: &Device, network: &Network, index: usize) -> Result<Self> {
        let node = &network.nodes[index];
        let shape_of = |source: usize| network.nodes[source].shape;
        let pool_of = |source, window| Pool { input: shape_of(source), output: node.shape, window };
        let kind = match &node.op {
            Op::Input => return Err(Error::work(&node.name, "the input has nothing to run")),
            Op::Neurons { blocks, bias, activation } => Kind::Neurons {
                convs: blocks
                    .iter()
                    .map(|b| Conv { input: shape_of(b.source), output: node.shape, window: b.window, groups: b.groups })
                    .collect(),
                weights: blocks.iter().map(|b| dev.upload(&b.weight)).collect::<Result<_>>()?,
                bias: dev.upload(bias)?,
                activation: *activation,
            },
            Op::AveragePool { source, window, divisor } => {
                Kind::AveragePool { pool: pool_of(*source, *window), divisor: dev.upload(divisor)? }
            }
            Op::MaxPool { source, window } => Kind::MaxPool { pool: pool_of(*source, *window) },
            Op::Concat { sources } => {
                let mut offset = 0;
                let mut parts = Vec::new();
                for &source in sources {
                    let len = shape_of(source).len();
                    parts.push((dev.upload(&(0..len as u32).collect::<Vec<_>>())?, offset));
                    offset += len;
                }
                Kind::Concat { parts }
            }
            Op::Gather { source, index } => {
                Kind::Gather { index: dev.upload(index)?, source_len: shape_of(*source).len() }
            }
        };
        Ok(Self { shape: node.shape, kind })
    }

    /// The node's pre-activations (a layer of neurons) or values (any other node), `[images][shape]`. `inputs` in the
    /// order of `Node::sources`.
    pub fn linear(&self, dev: &Device, images: usize, inputs: &[&Buffer<f32>]) -> Result<Buffer<f32>> {
        let len = self.shape.len();
        let mut y = dev.scratch(images * len)?;
        match &self.kind {
            Kind::Neurons { convs, weights, bias, .. } => {
                for (k, conv) in convs.iter().enumerate() {
                    let start = if k == 0 { Start::Bias(bias) } else { Start::Keep };
                    conv::real(dev, conv, images, inputs[k], &weights[k], start, &mut y)?;
                }
            }
            Kind::AveragePool { pool, divisor } => pool::average(dev, pool, divisor, inputs[0], &mut y)?,
            Kind::MaxPool { pool } => pool::maximum(dev, pool, inputs[0], &mut y)?,
            Kind::Concat { parts } => {
                for ((index, offset), input) in parts.iter().zip(inputs) {
                    gather::into(dev, index, images, index.len(), input, *offset, len, &mut y)?;
                }
            }
            Kind::Gather { index, source_len } => {
                gather::into(dev, index, images, *source_len, inputs[0], 0, len, &mut y)?;
            }
        }
        Ok(y)
    }

    /// The node's values; `inputs` as for `linear`.
    pub fn run(&self, dev: &Device, images: usize, inputs: &[&Buffer<f32>]) -> Result<Buffer<f32>> {
        if let Kind::Neurons { activation: Activation::Remainder, .. } = self.kind {
            return dev.zeros(images * self.shape.len());
        }
        let mut value = self.linear(dev, images, inputs)?;
        self.activate(dev, &mut value)?;
        Ok(value)
    }

    /// Applies the activation to pre-activations in place; nothing for nodes that are not neurons.
    pub fn activate(&self, dev: &Device, z: &mut Buffer<f32>) -> Result<()> {
        match &self.kind {
            Kind::Neurons { activation, .. } => activate::apply(dev, *activation, z),
            _ => Ok(()),
        }
    }
}

/// A whole network on a device.
pub struct Forward<'a> {
    network: &'a Network,
    runners: Vec<Option<NodeRunner>>,
    last_use: Vec<usize>,
}

impl<'a> Forward<'a> {
    pub fn new(dev: &Device, network: &'a Network) -> Result<Self> {
        let runners = (0..network.nodes.len())
            .map(|i| if i == 0 { Ok(None) } else { NodeRunner::new(dev, network, i).map(Some) })
            .collect::<Result<_>>()?;
        let last_use = last_uses(network.nodes.len(), network.output, |i| network.nodes[i].sources());
        Ok(Self { network, runners, last_use })
    }

    /// Output node's values, `[images][output shape]`, for preprocessed inputs `[images][input shape]`. The head is
    /// not applied.
    pub fn run(&self, dev: &Device, images: usize, input: &[f32]) -> Result<Vec<f32>> {
        dev.download(&self.visit(dev, images, input, |_, _, _| Ok(()))?)
    }

    /// As `run`; `see` gets each node after the input: its number, its inputs (as `Node::sources`) and its values.
    pub fn visit(
        &self,
        dev: &Device,
        images: usize,
        input: &[f32],
        mut see: impl FnMut(usize, &[&Buffer<f32>], &Buffer<f32>) -> Result<()>,
    ) -> Result<Buffer<f32>> {
        let mut live: Vec<Option<Buffer<f32>>> = vec![Some(dev.upload(input)?)];
        for (i, node) in self.network.nodes.iter().enumerate().skip(1) {
            let inputs = node
                .sources()
                .into_iter()
                .map(|s| live[s].as_ref().ok_or_else(|| Error::work(&node.name, "its source was dropped too early")))
                .collect::<Result<Vec<_>>>()?;
            let value = match &self.runners[i] {
                Some(runner) => {
                    let value = runner.run(dev, images, &inputs)?;
                    see(i, &inputs, &value)?;
                    value
                }
                None => return Err(Error::work(&node.name, "a second input node")),
            };
            live.push(Some(value));
            for (slot, &last) in live.iter_mut().zip(&self.last_use) {
                if last == i {
                    *slot = None;
                }
            }
        }
        let output = live[self.network.output].take();
        output.ok_or_else(|| Error::work(&self.network.name, "the output was dropped"))
    }
}
