//! What each device does of a pass over the calibration images, and what it keeps of it for the layers to come.

use std::ops::Range;

use super::layer::Task;
use super::refine::Target;
use super::tape::Tape;
use super::walk::Walk;
use super::{Options, Response, go_on, remainder, views};
use crate::compute::{Buffer, Device, activate};
use crate::error::{Error, Result};
use crate::forward::NodeRunner;
use crate::network::{Activation, Network, Op};
use crate::spiking::Schedule;
use crate::spiking::simulate::{self, Output, Runner, Trains};

/// One device's images and what it holds of both networks. Nodes are numbered as in the network; the input has no runner.
pub(super) struct Worker {
    /// Its place in the team.
    pub number: usize,
    /// Its images, cut into batches.
    pub batches: Vec<Range<usize>>,
    pub forward: Vec<Option<NodeRunner>>,
    pub runners: Vec<Option<Runner>>,
    /// Trained activations and spike trains of neurons that are still to be read, one record a batch.
    pub ann: Vec<Option<Tape>>,
    pub spikes: Vec<Option<Tape>>,
    /// Of the layer that is being fitted, if it is to give something else than it was trained to.
    pub refined: Option<Target>,
}

impl Worker {
    pub fn new(number: usize, batches: Vec<Range<usize>>) -> Self {
        let input = || vec![None];
        Self { number, batches, forward: vec![None], runners: vec![None], ann: input(), spikes: input(), refined: None }
    }
}

/// One batch on its device.
pub(super) struct At<'a> {
    pub walk: &'a Walk<'a>,
    pub dev: &'a Device,
    pub worker: &'a mut Worker,
    pub batch: usize,
}

impl Walk<'_> {
    /// Runs `work` on all devices at the same time, each on its batches that begin in `images`, in order, with its state (one
    /// a device); stops at an interrupt.
    pub fn work<S: Send>(
        &mut self,
        images: Range<usize>,
        states: &mut [S],
        work: impl Fn(&mut At<'_>, &mut S) -> Result<()> + Sync,
    ) -> Result<()> {
        let mut workers = std::mem::take(&mut self.workers);
        let walk = &*self;
        let done = walk.team.each(workers.iter_mut().zip(states), |dev, (worker, state), stop| {
            for batch in 0..worker.batches.len() {
                if stop.asked() {
                    break;
                }
                if images.contains(&worker.batches[batch].start) {
                    go_on(walk.watch)?;
                    work(&mut At { walk, dev, worker, batch }, state)?;
                }
            }
            Ok(())
        });
        self.workers = workers;
        done.map(drop)
    }

    /// Runs `work` on every batch, with progress; a device's state is what `start` makes of its number and itself. Gives the
    /// states.
    pub fn each_batch<S: Send>(
        &mut self,
        stage: &str,
        start: impl Fn(&Self, usize, &Device) -> Result<S>,
        work: impl Fn(&mut At<'_>, &mut S) -> Result<()> + Sync,
    ) -> Result<Vec<S>> {
        let mut states = self.states(start)?;
        self.begin(stage);
        self.work(0..self.images.len(), &mut states, |at, state| {
            work(at, state)?;
            at.walk.watch.tick();
            Ok(())
        })?;
        Ok(states)
    }

    /// What `start` makes of every device and its number.
    pub fn states<S>(&self, start: impl Fn(&Self, usize, &Device) -> Result<S>) -> Result<Vec<S>> {
        self.team.devices().enumerate().map(|(number, dev)| start(self, number, dev)).collect()
    }

    /// Begins a stage of a tick a batch.
    pub fn begin(&self, stage: &str) {
        self.watch.stage(stage, self.workers.iter().map(|w| w.batches.len() as u64).sum());
    }
}

impl At<'_> {
    /// Images of the batch.
    pub fn images(&self) -> usize {
        self.worker.batches[self.batch].len()
    }

    /// Number of its first image.
    pub fn first(&self) -> usize {
        self.worker.batches[self.batch].start
    }

    fn raw(&self) -> Result<Vec<f32>> {
        self.walk.images.data.batch(self.worker.batches[self.batch].clone())
    }

    /// The trained network's values of `node`.
    pub fn activations(&mut self, node: usize) -> Result<Buffer<f32>> {
        if node == 0 {
            return self.dev.upload(&self.walk.images.preprocess(&self.raw()?));
        }
        if remainder::of(self.walk.network, node).is_some() {
            // its tape holds what the spikes leave, which the trained network has none of
            return self.dev.zeros(self.images() * self.walk.network.nodes[node].shape.len());
        }
        if let Some(tape) = &mut self.worker.ann[node] {
            return tape.values(self.dev, self.batch);
        }
        self.pre_activations(node)
    }

    /// The trained network's `node` on the values of its sources, without its activation; of a remainder layer, what the
    /// spikes that it follows leave of that.
    pub fn pre_activations(&mut self, node: usize) -> Result<Buffer<f32>> {
        let sources = self.walk.network.nodes[node].sources();
        let counted = remainder::of(self.walk.network, node);
        let mut input = |source: usize| match counted {
            Some(counted) if counted == source => self.decoded(source),
            _ => self.activations(source),
        };
        let inputs = sources.into_iter().map(&mut input).collect::<Result<Vec<_>>>()?;
        let inputs: Vec<&Buffer<f32>> = inputs.iter().collect();
        ready(&self.worker.forward, node)?.linear(self.dev, self.images(), &inputs)
    }

    /// Makes pre-activations of `node` its activations; of a remainder layer, what its spikes are to say.
    pub fn activate(&self, node: usize, z: &mut Buffer<f32>) -> Result<()> {
        match remainder::of(self.walk.network, node) {
            Some(_) => activate::apply(self.dev, Activation::Relu, z),
            None => ready(&self.worker.forward, node)?.activate(self.dev, z),
        }
    }

    /// The spike trains of `node`.
    pub fn trains(&mut self, node: usize) -> Result<Trains> {
        let (images, spiking) = (self.images(), &self.walk.spiking);
        if node == 0 {
            let raw = self.raw()?;
            return match self.walk.options.response {
                Response::Measured => simulate::encode(self.dev, spiking, &raw, images),
                Response::Analytic => simulate::encode_total(self.dev, spiking, &raw, images),
            };
        }
        if let Some(tape) = &mut self.worker.spikes[node] {
            return tape.trains(self.dev, self.batch, images, spiking.nodes[node].shape);
        }
        self.run(node)
    }

    /// The spike trains of `node`, from those of its sources.
    pub fn run(&mut self, node: usize) -> Result<Trains> {
        let inputs = self.inputs(node)?;
        let inputs: Vec<&Trains> = inputs.iter().collect();
        match ready(&self.worker.runners, node)?.run(self.dev, self.images(), &inputs)? {
            Output::Trains(trains) => Ok(trains),
            Output::Values(_) => {
                Err(Error::work(&self.walk.network.nodes[node].name, "a readout has no spikes to read"))
            }
        }
    }

    /// The spike trains of the sources of `node`.
    pub fn inputs(&mut self, node: usize) -> Result<Vec<Trains>> {
        let sources = self.walk.spiking.nodes[node].sources();
        sources.into_iter().map(|s| self.trains(s)).collect()
    }

    /// What layer `node` is to give: what the trained one gave, kept since its survey, but for refined layers.
    pub fn trained(&mut self, node: usize) -> Result<Buffer<f32>> {
        if let Some(values) = self.refined_activations(node)? {
            return Ok(values);
        }
        match &mut self.worker.ann[node] {
            Some(tape) => tape.values(self.dev, self.batch),
            None => Err(Error::work(&self.walk.network.nodes[node].name, "its trained activations are gone")),
        }
    }

    /// Totals over T of each block's source.
    pub fn rates(&mut self, task: &Task) -> Result<Vec<Buffer<f32>>> {
        task.blocks.iter().map(|b| self.trains(b.source)?.totals(self.dev)).collect()
    }
}

