//! Remainder neurons of the layered schedule: what whole spikes leave of a unit, sent after them in smaller ones.
//!
//! A layer that fires after its input has settled counts its current in whole thresholds and drops the rest. A layer that
//! reads it past another layer (a shortcut) has to wait for the longer path anyway: T steps in which neurons with a
//! threshold of 1 / `finer` can integrate the same input less the spikes already sent, and fire for what is left. The
//! shortcut then carries the unit `finer` times as exactly, at no latency. In a deep residual network it is the
//! rounding of this stream, again in every block, that costs most of the agreement.

use super::encode::{Code, Ramp};
use super::walk::Walk;
use super::worker::At;
use super::{Initial, Response};
use crate::compute::Buffer;
use crate::error::Result;
use crate::network::{Activation, Block, Network, Node, Op, Window, is_shortcut};
use crate::spiking::{SpikingNode, SpikingOp, State};

/// Initial potential of a neuron whose remainder is sent, in thresholds. Half a threshold rounds best what is not sent
/// after; but a neuron that rounded up leaves less than nothing, which no spike can say.
const INITIAL: f64 = 0.2;

/// Thresholds of a network with remainder layers, over those with the least error of the layer alone: a remainder also sends
/// what is clipped, and what coarser steps round. Near the least error they cost little and save spikes.
const COARSER: f64 = 1.12;

/// Appended to the name of a layer for that of its remainder.
const SUFFIX: &str = ".remainder";

/// The same function, with a remainder layer (of value zero in the trained network) for every rectified layer that some
/// layer reads over a shortcut: directly, while its longest path from there has another layer of neurons on it. As it is
/// where there is no such layer.
pub fn with_remainders(network: &Network) -> Network {
    let depths = network.depths();
    let over = |source: usize, reader: usize| is_shortcut(&depths, source, reader);
    // per node, its new index
    let mut moved = Vec::with_capacity(network.nodes.len());
    let mut remainder = vec![None; network.nodes.len()];
    let mut nodes: Vec<Node> = Vec::with_capacity(network.nodes.len());
    for (i, node) in network.nodes.iter().enumerate() {
        let mut node = node.clone();
        redirect(&mut node.op, &moved);
        if let Op::Neurons { blocks, .. } = &mut node.op
            && let Op::Neurons { blocks: old, .. } = &network.nodes[i].op
        {
            let doubled = old.iter().zip(std::mem::take(blocks)).flat_map(|(old, block)| {
                let rest: Option<usize> = remainder[old.source].filter(|_| over(old.source, i));
                let second = rest.map(|source| Block { source, ..block.clone() });
                std::iter::once(block).chain(second)
            });
            *blocks = doubled.collect();
        }
        moved.push(nodes.len());
        let read_over = |reader: usize| match &network.nodes[reader].op {
            Op::Neurons { blocks, .. } => over(i, reader) && blocks.iter().any(|b| b.source == i),
            _ => false,
        };
        let sent = (i + 1..network.nodes.len()).any(read_over).then(|| after(&node, nodes.len())).flatten();
        nodes.push(node);
        if let Some(rest) = sent {
            remainder[i] = Some(nodes.len());
            nodes.push(rest);
        }
    }
    Network { nodes, output: moved[network.output], ..network.clone() }
}

/// The remainder layer of `node`, which has number `index`; None where it is no rectified layer.
fn after(node: &Node, index: usize) -> Option<Node> {
    let Op::Neurons { blocks, bias, activation: Activation::Relu } = &node.op else { return None };
    let groups = blocks.first()?.groups;
    let per_group = node.shape.c / groups;
    let minus = |i: usize| if i / per_group % per_group == i % per_group { -1.0 } else { 0.0 };
    let own = Block {
        source: index,
        window: Window::POINT,
        groups,
        weight: (0..node.shape.c * per_group).map(minus).collect(),
    };
    Some(Node {
        name: format!("{}{SUFFIX}", node.name),
        shape: node.shape,
        op: Op::Neurons {
            blocks: blocks.iter().cloned().chain([own]).collect(),
            bias: bias.clone(),
            activation: Activation::Remainder,
        },
    })
}

fn redirect(op: &mut Op, moved: &[usize]) {
    match op {
        Op::Input => {}
        Op::Neurons { blocks, .. } => blocks.iter_mut().for_each(|b| b.source = moved[b.source]),
        Op::AveragePool { source, .. } | Op::MaxPool { source, .. } | Op::Gather { source, .. } => {
            *source = moved[*source];
        }
        Op::Concat { sources } => sources.iter_mut().for_each(|s| *s = moved[*s]),
    }
}

/// The layer whose remainder node `index` is, if it is one.
pub(super) fn of(network: &Network, index: usize) -> Option<usize> {
    match &network.nodes[index].op {
        Op::Neurons { blocks, activation: Activation::Remainder, .. } => blocks.last().map(|own| own.source),
        _ => None,
    }
}

impl Walk<'_> {
    /// The code of a remainder layer: a rate of one stands for `finer` times less than in the layer `counted`.
    pub(super) fn remainder_code(&self, counted: usize) -> Code {
        let finer = f64::from(self.options.remainder);
        let decode = &self.spiking.nodes[counted].decode;
        let ramp = |gain: &f64| Ramp { start: 0.0, width: gain / finer, value: gain / finer, slope: 1.0, rest: 0.0 };
        // a rectified unit, as many of them as are left of the layer
        Code { ramps: decode.gain.iter().map(|gain| vec![ramp(gain)]).collect(), base: vec![0.0; decode.gain.len()] }
    }

    /// Thresholds over those with the least error of each layer.
    pub(super) fn coarser(&self) -> f64 {
        if (0..self.network.nodes.len()).any(|i| of(self.network, i).is_some()) { COARSER } else { 1.0 }
    }

    /// The neurons of layer `index`, just fitted, made to round down where a remainder layer sends what they leave.
    pub(super) fn rounding_down(&self, index: usize, mut node: SpikingNode) -> SpikingNode {
        let sent = index + 1 < self.network.nodes.len() && of(self.network, index + 1) == Some(index);
        let calibrated = self.options.initial == Initial::Calibrated && self.options.response == Response::Measured;
        if sent
            && calibrated
            && let SpikingOp::Neurons(layer) = &mut node.op
        {
            match &mut layer.state {
                State::Integer { threshold, initial, .. } => {
                    initial.iter_mut().zip(threshold).for_each(|(v, t)| *v = (f64::from(*t) * INITIAL) as i32);
                }
                State::Real { initial, .. } => initial.fill(INITIAL as f32),
            }
        }
        node
    }
}

impl At<'_> {
    /// What the spikes of `node` stand for, in units of the trained network.
    pub(super) fn decoded(&mut self, node: usize) -> Result<Buffer<f32>> {
        let totals = self.trains(node)?.totals(self.dev)?;
        let rate = self.walk.rate_per_total(node) as f32;
        let node = &self.walk.spiking.nodes[node];
        let values = |image: &[f32]| {
            let rates: Vec<f32> = image.iter().map(|n| n * rate).collect();
            node.decode.values(&rates, node.shape.area())
        };
        let host = self.dev.view(&totals)?;
        self.dev.upload(&host.chunks_exact(node.shape.len()).flat_map(values).collect::<Vec<_>>())
    }
}
