//! Wide layers, wide codes and many steps: sums stay within 32 bits in both schedules, and all devices give the same
//! spikes.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;
use synfit::export::safetensors::read;
use synfit::spiking::{SpikingOp, State, Weights};

fn synfit(arguments: &[&str]) -> Value {
    let output = Command::cargo_bin("synfit").unwrap().args(arguments).arg("--json").assert().success();
    serde_json::from_slice(&output.get_output().stdout).unwrap()
}

/// 2112 inputs, then a readout; weights of `bits` bits over 64 steps.
fn converted(out: &Path, schedule: &str, bits: &str) -> Value {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/wide.onnx");
    let given = ["--calibration", "uniform:0..1", "--images", "60", "--test-images", "50", "--steps", "64"];
    let chosen = ["--schedule", schedule, "--bits", bits, "--device", "cpu", "--out", out.to_str().unwrap()];
    synfit(&[&["convert", "--model", model][..], &given, &chosen].concat())
}

#[test]
fn wide_sums_fit_and_are_the_same_on_every_device() {
    for schedule in ["streaming", "layered"] {
        for bits in ["8", "10", "12", "14", "16"] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            let report = converted(&out, schedule, bits);
            assert!(report["test"]["agreement"].as_f64().unwrap() >= 0.9, "{schedule}, {bits} bits: {report}");
            let run = |device| synfit(&["simulate", out.to_str().unwrap(), "--device", device])["test"].clone();
            assert_eq!(run("cpu"), run("gpu"), "{schedule}, {bits} bits");
        }
    }
}

/// The input's codes times wide weights fill more than 32 bits here, so that the weights have to be coarser.
#[test]
fn no_layer_can_leave_32_bits() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    converted(&out, "layered", "16");
    let net = read(&out.join("weights.safetensors")).unwrap();
    let mut widest = 0;
    for node in &net.nodes {
        let SpikingOp::Neurons(layer) = &node.op else { continue };
        let State::Integer { bias, .. } = &layer.state else { panic!("{} is not in integers", node.name) };
        let constant = layer.synapses.iter().all(|s| net.nodes[s.source].constant);
        // constant input comes step by step; a readout adds all of it up
        let once = if constant && layer.fires { 1 } else { i64::from(net.steps) };
        for (row, bias) in bias.iter().enumerate() {
            let mut sum = i64::from(*bias).abs();
            for s in &layer.synapses {
                let Weights::Codes { codes, shift } = &s.weight else { panic!("{} has real synapses", node.name) };
                let width = codes.len() / node.shape.c;
                let row = &codes[row * width..(row + 1) * width];
                widest = widest.max(row.iter().map(|c| c.unsigned_abs()).max().unwrap_or(0));
                let row: i64 = row.iter().map(|c| i64::from(c.unsigned_abs()) << shift).sum();
                sum += row * net.nodes[s.source].peak as i64;
            }
            assert!(sum * once <= i64::from(i32::MAX), "{}: output {row} can reach {}", node.name, sum * once);
        }
    }
    assert!(widest > 1 << 11, "the widest code is {widest}: nothing of 16 bits is left");
}
