//! `synfit convert --keep` and `synfit prune` as a user meets them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use synfit::spiking::{SpikingNode, SpikingOp, Weights};

fn synfit(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_synfit")).args(args).output().unwrap()
}

fn json(args: &[&str]) -> Value {
    let out = synfit(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn refused(args: &[&str], words: &str) {
    let out = synfit(args);
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(2) && text.contains(words), "{args:?}: {text}");
}

/// The codes of a layer that reads one source.
fn codes(node: &SpikingNode) -> Option<Vec<i32>> {
    let SpikingOp::Neurons(layer) = &node.op else { return None };
    let [synapses] = layer.synapses.as_slice() else { panic!("{} reads several sources", node.name) };
    let Weights::Codes { codes, .. } = &synapses.weight else { panic!("{} has no codes", node.name) };
    Some(codes.clone())
}

fn bytes(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("weights.safetensors")).unwrap()
}

#[test]
fn a_demo_is_made_smaller_and_swept() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (whole, small, job) = (path("whole"), path("small"), path("whole/job.toml"));
    json(&["demo", "--device", "cpu", "--out", &whole, "--json"]);

    let report = json(&["prune", &whole, "--keep", "conv3=50%,fc1=75%", "--out", &small, "--json"]);
    assert!(report["test"]["agreement"].as_f64().unwrap() > 0.9);
    let pruned = report["layers"].as_array().unwrap().iter().filter(|l| l["pruned"].is_object()).count();
    assert!(pruned >= 2 && report["notes"].to_string().contains("nodes left"));
    // the same from the start, by flags and by the job that was written
    let other = path("other");
    json(&["convert", &job, "--keep", "conv3=50%,fc1=75%", "--out", &other, "--json"]);
    assert!(bytes(small.as_ref()) == bytes(other.as_ref()));
    let again = path("again");
    json(&["convert", &path("small/job.toml"), "--out", &again, "--json"]);
    assert!(bytes(small.as_ref()) == bytes(again.as_ref()));
    let simulated = json(&["simulate", &small, "--json"]);
    assert_eq!(simulated, report["test"]);

    let (tuned, fresh, sizes) = (path("tuned"), path("fresh"), "conv3=25%,fc1=25%");
    let report = json(&["prune", &whole, "--keep", sizes, "--tune", "12", "--out", &tuned, "--json"]);
    assert!(report["notes"].to_string().contains("tuned end to end"), "{}", report["notes"]);
    assert!(report["tuned"]["relative_error"].as_f64() < report["test"]["relative_error"].as_f64());
    json(&["convert", &job, "--keep", sizes, "--tune", "12", "--out", &fresh, "--json"]);
    assert!(bytes(tuned.as_ref()) == bytes(fresh.as_ref()));
    refused(&["convert", &job, "--tune", "12", "--out", &fresh], "--keep");

    let sweep = json(&["prune", &whole, "--sweep", "--keep", "fc1", "--at", "50%", "--json"]);
    let layer = &sweep["layers"][0];
    let (nodes, removals) = (layer["nodes"].as_u64().unwrap(), layer["removals"].as_array().unwrap().len());
    assert_eq!(removals as u64, nodes - 1);
    assert_eq!(layer["measured"][0]["kept"], nodes.div_ceil(2));
    assert!(layer["measured"][0]["agreement"].as_f64().unwrap() > 0.9);
    assert!(layer["survey_seconds"].as_f64().unwrap() > 0.0 && layer["seconds"].as_f64().unwrap() > 0.0);
    let svg = std::fs::read_to_string(folder.path().join("whole/sweep.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("polyline") && svg.contains("circle"));
    assert!(folder.path().join("whole/sweep.json").exists());

    refused(&["prune", &whole, "--keep", "nothing=3", "--out", &other], "no layer is called `nothing`");
    refused(&["prune", &whole, "--out", &other], "--keep");
    refused(&["prune", &whole, "--keep", "0.5"], "--out");
    refused(&["prune", &whole, "--sparsity", "2", "--out", &other], "is not a share");
    refused(&["prune", &whole, "--sweep", "--sparsity", "0.5"], "--sparsity");
    refused(&["prune", &path("none"), "--keep", "0.5", "--out", &other], "job.toml");
    refused(&["convert", &job, "--keep", "0.5", "--prune-by", "luck", "--out", &other], "cost, magnitude, rate");
    refused(&["convert", &job, "--keep", "0.5", "--prune", "best", "--out", &other], "optimal, exact");
}

/// A finished conversion loses synapses, and then nodes: the same as converted so from the start, and layers before the
/// first that changes are not fitted again.
#[test]
fn a_finished_conversion_loses_synapses() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (demo, whole, thin, both, other) = (path("demo"), path("whole"), path("thin"), path("both"), path("other"));
    json(&["demo", "--device", "cpu", "--steps", "8", "--out", &demo, "--json"]);
    let small = ["--images", "150", "--test-images", "100", "--out", &whole, "--json"];
    json(&[&["convert", &path("demo/job.toml")][..], &small].concat());
    let (whole, job) = (whole.as_str(), &path("whole/job.toml"));
    let seconds = |report: &Value| -> Vec<f64> {
        report["layers"].as_array().unwrap().iter().map(|l| l["seconds"].as_f64().unwrap()).collect()
    };
    let before: Value = serde_json::from_slice(&std::fs::read(format!("{whole}/report.json")).unwrap()).unwrap();
    for (args, first) in [
        (&["--pattern", "2:4"][..], 0),
        (&["--fan-in", "20"], 1),
        // the last is made smaller further
        (&["--sparsity", "conv3=0.6"], 2),
    ] {
        let report = json(&[&["prune", whole, "--out", &thin, "--json"], args].concat());
        json(&[&["convert", job, "--out", &other, "--json"], args].concat());
        assert!(bytes(thin.as_ref()) == bytes(other.as_ref()), "{args:?}");
        let (now, before) = (seconds(&report), seconds(&before));
        assert!(now[..first] == before[..first] && now[first] != before[first], "{args:?}: {now:?} {before:?}");
    }
    let thinned = serde_json::from_slice(&std::fs::read(format!("{thin}/report.json")).unwrap()).unwrap();
    let report = json(&["prune", &thin, "--keep", "fc1=50%", "--out", &both, "--json"]);
    assert_eq!(seconds(&report)[..3], seconds(&thinned)[..3]);
    assert!(report["layers"][2]["sparse"].is_object() && report["layers"][3]["pruned"].is_object(), "{report}");
    json(&["convert", job, "--sparsity", "conv3=0.6", "--keep", "fc1=50%", "--out", &other, "--json"]);
    assert!(bytes(both.as_ref()) == bytes(other.as_ref()));
    // and from there: the nodes stay as they were chosen while the synapses of a later layer go
    json(&["prune", &both, "--sparsity", "conv3=0.6,fc2=0.3", "--out", &thin, "--json"]);
    json(&["convert", job, "--sparsity", "conv3=0.6,fc2=0.3", "--keep", "fc1=50%", "--out", &other, "--json"]);
    assert!(bytes(thin.as_ref()) == bytes(other.as_ref()));
}

