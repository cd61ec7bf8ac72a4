//! `synfit check DIR`: a conversion repeated from its job, its layer problems checked by an independent code.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Serialize;

use super::job::{JobArgs, job_file};
use super::progress::Progress;
use super::table;
use crate::convert::{self, Watch};
use crate::error::{Error, Result};
use crate::fit::{Problem, Solution, Spec};
use crate::report::Report;
use crate::verify::{self, RowCheck, Verdict};
use crate::{export, network};

#[derive(clap::Args)]
pub struct Args {
    /// A result folder of `synfit convert` or `synfit demo`
    dir: PathBuf,
    /// Rows (outputs) of each layer problem to solve again
    #[arg(long, value_name = "K", default_value_t = 4)]
    rows: usize,
    /// As for `synfit convert` [default: the job's]
    #[arg(long)]
    device: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct LayerCheck {
    layer: String,
    #[serde(flatten)]
    row: RowCheck,
}

#[derive(Serialize)]
struct Record {
    rows: Vec<LayerCheck>,
    /// The job gave the very network that the folder holds.
    same_network: bool,
    /// The job ran on the device that the folder's report names; on another one rounding may differ.
    same_device: bool,
    disagreements: usize,
}

/// Checks each layer problem when it is solved.
struct Checking {
    progress: Progress,
    rows: usize,
    seed: u64,
    found: Mutex<Vec<LayerCheck>>,
}

impl Watch for Checking {
    fn stage(&self, name: &str, ticks: u64) {
        self.progress.stage(name, ticks);
    }

    fn tick(&self) {
        self.progress.tick();
    }

    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }

    fn solved(&self, layer: &str, problem: &Problem, spec: &Spec, solution: &Solution) -> Result<()> {
        self.progress.stage(&format!("check {layer}"), 1);
        let rows = verify::sampled(problem.m, self.rows, self.seed);
        let checked = verify::check(problem, spec, solution, &rows)?;
        if let Ok(mut found) = self.found.lock() {
            found.extend(checked.into_iter().map(|row| LayerCheck { layer: layer.to_string(), row }));
        }
        Ok(())
    }
}

pub fn run(args: &Args) -> Result<()> {
    if args.rows == 0 {
        return Err(Error::input("--rows", "must be at least 1"));
    }
    let job = JobArgs::read(&job_file(&args.dir))?;
    let (model, _) = job.need()?;
    let network = network::read(Path::new(model))?;
    let stored = export::safetensors::read(&args.dir.join("weights.safetensors"))?;
    let report = Report::read(&args.dir.join("report.json"))?;
    let job = JobArgs { device: args.device.clone().or(job.device.clone()), ..job }.resolved(&network)?;
    let network = job.shaped(network)?;
    let options = job.options(&network)?;
    let calibration = job.calibration_images(&network)?;
    let team = job.open_devices()?;
    let work = tempfile::tempdir().map_err(|e| Error::work("temporary folder", e.to_string()))?;
    let watch = Checking { progress: Progress::new()?, rows: args.rows, seed: options.seed, found: Mutex::default() };
    let again = convert::convert(&team, &network, &calibration, &options, work.path(), &watch)?;
    watch.progress.done();

    let rows = watch.found.into_inner().unwrap_or_else(|e| e.into_inner());
    let same_network = again.spiking == stored;
    let same_device = report.on() == team.to_string();
    let disagreements =
        rows.iter().filter(|r| !r.row.verdict.agrees()).count() + usize::from(same_device && !same_network);
    let record = Record { rows, same_network, same_device, disagreements };
    if args.json {
        let text = serde_json::to_string_pretty(&record).map_err(|e| Error::work("check", e.to_string()))?;
        println!("{text}");
    } else {
        print(&record);
    }
    match disagreements {
        0 => Ok(()),
        n => Err(Error::work(args.dir.display().to_string(), format!("{n} checks disagree"))),
    }
}

fn print(record: &Record) {
    let name = |r: &LayerCheck| format!("{} {}", r.layer, r.row.row);
    println!("{}\n", table("layer, row", record.rows.iter().map(|r| (name(r), &r.row))));
    println!(
        "{} rows checked, {} disagree; the job {} the stored network{}",
        record.rows.len(),
        record.rows.iter().filter(|r| !r.row.verdict.agrees()).count(),
        if record.same_network { "gives again" } else { "does not give" },
        if record.same_device { "" } else { " (on another device than the report's)" }
    );
}

/// A line a row.
pub fn table<'a>(head: &str, rows: impl Iterator<Item = (String, &'a RowCheck)>) -> String {
    let lines: Vec<Vec<String>> = rows
        .map(|(name, row)| {
            vec![
                name,
                row.inputs.to_string(),
                format!("{:.9e}", row.fit),
                row.optimum.map_or_else(|| "-".into(), |best| format!("{best:.9e}")),
                row.kkt.map_or_else(|| "-".into(), |kkt| format!("{kkt:.0e}")),
                format!("{:.9e}", row.stored),
                format!("{:.9e}", row.bound),
                match &row.verdict {
                    Verdict::Agrees => "agrees".into(),
                    Verdict::Disagrees(what) => what.clone(),
                },
            ]
        })
        .collect();
    table::render(&[head, "inputs", "fit", "optimum", "gradient", "stored", "bound", "verdict"], &lines, 1)
}
