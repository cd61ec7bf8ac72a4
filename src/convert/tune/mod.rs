//! A pruned network fitted as a whole: all its layers together, so that it gives the trained network's activations wherever no
//! channel went, the outputs among them. No labels. Pruning and refining look one layer ahead; errors that later layers
//! could make up for, or that matter little to them, are only seen end to end.
//!
//! The mean over those layers of sum (y - y')^2 / sum (y - mean y)^2, y trained and y' tuned, is made smaller by Adam (Kingma and
//! Ba, ICLR 2015) in small batches, along the principal axes of a layer's inputs (`descent`), with steps relative to the layer's
//! weights that fall to zero along a cosine. Images are shifted, mirrored, brightened and mixed (`vary`), anew in every pass:
//! the trained network says what is wanted of any input. The walk then converts the tuned network in the trained one's place.

mod adam;
mod descent;
mod gradients;
mod passes;
mod vary;

use super::backward::{kept_values, patch, value};
use super::prune::{Plan, staying};
use super::worker::images_within;
use super::{Images, Options, Watch, go_on, pieces, remainder};
use crate::compute::gram::{Moments, PatchSpec};
use crate::compute::{Buffer, Device};
use crate::error::Result;
use crate::forward::{Forward, NodeRunner};
use crate::network::{Block, Network, Op};

/// Images of a step: fewer make a pass more steps, and in as many passes get further.
const BATCH: usize = 16;

/// What the tuned network may lack, in units of what the pruned one did: refining, whose place tuning takes, brings this.
const ENOUGH: f64 = 0.85;

/// The network of `plan` tuned as the options ask for, with channels that are gone at zero; `plan` is made one of it. `None` if
/// nothing is to be tuned or too little is gained.
///
/// # Errors
/// A broken device, an interrupt.
pub(super) fn tune(
    dev: &Device,
    network: &Network,
    images: &Images,
    options: &Options,
    plan: Option<&mut Plan>,
    watch: &dyn Watch,
) -> Result<Option<Network>> {
    let Some(plan) = plan.filter(|_| options.tune > 0) else { return Ok(None) };
    let mut tuner = Tuner::new(dev, network, images, options, plan, watch)?;
    let before = tuner.lacking()?;
    tuner.run(before)?;
    let after = tuner.lacking()?;
    tracing::debug!(before, after, "tuned");
    if after >= if options.refine { ENOUGH * before } else { before } {
        return Ok(None);
    }
    plan.tuned = Some([before, after]);
    plan.told.values_mut().for_each(|told| told.tuned = plan.tuned);
    for (&node, kept) in &plan.kept {
        let Op::Neurons { activation, .. } = &network.nodes[node].op else { continue };
        let Some(means) = plan.mean.get_mut(&node) else { continue };
        let gone = means.iter_mut().enumerate().filter(|(c, _)| kept.binary_search(c).is_err());
        gone.for_each(|(_, mean)| *mean = activation.apply(0.0));
    }
    plan.weights.clear();
    let mut tuned = tuner.tuned;
    follow(&mut tuned, &tuner.silent);
    Ok(Some(tuned))
}

/// A layer that all channels stay of, after one that lost some.
struct Target {
    node: usize,
    /// What a squared error of one image counts.
    unit: f64,
}

struct Tuner<'a> {
    dev: &'a Device,
    trained: &'a Network,
    forward: Forward<'a>,
    images: &'a Images,
    options: &'a Options,
    watch: &'a dyn Watch,
    tuned: Network,
    /// Per node: it lost channels, or sees what did.
    late: Vec<bool>,
    /// Per node: not late, and read by what is.
    read: Vec<bool>,
    /// Per node: a remainder, which the trained network has none of.
    silent: Vec<bool>,
    targets: Vec<Target>,
    /// Per node that is tuned, as `Gradient::weights`: synapses that stay.
    masks: Vec<Vec<bool>>,
    /// Per node: channels that stay.
    stays: Vec<Vec<bool>>,
    /// Runners of late nodes without parameters.
    runners: Vec<Option<NodeRunner>>,
    /// Per node: root mean square of its values, a scale for biases.
    size: Vec<f64>,
    batch: usize,
}

/// Values of a batch.
struct Seen {
    images: usize,
    /// Tuned values; of nodes that are not late the trained ones, where late ones read them.
    values: Vec<Option<Buffer<f32>>>,
    /// Per target: the trained values.
    wanted: Vec<Vec<f32>>,
}

