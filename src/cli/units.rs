//! What neurons a job's units get: on which chip, how many, with which remainders.

use super::job::{JobArgs, given, word};
use super::timing::{Choice, Steps};
use crate::chip::{Chip, Grid, ScaleOwner};
use crate::convert::{is_coarse, settling_levels, with_remainders};
use crate::error::{Error, Result};
use crate::network::Network;
use crate::neuron::Model;

/// Spikes of a remainder layer for one of its layer's where the job leaves it open: below and from so many steps on, where
/// rounding is what is left of the error and a remainder can say more.
const REMAINDER: (u32, u32) = (3, 6);
const FINE: u32 = 32;

impl JobArgs {
    /// The chip, with what the job says of it, of a resolved job.
    ///
    /// # Errors
    /// Input: no such chip, or a value that a key does not know.
    pub fn target(&self) -> Result<Chip> {
        let mut chip = Chip::load(given("chip", &self.chip)?)?;
        if let Some(neuron) = &self.neuron {
            chip.neuron = Model::named(neuron)?;
        }
        match self.bits.as_deref() {
            None => {}
            Some("none") => chip.replace_grid(None),
            Some(bits) => chip.replace_grid(Some(bits.parse::<Grid>()?)),
        }
        if let Some(owner) = &self.bits_scale {
            chip.weights.scale = word::<ScaleOwner>("bits-scale", owner, "layer, channel, neuron")?.into();
        }
        Ok(chip)
    }

    /// The trained network with the remainder layers that a resolved job asks for, the last layer's if there is time for it.
    ///
    /// # Errors
    /// As `remainder_spikes`.
    pub fn shaped(&self, network: Network) -> Result<Network> {
        if self.remainder_spikes()?.is_none() {
            return Ok(network);
        }
        let levels = settling_levels(&network).into_iter().max().unwrap_or(0);
        let last = match (self.latency, given("steps", &self.steps)?) {
            (Some(latency), Steps::Number(steps)) => latency >= u64::from(*steps) * (2 + u64::from(levels)),
            _ => true,
        };
        Ok(with_remainders(&network, last))
    }

    /// Neurons of a rectified unit, where only that is not resolved yet. Two take the place of remainders where weights are coarse
    /// and steps so many that little is left for a remainder to say, unless the chip bounds a neuron's inputs.
    ///
    /// # Errors
    /// Input: what the chip is.
    pub fn neurons_per_unit(&self) -> Result<usize> {
        let (steps, remainder) = (given("steps", &self.steps)?, given("remainder", &self.remainder)?);
        match (given("per-unit", &self.per_unit)?, steps) {
            (Choice::Number(neurons), _) => Ok(*neurons),
            (_, Steps::Number(FINE..)) if given("schedule", &self.schedule)? == "layered" && remainder == "auto" => {
                let chip = self.target()?;
                let grid = chip.weights.signed_grid();
                let coarse = grid.as_ref().is_some_and(is_coarse);
                Ok(if coarse && chip.neuron.rounds() && chip.core.fan_in.is_none() { 2 } else { 1 })
            }
            _ => Ok(1),
        }
    }

    /// Spikes of a remainder layer for one of its layer's, of a resolved job; none without such layers.
    ///
    /// # Errors
    /// Input: no number from 2 on, auto or off; a number where there can be none.
    pub fn remainder_spikes(&self) -> Result<Option<u32>> {
        let layered = given("schedule", &self.schedule)? == "layered";
        let single = matches!(given("per-unit", &self.per_unit)?, Choice::Number(1));
        let text = given("remainder", &self.remainder)?;
        let wrong = |why: String| Err(Error::input("remainder", why));
        match text.as_str() {
            "off" => Ok(None),
            "auto" => Ok((layered && single).then_some(match given("steps", &self.steps)? {
                Steps::Number(steps) if *steps >= FINE => REMAINDER.1,
                _ => REMAINDER.0,
            })),
            _ if !layered => {
                wrong(format!("{text} needs the layered schedule: elsewhere no layer waits for its spikes"))
            }
            _ if !single => wrong(format!("{text} and per-unit contradict each other: give one of the two")),
            _ => match text.parse() {
                Ok(spikes @ 2..=64) => Ok(Some(spikes)),
                _ => wrong(format!("`{text}` is none of auto, off, 2..64")),
            },
        }
    }
}
