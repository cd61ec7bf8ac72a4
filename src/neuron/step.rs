//! One time step of one neuron, in integers and in reals: the meaning of the shaders in shaders/neuron/, which the
//! simulation's plain twin and the tests call. METHOD section 3.

use super::{Model, Reset};

/// What a neuron carries from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct State<T> {
    /// The membrane potential.
    pub v: T,
    /// Steps for which it still ignores its input.
    pub wait: u32,
}

impl<T> State<T> {
    pub fn new(v: T) -> Self {
        Self { v, wait: 0 }
    }
}

/// The potential after a leak by shifts (`Model::dash`): Xylo's.
#[inline(always)]
pub fn leak(dash: u32, v: i32) -> i32 {
    if dash == 0 {
        return v;
    }
    let part = v >> dash;
    v - if part == 0 { v.signum() } else { part }
}

/// The potential after one step's drive, in integers: saturating, and clipped to the chip's bounds.
#[inline(always)]
pub fn integrate(floor: i32, ceil: i32, v: i32, drive: i32) -> i32 {
    v.saturating_add(drive).min(ceil).max(floor)
}

/// The same in reals, with leak: decay v + (1 - decay) drive where decay > 0, else v + drive.
#[inline(always)]
pub fn integrate_real(model: &Model, v: f32, drive: f32) -> f32 {
    if model.decay > 0.0 { model.decay * v + (1.0 - model.decay) * drive } else { v + drive }
}

/// Integrate-and-fire in integers: v <- clip(v + drive, floor, ceil), saturating, then spikes and reset.
/// `drive`: current plus bias; `theta`: at least 1 (smaller counts as 1). Returns the spikes of this step.
pub fn integer(model: &Model, floor: i32, ceil: i32, state: &mut State<i32>, drive: i32, theta: i32) -> i32 {
    if state.wait > 0 {
        state.wait -= 1;
        return 0;
    }
    let theta = theta.max(1);
    let v = integrate(floor, ceil, leak(model.dash, state.v), drive);
    // Thresholds passed: v / theta rounded down, or for v > theta the multiples of theta strictly below v.
    let passed = if model.strict { (v.max(1) - 1) / theta } else { v.max(0) / theta };
    let spikes = passed.min(most_spikes(model));
    state.v = match model.reset {
        Reset::Subtract => v - spikes * theta,
        Reset::Zero if spikes > 0 => 0,
        Reset::Zero => v,
    };
    if spikes > 0 {
        state.wait = model.refractory;
    }
    spikes
}

/// `integer` for the neurons that most networks have, at most one spike a step and not refractory: without a division
/// and without a branch.
#[inline(always)]
pub fn integer_once(model: &Model, floor: i32, ceil: i32, state: &mut State<i32>, drive: i32, theta: i32) -> i32 {
    let theta = theta.max(1);
    let v = integrate(floor, ceil, leak(model.dash, state.v), drive);
    let fires = v > theta - i32::from(!model.strict);
    let after = if model.reset == Reset::Zero { 0 } else { v.wrapping_sub(theta) };
    state.v = if fires { after } else { v };
    i32::from(fires)
}

/// The same in reals, with leak (`integrate_real`).
pub fn real(model: &Model, state: &mut State<f32>, drive: f32, theta: f32) -> i32 {
    if state.wait > 0 {
        state.wait -= 1;
        return 0;
    }
    let v = integrate_real(model, state.v, drive);
    let passed = |k: f32| if model.strict { v > k * theta } else { v >= k * theta };
    let most = most_spikes(model) as f32;
    let mut n = (v / theta).floor().max(0.0).min(most);
    // The quotient is rounded: settle the last spike by the comparison itself.
    if n > 0.0 && !passed(n) {
        n -= 1.0;
    } else if n < most && passed(n + 1.0) {
        n += 1.0;
    }
    state.v = match model.reset {
        Reset::Subtract => v - n * theta,
        Reset::Zero if n > 0.0 => 0.0,
        Reset::Zero => v,
    };
    if n > 0.0 {
        state.wait = model.refractory;
    }
    n as i32
}

/// A reset to zero leaves nothing for a second spike.
pub fn most_spikes(model: &Model) -> i32 {
    match model.reset {
        Reset::Subtract => model.max_spikes.min(1 << 20) as i32,
        Reset::Zero => model.max_spikes.min(1) as i32,
    }
}
