//! Node after node, batch after batch: what each layer's fit reads, and where it comes from.

use std::ops::Range;
use std::path::Path;

use super::prune::Plan;
use super::restore::Finished;
use super::ridge::FOLDS;
use super::tape::{Tape, Tapes};
use super::{
    Conversion, Images, LayerRecord, NoiseUse, Options, Response, Watch, go_on, input, remainder, settle, views,
};
use crate::chip::{FitRules, PairNoise, fit_rules};
use crate::compute::{Buffer, Device};
use crate::error::{Error, Result};
use crate::forward::NodeRunner;
use crate::network::{Network, Op, last_uses};
use crate::spiking::simulate::{self, Output, Runner, Trains};
use crate::spiking::{Decode, Schedule, SpikingNetwork, SpikingNode, SpikingOp};

pub(super) struct Walk<'a> {
    pub dev: &'a Device,
    pub network: &'a Network,
    pub images: &'a Images,
    pub options: &'a Options,
    /// The chip's constraints as the solver states them.
    pub rules: FitRules,
    /// Of programming, where the chip has any and the job does not leave it out.
    pub noise: Option<PairNoise>,
    /// Signs of source neurons (node, element) that layers have settled, where the chip gives neurons a sign.
    pub signs: std::collections::HashMap<(usize, usize), i8>,
    /// What stays of the layers, if not all of it.
    pub plan: Option<Plan>,
    /// Some layer so far lost synapses.
    pub thinned: bool,
    pub watch: &'a dyn Watch,
    pub spiking: SpikingNetwork,
    pub batches: Vec<Range<usize>>,
    /// One per node that has been reached; the input has none.
    pub forward: Vec<Option<NodeRunner>>,
    pub runners: Vec<Option<Runner>>,
    /// Steps that each node waits before it may fire.
    pub windows: Vec<u32>,
    pub tapes: Tapes,
    /// Trained activations and spike trains of neurons that are still to be read.
    pub ann: Vec<Option<Tape>>,
    pub spikes: Vec<Option<Tape>>,
}

impl<'a> Walk<'a> {
    pub fn new(
        dev: &'a Device,
        network: &'a Network,
        images: &'a Images,
        options: &'a Options,
        plan: Option<Plan>,
        scratch: &Path,
        watch: &'a dyn Watch,
    ) -> Result<Self> {
        if options.schedule == Schedule::Layered && options.chip.neuron != crate::neuron::Model::IF {
            return Err(Error::input("schedule", "layered needs the integrate-and-fire neuron with soft reset (if)"));
        }
        let rules = fit_rules(&options.chip)?;
        let batches = batches(dev, network, images.len(), options)?;
        let largest = input::largest_input(network, images, &options.chip, &batches)?;
        let (input, gain) = input::input_code(network, images, &options.chip, largest);
        let peak = input.max_abs();
        let node = SpikingNode {
            name: network.nodes[0].name.clone(),
            shape: network.input_shape(),
            op: SpikingOp::Input,
            decode: Decode::plain(gain),
            peak,
            constant: true,
        };
        let spiking = SpikingNetwork {
            name: network.name.clone(),
            chip: options.chip.name.clone(),
            model: options.chip.neuron,
            steps: options.steps,
            schedule: options.schedule,
            input,
            nodes: vec![node],
            output: network.output,
            head: network.head,
            potential: options.chip.potential(),
            zero_costs: options.chip.weights.zero_costs,
        };
        Ok(Self {
            dev,
            network,
            images,
            options,
            rules,
            noise: PairNoise::of(&options.chip.weights).filter(|_| options.noise != NoiseUse::Off),
            signs: std::collections::HashMap::new(),
            plan,
            thinned: false,
            watch,
            spiking,
            batches,
            forward: vec![None],
            runners: vec![None],
            windows: settle::windows(network, &options.settle, options.steps),
            tapes: Tapes::new(scratch),
            ann: vec![None],
            spikes: vec![None],
        })
    }

    /// `done` layers are taken as they are, the others fitted.
    pub fn run(mut self, done: Vec<Finished>) -> Result<Conversion> {
        let mut done = done.into_iter();
        let last = self.last_reads();
        let mut layers: Vec<LayerRecord> = Vec::new();
        for index in 1..self.network.nodes.len() {
            let node = &self.network.nodes[index];
            self.forward.push(Some(NodeRunner::new(self.dev, self.network, index)?));
            self.ann.push(None);
            self.spikes.push(None);
            if let Op::Neurons { .. } = node.op {
                let keep = last[index] > index && last[index] != usize::MAX;
                let named = |e: Error| match e.subject.is_empty() {
                    true if e.kind != crate::error::Kind::Interrupted => e.within(format!("layer {}", node.name)),
                    _ => e,
                };
                if let Some(finished) = done.next() {
                    layers.push(self.restore(index, keep, finished).map_err(named)?);
                } else {
                    let record = self.layer(index, keep).map_err(named)?;
                    self.watch.finished(&self.spiking, &record)?;
                    layers.push(record);
                }
                self.thinned |= layers.last().is_some_and(|l| l.sparse.is_some());
            } else {
                let view = views::view(&self.spiking, node)?;
                self.spiking.nodes.push(view);
                self.runners.push(Some(Runner::new(self.dev, &self.spiking, index)?));
            }
            for (i, &read) in last.iter().enumerate() {
                if read <= index && i < self.ann.len() {
                    self.ann[i] = None;
                    self.spikes[i] = None;
                }
            }
        }
        if done.next().is_some() {
            return Err(Error::input("", "the checkpoint has more layers than the network"));
        }
        Ok(Conversion { spiking: self.spiking, layers })
    }

