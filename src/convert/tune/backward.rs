//! Gradients of the tuned network's parameters: from the targets back through its nodes.

use rayon::prelude::*;

use super::super::back::Back;
use super::{Seen, Tuner};
use crate::compute::gram::{Moments, PatchSpec};
use crate::compute::{Buffer, Device};
use crate::error::Result;
use crate::network::{Activation, Block, Network, Node, Op, Shape, Window};

impl Tuner<'_> {
    /// Per layer that is tuned: the gradients of its blocks' weights and of its bias; zero for what is gone.
    pub(super) fn gradients(&self, seen: Seen) -> Result<Vec<Vec<Vec<f64>>>> {
        let (dev, images, nodes) = (self.dev, seen.images, &self.tuned.nodes);
        // of the values
        let mut of: Vec<Option<Vec<f32>>> = nodes.iter().map(|_| None).collect();
        let mut found = vec![];
        for i in (0..nodes.len()).rev().filter(|&i| self.late[i]) {
            let node = &nodes[i];
            if let Some(t) = self.targets.iter().position(|t| t.node == i) {
                let unit = (self.targets[t].unit / images as f64) as f32;
                let all = of[i].get_or_insert_with(|| vec![0.0; images * node.shape.len()]);
                let given = dev.view(self.value(&seen.values, i)?)?;
                let pairs = given.par_iter().zip(&seen.wanted[t]);
                all.par_iter_mut().zip(pairs).for_each(|(all, (given, wanted))| *all += unit * (given - wanted));
            }
            let Op::Neurons { blocks, activation, .. } = &node.op else {
                if let Some(given) = of[i].take() {
                    self.handed_back(node, images, &seen.values, &given, &mut of)?;
                }
                continue;
            };
            // what nobody reads is no target either
            let mut given = of[i].take().unwrap_or_else(|| vec![0.0; images * node.shape.len()]);
            let values = dev.view(self.value(&seen.values, i)?)?;
            given.par_iter_mut().zip(values.par_iter()).for_each(|(g, y)| *g *= slope(*activation, *y));
            let given = dev.upload(&given)?;
            found.push(self.of_layer(i, images, &seen.values, &given)?);
            for block in blocks.iter().filter(|b| self.late[b.source]) {
                let back = Back::new(dev, &patch(&self.tuned, block), node.shape, &block.weight)?;
                let part = back.run(dev, images, &given)?;
                add(dev, &part, of[block.source].get_or_insert_default())?;
            }
        }
        found.reverse();
        Ok(found)
    }

    /// Of layer `i`, whose pre-activations have the gradient `given`.
    fn of_layer(
        &self,
        i: usize,
        images: usize,
        values: &[Option<Buffer<f32>>],
        given: &Buffer<f32>,
    ) -> Result<Vec<Vec<f64>>> {
        let node = &self.tuned.nodes[i];
        let Op::Neurons { blocks, bias, .. } = &node.op else { return Ok(vec![]) };
        let real: Vec<&Block> = blocks.iter().filter(|b| !self.silent[b.source]).collect();
        let patches: Vec<PatchSpec> = real.iter().map(|b| patch(&self.tuned, b)).collect();
        let groups = patches.first().map_or(1, |p| p.groups);
        let mut sums = Moments::new(self.dev, &patches, node.shape, groups)?.targets_only();
        let xs = real.iter().map(|b| self.value(values, b.source)).collect::<Result<Vec<_>>>()?;
        sums.add(images, &xs, given)?;
        let sums = sums.finish()?;
        let mut gradients = vec![];
        let mut first = 0;
        for (block, mask) in blocks.iter().zip(&self.masks[i]) {
            if self.silent[block.source] {
                gradients.push(vec![0.0; block.weight.len()]);
                continue;
            }
            let width = block.weight.len() / bias.len();
            let rows = sums.b.chunks_exact(sums.n).flat_map(|row| &row[first..first + width]);
            gradients.push(rows.zip(mask).map(|(g, mask)| if *mask { *g } else { 0.0 }).collect());
            first += width;
        }
        let stays = &self.stays[i];
        gradients.push(sums.z_sum.iter().zip(stays).map(|(g, stays)| if *stays { *g } else { 0.0 }).collect());
        Ok(gradients)
    }

    /// Adds the gradient `given` of a node without parameters to those of its sources.
    fn handed_back(
        &self,
        node: &Node,
        images: usize,
        values: &[Option<Buffer<f32>>],
        given: &[f32],
        of: &mut [Option<Vec<f32>>],
    ) -> Result<()> {
        let shape = |source: usize| self.tuned.nodes[source].shape;
        let len = node.shape.len();
        let mut source_of = |source: usize, fill: &mut dyn FnMut(&mut Vec<f32>) -> Result<()>| {
            if !self.late[source] {
                return Ok(());
            }
            fill(of[source].get_or_insert_with(|| vec![0.0; images * shape(source).len()]))
        };
        match &node.op {
            Op::AveragePool { source, window, divisor } => source_of(*source, &mut |all| {
                averaged(shape(*source), node.shape, window, divisor, given, all);
                Ok(())
            }),
            Op::MaxPool { source, window } => source_of(*source, &mut |all| {
                let x = self.dev.view(self.value(values, *source)?)?;
                largest(shape(*source), node.shape, window, &x, given, all);
                Ok(())
            }),
            Op::Concat { sources } => {
                let mut first = 0;
                for &source in sources {
                    let own = shape(source).len();
                    source_of(source, &mut |all| {
                        for (all, given) in all.chunks_exact_mut(own).zip(given.chunks_exact(len)) {
                            all.iter_mut().zip(&given[first..first + own]).for_each(|(all, g)| *all += g);
                        }
                        Ok(())
                    })?;
                    first += own;
                }
                Ok(())
            }
            Op::Gather { source, index } => source_of(*source, &mut |all| {
                for (all, given) in all.chunks_exact_mut(shape(*source).len()).zip(given.chunks_exact(len)) {
                    let taken = index.iter().zip(given).filter(|(at, _)| **at != u32::MAX);
                    taken.for_each(|(at, g)| all[*at as usize] += g);
                }
                Ok(())
            }),
            Op::Input | Op::Neurons { .. } => Ok(()),
        }
    }
}

