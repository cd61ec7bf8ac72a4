//! Networks with shortcuts: layers that send the remainder of their units over them, and which layers wait.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use synfit::chip::Chip;
use synfit::compute::Device;
use synfit::convert::{self, Conversion, Images, Options, Settle, Silent, with_remainders};
use synfit::forward::Forward;
use synfit::network::{Activation, Block, Dataset, Head, Layout, Network, Node, Op, Shape, Window};
use synfit::spiking::{Schedule, SpikingOp};

mod common;

const IMAGE: Shape = Shape::new(2, 6, 5);
const STREAM: Shape = Shape::new(4, 6, 5);

/// conv1, two residual blocks (conv2 + sum1, conv3 + sum2), a pool and a readout of three outputs.
fn residual() -> Network {
    let mut rng = fastrand::Rng::with_seed(11);
    let square = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };
    let mut conv = |source: usize, fan: usize, window: Window, outputs: usize| {
        let n = fan * window.taps();
        let scale = (6.0 / n as f32).sqrt();
        let weight = (0..outputs * n).map(|_| scale * (2.0 * rng.f32() - 1.0)).collect();
        Block { source, window, groups: 1, weight }
    };
    let identity = |source: usize| {
        let weight = (0..16).map(|i| f32::from(u8::from(i / 4 == i % 4))).collect();
        Block { source, window: Window::POINT, groups: 1, weight }
    };
    let layers = [
        ("conv1", vec![conv(0, 2, square, 4)]),
        ("conv2", vec![conv(1, 4, square, 4)]),
        ("sum1", vec![conv(2, 4, square, 4), identity(1)]),
        ("conv3", vec![conv(3, 4, square, 4)]),
        ("sum2", vec![conv(4, 4, square, 4), identity(3)]),
    ];
    let mut nodes = vec![Node { name: "input".into(), shape: IMAGE, op: Op::Input }];
    for (name, blocks) in layers {
        let op = Op::Neurons { blocks, bias: vec![0.05, -0.1, 0.1, 0.0], activation: Activation::Relu };
        nodes.push(Node { name: name.into(), shape: STREAM, op });
    }
    let whole = Window::whole(STREAM);
    let pool = Op::AveragePool { source: 5, window: whole, divisor: vec![30] };
    nodes.push(Node { name: "pool".into(), shape: Shape::new(4, 1, 1), op: pool });
    let blocks = vec![conv(6, 4, Window::POINT, 3)];
    let op = Op::Neurons { blocks, bias: vec![0.0; 3], activation: Activation::Linear };
    nodes.push(Node { name: "readout".into(), shape: Shape::new(3, 1, 1), op });
    Network {
        name: "residual".into(),
        nodes,
        output: 7,
        head: Head::None,
        layout: Layout::Nchw,
        input_scale: vec![1.0; 2],
        input_shift: vec![0.0; 2],
    }
}

fn images(count: usize) -> Images {
    let data = Dataset::uniform(IMAGE, count, &[-1.0], &[1.0], 3).unwrap();
    Images { data, scale: vec![1.0; 2], shift: vec![0.0; 2] }
}

fn layered() -> Options {
    let settle = Settle::Repeated(vec![0]);
    Options { schedule: Schedule::Layered, steps: 8, settle, ..common::options(Chip::load("generic8").unwrap()) }
}

fn converted(network: &Network, options: &Options) -> Conversion {
    let scratch = tempfile::tempdir().unwrap();
    convert::convert(&Device::cpu(), network, &images(64), options, scratch.path(), &Silent).unwrap()
}

