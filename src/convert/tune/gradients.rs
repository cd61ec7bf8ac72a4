//! Gradients of the tuned network's parameters: from the targets back through its nodes.

use rayon::prelude::*;

use super::super::backward::{Backward, Gradients};
use super::{Seen, Tuner};
use crate::compute::Buffer;
use crate::error::Result;

/// A layer's gradient, or a step of its parameters.
pub(super) struct Gradient {
    /// Rows x inputs of all blocks but those that read remainders.
    pub weights: Vec<f64>,
    pub bias: Vec<f64>,
}

impl Tuner<'_> {
    /// Of each layer that is tuned; zero for what is gone.
    pub(super) fn gradients(&self, seen: Seen) -> Result<Vec<Gradient>> {
        let (dev, images, nodes) = (self.dev, seen.images, &self.tuned.nodes);
        let mut of: Gradients = nodes.iter().map(|_| None).collect();
        for (target, wanted) in self.targets.iter().zip(&seen.wanted) {
            let unit = (target.unit / images as f64) as f32;
            let given = dev.view(self.value(&seen.values, target.node)?)?;
            of[target.node] =
                Some(given.par_iter().zip(wanted).map(|(given, wanted)| unit * (given - wanted)).collect());
        }
        let mut found = vec![];
        Backward { dev, network: &self.tuned, wanted: &self.late }.run(images, &seen.values, of, |i, given| {
            found.push(self.of_layer(i, images, &seen.values, given)?);
            Ok(())
        })?;
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
    ) -> Result<Gradient> {
        let mut sums = self.moments(i)?.targets_only();
        sums.add(images, &self.inputs(i, values)?, given)?;
        let mut sums = sums.finish()?;
        let gone = sums.b.iter_mut().zip(&self.masks[i]).filter(|(_, stays)| !**stays);
        gone.for_each(|(g, _)| *g = 0.0);
        let gone = sums.z_sum.iter_mut().zip(&self.stays[i]).filter(|(_, stays)| !**stays);
        gone.for_each(|(g, _)| *g = 0.0);
        Ok(Gradient { weights: sums.b, bias: sums.z_sum })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::prune::Plan;
    use super::super::super::{Images, Options, Silent};
    use super::*;
    use crate::compute::Device;
    use crate::network::{Activation, Block, Dataset, Head, Layout, Network, Node, Op, Shape, Window};

    /// All kinds of nodes, of which the first layer, and with it the depthwise one, loses a channel.
    pub fn network(rng: &mut fastrand::Rng) -> (Network, Plan) {
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
        let (dev, options) = (Device::cpu(), Options { tune: 1, ..Options::plain("generic8") });
        let mut tuner = Tuner::new(&dev, &network, &images, &options, &plan, &Silent).unwrap();
        assert_eq!(tuner.targets.iter().map(|t| t.node).collect::<Vec<_>>(), [5, 8, 9]);
        let input = images.data.batch(0..6).unwrap();
        let gradients = tuner.gradients(tuner.see(6, &input).unwrap()).unwrap();
        let layers = tuner.layers();
        assert_eq!(layers, [1, 3, 5, 8, 9]);
        for (&i, gradient) in layers.iter().zip(&gradients) {
            // along a random direction; what is gone has no gradient and stays at zero
            let mut along = |of: &[f64]| -> Vec<f64> {
                of.iter().map(|g| if *g == 0.0 { 0.0 } else { rng.f64() - 0.5 + 0.5 * g.signum() }).collect()
            };
            let none = |of: &[f64]| vec![0.0; of.len()];
            let directions = [
                Gradient { weights: along(&gradient.weights), bias: none(&gradient.bias) },
                Gradient { weights: none(&gradient.weights), bias: along(&gradient.bias) },
            ];
            for (k, along) in directions.iter().enumerate() {
                let mut errors = [0.0; 2];
                for (error, by) in errors.iter_mut().zip([2e-3, -2e-3]) {
                    let times = |by: f64| {
                        let scaled = |of: &[f64]| of.iter().map(|a| by * a).collect();
                        Gradient { weights: scaled(&along.weights), bias: scaled(&along.bias) }
                    };
                    tuner.moved(i, &times(by));
                    *error = tuner.lacking().unwrap();
                    tuner.moved(i, &times(-by));
                }
                // the gradient is that of half the error
                let slope = (errors[0] - errors[1]) / 8e-3;
                let product = |g: &[f64], a: &[f64]| g.iter().zip(a).map(|(g, a)| g * a).sum::<f64>();
                let expected = product(&gradient.weights, &along.weights) + product(&gradient.bias, &along.bias);
                assert!((slope - expected).abs() < 0.02 * expected.abs(), "layer {i}, {k}: {slope}, {expected}");
            }
        }
        // the channel that went, and what reads it
        assert!(gradients[0].weights[18..36].iter().all(|g| *g == 0.0) && gradients[0].bias[1] == 0.0);
        assert!(gradients[1].weights[9..18].iter().all(|g| *g == 0.0));
        let weights = &gradients[2].weights;
        assert!((0..3).all(|row| weights[row * 4 + 1] == 0.0 && weights[row * 4] != 0.0));
    }
}
