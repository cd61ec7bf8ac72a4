//! What a layer's response error is made of. From the trained pre-activations to the spikes' decoded rates in four steps, each
//! of which moves the decoded values a little: what the code can say of them, the currents that the synapses really give, the
//! whole spikes that these are worth over T steps, and the spikes that come. A part is how far its step moves the values, so
//! that parts add up to the whole only as far as they are independent of each other.

use serde::{Deserialize, Serialize};

use super::Errors;
use super::encode::{Code, Ramp};
use super::layer::Task;
use super::walk::Walk;
use super::worker::At;
use crate::compute::Device;
use crate::compute::simd::{sum_pairs, vectorized};
use crate::error::Result;
use crate::neuron::Model;
use crate::spiking::{Responder, SpikingNode};

/// Calibration images and values a channel that are enough to tell the parts by.
const ENOUGH: (usize, usize) = (32, 4096);

/// Parts of a layer's response error, relative as it is: squared distances over the trained activations' variance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Values beyond the highest rate, and what a population's pieces leave of a curved activation.
    pub clipping: f64,
    /// What the best synapses cannot make of the rates that come in: the layers before.
    pub inputs: f64,
    /// What the chip's weights add to that. Both are told apart by the fit's account (`Errors`).
    pub weights: f64,
    /// Rounding to whole spikes in T steps of a current that never changes.
    pub quantization: f64,
    /// The same input in other spike trains: spikes that come unevenly, and what a chip's arithmetic loses.
    pub unevenness: f64,
}

impl Parts {
    /// The names and the values, as in the report.
    pub fn named(&self) -> [(&'static str, f64); 5] {
        [
            ("clipping", self.clipping),
            ("inputs", self.inputs),
            ("weights", self.weights),
            ("quantization", self.quantization),
            ("unevenness", self.unevenness),
        ]
    }

    /// The largest, and its share of their sum.
    pub fn largest(&self) -> (&'static str, f64) {
        let named = self.named();
        let sum: f64 = named.iter().map(|(_, part)| part).sum();
        let largest = named.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(named[0]);
        (largest.0, if sum > 0.0 { largest.1 / sum } else { 0.0 })
    }
}

impl Walk<'_> {
    /// The parts of the error of layer `task.index`, which was just simulated on the calibration images. None if its trained
    /// values do not vary.
    pub(super) fn parts(&mut self, task: &Task, code: &Code, errors: &Errors) -> Result<Option<Parts>> {
        let node = &self.spiking.nodes[task.index];
        let enough = ENOUGH.0.max(ENOUGH.1.div_ceil(node.shape.area())).min(self.images.len());
        let start =
            |walk: &Self, _, dev: &Device| Ok((Responder::new(dev, &walk.spiking, task.index)?, Sums::default()));
        let mut states = self.states(start)?;
        self.work(0..enough, &mut states, |at, (responder, sums)| {
            let images = at.images().min(enough - at.first());
            let steps = Steps::of(at, task, code, responder)?;
            let node = &at.walk.spiking.nodes[task.index];
            (0..images).for_each(|image| sums.add(node, &steps, image));
            Ok(())
        })?;
        let mut all = Sums::default();
        states.iter().for_each(|(_, sums)| all.merge(sums));
        Ok(all.parts(errors))
    }
}

/// Rates, images x neurons, after each step, and the trained activations.
struct Steps {
    rates: [Vec<f32>; 4],
    trained: Vec<f32>,
}

