//! The command itself, as a user or a script meets it: what it writes, what it prints, what it refuses and how.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use synfit::spiking::{State, Weights};
use tempfile::TempDir;

fn synfit() -> Command {
    Command::new(env!("CARGO_BIN_EXE_synfit"))
}

/// A path as an argument.
fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn digits(name: &str) -> String {
    format!("{}/configs/digits/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command that must succeed: its standard output.
fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", text(&stderr));
    text(&stdout)
}

/// The whole of standard output must be one JSON value.
fn json(command: &mut Command) -> Value {
    let out = succeed(command);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
}

fn entries(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// `synfit demo`, run once for all tests; its folder's `out` and what it printed.
fn demo() -> (&'static Path, &'static str) {
    static DEMO: OnceLock<(TempDir, PathBuf, String)> = OnceLock::new();
    let demo = DEMO.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/out");
        let printed = succeed(synfit().args(["demo", "--device", "cpu", "--out", arg(&out)]));
        (folder, out, printed)
    });
    (&demo.1, &demo.2)
}

#[test]
fn demo_writes_the_result_folder() {
    let (out, printed) = demo();
    assert_eq!(entries(out.parent().unwrap()), ["out"], "nothing is left beside the result");
    for file in ["weights.safetensors", "report.json", "report.html", "job.toml"] {
        assert!(entries(out).iter().any(|e| e == file), "no {file}");
    }
    let report = read_json(&out.join("report.json"));
    assert_eq!((&report["version"], &report["steps"]), (&Value::from(1), &Value::from(16)));
    for key in ["synfit", "chip", "device.name", "device.backend"] {
        let pointer = format!("/{}", key.replace('.', "/"));
        assert!(report.pointer(&pointer).is_some_and(Value::is_string), "{key}");
    }
    assert!(report["seed"].is_number() && report["seconds"]["total"].is_number());
    assert!(report["peak_memory"]["device_bytes"].is_number() && report["peak_memory"].get("host_bytes").is_some());
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 5);
    for layer in layers {
        for key in ["inputs", "outputs", "samples", "iterations", "gap", "seconds"] {
            assert!(layer[key].is_number(), "layer's {key}: {layer}");
        }
        assert!(["name", "kind", "status"].iter().all(|k| layer[k].is_string()), "{layer}");
        let error = |key: &str| layer["error"][key].as_f64().unwrap();
        assert!(error("grid") <= error("round") && error("bound") <= error("grid"), "{layer}");
        assert!(error("fit") <= error("grid"), "{layer}");
    }
    let test = |key: &str| report["test"][key].as_f64().unwrap_or_else(|| panic!("test's {key}"));
    assert!((test("agreement") >= 0.99) && (test("ann_accuracy") > 0.98) && (test("snn_accuracy") > 0.97));
    assert!(test("images") == 500.0 && test("relative_error") < 0.2);
    assert!(test("spikes_per_image") > 100.0 && test("synops_per_image") > test("spikes_per_image"));
    let line = printed.lines().find(|l| l.contains("agreement")).unwrap();
    assert!(line.contains("ANN accuracy 99.00 %") && line.contains("spikes"), "{line}");
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("<svg") && html.trim_end().ends_with("</html>"));
    assert!(html.contains("parts of the response error by layer") && html.contains("<title>quantization "));
    assert!(!html.contains("http://") || html.contains("www.w3.org"), "the page needs no network");
}

#[test]
fn simulate_repeats_the_report() {
    let (out, _) = demo();
    let again = json(synfit().args(["simulate", arg(out), "--json"]));
    assert_eq!(again, read_json(&out.join("report.json"))["test"]);
    let longer = json(synfit().args(["simulate", arg(out), "--steps", "64", "--images", "100", "--json"]));
    assert_eq!(longer["images"], 100);
    assert!(longer["agreement"].as_f64().unwrap() >= 0.99);
    assert!(succeed(synfit().args(["simulate", arg(out), "--images", "10"])).contains("agreement"));
}

#[test]
fn the_job_repeats_the_run() {
    let (out, _) = demo();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    let report = json(synfit().args(["convert", arg(&out.join("job.toml")), "--out", arg(&other), "--json"]));
    let bytes = |folder: &Path| std::fs::read(folder.join("weights.safetensors")).unwrap();
    assert!(bytes(out) == bytes(&other), "other weights");
    assert_eq!(report["test"], read_json(&out.join("report.json"))["test"]);
    // A former result is replaced, and a flag wins over the job file.
    let flags = ["--steps", "3", "--images", "50", "--test-images", "50"];
    succeed(synfit().args(["convert", arg(&out.join("job.toml")), "--out", arg(&other)]).args(flags));
    assert_eq!(read_json(&other.join("report.json"))["steps"], 3);
    assert_eq!(entries(folder.path()), ["other"]);
}

