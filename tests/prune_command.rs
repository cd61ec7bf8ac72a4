//! `synfit convert --keep` and `synfit prune` as a user meets them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

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

    let sweep = json(&["prune", &whole, "--sweep", "--keep", "fc1", "--at", "50%", "--json"]);
    let layer = &sweep["layers"][0];
    let (nodes, removals) = (layer["nodes"].as_u64().unwrap(), layer["removals"].as_array().unwrap().len());
    assert_eq!(removals as u64, nodes - 1);
    assert_eq!(layer["measured"][0]["kept"], nodes.div_ceil(2));
    assert!(layer["measured"][0]["agreement"].as_f64().unwrap() > 0.9);
    let svg = std::fs::read_to_string(folder.path().join("whole/sweep.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("polyline") && svg.contains("circle"));
    assert!(folder.path().join("whole/sweep.json").exists());

    refused(&["prune", &whole, "--keep", "nothing=3", "--out", &other], "no layer is called `nothing`");
    refused(&["prune", &whole, "--out", &other], "--keep");
    refused(&["prune", &whole, "--keep", "0.5"], "--out");
    refused(&["prune", &path("none"), "--keep", "0.5", "--out", &other], "job.toml");
    refused(&["convert", &job, "--keep", "0.5", "--prune-by", "luck", "--out", &other], "cost, magnitude, rate");
    refused(&["convert", &job, "--keep", "0.5", "--prune", "best", "--out", &other], "optimal, exact");
}
