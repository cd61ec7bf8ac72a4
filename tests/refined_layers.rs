//! Pruned layers that are refined: what is left of them serves their readers better than the trained channels do.

mod common;

use synfit::chip::Chip;
use synfit::compute::Device;
use synfit::convert::{Conversion, Finished, Images, Keep, Options, Silent, convert, resume};
use synfit::network::{Activation, Block, Dataset, Head, Layout, Network, Node, Op, Shape, Window};
use synfit::spiking::{SpikingOp, simulate};

const K3: Window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };
const HALF: Window = Window { stride: [2, 2], ..K3 };

fn block(seed: u64, source: usize, window: Window, from: usize, to: usize) -> Block {
    let fan = from * window.taps();
    let scale = (3.0 / fan as f32).sqrt();
    let weight = common::reals(seed, to * fan).iter().map(|v| v * scale).collect();
    Block { source, window, groups: 1, weight }
}

fn layer(name: &str, shape: Shape, blocks: Vec<Block>) -> Node {
    let bias = common::reals(shape.len() as u64, shape.c).iter().map(|v| 0.1 * v).collect();
    Node { name: name.into(), shape, op: Op::Neurons { blocks, bias, activation: Activation::Relu } }
}

/// input 3x8x8 -> stem (6) -> inner (12) -> sum (8 x 4 x 4, reads inner with a stride and the stem over a shortcut) -> dense
/// (16, reads sum) -> readout (4).
fn network() -> Network {
    let at = |c: usize| Shape::new(c, 8, 8);
    let sum = Shape::new(8, 4, 4);
    let mut nodes = vec![
        Node { name: "input".into(), shape: at(3), op: Op::Input },
        layer("stem", at(6), vec![block(1, 0, K3, 3, 6)]),
        layer("inner", at(12), vec![block(2, 1, K3, 6, 12)]),
        layer(
            "sum",
            sum,
            vec![block(3, 2, HALF, 12, 8), block(4, 1, Window { stride: [2, 2], ..Window::POINT }, 6, 8)],
        ),
        layer("dense", Shape::new(16, 1, 1), vec![block(5, 3, Window::whole(sum), 8, 16)]),
        layer("out", Shape::new(4, 1, 1), vec![block(6, 4, Window::POINT, 16, 4)]),
    ];
    let Op::Neurons { activation, .. } = &mut nodes[5].op else { panic!() };
    *activation = Activation::Linear;
    Network {
        name: "residual".into(),
        output: nodes.len() - 1,
        nodes,
        head: Head::None,
        layout: Layout::Nchw,
        input_scale: vec![1.0; 3],
        input_shift: vec![0.0; 3],
    }
}

fn images(network: &Network, count: usize, seed: u64) -> Images {
    let data = Dataset::uniform(network.input_shape(), count, &[-1.0], &[1.0], seed).unwrap();
    Images { data, scale: vec![1.0], shift: vec![0.0] }
}

fn options(keep: &str, refine: bool) -> Options {
    let items: Vec<String> = keep.split(',').map(String::from).collect();
    let steps = 32;
    Options { keep: Keep::parse(&items).unwrap(), refine, steps, ..common::options(Chip::load("generic8").unwrap()) }
}

fn converted(dev: &Device, network: &Network, options: &Options) -> Conversion {
    let folder = tempfile::tempdir().unwrap();
    convert(dev, network, &images(network, 80, 3), options, folder.path(), &Silent).unwrap()
}

/// Relative error of the outputs on images that nothing was fitted to.
fn error(network: &Network, conversion: &Conversion) -> f64 {
    let dev = Device::cpu();
    let raw = images(network, 40, 4).data.batch(0..40).unwrap();
    let simulation = simulate::Simulation::new(&dev, &conversion.spiking).unwrap();
    let spiking = simulation.run(&dev, 40, &raw, &mut simulate::Activity::default()).unwrap();
    let trained = synfit::forward::Forward::new(&dev, network).unwrap().run(&dev, 40, &raw).unwrap();
    let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
    common::relative_error(&wide(spiking), &wide(trained))
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
    let again = resume(&dev, &network, &images(&network, 80, 3), &options, folder.path(), &Silent, done).unwrap();
    assert_eq!(again.spiking, whole.spiking);
    assert_eq!(refined(&again), refined(&whole));
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
    *blocks = vec![block(3, 3, K3, 12, 8)];
    for (node, source) in [(5, 4), (6, 5)] {
        let Op::Neurons { blocks, .. } = &mut network.nodes[node].op else { panic!() };
        blocks[0].source = source;
    }
    network.output = 6;
    let [off, on] = [false, true].map(|refine| converted(&Device::cpu(), &network, &options("inner=6", refine)));
    assert!(refined(&on).iter().all(Option::is_none));
    assert_eq!(off.spiking, on.spiking);
}
