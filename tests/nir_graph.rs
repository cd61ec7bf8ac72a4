//! network.nir, read back with another code than wrote it: the graph that the chip's integers stand for.

mod common;

use std::path::Path;
use std::process::Command;

use hdf5_pure::{File, Group};
use ndarray::Array2;
use serde_json::Value;
use synfit::chip::Chip;
use synfit::compute::Device;
use synfit::convert::{Images, Silent};
use synfit::export::nir::{self, back, file::NirFile};
use synfit::network::{Activation, Block, Dataset, Head, Layout, Network, Node, Op, Shape, Window};
use synfit::spiking::simulate::{Activity, Simulation};
use synfit::spiking::{SpikingNetwork, SpikingOp, State, Weights};

fn convert(chip: &str, more: &[&str]) -> (tempfile::TempDir, Value) {
    let digits = |file: &str| common::local(&format!("configs/digits/{file}")).display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_synfit"))
        .args(["convert", "--model", &digits("digits_cnn.onnx"), "--calibration", &digits("train_images.npy")])
        .args(["--images", "100", "--scale", "0.0625", "--steps", "8", "--device", "cpu", "--json", "--chip", chip])
        .args(["--out", folder.path().join("out").to_str().unwrap()])
        .args(more)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    (folder, serde_json::from_slice(&run.stdout).unwrap())
}

fn text(group: &Group, name: &str) -> String {
    group.dataset(name).unwrap().read_string().unwrap().remove(0)
}

fn whole(group: &Group, name: &str) -> Vec<i64> {
    group.dataset(name).unwrap().read_i64().unwrap()
}

#[test]
fn the_graph_is_the_network() {
    let (folder, _) = convert("speck", &[]);
    let out = folder.path().join("out");
    let net = synfit::export::safetensors::read(&out.join("weights.safetensors")).unwrap();
    let file = File::open(out.join("network.nir")).unwrap();
    let root = file.group("node").unwrap();
    assert_eq!(text(&root, "type"), "NIRGraph");
    let metadata = root.group("metadata").unwrap();
    assert_eq!((text(&metadata, "reset").as_str(), text(&metadata, "chip").as_str()), ("subtract", "speck"));
    assert_eq!((whole(&metadata, "steps"), metadata.dataset("dt").unwrap().read_f64().unwrap()), (vec![8], vec![1.0]));
    let nodes = root.group("nodes").unwrap();
    let mut names = nodes.groups().unwrap();
    names.sort();
    // In the order of names every node comes after those that it reads, which some readers need.
    let edges = root.dataset("edges").unwrap().read_string().unwrap();
    assert_eq!(edges.len() / 2, names.len() - 1, "a chain");
    let at = |name: &String| names.iter().position(|n| n == name).unwrap();
    assert!(edges.chunks(2).all(|e| at(&e[0]) < at(&e[1])), "{edges:?}");
    assert_eq!((names[0].as_str(), names.last().unwrap().as_str()), ("input", "output"));
    assert_eq!(whole(&nodes.group("input").unwrap(), "shape"), [1, 8, 8]);

    let mut weights = 0;
    for node in &net.nodes {
        let SpikingOp::Neurons(layer) = &node.op else { continue };
        let plain = node.name.trim_matches('/').replace(['/', '.'], "_");
        let named = |ending: &str| {
            let found = names.iter().find(|n| n.split_once('_').is_some_and(|(_, n)| n == format!("{plain}{ending}")));
            nodes.group(found.unwrap_or_else(|| panic!("no {plain}{ending} in {names:?}"))).unwrap()
        };
        let linear = named("_weights");
        let Weights::Codes { codes, shift } = &layer.synapses[0].weight else { panic!("no codes") };
        let State::Integer { bias, threshold, initial } = &layer.state else { panic!("no integers") };
        let stored = linear.group("metadata").unwrap();
        let integers = |name: &str| -> Vec<i64> { stored.dataset(name).unwrap().read_i64().unwrap() };
        assert!(integers("codes").iter().zip(codes).all(|(a, b)| *a == i64::from(*b)), "{plain}");
        assert!(integers("bias_codes").iter().zip(bias).all(|(a, b)| *a == i64::from(*b)), "{plain}");
        assert_eq!(whole(&stored, "shift"), [i64::from(*shift)]);
        let scale = stored.dataset("scale").unwrap().read_f64().unwrap();
        let real = linear.dataset("weight").unwrap().read_f32().unwrap();
        let row = codes.len() / scale.len();
        for (i, (w, q)) in real.iter().zip(codes).enumerate() {
            let want = (f64::from(*q) * scale[i / row]) as f32;
            assert!((w - want).abs() <= 1e-6 * want.abs(), "{plain}: {w}, {want}");
        }
        assert_eq!(real.len(), codes.len(), "no padding was needed here");
        weights += real.len();
        if layer.fires {
            let neurons = named("");
            assert_eq!(text(&neurons, "type"), "IF");
            let v = neurons.group("metadata").unwrap().dataset("v_initial").unwrap().read_f32().unwrap();
            assert_eq!(v.len(), node.shape.len());
            for (i, v) in v.iter().enumerate() {
                let c = i / node.shape.area();
                let want = (initial[c] as f32 + 0.5) / threshold[c] as f32;
                assert!((v - want).abs() < 1e-6, "{plain}: {v}, {want}");
            }
            assert!(neurons.dataset("v_threshold").unwrap().read_f32().unwrap().iter().all(|v| *v == 1.0));
        }
    }
    assert_eq!(weights, net.synapses());
}

