//! How far a programmed conductance lies from the one that was asked for. Model and source: aihwkit, inference/noise
//! (reram.py, pcm.py): a device that is to have the conductance g gets max(0, g + sigma(g) n), n normal, once, when it is
//! programmed.

use serde::{Deserialize, Serialize};

use super::weights::{WeightRules, Wrong};

/// The standard deviation sigma(g) of a programmed conductance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Programming {
    /// c_0, c_1, ... in microsiemens: sigma is their sum c_i (g / g_max)^i on devices of the conductance `measured_to`.
    pub deviation: Vec<f64>,
    /// The g_max, in microsiemens, of the devices that `deviation` was measured on; sigma grows in proportion to a chip's own.
    pub measured_to: f64,
}

impl Programming {
    /// sigma at `g` of devices that reach up to `highest`, microsiemens.
    fn at(&self, g: f64, highest: f64) -> f64 {
        let polynomial = self.deviation.iter().rev().fold(0.0, |sum, c| sum * (g / highest) + c);
        polynomial * highest / self.measured_to
    }
}

/// The noise of a weight that is stored as the difference of two conductances, in codes: a code k > 0 is level k of the one
/// device and the lowest of the other, -k the other way round.
#[derive(Debug, Clone, PartialEq)]
pub struct PairNoise {
    /// Per level of a device, microsiemens: what is asked for, and sigma.
    levels: Vec<(f64, f64)>,
    /// Microsiemens from level to level.
    step: f64,
}

impl PairNoise {
    /// None where the chip's file says nothing of it.
    pub fn of(weights: &WeightRules) -> Option<Self> {
        let (pair, programming) = (weights.conductance?, weights.programming.as_ref()?);
        let step = (pair.highest - pair.lowest) / f64::from(pair.levels - 1);
        let level = |k: u32| {
            let g = pair.lowest + step * f64::from(k);
            (g, programming.at(g, pair.highest))
        };
        Some(Self { levels: (0..pair.levels).map(level).collect(), step })
    }

    fn pair(&self, code: i32) -> [(f64, f64); 2] {
        let at = (code.unsigned_abs() as usize).min(self.levels.len() - 1);
        [self.levels[at], self.levels[0]]
    }

    /// Variance of a code as it is programmed, in codes squared, as if conductances could be negative: what stops them at zero
    /// only takes from it.
    pub fn variance(&self, code: i32) -> f64 {
        self.pair(code).iter().map(|(_, sigma)| sigma * sigma).sum::<f64>() / (self.step * self.step)
    }

    /// `variance` of the codes 0, 1, ... up to the largest.
    pub fn variances(&self) -> Vec<f64> {
        (0..self.levels.len() as i32).map(|code| self.variance(code)).collect()
    }

    /// One programming of a code, in codes.
    ///
    /// ```
    /// use synfit::chip::{Chip, PairNoise};
    /// let noise = PairNoise::of(&Chip::load("rram")?.weights).unwrap();
    /// let mut rng = fastrand::Rng::with_seed(1);
    /// let mean = (0..10_000).map(|_| noise.draw(-9, &mut rng)).sum::<f64>() / 1e4;
    /// assert!((mean + 9.0).abs() < 0.1);
    /// # Ok::<(), synfit::Error>(())
    /// ```
    pub fn draw(&self, code: i32, rng: &mut fastrand::Rng) -> f64 {
        let [high, low] = self.pair(code).map(|(g, sigma)| (g + sigma * normal(rng)).max(0.0));
        f64::from(if code < 0 { -1 } else { 1 }) * (high - low) / self.step
    }
}

/// A normal number, by Box and Muller.
fn normal(rng: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

impl WeightRules {
    pub(super) fn check_programming(&self) -> Result<(), Wrong> {
        let Some(programming) = &self.programming else { return Ok(()) };
        let wrong = |why: &str| Err(("weights.programming", why.to_string()));
        let Some(pair) = self.conductance else {
            return wrong("is the noise of a pair of conductances (weights.conductance)");
        };
        if !pair.levels.is_power_of_two() {
            return wrong(
                "needs levels of weights.conductance that are a power of two: only those are stored as integers",
            );
        }
        if !(programming.measured_to > 0.0 && programming.measured_to.is_finite()) {
            return wrong("measured_to must be a conductance above 0, in microsiemens");
        }
        let noise = Self { conductance: Some(pair), programming: Some(programming.clone()), ..Self::default() };
        let levels = PairNoise::of(&noise).map_or_else(Vec::new, |n| n.levels);
        match levels.iter().find(|(_, sigma)| !(*sigma >= 0.0 && sigma.is_finite())) {
            Some((g, sigma)) => {
                Err(("weights.programming", format!("deviation is {sigma} at {g} microsiemens, not 0 or more")))
            }
            None => Ok(()),
        }
    }
}
