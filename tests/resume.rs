//! `convert --resume`: a conversion that was killed goes on from its last finished layer, to the same result; a checkpoint
//! that is damaged or of something else is refused.
#![cfg(unix)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use synfit::chip::Chip;
use synfit::compute::{Team, Tiles, Wide};
use synfit::convert::{self, Fingerprint, Images, LayerRecord, Silent, Watch};
use synfit::error::{Kind, Result};
use synfit::export::checkpoint::Checkpoint;
use synfit::network::{self, ChannelOrder, Dataset, Layout};
use synfit::spiking::SpikingNetwork;

/// A conversion of the built-in digits network, long enough to be killed in its midst.
fn command(out: &Path, device: &str, images: &str, more: &[&str]) -> Command {
    let digits = |file: &str| common::local("configs/digits").join(file);
    let mut command = Command::new(env!("CARGO_BIN_EXE_synfit"));
    command.arg("convert").arg("--model").arg(digits("digits_cnn.onnx"));
    command.arg("--calibration").arg(digits("train_images.npy"));
    command.args(["--scale", "0.0625", "--steps", "64", "--test-images", "10", "--images", images, "--device", device]);
    command.args(more).arg("--out").arg(out).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn done(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{text}");
    text
}

fn refused(mut command: Command, words: &str) {
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    let line = text.lines().last().unwrap_or_default();
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(line.starts_with("error: ") && line.contains(words), "{words}: {text}");
}

/// Kills the conversion with SIGKILL when `layers` layers are finished; gives the checkpoint's folder.
fn kill_after(mut command: Command, out: &Path, layers: usize) -> PathBuf {
    let partial = out.with_file_name(format!("{}.partial", out.file_name().unwrap().display()));
    let mut child = command.spawn().unwrap();
    while !layer(&partial, layers - 1).exists() {
        assert_eq!(child.try_wait().unwrap(), None, "it ends before layer {layers}");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.exists(), "it was done before the kill");
    partial
}

fn layer(partial: &Path, index: usize) -> PathBuf {
    partial.join(format!("layer-{index:04}"))
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().display().to_string()).collect();
    names.sort();
    names
}

/// The weights, and the report's layers without their times.
fn result(out: &Path) -> (Vec<u8>, Vec<Value>) {
    let report: Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    let mut layers = report["layers"].as_array().unwrap().clone();
    for layer in &mut layers {
        layer.as_object_mut().unwrap().remove("seconds").unwrap();
    }
    (std::fs::read(out.join("weights.safetensors")).unwrap(), layers)
}

#[test]
fn a_killed_conversion_goes_on_to_the_same_result() {
    for (device, images) in [("cpu", "400"), ("gpu", "64"), ("gpu,cpu:2", "100")] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, resumed) = (folder.path().join("whole"), folder.path().join("resumed"));
        done(command(&whole, device, images, &[]));
        for layers in 1..=2 {
            kill_after(command(&resumed, device, images, &[]), &resumed, layers);
            let said = done(command(&resumed, device, images, &["--resume"]));
            let number = said.split(' ').find_map(|w| w.parse::<usize>().ok());
            assert!(said.starts_with("resuming after ") && number >= Some(layers), "{said}");
            assert!(result(&whole) == result(&resumed), "{device}, killed after layer {layers}: another result");
            // Neither a checkpoint nor the killed process's folder is left.
            assert_eq!(entries(folder.path()), ["resumed", "whole"]);
            std::fs::remove_dir_all(&resumed).unwrap();
        }
    }
}

/// Later layers' targets depend on a layer before them having lost synapses: the finished ones are asked.
#[test]
fn a_conversion_with_fewer_synapses_goes_on_to_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, resumed] = ["whole", "resumed"].map(|name| folder.path().join(name));
    let thin = ["--sparsity", "conv1=0.5"];
    done(command(&whole, "cpu", "400", &thin));
    kill_after(command(&resumed, "cpu", "400", &thin), &resumed, 2);
    done(command(&resumed, "cpu", "400", &[&thin[..], &["--resume"]].concat()));
    assert!(result(&whole) == result(&resumed));
}

