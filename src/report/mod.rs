//! The account of a conversion: report.json is the record, report.html the pictures.

mod cost;
mod curve;
mod devices;
mod diagnosis;
mod html;
mod memory;
mod parts;
mod sweep;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::compare::{NoiseRecord, Point, TestRecord, TunedRecord};
use crate::compute::{DeviceInfo, Team};
use crate::convert::{LayerRecord, Thinned};
use crate::error::{Error, Result};
use crate::neuron::Model;
use crate::spiking::Schedule;

pub use cost::{Cost, EnergyRecord};
pub use devices::{DeviceWork, devices, uneven};
pub use html::html;
pub use memory::host_peak_bytes;
pub use sweep::{LayerSweep, Measured, svg};

/// report.json, version 1: keys may be added, these stay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub version: u32,
    pub synfit: String,
    /// The first, if several.
    pub device: DeviceRecord,
    /// What each did, if several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceWork>,
    pub network: String,
    pub chip: String,
    pub steps: u32,
    #[serde(default)]
    pub schedule: Schedule,
    /// Steps from the first input to the result: `SpikingNetwork::latency`.
    #[serde(default)]
    pub latency: u64,
    pub seed: u64,
    pub neurons: usize,
    pub synapses: usize,
    pub layers: Vec<LayerRecord>,
    pub test: TestRecord,
    /// The same network, as it was converted for `steps`, run for fewer: the last point is `test`.
    #[serde(default)]
    pub curve: Vec<Point>,
    /// The test under programming noise, where the chip has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<NoiseRecord>,
    /// How `steps` was found where it was to be as few as possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// On the chip; null in reports of earlier versions.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// What tuning made of the trained network, before conversion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<TunedRecord>,
    /// What the reader should know of these figures.
    #[serde(default)]
    pub notes: Vec<String>,
    pub seconds: Seconds,
    pub peak_memory: PeakMemory,
}

impl Report {
    /// Names of all devices.
    pub fn on(&self) -> String {
        let names: Vec<&str> = self.devices.iter().map(|d| d.name.as_str()).collect();
        if names.is_empty() { self.device.name.clone() } else { names.join(" + ") }
    }

    /// Reads report.json.
    ///
    /// # Errors
    /// Input: unreadable or not a report.
    pub fn read(path: &Path) -> Result<Report> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::input(&name, e.to_string()))?;
        serde_json::from_str(&text).map_err(|e| Error::input(&name, e.to_string()))
    }
}

/// Conversions for other numbers of steps, all of them tested on the same images.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Search {
    /// What was asked for.
    pub agreement: f64,
    /// In the order of trial.
    pub tried: Vec<Point>,
}

/// Notes on a conversion's figures. `seen`: the test images are the calibration images.
pub fn notes(layers: &[LayerRecord], seen: bool, model: &Model, schedule: Schedule) -> Vec<String> {
    let mut notes = Vec::new();
    if seen {
        notes.push("measured on the calibration images themselves: give others with --test".to_string());
    }
    let pruned = |l: &LayerRecord| {
        let pruned = l.pruned?;
        let cost = pruned.cost.map_or_else(String::new, |c| format!(" (costs {c:.1e} of what reads it)"));
        let open = if pruned.proven == Some(false) { ", not proven to be the best" } else { "" };
        let gained = pruned.refined.filter(|r| r[0] > 0.0).map_or_else(String::new, |[before, after]| {
            format!(", refined to {:.0} % of what readers lacked", 100.0 * after / before)
        });
        Some(format!("{} of {} of {}{cost}{gained}{open}", pruned.kept, pruned.of, l.name))
    };
    let pruned: Vec<String> = layers.iter().filter_map(pruned).collect();
    if !pruned.is_empty() {
        notes.push(format!("nodes left: {}", pruned.join("; ")));
    }
    if let Some([before, after]) = layers.iter().find_map(|l| l.pruned?.tuned) {
        notes.push(format!(
            "tuned end to end: of the trained activations where no channel went, {:.1} % lacked before and {:.1} % after",
            100.0 * before,
            100.0 * after
        ));
    }
    notes.extend(thinned(layers));
    notes.extend(diagnosis::first_wrong(layers, model, schedule));
    let short: Vec<&LayerRecord> = layers.iter().filter(|l| l.samples < l.inputs as u64).collect();
    if let Some(worst) = short.iter().max_by(|a, b| {
        let ratio = |l: &LayerRecord| l.inputs as f64 / l.samples as f64;
        ratio(a).total_cmp(&ratio(b))
    }) {
        notes.push(format!(
            "{} of {} layers were fitted to fewer samples than inputs ({}: {} samples, {} inputs): more calibration images \
             may help",
            short.len(),
            layers.len(),
            worst.name,
            worst.samples,
            worst.inputs
        ));
    }
    notes
}

/// What is left of the synapses, and where a chip's limit asked for that.
fn thinned(layers: &[LayerRecord]) -> Vec<String> {
    let all: Vec<_> = layers.iter().filter_map(|l| Some((l, l.sparse?))).collect();
    if all.is_empty() {
        return vec![];
    }
    let share = |kept: usize, of: usize| format!("{:.1} %", 100.0 * kept as f64 / of.max(1) as f64);
    let one = |(l, s): &(&LayerRecord, Thinned)| {
        let chip = s.limit.map_or_else(String::new, |limit| {
            format!(" (the chip takes {limit} inputs a neuron, it has {})", l.inputs) //
        });
        let most = s.fan_in;
        format!(
            "{} of {} with up to {most} of {} inputs{chip}, cost {:.1e}",
            share(s.kept, s.of),
            l.name,
            l.inputs,
            s.cost
        )
    };
    let (kept, of) = all.iter().fold((0, 0), |sum, (_, s)| (sum.0 + s.kept, sum.1 + s.of));
    vec![format!("synapses left: {}: {}", share(kept, of), all.iter().map(one).collect::<Vec<_>>().join("; "))]
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceRecord {
    pub name: String,
    pub backend: String,
}

impl From<&DeviceInfo> for DeviceRecord {
    fn from(info: &DeviceInfo) -> Self {
        Self { name: info.name.clone(), backend: info.backend.clone() }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Seconds {
    pub total: f64,
    /// Reading and checking model and data.
    pub read: f64,
    pub convert: f64,
    pub test: f64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct PeakMemory {
    /// Most resident memory of the process; null where the system does not tell.
    pub host_bytes: Option<u64>,
    /// Most bytes in device buffers, of several GPUs together; 0 on the CPU, whose buffers are host memory.
    pub device_bytes: u64,
}

impl PeakMemory {
    /// Forgets what the process held before, so that `measure` tells what comes now, where the system can do that.
    pub fn restart() {
        memory::restart_host_peak();
    }

    pub fn measure(on: impl Into<Team>) -> Self {
        let device_bytes = on.into().devices().filter(|dev| dev.is_gpu()).map(|dev| dev.peak_bytes()).sum();
        Self { host_bytes: host_peak_bytes(), device_bytes }
    }
}