impl<'a> Tuner<'a> {
    fn new(
        dev: &'a Device,
        network: &'a Network,
        images: &'a Images,
        options: &'a Options,
        plan: &Plan,
        watch: &'a dyn Watch,
    ) -> Result<Self> {
        let nodes = &network.nodes;
        let stays = staying(network, plan);
        let mut silent = vec![false; nodes.len()];
        let mut late = vec![false; nodes.len()];
        for (i, node) in nodes.iter().enumerate().skip(1) {
            let sources = node.sources();
            silent[i] = match node.op {
                Op::Neurons { .. } => remainder::of(network, i).is_some(),
                _ => sources.iter().all(|&s| silent[s]),
            };
            late[i] = !silent[i] && (plan.kept.contains_key(&i) || sources.iter().any(|&s| late[s]));
        }
        let mut read = vec![false; nodes.len()];
        let readers = nodes.iter().zip(&late).filter(|(_, late)| **late);
        readers.for_each(|(node, _)| node.sources().iter().for_each(|&s| read[s] |= !late[s]));
        let mut tuner = Self {
            dev,
            trained: network,
            forward: Forward::new(dev, network)?,
            images,
            options,
            watch,
            tuned: network.clone(),
            targets: vec![],
            masks: vec![vec![]; nodes.len()],
            runners: (0..nodes.len()).map(|_| None).collect(),
            size: vec![0.0; nodes.len()],
            batch: 0,
            late,
            read,
            silent,
            stays,
        };
        let values: u64 = nodes.iter().map(|n| n.shape.len() as u64 * size_of::<f32>() as u64).sum();
        tuner.batch = images_within(dev, options, 3 * values, BATCH.min(images.len()));
        let means = tuner.survey()?;
        for i in tuner.layers() {
            tuner.cut(i, plan, &means);
        }
        for (i, node) in nodes.iter().enumerate() {
            if tuner.late[i] && !matches!(node.op, Op::Neurons { .. }) {
                tuner.runners[i] = Some(NodeRunner::new(dev, network, i)?);
            }
        }
        Ok(tuner)
    }

    /// Layers that are tuned.
    fn layers(&self) -> Vec<usize> {
        let neurons = |i: &usize| self.late[*i] && matches!(self.trained.nodes[*i].op, Op::Neurons { .. });
        (0..self.late.len()).filter(neurons).collect()
    }

    /// One pass: the targets and their variances, sizes, and per node the channels' means.
    fn survey(&mut self) -> Result<Vec<Vec<f64>>> {
        let nodes = &self.trained.nodes;
        let mut sums: Vec<Vec<f64>> = nodes.iter().map(|n| vec![0.0; n.shape.c]).collect();
        let mut squares = vec![0.0; nodes.len()];
        let add = |i: usize, values: &[f32], sums: &mut [Vec<f64>], squares: &mut [f64]| {
            let shape = nodes[i].shape;
            for (plane, values) in values.chunks_exact(shape.area()).enumerate() {
                sums[i][plane % shape.c] += values.iter().map(|v| f64::from(*v)).sum::<f64>();
                squares[i] += values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            }
        };
        self.watch.stage("tune: survey", self.images.len().div_ceil(self.batch) as u64);
        for range in pieces(0..self.images.len(), self.batch) {
            go_on(self.watch)?;
            let count = range.len();
            let input = self.images.preprocess(&self.images.data.batch(range)?);
            add(0, &input, &mut sums, &mut squares);
            self.forward.visit(self.dev, count, &input, |i, _, value| {
                add(i, &self.dev.view(value)?, &mut sums, &mut squares);
                Ok(())
            })?;
            self.watch.tick();
        }
        let images = self.images.len() as f64;
        for (i, node) in nodes.iter().enumerate() {
            let samples = images * node.shape.area() as f64;
            self.size[i] = (squares[i] / (images * node.shape.len() as f64)).sqrt();
            sums[i].iter_mut().for_each(|sum| *sum /= samples);
            let whole = self.stays[i].iter().all(|stays| *stays);
            if self.late[i] && whole && matches!(node.op, Op::Neurons { .. }) {
                let variance = squares[i] - samples * sums[i].iter().map(|m| m * m).sum::<f64>();
                let unit = if variance > 1e-9 * squares[i] { images / variance } else { 0.0 };
                self.targets.push(Target { node: i, unit });
            }
        }
        let count = self.targets.len().max(1) as f64;
        self.targets.iter_mut().for_each(|t| t.unit /= count);
        Ok(sums)
    }

