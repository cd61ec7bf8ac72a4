//! `synfit convert`: an ONNX network in, a result folder out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::job::{JobArgs, is_uniform, job_file};
use super::kept::{self, Work};
use super::output::OutputFolder;
use super::progress::Progress;
use super::timing::Choice;
use super::{search, table};
use crate::chip::PairNoise;
use crate::compare::{
    Decision, Point, Spread, Trial, check_labels, compare, compare_at, compare_programmed, compare_tuned,
};
use crate::convert::{self, Finished, Former, NoiseUse, Parts, fits};
use crate::error::{Error, Result};
use crate::export;
use crate::network::{self, Head};
use crate::report::{self, Cost, DeviceRecord, PeakMemory, Report, Search, Seconds, html};

#[derive(clap::Args)]
pub struct Args {
    /// A job file; flags win over it
    #[arg(value_name = "JOB.toml")]
    job: Option<PathBuf>,
    #[command(flatten)]
    keys: JobArgs,
    /// Folder for the result; a former result there is replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the report as JSON on standard output instead of tables
    #[arg(long)]
    json: bool,
    /// Go on from the last finished layer of an interrupted conversion to the same DIR, kept in DIR.partial
    #[arg(long)]
    resume: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let file = args.job.as_deref().map(JobArgs::read).transpose()?.unwrap_or_default();
    let job = args.keys.clone().over(file);
    let report = job_to_folder(&job.absolute(), &args.out, &[], Keep::Layers { resume: args.resume })?;
    print(&report, &args.out, args.json)
}

/// What becomes of finished layers when the conversion is interrupted.
pub enum Keep {
    Nothing,
    /// Those of a finished conversion with other sizes, whose job is given, are used as far as they go.
    Stored(Vec<Finished>, Box<JobArgs>),
    /// They stay beside the result's place; with `resume`, those of an earlier run are used.
    Layers {
        resume: bool,
    },
}