fn patch(network: &Network, block: &Block) -> PatchSpec {
    PatchSpec { input: network.nodes[block.source].shape, window: block.window, groups: block.groups }
}

/// Adds a device's values; nothing yet is zero.
fn add(dev: &Device, part: &Buffer<f32>, all: &mut Vec<f32>) -> Result<()> {
    let part = dev.view(part)?;
    all.resize(part.len(), 0.0);
    all.par_iter_mut().zip(part.par_iter()).for_each(|(all, part)| *all += part);
    Ok(())
}

/// The activation's slope where its value is `y`.
fn slope(activation: Activation, y: f32) -> f32 {
    let inside = |inside: bool, slope: f32| if inside { slope } else { 0.0 };
    match activation {
        Activation::Linear => 1.0,
        Activation::Relu => inside(y > 0.0, 1.0),
        Activation::Clip { lo, hi } => inside(y > lo && y < hi, 1.0),
        Activation::LeakyRelu { alpha } => {
            if y < 0.0 {
                alpha
            } else {
                1.0
            }
        }
        Activation::Elu { alpha } => {
            if y < 0.0 {
                y + alpha
            } else {
                1.0
            }
        }
        Activation::Sigmoid => y * (1.0 - y),
        Activation::HardSigmoid { alpha, .. } => inside(y > 0.0 && y < 1.0, alpha),
        Activation::Tanh => 1.0 - y * y,
        Activation::Softplus => -(-y).exp_m1(),
        Activation::Remainder => 0.0,
    }
}

/// Elements of a source's plane under the window at an output's position.
fn taps(input: Shape, window: &Window, y: usize, x: usize) -> impl Iterator<Item = usize> {
    let Window { kernel, stride, dilation, pad } = *window;
    let place = move |at: usize, k: usize, a: usize, side: usize| {
        let place = (at * stride[a] + k * dilation[a]) as isize - pad[a];
        (0..side as isize).contains(&place).then_some(place as usize)
    };
    let rows = (0..kernel[0]).filter_map(move |k| place(y, k, 0, input.h));
    rows.flat_map(move |row| {
        (0..kernel[1]).filter_map(move |k| place(x, k, 1, input.w)).map(move |x| row * input.w + x)
    })
}

