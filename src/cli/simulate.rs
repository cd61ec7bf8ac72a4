//! `synfit simulate DIR`: a converted network on images, compared with the original.

use std::path::PathBuf;

use super::job::{JobArgs, job_file};
use super::progress::Progress;
use super::table;
use super::timing::check_steps;
use crate::compare::{Trial, compare};
use crate::compute::Device;
use crate::error::{Error, Result};
use crate::{export, network};

#[derive(clap::Args)]
pub struct Args {
    /// A result folder of `synfit convert` or `synfit demo`
    dir: PathBuf,
    /// Images instead of the job's test images
    #[arg(long, value_name = "X")]
    data: Option<String>,
    /// Labels of those images
    #[arg(long, value_name = "Y")]
    labels: Option<String>,
    /// Use N images
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Time steps instead of the job's
    #[arg(long, value_name = "T")]
    steps: Option<u32>,
    /// auto, gpu, cpu, opengl or an index of `synfit devices`
    #[arg(long)]
    device: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
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
    let (model, _) = job.need()?;
    let network = network::read(std::path::Path::new(model))?;
    let model = model.to_string();
    let job = JobArgs { device: args.device.clone().or(job.device.clone()), ..job }.resolved(&network)?;
    if network.nodes.len() != spiking.nodes.len()
        || network.output_shape().c != spiking.nodes[spiking.output].decode.channels
    {
        return Err(Error::input(args.dir.display().to_string(), format!("was not converted from {model}")));
    }
    let options = job.options(&network)?;
    let images = job.test_images(&network)?;
    let labels = job.test_labels(&images)?;
    let dev = Device::open(job.choice()?)?;
    let progress = Progress::new()?;
    let trial =
        Trial { network: &network, images: &images, labels: labels.as_deref(), decision: job.decision(&network)? };
    let record = compare(&dev, &spiking, &trial, options.batch_bytes, &progress)?;
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