    /// For each node, the last layer of neurons that reads it, directly or through nodes that are worked out on the
    /// way (pools, concatenations); `usize::MAX` for the output.
    fn last_reads(&self) -> Vec<usize> {
        let nodes = &self.network.nodes;
        let mut last = last_uses(nodes.len(), self.network.output, |i| nodes[i].sources());
        for i in (0..nodes.len()).rev() {
            if !matches!(nodes[i].op, Op::Neurons { .. }) && last[i] != usize::MAX {
                for s in nodes[i].sources() {
                    last[s] = last[s].max(last[i]);
                }
            }
        }
        last
    }

    /// Runs `work` on every batch, with progress; stops at an interrupt.
    pub fn each_batch(&mut self, stage: &str, mut work: impl FnMut(&mut Self, usize) -> Result<()>) -> Result<()> {
        self.watch.stage(stage, self.batches.len() as u64);
        for batch in 0..self.batches.len() {
            go_on(self.watch)?;
            work(self, batch)?;
            self.watch.tick();
        }
        Ok(())
    }

    fn raw(&self, batch: usize) -> Result<Vec<f32>> {
        self.images.data.batch(self.batches[batch].clone())
    }

    /// The trained network's values of `node` for a batch.
    pub fn activations(&mut self, node: usize, batch: usize) -> Result<Buffer<f32>> {
        if node == 0 {
            return self.dev.upload(&self.images.preprocess(&self.raw(batch)?));
        }
        if remainder::of(self.network, node).is_some() {
            // its tape holds what the spikes leave, which the trained network has none of
            return self.dev.zeros(self.batches[batch].len() * self.network.nodes[node].shape.len());
        }
        if let Some(tape) = &mut self.ann[node] {
            return tape.values(self.dev, batch);
        }
        let inputs = self.network.nodes[node]
            .sources()
            .into_iter()
            .map(|s| self.activations(s, batch))
            .collect::<Result<Vec<_>>>()?;
        let inputs: Vec<&Buffer<f32>> = inputs.iter().collect();
        let images = self.batches[batch].len();
        runner(&self.forward, node)?.linear(self.dev, images, &inputs)
    }

    /// Rates of a node are its totals times this. Analytic responses are totals over T all through.
    pub fn rate_per_total(&self, node: usize) -> f64 {
        match self.options.response {
            Response::Measured => simulate::rate_per_total(&self.spiking, node),
            Response::Analytic => 1.0 / f64::from(self.spiking.steps),
        }
    }

    /// The spike trains of `node` for a batch.
    pub fn trains(&mut self, node: usize, batch: usize) -> Result<Trains> {
        let images = self.batches[batch].len();
        if node == 0 {
            let raw = self.raw(batch)?;
            return match self.options.response {
                Response::Measured => simulate::encode(self.dev, &self.spiking, &raw, images),
                Response::Analytic => simulate::encode_total(self.dev, &self.spiking, &raw, images),
            };
        }
        if let Some(tape) = &mut self.spikes[node] {
            return tape.trains(self.dev, batch, images, self.spiking.nodes[node].shape);
        }
        let sources = runner(&self.runners, node)?.sources().to_vec();
        let inputs = sources.into_iter().map(|s| self.trains(s, batch)).collect::<Result<Vec<_>>>()?;
        let inputs: Vec<&Trains> = inputs.iter().collect();
        match runner(&self.runners, node)?.run(self.dev, images, &inputs)? {
            Output::Trains(trains) => Ok(trains),
            Output::Values(_) => Err(Error::work(&self.network.nodes[node].name, "a readout has no spikes to read")),
        }
    }
}

pub(super) fn runner<T>(runners: &[Option<T>], node: usize) -> Result<&T> {
    runners.get(node).and_then(Option::as_ref).ok_or_else(|| Error::work("walk", format!("node {node} is not ready")))
}

/// Cuts the images so that the largest layer's trains, sources and result, fit the budget and one device binding.
fn batches(dev: &Device, network: &Network, images: usize, options: &Options) -> Result<Vec<Range<usize>>> {
    let steps = if options.schedule == Schedule::Layered { 1 } else { u64::from(options.steps) };
    let mut size = images as u64;
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
        size = size.min(options.batch_bytes / ((neurons + sources) * steps * 4)).min(dev.max_buffer_bytes() / largest);
    }
    let size = size.max(1) as usize;
    // a batch is of one fold: folds are the same on all devices
    let folds = (0..FOLDS).map(|f| images * f / FOLDS..images * (f + 1) / FOLDS);
    let cut = |fold: Range<usize>| fold.clone().step_by(size).map(move |from| from..(from + size).min(fold.end));
    Ok(folds.flat_map(cut).collect())
}