/// A node's runner.
pub(super) fn ready<T>(runners: &[Option<T>], node: usize) -> Result<&T> {
    runners.get(node).and_then(Option::as_ref).ok_or_else(|| Error::work("walk", format!("node {node} is not ready")))
}

/// Bytes that a device may still hold by the job's budgets: a GPU its own, the CPU the host's.
pub(super) fn room(dev: &Device, options: &Options) -> u64 {
    if dev.is_gpu() { dev.room() } else { options.host_bytes.unwrap_or(u64::MAX) }
}

/// Images of a batch of which each holds `per_image` bytes, by the job's budget and a quarter of the device's; `most` at most.
pub(super) fn images_within(dev: &Device, options: &Options, per_image: u64, most: usize) -> usize {
    let budget = options.batch_bytes.min(room(dev, options) / 4);
    ((budget / per_image.max(1)) as usize).clamp(1, most.max(1))
}

/// Images of a batch on `dev`, so that the largest layer's trains, sources and result, fit the job's budget, a quarter of
/// the device's, and one device binding.
///
/// # Errors
/// Input: one image is too large.
pub(super) fn batch_size(dev: &Device, network: &Network, options: &Options) -> Result<usize> {
    let steps = if options.schedule == Schedule::Layered { 1 } else { u64::from(options.steps) };
    let budget = options.batch_bytes.min(room(dev, options) / 4);
    let mut size = u64::MAX;
    for node in &network.nodes[1..] {
        let neurons = match node.op {
            Op::Neurons { activation, .. } => {
                node.shape.len() as u64 * views::population(activation, options.population)
            }
            _ => node.shape.len() as u64,
        };
        let sources: u64 = node.sources().iter().map(|&s| network.nodes[s].shape.len() as u64).sum();
        let largest = neurons.max(sources) * steps * 4;
        if largest > dev.max_buffer_bytes() {
            return Err(Error::input(
                format!("layer {}", node.name),
                format!(
                    "one image's spike trains take {largest} bytes, more than one buffer of this device holds ({}); \
                     use fewer --steps or --device cpu",
                    dev.max_buffer_bytes()
                ),
            ));
        }
        size = size.min(budget / ((neurons + sources) * steps * 4)).min(dev.max_buffer_bytes() / largest);
    }
    Ok(usize::try_from(size.max(1)).unwrap_or(usize::MAX))
}

/// `range` in pieces of up to `size`.
pub(crate) fn pieces(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(size).map(move |from| from..from.saturating_add(size).min(range.end))
}
