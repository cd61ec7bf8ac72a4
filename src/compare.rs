//! The spiking network against the trained one on the same images: agreement, accuracies, error, activity.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::chip::PairNoise;
use crate::compute::{Device, Stop, Team};
use crate::convert::{Images, Watch, go_on, pieces};
use crate::error::{Error, Result};
use crate::forward::Forward;
use crate::network::Network;
use crate::spiking::simulate::{Activity, Simulation};
use crate::spiking::{Schedule, SpikingNetwork, programmed};

/// What counts as the network's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Argmax,
    Argmin,
    None,
}

impl Decision {
    /// Index of the winning output, the lowest on a tie; None for `Decision::None`.
    pub fn of(self, outputs: &[f32]) -> Option<usize> {
        let better = |a: f32, b: f32| match self {
            Decision::Argmin => a < b,
            _ => a > b,
        };
        (self != Decision::None)
            .then(|| (1..outputs.len()).fold(0, |best, i| if better(outputs[i], outputs[best]) { i } else { best }))
    }
}

/// The result on a test set. Rates are fractions; keys without a value had nothing to be measured by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestRecord {
    pub images: usize,
    pub ann_accuracy: Option<f64>,
    pub snn_accuracy: Option<f64>,
    /// Same decision as the trained network.
    pub agreement: Option<f64>,
    /// ||snn - ann|| / ||ann - mean ann|| over all outputs.
    pub relative_error: f64,
    pub spikes_per_image: f64,
    pub synops_per_image: f64,
    /// Multiply-accumulates of the trained network, for comparison.
    pub ann_macs_per_image: u64,
    /// Per layer of neurons, in the network's order.
    pub layers: Vec<LayerActivity>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerActivity {
    pub name: String,
    pub neurons: usize,
    pub spikes_per_image: f64,
    /// Spikes per neuron and step.
    pub rate: f64,
    pub synops_per_image: f64,
}

/// What a spiking network is compared with, on what.
pub struct Trial<'a> {
    pub network: &'a Network,
    pub images: &'a Images,
    /// One an image.
    pub labels: Option<&'a [i64]>,
    pub decision: Decision,
}

/// # Errors
/// Input: labels that are not one an image or not among the outputs.
pub fn check_labels(network: &Network, labels: &[i64], images: usize) -> Result<()> {
    if labels.len() != images {
        return Err(Error::input("labels", format!("{} labels for {images} images", labels.len())));
    }
    let outputs = network.output_shape().len();
    match labels.iter().position(|&l| l < 0 || l as usize >= outputs) {
        Some(at) => {
            let bad = labels[at];
            Err(Error::input("labels", format!("label {at} is {bad}, not one of the network's {outputs} outputs")))
        }
        None => Ok(()),
    }
}

/// Agreement and its price at one number of steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub steps: u32,
    /// Steps from the first input to the result.
    pub latency: u64,
    pub agreement: Option<f64>,
    pub snn_accuracy: Option<f64>,
    pub relative_error: f64,
    pub spikes_per_image: f64,
    pub synops_per_image: f64,
}

impl Point {
    /// `record`: of `spiking` run for `steps`.
    pub fn new(spiking: &SpikingNetwork, steps: u32, record: &TestRecord) -> Self {
        Self {
            steps,
            latency: spiking.latency_at(steps),
            agreement: record.agreement,
            snn_accuracy: record.snn_accuracy,
            relative_error: record.relative_error,
            spikes_per_image: record.spikes_per_image,
            synops_per_image: record.synops_per_image,
        }
    }
}

/// Runs both networks on all images, on a device or on a team of which each has its share of them.
///
/// # Errors
/// Labels that are not as many as the images or not among the outputs; a broken device; an interrupt.
pub fn compare(
    on: impl Into<Team>,
    spiking: &SpikingNetwork,
    trial: &Trial,
    batch_bytes: u64,
    watch: &dyn Watch,
) -> Result<TestRecord> {
    let mut records = compare_at(on, spiking, trial, &[spiking.steps], batch_bytes, watch)?;
    records.pop().ok_or_else(|| Error::work("test", "no record"))
}

/// As `compare`, the spiking network run for each of several numbers of steps: a record of each.
///
/// # Errors
/// As `compare`.
pub fn compare_at(
    on: impl Into<Team>,
    spiking: &SpikingNetwork,
    trial: &Trial,
    steps: &[u32],
    batch_bytes: u64,
    watch: &dyn Watch,
) -> Result<Vec<TestRecord>> {
    let Trial { network, images, labels, .. } = *trial;
    if let Some(labels) = labels {
        check_labels(network, labels, images.len())?;
    }
    let team = on.into();
    let longest = steps.iter().copied().max().unwrap_or(spiking.steps);
    let part = |(images, dev)| batches(dev, spiking, longest, images, batch_bytes);
    let parts: Vec<_> = team.split(0..images.len()).into_iter().zip(team.devices()).map(part).collect();
    watch.stage("test", (parts.iter().map(Vec::len).sum::<usize>() * steps.len()) as u64);
    let found = team.each(parts, |dev, batches, stop| {
        let part = Part { dev, spiking, trial, steps, stop, watch };
        part.tallies(&batches, batch_bytes)
    })?;
    let mut tallies = vec![Tally::default(); steps.len()];
    for part in &found {
        tallies.iter_mut().zip(part).for_each(|(all, part)| all.merge(part));
    }
    Ok(steps.iter().zip(tallies).map(|(&steps, tally)| tally.record(spiking, trial, steps)).collect())
}

