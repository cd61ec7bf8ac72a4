//! What a simulation did: spikes, and the synapses that they drove. A spike that reaches a layer through sums,
//! concatenations and rearrangements drives the layer's synapses itself: pooling costs nothing, and a pooled spike is one
//! spike, whatever its weight in the sum. A synapse whose weight is zero is none, but on a chip that goes through it all the
//! same (`zero_costs`). Past a maximum it is the winner's spikes that count.

use crate::network::Window;

use super::network::{SpikingNetwork, SpikingNode, SpikingOp, Synapses};

/// What a batch did, summed over its images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activity {
    /// Spikes of each node; zero for nodes that are not neurons.
    pub spikes: Vec<u64>,
    /// Synapses driven by spikes, by the node that they lead to.
    pub synaptic_operations: Vec<u64>,
}

impl Activity {
    /// Adds what other images did.
    pub fn merge(&mut self, other: &Activity) {
        let pairs = [(&mut self.spikes, &other.spikes), (&mut self.synaptic_operations, &other.synaptic_operations)];
        for (all, part) in pairs {
            all.resize(all.len().max(part.len()), 0);
            all.iter_mut().zip(part).for_each(|(a, p)| *a += p);
        }
    }
}

/// Synapses of the layer `target` that one spike of each element of a node drives.
pub(super) struct FanOut {
    pub target: usize,
    synapses: Vec<u32>,
}

impl FanOut {
    /// `totals`: `[images][element]`.
    pub fn operations(&self, totals: &[f32]) -> u64 {
        let images = totals.chunks_exact(self.synapses.len());
        images.flat_map(|p| p.iter().zip(&self.synapses)).map(|(&n, &f)| n as u64 * u64::from(f)).sum()
    }
}

/// For each node that spikes (neurons and rate winners): where its spikes lead.
pub(super) fn fan_out(net: &SpikingNetwork) -> Vec<Vec<FanOut>> {
    let mut all: Vec<Vec<FanOut>> = net.nodes.iter().map(|_| vec![]).collect();
    for (target, node) in net.nodes.iter().enumerate() {
        let SpikingOp::Neurons(layer) = &node.op else { continue };
        for s in &layer.synapses {
            lead_back(net, s.source, target, driven(net, node, s), &mut all);
        }
    }
    all
}

/// For each element of the source of `s`: its synapses that cost an operation.
fn driven(net: &SpikingNetwork, node: &SpikingNode, s: &Synapses) -> Vec<u32> {
    let (from, taps) = (net.nodes[s.source].shape, s.window.taps());
    // per tap: output positions that read each input position through it
    let hits = |axis: usize, size: usize, out: usize| -> Vec<Vec<u32>> {
        let mut hits = vec![vec![0u32; size]; s.window.kernel[axis]];
        reads(&s.window, axis, size, out).for_each(|(tap, _, at)| hits[tap][at] += 1);
        hits
    };
    let (rows, columns) = (hits(0, from.h, node.shape.h), hits(1, from.w, node.shape.w));
    let (channels, outputs) = (from.c / s.groups, node.shape.c / s.groups);
    let width = channels * taps;
    let mut synapses = vec![0; from.len()];
    for (c, plane) in synapses.chunks_mut(from.area()).enumerate() {
        let first = c / channels * outputs * width + c % channels * taps;
        for tap in 0..taps {
            let there = |o: &usize| net.zero_costs || s.weight.is_there(first + o * width + tap);
            let each = (0..outputs).filter(there).count() as u32;
            let (row, column) = (&rows[tap / s.window.kernel[1]], &columns[tap % s.window.kernel[1]]);
            for (line, r) in plane.chunks_mut(from.w).zip(row) {
                line.iter_mut().zip(column).for_each(|(n, c)| *n += r * c * each);
            }
        }
    }
    synapses
}

/// Taps, output positions and the input positions that they read, along one axis.
fn reads(w: &Window, axis: usize, size: usize, out: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let (kernel, stride, dilation, pad) = (w.kernel[axis], w.stride[axis], w.dilation[axis], w.pad[axis]);
    (0..out).flat_map(move |o| {
        (0..kernel).filter_map(move |k| {
            let at = (o * stride + k * dilation) as isize - pad;
            (0..size as isize).contains(&at).then_some((k, o, at as usize))
        })
    })
}

/// Takes the synapses that each element of `node` drives back to the nodes whose spikes it passes on.
fn lead_back(net: &SpikingNetwork, node: usize, target: usize, synapses: Vec<u32>, all: &mut [Vec<FanOut>]) {
    let SpikingNode { shape, op, constant, .. } = &net.nodes[node];
    if *constant {
        return;
    }
    match op {
        SpikingOp::Input => {}
        SpikingOp::Neurons(_) | SpikingOp::MaxPool { .. } => all[node].push(FanOut { target, synapses }),
        SpikingOp::SumPool { source, window, .. } => {
            let from = net.nodes[*source].shape;
            let columns: Vec<_> = reads(window, 1, from.w, shape.w).collect();
            let mut before = vec![0; from.len()];
            for (before, after) in before.chunks_mut(from.area()).zip(synapses.chunks(shape.area())) {
                for (_, y, row) in reads(window, 0, from.h, shape.h) {
                    for &(_, x, column) in &columns {
                        before[row * from.w + column] += after[y * shape.w + x];
                    }
                }
            }
            lead_back(net, *source, target, before, all);
        }
        SpikingOp::Concat { sources } => {
            let mut rest = synapses.as_slice();
            for &source in sources {
                let (part, after) = rest.split_at(net.nodes[source].shape.len());
                lead_back(net, source, target, part.to_vec(), all);
                rest = after;
            }
        }
        SpikingOp::Gather { source, index } => {
            let mut before = vec![0; net.nodes[*source].shape.len()];
            for (&i, n) in index.iter().zip(synapses) {
                if let Some(before) = before.get_mut(i as usize) {
                    *before += n;
                }
            }
            lead_back(net, *source, target, before, all);
        }
    }
}
