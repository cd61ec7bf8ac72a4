//! Whole conversions on the GPU (a software one will do) against the CPU: the same errors of each layer, the same
//! decisions, and the finished network's spikes the same bit for bit.
//!
//! With SYNFIT_PARITY=full (benches/parity.sh), on as many images as the project's bars ask for: errors within a percent,
//! agreement within half a point. Without, on fewer images and within wider margins: where few samples leave a weight
//! nearly free it may round the other way, and every later spike with it.

mod common;

use std::path::Path;
use std::process::Command;

use common::{both, data, local};
use serde_json::Value;
use synfit::compute::Device;
use synfit::export::safetensors;
use synfit::network::{self, Dataset, Layout, Shape};
use synfit::spiking::SpikingNetwork;
use synfit::spiking::simulate::{Activity, Output, Runner, Simulation, encode};

fn full() -> bool {
    std::env::var("SYNFIT_PARITY").is_ok_and(|size| size == "full")
}

/// A job: flags of `convert` without --device and --out.
fn convert(job: &[String], device: &str, out: &Path) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synfit"));
    let done =
        command.arg("convert").args(job).args(["--device", device, "--json", "--out"]).arg(out).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!((report["device"]["backend"] == "cpu") == (device == "cpu"), "{}", report["device"]);
    report
}

/// Converts on both devices and compares. Gives the GPU's result.
fn compare(job: &[String]) -> SpikingNetwork {
    let folder = tempfile::tempdir().unwrap();
    let [gpu, cpu] = ["gpu", "cpu"].map(|d| convert(job, d, &folder.path().join(d)));
    let (percent, points) = if full() { (1.0, 0.5) } else { (8.0, 3.0) };
    let layers = |report: &Value| report["layers"].as_array().unwrap().clone();
    assert_eq!(layers(&gpu).len(), layers(&cpu).len());
    let mut far = vec![];
    for (g, c) in layers(&gpu).iter().zip(&layers(&cpu)) {
        for error in ["/error/round", "/error/fit", "/error/grid", "/error/bound", "/response_error"] {
            // Few samples leave weights nearly free; the baseline's scale is the largest of them.
            let percent = if error == "/error/round" && !full() { 5.0 * percent } else { percent };
            match (g.pointer(error).and_then(Value::as_f64), c.pointer(error).and_then(Value::as_f64)) {
                (Some(on_gpu), Some(on_cpu)) => {
                    let apart = (on_gpu - on_cpu).abs() / on_cpu.abs().max(1e-12);
                    println!("{} {error}: {on_gpu:.6e} {on_cpu:.6e}, {:.3} % apart", g["name"], 100.0 * apart);
                    // Below 1e-7 of the targets' square lies the rounding of f32 sums: an exact fit has no error to compare.
                    if 100.0 * apart > percent && (on_gpu - on_cpu).abs() > 1e-7 {
                        far.push(format!("{} {error}: {on_gpu:e} and {on_cpu:e}", g["name"]));
                    }
                }
                (on_gpu, on_cpu) => assert!(on_gpu.is_none() && on_cpu.is_none(), "{error}"),
            }
        }
    }
    let agreement = |report: &Value| 100.0 * report["test"]["agreement"].as_f64().unwrap();
    println!("agreement {:.2} % and {:.2} %", agreement(&gpu), agreement(&cpu));
    assert!(far.is_empty(), "layer errors too far apart (allowed: {percent} %):\n{}", far.join("\n"));
    assert!((agreement(&gpu) - agreement(&cpu)).abs() <= points + 1e-9, "agreement of {gpu} and {cpu}");
    safetensors::read(&folder.path().join("gpu/weights.safetensors")).unwrap()
}

/// Every node's trains, on both devices bit for bit; and all that a simulation tells.
fn same_spikes(net: &SpikingNetwork, raw: &[f32], images: usize) {
    let trains = |dev: &Device| -> Vec<Vec<i32>> {
        let mut all = vec![encode(dev, net, raw, images).unwrap()];
        for node in 1..net.nodes.len() {
            let runner = Runner::new(dev, net, node).unwrap();
            let inputs: Vec<_> = runner.sources().iter().map(|&s| &all[s]).collect();
            if let Output::Trains(trains) = runner.run(dev, images, &inputs).unwrap() {
                all.push(trains);
            }
        }
        all.iter().map(|t| dev.download(&*t.counts(dev).unwrap()).unwrap()).collect()
    };
    let [gpu, cpu] = both();
    for (node, (g, c)) in trains(gpu).iter().zip(&trains(cpu)).enumerate() {
        assert!(g == c, "{}: other spikes", net.nodes[node].name);
    }
    let run = |dev: &Device| {
        let mut activity = Activity::default();
        let values = Simulation::new(dev, net).unwrap().run(dev, images, raw, &mut activity).unwrap();
        (values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), activity)
    };
    let (on_gpu, on_cpu) = (run(gpu), run(cpu));
    assert!(on_gpu == on_cpu, "other outputs or activity");
    assert!(on_cpu.1.spikes.iter().sum::<u64>() > 100 * images as u64, "hardly a spike");
}

fn images(path: &Path, shape: Shape, count: usize) -> Vec<f32> {
    let data = Dataset::open(path, shape, Layout::Nchw, network::ChannelOrder::Rgb).unwrap();
    assert!(data.is_u8());
    data.first(count).unwrap().batch(0..count).unwrap()
}

fn flags(text: &str, files: &[(&str, &Path)]) -> Vec<String> {
    let files = files.iter().flat_map(|(flag, path)| [flag.to_string(), path.display().to_string()]);
    files.chain(text.split_whitespace().map(String::from)).collect()
}

#[test]
fn digits() {
    let file = |name: &str| local("configs/digits").join(name);
    let test = file("test_images.npy");
    let files: [(&str, &Path); 4] = [
        ("--model", &file("digits_cnn.onnx")),
        ("--calibration", &file("train_images.npy")),
        ("--test", &test),
        ("--labels", &file("test_labels.npy")),
    ];
    let net = compare(&flags("--scale 0.0625 --steps 16", &files));
    same_spikes(&net, &images(&test, Shape::new(1, 8, 8), 200), 200);
}

#[test]
fn mnist_lenet() {
    let Some(mnist) = data("mnist") else { return };
    let model = data("networks/mnist_lenet_avgpool.onnx").unwrap();
    let test = mnist.join("t10k-images-idx3-ubyte.gz");
    let files: [(&str, &Path); 4] = [
        ("--model", &model),
        ("--calibration", &mnist.join("train-images-idx3-ubyte.gz")),
        ("--test", &test),
        ("--labels", &mnist.join("t10k-labels-idx1-ubyte.gz")),
    ];
    let sizes = match full() {
        true => "--images 1000 --test-every 5",
        false => "--images 100 --test-images 100 --test-every 5",
    };
    let net = compare(&flags(&format!("--scale 0.00392156862745098 --steps 16 {sizes}"), &files));
    same_spikes(&net, &images(&test, Shape::new(1, 28, 28), 20), 20);
}

#[test]
fn acasxu() {
    let Some(model) = data("networks/acasxu_1_1.onnx") else { return };
    let images = if full() { 2000 } else { 400 };
    let job = format!(
        "--calibration uniform:-0.5..0.5 --images {images} --test-images {images} --decision argmin --steps 128"
    );
    let net = compare(&flags(&job, &[("--model", &model)]));
    let mut rng = fastrand::Rng::with_seed(1);
    let raw: Vec<f32> = (0..5 * 100).map(|_| rng.f32() - 0.5).collect();
    same_spikes(&net, &raw, 100);
}