/// One device's part of a comparison.
struct Part<'a> {
    dev: &'a Device,
    spiking: &'a SpikingNetwork,
    trial: &'a Trial<'a>,
    /// Numbers of steps that the network is run for.
    steps: &'a [u32],
    stop: &'a Stop,
    watch: &'a dyn Watch,
}

impl Part<'_> {
    /// A tally for every number of steps.
    fn tallies(&self, batches: &[Range<usize>], batch_bytes: u64) -> Result<Vec<Tally>> {
        let Trial { network, images, labels, decision } = *self.trial;
        let (dev, outputs) = (self.dev, network.output_shape().len());
        let forward = Forward::new(dev, network)?;
        let mut tallies = vec![Tally::default(); self.steps.len()];
        // The trained network's outputs of as many batches as fit the budget are kept for all numbers of steps.
        let bytes = (batches.first().map_or(1, ExactSizeIterator::len) * outputs * 4) as u64;
        for batches in batches.chunks((batch_bytes / bytes.max(1)).max(1) as usize) {
            let mut trained = Vec::with_capacity(batches.len());
            for range in batches {
                go_on(self.watch)?;
                trained.push(forward.run(dev, range.len(), &images.preprocess(&images.data.batch(range.clone())?))?);
            }
            for (&steps, tally) in self.steps.iter().zip(&mut tallies) {
                let spiking = SpikingNetwork { steps, ..self.spiking.clone() };
                let simulation = Simulation::new(dev, &spiking)?;
                for (range, ann) in batches.iter().zip(&trained).take_while(|_| !self.stop.asked()) {
                    go_on(self.watch)?;
                    let raw = images.data.batch(range.clone())?;
                    let snn = simulation.run(dev, range.len(), &raw, &mut tally.activity)?;
                    tally.add(decision, ann, &snn, outputs, labels.map(|l| &l[range.clone()]));
                    self.watch.tick();
                }
            }
        }
        Ok(tallies)
    }
}

/// A network of the trained one's shape on a test set, not spiking.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TunedRecord {
    pub accuracy: Option<f64>,
    /// As `TestRecord::agreement` and `relative_error`.
    pub agreement: Option<f64>,
    pub relative_error: f64,
}

/// `tuned`, which is to become `spiking`, against the trained network of `trial`: what was lost before conversion.
///
/// # Errors
/// As `compare`.
pub fn compare_tuned(
    dev: &Device,
    tuned: &Network,
    spiking: &SpikingNetwork,
    trial: &Trial,
    batch_bytes: u64,
    watch: &dyn Watch,
) -> Result<TunedRecord> {
    let Trial { network, images, labels, decision } = *trial;
    let runs = [Forward::new(dev, network)?, Forward::new(dev, tuned)?];
    let batches = batches(dev, spiking, spiking.steps, 0..images.len(), batch_bytes);
    watch.stage("test: tuned", batches.len() as u64);
    let mut tally = Tally::default();
    for range in batches {
        go_on(watch)?;
        let input = images.preprocess(&images.data.batch(range.clone())?);
        let [trained, tuned] = [&runs[0], &runs[1]].map(|run| run.run(dev, range.len(), &input));
        tally.add(decision, &trained?, &tuned?, network.output_shape().len(), labels.map(|l| &l[range]));
        watch.tick();
    }
    let part = |of: usize, known: bool| (known && decision != Decision::None).then(|| of as f64 / images.len() as f64);
    Ok(TunedRecord {
        accuracy: part(tally.snn_right, labels.is_some()),
        agreement: part(tally.agree, true),
        relative_error: tally.sums.relative(),
    })
}

/// Mean and standard deviation over draws.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub mean: f64,
    pub deviation: f64,
}

impl Spread {
    /// None without values.
    fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
        let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
        (!values.is_empty()).then_some(Self { mean, deviation })
    }
}

/// The result on the test set under programming noise: over so many chips, each programmed once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoiseRecord {
    pub draws: u32,
    pub agreement: Option<Spread>,
    pub snn_accuracy: Option<Spread>,
    pub relative_error: Option<Spread>,
}

