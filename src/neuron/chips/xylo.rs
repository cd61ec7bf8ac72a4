//! Xylo's neuron: decays by shifts, 16-bit state that saturates, several spikes a step. Source: Rockpool's bit-shift LIF
//! module (`LIFBitshiftTorch`) for the order of the operations and the decay, Xylo's overview for the widths.
//!
//! ```text
//! v <- v - (v >> dash_mem), i <- i - (i >> dash_syn), by 1 towards 0 where the shift leaves nothing
//! i <- sat16(i + a), v <- sat16(v + i + bias)
//! spikes = min(floor(v / threshold), most) where v is positive, v <- v - spikes threshold
//! ```
//!
//! dash_syn = 0 leaves no current over; the potential's leak cannot be switched off, from dash_mem = 15 on it is 1 a step.

use super::Exact;
use crate::neuron::step::leak;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xylo {
    pub dash_syn: u32,
    pub dash_mem: u32,
    /// 1..=32767.
    pub threshold: i32,
    pub bias: i32,
    /// 31 of a hidden neuron, 15 of an input, 1 of an output.
    pub max_spikes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Membrane {
    pub current: i32,
    pub v: i32,
}

/// v - (v >> dash), by 1 towards 0 where that changes nothing; dash = 0 leaves nothing.
fn decayed(v: i32, dash: u32) -> i32 {
    if dash == 0 { 0 } else { leak(dash, v) }
}

fn saturated(v: i64) -> i32 {
    v.clamp(i64::from(i16::MIN), i64::from(i16::MAX)) as i32
}

impl Exact for Xylo {
    type State = Membrane;

    fn start(&self) -> Membrane {
        Membrane::default()
    }

    fn step(&self, state: &mut Membrane, drive: i32) -> u32 {
        let current = saturated(i64::from(decayed(state.current, self.dash_syn)) + i64::from(drive));
        let v = i64::from(decayed(state.v, self.dash_mem)) + i64::from(current) + i64::from(self.bias);
        let v = saturated(v);
        let spikes = (v.max(0) / self.threshold.max(1)).min(self.max_spikes as i32);
        *state = Membrane { current, v: v - spikes * self.threshold };
        spikes as u32
    }
}
