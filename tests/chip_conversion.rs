//! What a conversion stores for each chip is what the chip can hold: an independent pass over the integers in
//! weights.safetensors, by the numbers of the chip's own documents.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use synfit::chip::Chip;
use synfit::spiking::{SpikingNetwork, SpikingNode, SpikingOp, State, Weights};
use tempfile::TempDir;

/// A built-in chip's file without its sizes, so that any network fits.
fn sizeless(name: &str) -> String {
    let text = Chip::text(name).unwrap();
    let mut kept = true;
    let lines = text.lines().filter(|line| {
        if line.starts_with('[') {
            kept = !["[core]", "[chip]", "[layer]", "[array]"].contains(&line.trim());
        }
        kept
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The digits network on a chip: its report and the folder.
fn convert(folder: &Path, name: &str, more: &[&str]) -> (Value, PathBuf) {
    convert_to(folder, name, &sizeless(name), more)
}

/// The same for a chip file's text.
fn convert_to(folder: &Path, name: &str, text: &str, more: &[&str]) -> (Value, PathBuf) {
    let digits = |file: &str| common::local(&format!("configs/digits/{file}")).display().to_string();
    let (chip, out) = (folder.join(format!("{name}.toml")), folder.join(name));
    std::fs::write(&chip, text).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_synfit"))
        .args(["convert", "--model", &digits("digits_cnn.onnx"), "--calibration", &digits("train_images.npy")])
        .args(["--test", &digits("test_images.npy"), "--labels", &digits("test_labels.npy")])
        .args(["--scale", "0.0625", "--steps", "32", "--device", "cpu", "--json"])
        .args(["--chip", chip.to_str().unwrap(), "--out", out.to_str().unwrap()])
        .args(if more.contains(&"--images") { &[][..] } else { &["--images", "400"] })
        .args(more)
        .output()
        .unwrap();
    assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
    (serde_json::from_slice(&run.stdout).unwrap(), out)
}

fn read(out: &Path) -> SpikingNetwork {
    synfit::export::safetensors::read(&out.join("weights.safetensors")).unwrap()
}

/// A layer's node; codes and shift of each source; biases, thresholds.
type Stored<'a> = (&'a SpikingNode, Vec<(&'a [i32], u32)>, &'a [i32], &'a [i32]);

fn layers(net: &SpikingNetwork) -> impl Iterator<Item = Stored<'_>> {
    net.nodes.iter().filter_map(|node| {
        let SpikingOp::Neurons(layer) = &node.op else { return None };
        let State::Integer { bias, threshold, .. } = &layer.state else { panic!("{}: no integers", node.name) };
        let codes = layer.synapses.iter().map(|s| match &s.weight {
            Weights::Codes { codes, shift } => (codes.as_slice(), *shift),
            Weights::Real(_) => panic!("{}: real weights", node.name),
        });
        Some((node, codes.collect(), bias.as_slice(), threshold.as_slice()))
    })
}

/// What a chip's documents say: codes, largest shift, thresholds and biases, one threshold a layer, agreement.
struct Holds {
    name: &'static str,
    code: fn(i32) -> bool,
    most_shift: u32,
    threshold: i32,
    bias: i32,
    one_threshold: bool,
    agreement: f64,
}

const CHIPS: [Holds; 9] = [
    // even values of -254..254, shift wexp 0..7, 17-bit thresholds, biases of 12 bits and sign
    Holds {
        name: "loihi1",
        code: |q| q % 2 == 0 && q.abs() <= 254,
        most_shift: 7,
        threshold: 131_071,
        bias: 4095,
        one_threshold: false,
        agreement: 0.97,
    },
    Holds {
        name: "loihi2",
        code: |q| (-128..=127).contains(&q),
        most_shift: 0,
        threshold: 8_388_607,
        bias: 8_388_607,
        one_threshold: false,
        agreement: 0.98,
    },
    Holds {
        name: "speck",
        code: |q| (-128..=127).contains(&q),
        most_shift: 0,
        threshold: 32_767,
        bias: 127,
        one_threshold: true,
        agreement: 0.98,
    },
    Holds {
        name: "reckon",
        code: |q| (-128..=127).contains(&q),
        most_shift: 7,
        threshold: 32_767,
        bias: 32_767,
        one_threshold: true,
        agreement: 0.98,
    },
    Holds {
        name: "brainscales2",
        code: |q| q.abs() <= 63,
        most_shift: 31,
        threshold: i32::MAX,
        bias: i32::MAX,
        one_threshold: false,
        agreement: 0.97,
    },
    // differences of two conductances of 16 levels
    Holds {
        name: "rram",
        code: |q| q.abs() <= 15,
        most_shift: 31,
        threshold: i32::MAX,
        bias: i32::MAX,
        one_threshold: true,
        agreement: 0.97,
    },
    // a synapse is on or off for each of four base currents of 1, 2, 4, 8 units, and of one of two types
    Holds {
        name: "dynapse2",
        code: |q| q.abs() <= 15,
        most_shift: 31,
        threshold: i32::MAX,
        bias: i32::MAX,
        one_threshold: true,
        agreement: 0.95,
    },
    // 16-bit state that leaks by 1 a step, up to 31 spikes a step
    Holds {
        name: "xylo-audio3",
        code: |q| (-128..=127).contains(&q),
        most_shift: 0,
        threshold: 32_767,
        bias: 32_767,
        one_threshold: false,
        agreement: 0.97,
    },
    Holds {
        name: "akida1000",
        code: |q| (-8..=7).contains(&q),
        most_shift: 31,
        threshold: i32::MAX,
        bias: i32::MAX,
        one_threshold: false,
        agreement: 0.97,
    },
];

fn folder() -> &'static TempDir {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap())
}

/// Better than rounding to nearest under the same constraint, layer by layer.
fn beats_rounding(name: &str, report: &Value) {
    for layer in report["layers"].as_array().unwrap() {
        let error = |key: &str| layer["error"][key].as_f64().unwrap();
        assert!(error("grid") <= error("round"), "{name}: {layer}");
        assert!(error("bound") <= error("grid") * (1.0 + 1e-9), "{name}: {layer}");
    }
}

#[test]
fn every_stored_number_is_one_that_the_chip_holds() {
    let noisy = CHIPS.iter().filter(|chip| chip.name == "rram").map(|chip| (chip, "fit"));
    for (chip, noise) in CHIPS.iter().map(|chip| (chip, "test")).chain(noisy) {
        let (report, out) = convert(folder().path(), chip.name, &["--noise", noise]);
        // a fit that knows of noise gives some of its error without noise for less with it (tests/programming_noise.rs)
        if noise == "test" {
            beats_rounding(chip.name, &report);
        }
        let agreement = report["test"]["agreement"].as_f64().unwrap();
        assert!(agreement >= chip.agreement, "{}: agreement {agreement}", chip.name);
        let net = read(&out);
        let mut seen = 0;
        for (node, codes, bias, threshold) in layers(&net) {
            for (codes, shift) in codes {
                assert!(codes.iter().all(|q| (chip.code)(*q)), "{} {}", chip.name, node.name);
                assert!(shift <= chip.most_shift, "{} {}: shift {shift}", chip.name, node.name);
                seen += codes.iter().filter(|q| **q != 0).count();
            }
            assert!(bias.iter().all(|b| b.abs() <= chip.bias), "{} {}: {bias:?}", chip.name, node.name);
            assert!(threshold.iter().all(|t| (1..=chip.threshold).contains(t)), "{} {}", chip.name, node.name);
            if chip.one_threshold {
                assert!(threshold.iter().all(|t| *t == threshold[0]), "{} {}: {threshold:?}", chip.name, node.name);
            }
        }
        assert!(seen > 1000, "{}: hardly any synapses", chip.name);
    }
}

/// ODIN: 3-bit magnitudes, 8-bit thresholds, and one sign for all synapses of a neuron, wherever they lead.
#[test]
fn a_source_neuron_has_one_sign() {
    let (report, out) = convert(folder().path(), "odin", &[]);
    beats_rounding("odin", &report);
    assert!(report["test"]["agreement"].as_f64().unwrap() >= 0.9, "{}", report["test"]);
    let net = read(&out);
    assert_eq!(net.potential, (0, 255));
    let mut free = 0;
    for (node, codes, bias, threshold) in layers(&net) {
        assert!(bias.iter().all(|b| b.abs() <= 127) && threshold.iter().all(|t| (1..=255).contains(t)));
        let SpikingOp::Neurons(layer) = &node.op else { continue };
        for (s, (codes, shift)) in layer.synapses.iter().zip(codes) {
            assert!(codes.iter().all(|q| q.abs() <= 7) && shift == 0, "{}", node.name);
            let (source, taps) = (&net.nodes[s.source], s.window.taps());
            let channels = source.shape.c / s.groups;
            // A weight's place among its row: every one of a dense layer is a neuron, the taps of a convolution share.
            let neuron = |at: usize| if node.shape.area() == 1 { at } else { at / taps };
            let mut signs = vec![0; channels * taps];
            for row in codes.chunks(channels * taps) {
                for (at, q) in row.iter().enumerate().filter(|(_, q)| **q != 0) {
                    let sign = &mut signs[neuron(at)];
                    if source.constant {
                        // the input is events of the bus, which have signs of their own
                        free += i32::from(*sign == -q.signum());
                    } else {
                        assert!(*sign == 0 || *sign == q.signum(), "{}: input {at}", node.name);
                    }
                    *sign = q.signum();
                }
            }
            if !source.constant {
                assert!(signs.contains(&1) && signs.contains(&-1), "{}: all alike", node.name);
            }
        }
    }
    assert!(free > 0, "the input's weights have both signs");
}

/// TrueNorth: an axon's type says which of a neuron's four 9-bit weights its spikes add; a synapse is on or off. 18-bit
/// thresholds, leaks of 9 bits.
#[test]
fn four_weights_a_neuron_by_axon_type() {
    let (report, out) = convert(folder().path(), "truenorth", &[]);
    beats_rounding("truenorth", &report);
    let agreement = report["test"]["agreement"].as_f64().unwrap();
    assert!(agreement >= 0.95, "agreement {agreement}");
    let net = read(&out);
    assert_eq!(net.potential, (-524_287, 524_287));
    let (mut off, mut seen) = (0, 0);
    for (node, codes, bias, threshold) in layers(&net) {
        let SpikingOp::Neurons(layer) = &node.op else { continue };
        assert!(bias.iter().all(|b| b.abs() <= 255), "{}: {bias:?}", node.name);
        assert!(threshold.iter().all(|t| (1..1 << 18).contains(t)), "{}: {threshold:?}", node.name);
        let [(codes, 0)] = codes[..] else { panic!("{}: one source, no shift", node.name) };
        let columns = layer.types.len();
        assert_eq!(codes.len(), columns * node.shape.c);
        assert!(layer.types.iter().all(|t| *t < 4), "{}", node.name);
        let mut used: Vec<u8> = layer.types.clone();
        used.sort_unstable();
        used.dedup();
        assert!(used.len() > 1, "{}: all axons of one type", node.name);
        for row in codes.chunks(columns) {
            let mut values = [None; 4];
            for (q, kind) in row.iter().zip(&layer.types).filter(|(q, _)| **q != 0) {
                assert!((-256..=255).contains(q));
                assert_eq!(*values[usize::from(*kind)].get_or_insert(*q), *q, "{}: type {kind}", node.name);
                seen += 1;
            }
            off += row.iter().filter(|q| **q == 0).count();
        }
    }
    assert!(seen > 1000 && off > 1000, "{seen} synapses on, {off} off");
}

/// A range of real weights, in thresholds per spike.
#[test]
fn real_weights_stay_in_their_range() {
    let (report, out) = convert(folder().path(), "analog", &["--settle", "0"]);
    // the trained weights are up to several thresholds, so that the range costs much here
    let agreement = report["test"]["agreement"].as_f64().unwrap();
    assert!(agreement >= 0.9, "agreement {agreement}");
    assert!(report["cost"]["not_simulated"].as_str().unwrap().contains("noise"));
    let net = read(&out);
    let mut tight = 0;
    for node in &net.nodes {
        let SpikingOp::Neurons(layer) = &node.op else { continue };
        for s in layer.synapses.iter().filter(|_| layer.fires) {
            let Weights::Real(w) = &s.weight else { panic!("{}: integers", node.name) };
            let source = &net.nodes[s.source];
            let most = 0.5 / if source.constant { source.peak as f32 } else { 1.0 };
            assert!(w.iter().all(|w| w.abs() <= most * 1.000_01), "{}", node.name);
            tight += w.iter().filter(|w| w.abs() > most * 0.999).count();
        }
    }
    assert!(tight > 0, "the range is wide enough for all weights: nothing was tested");
}

/// Cost: energy only where the chip's file gives a figure with its source.
#[test]
fn costs_are_sourced() {
    let (odin, _) = convert(&folder().path().join("."), "reckon", &[]);
    let cost = &odin["cost"];
    let operations = odin["test"]["synops_per_image"].as_f64().unwrap();
    let energy = &cost["energy"];
    assert!((energy["picojoules_per_image"].as_f64().unwrap() - 5.3 * operations).abs() < 1e-6 * operations);
    assert!(energy["source"].as_str().unwrap().contains("5.3 pJ"));
    assert_eq!(cost["cores"], Value::Null, "a file without sizes");
    let (speck, out) = convert(folder().path(), "speck", &["--images", "50"]);
    assert_eq!(speck["cost"]["energy"], Value::Null);
    // it goes through whole kernels: zero weights cost as much
    let sparing = sizeless("speck").replace("zero_costs = true", "zero_costs = false");
    let (sparing, _) = convert_to(folder().path(), "sparing", &sparing, &["--images", "50"]);
    let operations = |report: &Value| report["test"]["synops_per_image"].as_f64().unwrap();
    assert_eq!(sparing["test"]["spikes_per_image"], speck["test"]["spikes_per_image"]);
    assert!(operations(&sparing) < operations(&speck), "{} {}", operations(&sparing), operations(&speck));
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("On speck") && html.contains("no source gives the energy"), "report.html");
}

/// A control policy on whole chips, from random inputs.
fn policy(folder: &Path, chip: &str) -> Option<Value> {
    let model = common::data("networks/acasxu_1_1.onnx")?;
    let run = Command::new(env!("CARGO_BIN_EXE_synfit"))
        .args(["convert", "--model", model.to_str().unwrap(), "--calibration", "uniform:-0.5..0.5", "--images", "500"])
        .args(["--test-images", "100", "--decision", "argmin", "--steps", "32", "--device", "cpu", "--json"])
        .args(["--chip", chip, "--out", folder.join(format!("policy-{chip}")).to_str().unwrap()])
        .output()
        .unwrap();
    assert!(run.status.success(), "{chip}: {}", String::from_utf8_lossy(&run.stderr));
    Some(serde_json::from_slice(&run.stdout).unwrap())
}

/// Biases have the unit of codes times inputs: where they are narrow (TrueNorth: 9 bits), an input of many levels leaves codes
/// of -1, 0 and 1. It is given fewer levels, and the first layer's weights are right.
#[test]
fn narrow_biases_get_a_coarser_input() {
    let Some(report) = policy(folder().path(), "truenorth") else { return };
    let first = &report["layers"][0]["error"];
    let (stored, round) = (first["grid"].as_f64().unwrap(), first["round"].as_f64().unwrap());
    // two of five inputs share a type, which costs 0.7 % alone
    assert!(stored < 0.05 && stored < round, "{first}");
}

/// What a reset to zero loses is told apart from what the weights lose.
#[test]
fn losses_at_the_reset_are_told() {
    let Some(report) = policy(folder().path(), "loihi1") else { return };
    let notes = report["notes"].to_string();
    assert!(notes.contains("reset to zero drops") && notes.contains("Operation_"), "{notes}");
    let Some(report) = policy(folder().path(), "xylo-audio3") else { return };
    assert!(!report["notes"].to_string().contains("reset to zero"), "{}", report["notes"]);
}
