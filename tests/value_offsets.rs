//! Rectified units that never rest: neurons begin to fire where their values begin.

mod common;

use common::networks::{self, block};
use synfit::chip::Chip;
use synfit::compute::Device;
use synfit::convert::{Conversion, Options, Silent, convert};
use synfit::network::{Activation, Block, Network, Node, Op, Shape, Window};

/// input 2x6x6 -> a (8; biases of 5, so that seven of its units never rest; the last one never fires) -> pool -> b (6, reads
/// the pool with a window of 2 and `pad`) -> readout (3).
fn network(pad: isize) -> Network {
    let relu = |name: &str, shape: Shape, bias: Vec<f32>, blocks: Vec<Block>| {
        let op = Op::Neurons { blocks, bias, activation: Activation::Relu };
        Node { name: name.into(), shape, op }
    };
    let mut bias = vec![5.0; 8];
    bias[7] = -9.0;
    let two = Window { kernel: [2, 2], ..Window::POINT };
    let read = Shape::new(6, 2 + pad as usize, 2 + pad as usize);
    let pool = Window { stride: [2, 2], ..two };
    let mut nodes = vec![
        Node { name: "input".into(), shape: Shape::new(2, 6, 6), op: Op::Input },
        relu("a", Shape::new(8, 6, 6), bias, vec![block(1, 0, Window::POINT, 2, 8, 1)]),
        Node {
            name: "pool".into(),
            shape: Shape::new(8, 3, 3),
            op: Op::AveragePool { source: 1, window: pool, divisor: vec![4; 9] },
        },
        relu("b", read, vec![0.2; 6], vec![block(2, 2, Window { pad: [pad, pad], ..two }, 8, 6, 1)]),
        relu("out", Shape::new(3, 1, 1), vec![0.0; 3], vec![block(3, 3, Window::whole(read), 6, 3, 1)]),
    ];
    let Op::Neurons { activation, .. } = &mut nodes[4].op else { panic!() };
    *activation = Activation::Linear;
    networks::network("never at rest", nodes)
}

fn converted(dev: &Device, network: &Network, offset: bool, chip: &str) -> Conversion {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { offset, ..common::options(Chip::load(chip).unwrap()) };
    convert(dev, network, &networks::images(network, -1.0, 100, 3), &options, folder.path(), &Silent).unwrap()
}

/// On images that nothing was fitted to.
fn error(dev: &Device, network: &Network, conversion: &Conversion) -> f64 {
    networks::output_error(dev, network, &conversion.spiking, &networks::images(network, -1.0, 60, 4))
}

#[test]
fn counts_divide_the_range_that_there_is() {
    let network = network(0);
    for dev in common::devices() {
        let [off, on] = [false, true].map(|offset| converted(dev, &network, offset, "generic8"));
        let base = &on.spiking.nodes[1].decode.base;
        assert!(base[..7].iter().all(|b| *b > 1.0 && *b < 5.0), "{base:?}");
        // the one that never fires stands for zero
        assert_eq!(base[7], 0.0);
        assert!(off.spiking.nodes[1].decode.base.iter().all(|b| *b == 0.0));
        let response = |c: &Conversion| c.layers[0].response_error.unwrap();
        assert!(response(&on) < 0.5 * response(&off), "{} {}", response(&off), response(&on));
        assert!(on.layers[0].rate.unwrap() < off.layers[0].rate.unwrap());
        let errors = [&off, &on].map(|c| error(dev, &network, c));
        assert!(errors[1] < 0.8 * errors[0], "{errors:?}");
    }
}

#[test]
fn they_begin_at_zero_where_zeros_are_read_beyond_the_map_or_biases_are_narrow() {
    let dev = Device::cpu();
    let padded = network(1);
    let [off, on] = [false, true].map(|offset| converted(&dev, &padded, offset, "generic8"));
    assert!(on.spiking.nodes[1].decode.base.iter().all(|b| *b == 0.0));
    assert_eq!(on.spiking.nodes[1], off.spiking.nodes[1]);
    let plain = network(0);
    let [off, on] = [false, true].map(|offset| converted(&dev, &plain, offset, "speck"));
    assert_eq!(on.spiking, off.spiking);
}
