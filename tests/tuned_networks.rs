//! Pruned networks that are tuned end to end: outputs that lack less, whatever the device; the same again.

mod common;

use common::networks::{self, K3, block, layer};
use synfit::chip::Chip;
use synfit::compare::{Decision, Trial, compare, compare_tuned};
use synfit::compute::Device;
use synfit::convert::{Conversion, Finished, Keep, Options, Settle, Silent, convert, resume, with_remainders};
use synfit::forward::Forward;
use synfit::network::{Activation, Network, Node, Op, Shape, Window};
use synfit::spiking::{Schedule, SpikingOp};

/// input 3x8x8 -> stem (6) -> inner (12) -> pool -> sum (8 x 4 x 4, reads the pool, and the stem over a shortcut) -> dense (16)
/// -> readout (4).
fn network() -> Network {
    let at = |c: usize, side: usize| Shape::new(c, side, side);
    let relu = Activation::Relu;
    let point = Window { stride: [2, 2], ..Window::POINT };
    let half = Window { kernel: [2, 2], stride: [2, 2], ..Window::POINT };
    let pool = Op::AveragePool { source: 2, window: half, divisor: vec![4; 16] };
    let nodes = vec![
        Node { name: "input".into(), shape: at(3, 8), op: Op::Input },
        layer("stem", at(6, 8), vec![block(1, 0, K3, 3, 6, 1)], relu),
        layer("inner", at(12, 8), vec![block(2, 1, K3, 6, 12, 1)], relu),
        Node { name: "pool".into(), shape: at(12, 4), op: pool },
        layer("sum", at(8, 4), vec![block(3, 3, K3, 12, 8, 1), block(4, 1, point, 6, 8, 1)], relu),
        layer("dense", at(16, 1), vec![block(5, 4, Window::whole(at(8, 4)), 8, 16, 1)], relu),
        layer("out", at(4, 1), vec![block(6, 5, Window::POINT, 16, 4, 1)], Activation::Linear),
    ];
    networks::network("residual", nodes)
}

fn options(keep: &str, tune: usize) -> Options {
    let items: Vec<String> = keep.split(',').filter(|s| !s.is_empty()).map(String::from).collect();
    let chip = Chip::load("generic8").unwrap();
    Options { keep: Keep::parse(&items).unwrap(), tune, steps: 64, ..common::options(chip) }
}

fn converted(dev: &Device, network: &Network, options: &Options) -> Conversion {
    let folder = tempfile::tempdir().unwrap();
    convert(dev, network, &networks::images(network, -1.0, 96, 3), options, folder.path(), &Silent).unwrap()
}

/// On images that nothing was fitted to.
fn error(network: &Network, conversion: &Conversion) -> f64 {
    networks::output_error(&Device::cpu(), network, &conversion.spiking, &networks::images(network, -1.0, 60, 4))
}

fn tuned(conversion: &Conversion) -> Option<[f64; 2]> {
    conversion.layers.iter().find_map(|l| l.pruned?.tuned)
}

#[test]
fn a_pruned_network_lacks_less() {
    let (network, dev) = (network(), Device::cpu());
    let [off, on] = [0, 60].map(|passes| converted(&dev, &network, &options("inner=6,dense=8", passes)));
    assert_eq!(tuned(&off), None);
    let [before, after] = tuned(&on).unwrap();
    assert!(after < 0.7 * before, "{before} -> {after}");
    // what was tuned is refined no further
    assert!(on.layers.iter().all(|l| l.pruned.is_none_or(|p| p.refined.is_none())));
    let errors = [error(&network, &off), error(&network, &on)];
    assert!(errors[1] < 0.9 * errors[0], "{errors:?}");
    assert!(off.tuned.is_none());
    lacks_before_conversion_what_its_outputs_do(&network, &on);
}

