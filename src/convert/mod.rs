//! The walk over the layers: trained network in, spiking network out. Each layer is fitted to what the spiking network
//! converted so far really gives it (measured rates), then simulated once on the calibration images, so that the next
//! layer sees its true spike trains; or, by choice, to the rates of the response function (analytic). METHOD sections 1
//! and 2.

mod aware;
mod back;
mod backward;
mod contrast;
mod encode;
mod equalize;
mod fingerprint;
mod fire;
pub mod fits;
mod group;
mod initial;
mod input;
mod layer;
mod linear;
mod offset;
mod parts;
mod pieces;
mod prune;
mod quantize;
mod record;
mod refine;
mod remainder;
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
mod survey;
mod tail;
mod tape;
mod trim;
mod tune;
mod views;
mod walk;
mod within;
mod worker;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::chip::Chip;
use crate::compute::Team;
use crate::error::{Error, Result};
use crate::fit::{Method, Problem, Solution, Spec};
use crate::network::{Dataset, Network};
use crate::spiking::{Schedule, SpikingNetwork};

pub use fingerprint::{Fingerprint, Hash};
pub use parts::Parts;
pub use prune::{Choose, Curve, Keep, Pruned, sweep};
pub use remainder::with_remainders;
pub use restore::Finished;
pub use ridge::Ridge;
pub use settle::{Settle, settling_levels};
pub use sparse::{Sparsity, Thinned};
pub use views::{Populations, is_coarse, population as neurons_per_unit};
pub(crate) use worker::pieces;

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
    /// `Response` where something is pruned and where layers run at once, so that what comes in is uneven; `Linear` in the
    /// layered schedule, where that gains nothing, and where sources own their weights' signs: rounds start from synapses of
    /// any sign, which are far from what such a chip can hold.
    Auto,
    /// Where a unit is silent or saturated, any current that keeps its neuron so.
    Response,
    /// The trained pre-activations everywhere.
    Linear,
}

/// What becomes of the programming noise that a chip's file gives (`weights.programming`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseUse {
    /// The fit knows it, and the result is tried under it.
    Fit,
    /// The result is tried under it.
    Test,
    Off,
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
    /// Units that never rest begin to fire where their values begin, not at zero.
    pub offset: bool,
    /// Thresholds are raised where synapses that read them are small, if weights are coarse.
    pub equalize: bool,
    pub method: Method,
    /// Sizes of layers that are to be smaller than the trained ones.
    pub keep: Keep,
    pub prune: Choose,
    /// Pruned layers are fitted to what serves their readers best.
    pub refine: bool,
    /// Passes over the calibration images in which all of a pruned network is fitted to the trained one's activations.
    pub tune: usize,
    /// Synapses that are to go, beside what the chip asks for.
    pub sparse: Sparsity,
    /// Towards the trained weights.
    pub ridge: Ridge,
    pub noise: NoiseUse,
    /// Neurons for a unit whose activation one neuron cannot follow.
    pub population: Populations,
    /// Spikes of a remainder layer for one of its layer's (`with_remainders`); of no account where the network has none.
    pub remainder: u32,
    /// The outputs are compared with each other (a decision), not read one by one.
    pub decides: bool,
    /// Bytes of activations and spikes that a batch may hold in a device's memory.
    pub batch_bytes: u64,
    /// Bytes that the process may hold in the host's memory; what is free bounds it in any case.
    pub host_bytes: Option<u64>,
    pub seed: u64,
}

