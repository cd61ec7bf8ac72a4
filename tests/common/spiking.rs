//! Random small spiking networks with every kind of node.

use fastrand::Rng;
use synfit::network::{Head, Layout, Shape, Window};
use synfit::neuron::Model;
use synfit::spiking::*;

/// What a random network is made from.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub seed: u64,
    pub model: Model,
    pub schedule: Schedule,
    pub steps: u32,
    pub potential: (i32, i32),
    /// Most steps that a layer waits before its first chance to fire.
    pub settle: u32,
    /// Real synapses and states instead of integers.
    pub real: bool,
}

struct Builder {
    rng: Rng,
    nodes: Vec<SpikingNode>,
    recipe: Recipe,
}

impl Builder {
    fn shape(&self, node: usize) -> Shape {
        self.nodes[node].shape
    }

    /// A random source: most often the latest node.
    fn source(&mut self) -> usize {
        if self.rng.bool() { self.nodes.len() - 1 } else { self.rng.usize(..self.nodes.len()) }
    }

    /// Any window, and the height and width it gives; often one that keeps them, so that there is something to
    /// concatenate.
    fn window(&mut self, from: Shape) -> (Window, [usize; 2]) {
        if self.rng.u8(..3) == 0 {
            return (Window { kernel: [3, 3], pad: [1, 1], ..Window::POINT }, [from.h, from.w]);
        }
        let mut axis = |n: usize| {
            let (k, s, d) = (self.rng.usize(1..=3), self.rng.usize(1..=2), self.rng.usize(1..=2));
            let (p, more) = (self.rng.isize(-1..=2), self.rng.isize(0..=1));
            let span = n as isize + p + more - ((k - 1) * d) as isize - 1;
            (k, s, d, p, span.max(0) as usize / s + 1)
        };
        let (a, b) = (axis(from.h), axis(from.w));
        (Window { kernel: [a.0, b.0], stride: [a.1, b.1], dilation: [a.2, b.2], pad: [a.3, b.3] }, [a.4, b.4])
    }

    /// Passes on codes of the input beside spikes.
    fn mixed(&self, node: usize) -> bool {
        let from = |s: &usize| !self.nodes[node].constant && (self.nodes[*s].constant || self.mixed(*s));
        !matches!(self.nodes[node].op, SpikingOp::Neurons(_)) && self.nodes[node].sources().iter().any(from)
    }

    fn push(&mut self, op: SpikingOp, shape: Shape, peak: u64, constant: bool) -> usize {
        let name = format!("/{}/node {}", self.nodes.len(), ["Conv", "Gemm.weight.0", "é"][self.rng.usize(..3)]);
        let gain = (0..shape.c).map(|_| f64::from(self.rng.i32(1..9))).collect();
        self.nodes.push(SpikingNode { name, shape, op, decode: Decode::plain(gain), peak, constant });
        self.nodes.len() - 1
    }

    fn synapses(&mut self, source: usize, window: Window, groups: usize, outputs: usize) -> Synapses {
        let len = outputs * (self.shape(source).c / groups) * window.taps();
        let weight = if self.recipe.real {
            Weights::Real((0..len).map(|_| self.rng.f32() * 0.8 - 0.3).collect())
        } else {
            let codes = (0..len).map(|_| self.rng.i32(-5..=7)).collect();
            Weights::Codes { codes, shift: self.rng.u32(0..=2) }
        };
        Synapses { source, window, groups, weight }
    }

    fn layer(&mut self, synapses: Vec<Synapses>, shape: Shape, fires: bool) -> usize {
        let rng = &mut self.rng;
        let state = if self.recipe.real {
            let mut reals = |lo: f32, hi: f32| (0..shape.c).map(|_| lo + rng.f32() * (hi - lo)).collect();
            State::Real { bias: reals(-0.2, 0.6), initial: reals(0.0, 0.9) }
        } else {
            let mut integers = |lo: i32, hi: i32| (0..shape.c).map(|_| rng.i32(lo..=hi)).collect();
            State::Integer { bias: integers(-9, 12), threshold: integers(1, 90), initial: integers(0, 30) }
        };
        // A readout in units that make its value the potential itself, which f32 holds exactly.
        let unit = vec![f64::from(self.recipe.steps); shape.c];
        let settle = if fires { self.rng.u32(0..=self.recipe.settle) } else { 0 };
        let peak = u64::from(self.recipe.model.max_spikes);
        self.push(SpikingOp::Neurons(Layer { synapses, state, fires, settle, unit, types: vec![] }), shape, peak, false)
    }

    /// A convolution: plain, grouped or depthwise.
    fn conv(&mut self) {
        let source = self.source();
        let from = self.shape(source);
        let (window, [h, w]) = self.window(from);
        let groups = (1..=from.c).filter(|g| from.c.is_multiple_of(*g)).nth(self.rng.usize(..2)).unwrap_or(1);
        let shape = Shape::new(groups * self.rng.usize(1..=6usize.div_ceil(groups)), h, w);
        let synapses = self.synapses(source, window, groups, shape.c);
        self.layer(vec![synapses], shape, true);
    }

