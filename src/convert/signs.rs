//! Signs that belong to source neurons: which weights of a layer's rows share one, and which signs are given by layers
//! fitted before.

use std::collections::HashMap;

use super::layer::Task;
use super::walk::Walk;
use crate::network::Window;
use crate::spiking::{SpikingNetwork, SpikingOp, Synapses, Weights};

/// A neuron: its node and its place in it.
type Neuron = (usize, usize);

/// The columns of one group's rows.
pub(super) struct Columns {
    /// Columns with one number have one sign.
    pub group: Vec<usize>,
    /// 1 or -1 where the sign is given, else 0.
    pub given: Vec<i8>,
}

impl Walk<'_> {
    /// For each group; none if all sources are the network's input, whose values have no neuron.
    pub(super) fn sources_signs(&self, task: &Task) -> Option<Vec<Columns>> {
        if task.blocks.iter().all(|b| self.spiking.nodes[b.source].constant) {
            return None;
        }
        let columns = |g: usize| {
            let mut all = Vec::new();
            for (b, c) in task.blocks.iter().zip(&task.columns) {
                for i in 0..c.channels {
                    let channel = g * c.channels + i;
                    all.extend((0..c.taps).map(|tap| Column { source: b.source, window: b.window, channel, tap }));
                }
            }
            all
        };
        let one_position = task.shape.area() == 1;
        Some((0..task.groups).map(|g| self.joined(&columns(g), one_position)).collect())
    }

    fn joined(&self, columns: &[Column], one_position: bool) -> Columns {
        let mut group: Vec<usize> = (0..columns.len()).collect();
        let mut given = vec![0; columns.len()];
        let mut owner: HashMap<Neuron, usize> = HashMap::new();
        let root = |group: &[usize], mut at: usize| {
            while group[at] != at {
                at = group[at];
            }
            at
        };
        for (at, column) in columns.iter().enumerate() {
            for neuron in column.neurons(&self.spiking, one_position) {
                if let Some(sign) = self.signs.get(&neuron) {
                    given[at] = *sign;
                }
                let other = *owner.entry(neuron).or_insert(at);
                let (a, b) = (root(&group, at), root(&group, other));
                group[a.max(b)] = a.min(b);
            }
        }
        let group: Vec<usize> = (0..columns.len()).map(|at| root(&group, at)).collect();
        // a sign that is given is given to the whole group
        let mut of_group = vec![0; columns.len()];
        for (g, sign) in group.iter().zip(&given).filter(|(_, sign)| **sign != 0) {
            of_group[*g] = *sign;
        }
        Columns { given: group.iter().map(|g| of_group[*g]).collect(), group }
    }

    /// Keeps the signs that layer `index`, just stored, has given to its source neurons.
    pub(super) fn keep_signs(&mut self, index: usize) {
        if !self.rules.sign_of_source {
            return;
        }
        let node = &self.spiking.nodes[index];
        let SpikingOp::Neurons(layer) = &node.op else { return };
        let one_position = node.shape.area() == 1;
        let mut found: Vec<(Neuron, i8)> = Vec::new();
        for s in &layer.synapses {
            let Synapses { source, window, groups, weight: Weights::Codes { codes, .. } } = s else { continue };
            let (channels, taps) = (self.spiking.nodes[*source].shape.c / groups, window.taps());
            let width = channels * taps;
            for (row, codes) in codes.chunks(width).enumerate() {
                let group = row / (node.shape.c / groups);
                for (at, code) in codes.iter().enumerate().filter(|(_, code)| **code != 0) {
                    let (channel, tap) = (group * channels + at / taps, at % taps);
                    let column = Column { source: *source, window: *window, channel, tap };
                    let first = column.neurons(&self.spiking, one_position);
                    found.extend(first.into_iter().map(|neuron| (neuron, code.signum() as i8)));
                }
            }
        }
        self.signs.extend(found);
    }
}

/// One weight of a row: a tap on a channel of a source.
struct Column {
    source: usize,
    window: Window,
    channel: usize,
    tap: usize,
}

impl Column {
    /// The neurons whose spikes it adds: at one output position those under the tap, else those of the whole channel.
    fn neurons(&self, net: &SpikingNetwork, one_position: bool) -> Vec<Neuron> {
        let shape = net.nodes[self.source].shape;
        let mut found = Vec::new();
        let plane = self.channel * shape.area();
        if one_position {
            let w = &self.window;
            let along = |axis: usize, tap: usize| (tap * w.dilation[axis]) as isize - w.pad[axis];
            let (y, x) = (along(0, self.tap / w.kernel[1]), along(1, self.tap % w.kernel[1]));
            if (0..shape.h as isize).contains(&y) && (0..shape.w as isize).contains(&x) {
                trace(net, self.source, plane + y as usize * shape.w + x as usize, &mut found);
            }
        } else {
            (plane..plane + shape.area()).for_each(|element| trace(net, self.source, element, &mut found));
        }
        found
    }
}

/// The neurons behind an element of a node, through pools and rearrangements.
fn trace(net: &SpikingNetwork, node: usize, element: usize, found: &mut Vec<Neuron>) {
    let this = &net.nodes[node];
    match &this.op {
        SpikingOp::Input => {}
        SpikingOp::Neurons(_) => found.push((node, element)),
        SpikingOp::SumPool { source, window, .. } | SpikingOp::MaxPool { source, window } => {
            let (from, area) = (net.nodes[*source].shape, this.shape.area());
            let (channel, at) = (element / area, element % area);
            let (y, x) = (at / this.shape.w, at % this.shape.w);
            for i in 0..window.kernel[0] {
                for j in 0..window.kernel[1] {
                    let along = |axis: usize, o: usize, k: usize| {
                        (o * window.stride[axis] + k * window.dilation[axis]) as isize - window.pad[axis]
                    };
                    let (row, column) = (along(0, y, i), along(1, x, j));
                    if (0..from.h as isize).contains(&row) && (0..from.w as isize).contains(&column) {
                        let below = channel * from.area() + row as usize * from.w + column as usize;
                        trace(net, *source, below, found);
                    }
                }
            }
        }
        SpikingOp::Concat { sources } => {
            let mut rest = element;
            for source in sources {
                let len = net.nodes[*source].shape.len();
                if rest < len {
                    return trace(net, *source, rest, found);
                }
                rest -= len;
            }
        }
        SpikingOp::Gather { source, index } => {
            if let Some(from) = index.get(element).filter(|from| **from != u32::MAX) {
                trace(net, *source, *from as usize, found);
            }
        }
    }
}