fn lacks_before_conversion_what_its_outputs_do(network: &Network, on: &Conversion) {
    let (dev, spiking, tuned) = (Device::cpu(), &on.spiking, on.tuned.as_ref().unwrap());
    let images = networks::images(network, -1.0, 60, 4);
    let raw = images.data.batch(0..60).unwrap();
    let [wanted, given] = [network, tuned].map(|net| Forward::new(&dev, net).unwrap().run(&dev, 60, &raw).unwrap());
    let labels: Vec<i64> = wanted.chunks(4).map(|a| Decision::Argmax.of(a).unwrap() as i64).collect();
    let trial = Trial { network, images: &images, labels: Some(&labels), decision: Decision::Argmax };
    // a budget of several batches
    let record = compare_tuned(&dev, tuned, spiking, &trial, 1 << 20, &Silent).unwrap();
    let mean = wanted.iter().map(|v| f64::from(*v)).sum::<f64>() / wanted.len() as f64;
    let spread: f64 = wanted.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum();
    let off: f64 = wanted.iter().zip(&given).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    assert!((record.relative_error - (off / spread).sqrt()).abs() < 1e-4 * record.relative_error, "{record:?}");
    let alike =
        given.chunks(4).zip(&labels).filter(|(b, label)| Decision::Argmax.of(b) == Some(**label as usize)).count();
    assert_eq!(record.agreement, Some(alike as f64 / 60.0));
    assert_eq!(record.accuracy, record.agreement);
    let spiking = compare(&dev, spiking, &trial, 1 << 20, &Silent).unwrap();
    assert!(record.relative_error < spiking.relative_error, "{record:?}, {spiking:?}");
}

#[test]
fn devices_tune_alike() {
    let network = network();
    let options = Options { steps: 4, ..options("inner=6,dense=8", 20) };
    let told = common::devices().iter().map(|dev| tuned(&converted(dev, &network, &options)).unwrap());
    let told: Vec<[f64; 2]> = told.collect();
    for [before, after] in &told {
        assert!(after < before, "{told:?}");
        // steps of Adam grow what devices round differently
        assert!((before - told[0][0]).abs() < 1e-3 * before && (after - told[0][1]).abs() < 1e-3 * after, "{told:?}");
    }
}

#[test]
fn nothing_to_prune_is_nothing_to_tune() {
    let network = network();
    let [off, on] = [0, 5].map(|passes| converted(&Device::cpu(), &network, &options("", passes)));
    assert_eq!(off.spiking, on.spiking);
}

#[test]
fn a_resumed_conversion_is_tuned_alike() {
    let (dev, network) = (Device::cpu(), network());
    let options = options("inner=6,dense=8", 30);
    let whole = converted(&dev, &network, &options);
    assert!(tuned(&whole).is_some());
    let nodes = whole.spiking.nodes.iter().filter(|n| matches!(n.op, SpikingOp::Neurons(_))).cloned();
    let done: Vec<Finished> =
        nodes.zip(whole.layers.clone()).map(|(node, record)| Finished { node, record }).take(2).collect();
    let folder = tempfile::tempdir().unwrap();
    let images = networks::images(&network, -1.0, 96, 3);
    let again = resume(&dev, &network, &images, &options, folder.path(), &Silent, done).unwrap();
    assert_eq!(again.spiking, whole.spiking);
    assert_eq!(tuned(&again), tuned(&whole));
}

/// Remainder layers follow what is tuned.
#[test]
fn a_network_with_remainders_gains_as_well() {
    let plain = network();
    let network = with_remainders(&plain, false);
    assert!(network.nodes.iter().any(|n| n.name == "stem.remainder"));
    let options = |passes| Options {
        schedule: Schedule::Layered,
        settle: Settle::Repeated(vec![0]),
        ..options("stem=5,inner=6", passes)
    };
    let [off, on] = [0, 60].map(|passes| converted(&Device::cpu(), &network, &options(passes)));
    let errors = [&off, &on].map(|c| error(&network, c));
    assert!(errors[1] < 0.9 * errors[0], "{errors:?}");
}
