//! `--device` with a list: several devices share a conversion (a software GPU and the CPU will do), to the same result every
//! time and to nearly the one of a single device; lists that make no sense are refused.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use synfit::compute::devices;

fn synfit(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synfit"));
    command.args(args);
    command
}

/// The report.
fn demo(device: &str, out: &Path) -> Value {
    let Output { status, stdout, stderr } =
        synfit(&["demo", "--json", "--device", device, "--out"]).arg(out).output().unwrap();
    assert!(status.success(), "{device}: {}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

fn weights(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("weights.safetensors")).unwrap()
}

#[test]
fn a_gpu_and_the_cpu_share_the_digits() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let (alone, shared) = (demo("cpu", &out("alone")), demo("0,cpu:3", &out("shared")));
    let layers = |report: &Value| report["layers"].as_array().unwrap().clone();
    assert_eq!(layers(&alone).len(), layers(&shared).len());
    for (a, s) in layers(&alone).iter().zip(&layers(&shared)) {
        assert_eq!((&a["name"], &a["samples"]), (&s["name"], &s["samples"]));
        for error in ["/error/round", "/error/fit", "/error/grid", "/error/bound", "/response_error"] {
            let [a, s] = [a, s].map(|layer| layer.pointer(error).and_then(Value::as_f64).unwrap_or(0.0));
            // below 1e-7 of the targets' square lies the rounding of f32 sums
            assert!((a - s).abs() <= (0.01 * a).max(1e-7), "{error}: {a} alone, {s} shared");
        }
    }
    let agreement = |report: &Value| report["test"]["agreement"].as_f64().unwrap();
    assert!((agreement(&alone) - agreement(&shared)).abs() <= 0.005);
    // who took part, and with what
    assert!(alone.get("devices").is_none());
    let told = shared["devices"].as_array().unwrap();
    let of = |key: &str| told.iter().map(|d| d[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("share"), [1, 3]);
    let all = devices();
    let (first, last) = (&all[0], all.last().unwrap());
    assert_eq!(of("name"), [first.name.as_str(), &last.name]);
    assert_eq!(of("backend"), [first.backend.as_str(), "cpu"]);
    for device in told {
        assert!(device["seconds"].as_f64().unwrap() > 0.0 && device["peak_bytes"].as_u64().unwrap() > 0, "{device}");
    }
    assert_eq!(shared["device"]["name"], first.name.as_str());
    assert_eq!(shared["peak_memory"]["device_bytes"], told[0]["peak_bytes"]);
    // once more: the same bytes
    demo("0,cpu:3", &out("again"));
    assert!(weights(&out("shared")) == weights(&out("again")), "the same list gave another result");

    // its test images are split, too: integers have no rounding
    let simulate = |device: &str| -> (Value, Vec<u8>) {
        let file = out("outputs.npy");
        let mut command = synfit(&["simulate", "--json", "--device", device, "--outputs"]);
        let done = command.arg(&file).arg(out("shared")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (serde_json::from_slice(&done.stdout).unwrap(), std::fs::read(file).unwrap())
    };
    let ((alone, a), (shared, s)) = (simulate("cpu"), simulate("cpu:3,0"));
    assert!(a == s, "other outputs");
    for key in ["images", "snn_accuracy", "agreement", "spikes_per_image", "synops_per_image", "layers"] {
        assert_eq!(alone[key], shared[key], "{key}");
    }
}

#[test]
fn lists_that_make_no_sense_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let (count, out) = (devices().len(), folder.path().join("out"));
    let last = count - 1;
    for (list, words) in [
        (format!("0,{count}"), format!("there is no device {count}")),
        ("0,0".into(), "0 is a device that the list has already".into()),
        (format!("{last},cpu"), "cpu is a device that the list has already".into()),
        ("0,gpu".into(), "gpu is a device that the list has already".into()),
        (String::new(), "empty".into()),
        ("0,".into(), "empty".into()),
        ("0,all".into(), "for itself".into()),
        ("0:0,cpu".into(), "share".into()),
        ("0,fast".into(), "none of".into()),
    ] {
        for command in ["demo", "solve"] {
            let mut run = synfit(&[command]);
            // a problem that is not there would be refused after the list
            let run = if command == "demo" { run.arg("--out").arg(&out) } else { run.arg("nothing.npz") };
            let done = run.args(["--device", &list]).output().unwrap();
            let text = String::from_utf8(done.stderr).unwrap();
            assert_eq!(done.status.code(), Some(2), "{command} {list:?}: {text}");
            assert!(text.contains(&words), "{command} {list:?}: {text}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{list:?} left something behind");
    }
}

/// Where no adapter is real, as on a machine of software ones alone, `all` is the CPU, as `auto` is.
#[test]
fn all_is_what_auto_counts_as_a_gpu() {
    let real = devices().iter().filter(|d| !["software", "host"].contains(&d.kind.as_str())).count();
    let folder = tempfile::tempdir().unwrap();
    let report = demo("all", &folder.path().join("out"));
    let told = report.get("devices").map_or(1, |all| all.as_array().unwrap().len());
    assert!((1..=real.max(1)).contains(&told), "{told} of {real}");
    assert_eq!(report["device"]["backend"] == "cpu", real == 0);
}