#[test]
fn remainder_layers_change_nothing_in_the_trained_network_and_are_read_in_time() {
    let (network, dev) = (residual(), Device::cpu());
    let input = images(5).data.batch(0..5).unwrap();
    let outputs = |network: &Network| Forward::new(&dev, network).unwrap().run(&dev, 5, &input).unwrap();
    let sources = |network: &Network| -> Vec<(String, Vec<String>)> {
        let named = |s: usize| network.nodes[s].name.clone();
        network.nodes.iter().skip(1).map(|n| (n.name.clone(), n.sources().into_iter().map(named).collect())).collect()
    };
    let wanted = |text: &str| -> Vec<(String, Vec<String>)> {
        let words = |s: &str| s.split(' ').filter(|s| !s.is_empty()).map(|s| s.replace('\'', ".remainder")).collect();
        text.lines()
            .map(|l| l.trim().split_once(": ").unwrap())
            .map(|(n, s)| (n.replace('\'', ".remainder"), words(s)))
            .collect()
    };
    let upto_sum1 = "conv1: input
        conv1': input conv1
        conv2: conv1
        conv2': conv1 conv1' conv2
        sum1: conv2 conv1 conv1'
        sum1': conv2 conv2' conv1 conv1' sum1
        conv3: sum1\n";
    let in_time = with_remainders(&network, false);
    let rest = "sum2: conv3 sum1 sum1'\npool: sum2\nreadout: pool";
    assert_eq!(sources(&in_time), wanted(&format!("{upto_sum1}{rest}")));
    let last = with_remainders(&network, true);
    let rest = "conv3': sum1 sum1' conv3
        sum2: conv3 sum1 sum1'
        sum2': conv3 conv3' sum1 sum1' sum2
        pool: sum2
        pool': sum2'
        readout: pool pool'";
    assert_eq!(sources(&last), wanted(&format!("{upto_sum1}{rest}")));
    assert_eq!([&in_time, &last].map(|n| n.nodes[n.output].name.as_str()), ["readout"; 2]);
    for with in [in_time, last] {
        assert_eq!(outputs(&with), outputs(&network));
    }
    // no shortcuts
    let chain = synfit::network::read(&local("digits_cnn.onnx")).unwrap();
    assert_eq!(with_remainders(&chain, false), chain);
}

/// A constant current J in [0, T): the neuron counts floor(J + 0.2), its remainder what is left in thirds of a threshold.
#[test]
fn a_unit_and_its_remainder_are_as_exact_as_the_smaller_threshold() {
    let network = with_remainders(&residual(), false);
    let mut chip = Chip::load("generic8").unwrap();
    chip.replace_grid(None);
    let options = Options { chip, remainder: 3, method: "auto".parse().unwrap(), ..layered() };
    let done = converted(&network, &options);
    let (spiking, dev) = (&done.spiking, Device::cpu());
    let raw = images(16).data.batch(0..16).unwrap();
    let trains = synfit::spiking::simulate::encode(&dev, spiking, &raw, 16).unwrap();
    let run = |node: usize, inputs: &[&synfit::spiking::simulate::Trains]| {
        let runner = synfit::spiking::simulate::Runner::new(&dev, spiking, node).unwrap();
        match runner.run(&dev, 16, inputs).unwrap() {
            synfit::spiking::simulate::Output::Trains(trains) => trains,
            _ => panic!("node {node} does not fire"),
        }
    };
    let counted = run(1, &[&trains]);
    let rest = run(2, &[&trains, &counted]);
    let totals = |trains: &synfit::spiking::simulate::Trains| dev.download(&trains.totals(&dev).unwrap()).unwrap();
    let (counts, rests) = (totals(&counted), totals(&rest));
    let mut trained = vec![];
    let forward = Forward::new(&dev, &network).unwrap();
    let see = |node: usize, _: &[&synfit::compute::Buffer<f32>], value: &synfit::compute::Buffer<f32>| {
        if node == 1 {
            trained = dev.download(value)?;
        }
        Ok(())
    };
    forward.visit(&dev, 16, &raw, see).unwrap();
    let (mut checked, mut alone) = (0, 0);
    for (i, &a) in trained.iter().enumerate() {
        let channel = i / STREAM.area() % STREAM.c;
        let step = spiking.nodes[1].decode.gain[channel] as f32 / 8.0;
        let finer = spiking.nodes[2].decode.gain[channel] as f32 / 8.0;
        assert!((3.0 * finer / step - 1.0).abs() < 1e-6);
        // silent, or more than the remainder can say as well
        if a <= 0.0 || a > 9.0 * step {
            continue;
        }
        checked += 1;
        let off = counts[i] * step + rests[i] * finer - a;
        assert!(off.abs() <= 0.21 * step, "{off} of a step of {step} at {a}: {} and {}", counts[i], rests[i]);
        alone += usize::from((counts[i] * step - a).abs() > 0.21 * step);
    }
    assert!(checked > 500 && alone > checked / 2, "{alone} of {checked}");
}

#[test]
fn remainders_take_error_away_and_no_time_or_one_layers() {
    let network = residual();
    let with = |last| converted(&with_remainders(&network, last), &Options { remainder: 3, ..layered() });
    let (plain, in_time, last) = (converted(&network, &layered()), with(false), with(true));
    let latency = |done: &Conversion| done.spiking.latency();
    assert_eq!((latency(&in_time), latency(&last)), (latency(&plain), latency(&plain) + 8));
    // of the readout's targets, over the calibration images
    let error = |done: &Conversion| done.layers.last().unwrap().error.fit;
    let errors = [&plain, &in_time, &last].map(error);
    assert!(errors[1] < 0.95 * errors[0] && errors[2] < 0.6 * errors[0], "{errors:?}");
}