    /// Layer `i` as `plan` leaves it, what it lost made up for in the mean.
    fn cut(&mut self, i: usize, plan: &Plan, means: &[Vec<f64>]) {
        let Op::Neurons { blocks, bias, .. } = &mut self.tuned.nodes[i].op else { return };
        let rows = bias.len();
        let n: usize = blocks.iter().map(|b| b.weight.len() / rows).sum();
        let weights = plan.weights.get(&i);
        let mut first = 0;
        let mut masks = vec![vec![]; rows];
        for block in blocks.iter_mut() {
            let (width, taps) = (block.weight.len() / rows, block.window.taps());
            let (ins, outs) = (width / taps, rows / block.groups);
            let mut kept = 0;
            for (row, (bias, &stays)) in bias.iter_mut().zip(&self.stays[i]).enumerate() {
                for column in 0..width {
                    let channel = row / outs * ins + column / taps;
                    let at = row * width + column;
                    let old = block.weight[at];
                    let there = stays && self.stays[block.source][channel];
                    if !self.silent[block.source] {
                        masks[row].push(there);
                    }
                    block.weight[at] = match weights {
                        _ if !there => 0.0,
                        Some(w) => w[kept * n + first + column] as f32,
                        None => old,
                    };
                    *bias += (f64::from(old - block.weight[at]) * means[block.source][channel]) as f32;
                }
                kept += usize::from(stays);
            }
            first += width;
        }
        self.masks[i] = masks.concat();
        let gone = bias.iter_mut().zip(&self.stays[i]).filter(|(_, stays)| !**stays);
        gone.for_each(|(bias, _)| *bias = 0.0);
    }

    /// The images through both networks.
    fn see(&self, images: usize, input: &[f32]) -> Result<Seen> {
        let (dev, nodes) = (self.dev, &self.trained.nodes);
        let mut wanted: Vec<Vec<f32>> = vec![vec![]; self.targets.len()];
        let mut values = kept_values(dev, &self.forward, images, input, &self.read, |i, value| {
            if let Some(t) = self.targets.iter().position(|t| t.node == i) {
                wanted[t] = dev.view(value)?.into_owned();
            }
            Ok(())
        })?;
        for i in (0..nodes.len()).filter(|&i| self.late[i]) {
            let made;
            let runner = match &self.runners[i] {
                Some(runner) => runner,
                None => {
                    made = NodeRunner::new(dev, &self.tuned, i)?;
                    &made
                }
            };
            let inputs = nodes[i].sources().into_iter().map(|s| self.value(&values, s)).collect::<Result<Vec<_>>>()?;
            let value = runner.run(dev, images, &inputs)?;
            values[i] = Some(value);
        }
        Ok(Seen { images, values, wanted })
    }

    fn value<'b>(&self, values: &'b [Option<Buffer<f32>>], node: usize) -> Result<&'b Buffer<f32>> {
        value(self.trained, values, node)
    }

    /// The blocks of layer `i` that read no remainder.
    fn blocks(&self, i: usize) -> impl Iterator<Item = &Block> {
        let blocks = match &self.tuned.nodes[i].op {
            Op::Neurons { blocks, .. } => &blocks[..],
            _ => &[],
        };
        blocks.iter().filter(|b| !self.silent[b.source])
    }

    /// What these see.
    fn inputs<'b>(&self, i: usize, values: &'b [Option<Buffer<f32>>]) -> Result<Vec<&'b Buffer<f32>>> {
        self.blocks(i).map(|b| self.value(values, b.source)).collect()
    }

    /// Sums of them.
    fn moments(&self, i: usize) -> Result<Moments> {
        let patches: Vec<PatchSpec> = self.blocks(i).map(|b| patch(&self.tuned, b)).collect();
        Moments::new(self.dev, &patches, self.tuned.nodes[i].shape, patches.first().map_or(1, |p| p.groups))
    }

    /// What the tuned network lacks of the targets on the calibration images as they are.
    fn lacking(&self) -> Result<f64> {
        self.watch.stage("tune: errors", self.images.len().div_ceil(self.batch) as u64);
        let mut lacking = 0.0;
        for range in pieces(0..self.images.len(), self.batch) {
            go_on(self.watch)?;
            let count = range.len();
            let input = self.images.preprocess(&self.images.data.batch(range)?);
            let seen = self.see(count, &input)?;
            for (target, wanted) in self.targets.iter().zip(&seen.wanted) {
                let given = self.dev.view(self.value(&seen.values, target.node)?)?;
                let off = given.iter().zip(wanted).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                lacking += target.unit * off / self.images.len() as f64;
            }
            self.watch.tick();
        }
        Ok(lacking)
    }
}

/// Gives remainder layers the weights of those that they follow, and readers of remainders those of what is left over.
fn follow(network: &mut Network, silent: &[bool]) {
    for i in 1..network.nodes.len() {
        let leader = remainder::of(network, i);
        let from = leader.unwrap_or(i);
        let Op::Neurons { blocks, bias, .. } = &network.nodes[from].op else { continue };
        let real: Vec<Vec<f32>> = blocks.iter().filter(|b| !silent[b.source]).map(|b| b.weight.clone()).collect();
        let whole = bias.clone();
        let Op::Neurons { blocks, bias, .. } = &mut network.nodes[i].op else { continue };
        *bias = whole;
        let mut at = 0;
        for block in blocks {
            at += usize::from(!silent[block.source]);
            // a remainder's last block is what its layer sent already
            if Some(block.source) != leader
                && let Some(weight) = real.get(at.wrapping_sub(1))
            {
                block.weight.clone_from(weight);
            }
        }
    }
}
