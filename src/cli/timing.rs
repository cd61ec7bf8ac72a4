//! How long a job's network runs: steps, settling windows, latency.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::job::{JobArgs, given, unknown, word};
use crate::chip::Chip;
use crate::convert::{Settle, settling_levels};
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
