//! weights.safetensors: what is written reads back as the same network, and what is damaged is refused in words that name
//! the file, never with a panic.

mod common;
#[path = "common/spiking.rs"]
mod spiking;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use spiking::{Recipe, images, network};
use synfit::compute::Device;
use synfit::error::{Error, Kind};
use synfit::export::safetensors::{read, write};
use synfit::neuron::Model;
use synfit::spiking::simulate::{Activity, Simulation};
use synfit::spiking::{Schedule, SpikingNetwork, SpikingOp, Weights};

fn random(seed: u64) -> SpikingNetwork {
    let real = seed % 3 == 2;
    let schedule = if seed % 3 == 1 { Schedule::Layered } else { Schedule::Streaming };
    let model = if real { Model::LIF } else { Model::IF };
    let mut net = network(&Recipe { seed, model, schedule, steps: 7, potential: (-4000, 5000), settle: 3, real });
    // Codes as wide as 8, 16 and 32 bits.
    for (i, node) in net.nodes.iter_mut().enumerate() {
        let SpikingOp::Neurons(layer) = &mut node.op else { continue };
        if let Weights::Codes { codes, .. } = &mut layer.synapses[0].weight {
            codes[0] = [-128, 127, 128, -32768, 32768, -1_000_000][i % 6];
        }
    }
    net
}

fn write_to(folder: &tempfile::TempDir, net: &SpikingNetwork) -> PathBuf {
    let path = folder.path().join("weights.safetensors");
    write(net, &path).unwrap();
    path
}

#[test]
fn what_is_written_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..30 {
        let net = random(seed);
        let path = write_to(&folder, &net);
        assert!(read(&path).unwrap() == net, "seed {seed}");
        let bytes = std::fs::read(&path).unwrap();
        write(&net, &path).unwrap();
        assert!(bytes == std::fs::read(&path).unwrap(), "seed {seed}: written twice, not the same bytes");
    }
}

/// What a user sees: input that names the file.
fn assert_refused(path: &Path, what: &str) -> Error {
    let result = catch_unwind(AssertUnwindSafe(|| read(path))).unwrap_or_else(|_| panic!("{what}: panics"));
    let error = result.err().unwrap_or_else(|| panic!("{what}: is read"));
    assert_eq!(error.kind, Kind::Input, "{what}: {error}");
    assert!(error.to_string().contains("weights.safetensors"), "{what}: {error}");
    assert!(!error.to_string().contains('\n'), "{what}: {error}");
    error
}

#[test]
fn files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    assert_refused(&path, "missing");
    std::fs::create_dir(&path).unwrap();
    assert_refused(&path, "a folder");
    std::fs::remove_dir(&path).unwrap();
    for bytes in [&b""[..], b"hello, this is text", &[0xff; 64], &[0; 64]] {
        std::fs::write(&path, bytes).unwrap();
        assert_refused(&path, "garbage");
    }
    // A safetensors file of another program.
    let empty: Vec<(&str, safetensors::tensor::TensorView)> = vec![];
    std::fs::write(&path, safetensors::serialize(empty, None).unwrap()).unwrap();
    assert!(assert_refused(&path, "no metadata").to_string().contains("synfit"));
}

#[test]
fn truncated_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_to(&folder, &random(3));
    let bytes = std::fs::read(&path).unwrap();
    for len in (0..bytes.len()).step_by(37).chain([7, 8, 9, bytes.len() - 1]) {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert_refused(&path, &format!("{len} of {} bytes", bytes.len()));
    }
}

/// A damaged byte may leave a network (another weight): then it must still run, or fail in words.
fn read_and_run(path: &Path, what: &str) -> bool {
    let run = || {
        let net = match read(path) {
            Ok(net) => net,
            Err(e) => {
                assert!(e.kind == Kind::Input && e.to_string().contains("weights.safetensors"), "{what}: {e}");
                return false;
            }
        };
        if net.nodes.iter().any(|n| n.shape.len() > 1 << 16) {
            return true; // a large network is no damage, but no test either
        }
        let (dev, raw) = (Device::cpu(), images(&net, 1, 1));
        let _ = Simulation::new(&dev, &net).and_then(|s| s.run(&dev, 1, &raw, &mut Activity::default()));
        true
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| panic!("{what}: panics"))
}

#[test]
fn damaged_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_to(&folder, &random(6));
    let bytes = std::fs::read(&path).unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut refused = 0;
    for _ in 0..1500 {
        let mut damaged = bytes.clone();
        let at = rng.usize(..damaged.len());
        damaged[at] = if rng.bool() { rng.u8(..) } else { rng.u8(b'0'..=b'9') };
        std::fs::write(&path, &damaged).unwrap();
        refused += u32::from(!read_and_run(&path, &format!("byte {at} made {}", damaged[at])));
    }
    assert!(refused > 300, "only {refused} of 1500 refused");
}

/// The file's own JSON (tensors and metadata), the structure in its metadata, and the tensors' bytes.
fn parts(bytes: &[u8]) -> (Value, Value, Vec<u8>) {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let structure = serde_json::from_str(header["__metadata__"]["synfit"].as_str().unwrap()).unwrap();
    (header, structure, bytes[8 + len..].to_vec())
}

fn join(mut header: Value, structure: &Value, data: &[u8]) -> Vec<u8> {
    header["__metadata__"]["synfit"] = Value::String(structure.to_string());
    let mut json = header.to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes()[..], &json, data].concat()
}