/// Back through an average.
fn averaged(input: Shape, output: Shape, window: &Window, divisor: &[u32], given: &[f32], all: &mut [f32]) {
    let planes = all.par_chunks_exact_mut(input.area()).zip(given.par_chunks_exact(output.area()));
    planes.for_each(|(all, given)| {
        for (i, (g, divisor)) in given.iter().zip(divisor).enumerate() {
            let g = g / *divisor as f32;
            taps(input, window, i / output.w, i % output.w).for_each(|at| all[at] += g);
        }
    });
}

/// Back through a maximum: to the first that has it.
fn largest(input: Shape, output: Shape, window: &Window, x: &[f32], given: &[f32], all: &mut [f32]) {
    let planes = all.par_chunks_exact_mut(input.area()).zip(x.par_chunks_exact(input.area()));
    planes.zip(given.par_chunks_exact(output.area())).for_each(|((all, x), given)| {
        for (i, g) in given.iter().enumerate() {
            let first = taps(input, window, i / output.w, i % output.w).reduce(|a, b| if x[b] > x[a] { b } else { a });
            first.into_iter().for_each(|at| all[at] += g);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::super::prune::Plan;
    use super::super::super::{
        Choose, Images, Initial, Keep, NoiseUse, Options, Populations, Response, Ridge, Settle, Silent, Targets,
    };
    use super::*;
    use crate::chip::Chip;
    use crate::network::{Dataset, Head, Layout};
    use crate::spiking::Schedule;

    fn options() -> Options {
        Options {
            chip: Chip::load("generic8").unwrap(),
            steps: 16,
            schedule: Schedule::Streaming,
            response: Response::Measured,
            settle: Settle::Shared,
            initial: Initial::Half,
            targets: Targets::Auto,
            offset: true,
            method: "descent".parse().unwrap(),
            keep: Keep::parse(&[]).unwrap(),
            prune: Choose::Optimal,
            refine: true,
            tune: 1,
            sparse: Default::default(),
            ridge: Ridge::Auto,
            noise: NoiseUse::Off,
            remainder: 2,
            population: Populations { rectified: 1, curved: 4 },
            decides: false,
            batch_bytes: 16 << 20,
            host_bytes: None,
            seed: 0,
        }
    }

    /// All kinds of nodes, of which the first layer, and with it the depthwise one, loses a channel.
    fn network(rng: &mut fastrand::Rng) -> (Network, Plan) {
        let k3 = Window { kernel: [3, 3], pad: [1, 1], ..Window::POINT };
        let two = Window { kernel: [2, 2], stride: [2, 2], ..Window::POINT };
        let apart = Window { stride: [2, 2], ..Window::POINT };
        let mut real = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.f32() - 0.5).collect() };
        let mut layer = |name: &str, shape: Shape, blocks: Vec<(usize, Window, usize, usize)>, activation| {
            let block = |(source, window, groups, ins): (usize, Window, usize, usize)| {
                let weight = real(shape.c * ins / groups * window.taps());
                Block { source, window, groups, weight }
            };
            let blocks = blocks.into_iter().map(block).collect();
            let op = Op::Neurons { blocks, bias: vec![0.1; shape.c], activation };
            Node { name: name.into(), shape, op }
        };
        let node = |name: &str, shape: Shape, op: Op| Node { name: name.into(), shape, op };
        let at = |c: usize, side: usize| Shape::new(c, side, side);
        let mixed = Shape::new(7, 2, 2);
        let mut index: Vec<u32> = (0..28).map(|i| i / 4 * 4 + 3 - i % 4).collect();
        index[5] = u32::MAX;
        let nodes = vec![
            node("input", at(2, 8), Op::Input),
            layer("pruned", at(4, 8), vec![(0, k3, 1, 2)], Activation::Tanh),
            node("largest", at(4, 4), Op::MaxPool { source: 1, window: two }),
            layer("depthwise", at(4, 4), vec![(2, k3, 4, 4)], Activation::Elu { alpha: 0.7 }),
            node("mean", at(4, 2), Op::AveragePool { source: 3, window: two, divisor: vec![4; 4] }),
            layer("side", at(3, 2), vec![(2, apart, 1, 4)], Activation::Sigmoid),
            node("both", mixed, Op::Concat { sources: vec![4, 5] }),
            node("turned", mixed, Op::Gather { source: 6, index }),
            layer("dense", at(5, 1), vec![(7, Window::whole(mixed), 1, 7)], Activation::Softplus),
            layer("out", at(3, 1), vec![(8, Window::POINT, 1, 5)], Activation::Linear),
        ];
        let network = Network {
            name: "all".into(),
            output: nodes.len() - 1,
            nodes,
            head: Head::None,
            layout: Layout::Nchw,
            input_scale: vec![1.0; 2],
            input_shift: vec![0.0; 2],
        };
        let kept = vec![0, 2, 3];
        let plan = Plan { kept: [(1, kept.clone()), (3, kept)].into(), ..Plan::default() };
        (network, plan)
    }

    #[test]
    fn gradients_are_those_of_the_error() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (network, plan) = network(&mut rng);
        let data = Dataset::uniform(network.input_shape(), 6, &[-1.0], &[1.0], 3).unwrap();
        let images = Images { data, scale: vec![1.0], shift: vec![0.0] };
        let (dev, options) = (Device::cpu(), options());
        let mut tuner = Tuner::new(&dev, &network, &images, &options, &plan, &Silent).unwrap();
        assert_eq!(tuner.targets.iter().map(|t| t.node).collect::<Vec<_>>(), [5, 8, 9]);
        let input = images.data.batch(0..6).unwrap();
        let gradients = tuner.gradients(tuner.see(6, &input).unwrap()).unwrap();
        let layers = tuner.layers();
        assert_eq!(layers, [1, 3, 5, 8, 9]);
        for (&i, gradients) in layers.iter().zip(&gradients) {
            for (k, gradient) in gradients.iter().enumerate() {
                // along a random direction; what is gone has no gradient and stays at zero
                let along: Vec<f64> =
                    gradient.iter().map(|g| if *g == 0.0 { 0.0 } else { rng.f64() - 0.5 + 0.5 * g.signum() }).collect();
                let mut errors = [0.0; 2];
                for (error, by) in errors.iter_mut().zip([2e-3, -2e-3]) {
                    let shift = |tuner: &mut Tuner, by: f64| {
                        let Op::Neurons { blocks, bias, .. } = &mut tuner.tuned.nodes[i].op else { panic!() };
                        let all = blocks.get_mut(k).map_or(bias, |block| &mut block.weight);
                        all.iter_mut().zip(&along).for_each(|(p, a)| *p += (by * a) as f32);
                    };
                    shift(&mut tuner, by);
                    *error = tuner.lacking().unwrap();
                    shift(&mut tuner, -by);
                }
                // the gradient is that of half the error
                let slope = (errors[0] - errors[1]) / 8e-3;
                let expected: f64 = gradient.iter().zip(&along).map(|(g, a)| g * a).sum();
                assert!((slope - expected).abs() < 0.02 * expected.abs(), "layer {i}, {k}: {slope}, {expected}");
            }
        }
        // the channel that went, and what reads it
        assert!(gradients[0][0][18..36].iter().all(|g| *g == 0.0) && gradients[0][1][1] == 0.0);
        assert!(gradients[1][0][9..18].iter().all(|g| *g == 0.0));
        assert!((0..3).all(|row| gradients[2][0][row * 4 + 1] == 0.0 && gradients[2][0][row * 4] != 0.0));
    }

    #[test]
    fn slopes_are_those_of_the_activations() {
        for activation in [
            Activation::Linear,
            Activation::Relu,
            Activation::Clip { lo: -0.5, hi: 0.8 },
            Activation::LeakyRelu { alpha: 0.2 },
            Activation::Elu { alpha: 1.3 },
            Activation::Sigmoid,
            Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
            Activation::Tanh,
            Activation::Softplus,
        ] {
            for z in [-3.1, -1.2, -0.3, 0.2, 0.7, 1.9, 4.0f64] {
                let (h, y) = (1e-5, activation.apply(z));
                let expected = (activation.apply(z + h) - activation.apply(z - h)) / (2.0 * h);
                let found = f64::from(slope(activation, y as f32));
                assert!((found - expected).abs() < 1e-4, "{activation:?} at {z}: {found}, {expected}");
            }
        }
    }
}