/// Runs a job and writes its result folder. `input` files (name, bytes) are put into the folder first, and the job's
/// paths are taken relative to it where it holds such a file: a result that needs no other file.
///
/// # Errors
/// Anything that is wrong with the job, before any work; then the work's own.
pub fn job_to_folder(job: &JobArgs, out: &Path, input: &[(&str, &[u8])], keep: Keep) -> Result<Report> {
    let start = Instant::now();
    job.need()?;
    let tunes = job.tune.unwrap_or_default() > 0;
    if tunes && job.keep.is_none() {
        return Err(Error::input("--tune", "tunes what --keep leaves of a network: say what is to stay"));
    }
    // Before there is a folder that Ctrl-C could leave behind.
    let progress = Progress::new()?;
    let folder = OutputFolder::new(out)?;
    for (name, bytes) in input {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).map_err(|e| Error::work(path.display().to_string(), e.to_string()))?;
    }
    let here = |name: &Option<String>| -> Option<String> {
        let name = name.as_ref()?;
        let inside = folder.path().join(name);
        Some(if input.iter().any(|(n, _)| n == name) { inside.display().to_string() } else { name.clone() })
    };
    let network = network::read(Path::new(&here(&job.model).unwrap_or_default()))?;
    let open = !matches!(job.per_unit, Some(Choice::Number(_)));
    let job = job.clone().resolved(&network)?;
    let chosen = open && !matches!(job.per_unit, Some(Choice::Number(1)));
    let network = job.shaped(network)?;
    let located = JobArgs {
        model: here(&job.model),
        calibration: here(&job.calibration),
        test: here(&job.test),
        labels: here(&job.labels),
        ..job.clone()
    };
    let (_, calibration_source) = located.need()?;
    located.device_list()?;
    let decision = located.decision(&network)?;
    let wanted = located.wanted_agreement(decision != Decision::None)?;
    if wanted.is_some() && matches!(keep, Keep::Layers { resume: true }) {
        return Err(Error::input("--resume", "--steps auto keeps no layers to go on from: give a number of steps"));
    }
    // Whatever is wrong with a search's options shows with its first number of steps.
    let first = if wanted.is_some() { located.with_steps(search::FIRST) } else { located.clone() };
    let options = first.options(&network)?;
    fits::check(&network, &options)?;
    let calibration = located.calibration_images(&network)?;
    let test = located.test_images(&network)?;
    let labels = located.test_labels(&test)?;
    if let Some(labels) = &labels {
        check_labels(&network, labels, test.len())?;
    }
    let team = located.open_devices()?;
    let options = first.options_on(&network, &team)?;
    tracing::info!("opened {team}");
    let read = start.elapsed().as_secs_f64();

    let began = Instant::now();
    let trial = Trial { network: &network, images: &test, labels: labels.as_deref(), decision };
    let mut tried = Vec::new();
    let (job, conversion, checkpoint) = match (wanted, keep) {
        (Some(wanted), _) => {
            let (steps, conversion) = search::fewest(wanted, |steps| {
                let options = located.with_steps(steps).options_on(&network, &team)?;
                let conversion = convert::convert(&team, &network, &calibration, &options, folder.path(), &progress)?;
                let record = compare(&team, &conversion.spiking, &trial, options.batch_bytes, &progress)?;
                progress.done();
                eprintln!("T = {steps}: agreement {}", table::percent(record.agreement));
                tried.push(Point::new(&conversion.spiking, steps, &record));
                Ok(((steps, conversion), record.agreement.unwrap_or(0.0)))
            })?;
            (job.with_steps(steps), conversion, None)
        }
        (None, Keep::Nothing) => {
            (job, convert::convert(&team, &network, &calibration, &options, folder.path(), &progress)?, None)
        }
        (None, Keep::Stored(layers, former)) => {
            let former = Former { layers, options: former.resolved(&network)?.options(&network)? };
            (job, convert::smaller(&team, &network, &calibration, &options, folder.path(), &progress, former)?, None)
        }
        (None, Keep::Layers { resume }) => {
            let work = Work { team: &team, network: &network, images: &calibration, options: &options };
            let (conversion, checkpoint) = kept::convert(&work, out, folder.path(), resume, &progress)?;
            (job, conversion, Some(checkpoint))
        }
    };
    let converted = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let spiking = &conversion.spiking;
    let lengths = lengths(spiking.steps);
    let mut records = compare_at(&team, spiking, &trial, &lengths, options.batch_bytes, &progress)?;
    let curve = lengths.iter().zip(&records).map(|(&steps, record)| Point::new(spiking, steps, record)).collect();
    let record = records.pop().ok_or_else(|| Error::work("test", "no record"))?;
    let draws = job.noise_draws.unwrap_or_default();
    let noise = PairNoise::of(&options.chip.weights).filter(|_| options.noise != NoiseUse::Off && draws > 0);
    let noise = noise.map(|noise| {
        let drawn = (&noise, draws, options.seed);
        compare_programmed(&team, spiking, &trial, drawn, options.batch_bytes, &progress)
    });
    let noise = noise.transpose()?;
    let tuned = conversion.tuned.as_ref();
    let tuned = tuned.map(|net| compare_tuned(team.first(), net, spiking, &trial, options.batch_bytes, &progress));
    let tuned = tuned.transpose()?;
    let tested = began.elapsed().as_secs_f64();
    progress.done();

    let placement = fits::placement(&network, &options, &conversion.layers);
    let mut report = Report {
        version: 1,
        synfit: env!("CARGO_PKG_VERSION").to_string(),
        device: DeviceRecord::from(team.first().info()),
        devices: report::devices(&team),
        network: network.name.clone(),
        chip: options.chip.name.clone(),
        steps: spiking.steps,
        schedule: options.schedule,
        latency: spiking.latency(),
        seed: options.seed,
        neurons: spiking.neurons(),
        synapses: spiking.synapses(),
        notes: report::notes(
            &conversion.layers,
            job.test.is_none() && !is_uniform(calibration_source),
            &options.chip.neuron,
            options.schedule,
        ),
        layers: conversion.layers,
        tuned,
        cost: Some(Cost::of(&options.chip, &placement, &record)),
        test: record,
        curve,
        noise,
        search: wanted.map(|agreement| Search { agreement, tried }),
        seconds: Seconds { total: start.elapsed().as_secs_f64(), read, convert: converted, test: tested },
        peak_memory: PeakMemory::measure(&team),
    };
    report.notes.extend(chosen.then(|| {
        "coarse weights over many steps: every rectified unit has two neurons instead of one and a remainder (--per-unit 1)".into()
    }));
    if tunes && report.layers.iter().all(|l| l.pruned.is_none_or(|p| p.tuned.is_none())) {
        report.notes.push("tuning gained too little (--tune): layers are as without it; more passes may gain".into());
    }
    if decision == Decision::None && network.head != Head::None {
        let head = format!("{:?}", network.head);
        report
            .notes
            .push(format!("outputs and errors are of what comes before the last {head}, which takes no spikes"));
    }
    report.notes.extend(report::uneven(&report.devices));
    export::safetensors::write(spiking, &folder.path().join("weights.safetensors"))?;
    if let Some(why) = export::nir::write(spiking, &folder.path().join("network.nir"))? {
        report.notes.push(format!("no network.nir: {why}"));
    } else {
        report.notes.extend(export::nir::unsaid(spiking));
    }
    let failed = |e: &dyn std::fmt::Display| Error::work("report", e.to_string());
    folder.write("report.json", &serde_json::to_string_pretty(&report).map_err(|e| failed(&e))?)?;
    folder.write("report.html", &html(&report))?;
    let text = toml::to_string(&job).map_err(|e| failed(&e))?;
    let name = job_file(Path::new("")).display().to_string();
    folder.write(&name, &format!("# Repeat: synfit convert {name} --out DIR\n{text}"))?;
    folder.finish()?;
    if let Some(checkpoint) = checkpoint {
        checkpoint.remove()?;
    }
    Ok(report)
}

