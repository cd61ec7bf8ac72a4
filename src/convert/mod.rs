//! The walk over the layers: trained network in, spiking network out. Each layer is fitted to what the spiking network
//! converted so far really gives it (measured rates), then simulated once on the calibration images, so that the next
//! layer sees its true spike trains; or, by choice, to the rates of the response function (analytic). METHOD sections 1
//! and 2.

mod aware;
mod contrast;
mod encode;
mod fingerprint;
mod fire;
pub mod fits;
mod group;
mod initial;
mod layer;
mod prune;
mod quantize;
mod record;
mod residual;
mod restore;
mod ridge;
mod room;
mod sampled;
mod settle;
mod shifts;
mod signs;
mod sparse;
mod store;
mod tail;
mod tape;
mod trim;
mod views;
mod walk;
mod within;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::chip::Chip;
use crate::compute::Device;
use crate::error::{Error, Result};
use crate::fit::{Method, Problem, Solution, Spec};
use crate::network::{Dataset, Layout, Network};
use crate::spiking::{Schedule, SpikingNetwork};

pub use fingerprint::{Fingerprint, Hash};
pub use prune::{Choose, Curve, Keep, Pruned, sweep};
pub use restore::Finished;
pub use ridge::Ridge;
pub use settle::{Settle, settling_levels};
pub use sparse::{Sparsity, Thinned};
pub use views::{Populations, population as neurons_per_unit};

/// Where the presynaptic rates of a fit come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// From simulating the converted prefix: each layer makes up for the errors of the ones before it.
    Measured,
    /// From the response function: the rate of a neuron under its mean current.
    Analytic,
}

/// Where the potentials of neurons start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initial {
    /// Per channel, what serves its response best on calibration images.
    Calibrated,
    /// Half a threshold: the best for constant currents.
    Half,
}

/// What currents a layer is fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// `Response` from the first layer on that is pruned, where there is more to make up for; else `Linear`.
    Auto,
    /// Where a unit is silent or saturated, any current that keeps its neuron so.
    Response,
    /// The trained pre-activations everywhere.
    Linear,
}

/// What a conversion is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    pub chip: Chip,
    pub steps: u32,
    pub schedule: Schedule,
    pub response: Response,
    pub initial: Initial,
    /// Steps of input that layers of neurons integrate before their first chance to fire, where the input is uneven.
    pub settle: Settle,
    pub targets: Targets,
    pub method: Method,
    /// Sizes of layers that are to be smaller than the trained ones.
    pub keep: Keep,
    pub prune: Choose,
    /// Synapses that are to go, beside what the chip asks for.
    pub sparse: Sparsity,
    /// Towards the trained weights.
    pub ridge: Ridge,
    /// Neurons for a unit whose activation one neuron cannot follow.
    pub population: Populations,
    /// The outputs are compared with each other (a decision), not read one by one.
    pub decides: bool,
    /// Bytes of activations and spikes that a batch may hold in memory.
    pub batch_bytes: u64,
    pub seed: u64,
}

