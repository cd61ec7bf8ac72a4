//! Rules for everything but maps: activations and rearrangements move towards the maps that they can join; pooling
//! changes places with linear maps where that is the same.

use std::collections::HashSet;

use super::gather::regular;
use super::{Draft, DraftNode, Work, compose, diagonal_of, inside};
use crate::network::layers::{Activation, Block, Shape, Window};

/// A node that holds the same tensor, if this one does nothing.
pub fn redundant(draft: &Draft, node: usize) -> Option<usize> {
    let n = &draft.nodes[node];
    match &n.op {
        Work::Gather { source, index } => {
            let same = draft.shape(*source) == n.shape && index.iter().enumerate().all(|(i, &j)| i == j as usize);
            same.then_some(*source)
        }
        Work::Concat { sources } => match sources.as_slice() {
            [only] => Some(*only),
            _ => None,
        },
        Work::MaxPool { source, window } => {
            (window.taps() == 1 && window.stride == [1, 1] && window.pad == [0, 0] && draft.shape(*source) == n.shape)
                .then_some(*source)
        }
        _ => None,
    }
}

/// Applies one rule to the node, if one fits.
pub fn rewrite(draft: &mut Draft, node: usize) -> bool {
    if matches!(draft.nodes[node].op, Work::Input | Work::Map { .. }) {
        return false;
    }
    let new = match draft.nodes[node].op.clone() {
        Work::Activate { source, activation } => activate(draft, node, source, activation),
        Work::AveragePool { source, window, divisor } => average(draft, node, source, window, &divisor),
        Work::MaxPool { source, window } => maximum(draft, node, source, window),
        Work::Gather { source, index } => match &draft.nodes[source].op {
            Work::Gather { source: first, index: inner } => {
                let index = index.iter().map(|&i| inner.get(i as usize).copied().unwrap_or(u32::MAX)).collect();
                Some(Work::Gather { source: *first, index })
            }
            _ => None,
        },
        Work::Concat { sources } => {
            let nested = sources.iter().any(|&s| matches!(draft.nodes[s].op, Work::Concat { .. }));
            nested.then(|| {
                let flat = sources.iter().flat_map(|&s| match &draft.nodes[s].op {
                    Work::Concat { sources } => sources.clone(),
                    _ => vec![s],
                });
                Work::Concat { sources: flat.collect() }
            })
        }
        Work::Input | Work::Map { .. } => None,
    };
    new.map(|op| draft.nodes[node].op = op).is_some()
}

/// The nodes behind `node` that are reached through pooling, rearranging and joining only (itself, if it does none of
/// these). Without recursion, each node once: graphs may be deep and their branches many.
fn behind(draft: &Draft, node: usize) -> Vec<usize> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([node]);
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        match &draft.nodes[node].op {
            Work::MaxPool { .. } | Work::AveragePool { .. } | Work::Gather { .. } | Work::Concat { .. } => {
                open.extend(draft.nodes[node].sources().into_iter().filter(|&s| seen.insert(s)));
            }
            _ => found.push(node),
        }
    }
    found
}

/// Whether an activation pushed to this node would find a linear map to join. (Not through an average: that does not
/// change places with an activation.)
fn reaches_linear(draft: &Draft, node: usize) -> bool {
    !matches!(draft.nodes[node].op, Work::AveragePool { .. })
        && behind(draft, node).iter().any(|&n| draft.nodes[n].is_linear())
}

fn activate(draft: &mut Draft, node: usize, source: usize, activation: Activation) -> Option<Work> {
    let push = |draft: &mut Draft, source: usize| -> usize {
        let (name, shape) = (draft.nodes[node].name.clone(), draft.shape(source));
        draft.push(&name, shape, Work::Activate { source, activation })
    };
    match draft.nodes[source].op.clone() {
        Work::Map { blocks, bias, activation: before } => {
            let joined = after(before, activation)?;
            let DraftNode { name, rank, .. } = draft.nodes[source].clone();
            if rank > 0 {
                (draft.nodes[node].name, draft.nodes[node].rank) = (name, rank);
            }
            Some(Work::Map { blocks, bias, activation: joined })
        }
        // Every activation here rises with its argument, so the maximum may be taken after it.
        Work::MaxPool { source, window } if reaches_linear(draft, source) => {
            Some(Work::MaxPool { source: push(draft, source), window })
        }
        Work::Gather { source, index }
            if reaches_linear(draft, source) && (activation.apply(0.0) == 0.0 || !index.contains(&u32::MAX)) =>
        {
            Some(Work::Gather { source: push(draft, source), index })
        }
        Work::Concat { sources } if sources.iter().any(|&s| reaches_linear(draft, s)) => {
            Some(Work::Concat { sources: sources.into_iter().map(|s| push(draft, s)).collect() })
        }
        _ => None,
    }
}

/// One activation that does what two in sequence do.
fn after(first: Activation, second: Activation) -> Option<Activation> {
    use Activation::{Clip, HardSigmoid, LeakyRelu, Linear, Relu, Sigmoid};
    let bounds = |a: Activation| match a {
        Relu => Some((0.0, f32::MAX)),
        Clip { lo, hi } if lo <= hi => Some((lo, hi)),
        _ => None,
    };
    match (first, second) {
        (Linear, a) => Some(a),
        // Nothing below zero is left to be changed.
        (Relu | Sigmoid | HardSigmoid { .. }, Relu | LeakyRelu { .. } | Activation::Elu { .. }) => Some(first),
        _ => {
            let ((a, b), (c, d)) = (bounds(first)?, bounds(second)?);
            Some(Clip { lo: a.max(c).min(d), hi: b.max(c).min(d) }.simplest())
        }
    }
}