/// Numbers of steps that the result is also run for: the powers of two below its own, then its own. Together they cost
/// about twice the last alone.
fn lengths(steps: u32) -> Vec<u32> {
    (0..).map(|k| 1 << k).take_while(|&t| t < steps).chain([steps]).collect()
}

/// The largest part of a response error and its share of all.
fn mostly(parts: Option<Parts>) -> String {
    parts
        .map(|parts| parts.largest())
        .map_or_else(|| "-".into(), |(name, share)| format!("{name} {:.0} %", 100.0 * share))
}

/// The tables and the result line.
pub fn print(report: &Report, out: &Path, json: bool) -> Result<()> {
    if json {
        let text = serde_json::to_string_pretty(report).map_err(|e| Error::work("report", e.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    let thinned = report.layers.iter().any(|l| l.sparse.is_some());
    let rows: Vec<Vec<String>> = report
        .layers
        .iter()
        .map(|l| {
            let mut row = vec![
                l.name.clone(),
                l.kind.clone(),
                l.inputs.to_string(),
                l.outputs.to_string(),
                format!("{:.2e}", l.error.round),
                format!("{:.2e}", l.error.fit),
                format!("{:.2e}", l.error.grid),
                l.response_error.map_or_else(|| "-".into(), |e| format!("{e:.2e}")),
                mostly(l.parts),
                l.rate.map_or_else(|| "-".into(), |r| format!("{r:.3}")),
                table::percent(l.dead),
                format!("{:.2}", l.seconds),
            ];
            if thinned {
                let density = l.sparse.map_or(1.0, |s| s.kept as f64 / s.of.max(1) as f64);
                row.push(table::percent(Some(density)));
            }
            row
        })
        .collect();
    let mut header = vec![
        "layer", "kind", "inputs", "outputs", "round", "fit", "stored", "response", "mostly", "rate", "dead", "seconds",
    ];
    if thinned {
        header.push("density");
    }
    println!("{}\n", table::render(&header, &rows, 2));
    println!("{}", summary(report));
    if let Some(tuned) = &report.tuned {
        let agreement = tuned.agreement.map_or_else(String::new, |a| format!("agreement {:.2} %, ", 100.0 * a));
        println!("tuned, before conversion: {agreement}relative error {:.3}", tuned.relative_error);
    }
    if let Some(noise) = &report.noise {
        let percent = |what: &str, s: Option<Spread>| {
            s.map(|s| format!("{what} {:.2} % (standard deviation {:.2}), ", 100.0 * s.mean, 100.0 * s.deviation))
        };
        let error = noise.relative_error.map_or(0.0, |e| e.mean);
        println!(
            "under programming noise, mean of {}: {}{}relative error {error:.3}",
            noise.draws,
            percent("SNN accuracy", noise.snn_accuracy).unwrap_or_default(),
            percent("agreement", noise.agreement).unwrap_or_default(),
        );
    }
    if let Some(line) = report.cost.as_ref().and_then(|c| c.summary(&report.chip)) {
        println!("{line}");
    }
    if let Some(left_out) = report.cost.as_ref().and_then(|c| c.not_simulated.as_ref()) {
        println!("note: not simulated: {left_out}");
    }
    for note in &report.notes {
        println!("note: {note}");
    }
    println!("result in {}", out.display());
    Ok(())
}

/// The result in a few words.
fn summary(report: &Report) -> String {
    let test = &report.test;
    let mut parts = vec![format!(
        "{} on {} at T = {} (result after {} steps): ",
        report.network, report.chip, report.steps, report.latency
    )];
    if let (Some(ann), Some(snn)) = (test.ann_accuracy, test.snn_accuracy) {
        parts.push(format!("ANN accuracy {:.2} %, SNN accuracy {:.2} %, ", 100.0 * ann, 100.0 * snn));
    }
    if let Some(agreement) = test.agreement {
        parts.push(format!("agreement {:.2} %, ", 100.0 * agreement));
    }
    parts.push(format!(
        "relative error {:.3}, {} spikes and {} synaptic operations an image ({} images), {:.2} s on {}",
        test.relative_error,
        table::grouped(test.spikes_per_image),
        table::grouped(test.synops_per_image),
        test.images,
        report.seconds.total,
        report.on(),
    ));
    parts.concat()
}
