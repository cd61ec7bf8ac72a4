//! `synfit simulate DIR`: a converted network on images, compared with the original; or a NIR graph by itself (`graph`).

use std::path::PathBuf;

use ndarray::Array2;
use ndarray_npy::write_npy;

use super::job::{JobArgs, job_file};
use super::progress::Progress;
use super::timing::check_steps;
use super::{graph, table};
use crate::compare::{Trial, compare};
use crate::compute::Team;
use crate::convert::{Watch, go_on, pieces};
use crate::error::{Error, Result};
use crate::network::Dataset;
use crate::spiking::simulate::{Activity, Simulation};
use crate::spiking::{Schedule, SpikingNetwork, SpikingOp};
use crate::{export, network};

#[derive(clap::Args)]
pub struct Args {
    /// A result folder of `synfit convert` or `synfit demo`, or a NIR graph of synfit or another tool
    #[arg(value_name = "DIR|GRAPH.nir")]
    dir: PathBuf,
    /// Images instead of the job's test images
    #[arg(long, value_name = "X")]
    pub(super) data: Option<String>,
    /// Labels of those images
    #[arg(long, value_name = "Y")]
    pub(super) labels: Option<String>,
    /// Use N images
    #[arg(long, value_name = "N")]
    pub(super) images: Option<usize>,
    /// Time steps instead of the job's
    #[arg(long, value_name = "T")]
    pub(super) steps: Option<u32>,
    /// As for `synfit convert` [default: the job's; auto for a graph]
    #[arg(long)]
    pub(super) device: Option<String>,
    /// Write the outputs, images x outputs, to a .npy file
    #[arg(long, value_name = "FILE.npy")]
    pub(super) outputs: Option<PathBuf>,
    /// Let all layers fire at once instead of waiting (--settle), as a simulator does that reads no metadata of a NIR graph
    #[arg(long)]
    pub(super) at_once: bool,
    /// Seconds of a step, for another tool's graph with time constants
    #[arg(long, value_name = "SECONDS")]
    pub(super) dt: Option<f64>,
    /// Another tool's graph: after a spike, potential (NIR's rule: v = v_reset) or subtract (v - threshold)
    #[arg(long, value_name = "RULE")]
    pub(super) reset: Option<String>,
    /// Another tool's graph: the data are images x steps x inputs, a value for every step
    #[arg(long)]
    pub(super) trains: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if args.dir.is_file() {
        return graph::run(&args.dir, args);
    }
    if args.dt.is_some() || args.reset.is_some() || args.trains {
        return Err(Error::input("--dt, --reset, --trains", "are for another tool's NIR graph"));
    }
    let mut job = JobArgs::read(&job_file(&args.dir))?;
    if let Some(data) = &args.data {
        job.test = Some(data.clone());
        job.labels = None;
        job.test_every = None;
        job.test_images = None;
    }
    job.labels = args.labels.clone().or(job.labels);
    job.test_images = args.images.or(job.test_images);
    let mut spiking = export::safetensors::read(&args.dir.join("weights.safetensors"))?;
    if let Some(steps) = args.steps {
        check_steps(steps)?;
        spiking.steps = steps;
    }
    if args.at_once {
        fire_at_once(&mut spiking)?;
    }
    let (model, _) = job.need()?;
    let network = network::read(std::path::Path::new(model))?;
    let model = model.to_string();
    let job = JobArgs { device: args.device.clone().or(job.device.clone()), ..job }.resolved(&network)?;
    let network = job.shaped(network)?;
    if network.nodes.len() != spiking.nodes.len()
        || network.output_shape().c != spiking.nodes[spiking.output].decode.channels
    {
        return Err(Error::input(args.dir.display().to_string(), format!("was not converted from {model}")));
    }
    let images = job.test_images(&network)?;
    let labels = job.test_labels(&images)?;
    let team = job.open_devices()?;
    let options = job.options_on(&network, &team)?;
    let progress = Progress::new()?;
    let trial =
        Trial { network: &network, images: &images, labels: labels.as_deref(), decision: job.decision(&network)? };
    let record = compare(&team, &spiking, &trial, options.batch_bytes, &progress)?;
    if let Some(path) = &args.outputs {
        let (values, _) = simulated(&team, &spiking, &images.data, "outputs", &progress)?;
        let values = Array2::from_shape_vec((images.len(), values.len() / images.len().max(1)), values)
            .map_err(|e| Error::work("outputs", e.to_string()))?;
        write_npy(path, &values).map_err(|e| Error::work(path.display().to_string(), e.to_string()))?;
    }
    progress.done();
    if args.json {
        let text = serde_json::to_string_pretty(&record).map_err(|e| Error::work("simulate", e.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = record
        .layers
        .iter()
        .map(|l| {
            vec![
                l.name.clone(),
                l.neurons.to_string(),
                table::grouped(l.spikes_per_image),
                format!("{:.4}", l.rate),
                table::grouped(l.synops_per_image),
            ]
        })
        .collect();
    println!("{}\n", table::render(&["layer", "neurons", "spikes/image", "rate", "synops/image"], &rows, 1));
    println!(
        "T = {}, result after {} steps, {} images: ANN accuracy {}, SNN accuracy {}, agreement {}, relative error {:.3}",
        spiking.steps,
        spiking.latency(),
        record.images,
        table::percent(record.ann_accuracy),
        table::percent(record.snn_accuracy),
        table::percent(record.agreement),
        record.relative_error
    );
    Ok(())
}

/// No layer waits.
pub(super) fn fire_at_once(net: &mut SpikingNetwork) -> Result<()> {
    if net.schedule == Schedule::Layered {
        return Err(Error::input("--at-once", "layers of a layered schedule cannot fire at once"));
    }
    for node in &mut net.nodes {
        if let SpikingOp::Neurons(layer) = &mut node.op {
            layer.settle = 0;
        }
    }
    Ok(())
}

/// Outputs of all images, images x outputs, and what the network did for them.
pub(super) fn simulated(
    team: &Team,
    net: &SpikingNetwork,
    data: &Dataset,
    stage: &str,
    progress: &Progress,
) -> Result<(Vec<f32>, Activity)> {
    const IMAGES: usize = 64;
    let parts = team.split(0..data.len());
    progress.stage(stage, parts.iter().map(|p| p.len().div_ceil(IMAGES) as u64).sum());
    let found = team.each(parts, |dev, images, stop| {
        let simulation = Simulation::new(dev, net)?;
        let (mut values, mut activity) = (Vec::new(), Activity::default());
        for range in pieces(images, IMAGES).take_while(|_| !stop.asked()) {
            go_on(progress)?;
            values.extend(simulation.run(dev, range.len(), &data.batch(range.clone())?, &mut activity)?);
            progress.tick();
        }
        Ok((values, activity))
    })?;
    let (mut all, mut activity) = (Vec::new(), Activity::default());
    for (values, part) in found {
        all.extend(values);
        activity.merge(&part);
    }
    Ok((all, activity))
}
