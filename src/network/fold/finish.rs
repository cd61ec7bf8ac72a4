//! From the folded draft to the network: what is left over gets a layer of its own, dead nodes go, blocks come into
//! one canonical form and order, names become unique, weights are checked.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::compose::{gcd, regroup};
use super::maps::{canonical, merge};
use super::{Draft, Work, diagonal};
use crate::error::{Error, Result};
use crate::network::layers::{Block, Head, Layout, Network, Node, Op, Shape};

pub fn finish(
    mut draft: Draft,
    output: usize,
    name: &str,
    head: Head,
    layout: Layout,
    input_scale: Vec<f32>,
    input_shift: Vec<f32>,
) -> Result<Network> {
    let order = draft.order(output);
    let mut place = vec![usize::MAX; draft.nodes.len()];
    order.iter().enumerate().for_each(|(at, &n)| place[n] = at);
    let shapes: Vec<Shape> = order.iter().map(|&n| draft.shape(n)).collect();
    let mut names = HashSet::new();
    let mut nodes = Vec::with_capacity(order.len());
    for &n in &order {
        let draft_node = &mut draft.nodes[n];
        let shape = draft_node.shape;
        let op = match std::mem::replace(&mut draft_node.op, Work::Input) {
            Work::Input => Op::Input,
            Work::Map { blocks, bias, activation } => {
                let blocks = blocks.into_iter().map(|b| Block { source: place[b.source], ..b }).collect();
                let blocks = arrange(blocks, shape, &shapes).ok_or_else(|| too_large(&draft_node.name))?;
                Op::Neurons { blocks, bias: bias.iter().map(|&b| b as f32).collect(), activation }
            }
            // An activation of something that is not a linear map: neurons with one synapse each.
            Work::Activate { source, activation } => Op::Neurons {
                blocks: vec![diagonal(place[source], vec![1.0; shape.c])],
                bias: vec![0.0; shape.c],
                activation,
            },
            Work::AveragePool { source, window, divisor } => {
                Op::AveragePool { source: place[source], window: canonical(window, shape), divisor }
            }
            Work::MaxPool { source, window } => Op::MaxPool { source: place[source], window: canonical(window, shape) },
            Work::Concat { sources } => Op::Concat { sources: sources.iter().map(|&s| place[s]).collect() },
            Work::Gather { source, index } => Op::Gather { source: place[source], index },
        };
        let node = Node { name: unique(&mut names, &draft_node.name), shape, op };
        check(&node)?;
        nodes.push(node);
    }
    let bad = input_scale.iter().chain(&input_shift).find(|v| !v.is_finite());
    if let Some(bad) = bad {
        return Err(Error::input("", format!("the arithmetic on its input comes to {bad}")));
    }
    let name = name.to_string();
    Ok(Network { name, nodes, output: place[output], head, layout, input_scale, input_shift })
}

fn too_large(name: &str) -> Error {
    Error::input("", format!("node \"{name}\": its weights are too large once its groups are joined"))
}

/// One group count for all blocks, equal windows merged, the main convolution (the larger kernel) first.
fn arrange(blocks: Vec<Block>, shape: Shape, shapes: &[Shape]) -> Option<Vec<Block>> {
    let groups = blocks.iter().map(|b| b.groups).fold(0, gcd).max(1);
    let mut arranged = Vec::with_capacity(blocks.len());
    for mut block in blocks {
        block.window = canonical(block.window, shape);
        arranged.push(regroup(&block, shapes[block.source], shape.c, groups)?);
    }
    merge(&mut arranged);
    arranged.sort_by_key(|b| (Reverse(b.window.taps()), b.source, b.window.pad, b.window.stride));
    Some(arranged)
}

fn unique(names: &mut HashSet<String>, name: &str) -> String {
    let mut candidate = name.to_string();
    let mut n = 2;
    while !names.insert(candidate.clone()) {
        candidate = format!("{name}_{n}");
        n += 1;
    }
    candidate
}

/// Sums and products of finite weights may still overflow.
fn check(node: &Node) -> Result<()> {
    if let Op::Neurons { blocks, bias, .. } = &node.op {
        let bad = blocks.iter().flat_map(|b| &b.weight).chain(bias).find(|w| !w.is_finite());
        if let Some(bad) = bad {
            return Err(Error::input("", format!("node \"{}\": its weights come to {bad}", node.name)));
        }
    }
    Ok(())
}
