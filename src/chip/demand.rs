//! What a network asks of a chip, before anything is fitted: neurons, fan-in and weights of each layer, and how far its
//! spikes have to go.

use super::Chip;
use crate::network::{Activation, Block, Network, Op, Shape, Window};

/// One layer of neurons.
#[derive(Debug, Clone)]
pub struct LayerNeed {
    /// Its node in the network.
    pub node: usize,
    pub name: String,
    /// The activation's name, or `readout`.
    pub kind: String,
    /// With spiking channels.
    pub shape: Shape,
    /// A readout's units integrate and never fire; they take a neuron's place all the same.
    pub fires: bool,
    pub blocks: Vec<BlockNeed>,
    pub groups: usize,
    /// Presynaptic inputs of one neuron.
    pub fan_in: u64,
    /// Inputs that are left of those at most, where synapses are pruned.
    pub most: Option<Most>,
    /// Share of the synapses that are left of what `most` leaves, 0..=1.
    pub density: f64,
    /// Stored weights, those of all positions of a convolution counted once.
    pub weights: u64,
    pub macs: u64,
}

/// Inputs that one neuron may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    pub inputs: u64,
    /// All neurons of one position have the same ones.
    pub together: bool,
}

impl LayerNeed {
    /// Inputs of one neuron that are left.
    pub fn reads(&self) -> u64 {
        self.most.map_or(self.fan_in, |most| most.inputs.min(self.fan_in))
    }

    /// Neurons and readout units.
    pub fn units(&self) -> u64 {
        self.shape.len() as u64
    }
}

/// Synapses from one source node.
#[derive(Debug, Clone)]
pub struct BlockNeed {
    pub source: usize,
    /// The source's shape, with spiking channels.
    pub from: Shape,
    pub window: Window,
    pub groups: usize,
}

/// A network's layers on their way to a chip.
pub struct Demand<'a> {
    pub network: &'a Network,
    /// Spiking channels per channel of each node.
    pub grown: Vec<u64>,
    pub layers: Vec<LayerNeed>,
}

impl<'a> Demand<'a> {
    /// `per_unit`: neurons for a unit with an activation.
    pub fn of(network: &'a Network, per_unit: impl Fn(Activation) -> u64) -> Self {
        let mut demand = Demand { network, grown: Vec::new(), layers: Vec::new() };
        for (i, node) in network.nodes.iter().enumerate() {
            let Op::Neurons { blocks, activation, .. } = &node.op else {
                let of_source = node.sources().first().map_or(1, |&s| demand.grown[s]);
                demand.grown.push(of_source);
                continue;
            };
            let readout = i == network.output && *activation == Activation::Linear;
            let factor = if readout { 1 } else { per_unit(*activation) };
            // of one row: shapes say it, so that sizes can be tried without weights
            let width = |b: &Block| (network.nodes[b.source].shape.c / b.groups * b.window.taps()) as u64;
            let fan_in = blocks.iter().map(|b| width(b) * demand.grown[b.source]).sum();
            let kind = if readout { "readout".to_string() } else { format!("{activation:?}") };
            let needs = blocks.iter().map(|b| BlockNeed {
                source: b.source,
                from: demand.shape(b.source),
                window: b.window,
                groups: b.groups,
            });
            let layer = LayerNeed {
                node: i,
                name: node.name.clone(),
                kind: kind.split([' ', '{']).next().unwrap_or("").to_lowercase(),
                shape: Shape { c: node.shape.c * factor as usize, ..node.shape },
                fires: !readout,
                blocks: needs.collect(),
                groups: blocks.first().map_or(1, |b| b.groups),
                fan_in,
                most: None,
                density: 1.0,
                weights: fan_in * node.shape.c as u64 * factor,
                macs: blocks.iter().map(|b| width(b) * node.shape.len() as u64).sum(),
            };
            demand.grown.push(factor);
            demand.layers.push(layer);
        }
        demand
    }

