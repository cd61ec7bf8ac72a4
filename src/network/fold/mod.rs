//! Folds a draft into a network: linear maps in sequence become one, activations join the map before them,
//! rearrangements disappear into windows and weights where that is exact. Each rule looks at one node and rewrites it;
//! the rules are applied, sources first, until none applies.

mod compose;
mod draft;
mod finish;
mod gather;
mod maps;
mod push;

pub use draft::{Draft, DraftNode, Work, diagonal};

use super::layers::{Activation, Head, Layout, Network, Shape, Window};
use crate::error::{Error, Result};

/// The network that computes node `output` of the draft.
pub fn network(mut draft: Draft, mut output: usize, name: &str, head: Head, layout: Layout) -> Result<Network> {
    let (input_scale, input_shift) = take_input_affine(&mut draft, output);
    // Every rule brings the draft closer to the end; the bound only guards against a mistake in one of them.
    let rounds = 16 * draft.nodes.len() + 64;
    for _ in 0..rounds {
        let mut changed = false;
        for node in draft.order(output) {
            if let Some(same) = push::redundant(&draft, node) {
                redirect(&mut draft, node, same);
                if output == node {
                    output = same;
                }
                changed = true;
                continue;
            }
            changed |= push::rewrite(&mut draft, node) || maps::rewrite(&mut draft, node);
        }
        if !changed {
            return finish::finish(draft, output, name, head, layout, input_scale, input_shift);
        }
    }
    Err(Error::work("", "folding the network did not come to an end"))
}

/// Whoever read `from` reads `to` instead.
fn redirect(draft: &mut Draft, from: usize, to: usize) {
    for node in &mut draft.nodes {
        match &mut node.op {
            Work::Input => {}
            Work::Map { blocks, .. } => {
                blocks.iter_mut().filter(|b| b.source == from).for_each(|b| b.source = to);
            }
            Work::Activate { source, .. }
            | Work::AveragePool { source, .. }
            | Work::MaxPool { source, .. }
            | Work::Gather { source, .. } => {
                if *source == from {
                    *source = to;
                }
            }
            Work::Concat { sources } => sources.iter_mut().filter(|s| **s == from).for_each(|s| *s = to),
        }
    }
}

/// Per-channel arithmetic that all of the network reads its input through belongs to the preprocessing.
fn take_input_affine(draft: &mut Draft, output: usize) -> (Vec<f32>, Vec<f32>) {
    let channels = draft.shape(0).c;
    let mut scale = vec![1.0f64; channels];
    let mut shift = vec![0.0f64; channels];
    loop {
        let readers: Vec<usize> =
            draft.order(output).into_iter().filter(|&n| draft.nodes[n].sources().contains(&0)).collect();
        let [reader] = readers[..] else { break };
        let node = &draft.nodes[reader];
        let Some((weights, bias)) = diagonal_of(draft, reader) else { break };
        if reader == output || node.rank > 0 || node.shape != draft.shape(0) {
            break;
        }
        for c in 0..channels {
            shift[c] = shift[c] * weights[c] as f64 + bias[c];
            scale[c] *= weights[c] as f64;
        }
        redirect(draft, reader, 0);
    }
    (scale.iter().map(|&v| v as f32).collect(), shift.iter().map(|&v| v as f32).collect())
}

/// Scale and shift of a node that is a per-channel linear map of one other node of its shape.
fn diagonal_of(draft: &Draft, node: usize) -> Option<(&[f32], &[f64])> {
    let n = &draft.nodes[node];
    let Work::Map { blocks, bias, activation: Activation::Linear } = &n.op else { return None };
    let [block] = blocks.as_slice() else { return None };
    let diagonal = block.window == Window::POINT && block.groups == n.shape.c && draft.shape(block.source) == n.shape;
    diagonal.then_some((block.weight.as_slice(), bias.as_slice()))
}

/// How many taps of each output position lie inside the source.
fn inside(window: &Window, source: Shape, out: Shape) -> Vec<u32> {
    let along = |a: usize, size: usize, positions: usize| -> Vec<u32> {
        (0..positions)
            .map(|p| {
                // Taps at start + i * dilation, 0 <= i < kernel, within 0..size.
                let start = (p * window.stride[a]) as isize - window.pad[a];
                let d = window.dilation[a] as isize;
                let first = (d - 1 - start).div_euclid(d).max(0);
                let last = (size as isize - 1 - start).div_euclid(d).min(window.kernel[a] as isize - 1);
                (last - first + 1).max(0) as u32
            })
            .collect()
    };
    let (rows, columns) = (along(0, source.h, out.h), along(1, source.w, out.w));
    rows.iter().flat_map(|&r| columns.iter().map(move |&c| r * c)).collect()
}
