//! How long a job's network runs: steps, settling windows, latency.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::job::{JobArgs, given, unknown, word};
use crate::chip::Chip;
use crate::convert::{Settle, is_coarse, settling_levels, with_remainders};
use crate::error::{Error, Result};
use crate::network::Network;
use crate::spiking::{STEPS, Schedule};

/// A number, or what the tool finds to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Choice<T> {
    Number(T),
    Auto(Auto),
}

/// Time steps: a number, or as few as the wanted agreement takes.
pub type Steps = Choice<u32>;

/// Neurons of a rectified unit.
pub type PerUnit = Choice<usize>;

/// The word for it in a job file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    Auto,
}

impl<T: FromStr> FromStr for Choice<T> {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Choice::Auto(Auto::Auto)),
            number => number.parse().map(Choice::Number).map_err(|_| "is neither a number nor auto".to_string()),
        }
    }
}

/// Spikes of a remainder layer for one of its layer's where the job leaves it open: below and from so many steps on, where
/// rounding is what is left of the error and a remainder can say more.
const REMAINDER: (u32, u32) = (3, 6);
const FINE: u32 = 32;

/// When a job's layers run.
pub struct Timing {
    pub steps: u32,
    pub schedule: Schedule,
    pub settle: Settle,
}

impl JobArgs {
    /// Of a resolved job with a number of steps.
    ///
    /// # Errors
    /// Input: a value that a key does not know, or keys that contradict each other.
    pub fn timing(&self, network: &Network, chip: &Chip) -> Result<Timing> {
        let neuron = &chip.neuron;
        let Steps::Number(steps) = *given("steps", &self.steps)? else {
            return Err(Error::input("steps", "a number is needed here, not auto"));
        };
        check_steps(steps)?;
        let schedule = word("schedule", given("schedule", &self.schedule)?, "streaming, layered")?;
        let plain = !neuron.is_leaky() && neuron.refractory == 0;
        let text = given("settle", &self.settle)?;
        let each = if text == "auto" { None } else { Some(settle(text, schedule, chip)?) };
        let levels = settling_levels(network).into_iter().max().unwrap_or(0);
        let Some(latency) = self.latency else {
            let usual = schedule == Schedule::Streaming && plain && chip.settles();
            let usual = if usual { Settle::Shared } else { Settle::Repeated(vec![0]) };
            return Ok(Timing { steps, schedule, settle: each.map_or(usual, Settle::Repeated) });
        };
        let wrong = |why: String| Err(Error::input("latency", why));
        let (t, waits) = (u64::from(steps), u64::from(levels));
        if schedule == Schedule::Layered {
            return match t * (1 + waits) {
                least if least > latency => wrong(format!("{latency} is less than the {least} steps of layered")),
                _ => Ok(Timing { steps, schedule, settle: Settle::Repeated(vec![0]) }),
            };
        }
        if latency < t {
            return wrong(format!("{latency} is less than the {steps} steps of a train"));
        }
        match each {
            Some(each) => {
                let result = t + each.iter().cycle().zip(0..waits).map(|(&each, _)| u64::from(each)).sum::<u64>();
                if result > latency {
                    return wrong(format!(
                        "{latency} contradicts settle = {text}: the result comes after {result} steps"
                    ));
                }
                Ok(Timing { steps, schedule, settle: Settle::Repeated(each) })
            }
            None => {
                let waits = if plain && chip.settles() { latency - t } else { 0 };
                Ok(Timing { steps, schedule, settle: Settle::Within(waits) })
            }
        }
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

    /// The agreement that as few steps as possible are to reach; none for a number of steps.
    ///
    /// # Errors
    /// Input: one of the two without the other, no fraction, or what has no agreement.
    pub fn wanted_agreement(&self, decides: bool) -> Result<Option<f64>> {
        let wrong = |why: &str| Err(Error::input("agreement", why));
        match (given("steps", &self.steps)?, self.agreement) {
            (Steps::Number(_), None) => Ok(None),
            (Steps::Number(_), Some(_)) => wrong("goes with --steps auto, not with a number of steps"),
            (Steps::Auto(_), None) => wrong("is needed by --steps auto: the fraction of decisions that must agree"),
            (Steps::Auto(_), Some(a)) if !(a > 0.0 && a <= 1.0) => {
                wrong(&format!("{a} is not a fraction above 0 and up to 1; 95 % is 0.95"))
            }
            (Steps::Auto(_), Some(_)) if !decides => wrong("nothing is decided here: give a number of steps"),
            (Steps::Auto(_), Some(_)) if self.latency.is_some() => {
                wrong("is sought over the number of steps; --latency needs a number of them")
            }
            (Steps::Auto(_), Some(agreement)) => Ok(Some(agreement)),
        }
    }

    /// The job with `steps` in place of auto.
    pub fn with_steps(&self, steps: u32) -> JobArgs {
        JobArgs { steps: Some(Steps::Number(steps)), agreement: None, ..self.clone() }
    }
}

/// # Errors
/// Input: no number of steps that a simulation takes.
pub fn check_steps(steps: u32) -> Result<()> {
    if STEPS.contains(&steps) {
        return Ok(());
    }
    Err(Error::input("steps", format!("{steps} is outside {STEPS:?}")))
}

/// Steps that layers wait before they may fire: a number, or several to repeat.
fn settle(text: &str, schedule: Schedule, chip: &Chip) -> Result<Vec<u32>> {
    let plain = !chip.neuron.is_leaky() && chip.neuron.refractory == 0;
    let wrong = |why: String| Err(Error::input("settle", why));
    let each: Vec<u32> = text
        .split(',')
        .map(|steps| steps.trim().parse())
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| unknown("settle", text, "auto, a number of steps, or several with commas"))?;
    let most = each.iter().copied().max().unwrap_or(0);
    if most > 0 && schedule == Schedule::Layered {
        return wrong("in the layered schedule every layer waits for all its input already".to_string());
    }
    if most > 0 && chip.dynamics.settle == Some(false) {
        return wrong(format!("the neurons of {} cannot wait before they fire", chip.name));
    }
    if most > 0 && !plain {
        return wrong("is for neurons that neither leak nor rest after a spike".to_string());
    }
    if most >= *STEPS.end() {
        return wrong(format!("{most} is outside 0..{}", STEPS.end()));
    }
    Ok(each)
}
