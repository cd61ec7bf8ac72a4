//! `synfit simulate GRAPH.nir`: a graph that synfit wrote, with its integers and its waiting, or another tool's, as NIR
//! defines it. There is no trained network beside it: spikes, outputs and, with labels, accuracy.

use std::path::Path;

use ndarray::{Array2, ArrayD};
use ndarray_npy::{ReadNpyError, ReadNpyExt, write_npy};
use serde::Serialize;

use super::progress::Progress;
use super::simulate::{Args, fire_at_once, simulated};
use super::table;
use super::timing::check_steps;
use crate::compare::Decision;
use crate::compute::Team;
use crate::convert::{Watch, go_on};
use crate::error::{Error, Result};
use crate::export::nir::{back, file::NirFile, play};
use crate::network::{ChannelOrder, Dataset, Layout, Shape};
use crate::spiking::SpikingNetwork;

/// Images of one pass.
const IMAGES: usize = 64;

#[derive(Serialize)]
struct Record {
    images: usize,
    steps: u32,
    /// Steps from the first input to the result.
    latency: u64,
    accuracy: Option<f64>,
    spikes_per_image: f64,
    layers: Vec<LayerRecord>,
}

#[derive(Serialize)]
struct LayerRecord {
    name: String,
    neurons: usize,
    spikes_per_image: f64,
    rate: f64,
}

/// Outputs, images x outputs, and each layer's name, neurons and spikes.
struct Done {
    width: usize,
    outputs: Vec<f32>,
    layers: Vec<(String, usize, u64)>,
}

pub fn run(path: &Path, args: &Args) -> Result<()> {
    let file = NirFile::open(path)?;
    if let Some(steps) = args.steps {
        check_steps(steps)?;
    }
    let source = args.data.as_deref().ok_or_else(|| Error::input("--data", "a graph has no images of its own"))?;
    let progress = Progress::new()?;
    let (done, labels, steps, latency) = match back::is_own(&file) {
        true => {
            if args.dt.is_some() || args.reset.is_some() || args.trains {
                return Err(file.wrong("synfit wrote it: --dt, --reset and --trains are in its metadata"));
            }
            let mut net = back::network(&file)?;
            net.steps = args.steps.unwrap_or(net.steps);
            if args.at_once {
                fire_at_once(&mut net)?;
            }
            let data = images(source, net.nodes[0].shape, args)?;
            let team = Team::open(&args.device.as_deref().unwrap_or("auto").parse()?, None)?;
            (own(&team, &net, &data, &progress)?, labels(&data, args)?, net.steps, net.latency())
        }
        false => {
            if args.at_once {
                return Err(file.wrong("synfit did not write it: its layers do not wait (--at-once)"));
            }
            let subtract = match args.reset.as_deref() {
                None | Some("potential") => false,
                Some("subtract") => true,
                Some(other) => {
                    return Err(Error::input("--reset", format!("`{other}` is neither potential nor subtract")));
                }
            };
            if args.dt.is_some_and(|dt| !(dt > 0.0 && dt.is_finite())) {
                return Err(Error::input("--dt", "must be a positive number of seconds"));
            }
            let graph = play::Graph::of(&file, play::Rules { dt: args.dt, subtract })?;
            foreign(&graph, source, args, &progress)?
        }
    };
    progress.done();
    let count = done.outputs.len() / done.width.max(1);
    let accuracy = labels.map(|labels| {
        let hits = done.outputs.chunks_exact(done.width).zip(&labels);
        hits.filter(|(o, l)| Decision::Argmax.of(o) == usize::try_from(**l).ok()).count() as f64 / count as f64
    });
    let per_image = |n: u64| n as f64 / count as f64;
    let record = Record {
        images: count,
        steps,
        latency,
        accuracy,
        spikes_per_image: done.layers.iter().map(|l| per_image(l.2)).sum(),
        layers: done
            .layers
            .iter()
            .map(|(name, neurons, spikes)| LayerRecord {
                name: name.clone(),
                neurons: *neurons,
                spikes_per_image: per_image(*spikes),
                rate: per_image(*spikes) / (*neurons as f64 * f64::from(steps)),
            })
            .collect(),
    };
    if let Some(path) = &args.outputs {
        let values = Array2::from_shape_vec((count, done.width), done.outputs)
            .map_err(|e| Error::work("outputs", e.to_string()))?;
        write_npy(path, &values).map_err(|e| Error::work(path.display().to_string(), e.to_string()))?;
    }
    print(&record, args.json)
}