#[test]
fn foreign_and_damaged_checkpoints_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let partial = kill_after(command(&out, "cpu", "400", &[]), &out, 2);
    refused(command(&out, "cpu", "399", &["--resume"]), "another set of calibration images");
    refused(command(&out, "cpu", "400", &["--resume", "--bits", "4"]), "another chip or set of options");
    for device in ["gpu", "gpu,cpu", "cpu,gpu"] {
        refused(command(&out, device, "400", &["--resume"]), "another device");
    }
    let first = layer(&partial, 0);
    let good = std::fs::read(&first).unwrap();
    for at in [0, 9, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        std::fs::write(&first, bytes).unwrap();
        refused(command(&out, "cpu", "400", &["--resume"]), "is damaged");
    }
    for len in [0, 7, good.len() - 1] {
        std::fs::write(&first, &good[..len]).unwrap();
        refused(command(&out, "cpu", "400", &["--resume"]), "is damaged");
    }
    std::fs::remove_file(&first).unwrap();
    refused(command(&out, "cpu", "400", &["--resume"]), "layer-0000");
    // The second layer in the first one's place.
    std::fs::copy(layer(&partial, 1), &first).unwrap();
    refused(command(&out, "cpu", "400", &["--resume"]), "checkpoint");
    // What was refused is still there; repaired, it serves.
    std::fs::write(&first, &good).unwrap();
    done(command(&out, "cpu", "400", &["--resume"]));
    assert_eq!(entries(folder.path()), ["out"]);
}

#[test]
fn without_resume_it_starts_afresh_and_without_a_checkpoint_it_just_starts() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    kill_after(command(&out, "cpu", "400", &[]), &out, 1);
    let said = done(command(&out, "cpu", "20", &[]));
    assert!(said.starts_with("starting afresh"), "{said}");
    let said = done(command(&out, "cpu", "20", &["--resume"]));
    assert!(said.starts_with("nothing to resume"), "{said}");
    assert_eq!(entries(folder.path()), ["out"]);
    // A folder of something else is not touched.
    let partial = folder.path().join("out.partial");
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join("mine"), "text").unwrap();
    refused(command(&out, "cpu", "20", &[]), "in the way");
    assert_eq!(entries(&partial), ["mine"]);
}

/// Says nothing, keeps finished layers and stops before the next one.
struct First<'a>(&'a Checkpoint);

impl Watch for First<'_> {
    fn stage(&self, _: &str, _: u64) {}
    fn tick(&self) {}
    fn cancelled(&self) -> bool {
        self.0.layers() > 0
    }
    fn finished(&self, net: &SpikingNetwork, record: &LayerRecord) -> Result<()> {
        self.0.add(net, record)
    }
}

/// The choice of kernels is timed and may come out otherwise the next time: that of the finished layers counts.
#[test]
fn resuming_takes_over_the_choice_of_kernels() {
    let network = network::read(&common::local("configs/digits/digits_cnn.onnx")).unwrap();
    let path = common::local("configs/digits/train_images.npy");
    let data = Dataset::open(&path, network.input_shape(), Layout::Nchw, ChannelOrder::Rgb).unwrap().first(20).unwrap();
    let images = Images { data, scale: vec![0.0625], shift: vec![0.0] };
    let options = common::options(Chip::load("generic8").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (scratch, place) = (folder.path(), folder.path().join("out.partial"));
    let timed = Tiles { gram: Wide::ALWAYS, counts: Wide(80), conv: Wide::ALWAYS, dots: false };
    let [began, other] = [timed, Tiles::default()].map(|tiles| Team::from(&common::both()[0].with_tiles(tiles)));
    let print = |team: &Team| Fingerprint::of(team, &network, &images, &options).unwrap();
    let checkpoint = Checkpoint::open(&place, print(&began)).unwrap();
    let stopped = convert::convert(&began, &network, &images, &options, scratch, &First(&checkpoint)).err().unwrap();
    assert_eq!(stopped.kind, Kind::Interrupted);
    drop(checkpoint);

    let mut checkpoint = Checkpoint::open(&place, print(&other)).unwrap();
    let done = checkpoint.read(&other).unwrap();
    assert_eq!((done.len(), other.first().tiles()), (1, timed));
    // and so do the layers that come
    let all = convert::resume(&other, &network, &images, &options, scratch, &Silent, done).unwrap();
    checkpoint.add(&all.spiking, all.layers.last().unwrap()).unwrap();
    drop(checkpoint);
    let again = Team::from(&common::both()[0].with_tiles(Tiles::default()));
    assert_eq!(Checkpoint::open(&place, print(&again)).unwrap().read(&again).unwrap().len(), 2);
    assert_eq!(again.first().tiles(), timed);
}
