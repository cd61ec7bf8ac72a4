//! TrueNorth's neuron, deterministic modes: leak, two thresholds, reset modes. Source: Cassidy et al. 2013 ("Cognitive
//! computing building block", the neuron's equations; widths from memory, see configs/chips/truenorth.toml) and RANC.
//!
//! ```text
//! v <- v + sum of weights; v <- v + leak, which follows the sign of v in `reversal`
//! v >= threshold: a spike, and reset
//! v < -floor: v <- -floor (saturating) or the reset's mirror image
//! ```
//!
//! leak = bias, reset by subtraction and a floor at the potential's end are the integrate-and-fire neuron of conversions.

use super::Exact;

/// 20 bits with the sign.
const TOP: i64 = (1 << 19) - 1;

/// What a spike does to the potential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// v <- R.
    Value(i32),
    /// v <- v - threshold.
    Linear,
    /// v stays.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrueNorth {
    /// -255..=255, added each step.
    pub leak: i32,
    /// The leak has the sign of the potential: away from 0, or towards it where it is negative.
    pub reversal: bool,
    /// 0..2^18.
    pub threshold: i32,
    /// The negative threshold is -floor.
    pub floor: i32,
    pub mode: Mode,
    /// Below the negative threshold v stays there; else it resets: to -R, or by floor.
    pub saturates: bool,
    /// Where a neuron starts.
    pub initial: i32,
}

impl Exact for TrueNorth {
    type State = i32;

    fn start(&self) -> i32 {
        self.initial
    }

    fn step(&self, state: &mut i32, drive: i32) -> u32 {
        let clipped = |v: i64| v.clamp(-TOP - 1, TOP);
        let v = clipped(i64::from(*state) + i64::from(drive));
        let sign = if self.reversal { v.signum() } else { 1 };
        let v = clipped(v + sign * i64::from(self.leak));
        let (threshold, floor) = (i64::from(self.threshold), i64::from(self.floor));
        let (after, spikes) = if v >= threshold {
            let after = match self.mode {
                Mode::Value(r) => i64::from(r),
                Mode::Linear => v - threshold,
                Mode::None => v,
            };
            (after, 1)
        } else if v < -floor {
            let after = match (self.saturates, self.mode) {
                (true, _) => -floor,
                (false, Mode::Value(r)) => -i64::from(r),
                (false, Mode::Linear) => v + floor,
                (false, Mode::None) => v,
            };
            (after, 0)
        } else {
            (v, 0)
        };
        *state = clipped(after) as i32;
        spikes
    }
}
