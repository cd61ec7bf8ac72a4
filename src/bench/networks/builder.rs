//! Puts a network together node by node. Weights are He-initialized (uniform, variance 2 / inputs), so that activations
//! keep their size from layer to layer; biases are small.

use super::Built;
use crate::network::{Activation, Block, Head, Layout, Network, Node, Op, Shape, Window};

/// Largest bias.
const BIAS: f32 = 0.1;

/// A kernel of `size` x `size` with stride and padding on all sides.
pub fn square(size: usize, stride: usize, pad: usize) -> Window {
    Window { kernel: [size; 2], stride: [stride; 2], dilation: [1, 1], pad: [pad as isize; 2] }
}

/// What a layer of neurons reads from one node.
pub enum Input {
    /// A convolution with weights of its own, times `gain`.
    Conv { source: usize, window: Window, gain: f32 },
    /// The source itself, every `stride`-th position; channels beyond its own are zero.
    Identity { source: usize, stride: usize },
}

/// Nodes so far.
pub struct Builder {
    name: String,
    nodes: Vec<Node>,
    rng: fastrand::Rng,
    trained: usize,
}

impl Builder {
    pub fn new(name: &str, input: Shape, seed: u64) -> Self {
        let nodes = vec![Node { name: "input".into(), shape: input, op: Op::Input }];
        Self { name: name.into(), nodes, rng: fastrand::Rng::with_seed(seed), trained: 0 }
    }

    pub fn shape(&self, node: usize) -> Shape {
        self.nodes[node].shape
    }

    /// The last node.
    pub fn last(&self) -> usize {
        self.nodes.len() - 1
    }

    fn push(&mut self, name: String, shape: Shape, op: Op) -> usize {
        self.nodes.push(Node { name, shape, op });
        self.last()
    }

    /// A convolution of the last node, with ReLU.
    pub fn conv(&mut self, name: &str, channels: usize, window: Window) -> usize {
        let source = self.last();
        self.neurons(name, channels, &[Input::Conv { source, window, gain: 1.0 }], Activation::Relu)
    }

    /// A dense layer on the whole of the last node, with ReLU or none.
    pub fn dense(&mut self, name: &str, outputs: usize, activation: Activation) -> usize {
        let source = self.last();
        let window = Window::whole(self.shape(source));
        self.neurons(name, outputs, &[Input::Conv { source, window, gain: 1.0 }], activation)
    }

    /// A layer of neurons that adds up its inputs. The first of them says how far the window slides.
    pub fn neurons(&mut self, name: &str, channels: usize, inputs: &[Input], activation: Activation) -> usize {
        let blocks: Vec<Block> = inputs.iter().map(|input| self.block(channels, input)).collect();
        let shape = blocks.first().map_or(Shape::new(channels, 1, 1), |b| {
            Shape { c: channels, ..slide(self.shape(b.source), &b.window) } //
        });
        let bias = (0..channels).map(|_| BIAS * (2.0 * self.rng.f32() - 1.0)).collect();
        self.trained += channels;
        self.push(name.into(), shape, Op::Neurons { blocks, bias, activation })
    }

    fn block(&mut self, channels: usize, input: &Input) -> Block {
        match *input {
            Input::Conv { source, window, gain } => {
                let fan_in = self.shape(source).c * window.taps();
                let most = gain * (6.0 / fan_in as f32).sqrt();
                let weight = (0..channels * fan_in).map(|_| most * (2.0 * self.rng.f32() - 1.0)).collect();
                self.trained += channels * fan_in;
                Block { source, window, groups: 1, weight }
            }
            Input::Identity { source, stride } => {
                let from = self.shape(source).c;
                let mut weight = vec![0.0; channels * from];
                (0..from.min(channels)).for_each(|c| weight[c * from + c] = 1.0);
                Block { source, window: square(1, stride, 0), groups: 1, weight }
            }
        }
    }

    pub fn average_pool(&mut self, name: &str, window: Window) -> usize {
        let source = self.last();
        let shape = slide(self.shape(source), &window);
        let divisor = vec![window.taps() as u32; shape.area()];
        self.push(name.into(), shape, Op::AveragePool { source, window, divisor })
    }

    pub fn max_pool(&mut self, name: &str, window: Window) -> usize {
        let source = self.last();
        let shape = slide(self.shape(source), &window);
        self.push(name.into(), shape, Op::MaxPool { source, window })
    }

    /// The network whose output is the last node.
    pub fn build(self) -> Built {
        let channels = self.nodes[0].shape.c;
        let network = Network {
            name: self.name,
            output: self.nodes.len() - 1,
            nodes: self.nodes,
            head: Head::None,
            layout: Layout::Nchw,
            input_scale: vec![1.0; channels],
            input_shift: vec![0.0; channels],
        };
        Built { network, trained: self.trained }
    }
}

/// How far a window slides that is padded alike on both sides.
fn slide(input: Shape, window: &Window) -> Shape {
    let along = |size: usize, axis: usize| {
        let padded = size + 2 * window.pad[axis].unsigned_abs();
        (padded - window.kernel[axis]) / window.stride[axis] + 1
    };
    Shape { h: along(input.h, 0), w: along(input.w, 1), ..input }
}
