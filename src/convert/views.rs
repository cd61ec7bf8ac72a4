//! Nodes without neurons of their own: pooling as spike sums or rate winners, concatenation, rearrangement.

use crate::chip::Grid;
use crate::error::{Error, Result};
use crate::network::{Activation, Node, Op, Shape};
use crate::spiking::{Decode, SpikingNetwork, SpikingNode, SpikingOp};

/// Neurons that stand for a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Populations {
    /// Of a rectified unit, which one neuron can follow: several count as finely together as one in as many times the steps. Of
    /// a leaky rectifier: for each of its two slopes.
    pub rectified: usize,
    /// Of a curved unit (sigmoid, tanh, ..), which straight pieces only come close to.
    pub curved: usize,
}

/// Most levels of coarse weights.
const COARSE: usize = 16;

/// Whether rounded weights rather than rounded rates are what is left of the error after tens of steps.
pub fn is_coarse(grid: &Grid) -> bool {
    grid.levels().len() <= COARSE
}

/// Neurons per unit for an activation: as many as `encode::code` gives it.
pub fn population(activation: Activation, of: Populations) -> u64 {
    match activation.simplest() {
        Activation::HardSigmoid { .. } | Activation::Remainder => 1,
        // a constant
        Activation::Clip { lo, hi } if lo >= hi => 1,
        Activation::Relu | Activation::Clip { .. } => of.rectified as u64,
        Activation::Linear => 2,
        Activation::LeakyRelu { .. } => 2 * of.rectified as u64,
        Activation::Sigmoid | Activation::Tanh | Activation::Softplus | Activation::Elu { .. } => {
            of.curved.max(2) as u64
        }
    }
}

/// The spiking twin of a node that is not a layer of neurons.
///
/// # Errors
/// Names the node: a maximum over neurons that fall when the value rises; a rearrangement of channels that have
/// populations of unlike size.
pub fn view(spiking: &SpikingNetwork, node: &Node) -> Result<SpikingNode> {
    let of = |source: usize| &spiking.nodes[source];
    let refuse = |why: &str| Err(Error::input(format!("layer {}", node.name), why));
    let grown = |decode: &Decode| Shape { c: decode.origin.len(), ..node.shape };
    let (op, decode, peak, constant) = match &node.op {
        Op::Input | Op::Neurons { .. } => return Err(Error::work(&node.name, "not a view")),
        Op::AveragePool { source, window, divisor } => {
            let from = of(*source);
            let common = divisor.iter().fold(1u64, |l, &d| lcm(l, u64::from(d)));
            if common > 1 << 16 {
                return refuse("its windows have too many different sizes for spike sums");
            }
            let weight: Vec<u32> = divisor.iter().map(|&d| (common / u64::from(d)) as u32).collect();
            let mut decode = from.decode.clone();
            decode.gain.iter_mut().for_each(|g| *g /= common as f64);
            let peak = from.peak * window.taps() as u64 * u64::from(weight.iter().copied().max().unwrap_or(1));
            (SpikingOp::SumPool { source: *source, window: *window, weight }, decode, peak, from.constant)
        }
        Op::MaxPool { source, window } => {
            let from = of(*source);
            if from.decode.gain.iter().any(|&g| g < 0.0) {
                return refuse("a maximum over on/off populations has no rate winner; pool before the activation");
            }
            (SpikingOp::MaxPool { source: *source, window: *window }, from.decode.clone(), from.peak, from.constant)
        }
        Op::Concat { sources } => {
            let mut decode = Decode { channels: 0, origin: vec![], gain: vec![], base: vec![] };
            for &s in sources {
                let from = &of(s).decode;
                decode.origin.extend(from.origin.iter().map(|o| o + decode.channels as u32));
                decode.gain.extend(&from.gain);
                decode.base.extend(&from.base);
                decode.channels += from.channels;
            }
            let peak = sources.iter().map(|&s| of(s).peak).max().unwrap_or(1);
            let constant = sources.iter().all(|&s| of(s).constant);
            (SpikingOp::Concat { sources: sources.clone() }, decode, peak, constant)
        }
        Op::Gather { source, index } => {
            let from = of(*source);
            let (index, decode) = match gather(from, index, node.shape) {
                Some(found) => found,
                None => return refuse("it mixes channels whose spikes have different units"),
            };
            (SpikingOp::Gather { source: *source, index }, decode, from.peak, from.constant)
        }
    };
    Ok(SpikingNode { name: node.name.clone(), shape: grown(&decode), op, decode, peak, constant })
}

/// An index over ANN elements made one over spiking elements. Within an output channel all elements must come from
/// channels of the same gain, or the channel has no decoding; None otherwise.
fn gather(from: &SpikingNode, index: &[u32], shape: Shape) -> Option<(Vec<u32>, Decode)> {
    let area = from.shape.area();
    // The first spiking channel of each trained one: the same number of them for all that are there.
    let mut first_of = vec![None; from.decode.channels];
    for (i, &o) in from.decode.origin.iter().enumerate() {
        first_of[o as usize].get_or_insert(i);
    }
    let there = first_of.iter().flatten().count().max(1);
    let population = from.decode.origin.len() / there;
    let even = |(o, first): (usize, &Option<usize>)| {
        first.is_none_or(|f| {
            from.decode.origin.get(f..f + population).is_some_and(|all| all.iter().all(|&p| p as usize == o))
        })
    };
    if !first_of.iter().enumerate().all(even) {
        return None;
    }
    let some = first_of.iter().position(Option::is_some)?;
    let mut out = Vec::with_capacity(shape.len() * population);
    let mut decode = Decode { channels: shape.c, origin: vec![], gain: vec![], base: vec![] };
    for channel in index.chunks(shape.area()) {
        let mut sources = channel.iter().filter(|&&i| i != u32::MAX).map(|&i| i as usize / area);
        let first = sources.next().unwrap_or(some);
        let Some(start) = first_of[first] else {
            // pruned: the channel goes if all that it shows is gone
            if sources.any(|c| first_of[c].is_some()) {
                return None;
            }
            decode.base.push(from.decode.base[first]);
            continue;
        };
        let gains = |start: usize| &from.decode.gain[start..start + population];
        let alike = |c: usize| {
            first_of[c].is_some_and(|s| gains(s) == gains(start)) && from.decode.base[c] == from.decode.base[first]
        };
        if !sources.all(alike) {
            return None;
        }
        for p in 0..population {
            decode.origin.push(decode.base.len() as u32);
            decode.gain.push(gains(start)[p]);
            out.extend(channel.iter().map(|&i| match i {
                u32::MAX => u32::MAX,
                i => {
                    let (c, at) = (i as usize / area, i as usize % area);
                    ((first_of[c].unwrap_or(start) + p) * area + at) as u32
                }
            }));
        }
        decode.base.push(from.decode.base[first]);
    }
    Some((out, decode))
}

fn lcm(a: u64, b: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b) * b
}