#[cfg(test)]
impl Options {
    /// For unit tests: few steps on a built-in chip.
    pub(crate) fn plain(chip: &str) -> Self {
        Self {
            chip: Chip::load(chip).unwrap(),
            steps: 16,
            schedule: Schedule::Streaming,
            response: Response::Measured,
            settle: Settle::Shared,
            initial: Initial::Half,
            targets: Targets::Auto,
            offset: true,
            equalize: true,
            method: "descent".parse().unwrap(),
            keep: Keep::default(),
            prune: Choose::Optimal,
            refine: true,
            tune: 0,
            sparse: Sparsity::default(),
            ridge: Ridge::Auto,
            noise: NoiseUse::Off,
            remainder: 2,
            population: Populations { rectified: 1, curved: 4 },
            decides: false,
            batch_bytes: 16 << 20,
            host_bytes: None,
            seed: 0,
        }
    }
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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LayerRecord {
    pub name: String,
    /// conv, depthwise, dense or readout.
    pub kind: String,
    /// Presynaptic inputs of one neuron (n).
    pub inputs: usize,
    /// Output channels with their own weights (m).
    pub outputs: usize,
    pub neurons: usize,
    /// Whether its activation is curved, so that a larger population follows it more closely.
    #[serde(default)]
    pub curved: bool,
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
    /// What it is made of, the first calibration images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// Mean rate, and the fractions of neurons that never fired and that fired at every chance.
    pub rate: Option<f64>,
    pub dead: Option<f64>,
    pub saturated: Option<f64>,
    pub seconds: f64,
}

impl LayerRecord {
    /// Whether the layer is the remainder of another.
    pub fn is_remainder(&self) -> bool {
        self.name.ends_with(remainder::SUFFIX)
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Errors {
    /// Rounded to nearest with the max-abs scale: what chip tools ship.
    pub round: f64,
    /// Continuous, under the bounds.
    pub fit: f64,
    /// What is stored.
    pub grid: f64,
    /// A proven lower bound of the constrained problem.
    pub bound: f64,
    /// What programming noise is expected to add, where the chip has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
}

pub struct Conversion {
    pub spiking: SpikingNetwork,
    pub layers: Vec<LayerRecord>,
    /// What was converted in the trained network's place, where tuning gained enough.
    pub tuned: Option<Network>,
}

/// Converts `network` on a device or a team of them; `scratch` is a folder for intermediate results (activations and spikes
/// of the calibration images), all of which are gone at the end. The result is the same whenever the devices and their
/// shares are.
///
/// # Errors
/// What cannot be mapped to the chip, by the layer's name; a broken device or a full disk; an interrupt.
pub fn convert(
    on: impl Into<Team>,
    network: &Network,
    images: &Images,
    options: &Options,
    scratch: &Path,
    watch: &dyn Watch,
) -> Result<Conversion> {
    resume(on, network, images, options, scratch, watch, Vec::new())
}

/// As `convert`, but the first layers are `done` already, in the walk's order, by a conversion with the same
/// `Fingerprint`: they are run on the calibration images, not fitted again. The result is the same bit for bit.
///
/// # Errors
/// As `convert`; input: `done` does not fit the network, or its spikes are not those of its records.
pub fn resume(
    on: impl Into<Team>,
    network: &Network,
    images: &Images,
    options: &Options,
    scratch: &Path,
    watch: &dyn Watch,
    done: Vec<Finished>,
) -> Result<Conversion> {
    check(network, images, options)?;
    let team = on.into();
    let mut plan = prune::plan(&team, network, images, options, watch)?;
    let tuned = tune::tune(team.first(), network, images, options, plan.as_mut(), watch)?;
    let converted = tuned.as_ref().unwrap_or(network);
    let conversion = walk::Walk::new(team, converted, images, options, plan, scratch, watch)?.run(done)?;
    Ok(Conversion { tuned, ..conversion })
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
        let nodes_alike =
            was.keep == now.keep && was.prune == now.prune && was.refine == now.refine && was.tune == now.tune;
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
    on: impl Into<Team>,
    network: &Network,
    images: &Images,
    options: &Options,
    scratch: &Path,
    watch: &dyn Watch,
    former: Former,
) -> Result<Conversion> {
    check(network, images, options)?;
    let team = on.into();
    let mut plan = prune::plan(&team, network, images, options, watch)?;
    let same = former.same(network, options, plan.as_ref());
    let tuned = tune::tune(team.first(), network, images, options, plan.as_mut(), watch)?;
    let converted = tuned.as_ref().unwrap_or(network);
    let conversion = walk::Walk::new(team, converted, images, options, plan, scratch, watch)?.run(same)?;
    Ok(Conversion { tuned, ..conversion })
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
