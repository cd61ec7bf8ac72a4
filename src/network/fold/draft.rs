//! The network while it is being lowered and folded: like `Network`, but activations may still stand apart from the
//! linear map they belong to, biases are f64, and nodes refer to each other in any order.

use crate::network::layers::{Activation, Block, Shape, Window};

#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    Input,
    /// sum over blocks + bias, then the activation; `Activation::Linear` means a linear map that may yet be folded.
    Map {
        blocks: Vec<Block>,
        bias: Vec<f64>,
        activation: Activation,
    },
    /// An activation whose place is not settled.
    Activate {
        source: usize,
        activation: Activation,
    },
    AveragePool {
        source: usize,
        window: Window,
        divisor: Vec<u32>,
    },
    MaxPool {
        source: usize,
        window: Window,
    },
    Concat {
        sources: Vec<usize>,
    },
    Gather {
        source: usize,
        index: Vec<u32>,
    },
}

#[derive(Debug, Clone)]
pub struct DraftNode {
    pub name: String,
    pub shape: Shape,
    pub op: Work,
    /// How much of a layer of its own this is: the weights of the ONNX operator (0 for arithmetic, batch
    /// normalization, shortcuts). Of two maps folded into one the weightier gives the name.
    pub rank: usize,
}

impl DraftNode {
    pub fn sources(&self) -> Vec<usize> {
        match &self.op {
            Work::Input => vec![],
            Work::Map { blocks, .. } => blocks.iter().map(|b| b.source).collect(),
            Work::Activate { source, .. }
            | Work::AveragePool { source, .. }
            | Work::MaxPool { source, .. }
            | Work::Gather { source, .. } => vec![*source],
            Work::Concat { sources } => sources.clone(),
        }
    }

    pub fn is_linear(&self) -> bool {
        matches!(self.op, Work::Map { activation: Activation::Linear, .. })
    }
}

#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub nodes: Vec<DraftNode>,
}

impl Draft {
    pub fn push(&mut self, name: &str, shape: Shape, op: Work) -> usize {
        self.nodes.push(DraftNode { name: name.to_string(), shape, op, rank: 0 });
        self.nodes.len() - 1
    }

    pub fn shape(&self, node: usize) -> Shape {
        self.nodes[node].shape
    }

    /// Nodes that `output` needs, sources first. Without recursion: networks may be thousands of layers deep.
    pub fn order(&self, output: usize) -> Vec<usize> {
        let mut seen = vec![false; self.nodes.len()];
        let mut order = Vec::new();
        // The input comes first and stays, even where nothing reads it.
        seen[0] = true;
        order.push(0);
        let mut stack = vec![(output, false)];
        while let Some((node, done)) = stack.pop() {
            if done {
                order.push(node);
            } else if !seen[node] {
                seen[node] = true;
                stack.push((node, true));
                // Last pushed is visited first: keep the sources' own order.
                stack.extend(self.nodes[node].sources().into_iter().rev().filter(|&s| !seen[s]).map(|s| (s, false)));
            }
        }
        order
    }
}

/// A per-channel scaling as a block: 1 x 1, one group a channel.
pub fn diagonal(source: usize, scale: Vec<f32>) -> Block {
    Block { source, window: Window::POINT, groups: scale.len(), weight: scale }
}
