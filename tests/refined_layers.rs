//! Pruned layers that are refined: what is left of them serves their readers better than the trained channels do.

mod common;

use common::networks::{self, K3, block, layer};
use synfit::chip::Chip;
use synfit::compute::Device;
use synfit::convert::{Conversion, Finished, Keep, Options, Settle, Silent, convert, resume, with_remainders};
use synfit::network::{Activation, Network, Node, Op, Shape, Window};
use synfit::spiking::{Schedule, SpikingOp};

const HALF: Window = Window { stride: [2, 2], ..K3 };

/// input 3x8x8 -> stem (6) -> inner (12) -> sum (8 x 4 x 4, reads inner with a stride and the stem over a shortcut) -> dense
/// (16, reads sum) -> readout (4).
fn network() -> Network {
    let at = |c: usize| Shape::new(c, 8, 8);
    let sum = Shape::new(8, 4, 4);
    let relu = Activation::Relu;
    let point = Window { stride: [2, 2], ..Window::POINT };
    let nodes = vec![
        Node { name: "input".into(), shape: at(3), op: Op::Input },
        layer("stem", at(6), vec![block(1, 0, K3, 3, 6, 1)], relu),
        layer("inner", at(12), vec![block(2, 1, K3, 6, 12, 1)], relu),
        layer("sum", sum, vec![block(3, 2, HALF, 12, 8, 1), block(4, 1, point, 6, 8, 1)], relu),
        layer("dense", Shape::new(16, 1, 1), vec![block(5, 3, Window::whole(sum), 8, 16, 1)], relu),
        layer("out", Shape::new(4, 1, 1), vec![block(6, 4, Window::POINT, 16, 4, 1)], Activation::Linear),
    ];
    networks::network("residual", nodes)
}

fn options(keep: &str, refine: bool) -> Options {
    let items: Vec<String> = keep.split(',').map(String::from).collect();
    let steps = 32;
    Options { keep: Keep::parse(&items).unwrap(), refine, steps, ..common::options(Chip::load("generic8").unwrap()) }
}

fn converted(dev: &Device, network: &Network, options: &Options) -> Conversion {
    let folder = tempfile::tempdir().unwrap();
    convert(dev, network, &networks::images(network, -1.0, 240, 3), options, folder.path(), &Silent).unwrap()
}

/// On images that nothing was fitted to.
fn error(network: &Network, conversion: &Conversion) -> f64 {
    networks::output_error(&Device::cpu(), network, &conversion.spiking, &networks::images(network, -1.0, 40, 4))
}

fn refined(conversion: &Conversion) -> Vec<Option<[f64; 2]>> {
    conversion.layers.iter().map(|l| l.pruned.and_then(|p| p.refined)).collect()
}

#[test]
fn readers_lack_less() {
    let network = network();
    let mut all = vec![];
    for dev in common::devices() {
        let [off, on] =
            [false, true].map(|refine| converted(dev, &network, &options("inner=6,dense=8,stem=5", refine)));
        assert!(refined(&off).iter().all(Option::is_none));
        let told = refined(&on);
        // the stem's second reader also reads a later layer; inner is read with a stride beside a shortcut, dense by the readout
        assert_eq!(told.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false, true, false]);
        for [before, after] in told.iter().flatten() {
            assert!(*after > 0.0 && after < before, "{before} -> {after} on {}", dev.info().name);
        }
        let [before, after] = told[1].unwrap();
        assert!(after < 0.9 * before, "{before} -> {after} on {}", dev.info().name);
        let errors = [error(&network, &off), error(&network, &on)];
        assert!(errors[1] < errors[0], "{errors:?} on {}", dev.info().name);
        all.push(told);
    }
    for (one, other) in all[0].iter().flatten().zip(all[1].iter().flatten()) {
        assert!(one.iter().zip(other).all(|(a, b)| (a - b).abs() < 0.01 * a), "{one:?} {other:?}");
    }
}

#[test]
fn a_resumed_conversion_refines_alike() {
    let (dev, network) = (Device::cpu(), network());
    let options = options("inner=6,dense=8", true);
    let whole = converted(&dev, &network, &options);
    let nodes = whole.spiking.nodes.iter().filter(|n| matches!(n.op, SpikingOp::Neurons(_))).cloned();
    let done: Vec<Finished> =
        nodes.zip(whole.layers.clone()).map(|(node, record)| Finished { node, record }).take(2).collect();
    let folder = tempfile::tempdir().unwrap();
    let again =
        resume(&dev, &network, &networks::images(&network, -1.0, 240, 3), &options, folder.path(), &Silent, done)
            .unwrap();
    assert_eq!(again.spiking, whole.spiking);
    assert_eq!(refined(&again), refined(&whole));
}

/// The remainder of a reader is no reader of its own.
#[test]
fn layers_of_remainders_are_refined_alike() {
    let plain = network();
    let network = with_remainders(&plain, false);
    let options = |refine| Options {
        schedule: Schedule::Layered,
        settle: Settle::Repeated(vec![0]),
        ..options("inner=6", refine)
    };
    let [off, on] = [false, true].map(|refine| converted(&Device::cpu(), &network, &options(refine)));
    let told = |name: &str| on.layers.iter().find(|l| l.name == name).and_then(|l| l.pruned?.refined);
    // the stem's remainder is heard over the shortcut, by the sum
    assert!(network.nodes.iter().any(|n| n.name == "stem.remainder"));
    let [before, after] = told("inner").unwrap();
    assert!(after < 0.9 * before, "{before} -> {after}");
    let errors = [&off, &on].map(|c| error(&network, c));
    assert!(errors[1] < errors[0], "{errors:?}");
}

/// Errors are not followed through pools: the layer keeps its trained channels' targets.
#[test]
fn a_layer_that_is_read_past_a_pool_is_left_alone() {
    let mut network = network();
    let pool = Window { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], pad: [0, 0] };
    network.nodes.insert(
        3,
        Node {
            name: "pool".into(),
            shape: Shape::new(12, 4, 4),
            op: Op::AveragePool { source: 2, window: pool, divisor: vec![4; 16] },
        },
    );
    let Op::Neurons { blocks, .. } = &mut network.nodes[4].op else { panic!() };
    *blocks = vec![block(3, 3, K3, 12, 8, 1)];
    for (node, source) in [(5, 4), (6, 5)] {
        let Op::Neurons { blocks, .. } = &mut network.nodes[node].op else { panic!() };
        blocks[0].source = source;
    }
    network.output = 6;
    let [off, on] = [false, true].map(|refine| converted(&Device::cpu(), &network, &options("inner=6", refine)));
    assert!(refined(&on).iter().all(Option::is_none));
    assert_eq!(off.spiking, on.spiking);
}
