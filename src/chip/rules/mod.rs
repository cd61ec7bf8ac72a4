//! Design rules: does a network fit a chip, and what to change first. Each rule is a small function that gives at most one
//! finding, about the layer that is farthest from fitting.

mod layer;
mod neuron;
mod whole;

use serde::Serialize;

use super::place::{Placement, place};
use super::{Chip, Demand, Layout};

/// What a chip cannot hold, and what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub rule: &'static str,
    /// The layer that needs most of what is short; none for the network as a whole.
    pub layer: Option<String>,
    /// Layers that break the rule.
    pub layers: usize,
    pub need: u64,
    pub have: u64,
    /// One line that a person can act on.
    pub message: String,
}

/// Whether a network fits a chip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    pub fits: bool,
    /// What to change first comes first.
    pub findings: Vec<Finding>,
    pub placement: Placement,
    /// Cores there are.
    pub cores: Option<u64>,
    /// Layers whose neurons have more inputs than the chip allows: a conversion prunes them, one line each.
    pub pruned: Vec<String>,
    /// Limits that nobody could say: not checked.
    pub unknown: Vec<String>,
}

/// Checks all rules, those that no placement can mend first.
pub fn verdict(chip: &Chip, demand: &Demand<'_>) -> Verdict {
    let pruned = neuron::pruned(chip, demand);
    let demand = &demand.within(chip);
    let placement = place(chip, demand);
    let mut findings: Vec<Option<Finding>> = vec![
        whole::inputs(chip, demand),
        whole::outputs(chip, demand),
        whole::max_pool(chip, demand),
        neuron::fan_in(chip, demand),
        neuron::axons(chip, demand),
        neuron::fan_out(chip, demand),
    ];
    if chip.chip.layout == Layout::Layers {
        findings.extend(layer::all(&chip.layer, demand));
    }
    findings.push(whole::unplaced(chip, &placement));
    findings.push(whole::destinations(chip, &placement));
    findings.push(whole::cores(chip, &placement));
    findings.push(whole::neurons(chip, demand));
    findings.push(whole::synapses(chip, &placement));
    let findings: Vec<Finding> = findings.into_iter().flatten().collect();
    let limits = ["chip.", "core.", "layer.", "array."];
    let unknown = chip.unknown().filter(|f| limits.iter().any(|l| f.starts_with(l))).collect();
    Verdict { fits: findings.is_empty(), findings, placement, cores: chip.chip.cores, pruned, unknown }
}

impl Verdict {
    /// The first thing to change, with how much else there is.
    pub fn first(&self) -> Option<String> {
        let first = self.findings.first()?;
        Some(match self.findings.len() {
            1 => first.message.clone(),
            n => format!("{} (and {} more: see `synfit inspect --chip`)", first.message, n - 1),
        })
    }
}

/// The finding about the worst of `needs` (layer, need) above `have`; `message(layer, need, have)`.
fn worst<'a>(
    rule: &'static str,
    have: Option<u64>,
    needs: impl Iterator<Item = (&'a str, u64)>,
    message: impl Fn(&str, u64, u64) -> String,
) -> Option<Finding> {
    let have = have?;
    let over: Vec<(&str, u64)> = needs.filter(|(_, need)| *need > have).collect();
    // the first of the largest
    let (layer, need) = over.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a })?;
    Some(Finding {
        rule,
        layer: Some(layer.to_string()),
        layers: over.len(),
        need,
        have,
        message: format!("{}{}", message(layer, need, have), others(over.len())),
    })
}

fn others(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        2 => "; so for 1 other layer".into(),
        n => format!("; so for {} other layers", n - 1),
    }
}
