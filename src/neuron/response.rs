//! Closed forms for a constant current: the exact spike count of the discrete models after T steps, and the inverse
//! (the current for a wanted rate). METHOD section 3; the property test tests/neuron_closed_form.rs holds them to
//! the step-by-step simulation.

use super::{Model, Reset};

impl Model {
    /// Spikes in `steps` steps of constant current `current` (thresholds per step), from potential `v0` (thresholds,
    /// in [0, 1)). The threshold is 1.
    ///
    /// Exact, up to the rounding of the divisions, for every model but a leaky or refractory neuron with soft reset,
    /// which has no closed form and is stepped.
    pub fn count(&self, current: f64, v0: f64, steps: u32) -> u32 {
        match (self.reset, self.is_leaky(), self.refractory) {
            (Reset::Subtract, false, 0) => self.count_soft(current, v0, steps) as u32,
            (Reset::Subtract, ..) => self.count_stepped(current, v0, steps),
            (Reset::Zero, ..) => self.count_reset(current, v0, steps),
        }
    }

    /// Whether the count is that of a rounded straight line, `count_soft`.
    pub(crate) fn rounds(&self) -> bool {
        self.reset == Reset::Subtract && !self.is_leaky() && self.refractory == 0
    }

    /// N = clip(floor(J T + v0), 0, k T), or ceil(..) - 1 where the comparison is strict. For models that `rounds`.
    #[inline(always)]
    pub(crate) fn count_soft(&self, current: f64, v0: f64, steps: u32) -> f64 {
        let total = current * f64::from(steps) + v0;
        let n = if self.strict { total.ceil() - 1.0 } else { total.floor() };
        n.clamp(0.0, f64::from(self.max_spikes) * f64::from(steps))
    }

    /// N = 1 + floor((T - P0) / (P + r)), with P0 steps to the first spike and P from the reset to the next one.
    fn count_reset(&self, current: f64, v0: f64, steps: u32) -> u32 {
        let steps = f64::from(steps);
        let (Some(first), Some(period)) = (self.steps_to_spike(current, v0), self.steps_to_spike(current, 0.0)) else {
            return 0;
        };
        if first > steps {
            return 0;
        }
        1 + ((steps - first) / (period + f64::from(self.refractory))).floor() as u32
    }

    /// Steps of constant current from potential `v` to the next spike, at least 1; None if it never comes.
    fn steps_to_spike(&self, current: f64, v: f64) -> Option<f64> {
        if self.is_leaky() {
            // v_k = J + (v - J) alpha^k passes 1 when alpha^k < (J - 1) / (J - v).
            if current < 1.0 || (self.strict && current <= 1.0) {
                return None;
            }
            let ratio = (current - 1.0) / (current - v);
            if ratio <= 0.0 {
                return None; // J = 1 is reached in the limit only
            }
            let k = ratio.ln() / f64::from(self.decay).ln();
            Some(if self.strict { k.floor() + 1.0 } else { k.ceil() }.max(1.0))
        } else {
            if current <= 0.0 {
                return None;
            }
            let k = (1.0 - v) / current;
            Some(if self.strict { k.floor() + 1.0 } else { k.ceil() }.max(1.0))
        }
    }

    fn count_stepped(&self, current: f64, v0: f64, steps: u32) -> u32 {
        let (decay, mut v, mut rest, mut total) = (f64::from(self.decay), v0, 0, 0);
        for _ in 0..steps {
            if rest > 0 {
                rest -= 1;
                continue;
            }
            v = if self.is_leaky() { decay * v + (1.0 - decay) * current } else { v + current };
            let passed = if self.strict { v.ceil() - 1.0 } else { v.floor() };
            let n = passed.clamp(0.0, f64::from(self.max_spikes));
            v -= n;
            if n > 0.0 {
                rest = self.refractory;
                total += n as u32;
            }
        }
        total
    }

    /// The constant current (thresholds per step) whose long-run rate is `rate` (spikes per step, clipped to
    /// `max_rate`). Rates at or below zero continue linearly, so that a target for a silent neuron stays ordered:
    /// an integrate-and-fire neuron gets `rate` itself, a leaky one its rheobase plus `rate`.
    pub fn inverse(&self, rate: f64) -> f64 {
        let rate = rate.min(self.max_rate());
        match (self.reset, self.is_leaky()) {
            (_, false) if rate <= 0.0 => rate,
            (Reset::Subtract, false) => {
                // One spike costs one threshold of charge, gathered in the steps that are not refractory.
                rate / (1.0 - rate * f64::from(self.refractory)).max(1e-9)
            }
            (Reset::Zero, false) => 1.0 / (1.0 / rate - f64::from(self.refractory)).max(1.0),
            (_, true) if rate <= 0.0 => 1.0 + rate,
            (_, true) => {
                let period = (1.0 / rate - f64::from(self.refractory)).max(1.0);
                1.0 / (1.0 - f64::from(self.decay).powf(period))
            }
        }
    }

    /// The long-run rate (spikes per step) under the constant current `current` (thresholds per step): what `inverse` inverts,
    /// without the rounding of periods to whole steps.
    pub fn rate(&self, current: f64) -> f64 {
        let rest = f64::from(self.refractory);
        let rate = match (self.reset, self.is_leaky()) {
            (_, false) if current <= 0.0 => 0.0,
            (Reset::Subtract, false) => current / (1.0 + current * rest),
            (Reset::Zero, false) => 1.0 / (1.0f64.max(1.0 / current) + rest),
            (_, true) if current <= 1.0 => 0.0,
            (_, true) => 1.0 / (((1.0 - 1.0 / current).ln() / f64::from(self.decay).ln()).max(1.0) + rest),
        };
        rate.min(self.max_rate())
    }

    /// A good initial potential, in thresholds: half a threshold makes the expected rounding error of a soft reset
    /// zero (Bu et al. 2022, theorem 2); after a reset to zero it brings the first spike half a period early, so that
    /// the count T/P is rounded to nearest instead of down.
    pub fn initial_potential(&self) -> f64 {
        0.5
    }
}
