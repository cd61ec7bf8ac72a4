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

#[test]
fn two_neurons_make_up_for_coarse_weights() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, flags: &[&str]| -> Value {
        let done = convert(&folder.path().join(name), flags);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    // enough steps that weights are what is left of the error
    let at = |bits: &str, more: &[&str]| {
        let flags: Vec<&str> = ["--steps", "64", "--bits", bits].iter().chain(more).copied().collect();
        errors(&run(&format!("{bits}{}", more.len()), &flags))
    };
    for (coarse, finer) in [("3", Some(at("4", &[]))), ("2", None)] {
        let (one, two) = (at(coarse, &[]), at(coarse, &["--per-unit", "2"]));
        for (one, two) in one.iter().zip(&two) {
            assert!(*two < 0.6 * one, "{coarse} bits: {two} where one neuron has {one}");
        }
        for (two, finer) in two.iter().zip(finer.iter().flatten()) {
            assert!(*two < 2.0 * finer, "{coarse} bits: {two} where a bit more has {finer}");
        }
    }
}

#[test]
fn coarse_weights_and_many_steps_take_two_neurons_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let job = |bits: &str, steps: &str, more: &[&str]| -> (u64, bool) {
        let out = folder.path().join(format!("{bits}-{steps}-{}", more.len()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_synfit"));
        command.args(["convert", "--schedule", "layered", "--scale", "0.0625", "--device", "cpu", "--images", "16"]);
        command.args(["--bits", bits, "--steps", steps, "--json", "--out"]).arg(&out).args(more);
        command.arg("--model").arg(local("digits_cnn.onnx")).arg("--calibration").arg(local("train_images.npy"));
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let report: Value = serde_json::from_slice(&done.stdout).unwrap();
        let names = report["layers"].as_array().unwrap().iter().map(|l| l["name"].as_str().unwrap().to_string());
        let sent = names.filter(|name| name.ends_with(".remainder")).count() > 0;
        let job = std::fs::read_to_string(out.join("job.toml")).unwrap();
        let told = job.lines().find_map(|line| line.strip_prefix("per-unit = ")).unwrap();
        (told.parse().unwrap(), sent)
    };
    assert_eq!(job("4", "32", &[]), (2, false));
    assert_eq!(job("3", "32", &["--remainder", "off"]), (1, false));
    assert_eq!(job("3", "32", &["--per-unit", "1"]), (1, true));
    assert_eq!(job("4", "16", &[]), (1, true));
    assert_eq!(job("5", "32", &[]), (1, true));
}