impl Steps {
    fn of(at: &mut At, task: &Task, code: &Code, responder: &Responder) -> Result<Self> {
        let (dev, index, images) = (at.dev, task.index, at.images());
        let walk = at.walk;
        let model = walk.spiking.model;
        let (area, steps) = (task.shape.area(), f64::from(walk.spiking.steps));
        let wanted = at.wanted(task)?;
        let said = said(&dev.view(&wanted)?, code, area, &model);
        let totals = task
            .blocks
            .iter()
            .map(|block| {
                let totals = at.trains(block.source)?.totals(dev)?;
                // a constant source is kept for one step
                let per_step = walk.rate_per_total(block.source) * steps;
                if per_step == 1.0 {
                    return Ok(totals);
                }
                dev.upload(&dev.view(&totals)?.iter().map(|&n| (f64::from(n) * per_step) as f32).collect::<Vec<_>>())
            })
            .collect::<Result<Vec<_>>>()?;
        let currents = responder.currents(dev, images, &totals)?;
        let given = dev.view(&currents)?.iter().map(|&j| model.rate(f64::from(j)) as f32).collect();
        let whole = responder.counts(dev, &currents)?;
        let whole = dev.view(&whole)?.iter().map(|&n| (f64::from(n) / steps) as f32).collect();
        let rate = walk.rate_per_total(index);
        let spikes = at.trains(index)?.totals(dev)?;
        let fired = dev.view(&spikes)?.iter().map(|&n| (f64::from(n) * rate) as f32).collect();
        let trained = at.trained(index)?;
        Ok(Self { rates: [said, given, whole, fired], trained: dev.view(&trained)?.into_owned() })
    }
}

/// The rates that say pre-activations z, images x channels x area, as nearly as the code can.
fn said(z: &[f32], code: &Code, area: usize, model: &Model) -> Vec<f32> {
    let rate = |ramp: &Ramp, z: f32| {
        let position = (f64::from(z) - ramp.start) / ramp.width;
        match model.is_leaky() {
            true => model.rate(ramp.rest + ramp.slope * position) as f32,
            false => position.clamp(0.0, model.max_rate()) as f32,
        }
    };
    let mut rates = Vec::with_capacity(z.len() * code.population());
    for (z, ramps) in z.chunks_exact(area).zip(code.ramps.iter().cycle()) {
        ramps.iter().for_each(|ramp| rates.extend(z.iter().map(|&z| rate(ramp, z))));
    }
    rates
}

/// Running sums over images.
#[derive(Default)]
struct Sums {
    /// Squared distances from one step to the next, the first one from the trained values.
    moved: [f64; 4],
    sum: f64,
    squares: f64,
    values: f64,
}

impl Sums {
    fn add(&mut self, node: &SpikingNode, steps: &Steps, image: usize) {
        let (len, area) = (node.shape.len(), node.shape.area());
        let answered = node.decode.answered();
        let trained = &steps.trained[image * node.decode.channels * area..][..node.decode.channels * area];
        let mut before = trained.to_vec();
        for (moved, rates) in self.moved.iter_mut().zip(&steps.rates) {
            let values = node.decode.values(&rates[image * len..][..len], area);
            let planes = values.chunks_exact(area).zip(before.chunks_exact(area)).zip(&answered);
            for ((values, before), _) in planes.filter(|(_, answered)| **answered) {
                *moved += vectorized(|| sum_pairs(values, before, |a, b| (a - b) * (a - b)));
            }
            before = values;
        }
        for (values, _) in trained.chunks_exact(area).zip(&answered).filter(|(_, answered)| **answered) {
            self.sum += vectorized(|| sum_pairs(values, values, |v, _| v));
            self.squares += vectorized(|| sum_pairs(values, values, |v, _| v * v));
            self.values += area as f64;
        }
    }

    fn merge(&mut self, other: &Sums) {
        self.moved.iter_mut().zip(other.moved).for_each(|(sum, part)| *sum += part);
        self.sum += other.sum;
        self.squares += other.squares;
        self.values += other.values;
    }

    fn parts(&self, errors: &Errors) -> Option<Parts> {
        let spread = self.squares - self.sum * self.sum / self.values.max(1.0);
        let [clipping, currents, quantization, unevenness] = self.moved.map(|moved| moved / spread);
        let before = if errors.grid > 0.0 { (errors.fit / errors.grid).clamp(0.0, 1.0) } else { 1.0 };
        let (inputs, weights) = (currents * before, currents * (1.0 - before));
        (spread > 0.0).then_some(Parts { clipping, inputs, weights, quantization, unevenness })
    }
}