    /// A skip connection: two sources, each with its own window and shift.
    fn skip(&mut self) {
        let (a, b) = (self.source(), self.rng.usize(..self.nodes.len()));
        let (window, [h, w]) = self.window(self.shape(a));
        let (other, _) = self.window(self.shape(b));
        let shape = Shape::new(self.rng.usize(1..=5), h, w);
        let blocks = vec![self.synapses(a, window, 1, shape.c), self.synapses(b, other, 1, shape.c)];
        self.layer(blocks, shape, true);
    }

    fn pool(&mut self, maximum: bool) {
        let mut source = self.source();
        // Codes and spikes side by side have no winner whose spikes could be counted.
        while maximum && self.mixed(source) {
            source = self.source();
        }
        let from = self.nodes[source].clone();
        let (window, [h, w]) = self.window(from.shape);
        let shape = Shape::new(from.shape.c, h, w);
        if maximum {
            self.push(SpikingOp::MaxPool { source, window }, shape, from.peak, from.constant);
        } else {
            let weight: Vec<u32> = (0..shape.area()).map(|_| self.rng.u32(1..=3)).collect();
            let peak = from.peak * window.taps() as u64 * 3;
            self.push(SpikingOp::SumPool { source, window, weight }, shape, peak, from.constant);
        }
    }

    fn concat(&mut self) {
        let first = self.source();
        let size = |s: Shape| (s.h, s.w);
        let mut sources: Vec<usize> =
            (0..self.nodes.len()).filter(|&i| size(self.shape(i)) == size(self.shape(first))).collect();
        self.rng.shuffle(&mut sources);
        sources.truncate(3);
        let shape = Shape { c: sources.iter().map(|&s| self.shape(s).c).sum(), ..self.shape(first) };
        let peak = sources.iter().map(|&s| self.nodes[s].peak).max().unwrap();
        let constant = sources.iter().all(|&s| self.nodes[s].constant);
        self.push(SpikingOp::Concat { sources }, shape, peak, constant);
    }

    fn gather(&mut self) {
        let source = self.source();
        let from = self.nodes[source].clone();
        let shape = Shape::new(self.rng.usize(1..=6), self.rng.usize(1..=4), self.rng.usize(1..=4));
        let most = from.shape.len() as u32;
        let index = (0..shape.len()).map(|_| self.rng.u32(..=most)).map(|i| if i == most { u32::MAX } else { i });
        let index = index.collect();
        self.push(SpikingOp::Gather { source, index }, shape, from.peak, from.constant);
    }

    /// The output: a dense layer on the latest node (and one before it), accumulating or firing, with populations.
    fn output(&mut self, fires: bool) {
        let source = self.nodes.len() - 1;
        let shape = Shape::new(5, 1, 1);
        let window = Window::whole(self.shape(source));
        let synapses = self.synapses(source, window, 1, shape.c);
        let index = self.layer(vec![synapses], shape, fires);
        self.nodes[index].decode = Decode {
            channels: 3,
            origin: vec![2, 0, Decode::ALL, 1, 2],
            gain: vec![1.0, 3.0, -2.0, 5.0, 4.0],
            base: vec![0.0, -7.0, 11.0],
        };
    }
}

/// A network with every kind of node in random order.
pub fn network(recipe: &Recipe) -> SpikingNetwork {
    let mut rng = Rng::with_seed(recipe.seed);
    let shape = Shape::new(rng.usize(1..=3), rng.usize(3..=7), rng.usize(3..=7));
    let shift: Vec<f32> = (0..shape.c).map(|_| rng.i32(-8..=2) as f32).collect();
    let input = InputCode { layout: Layout::Nchw, scale: vec![0.5; shape.c], shift, lo: -6, hi: rng.i32(5..=9) };
    let mut b = Builder { rng, nodes: vec![], recipe: recipe.clone() };
    b.push(SpikingOp::Input, shape, input.max_abs(), true);
    let mut kinds = [0, 0, 1, 1, 2, 3, 4, 5];
    b.rng.shuffle(&mut kinds);
    for kind in kinds {
        match kind {
            0 => b.conv(),
            1 => b.skip(),
            2 | 3 => b.pool(kind == 3),
            4 => b.concat(),
            _ => b.gather(),
        }
    }
    let fires = b.rng.bool();
    b.output(fires);
    SpikingNetwork {
        name: "random".into(),
        chip: "none".into(),
        model: recipe.model,
        steps: recipe.steps,
        schedule: recipe.schedule,
        input,
        output: b.nodes.len() - 1,
        nodes: b.nodes,
        head: Head::None,
        potential: recipe.potential,
        zero_costs: recipe.seed % 2 == 1,
    }
}

/// Random raw images, 0..=20.
pub fn images(net: &SpikingNetwork, count: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::with_seed(seed);
    (0..count * net.nodes[0].shape.len()).map(|_| rng.i32(0..=20) as f32).collect()
}
