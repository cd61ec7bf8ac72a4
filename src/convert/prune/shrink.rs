//! The trained network with the sizes that were asked for, to see whether it would fit a chip before any work: which
//! channels go does not matter for that, so that the last ones do.

use std::borrow::Cow;

use super::rules::Keep;
use super::structure::{Origin, Structure};
use crate::error::Result;
use crate::network::{Block, Network, Node, Op, Shape};

impl Keep {
    /// `network` with as many channels as will stay. With a total, layers without a size of their own stay whole: how it
    /// is spread is measured later.
    ///
    /// # Errors
    /// Input: sizes that make no sense for the network.
    pub fn shrunk<'a>(&self, network: &'a Network) -> Result<Cow<'a, Network>> {
        if self.is_all() {
            return Ok(Cow::Borrowed(network));
        }
        let structure = Structure::of(network);
        let sizes = self.sizes(network, &structure)?;
        let stays = |origin: &Origin| origin.is_none_or(|(leader, c)| sizes[leader].is_none_or(|size| c < size));
        let kept: Vec<Vec<usize>> = structure
            .origin
            .iter()
            .map(|channels| (0..channels.len()).filter(|&c| stays(&channels[c])).collect())
            .collect();
        let nodes = (0..network.nodes.len()).map(|i| node(network, &kept, i)).collect();
        Ok(Cow::Owned(Network { nodes, ..network.clone() }))
    }
}

fn node(network: &Network, kept: &[Vec<usize>], i: usize) -> Node {
    let old = &network.nodes[i];
    let shape = Shape { c: kept[i].len(), ..old.shape };
    let op = match &old.op {
        Op::Neurons { blocks, bias, activation } => Op::Neurons {
            blocks: blocks.iter().map(|b| block(b, old.shape.c, &kept[i], &kept[b.source])).collect(),
            bias: kept[i].iter().map(|&c| bias[c]).collect(),
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

fn block(b: &Block, outputs: usize, rows: &[usize], columns: &[usize]) -> Block {
    let (width, taps) = (b.weight.len() / outputs, b.window.taps());
    // A grouped layer keeps whole groups: its rows stay as they are.
    let inputs: Vec<usize> = if b.groups == 1 { columns.to_vec() } else { (0..width / taps).collect() };
    let weight = rows
        .iter()
        .flat_map(|&r| inputs.iter().map(move |&c| r * width + c * taps))
        .flat_map(|at| b.weight[at..at + taps].iter().copied())
        .collect();
    let groups = if b.groups == 1 { 1 } else { b.groups * rows.len() / outputs };
    Block { weight, groups, ..b.clone() }
}
