//! Small networks of random weights, and random images for them.

use synfit::compute::Device;
use synfit::convert::Images;
use synfit::forward::Forward;
use synfit::network::{Activation, Block, Dataset, Head, Layout, Network, Node, Op, Shape, Window};
use synfit::spiking::{SpikingNetwork, simulate};

use super::{reals, relative_error};

/// A 3 x 3 window that keeps the map's size.
pub const K3: Window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };

/// Weights for outputs of about their inputs' size.
pub fn block(seed: u64, source: usize, window: Window, from: usize, to: usize, groups: usize) -> Block {
    let fan = from / groups * window.taps();
    let scale = (3.0 / fan as f32).sqrt();
    let weight = reals(seed, to * fan).iter().map(|v| v * scale).collect();
    Block { source, window, groups, weight }
}

/// A layer with small biases.
pub fn layer(name: &str, shape: Shape, blocks: Vec<Block>, activation: Activation) -> Node {
    let bias = reals(shape.len() as u64, shape.c).iter().map(|v| 0.1 * v).collect();
    Node { name: name.into(), shape, op: Op::Neurons { blocks, bias, activation } }
}

/// The nodes as a network whose output is the last one.
pub fn network(name: &str, nodes: Vec<Node>) -> Network {
    let channels = nodes[0].shape.c;
    Network {
        name: name.into(),
        output: nodes.len() - 1,
        nodes,
        head: Head::None,
        layout: Layout::Nchw,
        input_scale: vec![1.0; channels],
        input_shift: vec![0.0; channels],
    }
}

/// Random images from `low` to 1.
pub fn images(network: &Network, low: f32, count: usize, seed: u64) -> Images {
    let data = Dataset::uniform(network.input_shape(), count, &[low], &[1.0], seed).unwrap();
    Images { data, scale: vec![1.0], shift: vec![0.0] }
}

/// Relative error of the spiking outputs, less their means over the images, on `images`.
pub fn output_error(dev: &Device, network: &Network, spiking: &SpikingNetwork, images: &Images) -> f64 {
    let count = images.len();
    let raw = images.data.batch(0..count).unwrap();
    let simulation = simulate::Simulation::new(dev, spiking).unwrap();
    let found = simulation.run(dev, count, &raw, &mut simulate::Activity::default()).unwrap();
    let trained = Forward::new(dev, network).unwrap().run(dev, count, &raw).unwrap();
    let centred = |values: Vec<f32>| -> Vec<f64> {
        let outputs = values.len() / count;
        let mean = |o: usize| values.iter().skip(o).step_by(outputs).map(|v| f64::from(*v)).sum::<f64>() / count as f64;
        let means: Vec<f64> = (0..outputs).map(mean).collect();
        values.iter().zip(means.iter().cycle()).map(|(v, mean)| f64::from(*v) - mean).collect()
    };
    relative_error(&centred(found), &centred(trained))
}
