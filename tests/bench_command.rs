//! `synfit bench` through the real binary: a table for people, one complete JSON document for scripts, refusals in one
//! line. How fast anything is does not matter here.

use std::process::{Command, Output};

use serde_json::Value;
use synfit::bench::kernels;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_synfit")).arg("bench").args(args).output().unwrap()
}

fn document(args: &[&str]) -> Value {
    let done = bench(&[args, &["--json"]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn positive(value: &Value, what: &str) -> f64 {
    let number = value.as_f64().unwrap_or_else(|| panic!("{what}: {value} is no number"));
    assert!(number > 0.0 && number.is_finite(), "{what}: {number}");
    number
}

fn close(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() <= 1e-9 * b.abs(), "{what}: {a} and {b}");
}

/// One device's figures, and that they agree with each other.
fn complete(device: &Value, gpu: bool) {
    let name = device["name"].as_str().unwrap();
    assert!(!name.is_empty() && !device["backend"].as_str().unwrap().is_empty());
    assert!(device["driver"].is_string() && device["kind"].is_string());
    assert_eq!(device["size"], "tiny");
    let gflops = positive(&device["peaks"]["gflops"], "peak");
    let gbps = positive(&device["peaks"]["gbps"], "peak");
    let stamps = device["timestamps"].as_bool().unwrap();
    let listed: Vec<&str> = device["kernels"].as_array().unwrap().iter().map(|k| k["name"].as_str().unwrap()).collect();
    // The table lookup is the CPU's own.
    let wanted: Vec<&str> = kernels::names().filter(|n| !gpu || *n != "lookup").collect();
    assert_eq!(listed, wanted, "{name}");
    for kernel in device["kernels"].as_array().unwrap() {
        let what = format!("{} on {name}", kernel["name"]);
        let seconds = positive(&kernel["seconds"], &what);
        let wall = positive(&kernel["wall_seconds"], &what);
        assert_eq!(kernel["runs"], 1, "{what}");
        match kernel["clock"].as_str().unwrap() {
            "gpu" => assert!(stamps && gpu && seconds <= wall, "{what}: {kernel}"),
            other => assert!(other == "wall" && seconds == wall, "{what}: {kernel}"),
        }
        assert!(!kernel["shape"].as_str().unwrap().is_empty(), "{what}");
        let operations = kernel["operations"].as_f64().unwrap();
        let rate = kernel["gflops"].as_f64().unwrap();
        close(rate, operations / seconds * 1e-9, &what);
        let moved = positive(&kernel["gbps"], &what);
        close(moved, positive(&kernel["bytes"], &what) / seconds * 1e-9, &what);
        let (arithmetic, memory) = (100.0 * rate / gflops, 100.0 * moved / gbps);
        let percent = positive(&kernel["percent_of_peak"], &what);
        match kernel["limit"].as_str().unwrap() {
            "arithmetic" => close(percent, arithmetic, &what),
            limit => {
                assert_eq!(limit, "memory", "{what}");
                close(percent, memory, &what);
            }
        }
        close(percent, arithmetic.max(memory), &what);
    }
    let conversions = device["conversions"].as_array().unwrap();
    assert_eq!(conversions.len(), 1, "{name}");
    let lenet = &conversions[0];
    assert_eq!((&lenet["network"], &lenet["parameters"]), (&"lenet".into(), &61_706.into()));
    assert_eq!((&lenet["layers"], &lenet["images"], &lenet["steps"]), (&5.into(), &4.into(), &4.into()));
    let phase = |phase: &str| lenet["seconds"][phase].as_f64().unwrap();
    let total = positive(&lenet["seconds"]["total"], "conversion");
    let parts = phase("moments") + phase("targets") + phase("simulate") + phase("solve");
    assert!((parts - total).abs() < 0.05 * total + 0.01, "phases {parts} of {total}");
    close(positive(&lenet["images_per_second"], "images"), 4.0 / total, "images a second");
    for error in ["round", "grid", "response"] {
        positive(&lenet["mean_error"][error], error);
    }
    assert_eq!(lenet["peak_memory"]["device_bytes"].as_u64().unwrap() > 0, gpu);
}

#[test]
fn the_document_is_complete_on_the_cpu() {
    let all = document(&["--quick", "--device", "cpu"]);
    assert_eq!((&all["version"], &all["synfit"]), (&1.into(), &env!("CARGO_PKG_VERSION").into()));
    positive(&all["cores"], "cores");
    assert_eq!(all["devices"].as_array().unwrap().len(), 1);
    assert_eq!(all["devices"][0]["backend"], "cpu");
    complete(&all["devices"][0], false);
}

/// Every device there is, a software GPU among them.
#[test]
fn the_document_is_complete_on_every_device() {
    let all = document(&["--quick", "--device", "all"]);
    let devices = all["devices"].as_array().unwrap();
    assert!(devices.len() >= 2, "the tests need an adapter: install mesa-vulkan-drivers");
    for (i, device) in devices.iter().enumerate() {
        complete(device, i + 1 < devices.len());
    }
    // The work is the same everywhere.
    let counted = |device: &Value| -> Vec<(String, f64)> {
        let kernels = device["kernels"].as_array().unwrap().iter();
        // What these do depends on moves, which rounding may change.
        let fixed =
            kernels.filter(|k| !["lookup", "descent", "pairs", "sample_sweep"].contains(&k["name"].as_str().unwrap()));
        fixed.map(|k| (k["name"].to_string(), k["operations"].as_f64().unwrap())).collect()
    };
    assert_eq!(counted(&devices[0]), counted(&devices[devices.len() - 1]));
}

#[test]
fn people_get_a_table_of_what_they_asked_for() {
    let done = bench(&["--device", "cpu", "--size", "tiny", "--kernels", "gram,conv", "--networks", "none"]);
    assert!(done.status.success());
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("peaks: ") && text.contains("conv  ") && text.contains("gram  "), "{text}");
    assert!(!text.contains("cholesky") && !text.contains("lenet"), "{text}");
    // Nothing but the conversion.
    let args = ["--device", "cpu", "--size", "tiny", "--kernels", "none", "--networks", "lenet"];
    let done = bench(&[&args[..], &["--images", "4", "--steps", "4", "--bits", "4"]].concat());
    assert!(done.status.success());
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("lenet") && text.contains("61,706") && !text.contains("gram"), "{text}");
}