    /// As it is where neurons with more inputs than the chip allows are pruned.
    pub fn within(&self, chip: &Chip) -> Demand<'a> {
        let mut layers = self.layers.clone();
        for layer in &mut layers {
            layer.most = chip.most_inputs(layer.reads()).or(layer.most);
        }
        Demand { network: self.network, grown: self.grown.clone(), layers }
    }

    /// A node's shape with its spiking channels.
    pub fn shape(&self, node: usize) -> Shape {
        let shape = self.network.nodes[node].shape;
        Shape { c: shape.c * self.grown[node] as usize, ..shape }
    }

    pub fn layer(&self, node: usize) -> Option<&LayerNeed> {
        self.layers.iter().find(|l| l.node == node)
    }

    /// Layers that read each node, directly or through pools and rearrangements, pools on the way included.
    pub fn readers(&self) -> Vec<u64> {
        let ones = |node: usize| vec![1; self.network.nodes[node].shape.area()];
        let maps = self.spread(|layer, at, add| {
            let mut seen: Vec<usize> = layer.blocks.iter().map(|b| b.source).collect();
            seen.sort_unstable();
            seen.dedup();
            seen.into_iter().filter(|s| *s == at).for_each(|s| add(s, &ones(s)));
        });
        maps.iter().map(|m| m.iter().copied().max().unwrap_or(0)).collect()
    }

    /// Synapses of one neuron of each node, the most of any position.
    pub fn fan_out(&self) -> Vec<u64> {
        let maps = self.spread(|layer, at, add| {
            for b in layer.blocks.iter().filter(|b| b.source == at) {
                let (rows, columns) = (hits(b, layer, 0, 0..layer.shape.h), hits(b, layer, 1, 0..layer.shape.w));
                let each = (layer.shape.c / b.groups) as u64;
                let plane: Vec<u64> = rows.iter().flat_map(|r| columns.iter().map(move |c| r * c * each)).collect();
                add(b.source, &plane);
            }
        });
        maps.iter().map(|m| m.iter().copied().max().unwrap_or(0)).collect()
    }

    /// A map (positions) of each node: what `gives(layer, source, add)` adds up over the layers that read it, led back
    /// through pools, concatenations and rearrangements.
    fn spread(&self, gives: impl Fn(&LayerNeed, usize, &mut dyn FnMut(usize, &[u64]))) -> Vec<Vec<u64>> {
        let mut maps: Vec<Vec<u64>> = self.network.nodes.iter().map(|n| vec![0; n.shape.area()]).collect();
        for node in (0..self.network.nodes.len()).rev() {
            if let Some(layer) = self.layer(node) {
                let mut sources: Vec<usize> = layer.blocks.iter().map(|b| b.source).collect();
                sources.sort_unstable();
                sources.dedup();
                for s in sources {
                    gives(layer, s, &mut |to, plane| add(&mut maps[to], plane));
                }
            } else {
                self.lead_back(node, &mut maps);
            }
        }
        maps
    }

    /// Hands a view's map on to what it views. Where windows overlap the largest counts.
    pub fn lead_back(&self, node: usize, maps: &mut [Vec<u64>]) {
        let here = std::mem::take(&mut maps[node]);
        let this = &self.network.nodes[node];
        match &this.op {
            Op::Input | Op::Neurons { .. } => {}
            Op::AveragePool { source, window, .. } | Op::MaxPool { source, window } => {
                let from = self.network.nodes[*source].shape;
                let mut back = vec![0; from.area()];
                let columns: Vec<_> = reads(window, 1, from.w, 0..this.shape.w).collect();
                for (y, row) in reads(window, 0, from.h, 0..this.shape.h) {
                    for &(x, column) in &columns {
                        let at = &mut back[row * from.w + column];
                        *at = here[y * this.shape.w + x].max(*at);
                    }
                }
                add(&mut maps[*source], &back);
            }
            Op::Concat { sources } => sources.iter().for_each(|s| add(&mut maps[*s], &here)),
            Op::Gather { source, index } => {
                let from = self.network.nodes[*source].shape;
                let mut back = vec![0; from.area()];
                for (i, from_index) in index.iter().enumerate().filter(|(_, f)| **f != u32::MAX) {
                    let at = &mut back[*from_index as usize % from.area()];
                    *at = here[i % this.shape.area()].max(*at);
                }
                add(&mut maps[*source], &back);
            }
        }
        maps[node] = here;
    }
}

fn add(map: &mut [u64], plane: &[u64]) {
    map.iter_mut().zip(plane).for_each(|(a, b)| *a += b);
}

/// Output positions and the input positions that their taps read, along one axis (0: rows).
fn reads(w: &Window, axis: usize, size: usize, out: std::ops::Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let (kernel, stride, dilation, pad) = (w.kernel[axis], w.stride[axis], w.dilation[axis], w.pad[axis]);
    out.flat_map(move |o| {
        (0..kernel).filter_map(move |k| {
            let at = (o * stride + k * dilation) as isize - pad;
            (0..size as isize).contains(&at).then_some((o, at as usize))
        })
    })
}

/// For each source position along one axis: how many taps of the output positions `out` read it.
pub fn hits(block: &BlockNeed, layer: &LayerNeed, axis: usize, out: std::ops::Range<usize>) -> Vec<u64> {
    let size = if axis == 0 { block.from.h } else { block.from.w };
    debug_assert!(out.end <= if axis == 0 { layer.shape.h } else { layer.shape.w });
    let mut hits = vec![0; size];
    reads(&block.window, axis, size, out).for_each(|(_, at)| hits[at] += 1);
    hits
}
