//! A dense layer with fewer calibration images than inputs is fitted from its samples: no Gram matrix, a better fit than
//! round to nearest, and the same spikes on both devices.

use assert_cmd::Command;
use serde_json::Value;

fn converted(images: &str, device: &str) -> Value {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/wide.onnx");
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("synfit").unwrap();
    command.args([
        "convert",
        "--model",
        model,
        "--calibration",
        "uniform:0..1",
        "--images",
        images,
        "--test-images",
        "100",
    ]);
    command
        .args(["--steps", "32", "--bits", "4", "--device", device, "--json", "--out"])
        .arg(folder.path().join("out"));
    let output = command.assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).unwrap()
}

#[test]
fn a_wide_layer_is_fitted_from_few_images() {
    let reports = ["cpu", "gpu"].map(|device| converted("60", device));
    for report in &reports {
        let hidden = &report["layers"][0];
        let error = |name: &str| hidden["error"][name].as_f64().unwrap();
        assert_eq!((hidden["inputs"].as_u64(), hidden["samples"].as_u64()), (Some(2112), Some(60)), "{hidden}");
        assert!(error("bound") <= error("grid") && error("fit") <= error("grid"), "{hidden}");
        assert!(error("grid") < 0.2 * error("round"), "the fit is no better than rounding: {hidden}");
        assert!(report["test"]["agreement"].as_f64().unwrap() >= 0.9, "{report}");
    }
    let grid = |report: &Value| report["layers"][0]["error"]["grid"].as_f64().unwrap();
    let (cpu, gpu) = (grid(&reports[0]), grid(&reports[1]));
    assert!((cpu - gpu).abs() <= 0.05 * cpu, "{cpu} on the CPU, {gpu} on the GPU");
}
