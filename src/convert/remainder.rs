//! Remainder neurons of the layered schedule: what whole spikes leave of a unit, sent after them in smaller ones.
//!
//! A layer that fires after its input has settled counts its current in whole thresholds and drops the rest. In the T steps
//! after that, neurons with a smaller threshold can integrate the same input less the spikes already sent, and fire for what
//! is left. A layer that reads the unit past another layer (a shortcut) has to wait for the longer path anyway, and hears
//! the unit as exactly as the smaller threshold says it, at no latency. Remainder layers come a layer later than those that
//! they follow, so that they read the remainders of their sources as well: what rounding cost on the way is made up for, not
//! only the layer's own. In a deep residual network the rounding of the stream over the shortcuts, again in every block,
//! costs most of the agreement. A readout that waits T steps more hears the last layer's remainder, too.

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
const COARSER: f64 = 1.25;

/// Appended to the name of a layer for that of its remainder.
pub(super) const SUFFIX: &str = ".remainder";

/// Inputs up to which a layer may have a remainder: its least squares take the square of them.
const MOST_INPUTS: usize = 8192;

/// The same function with remainder layers, of value zero in the trained network. A layer reads the remainders of its
/// sources where it comes at least two layers after them (over a shortcut), and a remainder layer always does: it is a layer
/// later than what it follows. `last`: the readout does, too, which makes the result one layer later. Rectified layers whose
/// remainder would be read have one; a maximum hands none on.
pub fn with_remainders(network: &Network, last: bool) -> Network {
    let depths = network.depths();
    let waits = |source: usize, reader: usize| {
        is_shortcut(&depths, source, reader) || (last && is_readout(network, reader) && depths[source] > 0)
    };
    let has = read_remainders(network, waits);
    if !has.contains(&true) {
        return network.clone();
    }
    // per node, its new number and that of its remainder
    let (mut moved, mut rest): (Vec<usize>, Vec<Option<usize>>) = (vec![], vec![]);
    let mut nodes: Vec<Node> = Vec::with_capacity(2 * network.nodes.len());
    for (i, node) in network.nodes.iter().enumerate() {
        let own = nodes.len();
        let sent = has[i].then(|| after(node, own, &moved, &rest));
        let op = renumbered(&node.op, &moved, |source| rest[source].filter(|_| waits(source, i)));
        nodes.push(Node { op, ..node.clone() });
        moved.push(own);
        rest.push(sent.is_some().then_some(own + 1));
        nodes.extend(sent);
    }
    Network { nodes, output: moved[network.output], ..network.clone() }
}

fn is_readout(network: &Network, node: usize) -> bool {
    node == network.output && matches!(network.nodes[node].op, Op::Neurons { activation: Activation::Linear, .. })
}

/// Per node, whether it has a remainder that somebody reads. `waits(source, reader)`: the reader has time for it.
fn read_remainders(network: &Network, waits: impl Fn(usize, usize) -> bool) -> Vec<bool> {
    let mut can: Vec<bool> = Vec::with_capacity(network.nodes.len());
    for (i, node) in network.nodes.iter().enumerate() {
        can.push(match &node.op {
            Op::Neurons { blocks, activation: Activation::Relu, .. } if i != network.output => {
                let groups = blocks.first().map_or(1, |b| b.groups);
                let inputs: usize = blocks.iter().map(|b| b.weight.len() / node.shape.c).sum();
                2 * inputs + node.shape.c / groups <= MOST_INPUTS
            }
            Op::AveragePool { source, .. } | Op::Gather { source, .. } => can[*source],
            Op::Concat { sources } => sources.iter().all(|&s| can[s]),
            _ => false,
        });
    }
    let mut has = vec![false; network.nodes.len()];
    for (i, node) in network.nodes.iter().enumerate().rev() {
        let neurons = matches!(node.op, Op::Neurons { .. });
        for source in node.sources() {
            has[source] |= can[source] && (has[i] || (neurons && waits(source, i)));
        }
    }
    has
}

/// `op` with its sources' new numbers; its blocks again for the remainders that `rest` gives of their sources.
fn renumbered(op: &Op, moved: &[usize], rest: impl Fn(usize) -> Option<usize>) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Input => {}
        Op::Neurons { blocks, .. } => {
            let both = |block: Block| {
                let second = rest(block.source).map(|source| Block { source, ..block.clone() });
                std::iter::once(Block { source: moved[block.source], ..block }).chain(second)
            };
            *blocks = std::mem::take(blocks).into_iter().flat_map(both).collect();
        }
        Op::AveragePool { source, .. } | Op::MaxPool { source, .. } | Op::Gather { source, .. } => {
            *source = moved[*source];
        }
        Op::Concat { sources } => sources.iter_mut().for_each(|s| *s = moved[*s]),
    }
    op
}

/// The remainder of `node`, which has the new number `own`: of a layer, a layer that reads the same and, less, its spikes; of
/// any other node, the same of its sources' remainders.
fn after(node: &Node, own: usize, moved: &[usize], rest: &[Option<usize>]) -> Node {
    let op = match renumbered(&node.op, moved, |source| rest[source]) {
        Op::Neurons { mut blocks, bias, .. } => {
            let groups = blocks.first().map_or(1, |b| b.groups);
            let per_group = node.shape.c / groups;
            let minus = |i: usize| if i / per_group % per_group == i % per_group { -1.0 } else { 0.0 };
            let weight = (0..node.shape.c * per_group).map(minus).collect();
            blocks.push(Block { source: own, window: Window::POINT, groups, weight });
            Op::Neurons { blocks, bias, activation: Activation::Remainder }
        }
        _ => renumbered(&node.op, &rest.iter().map(|r| r.unwrap_or(0)).collect::<Vec<_>>(), |_| None),
    };
    Node { name: format!("{}{SUFFIX}", node.name), shape: node.shape, op }
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
