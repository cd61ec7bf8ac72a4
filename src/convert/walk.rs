//! Node after node: what both networks are so far, and which device has which images.

use std::path::Path;

use super::prune::Plan;
use super::restore::Finished;
use super::ridge::FOLDS;
use super::tape::Tapes;
use super::worker::{Worker, batch_size, pieces};
use super::{Conversion, Images, LayerRecord, NoiseUse, Options, Response, Watch, input, settle, views};
use crate::chip::{FitRules, PairNoise, fit_rules};
use crate::compute::{Device, Team};
use crate::error::{Error, Result};
use crate::forward::NodeRunner;
use crate::network::{Network, Op, last_uses};
use crate::spiking::simulate::{self, Runner};
use crate::spiking::{Decode, Schedule, SpikingNetwork, SpikingNode, SpikingOp};

pub(super) struct Walk<'a> {
    pub team: Team,
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
    /// Steps that each node waits before it may fire.
    pub windows: Vec<u32>,
    pub tapes: Tapes,
    /// One a device, in the team's order.
    pub workers: Vec<Worker>,
}

impl<'a> Walk<'a> {
    pub fn new(
        team: Team,
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
        let workers = workers(&team, network, images.len(), options)?;
        let batches: Vec<_> = workers.iter().flat_map(|w| w.batches.iter().cloned()).collect();
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
            team,
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
            windows: settle::windows(network, &options.settle, options.steps),
            tapes: Tapes::new(scratch),
            workers,
        })
    }

    /// `done` layers are taken as they are, the others fitted.
    pub fn run(mut self, done: Vec<Finished>) -> Result<Conversion> {
        self.plan_room(done.len())?;
        let mut done = done.into_iter();
        let last = self.last_reads();
        let mut layers: Vec<LayerRecord> = Vec::new();
        for index in 1..self.network.nodes.len() {
            let node = &self.network.nodes[index];
            for (dev, worker) in self.team.devices().zip(&mut self.workers) {
                worker.forward.push(Some(NodeRunner::new(dev, self.network, index)?));
                worker.ann.push(None);
                worker.spikes.push(None);
            }
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
                self.push(view)?;
            }
            for worker in &mut self.workers {
                let tapes = worker.ann.iter_mut().zip(&mut worker.spikes);
                for ((ann, spikes), _) in tapes.zip(&last).filter(|(_, read)| **read <= index) {
                    (*ann, *spikes) = (None, None);
                }
            }
        }
        if done.next().is_some() {
            return Err(Error::input("", "the checkpoint has more layers than the network"));
        }
        Ok(Conversion { spiking: self.spiking, layers, tuned: None })
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

    /// Appends a node to the spiking network.
    pub fn push(&mut self, node: SpikingNode) -> Result<()> {
        self.spiking.nodes.push(node);
        self.upload(self.spiking.nodes.len() - 1)
    }

    /// Gives all devices spiking node `index` as it is now.
    pub fn upload(&mut self, index: usize) -> Result<()> {
        for (dev, worker) in self.team.devices().zip(&mut self.workers) {
            worker.runners.resize_with(self.spiking.nodes.len(), || None);
            worker.runners[index] = Some(Runner::new(dev, &self.spiking, index)?);
        }
        Ok(())
    }

    /// Rates of a node are its totals times this. Analytic responses are totals over T all through.
    pub fn rate_per_total(&self, node: usize) -> f64 {
        match self.options.response {
            Response::Measured => simulate::rate_per_total(&self.spiking, node),
            Response::Analytic => 1.0 / f64::from(self.spiking.steps),
        }
    }
}

/// Cuts the images into each device's batches.
fn workers(team: &Team, network: &Network, images: usize, options: &Options) -> Result<Vec<Worker>> {
    // a batch is of one fold: folds are the same on all devices, and every device has its share of each
    let folds: Vec<_> = (0..FOLDS).map(|f| team.split(images * f / FOLDS..images * (f + 1) / FOLDS)).collect();
    let worker = |(number, dev): (usize, &Device)| {
        let size = batch_size(dev, network, options)?;
        let batches = folds.iter().flat_map(|parts| pieces(parts[number].clone(), size)).collect();
        Ok(Worker::new(number, batches))
    };
    team.devices().enumerate().map(worker).collect()
}
