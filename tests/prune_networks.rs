//! Smaller spiking networks from networks that tie channels together: skip connections, concatenations, depthwise
//! layers, rearrangements; what can be pruned and what cannot; sizes by name, place, share and total.

mod common;

use common::networks::{self, K3, block, layer};
use synfit::chip::Chip;
use synfit::compute::Device;
use synfit::convert::{
    Choose, Conversion, Former, Images, Keep, Options, Settle, Silent, convert, smaller, sweep, with_remainders,
};
use synfit::error::Result;
use synfit::network::{Activation, Block, Network, Node, Op, Shape, Window};
use synfit::spiking::{Schedule, SpikingOp, simulate};

/// input 3x8x8 -> a (8) -> skip: b (12, reads a and the input) -> depthwise d (12) -> concat (a, d) -> permuted -> pool ->
/// dense e (10) -> readout (4).
fn network() -> Network {
    let at = |c: usize| Shape::new(c, 8, 8);
    let relu = Activation::Relu;
    let nodes = vec![
        Node { name: "input".into(), shape: at(3), op: Op::Input },
        layer("a", at(8), vec![block(1, 0, K3, 3, 8, 1)], relu),
        layer("b", at(12), vec![block(2, 1, K3, 8, 12, 1), block(3, 0, Window::POINT, 3, 12, 1)], relu),
        layer("d", at(12), vec![block(4, 2, K3, 12, 12, 12)], relu),
        Node { name: "cat".into(), shape: at(20), op: Op::Concat { sources: vec![1, 3] } },
        Node {
            name: "turned".into(),
            shape: at(20),
            op: Op::Gather { source: 4, index: (0..20 * 64).map(|i| ((19 - i / 64) * 64 + i % 64) as u32).collect() },
        },
        Node {
            name: "pool".into(),
            shape: Shape::new(20, 4, 4),
            op: Op::MaxPool {
                source: 5,
                window: Window { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], pad: [0, 0] },
            },
        },
        layer("e", Shape::new(10, 1, 1), vec![block(5, 6, Window::whole(Shape::new(20, 4, 4)), 20, 10, 1)], relu),
        layer("out", Shape::new(4, 1, 1), vec![block(6, 7, Window::POINT, 10, 4, 1)], Activation::Linear),
    ];
    networks::network("tied", nodes)
}

fn images(network: &Network) -> Images {
    networks::images(network, 0.0, 60, 3)
}

fn options(keep: &str) -> Options {
    let items: Vec<String> = keep.split(',').filter(|k| !k.is_empty()).map(String::from).collect();
    Options { keep: Keep::parse(&items).unwrap(), ..common::options(Chip::load("generic8").unwrap()) }
}

fn converted(dev: &Device, network: &Network, keep: &str) -> Result<Conversion> {
    let folder = tempfile::tempdir().unwrap();
    convert(dev, network, &images(network), &options(keep), folder.path(), &Silent)
}

fn channels(conversion: &Conversion) -> Vec<usize> {
    conversion.spiking.nodes.iter().map(|n| n.shape.c).collect()
}

fn refused(network: &Network, keep: &str, words: &str) {
    let error = converted(&Device::cpu(), network, keep).err().unwrap();
    assert!(error.kind == synfit::error::Kind::Input && error.to_string().contains(words), "{keep}: {error}");
}

