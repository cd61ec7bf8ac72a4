//! Response-aware targets: layers that see measured rates respond with less error than fitted to the trained
//! pre-activations everywhere.

use assert_cmd::Command;
use serde_json::Value;

/// Response errors of a conversion of the built-in example in few steps, layer by layer.
fn response_errors(targets: &str) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/digits");
    let mut command = Command::cargo_bin("synfit").unwrap();
    command.args(["convert", "--model", &format!("{digits}/digits_cnn.onnx"), "--scale", "0.0625", "--steps", "8"]);
    command.args(["--calibration", &format!("{digits}/train_images.npy"), "--images", "300", "--device", "cpu"]);
    // the same ridge for both: errors are of the images that it is fitted to, and a larger one is larger on those
    command.args(["--schedule", "layered", "--remainder", "off", "--ridge", "0.01", "--targets", targets]);
    command.arg("--out").arg(&out).assert().success();
    let report: Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    report["layers"].as_array().unwrap().iter().filter_map(|l| l["response_error"].as_f64()).collect()
}

#[test]
fn aware_targets_lower_the_response_error() {
    let (linear, aware) = (response_errors("linear"), response_errors("response"));
    assert!(aware.len() > 2);
    // The first layer sees its input as it is: there is nothing to make up for.
    for (layer, (linear, aware)) in linear.iter().zip(&aware).enumerate().skip(1) {
        assert!(aware < linear, "layer {layer}: {aware} instead of {linear}");
    }
}
