//! Neuron models: response (closed form), inverse, and step. METHOD section 3.
//!
//! Units: a rate is in spikes per time step, a current in thresholds per time step unless a docstring says otherwise.

pub mod step;

use serde::{Deserialize, Serialize};

/// What happens to the membrane potential at a spike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// v <- v - theta per spike ("soft" reset).
    Subtract,
    /// v <- 0.
    Zero,
}

/// A spiking neuron, all that the simulation needs besides weights, threshold and initial potential.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Decay of the potential per step: v <- decay v + (1 - decay) J. 0 means no leak at all (integrate-and-fire:
    /// v <- v + J).
    pub decay: f32,
    pub reset: Reset,
    /// Steps after a spike in which the neuron ignores its input and keeps v.
    pub refractory: u32,
    /// Most spikes in one step (1 unless the reset is `Subtract`).
    pub max_spikes: u32,
    /// Spike if v > theta instead of v >= theta.
    pub strict: bool,
}
