//! Neuron models: response (closed form), inverse, and step. METHOD section 3.
//!
//! Units: a rate is in spikes per time step, a current in thresholds per time step unless a docstring says otherwise.

pub mod chips;
pub mod continuous;
mod response;
pub mod step;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Decay of the potential per step: v <- decay v + (1 - decay) J. 0 means no leak at all (integrate-and-fire:
    /// v <- v + J).
    #[serde(default)]
    pub decay: f32,
    pub reset: Reset,
    /// Steps after a spike in which the neuron ignores its input and keeps v.
    #[serde(default)]
    pub refractory: u32,
    /// Most spikes in one step (1 unless the reset is `Subtract`).
    #[serde(default = "one")]
    pub max_spikes: u32,
    /// Spike if v > theta instead of v >= theta.
    #[serde(default)]
    pub strict: bool,
    /// Integers only: each step v <- v - (v >> dash) first, and by 1 towards 0 where that would change nothing; 0: no such
    /// leak. From 15 on it is the least that there is.
    #[serde(default)]
    pub dash: u32,
}

fn one() -> u32 {
    1
}

impl Model {
    /// Integrate-and-fire with soft reset, one spike a step: the default of most converters.
    pub const IF: Model =
        Model { decay: 0.0, reset: Reset::Subtract, refractory: 0, max_spikes: 1, strict: false, dash: 0 };

    /// Leaky integrate-and-fire with reset to zero; time constant of 20 steps.
    pub const LIF: Model = Model { decay: 0.951_229_4, reset: Reset::Zero, strict: true, ..Model::IF };

    /// The models that `--neuron` knows by name.
    pub fn named(name: &str) -> Result<Model> {
        match name {
            "if" => Ok(Model::IF),
            "if-zero" => Ok(Model { reset: Reset::Zero, ..Model::IF }),
            "if-multi" => Ok(Model { max_spikes: 15, ..Model::IF }),
            "lif" => Ok(Model::LIF),
            _ => Err(Error::input(
                format!("neuron `{name}`"),
                "no such model; known: if (soft reset), if-zero (reset to zero), if-multi (up to 15 spikes a step), lif",
            )),
        }
    }

    /// Refuses what no formula here describes.
    ///
    /// # Errors
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &str, why: &str| Err(Error::input(format!("neuron: {field}"), why));
        if !(0.0..1.0).contains(&self.decay) {
            return wrong("decay", "must lie in [0, 1)");
        }
        if self.dash > 31 || (self.dash > 0 && self.decay > 0.0) {
            return wrong("dash", "must be at most 31, and there is no decay beside it");
        }
        if self.max_spikes == 0 {
            return wrong("max_spikes", "must be at least 1");
        }
        if self.max_spikes > 1 && self.reset == Reset::Zero {
            return wrong("max_spikes", "several spikes a step need reset = \"subtract\"");
        }
        if self.max_spikes > 1 && self.refractory > 0 {
            return wrong("refractory", "a refractory neuron fires once a step at most (max_spikes = 1)");
        }
        Ok(())
    }

    pub fn is_leaky(&self) -> bool {
        self.decay > 0.0
    }

    /// Highest rate that the neuron can sustain, in spikes per step.
    pub fn max_rate(&self) -> f64 {
        f64::from(self.max_spikes) / (1.0 + f64::from(self.refractory))
    }
}
