//! A naive simulation of a spiking network: time step by time step, spike by spike, synapse by synapse, in i64. It shares
//! no code with the library but the types.

use synfit::network::{Shape, Window};
use synfit::neuron::Reset;
use synfit::spiking::*;

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
            // What reaches a node has waited for the longest path; its own steps come later by what it waits itself.
            let mut late = vec![(0, 0); net.nodes.len()];
            for (node, n) in net.nodes.iter().enumerate() {
                let before = n.sources().iter().map(|&s| late[s].1).max().unwrap_or(0);
                late[node] = (before, before + n.firing().map_or(0, |l| l.settle as usize));
            }
            let last = late[net.output].1;
            assert_eq!((steps + last) as u64, net.latency());
            for now in 0..steps + late.iter().map(|l| l.1).max().unwrap_or(0) {
                for (node, &(heard, fires)) in late.iter().enumerate() {
                    if let SpikingOp::Neurons(_) = net.nodes[node].op {
                        if (heard..heard + steps).contains(&now) {
                            naive.integrate(node, now - heard);
                        }
                        if (fires..fires + steps).contains(&now) {
                            naive.fire(node);
                        }
                    } else if (heard..heard + steps).contains(&now) {
                        naive.step(node, now - heard, raw);
                    }
                }
            }
        }
        Schedule::Layered => {
            for node in 0..net.nodes.len() {
                let constant = net.nodes[node].sources().iter().all(|&s| net.nodes[s].constant);
                if matches!(net.nodes[node].op, SpikingOp::Neurons(_)) && constant {
                    (0..steps).for_each(|t| {
                        naive.integrate(node, t);
                        naive.fire(node);
                    });
                } else if matches!(net.nodes[node].op, SpikingOp::Neurons(_)) {
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
                self.run.operations[node] +=
                    if codes[weight] == 0 && !self.net.zero_costs { 0 } else { spikes[from] as u64 };
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
