//! Rules about the whole chip, and about what the placement found.

use super::{Finding, others, worst};
use crate::chip::place::Placement;
use crate::chip::{Chip, Demand, Layout};
use crate::network::Op;

fn whole(rule: &'static str, need: u64, have: Option<u64>, message: impl Fn(u64, u64) -> String) -> Option<Finding> {
    let have = have.filter(|have| need > *have)?;
    Some(Finding { rule, layer: None, layers: 0, need, have, message: message(need, have) })
}

pub fn inputs(chip: &Chip, demand: &Demand<'_>) -> Option<Finding> {
    whole("inputs", demand.network.input_shape().len() as u64, chip.chip.inputs, |need, have| {
        format!("the network has {need} inputs, {} has {have} input channels; reduce the input's size", chip.name)
    })
}

pub fn outputs(chip: &Chip, demand: &Demand<'_>) -> Option<Finding> {
    whole("outputs", demand.shape(demand.network.output).len() as u64, chip.chip.outputs, |need, have| {
        format!("the network has {need} outputs, {} has {have}; give the network fewer", chip.name)
    })
}

/// Max pooling needs the winner of a window.
pub fn max_pool(chip: &Chip, demand: &Demand<'_>) -> Option<Finding> {
    if chip.chip.max_pool != Some(false) {
        return None;
    }
    let pools = demand.network.nodes.iter().filter(|n| matches!(n.op, Op::MaxPool { .. }));
    let names: Vec<&str> = pools.map(|n| n.name.as_str()).collect();
    let first = names.first()?;
    Some(Finding {
        rule: "max pooling",
        layer: Some((*first).to_string()),
        layers: names.len(),
        need: 1,
        have: 0,
        message: format!(
            "{first}: {} has no max pooling; train the network with average pooling{}",
            chip.name,
            others(names.len())
        ),
    })
}

/// Layers of which not even a part fits a core.
pub fn unplaced(chip: &Chip, placement: &Placement) -> Option<Finding> {
    let first = placement.unplaced.first()?;
    let advice = match (chip.chip.layout, chip.layer.split) {
        (Layout::Layers, false) => "; a layer cannot be cut there: give it fewer channels or a smaller input",
        (Layout::Layers, true) => "; give the layers before it fewer channels",
        (Layout::Neurons, _) => "; use smaller kernels or fewer channels before it",
        (Layout::Arrays, _) => "; use larger arrays, or prune its inputs",
    };
    Some(Finding {
        rule: "core",
        layer: Some(first.layer.clone()),
        layers: placement.unplaced.len(),
        need: 1,
        have: 0,
        message: format!(
            "{}: no core of {} holds it ({}){advice}{}",
            first.layer,
            chip.name,
            first.why,
            others(placement.unplaced.len())
        ),
    })
}

/// Cores that one neuron's spikes reach.
pub fn destinations(chip: &Chip, placement: &Placement) -> Option<Finding> {
    let needs = placement.layers.iter().map(|l| (l.layer.as_str(), l.reaches));
    worst("destinations", chip.core.destinations, needs, |layer, need, have| {
        format!(
            "{layer}: a spike of it has to reach {need} cores, {} sends it to {have}; make the layers after it small enough \
             for fewer cores",
            chip.name
        )
    })
}

pub fn cores(chip: &Chip, placement: &Placement) -> Option<Finding> {
    let largest = placement.layers.iter().reduce(|a, b| if b.cores > a.cores { b } else { a });
    let advice = match (chip.chip.layout, largest) {
        (Layout::Layers, Some(l)) if l.cores == 1 => format!("use at most {} layers", chip.chip.cores.unwrap_or(0)),
        (_, Some(l)) => format!("{} takes most, {}: make it smaller", l.layer, l.cores),
        (_, None) => String::new(),
    };
    whole("cores", placement.cores, chip.chip.cores, |need, have| {
        format!("the network takes {need} cores, {} has {have}; {advice}", chip.name)
    })
}

/// Neurons and readout units.
pub fn neurons(chip: &Chip, demand: &Demand<'_>) -> Option<Finding> {
    let largest = demand.layers.iter().reduce(|a, b| if b.units() > a.units() { b } else { a });
    let of = largest.map_or_else(String::new, |l| format!("; {} has most, {}", l.name, l.units()));
    whole("neurons", demand.layers.iter().map(|l| l.units()).sum(), chip.chip.neurons, |need, have| {
        format!("the network has {need} neurons with its outputs, {} has {have}{of}", chip.name)
    })
}

pub fn synapses(chip: &Chip, placement: &Placement) -> Option<Finding> {
    let largest = placement.layers.iter().reduce(|a, b| if b.synapses > a.synapses { b } else { a });
    let of = largest.map_or_else(String::new, |l| format!("; {} has most, {}", l.layer, l.synapses));
    whole("synapses", placement.layers.iter().map(|l| l.synapses).sum(), chip.chip.synapses, |need, have| {
        format!("the network has {need} synapses, {} has {have}{of}", chip.name)
    })
}