/// Images with the affine map, per channel, from raw values to the network's input: x = raw * scale + shift.
pub struct Images {
    pub data: Dataset,
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

impl Images {
    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The network's input for raw values, CHW.
    pub fn preprocess(&self, raw: &[f32]) -> Vec<f32> {
        let area = self.data.shape().area();
        raw.chunks_exact(area)
            .enumerate()
            .flat_map(|(i, plane)| {
                let (a, b) = (self.scale[i % self.scale.len()], self.shift[i % self.shift.len()]);
                plane.iter().map(move |v| v * a + b)
            })
            .collect()
    }
}

/// Hears how the work goes on and may stop it.
pub trait Watch: Sync {
    /// A stage begins: its name and its number of ticks.
    fn stage(&self, name: &str, ticks: u64);
    fn tick(&self);
    /// True when the user asked to stop.
    fn cancelled(&self) -> bool;
    /// A layer's problem (of one group) is solved. An error ends the conversion.
    fn solved(&self, _layer: &str, _problem: &Problem, _spec: &Spec, _solution: &Solution) -> Result<()> {
        Ok(())
    }
    /// A layer is done: the last node of `net`, which holds all nodes so far. An error ends the conversion.
    fn finished(&self, _net: &SpikingNetwork, _record: &LayerRecord) -> Result<()> {
        Ok(())
    }
}

/// Says nothing and never stops.
pub struct Silent;

impl Watch for Silent {
    fn stage(&self, _: &str, _: u64) {}
    fn tick(&self) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// `Err` if the user asked to stop.
pub fn go_on(watch: &dyn Watch) -> Result<()> {
    if watch.cancelled() { Err(Error::interrupted()) } else { Ok(()) }
}

/// One fitted layer, for the report. Errors are relative: sum ||W x + b - t||^2 / sum ||t - mean t||^2, over the
/// calibration samples, in thresholds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerRecord {
    pub name: String,
    /// conv, depthwise, dense or readout.
    pub kind: String,
    /// Presynaptic inputs of one neuron (n).
    pub inputs: usize,
    /// Output channels with their own weights (m).
    pub outputs: usize,
    pub neurons: usize,
    /// Calibration images x output positions.
    pub samples: u64,
    pub error: Errors,
    /// Towards the trained weights, relative to the mean diagonal of H.
    #[serde(default)]
    pub ridge: f64,
    /// What pruning left of the layer, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<Pruned>,
    /// What is left of its synapses, where some went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse: Option<Thinned>,
    pub status: String,
    pub iterations: usize,
    /// (objective - bound) / objective, of what is stored.
    pub gap: f64,
    /// What the damping ladder added to the diagonal of H, relative to its mean.
    pub damping: f64,
    /// Relative error of the decoded rates against the trained activations, calibration images.
    pub response_error: Option<f64>,
    /// Mean rate, and the fractions of neurons that never fired and that fired at every chance.
    pub rate: Option<f64>,
    pub dead: Option<f64>,
    pub saturated: Option<f64>,
    pub seconds: f64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Errors {
    /// Rounded to nearest with the max-abs scale: what chip tools ship.
    pub round: f64,
    /// Continuous, under the bounds.
    pub fit: f64,
    /// What is stored.
    pub grid: f64,
    /// A proven lower bound of the constrained problem.
    pub bound: f64,
}

pub struct Conversion {
    pub spiking: SpikingNetwork,
    pub layers: Vec<LayerRecord>,
}

/// Converts `network`; `scratch` is a folder for intermediate results (activations and spikes of the calibration
/// images), all of which are gone at the end.
///
/// # Errors
/// What cannot be mapped to the chip, by the layer's name; a broken device or a full disk; an interrupt.
pub fn convert(
    dev: &Device,
    network: &Network,
    images: &Images,
    options: &Options,
    scratch: &Path,
    watch: &dyn Watch,
) -> Result<Conversion> {
    resume(dev, network, images, options, scratch, watch, Vec::new())
}

/// As `convert`, but the first layers are `done` already, in the walk's order, by a conversion with the same
/// `Fingerprint`: they are run on the calibration images, not fitted again. The result is the same bit for bit.
///
/// # Errors
/// As `convert`; input: `done` does not fit the network, or its spikes are not those of its records.
pub fn resume(
    dev: &Device,
    network: &Network,
    images: &Images,
    options: &Options,
    scratch: &Path,
    watch: &dyn Watch,
    done: Vec<Finished>,
) -> Result<Conversion> {
    check(network, images, options)?;
    let plan = prune::plan(dev, network, images, options, watch)?;
    walk::Walk::new(dev, network, images, options, plan, scratch, watch)?.run(done)
}

/// All layers of a finished conversion, in the walk's order, and the options it was made with.
#[derive(Debug, Clone)]
pub struct Former {
    pub layers: Vec<Finished>,
    pub options: Options,
}

impl Former {
    /// Its layers before the first one that `options` make another of. `plan`: what they keep.
    fn same(mut self, network: &Network, options: &Options, plan: Option<&prune::Plan>) -> Vec<Finished> {
        let (was, now) = (&self.options, options);
        let nodes_alike = was.keep == now.keep && was.prune == now.prune;
        let changes = |f: &Finished| {
            let Some(index) = network.nodes.iter().position(|n| n.name == f.node.name) else { return true };
            let pruned = f.record.pruned.is_some() || plan.is_some_and(|p| p.kept.contains_key(&index));
            let inputs = f.record.inputs;
            let patterns = [was, now].map(|o| o.sparse.pattern(network, index, &o.chip, inputs));
            let thinned_alike =
                patterns.iter().all(|p| p.is_all(inputs)) || (patterns[0] == patterns[1] && was.score() == now.score());
            (pruned && !nodes_alike) || !thinned_alike
        };
        // whatever reads a layer that changes comes after it
        let same = self.layers.iter().position(changes).unwrap_or(self.layers.len());
        self.layers.truncate(same);
        self.layers
    }
}

/// As `convert`, from a finished conversion with the same options but other sizes (`keep`, `prune`, `sparse`): layers before
/// the first that changes are run on the calibration images, not fitted again.
///
/// # Errors
/// As `resume`.
pub fn smaller(
    dev: &Device,
    network: &Network,
    images: &Images,
    options: &Options,
    scratch: &Path,
    watch: &dyn Watch,
    former: Former,
) -> Result<Conversion> {
    check(network, images, options)?;
    let plan = prune::plan(dev, network, images, options, watch)?;
    let same = former.same(network, options, plan.as_ref());
    walk::Walk::new(dev, network, images, options, plan, scratch, watch)?.run(same)
}

fn check(network: &Network, images: &Images, options: &Options) -> Result<()> {
    if images.is_empty() {
        return Err(Error::input("calibration", "no images"));
    }
    if options.steps == 0 {
        return Err(Error::input("steps", "must be at least 1"));
    }
    options.sparse.check(network, &options.chip)
}

/// Bits of the input's code on a chip with narrow thresholds: a layer's largest sums of codes times input are about four
/// codes times inputs, and should be about a threshold.
fn input_bits(chip: &Chip) -> u32 {
    let weight = chip.weights.signed_grid().map_or(0.0, |grid| grid.max_abs()).max(1.0).log2().ceil() as u32;
    chip.state.threshold_bits.saturating_sub(weight + 2).clamp(2, 11)
}

/// The input's largest size in calibration: of whole numbers, as they are, less the network's zero; of other data, as the
/// network sees it. Whole numbers are only looked at if the chip's thresholds are too narrow for all of them.
fn largest_input(network: &Network, images: &Images, chip: &Chip, batches: &[std::ops::Range<usize>]) -> Result<f32> {
    let whole = images.data.is_u8();
    if whole && input_bits(chip) >= 8 {
        return Ok(255.0);
    }
    let (offset, area) = (offsets(network, images), images.data.shape().area());
    let mut largest = 0f32;
    for range in batches {
        let raw = images.data.batch(range.clone())?;
        if whole {
            let planes = raw.chunks_exact(area).enumerate();
            largest = planes.flat_map(|(i, p)| p.iter().map(move |v| (i, v))).fold(largest, |m, (i, v)| {
                m.max((v - offset[i % offset.len()]).abs()) //
            });
        } else {
            largest = images.preprocess(&raw).iter().fold(largest, |m, v| m.max(v.abs()));
        }
    }
    Ok(largest)
}

/// The whole numbers that stand for the network's zero, per channel.
fn offsets(network: &Network, images: &Images) -> Vec<f32> {
    let at = |v: &[f32], c: usize| v[c % v.len()];
    (0..network.input_shape().c)
        .map(|c| (-at(&images.shift, c) / at(&images.scale, c)).round().clamp(-255.0, 510.0))
        .collect()
}

/// The input's code. Whole numbers 0..255 stay what they are, less a whole offset per channel that puts the network's
/// zero (its padding) at 0, unless the chip's thresholds are too narrow for so many; other data is rounded to as many
/// bits as the first layer's sums can carry.
fn input_code(network: &Network, images: &Images, chip: &Chip, largest: f32) -> (crate::spiking::InputCode, Vec<f64>) {
    let channels = network.input_shape().c;
    let at = |v: &[f32], c: usize| v[c % v.len()];
    let bits = input_bits(chip);
    let levels = ((1u32 << bits) - 1) as f32;
    if images.data.is_u8() {
        let step = if bits < 8 { (largest / levels).max(1.0) } else { 1.0 };
        let offset = offsets(network, images);
        let code = crate::spiking::InputCode {
            layout: Layout::Nchw,
            scale: vec![1.0 / step; channels],
            shift: offset.iter().map(|o| -o / step).collect(),
            lo: -(510.0 / step).ceil() as i32,
            hi: (510.0 / step).ceil() as i32,
        };
        return (code, (0..channels).map(|c| f64::from(at(&images.scale, c) * step)).collect());
    }
    // 12 bits with the sign: a dense first layer of 4096 inputs with 8-bit weights still sums below 2^31.
    let step = if largest > 0.0 { largest / levels } else { 1.0 };
    let code = crate::spiking::InputCode {
        layout: Layout::Nchw,
        scale: (0..channels).map(|c| at(&images.scale, c) / step).collect(),
        shift: (0..channels).map(|c| at(&images.shift, c) / step).collect(),
        lo: -2 * levels as i32,
        hi: 2 * levels as i32,
    };
    (code, vec![f64::from(step); channels])
}