/// Runs `synfit simulate`; its outputs and its report.
fn simulate(what: &Path, outputs: &Path, more: &[&str]) -> (Array2<f32>, Value) {
    let run = Command::new(env!("CARGO_BIN_EXE_synfit"))
        .args(["simulate", what.to_str().unwrap(), "--device", "cpu", "--json"])
        .args(["--outputs", outputs.to_str().unwrap()])
        .args(more)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    (ndarray_npy::read_npy(outputs).unwrap(), serde_json::from_slice(&run.stdout).unwrap())
}

/// A graph holds the whole network: waiting, reset, integers. Read back it fires the same spikes.
#[test]
fn read_back_it_is_the_same_network() {
    let data = common::local("configs/digits/test_images.npy").display().to_string();
    let cases: [(&str, &[&str], &str); 6] = [
        ("generic8", &[], "integrate some steps"),
        ("generic8", &["--settle", "3,0"], "integrate some steps"),
        ("generic8", &["--schedule", "layered"], "each layer waits 8 steps"),
        ("loihi1", &["--settle", "0"], ""),
        ("float", &["--settle", "0"], ""),
        ("lif8", &[], ""),
    ];
    for (chip, more, note) in cases {
        let (folder, report) = convert(chip, more);
        let out = folder.path().join("out");
        let notes = report["notes"].to_string();
        assert_eq!(notes.contains("does not read the metadata"), !note.is_empty(), "{chip}: {notes}");
        assert!(notes.contains(note), "{chip}: {notes}");
        let outputs = folder.path().join("outputs.npy");
        let (whole, before) = simulate(&out, &outputs, &["--data", &data, "--images", "40"]);
        let (back, after) = simulate(&out.join("network.nir"), &outputs, &["--data", &data, "--images", "40"]);
        assert_eq!(whole, back, "{chip} {more:?}");
        assert_eq!(after["latency"], report["latency"]);
        if note.contains("integrate") {
            // what a simulator makes of it that does not read how long layers wait is another network
            let (once, after) =
                simulate(&out.join("network.nir"), &outputs, &["--data", &data, "--images", "40", "--at-once"]);
            assert!(once != back && after["latency"] == 8, "{chip}: {}", after["latency"]);
        }
        let spikes = |of: &Value| -> Vec<(String, f64)> {
            let layers = of["layers"].as_array().unwrap().iter().filter(|l| l["neurons"] != 0);
            layers.map(|l| (l["name"].as_str().unwrap().into(), l["spikes_per_image"].as_f64().unwrap())).collect()
        };
        assert_eq!(spikes(&before), spikes(&after), "{chip} {more:?}");
        assert!(spikes(&after).iter().all(|s| s.1 > 0.0));
    }
}

