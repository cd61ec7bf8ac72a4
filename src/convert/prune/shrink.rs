//! The trained network with the sizes that were asked for, to see whether it would fit a chip before any work: which
//! channels go does not matter for that, so that the last ones do. Only shapes are kept: a search over sizes tries many,
//! and what a layer's weights are does not matter either.

use std::borrow::Cow;

use super::super::LayerRecord;
use super::rules::Keep;
use super::structure::{Origin, Structure};
use crate::error::Result;
use crate::network::{Block, Network, Node, Op, Shape};

/// `network` at the sizes that are asked for, as `shrunk_by` does it. Layers that a total leaves open have one node.
///
/// # Errors
/// Input: sizes that make no sense for the network.
pub fn smallest<'a>(network: &'a Network, keep: &Keep) -> Result<Cow<'a, Network>> {
    if keep.is_all() {
        return Ok(Cow::Borrowed(network));
    }
    let structure = Structure::of(network);
    let mut sizes = keep.sizes(network, &structure)?;
    if keep.total.is_some() {
        structure.leaders().into_iter().for_each(|l| sizes[l] = sizes[l].or(Some(1)));
    }
    Ok(shrunk_by(network, &structure, &sizes))
}

/// `network` as a conversion has left it, as `shrunk_by` does it.
pub fn shrunk_to<'a>(network: &'a Network, layers: &[LayerRecord]) -> Cow<'a, Network> {
    let left = |name: &str| layers.iter().find(|l| l.name == name).and_then(|l| l.pruned).map(|p| p.kept);
    if layers.iter().all(|l| l.pruned.is_none()) {
        return Cow::Borrowed(network);
    }
    let sizes: Vec<Option<usize>> = network.nodes.iter().map(|n| left(&n.name)).collect();
    shrunk_by(network, &Structure::of(network), &sizes)
}

/// `network` with so many channels of each leader that has a size, without weights and biases.
pub fn shrunk_by<'a>(network: &'a Network, structure: &Structure, sizes: &[Option<usize>]) -> Cow<'a, Network> {
    let stays = |origin: &Origin| origin.is_none_or(|(leader, c)| sizes[leader].is_none_or(|size| c < size));
    let kept: Vec<Vec<usize>> = structure
        .origin
        .iter()
        .map(|channels| (0..channels.len()).filter(|&c| stays(&channels[c])).collect())
        .collect();
    let nodes = (0..network.nodes.len()).map(|i| node(network, &kept, i)).collect();
    let Network { name, output, head, layout, input_scale, input_shift, .. } = network;
    Cow::Owned(Network {
        name: name.clone(),
        nodes,
        output: *output,
        head: *head,
        layout: *layout,
        input_scale: input_scale.clone(),
        input_shift: input_shift.clone(),
    })
}

fn node(network: &Network, kept: &[Vec<usize>], i: usize) -> Node {
    let old = &network.nodes[i];
    let shape = Shape { c: kept[i].len(), ..old.shape };
    let op = match &old.op {
        Op::Neurons { blocks, activation, .. } => Op::Neurons {
            blocks: blocks.iter().map(|b| block(b, old.shape.c, shape.c)).collect(),
            bias: vec![],
            activation: *activation,
        },
        Op::Gather { source, index } => {
            let (from, area) = (network.nodes[*source].shape.area(), old.shape.area());
            let place = |at: u32| match kept[*source].binary_search(&(at as usize / from)) {
                Ok(channel) if at != u32::MAX => (channel * from + at as usize % from) as u32,
                _ => u32::MAX,
            };
            let index = kept[i].iter().flat_map(|&c| &index[c * area..(c + 1) * area]).map(|&at| place(at)).collect();
            Op::Gather { source: *source, index }
        }
        op => op.clone(),
    };
    Node { name: old.name.clone(), shape, op }
}

/// Of a layer that is left with `rows` of its `outputs`. A grouped layer keeps whole groups.
fn block(b: &Block, outputs: usize, rows: usize) -> Block {
    let groups = if b.groups == 1 { 1 } else { b.groups * rows / outputs };
    Block { source: b.source, window: b.window, groups, weight: vec![] }
}
