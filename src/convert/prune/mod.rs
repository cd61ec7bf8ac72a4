//! Which nodes (neurons of dense layers, channels of convolutions) a smaller spiking network can do without. METHOD
//! section 6.
//!
//! They are chosen on the trained network before the walk, from the last layer to the first, so that the rows of every
//! consumer that will be there are known: by what their removal costs the consumers' pre-activations when the rest is
//! refitted to the trained activations, each row's error counted by what the network's outputs feel of it (`sensitivity`).
//! The walk then fits each layer from what is left to the whole network's targets.

mod cores;
mod rules;
mod sensitivity;
mod shrink;
mod structure;
mod survey;

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Images, Options, Watch, fits, go_on, views};
use crate::compute::Team;
use crate::compute::gram;
use crate::compute::solver::dense;
use crate::error::{Error, Result};
use crate::fit::prune::{Consumer, Pruner, Removal, spread};
use crate::fit::{self, Problem, Sums};
use crate::network::{Network, Op};
use cores::Cores;
use shrink::shrunk_by;
use structure::{Origin, Structure};
use survey::{Activity, Survey};

pub use rules::{Keep, Total, find};
pub use shrink::{shrunk_to, smallest};

/// How the nodes that go are chosen. The rest is refitted in the same way whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choose {
    /// By exact cost: greedy, then swaps until none helps.
    Optimal,
    /// By exact cost to the proven optimum, by branch and bound.
    Exact,
    /// The smallest synapses first.
    Magnitude,
    /// The lowest mean rates first.
    Rate,
}

/// Of a row whose errors the outputs feel nothing of, beside the one that they feel most of: the trained network's slopes do
/// not say everything of a spiking one.
const LEAST_FELT: f64 = 0.01;
/// Partial choices that branch and bound looks at in one layer: some seconds' worth in a small one.
const VISITS: u64 = 1_000_000;

/// What is left of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pruned {
    /// Channels that stay.
    pub kept: usize,
    /// Channels before.
    pub of: usize,
    /// What the consumers lose of their pre-activations' spread on trained activations, refitted: the sum over consumers
    /// of relative squared errors, each row by what the outputs feel of it. `None` for a layer that goes with the one before
    /// it.
    pub cost: Option<f64>,
    /// Branch and bound came to an end; `None` without it.
    pub proven: Option<bool>,
    /// What its readers lack on trained inputs, a share of their targets, with the channels that stay as they were trained and
    /// as they were refined; `None` if they were not.
    #[serde(default)]
    pub refined: Option<[f64; 2]>,
    /// What the whole network lacks of the trained one's activations where all channels stay, a share of their variance: as
    /// pruned and as tuned; `None` if it was not, or gained too little.
    #[serde(default)]
    pub tuned: Option<[f64; 2]>,
}

/// The smaller network: node by node what is kept of the trained one.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Per node, where fewer than all: the channels that stay, rising.
    pub kept: BTreeMap<usize, Vec<usize>>,
    /// Per such node: the channels' mean activations, which stand for the ones that are gone.
    pub mean: BTreeMap<usize, Vec<f64>>,
    /// Per consumer that lost inputs: rows that stay x inputs of the trained layer, refitted.
    pub weights: BTreeMap<usize, Vec<f64>>,
    pub told: BTreeMap<usize, Pruned>,
    /// As `Pruned::tuned`.
    pub tuned: Option<[f64; 2]>,
}

/// Per node and channel of `network`: whether it stays.
pub fn staying(network: &Network, plan: &Plan) -> Vec<Vec<bool>> {
    let stays = |origin: &Origin| match origin {
        Some((leader, c)) => plan.kept.get(leader).is_none_or(|kept| kept.binary_search(c).is_ok()),
        None => true,
    };
    Structure::of(network).origin.iter().map(|channels| channels.iter().map(stays).collect()).collect()
}