/// What NIR has no node for is said.
#[test]
fn no_graph_where_nir_has_no_words() {
    let digits = |file: &str| common::local(&format!("configs/digits/{file}")).display().to_string();
    let Some(model) = common::data("networks/mnist_conv_maxpool.onnx") else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_synfit"))
        .args(["convert", "--model", model.to_str().unwrap(), "--calibration", "uniform:0..1", "--images", "8"])
        .args(["--steps", "4", "--device", "cpu", "--json", "--out", folder.path().join("out").to_str().unwrap()])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(!folder.path().join("out/network.nir").exists());
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(
        report["notes"].to_string().contains("no network.nir") && report["notes"].to_string().contains("max pooling")
    );
    // and a file that is no graph is refused in one line
    let run = Command::new(env!("CARGO_BIN_EXE_synfit"))
        .args(["simulate", &digits("test_images.npy"), "--data", &digits("test_images.npy")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!((run.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("test_images.npy") && said.contains("no NIR file"), "{said}");
}

/// input 2x6x6 -> a (4), b (6) -> concat -> c (5, 3x3) and, pooled 2x2 and flattened, d (7); c flattened, d -> concat -> out (3).
fn joined() -> Network {
    let window = |size: usize, stride: usize, pad: isize| Window {
        kernel: [size; 2],
        stride: [stride; 2],
        dilation: [1, 1],
        pad: [pad; 2],
    };
    let mut seed = 0;
    let mut layer = |name: &str, shape: Shape, (source, window, inputs): (usize, Window, usize), activation| {
        seed += 1;
        let fan = inputs * window.taps();
        let weight = common::reals(seed, shape.c * fan).iter().map(|v| v * (2.0 / fan as f32).sqrt()).collect();
        let bias = common::reals(100 + seed, shape.c).iter().map(|v| 0.1 * v).collect();
        let blocks = vec![Block { source, window, groups: 1, weight }];
        Node { name: name.into(), shape, op: Op::Neurons { blocks, bias, activation } }
    };
    let (at, flat) = (|c: usize, side: usize| Shape::new(c, side, side), |c: usize| Shape::new(c, 1, 1));
    let straight = |len: usize| (0..len as u32).collect();
    let node = |name: &str, shape: Shape, op: Op| Node { name: name.into(), shape, op };
    let relu = Activation::Relu;
    let nodes = vec![
        node("input", at(2, 6), Op::Input),
        layer("a", at(4, 6), (0, window(3, 1, 1), 2), relu),
        layer("b", at(6, 6), (1, window(1, 1, 0), 4), relu),
        node("cat", at(10, 6), Op::Concat { sources: vec![2, 1] }),
        layer("c", at(5, 6), (3, window(3, 1, 1), 10), relu),
        node("pool", at(10, 3), Op::AveragePool { source: 3, window: window(2, 2, 0), divisor: vec![4; 9] }),
        node("flat", flat(90), Op::Gather { source: 5, index: straight(90) }),
        layer("d", flat(7), (6, Window::POINT, 90), relu),
        node("line", flat(180), Op::Gather { source: 4, index: straight(180) }),
        node("both", flat(187), Op::Concat { sources: vec![7, 8] }),
        layer("out", flat(3), (9, Window::POINT, 187), Activation::Linear),
    ];
    Network {
        name: "joined".into(),
        output: nodes.len() - 1,
        nodes,
        head: Head::None,
        layout: Layout::Nchw,
        input_scale: vec![1.0; 2],
        input_shift: vec![0.0; 2],
    }
}

/// Concatenation is a block of synapses for each part: read back the graph has none, and the same spikes.
#[test]
fn concatenations_become_blocks_of_synapses() {
    let (dev, network) = (Device::cpu(), joined());
    let data = Dataset::uniform(network.input_shape(), 40, &[-1.0], &[1.0], 3).unwrap();
    let images = Images { data, scale: vec![1.0], shift: vec![0.0] };
    for chip in ["generic8", "float", "truenorth"] {
        let mut options = common::options(Chip::load(chip).unwrap());
        (options.steps, options.method) = (12, Default::default());
        let folder = tempfile::tempdir().unwrap();
        let net = synfit::convert::convert(&dev, &network, &images, &options, folder.path(), &Silent).unwrap().spiking;
        let path = folder.path().join("network.nir");
        assert_eq!(nir::write(&net, &path).unwrap(), None, "{chip}");
        let back = back::network(&NirFile::open(&path).unwrap()).unwrap();
        let joins =
            |net: &SpikingNetwork| net.nodes.iter().filter(|n| matches!(n.op, SpikingOp::Concat { .. })).count();
        assert_eq!((joins(&net), joins(&back)), (2, 0));
        assert_eq!(net.synapses(), back.synapses());
        let blocks = |net: &SpikingNetwork| -> usize {
            net.nodes.iter().map(|n| if let SpikingOp::Neurons(layer) = &n.op { layer.synapses.len() } else { 0 }).sum()
        };
        assert_eq!((blocks(&net), blocks(&back)), (5, 8), "{chip}");
        let raw = images.data.batch(0..40).unwrap();
        let run = |net: &SpikingNetwork| {
            let mut activity = Activity::default();
            let outputs = Simulation::new(&dev, net).unwrap().run(&dev, 40, &raw, &mut activity).unwrap();
            (outputs, activity.spikes.iter().sum::<u64>())
        };
        let ((before, fired), (after, again)) = (run(&net), run(&back));
        assert!(fired > 1000, "{fired} spikes");
        if chip == "float" {
            // sums of reals in another order
            let far = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 0.3, "{far}");
        } else {
            assert_eq!((before, fired), (after, again), "{chip}");
        }
    }
}
