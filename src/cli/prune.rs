//! `synfit prune DIR`: a finished conversion made smaller, or what smaller layers would cost. Layers before the first one
//! that changes are taken as they are.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::convert::{self, Keep as Layers};
use super::job::{JobArgs, job_file};
use super::progress::Progress;
use super::table;
use crate::compare::{Trial, compare};
use crate::convert::{Curve, Finished, Former, Keep, Options, smaller, sweep};
use crate::error::{Error, Result};
use crate::fit::prune::Size;
use crate::report::{LayerSweep, Measured, Report, svg};
use crate::spiking::SpikingOp;
use crate::{export, network};

#[derive(clap::Args)]
pub struct Args {
    /// A result folder of `synfit convert` or `synfit demo`
    dir: PathBuf,
    /// Sizes, as for `synfit convert`; with --sweep the layers to look at [there default: all that can be pruned]
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    keep: Option<Vec<String>>,
    /// Shares of synapses to remove, as for `synfit convert` [default: the job's]
    #[arg(long, value_name = "SHARES", value_delimiter = ',', conflicts_with = "sweep")]
    sparsity: Option<Vec<String>>,
    /// Inputs of a neuron at most [default: the job's]
    #[arg(long, value_name = "N", conflicts_with = "sweep")]
    fan_in: Option<usize>,
    /// N of every M synapses of a row [default: the job's]
    #[arg(long, value_name = "N:M", conflicts_with = "sweep")]
    pattern: Option<String>,
    /// optimal or exact [default: the job's]
    #[arg(long, value_name = "HOW")]
    prune: Option<String>,
    /// cost, magnitude or rate [default: the job's]
    #[arg(long, value_name = "WHAT")]
    prune_by: Option<String>,
    /// on or off [default: the job's]
    #[arg(long, value_name = "on|off")]
    refine: Option<String>,
    /// Passes over the calibration images, as for `synfit convert` [default: the job's]
    #[arg(long, value_name = "PASSES")]
    tune: Option<usize>,
    /// Folder for the smaller network
    #[arg(long, value_name = "DIR", required_unless_present = "sweep", conflicts_with = "sweep")]
    out: Option<PathBuf>,
    /// Error and agreement over size, layer by layer: a table, and sweep.json and sweep.svg in DIR
    #[arg(long)]
    sweep: bool,
    /// Sizes at which a sweep measures the agreement of the whole network, or none
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "50%,25%", requires = "sweep")]
    at: Vec<String>,
    /// As for `synfit convert` [default: the job's]
    #[arg(long)]
    device: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let former = JobArgs::read(&job_file(&args.dir))?;
    let job = former.clone();
    let job = JobArgs {
        prune: args.prune.clone().or(job.prune.clone()),
        prune_by: args.prune_by.clone().or(job.prune_by.clone()),
        refine: args.refine.clone().or(job.refine.clone()),
        tune: args.tune.or(job.tune),
        device: args.device.clone().or(job.device.clone()),
        ..job
    };
    match &args.out {
        Some(out) => {
            if args.keep.is_none() && args.sparsity.is_none() && args.fan_in.is_none() && args.pattern.is_none() {
                let one = "--keep, --sparsity, --fan-in or --pattern";
                return Err(Error::input(one, "is needed: what shall be smaller?"));
            }
            let job = JobArgs {
                keep: args.keep.clone().or(job.keep),
                sparsity: args.sparsity.clone().or(job.sparsity),
                fan_in: args.fan_in.or(job.fan_in),
                pattern: args.pattern.clone().or(job.pattern),
                ..job
            };
            let layers = Layers::Stored(stored(&args.dir)?, Box::new(former));
            let report = convert::job_to_folder(&job.absolute(), out, &[], layers)?;
            convert::print(&report, out, args.json)
        }
        None => run_sweep(args, &job, former),
    }
}

/// The layers of a finished conversion.
fn stored(dir: &Path) -> Result<Vec<Finished>> {
    let spiking = export::safetensors::read(&dir.join("weights.safetensors"))?;
    let report = Report::read(&dir.join("report.json"))?;
    let nodes = spiking.nodes.into_iter().filter(|n| matches!(n.op, SpikingOp::Neurons(_)));
    let layers: Vec<Finished> = nodes.zip(report.layers).map(|(node, record)| Finished { node, record }).collect();
    match layers.iter().find(|f| f.node.name != f.record.name) {
        None => Ok(layers),
        Some(f) => {
            let why = format!("its report has {} where its network has {}", f.record.name, f.node.name);
            Err(Error::input(dir.display().to_string(), why))
        }
    }
}

#[derive(Serialize)]
struct Record<'a> {
    network: &'a str,
    steps: u32,
    /// Of the conversion as it is.
    agreement: Option<f64>,
    relative_error: f64,
    layers: &'a [LayerSweep],
}

