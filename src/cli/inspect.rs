//! `synfit inspect MODEL.onnx`: layers, shapes, what maps, does it fit, before any work.

use std::path::PathBuf;

use serde::Serialize;

use super::table;
use crate::chip::Chip;
use crate::convert::neurons_per_unit;
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
    /// Neurons for a unit whose activation one neuron cannot follow
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
    /// What the chip cannot hold, in words; empty if it fits.
    misfits: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let network = network::read(&args.model)?;
    let chip = Chip::load(&args.chip)?;
    let found = inspect(&network, &chip, args.population);
    if args.json {
        let text = serde_json::to_string_pretty(&found).map_err(|e| Error::work("inspect", e.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found
        .layers
        .iter()
        .map(|l| {
            vec![
                l.name.clone(),
                l.kind.clone(),
                format!("{}x{}x{}", l.shape[0], l.shape[1], l.shape[2]),
                l.fan_in.to_string(),
                table::grouped(l.neurons as f64),
                table::grouped(l.weights as f64),
                table::grouped(l.macs as f64),
            ]
        })
        .collect();
    println!("{}\n", table::render(&["layer", "kind", "shape", "fan-in", "neurons", "weights", "macs"], &rows, 2));
    println!(
        "{}: input {}, output {}, {} neurons, {} weights, {} multiply-accumulates",
        found.model,
        network.input_shape(),
        network.output_shape(),
        table::grouped(found.neurons as f64),
        table::grouped(found.weights as f64),
        table::grouped(found.macs as f64)
    );
    match found.misfits.as_slice() {
        [] => println!("maps to {}", found.chip),
        misfits => misfits.iter().for_each(|m| println!("does not fit {}: {m}", found.chip)),
    }
    Ok(())
}

fn inspect(network: &Network, chip: &Chip, population: usize) -> Inspection {
    // Spiking channels per ANN channel: consumers of a population see all of its neurons.
    let mut grown: Vec<u64> = Vec::new();
    let mut layers = Vec::new();
    for (i, node) in network.nodes.iter().enumerate() {
        let of_source = node.sources().first().map_or(1, |&s| grown[s]);
        let shape = [node.shape.c, node.shape.h, node.shape.w];
        let (kind, fan_in, neurons, weights, macs, factor) = match &node.op {
            Op::Neurons { blocks, activation, .. } => {
                let readout = i == network.output && *activation == network::Activation::Linear;
                let factor = if readout { 1 } else { neurons_per_unit(*activation, population) };
                let per_row = |b: &network::Block| (b.weight.len() / node.shape.c) as u64 * grown[b.source];
                let fan_in: u64 = blocks.iter().map(per_row).sum();
                let weights = fan_in * node.shape.c as u64 * factor;
                let kind = if readout { "readout".to_string() } else { format!("{activation:?}") };
                let kind = kind.split([' ', '{']).next().unwrap_or("").to_lowercase();
                let neurons = if readout { 0 } else { node.shape.len() as u64 * factor };
                let macs = blocks.iter().map(|b| b.weight.len() as u64 * node.shape.area() as u64).sum();
                (kind, fan_in, neurons, weights, macs, factor)
            }
            Op::Input => ("input".into(), 0, 0, 0, 0, 1),
            Op::AveragePool { window, .. } => ("average pool".into(), window.taps() as u64, 0, 0, 0, of_source),
            Op::MaxPool { window, .. } => ("max pool".into(), window.taps() as u64, 0, 0, 0, of_source),
            Op::Concat { .. } => ("concat".into(), 0, 0, 0, 0, of_source),
            Op::Gather { .. } => ("rearrange".into(), 0, 0, 0, 0, of_source),
        };
        grown.push(factor);
        layers.push(Line { name: node.name.clone(), kind, shape, fan_in, neurons, weights, macs });
    }
    let neurons = layers.iter().map(|l| l.neurons).sum();
    let weights = layers.iter().map(|l| l.weights).sum();
    let mut misfits = Vec::new();
    let mut limit = |what: String, need: u64, most: Option<u64>| {
        if let Some(most) = most.filter(|&m| need > m) {
            misfits.push(format!("{what}: {need} needed, {most} there"));
        }
    };
    limit("neurons".into(), neurons, chip.capacity.neurons);
    limit("synapses".into(), weights, chip.capacity.synapses);
    for l in layers.iter().filter(|l| l.weights > 0) {
        limit(format!("fan-in of {}", l.name), l.fan_in, chip.capacity.fan_in);
    }
    let dims = |s: network::Shape| [s.c, s.h, s.w];
    Inspection {
        model: network.name.clone(),
        input: dims(network.input_shape()),
        output: dims(network.output_shape()),
        chip: chip.name.clone(),
        macs: layers.iter().map(|l| l.macs).sum(),
        layers,
        neurons,
        weights,
        misfits,
    }
}
