//! Readouts whose biases are far larger than what their synapses bring: over many steps they leave 32 bits.

mod common;

use common::networks::{self, block, layer};
use synfit::chip::Chip;
use synfit::convert::{Options, Silent, convert};
use synfit::network::{Activation, Network, Node, Op, Shape, Window};
use synfit::spiking::SpikingNetwork;

/// input (6) -> hidden (12) -> readout (3) with biases of about `size`.
fn network(size: f32) -> Network {
    let vector = |c: usize| Shape::new(c, 1, 1);
    let mut nodes = vec![
        Node { name: "input".into(), shape: vector(6), op: Op::Input },
        layer("hidden", vector(12), vec![block(1, 0, Window::POINT, 6, 12, 1)], Activation::Relu),
        layer("out", vector(3), vec![block(2, 1, Window::POINT, 12, 3, 1)], Activation::Linear),
    ];
    if let Op::Neurons { bias, .. } = &mut nodes[2].op {
        *bias = vec![size, -size, 0.5 * size];
    }
    networks::network("biased", nodes)
}

#[test]
fn outputs_hold_whatever_the_biases_and_steps() {
    let dev = &common::devices()[0];
    for (steps, size) in [(64, 0.1), (256, 100.0), (64, 1000.0)] {
        let network = network(size);
        let images = networks::images(&network, -1.0, 64, 3);
        let options = Options { steps, ..common::options(Chip::load("generic8").unwrap()) };
        let folder = tempfile::tempdir().unwrap();
        let spiking = convert(dev, &network, &images, &options, folder.path(), &Silent).unwrap().spiking;
        // run for longer than it was made for, too
        for times in [1, 16] {
            let spiking = SpikingNetwork { steps: times * steps, ..spiking.clone() };
            for dev in common::devices() {
                let error = networks::output_error(dev, &network, &spiking, &images);
                assert!(error < 0.05, "biases of {size}, {times} x {steps} steps on {dev:?}: {error}");
            }
        }
    }
}
