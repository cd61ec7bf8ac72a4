//! Several neurons for a rectified unit: a unit's range shared among them counts as finely as more steps do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn local(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/digits").join(name)
}

fn convert(out: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synfit"));
    command
        .args([
            "convert",
            "--schedule",
            "layered",
            "--remainder",
            "off",
            "--scale",
            "0.0625",
            "--device",
            "cpu",
            "--json",
            "--out",
        ])
        .arg(out);
    command.arg("--model").arg(local("digits_cnn.onnx")).arg("--calibration").arg(local("train_images.npy"));
    command.args(flags).output().unwrap()
}

/// Response errors of the layers that fire.
fn errors(report: &Value) -> Vec<f64> {
    report["layers"].as_array().unwrap().iter().filter_map(|l| l["response_error"].as_f64()).collect()
}

#[test]
fn neurons_that_share_a_range_count_as_finely_as_more_steps() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, flags: &[&str]| -> Value {
        let done = convert(&folder.path().join(name), flags);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let one = run("one", &["--steps", "4"]);
    let three = run("three", &["--steps", "4", "--per-unit", "3"]);
    let longer = run("longer", &["--steps", "12"]);
    assert_eq!(three["latency"], one["latency"]);
    let neurons = |report: &Value| report["neurons"].as_u64().unwrap();
    assert_eq!(neurons(&three), 3 * neurons(&one));
    for ((one, three), longer) in errors(&one).iter().zip(&errors(&three)).zip(&errors(&longer)) {
        assert!(*three < 0.5 * one, "{three} where one neuron has {one}");
        assert!((three / longer - 1.0).abs() < 0.2, "{three} where three times the steps have {longer}");
    }
}

#[test]
fn a_number_of_neurons_out_of_range_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let done = convert(&folder.path().join("out"), &["--per-unit", "0"]);
    assert_eq!(done.status.code(), Some(2));
    let line = String::from_utf8(done.stderr).unwrap();
    assert!(line.lines().last().unwrap().contains("per_unit: 0 is outside 1..=64"), "{line}");
}
