//! As few steps as reach a wanted agreement, the curve over the number of steps, and settling windows for a given
//! latency: what the report says must be what the networks do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use synfit::convert::settling_levels;
use synfit::export::safetensors::read;
use synfit::network;

fn demo(out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synfit"));
    command.args(["demo", "--device", "cpu", "--json", "--out"]).arg(out).args(more).output().unwrap()
}

/// `convert` of the same network.
fn convert(out: &Path, flags: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synfit"));
    command.arg("convert").arg("--model").arg(model()).args(["--device", "cpu", "--json", "--out"]).arg(out);
    command.args(flags.split(' ')).output().unwrap()
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/digits/digits_cnn.onnx")
}

fn report(done: &Output) -> Value {
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// The one line of a refusal or failure, by its exit code.
fn error(done: &Output, code: i32) -> String {
    assert_eq!((done.status.code(), done.stdout.len()), (Some(code), 0));
    let text = String::from_utf8(done.stderr.clone()).unwrap();
    text.lines().last().unwrap().to_string()
}

fn steps(points: &Value) -> Vec<u64> {
    points.as_array().unwrap().iter().map(|p| p["steps"].as_u64().unwrap()).collect()
}

#[test]
fn auto_takes_the_fewest_steps_that_agree() {
    let folder = tempfile::tempdir().unwrap();
    let (out, again) = (folder.path().join("auto"), folder.path().join("again"));
    let found = report(&demo(&out, &["--steps", "auto", "--agreement", "0.97"]));
    let least = found["steps"].as_u64().unwrap();
    assert_eq!(found["search"]["agreement"], 0.97);
    let tried = found["search"]["tried"].as_array().unwrap();
    for point in tried {
        let (steps, agreement) = (point["steps"].as_u64().unwrap(), point["agreement"].as_f64().unwrap());
        assert_eq!(agreement >= 0.97, steps >= least, "{point}");
    }
    assert!(least == 1 || steps(&found["search"]["tried"]).contains(&(least - 1)));
    // The result is the conversion for that number of steps, and its job repeats it without a search.
    let alone = report(&demo(&again, &["--steps", &least.to_string()]));
    assert!(alone.get("search").is_none());
    for file in ["weights.safetensors", "job.toml"] {
        assert!(std::fs::read(out.join(file)).unwrap() == std::fs::read(again.join(file)).unwrap(), "{file}");
    }
    assert_eq!((&alone["test"], &alone["curve"]), (&found["test"], &found["curve"]));
}

#[test]
fn an_agreement_out_of_reach_ends_with_the_best_there_was() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let flags = "--calibration uniform:0..16 --images 64 --test-images 64 --bits 1.58 --steps auto --agreement 1";
    let line = error(&convert(&out, flags), 1);
    assert!(line.starts_with("error: agreement: 100.00 % is not reached") && line.contains("the best"), "{line}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn the_curve_is_what_the_network_does_in_fewer_steps() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (asked, lengths) in [("12", vec![1, 2, 4, 8, 12]), ("8", vec![1, 2, 4, 8]), ("1", vec![1])] {
        let found = report(&demo(&out, &["--steps", asked]));
        assert_eq!(steps(&found["curve"]), lengths);
        for point in found["curve"].as_array().unwrap() {
            let steps = point["steps"].as_u64().unwrap();
            assert_eq!(point["latency"].as_u64().unwrap(), steps + 3, "three layers wait a step each");
            let mut command = Command::new(env!("CARGO_BIN_EXE_synfit"));
            command.arg("simulate").arg(&out).args(["--json", "--device", "cpu", "--steps", &steps.to_string()]);
            let simulated = report(&command.output().unwrap());
            for key in ["agreement", "snn_accuracy", "relative_error", "spikes_per_image", "synops_per_image"] {
                assert_eq!(point[key], simulated[key], "{steps} steps: {key}");
            }
        }
        let last = found["curve"].as_array().unwrap().last().unwrap();
        assert_eq!(last["agreement"], found["test"]["agreement"]);
        let page = std::fs::read_to_string(out.join("report.html")).unwrap();
        assert!(page.contains("aria-label='agreement by steps'"));
    }
}

