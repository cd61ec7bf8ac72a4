//! The trained network as synfit sees it: a list of nodes in topological order, every linear operation folded
//! into blocks of synapses, every activation a layer of neurons. The ONNX reader makes it; the walk over the
//! layers (convert) and the forward pass read it.

use serde::{Deserialize, Serialize};

/// Channels, height and width of one image's tensor; data is stored row-major in that order (CHW).
/// A vector of n features is `{ c: n, h: 1, w: 1 }`, a 1-D signal `{ c, h: length, w: 1 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    pub c: usize,
    pub h: usize,
    pub w: usize,
}

impl Shape {
    pub const fn new(c: usize, h: usize, w: usize) -> Self {
        Self { c, h, w }
    }

    /// Elements of one image.
    pub const fn len(self) -> usize {
        self.c * self.h * self.w
    }

    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Positions of one channel.
    pub const fn area(self) -> usize {
        self.h * self.w
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.c, self.h, self.w)
    }
}

/// A sliding window: output position (y, x), kernel tap (i, j) reads input row `y*stride[0] + i*dilation[0] - pad[0]`
/// and column likewise. Taps outside the input read zero (convolution, average) or nothing (maximum). How far the
/// window slides is given by the shape of the node that it belongs to, so that ceil modes and trailing pads need no
/// field of their own. A pad may be negative (a slice).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Top and left.
    pub pad: [isize; 2],
}

impl Window {
    /// The window of a point-wise (1 x 1) operation.
    pub const POINT: Window = Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pad: [0, 0] };

    /// A window that covers the whole of `shape` once (a dense layer).
    pub const fn whole(shape: Shape) -> Self {
        Window { kernel: [shape.h, shape.w], stride: [1, 1], dilation: [1, 1], pad: [0, 0] }
    }

    /// Kernel taps.
    pub const fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// One linear map from one source node into a layer of neurons: a convolution without bias. A dense layer is a
/// convolution whose window covers the source. An identity shortcut is a 1 x 1 convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Index of the source node.
    pub source: usize,
    pub window: Window,
    pub groups: usize,
    /// cout x (cin / groups) x kernel[0] x kernel[1], row-major.
    pub weight: Vec<f32>,
}

/// The trained network's activation functions, as ONNX defines them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Activation {
    /// No activation: the network's output layer, or a linear map that could not be folded into its consumer.
    Linear,
    Relu,
    /// min(max(z, lo), hi); Relu6 is `lo: 0, hi: 6`.
    Clip {
        lo: f32,
        hi: f32,
    },
    LeakyRelu {
        alpha: f32,
    },
    Elu {
        alpha: f32,
    },
    Sigmoid,
    /// max(0, min(1, alpha z + beta)).
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    Tanh,
    Softplus,
    /// What whole spikes leave of the unit whose layer its last block reads: nothing, in the trained network
    /// (`convert::with_remainders`).
    Remainder,
}

impl Activation {
    /// The same function by its simplest name: a leaky rectifier that does not leak is a rectifier, and so on.
    #[must_use]
    pub fn simplest(self) -> Self {
        match self {
            Activation::LeakyRelu { alpha: 0.0 } | Activation::Elu { alpha: 0.0 } => Activation::Relu,
            Activation::LeakyRelu { alpha: 1.0 } => Activation::Linear,
            Activation::HardSigmoid { alpha: 0.0, beta } => {
                let value = beta.clamp(0.0, 1.0);
                Activation::Clip { lo: value, hi: value }
            }
            Activation::Clip { lo, hi: f32::MAX.. } if lo <= f32::MIN => Activation::Linear,
            Activation::Clip { lo: 0.0, hi: f32::MAX.. } => Activation::Relu,
            other => other,
        }
    }

    /// Whether it bends everywhere, so that straight pieces only come close to it.
    pub fn is_curved(self) -> bool {
        use Activation::{Elu, Sigmoid, Softplus, Tanh};
        matches!(self.simplest(), Sigmoid | Tanh | Softplus | Elu { .. })
    }

