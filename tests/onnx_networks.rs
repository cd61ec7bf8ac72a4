//! Whole networks against onnxruntime, whose outputs on generated inputs stand in tests/reference/networks.txt.

mod common;

use common::{data, local, reference, relative_error, to_chw, uniform, with_head};
use synfit::network::{self, Network, Op};

/// One line a network: name, seed, scale of the input, outputs.
fn cases() -> Vec<(String, u64, f32, Vec<f64>)> {
    let text = std::fs::read_to_string(local("tests/reference/networks.txt")).expect("tests/reference/networks.txt");
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().expect("name").to_string();
            let seed = words.next().expect("seed").parse().expect("seed");
            let scale = words.next().expect("scale").parse().expect("scale");
            (name, seed, scale, words.map(|w| w.parse().expect("number")).collect())
        })
        .collect()
}

fn compare(network: &Network, seed: u64, scale: f32, expected: &[f64]) -> f64 {
    let x: Vec<f32> = uniform(seed, network.input_shape().len()).into_iter().map(|v| v * scale).collect();
    let y = with_head(network.head, reference::output(network, &to_chw(network, &x)));
    relative_error(&y, expected)
}

#[test]
fn every_network_agrees_with_onnxruntime() {
    if data("networks").is_none() {
        return;
    }
    let mut worst = 0.0f64;
    for (name, seed, scale, expected) in cases() {
        let file = if name == "digits_cnn" { format!("digits/{name}.onnx") } else { format!("networks/{name}.onnx") };
        let path = data(&file).expect("checked above");
        let network = network::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let error = compare(&network, seed, scale, &expected);
        println!("{name}: {error:.2e}");
        assert!(error < 1e-5, "{name}: relative error {error:.2e}");
        worst = worst.max(error);
    }
    println!("worst: {worst:.2e}");
}

#[test]
fn the_built_in_network_agrees_with_onnxruntime() {
    let network = network::read(&local("configs/digits/digits_cnn.onnx")).unwrap_or_else(|e| panic!("{e}"));
    let (_, seed, scale, expected) = cases().into_iter().find(|c| c.0 == "digits_cnn").expect("in the table");
    let error = compare(&network, seed, scale, &expected);
    assert!(error < 1e-5, "relative error {error:.2e}");
}

/// Every linear map of these networks can be folded: no linear layer but the output is left.
#[test]
fn no_linear_layer_is_left_inside() {
    if data("networks").is_none() {
        return;
    }
    for (name, ..) in cases() {
        let folder = if name == "digits_cnn" { "digits" } else { "networks" };
        let network = network::read(&data(&format!("{folder}/{name}.onnx")).expect("checked")).expect("reads");
        for (i, node) in network.nodes.iter().enumerate() {
            let linear = matches!(node.op, Op::Neurons { activation: network::Activation::Linear, .. });
            assert!(!linear || i == network.output, "{name}: {} is linear", node.name);
            assert!(!matches!(node.op, Op::Gather { .. }), "{name}: {} rearranges", node.name);
        }
    }
}

#[test]
fn both_forms_of_resnet20_are_the_same_network() {
    let Some(folder) = data("networks") else { return };
    let read = |f: &str| {
        let mut n = network::read(&folder.join(f)).unwrap_or_else(|e| panic!("{e}"));
        n.name.clear();
        n.nodes.iter_mut().for_each(|node| node.name.clear());
        n
    };
    let (a, b) = (read("cifar10_resnet20_conv1x1.onnx"), read("cifar10_resnet20_slicepad.onnx"));
    assert_eq!(a.nodes.len(), b.nodes.len());
    for (i, (x, y)) in a.nodes.iter().zip(&b.nodes).enumerate() {
        assert!(x == y, "node {i} differs");
    }
    assert!(a == b);
}

/// Depthwise convolutions keep their groups through folding: MobileNet's work stays what it was.
#[test]
fn depthwise_layers_stay_depthwise() {
    let Some(folder) = data("networks") else { return };
    let network = network::read(&folder.join("vww_mobilenetv1_025.onnx")).unwrap_or_else(|e| panic!("{e}"));
    let depthwise =
        |op: &Op| matches!(op, Op::Neurons { blocks, .. } if blocks[0].groups > 1 && blocks[0].window.taps() == 9);
    assert_eq!(network.nodes.iter().filter(|n| depthwise(&n.op)).count(), 13);
    // 13 depthwise and 14 other layers, pooling, input.
    assert_eq!(network.nodes.len(), 30);
    assert!((7_000_000..8_000_000).contains(&network.macs()), "{} multiplications", network.macs());
}
