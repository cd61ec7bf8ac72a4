//! Thresholds of channels that small synapses read, where weights are coarse.

mod common;

use common::networks::{self, block, layer};
use synfit::chip::Chip;
use synfit::compute::Device;
use synfit::convert::{Conversion, Options, Silent, convert};
use synfit::network::{Activation, Network, Node, Op, Shape, Window};

/// Of the channels of the first layer, those that are read by synapses of a sixth of the others' size.
const SMALL: usize = 12;

/// input 6 -> a (16) -> b (20) -> out (3).
fn network() -> Network {
    let dense = |c: usize| Shape::new(c, 1, 1);
    let mut read = block(2, 1, Window::POINT, 16, 20, 1);
    read.weight.iter_mut().enumerate().filter(|(i, _)| i % 16 < SMALL).for_each(|(_, w)| *w /= 6.0);
    let nodes = vec![
        Node { name: "input".into(), shape: dense(6), op: Op::Input },
        layer("a", dense(16), vec![block(1, 0, Window::POINT, 6, 16, 1)], Activation::Relu),
        layer("b", dense(20), vec![read], Activation::Relu),
        layer("out", dense(3), vec![block(3, 2, Window::POINT, 20, 3, 1)], Activation::Linear),
    ];
    networks::network("unlike", nodes)
}

fn converted(dev: &Device, network: &Network, bits: &str, equalize: bool) -> Conversion {
    let mut chip = Chip::load("generic8").unwrap();
    chip.weights.grid = Some(bits.parse().unwrap());
    let options = Options { equalize, steps: 64, ..common::options(chip) };
    let folder = tempfile::tempdir().unwrap();
    convert(dev, network, &networks::images(network, 0.0, 200, 3), &options, folder.path(), &Silent).unwrap()
}

#[test]
fn channels_of_small_synapses_are_counted_coarser() {
    let network = network();
    for dev in common::devices() {
        let [off, on] = [false, true].map(|equalize| converted(dev, &network, "3", equalize));
        let gain = |c: &Conversion, channel: usize| c.spiking.nodes[1].decode.gain[channel];
        let raised: Vec<f64> = (0..16).map(|c| gain(&on, c) / gain(&off, c)).collect();
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        assert!(raised.iter().all(|r| *r > 0.999 && *r < 5.0), "{raised:?}");
        assert!(mean(&raised[..SMALL]) > 1.8 * mean(&raised[SMALL..]), "{raised:?}");
        let (few, many) = (on.layers[0].rate.unwrap(), off.layers[0].rate.unwrap());
        assert!(few < 0.9 * many, "{few} {many}");
        // what the readers' weights lack of the targets
        let lacks = |c: &Conversion| c.layers[1].error.grid - c.layers[1].error.fit;
        assert!(lacks(&on) < 0.8 * lacks(&off), "{} {} on {}", lacks(&off), lacks(&on), dev.info().name);
    }
}

#[test]
fn fine_weights_leave_them() {
    let (dev, network) = (Device::cpu(), network());
    let [off, on] = [false, true].map(|equalize| converted(&dev, &network, "8", equalize));
    assert_eq!(on.spiking, off.spiking);
}
