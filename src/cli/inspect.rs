//! `synfit inspect MODEL.onnx`: layers, shapes, what maps, does it fit, before any work.

use std::path::PathBuf;

use serde::Serialize;

use super::table;
use crate::chip::rules::{Verdict, verdict};
use crate::chip::{Chip, Demand, fit_rules};
use crate::convert::{Populations, neurons_per_unit};
use crate::error::{Error, Result};
use crate::network::{self, Network, Op};

#[derive(clap::Args)]
pub struct Args {
    /// The trained network, an ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// A built-in chip or a chip file
    #[arg(long, value_name = "C", default_value = "generic8")]
    chip: String,
    /// Neurons for a rectified unit (a leaky one: for each of its slopes)
    #[arg(long, value_name = "N", default_value_t = 1)]
    per_unit: usize,
    /// Neurons for a unit whose activation is curved (sigmoid, tanh, softplus, elu)
    #[arg(long, value_name = "P", default_value_t = 4)]
    population: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    name: String,
    kind: String,
    /// channels, height, width
    shape: [usize; 3],
    /// Presynaptic inputs of one neuron.
    fan_in: u64,
    neurons: u64,
    /// Stored weights (shared by the positions of a convolution).
    weights: u64,
    macs: u64,
}

#[derive(Serialize)]
struct Inspection {
    model: String,
    input: [usize; 3],
    output: [usize; 3],
    chip: String,
    layers: Vec<Line>,
    neurons: u64,
    weights: u64,
    macs: u64,
    /// Where the layers lie, and what the chip cannot hold.
    verdict: Verdict,
    /// What of the chip's constraints a conversion cannot keep yet; null if it keeps all.
    not_convertible: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let network = network::read(&args.model)?;
    let chip = Chip::load(&args.chip)?;
    let found = inspect(&network, &chip, Populations { rectified: args.per_unit.max(1), curved: args.population });
    if args.json {
        let text = serde_json::to_string_pretty(&found).map_err(|e| Error::work("inspect", e.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    println!("{}\n", layer_table(&found));
    println!(
        "{}: input {}, output {}, {} neurons, {} weights, {} multiply-accumulates",
        found.model,
        network.input_shape(),
        network.output_shape(),
        table::grouped(found.neurons as f64),
        table::grouped(found.weights as f64),
        table::grouped(found.macs as f64)
    );
    for placed in &found.verdict.placement.layers {
        if let Some(split) = &placed.split {
            println!("split: {}: {split}", placed.layer);
        }
    }
    print_verdict(&found);
    Ok(())
}

fn print_verdict(found: &Inspection) {
    let Verdict { findings, placement, cores, pruned, unknown, .. } = &found.verdict;
    let taken = match (placement.cores, cores) {
        (0, _) => String::new(),
        (n, Some(there)) => {
            format!(": {n} of {there} cores ({})", table::percent(Some(n as f64 / *there as f64)))
        }
        (n, None) => format!(": {n} cores or arrays"),
    };
    let placed_all = placement.unplaced.is_empty();
    match findings.as_slice() {
        [] => println!("fits: maps to {}{taken}", found.chip),
        [first, others @ ..] => {
            println!("does not fit {}{}", found.chip, if placed_all { taken } else { String::new() });
            println!("first to change: {}", first.message);
            others.iter().for_each(|f| println!("then: {}", f.message));
        }
    }
    pruned.iter().for_each(|line| println!("pruned by convert: {line}"));
    if !unknown.is_empty() {
        println!("unknown, so not checked: {}", unknown.join(", "));
    }
    if let Some(why) = &found.not_convertible {
        println!("cannot be converted yet: {why}");
    }
}

/// The layers, with where they lie if the chip has cores.
fn layer_table(found: &Inspection) -> String {
    let placed = &found.verdict.placement.layers;
    let mut header = vec!["layer", "kind", "shape", "fan-in", "neurons", "weights", "macs"];
    let limited = placed.iter().any(|p| !p.limit.is_empty()) || !found.verdict.placement.unplaced.is_empty();
    if limited {
        header.extend(["cores", "fullest", "of its"]);
    }
    let row = |l: &Line| {
        let mut row = vec![
            l.name.clone(),
            l.kind.clone(),
            format!("{}x{}x{}", l.shape[0], l.shape[1], l.shape[2]),
            l.fan_in.to_string(),
            table::grouped(l.neurons as f64),
            table::grouped(l.weights as f64),
            table::grouped(l.macs as f64),
        ];
        if limited {
            let here = placed.iter().find(|p| p.layer == l.name);
            row.push(here.map_or_else(|| "-".into(), |p| p.cores.to_string()));
            row.push(table::percent(here.map(|p| p.fullest)));
            row.push(here.map_or_else(String::new, |p| p.limit.clone()));
        }
        row
    };
    table::render(&header, &found.layers.iter().map(row).collect::<Vec<_>>(), 2)
}

fn inspect(network: &Network, chip: &Chip, population: Populations) -> Inspection {
    let demand = Demand::of(network, |activation| neurons_per_unit(activation, population));
    let line = |(i, node): (usize, &network::Node)| {
        let line = Line {
            name: node.name.clone(),
            kind: String::new(),
            shape: [node.shape.c, node.shape.h, node.shape.w],
            fan_in: 0,
            neurons: 0,
            weights: 0,
            macs: 0,
        };
        match (&node.op, demand.layer(i)) {
            (_, Some(layer)) => Line {
                kind: layer.kind.clone(),
                fan_in: layer.fan_in,
                neurons: if layer.fires { layer.units() } else { 0 },
                weights: layer.weights,
                macs: layer.macs,
                ..line
            },
            (Op::AveragePool { window, .. }, _) => {
                Line { kind: "average pool".into(), fan_in: window.taps() as u64, ..line }
            }
            (Op::MaxPool { window, .. }, _) => Line { kind: "max pool".into(), fan_in: window.taps() as u64, ..line },
            (Op::Concat { .. }, _) => Line { kind: "concat".into(), ..line },
            (Op::Gather { .. }, _) => Line { kind: "rearrange".into(), ..line },
            (Op::Input | Op::Neurons { .. }, _) => Line { kind: "input".into(), ..line },
        }
    };
    let layers: Vec<Line> = network.nodes.iter().enumerate().map(line).collect();
    let dims = |s: network::Shape| [s.c, s.h, s.w];
    Inspection {
        model: network.name.clone(),
        input: dims(network.input_shape()),
        output: dims(network.output_shape()),
        chip: chip.name.clone(),
        neurons: layers.iter().map(|l| l.neurons).sum(),
        weights: layers.iter().map(|l| l.weights).sum(),
        macs: layers.iter().map(|l| l.macs).sum(),
        layers,
        verdict: verdict(chip, &demand),
        not_convertible: fit_rules(chip).err().map(|e| e.message),
    }
}
