//! Whether a network of the sizes that are asked for, or that were chosen, fits its chip.

use std::borrow::Cow;

use super::prune::{shrunk_to, smallest};
use super::{LayerRecord, Options, neurons_per_unit};
use crate::chip::place::{Placement, place};
use crate::chip::rules::verdict;
use crate::chip::{Demand, Most, fit_rules};
use crate::error::{Error, Result};
use crate::network::{Network, Op};

/// What a network asks of the chip, with the inputs of neurons that are certain to go taken off.
pub(super) fn demand<'a>(network: &'a Network, options: &Options) -> Demand<'a> {
    let mut demand = Demand::of(network, |a| neurons_per_unit(a, options.population));
    for layer in &mut demand.layers {
        let inputs = options.sparse.most_inputs(layer.fan_in);
        layer.most = (inputs < layer.fan_in).then_some(Most { inputs, together: false });
    }
    demand
}

/// Before any work: the chip's constraints must be ones that a conversion keeps, and the network must fit it at the sizes
/// that are asked for. Layers that a total leaves open are taken at one node each: what is left of them is looked at when
/// their sizes are known.
///
/// # Errors
/// Input: says what does not fit, or which size makes no sense.
pub fn check(network: &Network, options: &Options) -> Result<()> {
    fit_rules(&options.chip)?;
    if !network.nodes.iter().any(|node| matches!(node.op, Op::Neurons { .. })) {
        let why = "has no layer of neurons: its output is its input, at most rearranged or pooled";
        return Err(Error::input(&network.name, why));
    }
    let smallest = smallest(network, &options.keep)?;
    fitting(&smallest, options)
}

/// # Errors
/// Input: says what of `network` does not fit the chip.
pub(super) fn fitting(network: &Network, options: &Options) -> Result<()> {
    match verdict(&options.chip, &demand(network, options)).first() {
        Some(first) => Err(Error::input(format!("{} does not fit {}", network.name, options.chip.name), first)),
        None => Ok(()),
    }
}

/// Where the layers of a finished conversion lie, with the nodes and synapses that are left. Its `layers` are those of the
/// report.
pub fn placement(network: &Network, options: &Options, layers: &[LayerRecord]) -> Placement {
    let smaller: Cow<Network> = shrunk_to(network, layers);
    let mut demand = demand(&smaller, options).within(&options.chip);
    for layer in &mut demand.layers {
        let Some(left) = layers.iter().find(|l| l.name == layer.name).and_then(|l| l.sparse) else { continue };
        let together = layer.most.is_some_and(|most| most.together);
        layer.most = Some(Most { inputs: left.fan_in as u64, together });
        // of what that many inputs a neuron would be
        let most = left.of as f64 * left.fan_in as f64 / layer.fan_in.max(1) as f64;
        layer.density = (left.kept as f64 / most.max(1.0)).min(1.0);
    }
    place(&options.chip, &demand)
}