/// As `compare`, the network programmed `draws` times with `noise`, from `seed` on.
///
/// # Errors
/// As `compare`.
pub fn compare_programmed(
    on: impl Into<Team>,
    spiking: &SpikingNetwork,
    trial: &Trial,
    (noise, draws, seed): (&PairNoise, u32, u64),
    batch_bytes: u64,
    watch: &dyn Watch,
) -> Result<NoiseRecord> {
    let team = &on.into();
    let draw = |k: u32| {
        let net = programmed(spiking, noise, seed.wrapping_add(u64::from(k)));
        compare(team, &net, trial, batch_bytes, watch)
    };
    let records = (0..draws).map(draw).collect::<Result<Vec<_>>>()?;
    let spread = |of: fn(&TestRecord) -> Option<f64>| Spread::of(&records.iter().filter_map(of).collect::<Vec<_>>());
    Ok(NoiseRecord {
        draws,
        agreement: spread(|r| r.agreement),
        snn_accuracy: spread(|r| r.snn_accuracy),
        relative_error: spread(|r| Some(r.relative_error)),
    })
}

/// What is counted while the images go by.
#[derive(Clone, Default)]
struct Tally {
    activity: Activity,
    agree: usize,
    ann_right: usize,
    snn_right: usize,
    sums: Sums,
}

impl Tally {
    /// Adds another device's counts.
    fn merge(&mut self, other: &Tally) {
        self.activity.merge(&other.activity);
        self.agree += other.agree;
        self.ann_right += other.ann_right;
        self.snn_right += other.snn_right;
        self.sums.merge(&other.sums);
    }

    /// Both networks' outputs of a batch, `[images][outputs]`.
    fn add(&mut self, decision: Decision, ann: &[f32], snn: &[f32], outputs: usize, labels: Option<&[i64]>) {
        for (i, (a, s)) in ann.chunks_exact(outputs).zip(snn.chunks_exact(outputs)).enumerate() {
            self.sums.add(a, s);
            let (da, ds) = (decision.of(a), decision.of(s));
            self.agree += usize::from(da == ds);
            if let Some(labels) = labels {
                let label = Some(labels[i] as usize);
                self.ann_right += usize::from(da == label);
                self.snn_right += usize::from(ds == label);
            }
        }
    }

    fn record(&self, spiking: &SpikingNetwork, trial: &Trial, steps: u32) -> TestRecord {
        let Trial { network, images, labels, decision } = *trial;
        let n = images.len() as f64;
        let judged = decision != Decision::None;
        let accuracy = |right: usize| (judged && labels.is_some()).then_some(right as f64 / n);
        let per_image = |total: u64| total as f64 / n;
        let Activity { spikes, synaptic_operations } = &self.activity;
        let layers = spiking
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| matches!(node.op, crate::spiking::SpikingOp::Neurons(_)))
            .map(|(i, node)| LayerActivity {
                name: node.name.clone(),
                neurons: if node.firing().is_some() { node.shape.len() } else { 0 },
                spikes_per_image: per_image(spikes[i]),
                rate: per_image(spikes[i]) / (node.shape.len() as f64 * f64::from(steps)),
                synops_per_image: per_image(synaptic_operations[i]),
            })
            .collect();
        TestRecord {
            images: images.len(),
            ann_accuracy: accuracy(self.ann_right),
            snn_accuracy: accuracy(self.snn_right),
            agreement: judged.then_some(self.agree as f64 / n),
            relative_error: self.sums.relative(),
            spikes_per_image: per_image(spikes.iter().sum()),
            synops_per_image: per_image(synaptic_operations.iter().sum()),
            ann_macs_per_image: network.macs(),
            layers,
        }
    }
}

/// Sums over all outputs for the relative error.
#[derive(Clone, Default)]
struct Sums {
    count: f64,
    ann: f64,
    squares: f64,
    error: f64,
}

impl Sums {
    fn add(&mut self, ann: &[f32], snn: &[f32]) {
        for (&a, &s) in ann.iter().zip(snn) {
            let (a, s) = (f64::from(a), f64::from(s));
            self.count += 1.0;
            self.ann += a;
            self.squares += a * a;
            self.error += (a - s) * (a - s);
        }
    }

    fn merge(&mut self, other: &Sums) {
        self.count += other.count;
        self.ann += other.ann;
        self.squares += other.squares;
        self.error += other.error;
    }

    fn relative(&self) -> f64 {
        let spread = self.squares - self.ann * self.ann / self.count.max(1.0);
        if spread > 0.0 { (self.error / spread).sqrt() } else { 0.0 }
    }
}

/// Batches of `images` whose live trains fit the budget, and a quarter of the device's, and whose largest fits one device
/// binding.
fn batches(
    dev: &Device,
    spiking: &SpikingNetwork,
    steps: u32,
    images: Range<usize>,
    batch_bytes: u64,
) -> Vec<Range<usize>> {
    let steps = if spiking.schedule == Schedule::Layered { 1 } else { u64::from(steps) };
    let largest = spiking.nodes.iter().map(|n| n.shape.len() as u64).max().unwrap_or(1) * steps * 4;
    let budget = batch_bytes.min(dev.room() / 4);
    let size = (budget / (3 * largest)).min(dev.max_buffer_bytes() / largest).clamp(1, images.len().max(1) as u64);
    pieces(images, size as usize).collect()
}