#[test]
fn windows_keep_within_the_latency() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut all = Vec::new();
    // Steps beyond one a layer only serve where every layer can have all its input.
    for (latency, result) in [(8, 8), (9, 9), (10, 10), (11, 11), (20, 11), (31, 11), (32, 32), (99, 32)] {
        let found = report(&demo(&out, &["--steps", "8", "--latency", &latency.to_string()]));
        assert_eq!(found["latency"], result, "{latency}");
        let net = read(&out.join("weights.safetensors")).unwrap();
        assert_eq!(net.latency(), result);
        let windows: Vec<u32> = net.nodes.iter().filter_map(|n| n.firing()).map(|l| l.settle).collect();
        assert_eq!(windows[0], 0, "the first layer's input is constant");
        assert_eq!(u64::from(windows.iter().sum::<u32>()), result - 8);
        all.push((windows, found["test"]["spikes_per_image"].as_f64().unwrap()));
    }
    // Evenly spread, the first layer first.
    assert_eq!(all[1].0, [0, 1, 0, 0]);
    assert_eq!(all[2].0, [0, 1, 1, 0]);
    assert_eq!(all[3].0, [0, 1, 1, 1]);
    assert_eq!(all[6].0, [0, 8, 8, 8]);
    for (settle, windows) in [("2,0", [0, 2, 0, 2]), ("3", [0, 3, 3, 3]), ("0,1,2,9", [0, 0, 1, 2])] {
        let found = report(&demo(&out, &["--steps", "8", "--settle", settle, "--latency", "30"]));
        let net = read(&out.join("weights.safetensors")).unwrap();
        assert_eq!(net.nodes.iter().filter_map(|n| n.firing()).map(|l| l.settle).collect::<Vec<_>>(), windows);
        assert_eq!(found["latency"], 8 + windows.iter().sum::<u32>());
    }
    // One a layer is the default.
    let usual = report(&demo(&out, &["--steps", "8"]));
    assert_eq!(usual["test"]["spikes_per_image"].as_f64().unwrap(), all[3].1);
}

#[test]
fn levels_are_places_on_the_longest_path() {
    let net = network::read(&model()).unwrap();
    let levels = settling_levels(&net);
    let firing: Vec<u32> = levels.iter().copied().filter(|&l| l > 0).collect();
    // Three convolutions and a dense layer fire; the first convolution's input is constant, the last layer reads out.
    assert_eq!(firing, [1, 2, 3]);
    assert_eq!(levels[net.output], 0);
}

#[test]
fn contradictions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, words) in [
        ("--steps auto", "needed by --steps auto"),
        ("--agreement 0.9", "goes with --steps auto"),
        ("--steps auto --agreement 95", "95 % is 0.95"),
        ("--steps auto --agreement 0", "not a fraction above 0"),
        ("--steps auto --agreement NaN", "not a fraction"),
        ("--steps auto --agreement 0.9 --latency 40", "--latency needs a number"),
        ("--latency 15", "latency: 15 is less than the 16 steps"),
        ("--latency 18 --settle 1", "contradicts settle = 1: the result comes after 19 steps"),
        ("--latency 19 --settle 2,0", "contradicts settle = 2,0: the result comes after 20 steps"),
        ("--settle 1,", "settle: `1,` is none of"),
        ("--settle x", "settle: `x` is none of"),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
        let line = error(&demo(&folder.path().join("out"), &flags), 2);
        assert!(line.starts_with("error: ") && line.contains(words), "{flags:?}: {line}");
    }
    let line =
        error(&convert(&folder.path().join("out"), "--calibration uniform:0..16 --latency 127 --schedule layered"), 2);
    assert_eq!(line, "error: latency: 127 is less than the 128 steps of layered");
    let line = error(
        &convert(&folder.path().join("out"), "--calibration uniform:0..16 --steps auto --agreement 0.9 --resume"),
        2,
    );
    assert!(line.contains("--resume"), "{line}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
