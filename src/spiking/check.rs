//! Whether a spiking network that was read from a file is one: every part fits the others, so that its simulation can
//! rely on it.

use std::ops::RangeInclusive;

use crate::compute::check_window;
use crate::error::{Error, Result};
use crate::network::{Shape, Window};
use crate::neuron::Reset;

use super::network::{Decode, Layer, Schedule, SpikingNetwork, SpikingNode, SpikingOp, State, Synapses, Weights};

/// Time steps that a simulation may take.
pub const STEPS: RangeInclusive<u32> = 1..=4096;

impl SpikingNetwork {
    /// # Errors
    /// Input: names the node or field that does not fit, and why.
    pub fn check(&self) -> Result<()> {
        let model = &self.model;
        model.validate()?;
        if !STEPS.contains(&self.steps) {
            return wrong("steps", format!("{} is outside {STEPS:?}", self.steps));
        }
        let plain = model.reset == Reset::Subtract && !model.is_leaky() && model.dash == 0 && model.refractory == 0;
        if self.schedule == Schedule::Layered && !plain {
            return wrong("schedule", "layered needs the integrate-and-fire neuron with soft reset");
        }
        if self.potential.0 > self.potential.1 {
            return wrong("potential", format!("{} is above {}", self.potential.0, self.potential.1));
        }
        if self.output >= self.nodes.len() {
            return wrong("output", "is not one of the nodes");
        }
        self.check_input()?;
        for (i, node) in self.nodes.iter().enumerate() {
            self.check_node(i, node).or_else(|why| wrong(&node.name, why))?;
        }
        Ok(())
    }

    /// Checks the last node alone: the ones before it are known to be good.
    ///
    /// # Errors
    /// As `check`.
    pub(crate) fn check_last(&self) -> Result<()> {
        match self.nodes.last() {
            Some(node) => self.check_node(self.nodes.len() - 1, node).or_else(|why| wrong(&node.name, why)),
            None => wrong("nodes", "there is none"),
        }
    }

    fn check_input(&self) -> Result<()> {
        let (input, channels) = (&self.input, self.nodes[0].shape.c);
        if input.scale.len() != channels || input.shift.len() != channels || input.lo > input.hi {
            return wrong("input", format!("its code does not fit {channels} channels"));
        }
        if input.scale.iter().chain(&input.shift).any(|v| !v.is_finite()) {
            return wrong("input", "NaN or infinity");
        }
        Ok(())
    }

    fn check_node(&self, index: usize, node: &SpikingNode) -> Checked {
        let sources = node.sources();
        ensure(sources.iter().all(|&s| s < index), "reads a node that does not come before it")?;
        let input = node.op == SpikingOp::Input;
        ensure((index == 0) == input && input == sources.is_empty(), "the first node and no other is the input")?;
        let area = node.shape.h.checked_mul(node.shape.w);
        let len = area.and_then(|a| a.checked_mul(node.shape.c));
        ensure(len.is_some_and(|n| (1..1 << 30).contains(&n)), "its shape is empty or too large")?;
        ensure(node.peak <= i32::MAX as u64, "its counts do not fit 32-bit integers")?;
        check_decode(node.shape, &node.decode)?;
        let constant = match node.op {
            SpikingOp::Input => true,
            SpikingOp::Neurons(_) => false,
            _ => sources.iter().all(|&s| self.nodes[s].constant),
        };
        ensure(node.constant == constant, "is marked as constant and is not, or the other way round")?;
        let from = |source: usize| self.nodes[source].shape;
        match &node.op {
            SpikingOp::Input => Ok(()),
            SpikingOp::Neurons(layer) => {
                ensure(layer.fires || index == self.output, "does not fire, and is not the output")?;
                layer.synapses.iter().try_for_each(|s| check_synapses(s, from(s.source), node.shape))?;
                check_state(layer, node.shape.c)
            }
            SpikingOp::SumPool { source, window, weight } => {
                ensure(weight.len() == node.shape.area(), "has not one weight a position")?;
                check_pool(window, from(*source), node.shape)
            }
            SpikingOp::MaxPool { source, window } => check_pool(window, from(*source), node.shape),
            SpikingOp::Concat { sources } => {
                let alike = sources.iter().all(|&s| (from(s).h, from(s).w) == (node.shape.h, node.shape.w));
                let channels: usize = sources.iter().map(|&s| from(s).c).sum();
                ensure(alike && channels == node.shape.c, "does not fit its sources")
            }
            SpikingOp::Gather { source, index } => {
                let inside = |&i: &u32| i == u32::MAX || (i as usize) < from(*source).len();
                ensure(index.len() == node.shape.len() && index.iter().all(inside), "does not fit its source")
            }
        }
    }
}

/// What is wrong, if anything is.
type Checked = std::result::Result<(), String>;

fn ensure(holds: bool, otherwise: &str) -> Checked {
    if holds { Ok(()) } else { Err(otherwise.to_string()) }
}

fn wrong(subject: &str, why: impl Into<String>) -> Result<()> {
    Err(Error::input(subject, why))
}

fn check_decode(shape: Shape, decode: &Decode) -> Checked {
    let known = |&o: &u32| o == Decode::ALL || (o as usize) < decode.channels;
    let lengths =
        decode.origin.len() == shape.c && decode.gain.len() == shape.c && decode.base.len() == decode.channels;
    ensure(lengths && decode.origin.iter().all(known), "its decoding does not fit its channels")?;
    ensure(decode.gain.iter().chain(&decode.base).all(|v| v.is_finite()), "NaN or infinity in its decoding")
}

fn check_pool(window: &Window, from: Shape, to: Shape) -> Checked {
    ensure(from.c == to.c, "has other channels than its source")?;
    check_window("", from, to, window).map_err(|e| e.message)
}

fn check_synapses(s: &Synapses, from: Shape, to: Shape) -> Checked {
    check_window("", from, to, &s.window).map_err(|e| e.message)?;
    let divides = |c: usize| s.groups > 0 && c.is_multiple_of(s.groups);
    ensure(divides(from.c) && divides(to.c), "its groups do not divide its channels")?;
    let len = (from.c / s.groups).checked_mul(s.window.taps()).and_then(|n| n.checked_mul(to.c));
    ensure(len == Some(s.weight.len()), "has not as many synapses as its window and channels say")?;
    match &s.weight {
        Weights::Real(w) => ensure(w.iter().all(|v| v.is_finite()), "NaN or infinity in its synapses"),
        Weights::Codes { codes, shift } => {
            let most = i64::from(i32::MAX) >> shift.min(&63);
            ensure(codes.iter().all(|&c| i64::from(c).abs() <= most), "its shifted synapses do not fit 32-bit integers")
        }
    }
}

fn check_state(layer: &Layer, channels: usize) -> Checked {
    let (integer, lengths) = match &layer.state {
        State::Integer { bias, threshold, initial } => (true, vec![bias.len(), threshold.len(), initial.len()]),
        State::Real { bias, initial } => (false, vec![bias.len(), initial.len()]),
    };
    let fits = layer.unit.len() == channels && lengths.iter().all(|&n| n == channels);
    ensure(fits, "its biases, thresholds or units do not fit its channels")?;
    let columns: usize = layer.synapses.iter().map(|s| s.weight.len() / channels.max(1) * s.groups).sum();
    ensure(layer.types.is_empty() || layer.types.len() == columns, "has not as many axon types as columns")?;
    let alike = layer.synapses.iter().all(|s| matches!(s.weight, Weights::Codes { .. }) == integer);
    ensure(alike, "has integer synapses with a real state, or the other way round")
}