fn print(record: &Record, json: bool) -> Result<()> {
    if json {
        let text = serde_json::to_string_pretty(record).map_err(|e| Error::work("simulate", e.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    let row = |l: &LayerRecord| {
        vec![l.name.clone(), l.neurons.to_string(), table::grouped(l.spikes_per_image), format!("{:.4}", l.rate)]
    };
    let rows: Vec<Vec<String>> = record.layers.iter().map(row).collect();
    println!("{}\n", table::render(&["layer", "neurons", "spikes/image", "rate"], &rows, 1));
    println!(
        "T = {}, result after {} steps, {} images: accuracy {}, {} spikes an image",
        record.steps,
        record.latency,
        record.images,
        table::percent(record.accuracy),
        table::grouped(record.spikes_per_image)
    );
    Ok(())
}

fn images(source: &str, shape: Shape, args: &Args) -> Result<Dataset> {
    let data = Dataset::open(Path::new(source), shape, Layout::Nchw, ChannelOrder::Rgb)?;
    let data = match args.images {
        Some(0) => return Err(Error::input("--images", "must be at least 1")),
        Some(images) => data.first(images)?,
        None => data,
    };
    data.validate()?;
    Ok(data)
}

fn labels(data: &Dataset, args: &Args) -> Result<Option<Vec<i64>>> {
    data.labels(args.labels.as_deref().map(Path::new))
}

/// In synfit's own arithmetic.
fn own(team: &Team, net: &SpikingNetwork, data: &Dataset, progress: &Progress) -> Result<Done> {
    let (outputs, activity) = simulated(team, net, data, "simulate", progress)?;
    let layers = net.nodes.iter().zip(&activity.spikes).filter(|(node, _)| node.firing().is_some());
    Ok(Done {
        width: net.nodes[net.output].decode.channels * net.nodes[net.output].shape.area(),
        outputs,
        layers: layers.map(|(node, spikes)| (node.name.clone(), node.shape.len(), *spikes)).collect(),
    })
}

type Ran = (Done, Option<Vec<i64>>, u32, u64);

fn foreign(graph: &play::Graph, source: &str, args: &Args, progress: &Progress) -> Result<Ran> {
    let mut done = Done {
        width: graph.output_len(),
        outputs: Vec::new(),
        layers: graph.neurons().map(|(name, neurons)| (name.to_string(), neurons, 0)).collect(),
    };
    let mut take = |runs: Vec<play::Run>| {
        for run in runs {
            done.outputs.extend(run.output.iter().map(|v| *v as f32));
            done.layers.iter_mut().zip(run.spikes).for_each(|(layer, n)| layer.2 += n);
        }
    };
    if args.trains {
        let trains = trains(source, graph.input_dims(), args)?;
        let (steps, len) = (trains.shape()[1], trains.len() / trains.shape()[0]);
        if args.labels.is_some() || args.steps.is_some_and(|s| s as usize != steps) {
            return Err(Error::input(source, format!("its trains have {steps} steps, and no labels")));
        }
        check_steps(steps as u32)?;
        let values: Vec<f32> = trains.iter().copied().collect();
        progress.stage("simulate", trains.shape()[0].div_ceil(IMAGES) as u64);
        for batch in values.chunks(IMAGES * len) {
            go_on(progress)?;
            take(graph.run(batch, steps, true));
            progress.tick();
        }
        return Ok((done, None, steps as u32, steps as u64));
    }
    let steps = args.steps.ok_or_else(|| Error::input("--steps", "the graph has none of its own: give a number"))?;
    let shape = match *graph.input_dims() {
        [c] => Shape::new(c, 1, 1),
        [c, h, w] => Shape::new(c, h, w),
        ref dims => {
            return Err(Error::input(source, format!("the graph's input has dimensions {dims:?}; use --trains")));
        }
    };
    let data = images(source, shape, args)?;
    progress.stage("simulate", data.len().div_ceil(IMAGES) as u64);
    for start in (0..data.len()).step_by(IMAGES) {
        go_on(progress)?;
        let range = start..(start + IMAGES).min(data.len());
        take(graph.run(&data.batch(range)?, steps as usize, false));
        progress.tick();
    }
    Ok((done, labels(&data, args)?, steps, u64::from(steps)))
}

/// N x T x an image's dimensions, of an .npy file.
fn trains(source: &str, dims: &[usize], args: &Args) -> Result<ArrayD<f32>> {
    let wrong = |why: String| Error::input(source, why);
    let open = || std::fs::File::open(source).map_err(|e| wrong(e.to_string()));
    let read = || -> Result<std::result::Result<ArrayD<f32>, ReadNpyError>> {
        if let Ok(found) = ArrayD::<f32>::read_npy(open()?) {
            return Ok(Ok(found));
        }
        if let Ok(found) = ArrayD::<u8>::read_npy(open()?) {
            return Ok(Ok(found.mapv(f32::from)));
        }
        Ok(ArrayD::<f64>::read_npy(open()?).map(|found| found.mapv(|v| v as f32)))
    };
    let found = read()?.map_err(|e| wrong(format!("is no .npy file of f32, f64 or u8 ({e})")))?;
    let fits = found.ndim() == dims.len() + 2 && found.shape()[2..] == *dims && !found.is_empty();
    if !fits {
        let shape = found.shape();
        return Err(wrong(format!("holds {shape:?}, and --trains wants images x steps x {dims:?}")));
    }
    if found.iter().any(|v| !v.is_finite()) {
        return Err(wrong("holds NaN or infinity".into()));
    }
    let count = args.images.unwrap_or(usize::MAX).min(found.shape()[0]).max(1);
    Ok(found.slice_axis(ndarray::Axis(0), (0..count).into()).to_owned())
}
