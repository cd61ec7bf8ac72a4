//! Rules about single neurons: no placement can mend them.

use super::{Finding, worst};
use crate::chip::{Chip, Demand, LayerNeed};

fn fan_ins<'a>(demand: &'a Demand<'_>) -> impl Iterator<Item = (&'a str, u64)> {
    demand.layers.iter().map(|l| (l.name.as_str(), l.reads()))
}

/// Presynaptic neurons of one neuron, where they cannot be pruned.
pub fn fan_in(chip: &Chip, demand: &Demand<'_>) -> Option<Finding> {
    worst("fan-in", chip.core.fan_in, fan_ins(demand), |layer, need, have| {
        format!(
            "{layer}: its neurons have {need} inputs, {} allows {have}; use smaller kernels or fewer channels before it",
            chip.name
        )
    })
}

/// A neuron's inputs are axons of its core.
pub fn axons(chip: &Chip, demand: &Demand<'_>) -> Option<Finding> {
    if chip.chip.layout != crate::chip::Layout::Neurons {
        return None;
    }
    worst("axons", chip.core.axons_in, fan_ins(demand), |layer, need, have| {
        format!(
            "{layer}: its neurons have {need} inputs, a core of {} has {have} input axons; use smaller kernels or fewer \
             channels before it",
            chip.name
        )
    })
}

/// Synapses of one presynaptic neuron.
pub fn fan_out(chip: &Chip, demand: &Demand<'_>) -> Option<Finding> {
    chip.core.fan_out?;
    let fan_out = demand.fan_out();
    let needs = demand.layers.iter().map(|l| (l.name.as_str(), fan_out[l.node]));
    worst("fan-out", chip.core.fan_out, needs, |layer, need, have| {
        format!(
            "{layer}: each of its neurons has {need} synapses in the layers after it, {} allows {have}; make those layers \
             smaller",
            chip.name
        )
    })
}

/// What a conversion makes of layers with more inputs a neuron than the chip allows.
pub fn pruned(chip: &Chip, demand: &Demand<'_>) -> Vec<String> {
    let line = |l: &LayerNeed| {
        let most = chip.most_inputs(l.reads())?;
        let same = if most.together { ", the same for all neurons of a position" } else { "" };
        Some(format!("{}: {} of the {} inputs of a neuron stay{same}", l.name, most.inputs, l.fan_in))
    };
    demand.layers.iter().filter_map(line).collect()
}