fn average(draft: &mut Draft, node: usize, source: usize, window: Window, divisor: &[u32]) -> Option<Work> {
    let (middle, out) = (draft.shape(source), draft.shape(node));
    match draft.nodes[source].op.clone() {
        Work::Map { blocks, bias, activation: Activation::Linear } => {
            // The part of each window that lies inside: what becomes of the bias.
            let taken = inside(&window, middle, out);
            let share = |p: usize| taken[p] as f64 / divisor[p] as f64;
            let uniform =
                (1..taken.len()).all(|p| taken[p] as u64 * divisor[0] as u64 == taken[0] as u64 * divisor[p] as u64);
            let unbiased = bias.iter().all(|&b| b == 0.0);
            if blocks.iter().all(|b| b.window == Window::POINT) && (uniform || unbiased) {
                let name = draft.nodes[node].name.clone();
                let mut swapped = Vec::with_capacity(blocks.len());
                for block in blocks {
                    let from = draft.shape(block.source);
                    let pool = Work::AveragePool { source: block.source, window, divisor: divisor.to_vec() };
                    let pooled = draft.push(&format!("{name}.mean"), Shape::new(from.c, out.h, out.w), pool);
                    swapped.push(Block { source: pooled, ..block });
                }
                take_name(draft, node, source);
                let bias = bias.iter().map(|b| b * share(0)).collect();
                return Some(Work::Map { blocks: swapped, bias, activation: Activation::Linear });
            }
            // A convolution before it: one convolution with a larger kernel.
            if divisor.iter().any(|&d| d != divisor[0]) {
                return None;
            }
            let weight = vec![(1.0 / divisor[0] as f64) as f32; middle.c * window.taps()];
            let outer = Block { source, window, groups: middle.c, weight };
            let mut joined = Vec::with_capacity(blocks.len());
            for block in &blocks {
                let path = compose::Path { source: draft.shape(block.source), middle, out };
                joined.push(compose::compose(block, &outer, path, !unbiased)?);
            }
            take_name(draft, node, source);
            let bias = bias.iter().map(|b| b * window.taps() as f64 / divisor[0] as f64).collect();
            Some(Work::Map { blocks: joined, bias, activation: Activation::Linear })
        }
        Work::Gather { source: first, index } => {
            let window = through_padding(draft, first, &index, middle, out, window)?;
            Some(Work::AveragePool { source: first, window, divisor: divisor.to_vec() })
        }
        _ => None,
    }
}

fn maximum(draft: &mut Draft, node: usize, source: usize, window: Window) -> Option<Work> {
    let (middle, out) = (draft.shape(source), draft.shape(node));
    if let Work::Gather { source: first, index } = draft.nodes[source].op.clone() {
        // The zeros of a padding never win against what is not negative, so they may be left out.
        if index.contains(&u32::MAX) && !never_negative(draft, first) {
            return None;
        }
        let window = through_padding(draft, first, &index, middle, out, window)?;
        if inside(&window, draft.shape(first), out).contains(&0) {
            return None;
        }
        return Some(Work::MaxPool { source: first, window });
    }
    let (scale, shift) = diagonal_of(draft, source)?;
    if scale.iter().any(|&s| s < 0.0) {
        return None;
    }
    let (scale, shift) = (scale.to_vec(), shift.to_vec());
    let first = draft.nodes[source].sources()[0];
    let name = format!("{}.max", draft.nodes[node].name);
    let pooled = draft.push(&name, out, Work::MaxPool { source: first, window });
    take_name(draft, node, source);
    Some(Work::Map { blocks: vec![super::diagonal(pooled, scale)], bias: shift, activation: Activation::Linear })
}

/// A pooling window over a padded or cropped tensor, as one over the tensor itself.
fn through_padding(
    draft: &Draft,
    first: usize,
    index: &[u32],
    middle: Shape,
    out: Shape,
    window: Window,
) -> Option<Window> {
    let source = draft.shape(first);
    let found = regular(index, source, middle)?;
    if !found.keeps_channels(source) || found.stride != [1, 1] {
        return None;
    }
    // The taps that a pad or crop hides must not come to light: let the composition of blocks judge.
    let inner =
        Block { source: first, window: Window { pad: found.pad, ..Window::POINT }, groups: 1, weight: vec![1.0] };
    let outer = Block { source: 0, window, groups: 1, weight: vec![1.0; window.taps()] };
    let one = |s: Shape| Shape::new(1, s.h, s.w);
    compose::compose(&inner, &outer, compose::Path { source: one(source), middle: one(middle), out: one(out) }, false)?;
    Some(Window { pad: [window.pad[0] + found.pad[0], window.pad[1] + found.pad[1]], ..window })
}

/// Whether a node's values are known to be zero or more.
fn never_negative(draft: &Draft, node: usize) -> bool {
    behind(draft, node).iter().all(|&n| match &draft.nodes[n].op {
        Work::Map { activation, .. } | Work::Activate { activation, .. } => match activation {
            Activation::Relu | Activation::Sigmoid | Activation::HardSigmoid { .. } | Activation::Softplus => true,
            Activation::Clip { lo, hi } => *lo >= 0.0 && *hi >= 0.0,
            _ => false,
        },
        _ => false,
    })
}

/// The node takes over the map of another: its name too, if that was a layer of its own.
pub fn take_name(draft: &mut Draft, node: usize, from: usize) {
    if draft.nodes[from].rank > draft.nodes[node].rank {
        (draft.nodes[node].name, draft.nodes[node].rank) = (draft.nodes[from].name.clone(), draft.nodes[from].rank);
    }
}