/// Every number of the structure in turn made small, negative or huge.
#[test]
fn damaged_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_to(&folder, &random(9));
    let (header, structure, data) = parts(&std::fs::read(&path).unwrap());
    let mut places = vec![];
    numbers(&structure, String::new(), &mut places);
    assert!(places.len() > 100);
    for place in places {
        for value in [json!(0), json!(1), json!(3), json!(-1), json!(1u64 << 31), json!(u64::MAX), json!(1e300)] {
            let mut damaged = structure.clone();
            *damaged.pointer_mut(&place).unwrap() = value.clone();
            std::fs::write(&path, join(header.clone(), &damaged, &data)).unwrap();
            read_and_run(&path, &format!("{place} = {value}"));
        }
    }
}

/// JSON pointers of all numbers.
fn numbers(value: &Value, place: String, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(place),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| numbers(v, format!("{place}/{i}"), found)),
        Value::Object(items) => items.iter().for_each(|(k, v)| numbers(v, format!("{place}/{k}"), found)),
        _ => {}
    }
}

/// What would otherwise be simulated wrongly is refused, and the message says what is wrong.
#[test]
fn wrong_structure() {
    let folder = tempfile::tempdir().unwrap();
    let net = (0..).map(|i| random(3 * i)).find(|n| n.nodes[n.output].firing().is_none()).unwrap();
    let path = write_to(&folder, &net);
    let (header, structure, data) = parts(&std::fs::read(&path).unwrap());
    let find = |test: &dyn Fn(&SpikingOp) -> bool| net.nodes.iter().position(|n| test(&n.op)).unwrap();
    let layer = find(&|op| matches!(op, SpikingOp::Neurons(_)));
    let skip = find(&|op| matches!(op, SpikingOp::Neurons(l) if l.synapses.len() == 2));
    let at = |node: usize, field: &str| format!("/nodes/{node}/{field}");
    let (last, name) = (net.output, net.nodes[layer].name.clone());
    let cases: Vec<(String, Value, &str)> = vec![
        ("/version".into(), json!(2), "version 2"),
        ("/steps".into(), json!(0), "steps"),
        ("/steps".into(), json!(1_000_000), "steps"),
        ("/schedule".into(), json!("someday"), "someday"),
        ("/model/decay".into(), json!(1.5), "decay"),
        ("/model/max_spikes".into(), json!(0), "max_spikes"),
        ("/output".into(), json!(99), "output"),
        ("/output".into(), json!(layer), &net.nodes[last].name),
        ("/potential".into(), json!([5, 4]), "potential"),
        ("/input/scale".into(), json!([]), "input"),
        ("/input/lo".into(), json!(1000), "input"),
        (at(0, "op"), json!({"concat": {"sources": []}}), "first node"),
        (at(layer, "op"), json!({"teleport": {}}), "teleport"),
        (at(layer, "op/neurons/synapses/0/source"), json!(layer), &name),
        (at(layer, "op/neurons/synapses/0/groups"), json!(0), &name),
        (at(layer, "op/neurons/synapses/0/shift"), json!(40), &name),
        (at(layer, "op/neurons/synapses/0/window/stride/0"), json!(0), &name),
        (at(layer, "op/neurons/integer"), json!(false), &name),
        (at(layer, "op/neurons/fires"), json!(false), &name),
        (at(skip, "op/neurons/synapses"), json!([]), &net.nodes[skip].name),
        (at(layer, "shape/c"), json!(net.nodes[layer].shape.c + 1), &name),
        (at(layer, "shape/h"), json!(0), &name),
        (at(layer, "constant"), json!(true), &name),
        (at(layer, "peak"), json!(1u64 << 40), &name),
        (at(last, "channels"), json!(2), &net.nodes[last].name),
        (at(last, "channels"), json!(4), &net.nodes[last].name),
        (at(layer, "name"), json!("other"), "other"),
    ];
    for (place, value, word) in cases {
        let mut wrong = structure.clone();
        *wrong.pointer_mut(&place).unwrap_or_else(|| panic!("no {place}")) = value.clone();
        std::fs::write(&path, join(header.clone(), &wrong, &data)).unwrap();
        let error = assert_refused(&path, &format!("{place} = {value}")).to_string();
        assert!(error.contains(word), "{place} = {value}: `{word}` is not in: {error}");
    }
    for suffix in ["weight.0", "bias", "threshold", "initial", "unit", "gain", "base", "origin"] {
        let tensor = format!("{name}.{suffix}");
        let mut renamed = header.clone();
        let entry = renamed.as_object_mut().unwrap().remove(&tensor).unwrap();
        renamed["nothing"] = entry;
        std::fs::write(&path, join(renamed, &structure, &data)).unwrap();
        let error = assert_refused(&path, &format!("no {tensor}")).to_string();
        assert!(error.contains(&tensor), "`{tensor}` is not in: {error}");
        let mut retyped = header.clone();
        let other = if suffix == "weight.0" { "U8" } else { "I8" };
        let bytes: u64 = match &retyped[&tensor]["data_offsets"] {
            Value::Array(ends) => ends[1].as_u64().unwrap() - ends[0].as_u64().unwrap(),
            _ => unreachable!(),
        };
        retyped[&tensor]["dtype"] = json!(other);
        if suffix != "weight.0" {
            retyped[&tensor]["shape"] = json!([bytes]);
        } else if header[&tensor]["dtype"] != "I8" {
            continue; // its shape would be wrong as well
        }
        std::fs::write(&path, join(retyped, &structure, &data)).unwrap();
        let error = assert_refused(&path, &format!("{tensor} in {other}")).to_string();
        assert!(error.contains(&tensor) && error.contains(other), "{tensor} in {other}: {error}");
    }
}
