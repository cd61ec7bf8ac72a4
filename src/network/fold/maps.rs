//! Rules for maps: each block is carried back through what lies before it, until it reads a layer of neurons, a pooling
//! or the input.

use super::compose::{Path, carried_bias, compose, regroup, through_gather};
use super::gather::regular;
use super::push::take_name;
use super::{Draft, Work};
use crate::network::layers::{Activation, Block, Shape, Window};

/// Applies one rule to one block of the node, if one fits.
pub fn rewrite(draft: &mut Draft, node: usize) -> bool {
    let Work::Map { blocks, .. } = &draft.nodes[node].op else { return false };
    let found = blocks.iter().enumerate().find_map(|(i, b)| back(draft, node, b).map(|new| (i, b.source, new)));
    let Some((i, before, (new, carried))) = found else { return false };
    if let Work::Map { blocks, bias, .. } = &mut draft.nodes[node].op {
        blocks.splice(i..=i, new);
        merge(blocks);
        if let Some(carried) = &carried {
            bias.iter_mut().zip(carried).for_each(|(a, b)| *a += b);
        }
    }
    if carried.is_some() {
        take_name(draft, node, before);
    }
    true
}

/// The blocks that stand for one block whose source they read through, and the bias they bring along (if the source
/// was a map).
fn back(draft: &Draft, node: usize, block: &Block) -> Option<(Vec<Block>, Option<Vec<f64>>)> {
    let (middle, out) = (draft.shape(block.source), draft.shape(node));
    let path = |source: Shape| Path { source, middle, out };
    match &draft.nodes[block.source].op {
        Work::Map { blocks, bias, activation: Activation::Linear } => {
            let biased = bias.iter().any(|&b| b != 0.0);
            let mut new = Vec::with_capacity(blocks.len());
            for inner in blocks {
                new.push(compose(inner, block, path(draft.shape(inner.source)), biased)?);
            }
            let carried = if biased { carried_bias(block, middle.c, out.c, bias) } else { vec![0.0; out.c] };
            Some((new, Some(carried)))
        }
        Work::Gather { source, index } => {
            let from = draft.shape(*source);
            if let Some(found) = regular(index, from, middle)
                && let Some(inner) = found.block(*source, from)
                && let Some(new) = compose(&inner, block, path(from), false)
            {
                return Some((vec![new], None));
            }
            let dense = out.area() == 1 && block.window.kernel == [middle.h, middle.w] && block.window.pad == [0, 0];
            if !dense {
                return None;
            }
            let whole = regroup(block, middle, out.c, 1)?;
            through_gather(&whole, index, *source, from, out.c).map(|new| (vec![new], None))
        }
        Work::Concat { sources } => {
            let useful = |&s: &usize| draft.nodes[s].is_linear() || matches!(draft.nodes[s].op, Work::Gather { .. });
            // codes of the input and spikes are of unlike size: read one by one, they need not share a grid
            let spiking = sources.iter().filter(|&&s| spikes(draft, s)).count();
            let unlike = spiking > 0 && spiking < sources.len();
            if block.groups != 1 || !(unlike || sources.iter().any(useful)) {
                return None;
            }
            Some((split(draft, block, sources, middle), None))
        }
        _ => None,
    }
}

/// Whether what `node` gives comes, at least in part, from neurons.
fn spikes(draft: &Draft, node: usize) -> bool {
    match &draft.nodes[node].op {
        Work::Input => false,
        Work::Map { activation, .. } => *activation != Activation::Linear,
        Work::Activate { .. } => true,
        Work::AveragePool { source, .. } | Work::MaxPool { source, .. } | Work::Gather { source, .. } => {
            spikes(draft, *source)
        }
        Work::Concat { sources } => sources.iter().any(|&s| spikes(draft, s)),
    }
}

/// A block over joined channels as one block for each part.
fn split(draft: &Draft, block: &Block, sources: &[usize], joined: Shape) -> Vec<Block> {
    let taps = block.window.taps();
    let mut first = 0;
    let mut parts = Vec::with_capacity(sources.len());
    for &source in sources {
        let c = draft.shape(source).c;
        let rows = block.weight.chunks(joined.c * taps);
        let weight = rows.flat_map(|row| &row[first * taps..(first + c) * taps]).copied().collect();
        parts.push(Block { source, weight, ..block.clone() });
        first += c;
    }
    parts
}

/// Blocks with the same source and window are one block with the sum of their weights.
pub fn merge(blocks: &mut Vec<Block>) {
    let mut kept: Vec<Block> = Vec::with_capacity(blocks.len());
    for block in blocks.drain(..) {
        let same = |k: &&mut Block| k.source == block.source && k.window == block.window && k.groups == block.groups;
        match kept.iter_mut().find(same) {
            Some(k) => k.weight.iter_mut().zip(&block.weight).for_each(|(a, b)| *a += b),
            None => kept.push(block),
        }
    }
    *blocks = kept;
}

/// One form for windows that mean the same: a stride along an axis with one position, a dilation of one tap.
pub fn canonical(window: Window, out: Shape) -> Window {
    let mut w = window;
    for (a, positions) in [out.h, out.w].into_iter().enumerate() {
        if positions == 1 {
            w.stride[a] = 1;
        }
        if w.kernel[a] == 1 {
            w.dilation[a] = 1;
        }
    }
    w
}

#[cfg(test)]
mod tests {
    use super::super::{Draft, Work, diagonal, network};
    use crate::network::layers::{Activation, Block, Head, Layout, Op, Shape, Window};

    /// input (2) -> neurons (2) -> both joined, or two layers of neurons -> readout (3).
    #[test]
    fn the_input_and_neurons_are_read_one_by_one_neurons_together() {
        let mut draft = Draft::default();
        let vector = |c: usize| Shape::new(c, 1, 1);
        let map = |blocks: Vec<Block>, c: usize, activation| Work::Map { blocks, bias: vec![0.0; c], activation };
        let input = draft.push("input", vector(2), Work::Input);
        let mut neurons = |name: &str, weights: Vec<f32>| {
            draft.push(name, vector(2), map(vec![diagonal(input, weights)], 2, Activation::Relu))
        };
        let (some, others) = (neurons("some", vec![1.0, 2.0]), neurons("others", vec![3.0, 4.0]));
        for (sources, blocks) in [(vec![input, some], 2), (vec![some, others], 1)] {
            let mut draft = draft.clone();
            let joined = draft.push("joined", vector(4), Work::Concat { sources });
            let weight = (1..=12).map(|w| w as f32).collect();
            let block = Block { source: joined, window: Window::POINT, groups: 1, weight };
            let out = draft.push("out", vector(3), map(vec![block], 3, Activation::Linear));
            let network = network(draft, out, "both", Head::None, Layout::Nchw).unwrap();
            let Op::Neurons { blocks: found, .. } = &network.nodes[network.output].op else { panic!("{network:?}") };
            let join = network.nodes.iter().any(|n| matches!(n.op, Op::Concat { .. }));
            assert_eq!((found.len(), join), (blocks, blocks == 1), "{found:?}");
            if blocks == 2 {
                assert_eq!(found[0].weight, [1.0, 2.0, 5.0, 6.0, 9.0, 10.0]);
                assert_eq!(found[1].weight, [3.0, 4.0, 7.0, 8.0, 11.0, 12.0]);
            }
        }
    }
}