    /// The activation of a pre-activation `z`, in f64 (the reference for the kernels).
    pub fn apply(self, z: f64) -> f64 {
        match self {
            Activation::Linear => z,
            Activation::Relu => z.max(0.0),
            Activation::Clip { lo, hi } => z.max(lo as f64).min(hi as f64),
            Activation::LeakyRelu { alpha } => {
                if z < 0.0 {
                    alpha as f64 * z
                } else {
                    z
                }
            }
            Activation::Elu { alpha } => {
                if z < 0.0 {
                    alpha as f64 * z.exp_m1()
                } else {
                    z
                }
            }
            Activation::Sigmoid => 1.0 / (1.0 + (-z).exp()),
            Activation::HardSigmoid { alpha, beta } => (alpha as f64 * z + beta as f64).clamp(0.0, 1.0),
            Activation::Tanh => z.tanh(),
            Activation::Softplus => z.max(0.0) + (-z.abs()).exp().ln_1p(),
            Activation::Remainder => 0.0,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Node 0 and no other: the (preprocessed) input.
    Input,
    /// activation(sum over blocks + bias); `bias` has one value per output channel.
    Neurons { blocks: Vec<Block>, bias: Vec<f32>, activation: Activation },
    /// Sum over the window (padding counts as zero), divided by `divisor[y * w + x]` (> 0).
    AveragePool { source: usize, window: Window, divisor: Vec<u32> },
    /// Maximum over the taps that lie inside the input.
    MaxPool { source: usize, window: Window },
    /// Along the channels; all sources have the same height and width.
    Concat { sources: Vec<usize> },
    /// Any other rearrangement: output element i is source element `index[i]`, or zero where that is `u32::MAX`.
    Gather { source: usize, index: Vec<u32> },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The ONNX node's name (or its output's name where it has none), unique in the network.
    pub name: String,
    pub shape: Shape,
    pub op: Op,
}

impl Node {
    /// The nodes this one reads.
    pub fn sources(&self) -> Vec<usize> {
        match &self.op {
            Op::Input => vec![],
            Op::Neurons { blocks, .. } => blocks.iter().map(|b| b.source).collect(),
            Op::AveragePool { source, .. } | Op::MaxPool { source, .. } | Op::Gather { source, .. } => vec![*source],
            Op::Concat { sources } => sources.clone(),
        }
    }
}

/// What stands after the output node in the ONNX graph: monotone in the outputs, so no spikes are spent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Head {
    None,
    Softmax,
    LogSoftmax,
    Sigmoid,
    ArgMax,
}

/// How the ONNX graph wants its input laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    Nchw,
    /// The graph starts with a Transpose to NCHW, which was absorbed: node 0 is CHW all the same.
    Nhwc,
}

/// A trained network, ready to be converted.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// The file's stem or the graph's name.
    pub name: String,
    /// In topological order; node 0 is the input.
    pub nodes: Vec<Node>,
    /// Index of the output node.
    pub output: usize,
    pub head: Head,
    pub layout: Layout,
    /// Per channel of the input: the graph's own leading arithmetic, x -> x * scale + shift, which belongs to the
    /// preprocessing and is not applied by the nodes. Ones and zeros where the graph has none.
    pub input_scale: Vec<f32>,
    pub input_shift: Vec<f32>,
}

impl Network {
    pub fn input_shape(&self) -> Shape {
        self.nodes[0].shape
    }

    pub fn output_shape(&self) -> Shape {
        self.nodes[self.output].shape
    }

    /// Per node, the layers of neurons on the longest path up to it; it counts itself.
    pub fn depths(&self) -> Vec<usize> {
        let mut depths = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let before = node.sources().into_iter().map(|s| depths[s]).max().unwrap_or(0);
            depths.push(before + usize::from(matches!(node.op, Op::Neurons { .. })));
        }
        depths
    }

    /// Multiply-accumulates of one forward pass.
    pub fn macs(&self) -> u64 {
        self.nodes
            .iter()
            .map(|n| match &n.op {
                Op::Neurons { blocks, .. } => blocks.iter().map(|b| (b.weight.len() * n.shape.area()) as u64).sum(),
                _ => 0,
            })
            .sum()
    }

    pub fn parameters(&self) -> usize {
        self.nodes
            .iter()
            .map(|n| match &n.op {
                Op::Neurons { blocks, bias, .. } => blocks.iter().map(|b| b.weight.len()).sum::<usize>() + bias.len(),
                _ => 0,
            })
            .sum()
    }
}

/// Whether layer `reader`, which reads `source`, does so over a shortcut: its longest path from there has another layer of
/// neurons on it. `depths`: the network's.
pub fn is_shortcut(depths: &[usize], source: usize, reader: usize) -> bool {
    depths[reader] >= depths[source] + 2
}

/// For each node, the last node that reads it (`usize::MAX` for the output): when its values may go.
pub fn last_uses(nodes: usize, output: usize, sources: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let mut last = vec![0; nodes];
    for i in 0..nodes {
        for s in sources(i) {
            last[s] = last[s].max(i);
        }
    }
    last[output] = usize::MAX;
    last
}
