//! How much the network's outputs feel of an error in a layer's pre-activations: errors of two channels that look alike to
//! the layer may be worlds apart at the output.

use super::super::backward::{Backward, Gradients, kept_values};
use super::super::worker::images_within;
use super::super::{go_on, pieces, remainder};
use super::survey::Survey;
use crate::error::Result;
use crate::forward::Forward;
use crate::network::{Network, Op};

/// Images that it is measured on, evenly spaced: each tells of all its positions.
const IMAGES: usize = 256;

impl Survey<'_> {
    /// Per node and channel: sum over the outputs y of (dy / dz)^2, z the channel's pre-activation, mean over images and
    /// positions; outputs that are compared with each other less their mean. Zero for nodes without neurons. The sum over
    /// outputs is estimated by one random combination of them for each image (Hutchinson).
    ///
    /// # Errors
    /// A broken device, an interrupt.
    pub fn sensitivity(&self) -> Result<Vec<Vec<f64>>> {
        let (network, dev) = (self.network, self.team.first());
        let nodes = &network.nodes;
        let all = self.images.len();
        let count = all.min(IMAGES);
        let per_image: u64 = nodes.iter().map(|n| n.shape.len() as u64 * size_of::<f32>() as u64).sum();
        // values, and a gradient of each
        let batch = images_within(dev, self.options, 2 * per_image, count);
        let forward = Forward::new(dev, network)?;
        let wanted: Vec<bool> = (0..nodes.len()).map(|i| i > 0).collect();
        let mut rng = fastrand::Rng::with_seed(self.options.seed);
        let mut squares: Vec<Vec<f64>> = nodes.iter().map(|n| vec![0.0; n.shape.c]).collect();
        let ranges: Vec<_> = pieces(0..count, batch).collect();
        self.watch.stage("sensitivity", ranges.len() as u64);
        for range in ranges {
            go_on(self.watch)?;
            let images = range.len();
            let mut input = Vec::new();
            for k in range {
                let at = k * all / count;
                input.extend(self.images.preprocess(&self.images.data.batch(at..at + 1)?));
            }
            let values = kept_values(dev, &forward, images, &input, &vec![true; nodes.len()], |_, _| Ok(()))?;
            let outputs = nodes[network.output].shape.len();
            let mut of: Gradients = nodes.iter().map(|_| None).collect();
            let mut one = || -> Vec<f32> {
                let signs: Vec<f32> = (0..outputs).map(|_| if rng.bool() { 1.0 } else { -1.0 }).collect();
                let compared = self.options.decides && outputs > 1;
                let mean = if compared { signs.iter().sum::<f32>() / outputs as f32 } else { 0.0 };
                signs.into_iter().map(|s| s - mean).collect()
            };
            of[network.output] = Some((0..images).flat_map(|_| one()).collect());
            Backward { dev, network, wanted: &wanted }.run(images, &values, of, |i, given| {
                let shape = nodes[i].shape;
                for (plane, values) in dev.view(given)?.chunks_exact(shape.area()).enumerate() {
                    squares[i][plane % shape.c] += values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
                }
                Ok(())
            })?;
            self.watch.tick();
        }
        for (i, node) in nodes.iter().enumerate() {
            let samples = (count * node.shape.area()).max(1) as f64;
            squares[i].iter_mut().for_each(|s| *s /= samples);
        }
        followed(network, &mut squares);
        Ok(squares)
    }
}