/// Chooses what stays. `None` if everything does.
///
/// # Errors
/// Input: sizes that make no sense for this network, by the layer's name. A broken device, an interrupt.
pub fn plan(
    team: &Team,
    network: &Network,
    images: &Images,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Option<Plan>> {
    if options.keep.is_all() {
        return Ok(None);
    }
    let structure = Structure::of(network);
    let mut sizes = options.keep.sizes(network, &structure)?;
    let survey = Survey { team, network, images, options, watch };
    let felt = survey.sensitivity()?;
    let mut work = Work { network, structure, options, survey, sums: BTreeMap::new(), plan: Plan::default(), felt };
    if let Some(total) = options.keep.total {
        work.spread(total, &mut sizes)?;
        fits::fitting(&shrunk_by(network, &work.structure, &sizes), options)?;
    }
    for (l, size) in sizes.iter_mut().enumerate() {
        *size = size.filter(|&n| n < network.nodes[l].shape.c);
    }
    work.prune(&sizes)?;
    Ok((!work.plan.kept.is_empty()).then_some(work.plan))
}

/// Per layer of one network: what is left with its channels removed one after the other, the cheapest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Curve {
    pub layer: String,
    pub nodes: usize,
    pub removals: Vec<Removal>,
    /// From the Gram matrices to the last removal.
    pub seconds: f64,
    /// The pass over the images that its readers' Gram matrices come from. Where one pass serves several layers each is
    /// told the whole of it.
    #[serde(default)]
    pub survey_seconds: f64,
}

/// Curves of the layers called `names` (see `Keep`), or of all that can be pruned, each with the others whole.
///
/// # Errors
/// As `plan`.
pub fn sweep(
    on: impl Into<Team>,
    network: &Network,
    images: &Images,
    options: &Options,
    names: &[&str],
    watch: &dyn Watch,
) -> Result<Vec<Curve>> {
    let structure = Structure::of(network);
    let mut layers = names.iter().map(|n| rules::leader(network, &structure, n)).collect::<Result<Vec<_>>>()?;
    if layers.is_empty() {
        layers = structure.leaders();
    }
    layers.sort_unstable();
    layers.dedup();
    let team = on.into();
    let survey = Survey { team: &team, network, images, options, watch };
    let felt = survey.sensitivity()?;
    let mut work = Work { network, structure, options, survey, sums: BTreeMap::new(), plan: Plan::default(), felt };
    work.curves(&layers)
}

struct Work<'a> {
    network: &'a Network,
    structure: Structure,
    options: &'a Options,
    survey: Survey<'a>,
    /// Per consumer that is still needed.
    sums: BTreeMap<usize, gram::Sums>,
    plan: Plan,
    /// As `Survey::sensitivity`.
    felt: Vec<Vec<f64>>,
}

