//! Which channels of the trained network can go, and what goes with them.
//!
//! A *leader* is a layer whose channels can be chosen freely. Pools, concatenations and rearrangements hand its channels
//! on; a depthwise layer's channels follow those that it reads. Whatever reads them through a full convolution or a dense
//! layer, skip connections included, is a *consumer*: its synapses are refitted without them.

use crate::network::{Activation, Block, Network, Op};

/// A channel's leader and its number there.
pub type Origin = Option<(usize, usize)>;

pub struct Structure {
    /// Per node and channel: the leader's channel that it stands or falls with; `None` for what always stays.
    pub origin: Vec<Vec<Origin>>,
    /// Per node: why it is no leader whose channels can go, in words.
    pub blocked: Vec<Option<String>>,
}

impl Structure {
    pub fn of(network: &Network) -> Self {
        let mut found = Structure { origin: vec![], blocked: vec![None; network.nodes.len()] };
        for (i, node) in network.nodes.iter().enumerate() {
            let origin = match &node.op {
                Op::Input => vec![None; node.shape.c],
                Op::Neurons { blocks, activation: Activation::Remainder, .. } => found.remainder(blocks),
                Op::Neurons { blocks, .. } => found.neurons(network, i, blocks),
                Op::AveragePool { source, .. } | Op::MaxPool { source, .. } => found.origin[*source].clone(),
                Op::Concat { sources } => sources.iter().flat_map(|&s| found.origin[s].clone()).collect(),
                Op::Gather { source, index } => found.gather(network, i, *source, index),
            };
            match node.op {
                Op::Neurons { activation: Activation::Remainder, .. } => {
                    found.blocked[i] = Some("sends a remainder: its channels go with those that it follows".into());
                }
                Op::Neurons { .. } => {}
                _ => found.blocked[i] = Some("is no layer of neurons".into()),
            }
            found.origin.push(origin);
        }
        let output = found.origin[network.output].clone();
        found.block(&output, "is the network's output");
        found
    }

    /// Channel for channel those of the layer that it follows.
    fn remainder(&self, blocks: &[Block]) -> Vec<Origin> {
        blocks.last().map_or(vec![], |own| self.origin[own.source].clone())
    }

    fn neurons(&mut self, network: &Network, i: usize, blocks: &[Block]) -> Vec<Origin> {
        let node = &network.nodes[i];
        let own = (0..node.shape.c).map(|c| Some((i, c))).collect();
        match blocks {
            blocks if blocks.iter().all(|b| b.groups == 1) => own,
            [block] if is_depthwise(block, node.shape.c) => {
                self.blocked[i] = Some("is depthwise: its channels go with those that it reads".into());
                let per = node.shape.c / block.groups;
                (0..node.shape.c).map(|c| self.origin[block.source][c / per]).collect()
            }
            blocks => {
                self.blocked[i] = Some("is a grouped convolution".into());
                for block in blocks {
                    let read = self.origin[block.source].clone();
                    self.block(&read, &format!("is read by the grouped convolution {}", node.name));
                }
                own
            }
        }
    }

    fn gather(&mut self, network: &Network, i: usize, source: usize, index: &[u32]) -> Vec<Origin> {
        let area = network.nodes[source].shape.area();
        let mut origins = vec![];
        for channel in index.chunks(network.nodes[i].shape.area()) {
            let mut read: Vec<Origin> = channel
                .iter()
                .filter(|&&at| at != u32::MAX)
                .map(|&at| self.origin[source][at as usize / area])
                .collect();
            read.dedup();
            if read.len() > 1 {
                self.block(&read, &format!("is mixed with other channels by {}", network.nodes[i].name));
                read.clear();
            }
            origins.push(read.first().copied().flatten());
        }
        origins
    }

    fn block(&mut self, channels: &[Origin], why: &str) {
        for (leader, _) in channels.iter().flatten() {
            self.blocked[*leader].get_or_insert_with(|| why.to_string());
        }
    }

    /// Layers whose channels can go, in the network's order.
    pub fn leaders(&self) -> Vec<usize> {
        (0..self.blocked.len()).filter(|&i| self.blocked[i].is_none()).collect()
    }

    /// Layers that read `leader` through weights.
    pub fn consumers(&self, network: &Network, leader: usize) -> Vec<usize> {
        let reads = |b: &Block| b.groups == 1 && self.origin[b.source].iter().flatten().any(|(l, _)| *l == leader);
        (leader + 1..network.nodes.len())
            .filter(|&j| match &network.nodes[j].op {
                // what it follows it takes from, channel for channel
                Op::Neurons { blocks: all, activation: Activation::Remainder, .. } => {
                    all.iter().rev().skip(1).any(reads)
                }
                Op::Neurons { blocks, .. } => blocks.iter().any(reads),
                _ => false,
            })
            .collect()
    }

    /// Per channel of `leader`: the inputs of a row of `consumer` that it gives.
    pub fn columns(&self, network: &Network, leader: usize, consumer: usize) -> Vec<Vec<usize>> {
        let mut columns = vec![vec![]; network.nodes[leader].shape.c];
        let Op::Neurons { blocks, .. } = &network.nodes[consumer].op else { return columns };
        let mut first = 0;
        for block in blocks {
            let taps = block.window.taps();
            for origin in &self.origin[block.source] {
                if let Some((l, channel)) = origin
                    && *l == leader
                {
                    columns[*channel].extend(first..first + taps);
                }
                first += taps;
            }
        }
        columns
    }

    /// Neurons of the trained network's units that go with a channel of `leader` (the same for all of them on average),
    /// `per_unit` neurons (of a node) each.
    pub fn neurons_of(&self, network: &Network, leader: usize, per_unit: impl Fn(usize) -> usize) -> usize {
        let all: usize = (0..network.nodes.len())
            .filter(|&i| matches!(network.nodes[i].op, Op::Neurons { .. }))
            .map(|i| {
                let channels = self.origin[i].iter().flatten().filter(|(l, _)| *l == leader).count();
                channels * network.nodes[i].shape.area() * per_unit(i)
            })
            .sum();
        all / network.nodes[leader].shape.c
    }
}

/// Every output channel reads one input channel.
pub fn is_depthwise(block: &Block, outputs: usize) -> bool {
    block.groups > 1 && block.weight.len() == outputs * block.window.taps()
}