/// A remainder layer's errors are felt as those of the layer that it follows.
fn followed(network: &Network, squares: &mut [Vec<f64>]) {
    for i in 1..network.nodes.len() {
        let Op::Neurons { blocks, .. } = &network.nodes[i].op else { continue };
        if remainder::of(network, i).is_some()
            && let Some(own) = blocks.last()
        {
            squares[i] = squares[own.source].clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Images, Options, Silent};
    use super::*;
    use crate::compute::{Device, Team};
    use crate::network::{Activation, Block, Dataset, Head, Layout, Node, Shape, Window};

    /// input 3x4x4 -> conv (4) -> mean pool -> dense (5, tanh) -> out (3).
    fn network() -> Network {
        let mut rng = fastrand::Rng::with_seed(8);
        let mut real = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.f32() - 0.5).collect() };
        let k3 = Window { kernel: [3, 3], pad: [1, 1], ..Window::POINT };
        let two = Window { kernel: [2, 2], stride: [2, 2], ..Window::POINT };
        let mut layer = |shape: Shape, source: usize, window: Window, ins: usize, activation: Activation| {
            let block = Block { source, window, groups: 1, weight: real(shape.c * ins * window.taps()) };
            let op = Op::Neurons { blocks: vec![block], bias: real(shape.c), activation };
            Node { name: format!("{shape:?}"), shape, op }
        };
        let pooled = Shape::new(4, 2, 2);
        let nodes = vec![
            Node { name: "input".into(), shape: Shape::new(3, 4, 4), op: Op::Input },
            layer(Shape::new(4, 4, 4), 0, k3, 3, Activation::Relu),
            Node {
                name: "pool".into(),
                shape: pooled,
                op: Op::AveragePool { source: 1, window: two, divisor: vec![4; 4] },
            },
            layer(Shape::new(5, 1, 1), 2, Window::whole(pooled), 4, Activation::Tanh),
            layer(Shape::new(3, 1, 1), 3, Window::POINT, 5, Activation::Linear),
        ];
        Network {
            name: "small".into(),
            output: 4,
            nodes,
            head: Head::None,
            layout: Layout::Nchw,
            input_scale: vec![1.0; 3],
            input_shift: vec![0.0; 3],
        }
    }

    /// Against finite differences of the biases: exact for a dense layer but for the random signs.
    #[test]
    fn it_is_the_mean_square_of_the_outputs_slopes() {
        let network = network();
        let data = Dataset::uniform(network.input_shape(), 256, &[-1.0], &[1.0], 3).unwrap();
        let images = Images { data, scale: vec![1.0], shift: vec![0.0] };
        let dev = Device::cpu();
        let input = images.data.batch(0..256).unwrap();
        let outputs = |network: &Network| {
            let out = Forward::new(&dev, network).unwrap().visit(&dev, 256, &input, |_, _, _| Ok(())).unwrap();
            dev.download(&out).unwrap()
        };
        for compared in [false, true] {
            let options = Options { decides: compared, ..Options::plain("generic8") };
            let team = Team::from(&dev);
            let survey = Survey { team: &team, network: &network, images: &images, options: &options, watch: &Silent };
            let felt = survey.sensitivity().unwrap();
            assert!(felt[0].iter().chain(&felt[2]).all(|f| *f == 0.0) && felt[1].iter().all(|f| *f > 0.0));
            for layer in [3, 4] {
                for channel in 0..network.nodes[layer].shape.c {
                    let mut moved = [network.clone(), network.clone()];
                    for (network, by) in moved.iter_mut().zip([1e-2, -1e-2]) {
                        let Op::Neurons { bias, .. } = &mut network.nodes[layer].op else { panic!() };
                        bias[channel] += by;
                    }
                    let [up, down] = moved.map(|n| outputs(&n));
                    let slopes: Vec<f64> = up.iter().zip(&down).map(|(a, b)| f64::from(a - b) / 2e-2).collect();
                    let image = |y: &[f64]| {
                        let mean = if compared { y.iter().sum::<f64>() / 3.0 } else { 0.0 };
                        y.iter().map(|y| (y - mean).powi(2)).sum::<f64>()
                    };
                    let expected = slopes.chunks_exact(3).map(image).sum::<f64>() / 256.0;
                    let found = felt[layer][channel];
                    assert!(
                        (found - expected).abs() < 0.25 * expected,
                        "{compared} {layer} {channel}: {found}, {expected}"
                    );
                }
            }
        }
    }
}
