//! Layers with fewer synapses than the trained ones: what is asked for, by the user or by the chip's limit of a neuron's
//! inputs, and which synapses of a layer stay. METHOD section 6.

use serde::{Deserialize, Serialize};

use super::group::Group;
use super::layer::{Rows, Task};
use super::prune::{Choose, find};
use super::walk::Walk;
use super::{Options, go_on};
use crate::chip::{Chip, Most};
use crate::compute::gram::Sums;
use crate::error::{Error, Result};
use crate::fit::prune::{Pattern, Runs, Score, sparsify};
use crate::network::Network;

/// As it was asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sparsity {
    /// Shares of synapses that go (0..1), of layers by name, in order: a later one wins.
    pub named: Vec<(String, f64)>,
    /// Of every other layer.
    pub others: f64,
    /// Inputs of one neuron at most, of every layer.
    pub fan_in: Option<usize>,
    pub runs: Option<Runs>,
}

impl Sparsity {
    /// `shares`: `0.8`, `80%`, `fc1=0.9`. `pattern`: `2:4`.
    ///
    /// # Errors
    /// Input: names the item that cannot be read.
    pub fn parse(shares: &[String], fan_in: Option<usize>, pattern: Option<&str>) -> Result<Self> {
        let mut sparsity = Self { fan_in, ..Self::default() };
        for item in shares.iter().map(|i| i.trim()) {
            match item.rsplit_once('=') {
                Some((layer, text)) => sparsity.named.push((layer.trim().to_string(), share(text.trim())?)),
                None => sparsity.others = share(item)?,
            }
        }
        if fan_in == Some(0) {
            return Err(Error::input("fan-in", "must be at least 1"));
        }
        sparsity.runs = pattern.map(runs).transpose()?;
        Ok(sparsity)
    }

    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// # Errors
    /// Input: a name that no layer has; synapses that are to go although the grid has no zero.
    pub fn check(&self, network: &Network, chip: &Chip) -> Result<()> {
        for (name, _) in &self.named {
            find(network, name, "sparsity")?;
        }
        match self.is_all() || chip.can_leave_out() {
            true => Ok(()),
            false => Err(Error::input(
                format!("chip {}", chip.name),
                "its weights (weights.grid) have no zero: no synapse can be left out",
            )),
        }
    }

    /// The inputs that a neuron with `inputs` of them is left with at most, as far as that is certain before anything is
    /// fitted: by limits of a row, not by shares of a layer.
    pub fn most_inputs(&self, inputs: u64) -> u64 {
        let of_runs = self.runs.map(|Runs { keep, of }| {
            let (keep, of) = (keep as u64, of as u64);
            inputs / of * keep + (inputs % of).min(keep)
        });
        self.fan_in.map(|most| most as u64).into_iter().chain(of_runs).fold(inputs, u64::min)
    }

    /// What it asks of one layer, with what the chip asks of a neuron with `inputs` of them.
    pub fn pattern(&self, network: &Network, layer: usize, chip: &Chip, inputs: usize) -> Pattern {
        let is = |name: &str| find(network, name, "sparsity").is_ok_and(|found| found == layer);
        let named = self.named.iter().rev().find(|(name, _)| is(name));
        let most = chip.most_inputs(inputs as u64).map(|Most { inputs, together }| (inputs as usize, together));
        Pattern {
            sparsity: named.map_or(self.others, |(_, share)| *share),
            fan_in: self.fan_in.into_iter().chain(most.filter(|m| !m.1).map(|m| m.0)).min(),
            together: most.filter(|m| m.1).map(|m| m.0),
            runs: self.runs,
        }
    }
}

fn share(text: &str) -> Result<f64> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|v| v / 100.0),
        None => text.parse::<f64>(),
    };
    number.ok().filter(|v| (0.0..1.0).contains(v)).ok_or_else(|| {
        Error::input(
            "sparsity",
            format!("`{text}` is not a share of synapses to remove: 0 to below 1, or 0% to below 100%"),
        )
    })
}

fn runs(text: &str) -> Result<Runs> {
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let pair = text.split_once(':').and_then(|(keep, of)| Some((number(keep)?, number(of)?)));
    match pair {
        Some((keep, of)) if (1..=of).contains(&keep) => Ok(Runs { keep, of }),
        _ => Err(Error::input("pattern", format!("`{text}` is not N:M, N of every M synapses stay (2:4)"))),
    }
}

/// What is left of a layer's synapses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Thinned {
    /// Synapses (of one position of a convolution) that stay, and those that there were.
    pub kept: usize,
    pub of: usize,
    /// Inputs of the neuron that has most.
    pub fan_in: usize,
    /// What the refitted rest cannot make up for: share of the squared targets (continuous weights).
    pub cost: f64,
    /// The chip's limit of a neuron's inputs, where it is below what the layer had.
    pub limit: Option<u64>,
}

/// The synapses that stay.
pub(super) struct Thin {
    /// Per group: m x n.
    pub masks: Vec<Vec<bool>>,
    pub told: Thinned,
}

impl Options {
    pub(super) fn score(&self) -> Score {
        match self.prune {
            Choose::Optimal | Choose::Exact => Score::Cost,
            Choose::Magnitude => Score::Magnitude,
            Choose::Rate => Score::Rate,
        }
    }
}

impl Walk<'_> {
    /// What is asked of a layer.
    pub(super) fn pattern(&self, task: &Task) -> Pattern {
        let Options { sparse, chip, .. } = self.options;
        sparse.pattern(self.network, task.index, chip, task.inputs())
    }

    /// Which of the layer's synapses stay, if not all.
    pub(super) fn thinned(&self, task: &Task, rows: &Rows, targets: &Sums) -> Result<Option<Thin>> {
        let (n, pattern) = (task.inputs(), self.pattern(task));
        if pattern.is_all(n) {
            return Ok(None);
        }
        go_on(self.watch)?;
        let m = task.shape.c * rows.population / task.groups;
        let prior = self.prior(task, rows, &task.scales());
        let (mut masks, mut cost, mut scale) = (Vec::with_capacity(task.groups), 0.0, 0.0);
        for g in 0..task.groups {
            let problem = Group::new(task, targets, g, m).problem(&prior[g * m * n..(g + 1) * m * n], task.ridge)?;
            scale += problem.tt.iter().flatten().sum::<f64>();
            let found = sparsify(&problem, pattern, self.options.score())?;
            cost += found.cost.iter().sum::<f64>();
            masks.push(found.mask);
        }
        let rows = || masks.iter().flat_map(|mask| mask.chunks(n.max(1)));
        let count = |row: &[bool]| row.iter().filter(|stays| **stays).count();
        let told = Thinned {
            kept: rows().map(count).sum(),
            of: m * n * task.groups,
            fan_in: rows().map(count).max().unwrap_or(0),
            cost: if scale > 0.0 { cost / scale } else { 0.0 },
            limit: self.options.chip.most_inputs(n as u64).map(|most| most.inputs),
        };
        tracing::debug!(layer = task.name, kept = told.kept, of = told.of, cost = told.cost, "thinned");
        Ok(Some(Thin { masks, told }))
    }
}
