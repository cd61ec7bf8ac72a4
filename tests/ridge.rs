//! The ridge by cross-validation: the same on both devices, better on images that were not fitted to than the fixed one, and
//! written down.

use assert_cmd::Command;
use serde_json::Value;

/// The built-in example from few images, with its ridge; the report, and job.toml.
fn converted(images: &str, device: &str, ridge: Option<&str>) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/digits");
    let mut command = Command::cargo_bin("synfit").unwrap();
    command.args(["convert", "--model", &format!("{digits}/digits_cnn.onnx"), "--scale", "0.0625", "--steps", "8"]);
    command.args(["--calibration", &format!("{digits}/train_images.npy"), "--images", images]);
    command.args(["--test", &format!("{digits}/test_images.npy"), "--device", device]);
    if let Some(ridge) = ridge {
        command.args(["--ridge", ridge]);
    }
    let output = command.args(["--json", "--out"]).arg(&out).assert().success().get_output().stdout.clone();
    (serde_json::from_slice(&output).unwrap(), std::fs::read_to_string(out.join("job.toml")).unwrap())
}

fn ridges(report: &Value) -> Vec<f64> {
    report["layers"].as_array().unwrap().iter().map(|layer| layer["ridge"].as_f64().unwrap()).collect()
}

#[test]
fn what_is_chosen_is_the_same_on_both_devices_and_better_than_one_for_all() {
    let error = |report: &Value| report["test"]["relative_error"].as_f64().unwrap();
    let ((auto, job), (gpu, _)) = (converted("64", "cpu", None), converted("64", "gpu", None));
    assert_eq!(ridges(&auto), ridges(&gpu));
    assert!(ridges(&auto).windows(2).any(|pair| pair[0] != pair[1]), "{:?}", ridges(&auto));
    assert!(job.contains("ridge = \"auto\""), "{job}");
    let (fixed, job) = converted("64", "cpu", Some("0.01"));
    assert!(ridges(&fixed).iter().all(|r| *r == 0.01) && job.contains("ridge = 0.01"), "{job}");
    assert!(error(&auto) < error(&fixed), "{} instead of {}", error(&auto), error(&fixed));
}

/// Two images a fold are the least.
#[test]
fn too_few_images_leave_the_usual_ridge() {
    assert!(ridges(&converted("7", "cpu", None).0).iter().all(|r| *r == 0.01));
    assert!(ridges(&converted("8", "cpu", None).0).iter().any(|r| *r != 0.01));
}
