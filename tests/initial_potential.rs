//! Calibrated initial potentials: layers that see uneven trains respond better than from half a threshold, and layers
//! that see constant currents keep half a threshold. And settling windows: layers that gain by it wait longer.

use assert_cmd::Command;
use serde_json::Value;
use synfit::export::safetensors;
use synfit::spiking::{SpikingOp, State};

/// The report of a conversion of the built-in example, and per firing layer the share of a threshold that each channel
/// starts from.
fn converted(flags: &[&str]) -> (Value, Vec<Vec<f64>>) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/digits");
    let mut command = Command::cargo_bin("synfit").unwrap();
    command.args(["convert", "--model", &format!("{digits}/digits_cnn.onnx"), "--scale", "0.0625", "--steps", "16"]);
    command.args(["--calibration", &format!("{digits}/train_images.npy"), "--images", "300", "--device", "cpu"]);
    command.arg("--out").arg(&out).args(flags).assert().success();
    let report = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    let net = safetensors::read(&out.join("weights.safetensors")).unwrap();
    let mut shares = Vec::new();
    for node in &net.nodes {
        let SpikingOp::Neurons(layer) = &node.op else { continue };
        let State::Integer { threshold, initial, .. } = &layer.state else { panic!("not in integers") };
        if layer.fires {
            shares.push(initial.iter().zip(threshold).map(|(v, t)| f64::from(*v) / f64::from(*t)).collect());
        }
    }
    (report, shares)
}

fn latency(report: &Value) -> u64 {
    report["latency"].as_u64().unwrap()
}

fn response_errors(report: &Value) -> Vec<f64> {
    report["layers"].as_array().unwrap().iter().filter_map(|l| l["response_error"].as_f64()).collect()
}

fn is_half(share: &f64) -> bool {
    (share - 0.5).abs() < 0.01
}

#[test]
fn calibrated_potentials_lower_the_response_error_of_uneven_layers() {
    let (half, from_half) = converted(&["--initial-potential", "half"]);
    let (calibrated, from) = converted(&[]);
    assert!(from_half.iter().flatten().all(is_half));
    assert!(from[0].iter().all(is_half), "the first layer sees constant currents: {:?}", from[0]);
    for layer in &from[1..] {
        assert!(layer.iter().all(|share| (0.0..1.0).contains(share)));
        assert!(!layer.iter().all(is_half), "nothing was calibrated");
    }
    let (half, calibrated) = (response_errors(&half), response_errors(&calibrated));
    assert_eq!(half[0], calibrated[0]);
    for (layer, (half, calibrated)) in half.iter().zip(&calibrated).enumerate().skip(1) {
        assert!(calibrated < half, "layer {layer}: {calibrated} instead of {half}");
    }
}

#[test]
fn the_layered_schedule_keeps_half_a_threshold() {
    let (_, from) = converted(&["--schedule", "layered", "--remainder", "off"]);
    assert!(from.iter().flatten().all(is_half));
}

#[test]
fn layers_that_gain_by_it_wait_longer_within_a_quarter_of_a_train() {
    let (usual, _) = converted(&["--settle", "1"]);
    let (auto, _) = converted(&[]);
    assert!(latency(&usual) < latency(&auto) && latency(&auto) <= 16 + 4, "{} {}", latency(&usual), latency(&auto));
    let (usual, auto) = (response_errors(&usual), response_errors(&auto));
    let first = (0..usual.len()).find(|&i| auto[i] != usual[i]).expect("a layer with another window");
    // 2 % of its square
    assert!(auto[first] < 0.991 * usual[first], "layer {first}: {} instead of {}", auto[first], usual[first]);
    let (fixed, _) = converted(&["--latency", "19"]);
    assert!(latency(&fixed) <= 19);
}
