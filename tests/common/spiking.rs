//! Random small spiking networks with every kind of node, and a naive simulation of them: time step by time step, spike
//! by spike, synapse by synapse, in i64. It shares no code with the library but the types.

use fastrand::Rng;
use synfit::network::{Head, Layout, Shape, Window};
use synfit::neuron::{Model, Reset};
use synfit::spiking::*;

/// What a random network is made from.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub seed: u64,
    pub model: Model,
    pub schedule: Schedule,
    pub steps: u32,
    pub potential: (i32, i32),
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
        let peak = u64::from(self.recipe.model.max_spikes);
        self.push(SpikingOp::Neurons(Layer { synapses, state, fires, unit }), shape, peak, false)
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
    }
}

/// Random raw images, 0..=20.
pub fn images(net: &SpikingNetwork, count: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::with_seed(seed);
    (0..count * net.nodes[0].shape.len()).map(|_| rng.i32(0..=20) as f32).collect()
}

/// The source element that tap (i, j) of output position (y, x) reads, within a channel.
pub fn reads(w: &Window, from: Shape, [y, x]: [usize; 2], [i, j]: [usize; 2]) -> Option<usize> {
    let row = (y * w.stride[0] + i * w.dilation[0]) as i64 - w.pad[0] as i64;
    let column = (x * w.stride[1] + j * w.dilation[1]) as i64 - w.pad[1] as i64;
    let inside = (0..from.h as i64).contains(&row) && (0..from.w as i64).contains(&column);
    inside.then(|| row as usize * from.w + column as usize)
}

/// All positions (row, column) of a height x width grid.
pub fn grid(h: usize, w: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..h).flat_map(move |y| (0..w).map(move |x| [y, x]))
}

/// Every single synapse: (source element, index of its weight, target element).
pub fn each_synapse(s: &Synapses, from: Shape, to: Shape, mut visit: impl FnMut(usize, usize, usize)) {
    let (per_group, outputs) = (from.c / s.groups, to.c / s.groups);
    for o in 0..to.c {
        for k in 0..per_group {
            let channel = o / outputs * per_group + k;
            for (t, tap) in grid(s.window.kernel[0], s.window.kernel[1]).enumerate() {
                for (p, position) in grid(to.h, to.w).enumerate() {
                    if let Some(at) = reads(&s.window, from, position, tap) {
                        let weight = (o * per_group + k) * s.window.taps() + t;
                        visit(channel * from.area() + at, weight, o * to.area() + p);
                    }
                }
            }
        }
    }
}

/// What one image did.
pub struct Run {
    /// Counts of every node: `[node][step][element]`; layered: the steps of the node's own firing phase.
    pub counts: Vec<Vec<Vec<i64>>>,
    /// Spikes that every count is made of: one that is pooled with a weight of 3 is still one spike. Zero for the input.
    spikes: Vec<Vec<Vec<i64>>>,
    /// Per node.
    pub operations: Vec<u64>,
    /// Potentials of the output at the end.
    pub potential: Vec<i64>,
}

struct Naive<'a> {
    net: &'a SpikingNetwork,
    run: Run,
    /// Per node and element: potential and steps to wait.
    state: Vec<Vec<(i64, u32)>>,
}

/// Simulates one image.
pub fn naive(net: &SpikingNetwork, raw: &[f32]) -> Run {
    let start = |node: &SpikingNode| match &node.op {
        SpikingOp::Neurons(Layer { state: State::Integer { initial, .. }, .. }) => {
            (0..node.shape.len()).map(|i| (i64::from(initial[i / node.shape.area()]), 0)).collect()
        }
        _ => vec![],
    };
    let empty = || vec![Vec::new(); net.nodes.len()];
    let run = Run { counts: empty(), spikes: empty(), operations: vec![0; net.nodes.len()], potential: vec![] };
    let mut naive = Naive { net, run, state: net.nodes.iter().map(start).collect() };
    let steps = net.steps as usize;
    match net.schedule {
        Schedule::Streaming => {
            for t in 0..steps {
                for node in 0..net.nodes.len() {
                    naive.step(node, t, raw);
                }
            }
        }
        Schedule::Layered => {
            for node in 0..net.nodes.len() {
                if matches!(net.nodes[node].op, SpikingOp::Neurons(_)) {
                    (0..steps).for_each(|t| naive.integrate(node, t));
                    (0..steps).for_each(|_| naive.fire(node));
                } else {
                    (0..steps).for_each(|t| naive.step(node, t, raw));
                }
            }
        }
    }
    naive.run.potential = naive.state[net.output].iter().map(|s| s.0).collect();
    naive.run
}