impl Work<'_> {
    /// Per row that stays of a consumer: how much the outputs feel of its errors, in units of the row that they feel most of.
    fn gains(&self, consumer: usize, rows: &[usize]) -> Vec<f64> {
        let felt = &self.felt[consumer];
        let most = rows.iter().map(|&row| felt[row]).fold(f64::MIN_POSITIVE, f64::max);
        // devices that round differently are to choose the same nodes
        rows.iter().map(|&row| fit::snapped((felt[row] / most).sqrt(), 10).max(LEAST_FELT)).collect()
    }

    /// Channel numbers that stay of a node.
    fn stays(&self, node: usize) -> Vec<usize> {
        // those that follow a leader, a remainder's among them, go as soon as its do
        let gone = |origin: &Origin| match origin {
            Some((l, c)) => self.plan.kept.get(l).is_some_and(|kept| !kept.contains(c)),
            None => false,
        };
        let origins = self.structure.origin[node].iter().enumerate();
        origins.filter(|(_, origin)| !gone(origin)).map(|(c, _)| c).collect()
    }

    /// From the last layer to the first; `sizes` per node that is pruned.
    fn prune(&mut self, sizes: &[Option<usize>]) -> Result<()> {
        let leaders: Vec<usize> = (0..sizes.len()).filter(|&l| sizes[l].is_some()).collect();
        let follows = |origin: &[Origin]| origin.iter().flatten().any(|(l, _)| leaders.contains(l));
        let neurons = |&i: &usize| matches!(self.network.nodes[i].op, Op::Neurons { .. });
        let touched: Vec<usize> =
            (0..sizes.len()).filter(neurons).filter(|&i| follows(&self.structure.origin[i])).collect();
        let mut activity = BTreeMap::new();
        for &leader in leaders.iter().rev() {
            let wanted = if activity.is_empty() { touched.as_slice() } else { &[] };
            let found = self.ready(leader, &leaders, wanted)?;
            activity.extend(found);
            go_on(self.survey.watch)?;
            let size = sizes[leader].unwrap_or(usize::MAX);
            self.leader(leader, size, &activity[&leader])?;
            self.forget(leader, &leaders);
        }
        for &i in &touched {
            let kept = self.stays(i);
            let told = Pruned {
                kept: kept.len(),
                of: self.network.nodes[i].shape.c,
                cost: None,
                proven: None,
                refined: None,
                tuned: None,
            };
            self.plan.kept.insert(i, kept);
            self.plan.told.entry(i).or_insert(told);
            self.plan.mean.insert(i, activity.remove(&i).unwrap_or_default().mean);
        }
        Ok(())
    }

    fn reads(&self, consumer: usize, leader: usize) -> bool {
        self.structure.consumers(self.network, leader).contains(&consumer)
    }

    /// Drops the sums that no leader before this one is read by.
    fn forget(&mut self, leader: usize, leaders: &[usize]) {
        let later = |j: &usize| leaders.iter().any(|&l| l < leader && self.reads(*j, l));
        let done: Vec<usize> = self.sums.keys().copied().filter(|j| !later(j)).collect();
        done.iter().for_each(|j| drop(self.sums.remove(j)));
    }

    /// Whether some of its consumers' sums are not at hand.
    fn lacks(&self, leader: usize) -> bool {
        self.structure.consumers(self.network, leader).iter().any(|j| !self.sums.contains_key(j))
    }

    /// Has the sums of the leader's consumers at hand, and those of as many leaders before it as memory allows.
    fn ready(&mut self, leader: usize, leaders: &[usize], wanted: &[usize]) -> Result<BTreeMap<usize, Activity>> {
        let need = |l: usize| self.structure.consumers(self.network, l);
        let mut missing: Vec<usize> = need(leader).into_iter().filter(|j| !self.sums.contains_key(j)).collect();
        if missing.is_empty() && wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let bytes = |j: usize| 8 * (self.survey.inputs(j) as u64).pow(2);
        let mut held: u64 = self.sums.keys().chain(&missing).map(|&j| bytes(j)).sum();
        for j in leaders.iter().rev().filter(|&&l| l < leader).flat_map(|&l| need(l)) {
            if self.sums.contains_key(&j) || missing.contains(&j) {
                continue;
            }
            held += bytes(j);
            if held > self.options.batch_bytes {
                break;
            }
            missing.push(j);
        }
        let (sums, activity) = self.survey.run(&missing, wanted)?;
        self.sums.extend(sums);
        Ok(activity)
    }

    /// Chooses the channels of one leader and refits its consumers.
    fn leader(&mut self, leader: usize, size: usize, activity: &Activity) -> Result<()> {
        let node = &self.network.nodes[leader];
        self.survey.watch.stage(&format!("prune {}", node.name), 1);
        let consumers = self.structure.consumers(self.network, leader);
        let problems = consumers.iter().map(|&j| self.consumer(leader, j)).collect::<Result<Vec<_>>>()?;
        let mut pruner = Pruner::new(&problems)?;
        let mut proven = None;
        match self.options.prune {
            Choose::Optimal => {
                let dev = self.survey.team.first();
                if pruner.pays(dev) {
                    pruner.greedy_on(dev, size)?;
                } else {
                    pruner.greedy(size)?;
                }
                pruner.swap()?;
            }
            Choose::Exact => proven = Some(pruner.exact(size, VISITS)?.proven),
            Choose::Magnitude => {
                let mut sizes = self.magnitudes(&consumers, &problems);
                // what never varies is not in the pruner's problems at all
                let there = pruner.magnitudes();
                sizes.iter_mut().zip(&there).filter(|(_, there)| **there == 0.0).for_each(|(size, _)| *size = 0.0);
                drop(pruner.by_score(&sizes, size)?);
            }
            Choose::Rate => {
                let rate = |(mean, peak): (&f64, &f64)| if *peak > 0.0 { mean / peak } else { 0.0 };
                let rates: Vec<f64> = activity.mean.iter().zip(&activity.peak).map(rate).collect();
                pruner.by_score(&rates, size)?;
            }
        }
        pruner.refit()?;
        self.plan.kept.insert(leader, pruner.those(true));
        self.plan.told.insert(
            leader,
            Pruned { kept: size, of: node.shape.c, cost: Some(pruner.cost()), proven, refined: None, tuned: None },
        );
        for (k, &j) in consumers.iter().enumerate() {
            let (gains, mut w) = (self.gains(j, &self.stays(j)), pruner.weights(k));
            let n = w.len() / gains.len().max(1);
            w.chunks_mut(n.max(1)).zip(&gains).for_each(|(row, gain)| row.iter_mut().for_each(|w| *w /= gain));
            self.plan.weights.insert(j, w);
        }
        tracing::debug!(layer = node.name, size, cost = pruner.cost(), "pruned");
        self.survey.watch.tick();
        Ok(())
    }

    /// Per node: the sum of squares of the weights that read it. `problems`: of `consumers`.
    fn magnitudes(&self, consumers: &[usize], problems: &[Consumer]) -> Vec<f64> {
        let mut sums = vec![0.0; problems.first().map_or(0, |p| p.columns.len())];
        for (&j, Consumer { problem, columns }) in consumers.iter().zip(problems) {
            let weights =
                problem.prior.iter().flat_map(|w| w.chunks_exact(problem.n)).zip(self.gains(j, &self.stays(j)));
            for (row, gain) in weights {
                let of = |inputs: &Vec<usize>| inputs.iter().map(|&i| (row[i] / gain).powi(2)).sum::<f64>();
                sums.iter_mut().zip(columns).for_each(|(sum, inputs)| *sum += of(inputs));
            }
        }
        sums
    }

    /// The problem of a consumer's rows that stay, less what leaders after `leader` have taken, in shares of its targets.
    fn consumer(&self, leader: usize, consumer: usize) -> Result<Consumer> {
        let node = &self.network.nodes[consumer];
        let (Op::Neurons { blocks, .. }, Some(sums)) = (&node.op, self.sums.get(&consumer)) else {
            return Err(Error::work(&node.name, "was not surveyed"));
        };
        let (n, rows) = (sums.n, self.stays(consumer));
        let m = rows.len();
        let mut w = Vec::with_capacity(m * n);
        for &row in &rows {
            for block in blocks {
                let width = block.weight.len() / node.shape.c;
                w.extend(block.weight[row * width..(row + 1) * width].iter().map(|v| f64::from(*v)));
            }
        }
        let gains = self.gains(consumer, &rows);
        w.chunks_mut(n.max(1)).zip(&gains).for_each(|(row, gain)| row.iter_mut().for_each(|w| *w *= gain));
        let none = vec![0.0; m * n];
        let zero = vec![0.0; m];
        let raw = Sums { h: &sums.h, b: &none, x: &sums.x_sum, t: &zero, tt: &zero, count: sums.count as f64 };
        let mut problem = Problem::from_sums(raw)?;
        dense::product(&mut problem.b, false, &w, &problem.h, (m, n, n), dense::par(m * n * n));
        let tt: Vec<f64> =
            (0..m).map(|o| dense::dot(&w[o * n..(o + 1) * n], &problem.b[o * n..(o + 1) * n]).max(0.0)).collect();
        let total: f64 = tt.iter().sum();
        let unit = if total > 0.0 { 1.0 / total } else { 1.0 };
        for v in problem.h.iter_mut().chain(&mut problem.b) {
            *v *= unit;
        }
        problem.tt = Some(tt.iter().map(|v| v * unit).collect());
        for after in self.plan.kept.keys().copied().filter(|&l| l > leader) {
            let kept = &self.plan.kept[&after];
            let columns = self.structure.columns(self.network, after, consumer);
            for &i in columns.iter().enumerate().filter(|(c, _)| !kept.contains(c)).flat_map(|(_, inputs)| inputs) {
                problem.silence(i);
            }
        }
        problem.prior = Some(w);
        problem.ridge = self.options.ridge.fixed();
        Ok(Consumer { problem, columns: self.structure.columns(self.network, leader, consumer) })
    }

    /// Gives the layers that have no size one, so that the network keeps to the total.
    fn spread(&mut self, total: Total, sizes: &mut [Option<usize>]) -> Result<()> {
        match total {
            Total::Neurons(total) => self.spread_neurons(total, sizes),
            Total::Cores(total) => {
                let open: Vec<usize> = self.structure.leaders().into_iter().filter(|&l| sizes[l].is_none()).collect();
                let curves = self.curves(&open)?;
                let cores = Cores { network: self.network, structure: &self.structure, options: self.options };
                cores.spread(total, sizes, &open, &curves)
            }
        }
    }

    fn spread_neurons(&mut self, total: usize, sizes: &mut [Option<usize>]) -> Result<()> {
        let per_unit = |i: usize| match &self.network.nodes[i].op {
            Op::Neurons { activation, .. } if i != self.network.output => {
                views::population(*activation, self.options.population) as usize
            }
            _ => 0,
        };
        let of: Vec<usize> = (0..sizes.len())
            .map(|l| {
                if sizes[l].is_some() || self.structure.blocked[l].is_none() {
                    self.structure.neurons_of(self.network, l, per_unit)
                } else {
                    0
                }
            })
            .collect();
        let mut now: usize = (0..sizes.len())
            .filter(|&i| matches!(self.network.nodes[i].op, Op::Neurons { .. }))
            .map(|i| self.network.nodes[i].shape.len() * per_unit(i))
            .sum();
        for (l, size) in sizes.iter().enumerate() {
            if let Some(size) = size {
                now -= (self.network.nodes[l].shape.c - size) * of[l];
            }
        }
        if now <= total {
            return Ok(());
        }
        let open: Vec<usize> = self.structure.leaders().into_iter().filter(|&l| sizes[l].is_none()).collect();
        let curves = self.curves(&open)?;
        let told: Vec<(&[Removal], usize)> =
            curves.iter().zip(&open).map(|(c, &l)| (c.removals.as_slice(), of[l])).collect();
        let gone = spread(&told, now - total).map_err(|e| e.within(format!("{total} neurons")))?;
        for (&l, gone) in open.iter().zip(gone) {
            sizes[l] = Some(self.network.nodes[l].shape.c - gone);
        }
        Ok(())
    }

    /// Nested removals of each leader alone, down to one channel.
    fn curves(&mut self, leaders: &[usize]) -> Result<Vec<Curve>> {
        let mut curves = vec![];
        let mut survey_seconds = 0.0;
        for &leader in leaders.iter().rev() {
            let start = Instant::now();
            if self.lacks(leader) {
                self.ready(leader, leaders, &[])?;
                survey_seconds = start.elapsed().as_secs_f64();
            }
            go_on(self.survey.watch)?;
            let start = Instant::now();
            let node = &self.network.nodes[leader];
            self.survey.watch.stage(&format!("sweep {}", node.name), 1);
            let consumers = self.structure.consumers(self.network, leader);
            let problems = consumers.iter().map(|&j| self.consumer(leader, j)).collect::<Result<Vec<_>>>()?;
            let removals = Pruner::new(&problems)?.greedy(1)?;
            let seconds = start.elapsed().as_secs_f64();
            let layer = node.name.clone();
            curves.push(Curve { layer, nodes: node.shape.c, removals, seconds, survey_seconds });
            self.forget(leader, leaders);
            self.survey.watch.tick();
        }
        curves.reverse();
        Ok(curves)
    }
}
