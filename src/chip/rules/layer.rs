//! Rules about the layers of a chip whose cores hold one each (Speck): kernels, strides, sizes, and who feeds whom. Their
//! memories are the placement's.

use super::{Finding, others, worst};
use crate::chip::{Demand, LayerLimits, LayerNeed};
use crate::network::{Op, Window};

pub fn all(limits: &LayerLimits, demand: &Demand<'_>) -> Vec<Option<Finding>> {
    vec![
        kernels(limits, demand),
        kernel(limits, demand),
        square_kernel(limits, demand),
        stride(limits, demand),
        padding(limits, demand),
        pool(limits, demand),
        channels(limits, demand),
        groups(limits, demand),
        dilation(limits, demand),
        input(limits, demand),
        output(limits, demand),
        destinations(limits, demand),
    ]
}

/// What a layer has most of among its blocks, by layer.
fn each<'a>(
    demand: &'a Demand<'_>,
    what: impl Fn(&Window, &LayerNeed) -> u64 + 'a,
) -> impl Iterator<Item = (&'a str, u64)> {
    demand.layers.iter().map(move |l| (l.name.as_str(), l.blocks.iter().map(|b| what(&b.window, l)).max().unwrap_or(0)))
}

/// Branches that are added up have kernels of their own.
pub fn kernels(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    let needs = demand.layers.iter().map(|l| (l.name.as_str(), l.blocks.len() as u64));
    worst("kernels", limits.kernels, needs, |layer, need, have| {
        format!(
            "{layer}: it adds up {need} branches with kernels of their own, a core holds {have}; a network without such \
             branches fits"
        )
    })
}

pub fn kernel(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    let needs = each(demand, |w, _| w.kernel[0].max(w.kernel[1]) as u64);
    worst("kernel", limits.kernel, needs, |layer, need, have| {
        format!("{layer}: its kernel is {need} wide, a core allows {have}; pool before it, or use a smaller kernel")
    })
}

pub fn square_kernel(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    let needs = each(demand, |w, _| u64::from(w.kernel[0] != w.kernel[1]));
    worst("square kernel", limits.square_kernel.then_some(0), needs, |layer, _, _| {
        format!("{layer}: its kernel is not as high as it is wide, and a core's must be; use a square one")
    })
}

/// The first layer whose value is none of a list.
fn none_of<'a>(
    rule: &'static str,
    allowed: &[u64],
    values: impl Iterator<Item = (&'a str, u64)>,
    what: &str,
) -> Option<Finding> {
    if allowed.is_empty() {
        return None;
    }
    let wrong: Vec<(&str, u64)> = values.filter(|(_, v)| !allowed.contains(v)).collect();
    let (layer, need) = *wrong.first()?;
    let list: Vec<String> = allowed.iter().map(u64::to_string).collect();
    Some(Finding {
        rule,
        layer: Some(layer.to_string()),
        layers: wrong.len(),
        need,
        have: allowed.iter().copied().max().unwrap_or(0),
        message: format!(
            "{layer}: its {what} is {need}, a core allows {}; change it{}",
            list.join(", "),
            others(wrong.len())
        ),
    })
}

pub fn stride(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    // a kernel that is applied once has no stride
    let strides = each(demand, |w, l| if l.shape.area() > 1 { w.stride[0].max(w.stride[1]) as u64 } else { 1 });
    none_of("stride", &limits.strides, strides, "stride")
}

pub fn padding(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    let needs = each(demand, |w, _| w.pad[0].max(w.pad[1]).max(0) as u64);
    worst("padding", limits.padding, needs, |layer, need, have| {
        format!("{layer}: it is padded by {need}, a core allows {have}; use less padding")
    })
}

/// Sum pooling: windows side by side.
pub fn pool(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    let sides = demand.network.nodes.iter().filter_map(|n| match &n.op {
        Op::AveragePool { window, .. } | Op::MaxPool { window, .. } => {
            let side = window.kernel[0].max(window.kernel[1]) as u64;
            Some((n.name.as_str(), side))
        }
        _ => None,
    });
    none_of("pooling", &limits.pools, sides, "pooling window")
}

pub fn channels(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    let needs = demand.layers.iter().map(|l| {
        let inputs = l.blocks.iter().map(|b| b.from.c).max().unwrap_or(0);
        (l.name.as_str(), inputs.max(l.shape.c) as u64)
    });
    worst("channels", limits.channels, needs, |layer, need, have| {
        format!("{layer}: it has {need} channels, a core allows {have}; use fewer")
    })
}

pub fn groups(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    let needs = demand.layers.iter().map(|l| (l.name.as_str(), l.groups as u64));
    worst("groups", limits.groups, needs, |layer, need, have| {
        format!("{layer}: its convolution has {need} groups, a core allows {have}; use a full convolution")
    })
}

pub fn dilation(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    let needs = each(demand, |w, _| w.dilation[0].max(w.dilation[1]) as u64);
    worst("dilation", limits.dilation, needs, |layer, need, have| {
        format!("{layer}: the taps of its kernel are {need} apart, a core allows {have}; use a dense kernel")
    })
}

pub fn input(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    let side = |l: &LayerNeed| l.blocks.iter().map(|b| b.from.h.max(b.from.w)).max().unwrap_or(0) as u64;
    let needs = demand.layers.iter().map(|l| (l.name.as_str(), side(l)));
    worst("input size", limits.input, needs, |layer, need, have| {
        format!("{layer}: its input is {need} wide, a core allows {have}; use a smaller input")
    })
}

pub fn output(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    let needs = demand.layers.iter().map(|l| (l.name.as_str(), l.shape.h.max(l.shape.w) as u64));
    worst("output size", limits.output, needs, |layer, need, have| {
        format!("{layer}: its output is {need} wide, a core allows {have}; use a larger stride or a smaller input")
    })
}

/// Layers that a layer feeds.
pub fn destinations(limits: &LayerLimits, demand: &Demand<'_>) -> Option<Finding> {
    limits.destinations?;
    let readers = demand.readers();
    let needs = demand.layers.iter().map(|l| (l.name.as_str(), readers[l.node]));
    worst("destinations", limits.destinations, needs, |layer, need, have| {
        format!("{layer}: it feeds {need} layers, a core allows {have}; let it feed fewer")
    })
}