impl Naive<'_> {
    fn step(&mut self, node: usize, t: usize, raw: &[f32]) {
        let SpikingNode { shape, op, constant, .. } = &self.net.nodes[node];
        if let SpikingOp::Neurons(_) = op {
            self.integrate(node, t);
            return self.fire(node);
        }
        let pick = |from: &[Vec<Vec<i64>>], source: usize, index: &[u32]| -> Vec<i64> {
            index.iter().map(|&i| from[source][t].get(i as usize).copied().unwrap_or(0)).collect()
        };
        let (counts, spikes) = match op {
            SpikingOp::Input => {
                let code = |(i, &v): (usize, &f32)| {
                    let (input, c) = (&self.net.input, i / shape.area());
                    ((v * input.scale[c] + input.shift[c]).round() as i64).max(input.lo.into()).min(input.hi.into())
                };
                let codes: Vec<i64> = raw.iter().enumerate().map(code).collect();
                (codes, vec![0; shape.len()])
            }
            SpikingOp::SumPool { source, window, weight } => {
                let counts =
                    self.windows(*shape, *source, window, &self.run.counts[*source][t], &|s: &[i64]| s.iter().sum());
                let spikes =
                    self.windows(*shape, *source, window, &self.run.spikes[*source][t], &|s: &[i64]| s.iter().sum());
                let weighted = counts.iter().enumerate().map(|(i, n)| n * i64::from(weight[i % shape.area()]));
                (weighted.collect(), spikes)
            }
            SpikingOp::MaxPool { source, window } => {
                // The rate winner's count so far, less what has been passed on already.
                let trains = &self.run.counts[*source];
                let so_far: Vec<i64> = (0..trains[t].len()).map(|i| trains[..=t].iter().map(|s| s[i]).sum()).collect();
                let most =
                    self.windows(*shape, *source, window, &so_far, &|s: &[i64]| s.iter().max().copied().unwrap_or(0));
                let passed = |i: usize| self.run.counts[node].iter().map(|s| s[i]).sum::<i64>();
                let counts: Vec<i64> = most.iter().enumerate().map(|(i, m)| m - passed(i)).collect();
                let spikes = if *constant { vec![0; counts.len()] } else { counts.clone() };
                (counts, spikes)
            }
            SpikingOp::Concat { sources } => {
                let all = |from: &[Vec<Vec<i64>>]| sources.iter().flat_map(|&s| from[s][t].clone()).collect();
                (all(&self.run.counts), all(&self.run.spikes))
            }
            SpikingOp::Gather { source, index } => {
                (pick(&self.run.counts, *source, index), pick(&self.run.spikes, *source, index))
            }
            SpikingOp::Neurons(_) => unreachable!(),
        };
        self.run.counts[node].push(counts);
        self.run.spikes[node].push(spikes);
    }

    /// `fold` of what each window holds.
    fn windows(&self, to: Shape, source: usize, w: &Window, x: &[i64], fold: &dyn Fn(&[i64]) -> i64) -> Vec<i64> {
        let from = self.net.nodes[source].shape;
        let inside = |c: usize, position: [usize; 2]| -> Vec<i64> {
            let at = grid(w.kernel[0], w.kernel[1]).filter_map(|tap| reads(w, from, position, tap));
            at.map(|at| x[c * from.area() + at]).collect()
        };
        (0..to.c).flat_map(|c| grid(to.h, to.w).map(move |p| fold(&inside(c, p))).collect::<Vec<_>>()).collect()
    }

    /// Adds one step's current and bias to the potentials of neurons that are not refractory.
    fn integrate(&mut self, node: usize, t: usize) {
        let shape = self.net.nodes[node].shape;
        let SpikingOp::Neurons(layer) = &self.net.nodes[node].op else { unreachable!() };
        let State::Integer { bias, .. } = &layer.state else { unreachable!() };
        let mut current: Vec<i64> = (0..shape.len()).map(|i| i64::from(bias[i / shape.area()])).collect();
        for s in &layer.synapses {
            let Weights::Codes { codes, shift } = &s.weight else { unreachable!() };
            let (counts, spikes) = (&self.run.counts[s.source][t], &self.run.spikes[s.source][t]);
            each_synapse(s, self.net.nodes[s.source].shape, shape, |from, weight, to| {
                current[to] += counts[from] * (i64::from(codes[weight]) << shift);
                self.run.operations[node] += spikes[from] as u64;
            });
        }
        let (floor, ceil) = self.net.potential;
        for ((v, wait), current) in self.state[node].iter_mut().zip(current) {
            if *wait == 0 {
                *v += current;
                if layer.fires {
                    *v = (*v).max(floor.into()).min(ceil.into());
                }
            }
        }
    }

    /// One step's spikes and resets.
    fn fire(&mut self, node: usize) {
        let shape = self.net.nodes[node].shape;
        let SpikingOp::Neurons(layer) = &self.net.nodes[node].op else { unreachable!() };
        let State::Integer { threshold, .. } = &layer.state else { unreachable!() };
        let model = self.net.model;
        let mut spikes = vec![0; shape.len()];
        for (i, (v, wait)) in self.state[node].iter_mut().enumerate() {
            let theta = i64::from(threshold[i / shape.area()]);
            if !layer.fires {
                continue;
            }
            if *wait > 0 {
                *wait -= 1;
                continue;
            }
            while spikes[i] < i64::from(model.max_spikes) && (*v > theta || (*v == theta && !model.strict)) {
                spikes[i] += 1;
                *v -= theta;
            }
            if spikes[i] > 0 {
                *wait = model.refractory;
                if model.reset == Reset::Zero {
                    *v = 0;
                }
            }
        }
        self.run.counts[node].push(spikes.clone());
        self.run.spikes[node].push(spikes);
    }
}