/// Single synapses: what the report says is what the folder holds, and the cost on a chip counts what is left.
#[test]
fn a_demo_loses_synapses() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (whole, job) = (path("whole"), path("whole/job.toml"));
    let dense = json(&["demo", "--device", "cpu", "--steps", "16", "--out", &whole, "--json"]);
    let stored = |name: &str| -> Vec<Vec<i32>> {
        let net = synfit::export::safetensors::read(&folder.path().join(name).join("weights.safetensors")).unwrap();
        net.nodes.iter().filter_map(codes).collect()
    };
    for (name, args) in [
        ("sparse", &["--sparsity", "0.6,fc1=80%"][..]),
        ("short", &["--fan-in", "20"]),
        ("runs", &["--pattern", "2:4", "--chip", "digital"]),
        ("by_magnitude", &["--sparsity", "0.6,fc1=80%", "--prune-by", "magnitude"]),
        ("by_rate", &["--sparsity", "0.6,fc1=80%", "--prune-by", "rate"]),
    ] {
        let out = path(name);
        let report = json(&[&["convert", &job, "--images", "200", "--out", &out, "--json"], args].concat());
        assert!(report["test"]["agreement"].as_f64().unwrap() > 0.85, "{args:?}: {}", report["test"]);
        assert!(report["notes"].to_string().contains("synapses left"));
        assert!(report["test"]["synops_per_image"].as_f64() < dense["test"]["synops_per_image"].as_f64());
        for (layer, codes) in report["layers"].as_array().unwrap().iter().zip(stored(name)) {
            let (sparse, inputs) = (&layer["sparse"], layer["inputs"].as_u64().unwrap() as usize);
            let most = |row: &[i32]| row.iter().filter(|q| **q != 0).count();
            let left: usize = codes.chunks(inputs).map(most).sum();
            if sparse.is_null() {
                assert!(name == "short" && inputs <= 20);
                continue;
            }
            let [kept, of, fan_in] = ["kept", "of", "fan_in"].map(|k| sparse[k].as_u64().unwrap() as usize);
            assert!(of == codes.len() && left <= kept && codes.chunks(inputs).all(|row| most(row) <= fan_in));
            let share = if layer["kind"] == "dense" { 0.2 } else { 0.4 };
            match name {
                "short" => assert_eq!(fan_in, 20.min(inputs)),
                "runs" => {
                    let held = |row: &[i32]| row.chunks(4).all(|run| most(run) <= 2);
                    assert!(codes.chunks(inputs).all(held));
                }
                _ => assert!((kept as f64 - share * of as f64).abs() <= 1.0, "{kept} of {of}"),
            }
        }
    }
    // chosen by exact cost the same number of synapses errs less
    let error = |name: &str| {
        let report: Value =
            serde_json::from_slice(&std::fs::read(folder.path().join(name).join("report.json")).unwrap()).unwrap();
        let layers = report["layers"].as_array().unwrap().clone();
        layers.iter().map(|l| l["error"]["grid"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    for other in ["by_magnitude", "by_rate"] {
        assert!(
            error("sparse").iter().zip(error(other)).all(|(a, b)| *a < b),
            "{:?} {:?}",
            error("sparse"),
            error(other)
        );
    }
    // the job is kept, and the independent check agrees with what is stored
    let again = path("again");
    json(&["convert", &path("sparse/job.toml"), "--out", &again, "--json"]);
    assert!(bytes(path("sparse").as_ref()) == bytes(again.as_ref()));
    assert!(synfit(&["check", &path("sparse"), "--rows", "2"]).status.success());

    refused(&["convert", &job, "--sparsity", "1.0", "--out", &again], "`1.0` is not a share");
    refused(&["convert", &job, "--sparsity", "nothing=0.5", "--out", &again], "no layer is called `nothing`");
    refused(&["convert", &job, "--fan-in", "0", "--out", &again], "fan-in");
    refused(&["convert", &job, "--pattern", "4:2", "--out", &again], "N:M");
    refused(&["convert", &job, "--sparsity", "0.5", "--bits", "1", "--out", &again], "have no zero");
}

/// A chip's limit of a neuron's inputs is kept by pruning, said before the work and after it.
#[test]
fn a_chips_fan_in_is_kept_by_pruning() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let text = std::fs::read_to_string("configs/chips/digital.toml").unwrap();
    let chip = |name: &str, limits: &str| {
        let changed = text.replace("axons_in = 1024", limits);
        assert_ne!(changed, text);
        std::fs::write(path(name), changed).unwrap();
        path(name)
    };
    let rows = chip("rows.toml", "axons_in = 1024\nfan_in = 30");
    let together = chip("together.toml", "axons_in = 32\nfan_in = 40");
    json(&["demo", "--device", "cpu", "--steps", "16", "--out", &path("whole"), "--json"]);
    let (job, model) = (path("whole/job.toml"), "configs/digits/digits_cnn.onnx");
    for (chip, most, same) in [(&rows, 30, false), (&together, 32, true)] {
        let seen = json(&["inspect", model, "--chip", chip, "--json"]);
        assert_eq!(seen["verdict"]["fits"], true, "{}", seen["verdict"]);
        let told = seen["verdict"]["pruned"].to_string();
        assert!(told.contains(&format!("{most} of the")) && told.contains("the same for all") == same, "{told}");
        let out = path(&format!("on{most}"));
        let report = json(&["convert", &job, "--images", "200", "--chip", chip, "--out", &out, "--json"]);
        assert!(report["test"]["agreement"].as_f64().unwrap() > 0.85, "{}", report["test"]);
        assert!(report["notes"].to_string().contains(&format!("the chip takes {most} inputs a neuron")));
        let net = synfit::export::safetensors::read(&Path::new(&out).join("weights.safetensors")).unwrap();
        for node in &net.nodes {
            let Some(codes) = codes(node) else { continue };
            let inputs = codes.len() / node.shape.c;
            let used = |i: usize| codes.chunks(inputs).any(|row| row[i] != 0);
            let all = (0..inputs).filter(|&i| used(i)).count();
            assert!(codes.chunks(inputs).all(|row| row.iter().filter(|q| **q != 0).count() <= most));
            assert!(all <= if same { most } else { inputs }, "{}: {all}", node.name);
        }
        // a grid without a zero cannot
        refused(
            &["convert", &job, "--chip", chip, "--bits", "1", "--out", &out],
            &format!("allows {}", if same { 40 } else { 30 }),
        );
    }
}

/// Totals by what a chip has: cores are counted by placing the network, and what is chosen is checked against the chip.
#[test]
fn a_total_is_the_chips() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let text = std::fs::read_to_string("configs/chips/digital.toml").unwrap();
    let chip = |name: &str, from: &str, to: &str| {
        std::fs::write(path(name), text.replace(from, to)).unwrap();
        path(name)
    };
    let small = chip("small.toml", "neurons = 1024", "neurons = 100");
    json(&["demo", "--device", "cpu", "--steps", "8", "--out", &path("demo"), "--json"]);
    let job = path("demo/job.toml");
    let whole = json(&["convert", &job, "--images", "200", "--chip", &small, "--out", &path("whole"), "--json"]);
    let job = path("whole/job.toml");
    let cores = whole["cost"]["cores"].as_u64().unwrap();
    assert!(cores > 8, "{cores}");
    for wanted in [cores - 1, cores / 2] {
        let out = path(&format!("cores{wanted}"));
        let keep = format!("cores={wanted}");
        let report = json(&["convert", &job, "--chip", &small, "--keep", &keep, "--out", &out, "--json"]);
        let taken = report["cost"]["cores"].as_u64().unwrap();
        assert!(taken <= wanted && taken + 3 >= wanted, "{taken} cores where {wanted} were asked for");
        assert!(report["test"]["agreement"].as_f64().unwrap() > 0.8);
        assert!(report["neurons"].as_u64() < whole["neurons"].as_u64());
        // what the report says is what another look at the smaller network says
        let again = json(&["prune", &path("whole"), "--keep", &keep, "--out", &path("again"), "--json"]);
        assert_eq!(again["cost"], report["cost"]);
    }
    let other = path("other");
    let on = |chip: &str, keep: &str, words: &str| {
        refused(&["convert", &job, "--chip", chip, "--keep", keep, "--out", &other], words);
    };
    on(&small, "cores=1", "with one node in every layer");
    on("generic8", "cores=4", "no cores whose limits are known");
    on(&small, "cores=4,neurons=100", "one of them");
    on(&small, "cores=none", "takes a whole number");

    // the chip's neurons: the outputs take a place, too
    let neurons = whole["neurons"].as_u64().unwrap();
    let outputs = 10;
    let most = neurons / 2;
    let few = chip("few.toml", "cores = 128", &format!("cores = 128\nneurons = {most}"));
    refused(&["convert", &job, "--chip", &few, "--out", &other], "does not fit digital");
    let keep = format!("neurons={}", most - outputs);
    let report = json(&["convert", &job, "--chip", &few, "--keep", &keep, "--out", &other, "--json"]);
    assert!(report["neurons"].as_u64().unwrap() <= most - outputs);
    on(&few, &format!("neurons={}", most + 50), "does not fit digital");
}