#[test]
fn a_sums_wait_goes_to_the_layer_before_it() {
    let options = Options { settle: Settle::Shared, ..common::options(Chip::load("generic8").unwrap()) };
    let waits = |network: &Network| -> Vec<u32> {
        let nodes = converted(network, &options).spiking.nodes;
        let layers = nodes.iter().filter_map(|n| match &n.op {
            SpikingOp::Neurons(layer) if layer.fires => Some(layer.settle),
            _ => None,
        });
        layers.collect()
    };
    assert_eq!(waits(&residual()), [0, 2, 0, 2, 0]);
    let mut chain = residual();
    for node in &mut chain.nodes {
        if let Op::Neurons { blocks, .. } = &mut node.op {
            blocks.truncate(1);
        }
    }
    assert_eq!(waits(&chain), [0, 1, 1, 1, 1]);
}

#[test]
fn pruned_channels_take_their_remainder_with_them() {
    let keep = convert::Keep::parse(&["conv1=3".into()]).unwrap();
    let done = converted(&with_remainders(&residual(), false), &Options { keep, ..layered() });
    let channels: Vec<usize> = done.spiking.nodes.iter().map(|n| n.shape.c).collect();
    assert_eq!(channels[1..6], [3, 3, 4, 4, 4]);
    assert_eq!(done.spiking.nodes[1].decode.origin, done.spiking.nodes[2].decode.origin);
}

fn local(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/digits").join(name)
}

fn synfit(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_synfit")).args(args).output().unwrap()
}

#[test]
fn remainders_where_there_can_be_none_are_refused() {
    let model = local("digits_cnn.onnx").display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    for (flags, wanted) in [
        (vec!["--remainder", "3"], "remainder: 3 needs the layered schedule"),
        (vec!["--schedule", "layered", "--remainder", "1"], "remainder: `1` is none of auto, off, 2..64"),
        (vec!["--schedule", "layered", "--remainder", "many"], "remainder: `many` is none of auto, off, 2..64"),
        (vec!["--schedule", "layered", "--remainder", "3", "--per-unit", "2"], "remainder: 3 and per-unit"),
    ] {
        let mut args = vec!["convert", "--model", &model, "--calibration", "uniform:0..16", "--out", &out];
        args.extend(flags);
        let done = synfit(&args);
        let text = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{text}");
        assert!(text.lines().last().unwrap().contains(wanted), "{text}");
        assert!(!Path::new(&out).exists());
    }
}

/// The folder of a conversion with remainders can be simulated, checked and made smaller.
#[test]
fn a_result_with_remainders_is_read_back() {
    let Some(model) = common::data("networks/cifar10_resnet8.onnx") else { return };
    let Some(images) = common::data("cifar10/train2000_images.npy") else { return };
    let [model, images] = [model, images].map(|f| f.display().to_string());
    let folder = tempfile::tempdir().unwrap();
    let (out, smaller) = (folder.path().join("out"), folder.path().join("smaller"));
    let [dir, smaller] = [out, smaller].map(|f| f.display().to_string());
    let report = |args: &[&str]| -> Value {
        let done = synfit(args);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let all = ["--images", "24", "--test-images", "40", "--steps", "4", "--schedule", "layered", "--device", "cpu"];
    let mut args = vec!["convert", "--model", &model, "--calibration", &images, "--json", "--out", &dir];
    args.extend(all);
    let done = report(&args);
    let layers = done["layers"].as_array().unwrap();
    assert!(layers.iter().any(|l| l["name"].as_str().unwrap().ends_with(".remainder")), "{layers:?}");
    assert_eq!(report(&["simulate", &dir, "--json"])["agreement"], done["test"]["agreement"]);
    let checked = report(&["check", &dir, "--rows", "1", "--json"]);
    assert_eq!((&checked["disagreements"], &checked["same_network"]), (&0.into(), &true.into()));
    let pruned = report(&["prune", &dir, "--keep", "conv2=0.5", "--json", "--out", &smaller]);
    assert!(pruned["neurons"].as_u64().unwrap() < done["neurons"].as_u64().unwrap());
}
