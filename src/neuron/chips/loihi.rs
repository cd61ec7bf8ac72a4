//! Loihi 1's compartment: current-based leaky integrate-and-fire (CUBA) in the chip's integers. Source: lava-nc,
//! src/lava/proc/lif/models.py, `AbstractPyLifModelFixed` and `PyLifModelBitAcc` ("bit-accurate with Loihi's hardware LIF
//! dynamics").
//!
//! ```text
//! u <- wrap(sgn(u) ((|u| (4096 - (du + 1))) >> 12) + (a << 6))
//! v <- clip(sgn(v) ((|v| (4096 - dv)) >> 12) + u + bias, +-(2^23 - 1))
//! v > vth << 6: a spike, v <- 0
//! ```
//!
//! du = 4095 and dv = 0 leave no current over and no leak: the integrate-and-fire neuron that conversions use, in units of
//! 2^6 (configs/chips/loihi1.toml).

use super::Exact;

/// 2^23: u and v have 24 bits.
const TOP: i64 = 1 << 23;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loihi {
    /// Decay of the current, 0..=4095; one is added to it.
    pub du: u32,
    /// Decay of the potential, 0..=4095.
    pub dv: u32,
    /// Threshold, 17 bits; 2^6 potential units each.
    pub vth: u32,
    /// -4096..=4095.
    pub bias_mantissa: i32,
    /// 0..=7.
    pub bias_exponent: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compartment {
    pub u: i32,
    pub v: i32,
}

/// sgn(x) ((|x| (4096 - decay)) >> 12).
fn decayed(x: i32, decay: u32) -> i64 {
    let size = (i64::from(x).abs() * (4096 - i64::from(decay))) >> 12;
    size * i64::from(x.signum())
}

/// Into -2^23 < u <= 2^23, modulo 2^24.
fn wrapped(u: i64) -> i64 {
    TOP - (TOP - u).rem_euclid(2 * TOP)
}

impl Exact for Loihi {
    type State = Compartment;

    fn start(&self) -> Compartment {
        Compartment::default()
    }

    fn step(&self, state: &mut Compartment, drive: i32) -> u32 {
        let u = wrapped(decayed(state.u, self.du + 1) + (i64::from(drive) << 6));
        let bias = i64::from(self.bias_mantissa) << self.bias_exponent;
        let v = (decayed(state.v, self.dv) + u + bias).clamp(1 - TOP, TOP - 1);
        let fires = v > i64::from(self.vth) << 6;
        *state = Compartment { u: u as i32, v: if fires { 0 } else { v as i32 } };
        u32::from(fires)
    }
}