#[test]
fn channels_go_with_what_reads_them() {
    for dev in common::devices() {
        let network = network();
        let c = converted(dev, &network, "a=5,conv2=50%,fc1=7").unwrap();
        // d follows b; the concatenation and what comes of it hold what is left of a and d
        assert_eq!(channels(&c), [3, 5, 6, 6, 11, 11, 11, 7, 4]);
        c.spiking.check().unwrap();
        let origin = |i: usize| c.spiking.nodes[i].decode.origin.clone();
        assert_eq!(origin(2), origin(3));
        let joined: Vec<u32> = origin(1).into_iter().chain(origin(3).iter().map(|o| o + 8)).collect();
        assert_eq!(origin(4), joined);
        // the rearrangement turns the order of channels
        let mut turned: Vec<u32> = joined.iter().map(|o| 19 - o).collect();
        turned.sort_unstable();
        assert_eq!(origin(5), turned);
        // synapses, biases and thresholds went with them
        let SpikingOp::Neurons(b) = &c.spiking.nodes[2].op else { panic!() };
        assert_eq!(b.synapses.iter().map(|s| s.weight.len()).collect::<Vec<_>>(), [6 * 5 * 9, 6 * 3]);
        let pruned: Vec<_> = c.layers.iter().map(|l| l.pruned.map(|p| (p.kept, p.of))).collect();
        assert_eq!(pruned, [Some((5, 8)), Some((6, 12)), Some((6, 12)), Some((7, 10)), None]);
        // it runs, and says about the same as the whole network
        let whole = converted(dev, &network, "").unwrap();
        let raw = images(&network).data.batch(0..20).unwrap();
        let run = |c: &Conversion| {
            let simulation = simulate::Simulation::new(dev, &c.spiking).unwrap();
            simulation.run(dev, 20, &raw, &mut simulate::Activity::default()).unwrap()
        };
        let [small, large] = [run(&c), run(&whole)].map(|v| v.into_iter().map(f64::from).collect::<Vec<_>>());
        assert!(common::relative_error(&small, &large) < 0.35, "{}", common::relative_error(&small, &large));
    }
}

#[test]
fn a_refit_makes_up_for_more_than_an_arbitrary_choice() {
    let network = network();
    let cost = |choose: Choose| -> f64 {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { prune: choose, ..options("0.5") };
        let c = convert(&Device::cpu(), &network, &images(&network), &options, folder.path(), &Silent).unwrap();
        assert_eq!(channels(&c), [3, 4, 6, 6, 10, 10, 10, 5, 4]);
        c.layers.iter().filter_map(|l| l.pruned?.cost).sum()
    };
    let ours = cost(Choose::Optimal);
    assert!(cost(Choose::Exact) <= ours * (1.0 + 1e-9));
    assert!(ours < cost(Choose::Rate) && ours < cost(Choose::Magnitude));
}

/// Two nodes with a reader each: the outputs feel a hundred times less of the one that gives its reader four times as much.
#[test]
fn what_the_outputs_do_not_feel_goes_first() {
    let dense = |name: &str, source: usize, weight: [f32; 4], activation: Activation| {
        let block = Block { source, window: Window::POINT, groups: 1, weight: weight.to_vec() };
        let op = Op::Neurons { blocks: vec![block], bias: vec![0.0; 2], activation };
        Node { name: name.into(), shape: Shape::new(2, 1, 1), op }
    };
    let nodes = vec![
        Node { name: "input".into(), shape: Shape::new(2, 1, 1), op: Op::Input },
        dense("h", 0, [1.0, 0.0, 0.0, 1.0], Activation::Relu),
        dense("r", 1, [4.0, 0.0, 0.0, 1.0], Activation::Relu),
        dense("out", 2, [0.01, 1.0, -0.01, 0.5], Activation::Linear),
    ];
    let network = networks::network("felt", nodes);
    for dev in common::devices() {
        let c = converted(dev, &network, "h=1").unwrap();
        assert_eq!(c.spiking.nodes[1].decode.origin, [1]);
    }
    // the larger synapse is the other's
    let options = Options { prune: Choose::Magnitude, ..options("h=1") };
    let folder = tempfile::tempdir().unwrap();
    let c = convert(&Device::cpu(), &network, &images(&network), &options, folder.path(), &Silent).unwrap();
    assert_eq!(c.spiking.nodes[1].decode.origin, [0]);
}