fn run_sweep(args: &Args, job: &JobArgs, former: JobArgs) -> Result<()> {
    let (model, _) = job.need()?;
    let network = network::read(Path::new(model))?;
    let whole = JobArgs { keep: None, ..job.clone() }.resolved(&network)?;
    let network = whole.shaped(network)?;
    whole.options(&network)?;
    let wanted: Vec<&str> = args
        .keep
        .iter()
        .flatten()
        .map(|item| item.rsplit_once('=').map_or(item.as_str(), |(layer, _)| layer))
        .collect();
    let sizes: Vec<Size> = match args.at.as_slice() {
        [none] if none == "none" => vec![],
        sizes => sizes.iter().map(|s| s.parse()).collect::<Result<_>>()?,
    };
    let report = Report::read(&args.dir.join("report.json"))?;
    let former = Former { layers: stored(&args.dir)?, options: former.resolved(&network)?.options(&network)? };
    let images = whole.calibration_images(&network)?;
    let test = whole.test_images(&network)?;
    let labels = whole.test_labels(&test)?;
    let team = whole.open_devices()?;
    let options = whole.options_on(&network, &team)?;
    let scratch = tempfile::tempdir().map_err(|e| Error::work("temporary folder", e.to_string()))?;
    let progress = Progress::new()?;
    let mut swept = vec![];
    for curve in sweep(&team, &network, &images, &options, &wanted, &progress)? {
        let mut measured = vec![];
        for size in &sizes {
            let kept = size.of(curve.nodes).unwrap_or(curve.nodes);
            if kept == curve.nodes {
                continue;
            }
            let keep = Keep { named: vec![(curve.layer.clone(), Size::Nodes(kept))], ..Keep::default() };
            let options = Options { keep, ..options.clone() };
            let conversion = smaller(&team, &network, &images, &options, scratch.path(), &progress, former.clone())?;
            let trial = Trial {
                network: &network,
                images: &test,
                labels: labels.as_deref(),
                decision: whole.decision(&network)?,
            };
            let test = compare(&team, &conversion.spiking, &trial, options.batch_bytes, &progress)?;
            measured.push(Measured { kept, agreement: test.agreement, relative_error: test.relative_error });
        }
        swept.push(LayerSweep { curve, measured });
    }
    progress.done();
    let record = Record {
        network: &report.network,
        steps: report.steps,
        agreement: report.test.agreement,
        relative_error: report.test.relative_error,
        layers: &swept,
    };
    let text = serde_json::to_string_pretty(&record).map_err(|e| Error::work("sweep", e.to_string()))?;
    for (name, text) in [("sweep.json", &text), ("sweep.svg", &svg(&report.network, &swept))] {
        let path = args.dir.join(name);
        std::fs::write(&path, text).map_err(|e| Error::work(path.display().to_string(), e.to_string()))?;
    }
    if args.json {
        println!("{text}");
        return Ok(());
    }
    print(&report, &swept);
    println!("all sizes in {} and {}", args.dir.join("sweep.json").display(), args.dir.join("sweep.svg").display());
    Ok(())
}

/// Shares of a layer that the table shows.
const SHOWN: [f64; 5] = [0.9, 0.75, 0.5, 0.25, 0.1];

fn print(report: &Report, layers: &[LayerSweep]) {
    let mut header = vec!["layer".to_string(), "nodes".to_string(), "seconds".to_string(), "pass".to_string()];
    header.extend(SHOWN.map(|share| format!("{:.0} %", 100.0 * share)));
    let measured = |l: &LayerSweep| -> String {
        let one = |m: &Measured| {
            let result =
                m.agreement.map_or_else(|| format!("error {:.3}", m.relative_error), |a| format!("{:.2} %", 100.0 * a));
            format!("{}: {result}", m.kept)
        };
        l.measured.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    header.push("kept: agreement".to_string());
    let rows: Vec<Vec<String>> = layers
        .iter()
        .map(|l| {
            let Curve { layer, nodes, seconds, survey_seconds, .. } = &l.curve;
            let mut row =
                vec![layer.clone(), nodes.to_string(), format!("{seconds:.2}"), format!("{survey_seconds:.2}")];
            row.extend(SHOWN.map(|share| {
                let kept = ((share * l.curve.nodes as f64).round() as usize).max(1);
                l.cost(kept).map_or_else(|| "-".into(), |cost| format!("{cost:.1e}"))
            }));
            row.push(measured(l));
            row
        })
        .collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    println!(
        "share of its readers' signal that a layer's absence of nodes costs, refitted, by the share that is kept\n"
    );
    println!("{}\n", table::render(&header, &rows, 1));
    println!("pass: over the images, for the Gram matrices; one may serve several layers");
    println!("as converted: T = {}, agreement {}", report.steps, table::percent(report.test.agreement));
}