#[test]
fn paths_relative_to_where_one_stands() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    std::fs::create_dir_all(&here).unwrap();
    std::fs::create_dir_all(&there).unwrap();
    for file in ["digits_cnn.onnx", "train_images.npy", "test_images.npy", "test_labels.npy"] {
        std::fs::copy(digits(file), here.join(file)).unwrap();
    }
    let common = ["--scale", "0.0625", "--steps", "4", "--images", "60", "--test-images", "60", "--device", "cpu"];
    let mut convert = synfit();
    convert.current_dir(&here).args(["convert", "--model", "digits_cnn.onnx", "--calibration", "./train_images.npy"]);
    convert.args(["--test", "test_images.npy", "--labels", "../here/test_labels.npy", "--out", "out"]).args(common);
    assert!(succeed(&mut convert).contains("agreement"));
    succeed(synfit().current_dir(&there).args(["simulate", "../here/out"]));
    // The paths of a job file are relative to it.
    let job =
        "model = \"digits_cnn.onnx\"\ncalibration = \"train_images.npy\"\nscale = 0.0625\nimages = 40\nsteps = 4\n";
    std::fs::write(here.join("my.toml"), job).unwrap();
    succeed(synfit().current_dir(&there).args(["convert", "../here/my.toml", "--device", "cpu", "--out", "./out"]));
    assert_eq!(entries(&there), ["out"]);
    assert_eq!(read_json(&there.join("out/report.json"))["test"]["ann_accuracy"], Value::Null, "no labels");
}

/// A chip whose scales are powers of two: so are the thresholds, in units of a shifted code.
#[test]
fn a_chip_with_power_of_two_scales() {
    let folder = tempfile::tempdir().unwrap();
    let (chip, out) = (folder.path().join("shift4.toml"), folder.path().join("out"));
    let grid = "grid = { symmetric = { bits = 4 } }\nscale_power_of_two = true";
    std::fs::write(&chip, format!("name = \"shift4\"\n[weights]\n{grid}\n[neuron]\nreset = \"subtract\"\n")).unwrap();
    let mut convert = synfit();
    convert.args(["convert", "--model", &digits("digits_cnn.onnx"), "--calibration", &digits("train_images.npy")]);
    convert.args(["--images", "200", "--scale", "0.0625", "--device", "cpu", "--steps", "8", "--chip", arg(&chip)]);
    let report = json(convert.args(["--json", "--out", arg(&out)]));
    assert_eq!(report["chip"], "shift4");
    let network = synfit::export::safetensors::read(&out.join("weights.safetensors")).unwrap();
    let mut layers = 0;
    for layer in network.nodes.iter().filter_map(|node| node.firing()) {
        let State::Integer { threshold, .. } = &layer.state else { panic!("no integer state") };
        assert!(threshold.iter().all(|t| t.count_ones() == 1), "{threshold:?}");
        let Weights::Codes { codes, .. } = &layer.synapses[0].weight else { panic!("no codes") };
        assert!(codes.iter().all(|q| q.abs() <= 7) && codes.iter().any(|q| q.abs() == 7));
        layers += 1;
    }
    assert!(layers > 2);
}

#[test]
fn small_commands() {
    let model = digits("digits_cnn.onnx");
    assert!(succeed(synfit().args(["inspect", &model])).contains("maps to generic8"));
    assert_eq!(json(synfit().args(["inspect", &model, "--json"]))["layers"].as_array().unwrap().len(), 8);
    let chips = succeed(synfit().arg("chips"));
    assert!(["generic8", "lif8", "float"].iter().all(|c| chips.contains(c)), "{chips}");
    assert!(succeed(synfit().args(["chips", "lif8"])).contains("decay"));
    assert!(succeed(synfit().arg("devices")).to_lowercase().contains("cpu"));
    assert!(succeed(synfit().arg("--version")).starts_with("synfit "));
    assert!(succeed(synfit().args(["convert", "--help"])).contains("--calibration"));
    for wrong in [&["conquer"][..], &["convert", "--magic"], &[], &["simulate"]] {
        assert_eq!(synfit().args(wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
    for (wrong, word) in [
        (&["inspect", "none.onnx"][..], "none.onnx"),
        (&["inspect", &model, "--chip", "potato"], "potato"),
        (&["chips", "potato"], "potato"),
        (&["simulate", "no/folder"], "no/folder"),
    ] {
        let Output { status, stdout, stderr } = synfit().args(wrong).output().unwrap();
        let line = text(&stderr);
        assert_eq!((status.code(), text(&stdout)), (Some(2), String::new()), "{wrong:?}: {line}");
        assert!(line.starts_with("error: ") && line.contains(word) && line.lines().count() == 1, "{wrong:?}: {line}");
    }
}

/// Ctrl-C at once, and in the midst of long work: it ends soon, says so, and leaves nothing behind.
#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing_behind() {
    use std::process::Stdio;
    use std::thread::sleep;
    use std::time::{Duration, Instant};
    for later in [0, 2000] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut command = synfit();
        command.args(["demo", "--device", "cpu", "--steps", "2000", "--out", arg(&out)]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while entries(folder.path()).is_empty() {
            assert_eq!(child.try_wait().unwrap(), None, "it ends before it begins");
            sleep(Duration::from_millis(5));
        }
        sleep(Duration::from_millis(later));
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let stop = Instant::now();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        assert!(stop.elapsed() < Duration::from_secs(20), "took {:?} to stop", stop.elapsed());
        assert_eq!(status.code(), Some(1), "after {later} ms: {}", text(&stderr));
        assert!(stdout.is_empty() && text(&stderr).contains("interrupted"), "{}", text(&stderr));
        assert_eq!(entries(folder.path()), Vec::<String>::new(), "after {later} ms");
    }
}