/// However large the synapses that read it.
#[test]
fn what_never_fires_goes_first_by_magnitude() {
    let dense = |c: usize| Shape::new(c, 1, 1);
    let mut read = block(2, 1, Window::POINT, 4, 5, 1);
    read.weight.iter_mut().skip(3).step_by(4).for_each(|w| *w = 9.0);
    let mut nodes = vec![
        Node { name: "input".into(), shape: dense(3), op: Op::Input },
        layer("h", dense(4), vec![block(1, 0, Window::POINT, 3, 4, 1)], Activation::Relu),
        layer("r", dense(5), vec![read], Activation::Relu),
        layer("out", dense(2), vec![block(3, 2, Window::POINT, 5, 2, 1)], Activation::Linear),
    ];
    let Op::Neurons { bias, .. } = &mut nodes[1].op else { panic!() };
    (bias[0], bias[1], bias[2], bias[3]) = (1.0, 1.0, 1.0, -50.0);
    let network = networks::network("silent", nodes);
    let options = Options { prune: Choose::Magnitude, ..options("h=3") };
    let folder = tempfile::tempdir().unwrap();
    let c = convert(&Device::cpu(), &network, &images(&network), &options, folder.path(), &Silent).unwrap();
    assert_eq!(c.spiking.nodes[1].decode.origin, [0, 1, 2]);
}

#[test]
fn a_total_is_kept_and_spread() {
    let network = network();
    let whole = converted(&Device::cpu(), &network, "").unwrap().spiking.neurons();
    assert_eq!(whole, 8 * 64 + 2 * 12 * 64 + 10);
    let c = converted(&Device::cpu(), &network, "neurons=1400,a=6").unwrap();
    assert!(c.spiking.neurons() <= 1400 && c.spiking.neurons() > 1400 - 128, "{}", c.spiking.neurons());
    assert_eq!(channels(&c)[1], 6);
    // as many as there are: nothing to do
    assert_eq!(channels(&converted(&Device::cpu(), &network, "neurons=2058").unwrap())[1], 8);
    refused(&network, "neurons=100", "more neurons would have to go");
}

#[test]
fn what_cannot_be_pruned_is_refused_by_name() {
    let network = network();
    refused(&network, "d=3", "layer d: cannot be pruned: it is depthwise");
    refused(&network, "out=3", "layer out: cannot be pruned: it is the network's output");
    refused(&network, "conv9=3", "no layer is called `conv9`; there are a, b, d, e, out");
    refused(&network, "a=9", "layer a: 9 nodes to keep where there are 8");
    let mut grouped = network.clone();
    let Op::Neurons { blocks, .. } = &mut grouped.nodes[3].op else { panic!() };
    *blocks = vec![block(4, 2, K3, 12, 12, 3)];
    refused(&grouped, "b=3", "layer b: cannot be pruned: it is read by the grouped convolution d");
    refused(&grouped, "d=3", "layer d: cannot be pruned: it is a grouped convolution");
    assert_eq!(channels(&converted(&Device::cpu(), &grouped, "0.5").unwrap()), [3, 4, 12, 12, 16, 16, 16, 5, 4]);
    let mut mixed = network;
    let Op::Gather { index, .. } = &mut mixed.nodes[5].op else { panic!() };
    index.swap(0, 64);
    refused(&mixed, "b=3", "layer b: cannot be pruned: it is mixed with other channels by turned");
    for (text, words) in [("neurons=0", "whole number"), ("0.5,neurons=9", "give one of them"), ("a=0", "neither")] {
        let items: Vec<String> = text.split(',').map(String::from).collect();
        assert!(Keep::parse(&items).err().unwrap().to_string().contains(words), "{text}");
    }
}

#[test]
fn neurons_that_are_several_to_a_unit_go_together() {
    let mut network = network();
    for i in [2, 7] {
        let Op::Neurons { activation, .. } = &mut network.nodes[i].op else { panic!() };
        *activation = Activation::Tanh;
    }
    // the depthwise layer cannot read populations through a maximum: pool before it
    network.nodes[6].op = Op::AveragePool {
        source: 5,
        window: Window { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], pad: [0, 0] },
        divisor: vec![4; 16],
    };
    let c = converted(&Device::cpu(), &network, "b=4,e=5").unwrap();
    assert_eq!(channels(&c), [3, 8, 16, 4, 12, 12, 12, 20, 4]);
    c.spiking.check().unwrap();
}