#[test]
fn wrong_use_is_refused_in_one_line() {
    for (args, words) in [
        (&["--kernels", "gramm"][..], &["kernels", "`gramm`", "cholesky"][..]),
        (&["--networks", "lenet,vgg"], &["networks", "`vgg`", "vgg16-cifar"]),
        (&["--networks", "all,lenet"], &["networks", "alone"]),
        (&["--device", "tpu"], &["device", "tpu"]),
        (&["--device", "99"], &["device", "99"]),
        (&["--size", "huge"], &["size", "`huge`"]),
        (&["--runs", "0"], &["runs", "at least 1"]),
        (&["--images", "0"], &["images", "at least 1"]),
        (&["--seconds", "nan"], &["seconds"]),
        (&["--steps", "0"], &["steps"]),
        (&["--bits", "77"], &["77"]),
        (&["--quick", "--runs", "3"], &["--quick", "--runs"]),
    ] {
        let done = bench(args);
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{args:?}: {text}");
        assert!(done.stdout.is_empty(), "{args:?}");
        let line = text.lines().next().unwrap_or_default();
        assert!(line.starts_with("error: ") && words.iter().all(|w| line.contains(w)), "{args:?}: {text}");
    }
}

/// Ctrl-C ends the work soon, with one line and no half document.
#[cfg(unix)]
#[test]
fn an_interrupt_is_answered() {
    use std::io::Read;
    use std::process::Stdio;
    use std::time::{Duration, Instant};
    let mut child = Command::new(env!("CARGO_BIN_EXE_synfit"))
        .args(["bench", "--device", "cpu", "--seconds", "100", "--runs", "1000000", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(30), "still running");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (mut out, mut told) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{told}");
    assert!(out.is_empty() && told.contains("interrupted"), "{out} {told}");
}