#[test]
fn a_finished_conversion_is_made_smaller_from_the_first_layer_that_changes() {
    let (dev, network) = (Device::cpu(), network());
    let images = images(&network);
    let whole = converted(&dev, &network, "").unwrap();
    let finished = |c: &Conversion| {
        let nodes = c.spiking.nodes.iter().filter(|n| matches!(n.op, SpikingOp::Neurons(_))).cloned();
        nodes.zip(c.layers.clone()).map(|(node, record)| synfit::convert::Finished { node, record }).collect::<Vec<_>>()
    };
    let folder = tempfile::tempdir().unwrap();
    let again = |keep: &str, from: &Conversion, was: &str| {
        let former = Former { layers: finished(from), options: options(was) };
        smaller(&dev, &network, &images, &options(keep), folder.path(), &Silent, former).unwrap()
    };
    let small = again("e=4", &whole, "");
    assert_eq!(small.spiking, converted(&dev, &network, "e=4").unwrap().spiking);
    let seconds = |c: &Conversion| c.layers[..3].iter().map(|l| l.seconds).collect::<Vec<_>>();
    assert_eq!(seconds(&small), seconds(&whole));
    // and from a smaller one to another size
    let other = again("b=6,e=8", &small, "e=4");
    assert_eq!(other.spiking, converted(&dev, &network, "b=6,e=8").unwrap().spiking);
    assert_eq!(again("b=12", &other, "b=6,e=8").spiking, whole.spiking);
}

#[test]
fn a_sweep_gives_every_size() {
    let network = network();
    let (images, options) = (images(&network), options(""));
    let curves = sweep(&Device::cpu(), &network, &images, &options, &[], &Silent).unwrap();
    let shapes: Vec<_> = curves.iter().map(|c| (c.layer.as_str(), c.nodes, c.removals.len())).collect();
    assert_eq!(shapes, [("a", 8, 7), ("b", 12, 11), ("e", 10, 9)]);
    for curve in &curves {
        assert!(curve.removals.windows(2).all(|r| r[0].cost <= r[1].cost * (1.0 + 1e-9)));
    }
    // the same cost as pruning to one of the sizes, but for swaps
    let c = converted(&Device::cpu(), &network, "e=4").unwrap();
    let cost = c.layers[3].pruned.unwrap().cost.unwrap();
    assert!(cost <= curves[2].removals[5].cost * (1.0 + 1e-9) && cost > 0.5 * curves[2].removals[5].cost);
    assert_eq!(sweep(&Device::cpu(), &network, &images, &options, &["fc1"], &Silent).unwrap()[0].layer, "e");
}

/// A remainder layer loses its channels with the layer that it follows, before those that it reads are chosen.
#[test]
fn layers_in_a_row_that_send_remainders_are_pruned_together() {
    let vector = |c: usize| Shape::new(c, 1, 1);
    let relu = Activation::Relu;
    let nodes = vec![
        Node { name: "input".into(), shape: vector(6), op: Op::Input },
        layer("first", vector(10), vec![block(1, 0, Window::POINT, 6, 10, 1)], relu),
        layer("second", vector(8), vec![block(2, 1, Window::POINT, 10, 8, 1)], relu),
        layer("out", vector(3), vec![block(3, 2, Window::POINT, 8, 3, 1)], Activation::Linear),
    ];
    let network = with_remainders(&networks::network("row", nodes), true);
    assert_eq!(network.nodes.iter().filter(|n| n.name.ends_with(".remainder")).count(), 2);
    let settle = Settle::Repeated(vec![0]);
    let options = Options { schedule: Schedule::Layered, settle, ..options("first=5,second=6") };
    let folder = tempfile::tempdir().unwrap();
    let converted = convert(&Device::cpu(), &network, &images(&network), &options, folder.path(), &Silent).unwrap();
    let left = |name: &str| converted.spiking.nodes.iter().find(|n| n.name == name).unwrap().shape.c;
    assert_eq!(["first", "first.remainder", "second", "second.remainder"].map(left), [5, 5, 6, 6]);
}
