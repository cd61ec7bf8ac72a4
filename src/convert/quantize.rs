//! From the solver's codes and scales to what the chip stores: integer thresholds, biases and initial potentials in a
//! common fixed-point unit per output channel.
//!
//! A code q at channel o stands for q * scale_o thresholds. With a threshold of theta_o integer units the unit is
//! 1/theta_o, so scale_o = 2^f / theta_o: every channel's scale is a threshold. The fraction f is as large as exact
//! 24-bit sums and the chip's threshold width allow, so that thresholds and biases round finely.

use crate::chip::StateRules;
use crate::error::{Error, Result};
use crate::spiking::State;

/// Sums below this are exact in f32 as well as in i32.
const EXACT: u64 = 1 << 24;
/// A threshold this large rounds a scale or a bias by less than 1/8192 of a threshold.
const FINE: f64 = 4096.0;
/// Biases are multiples of a threshold over this. Finer ones would do nothing in fewer steps than that, and would depend
/// on how a device rounds.
const BIAS_STEPS: f64 = 16384.0;
const MAX_FRACTION: u32 = 12;

/// A layer's integer units.
pub struct Units {
    /// f.
    pub fraction: u32,
    /// Per channel; 1 for a readout, which has none.
    pub threshold: Vec<i32>,
    /// Per channel: value of one integer unit, in thresholds (readout: target units).
    pub unit: Vec<f64>,
}

/// Largest threshold of the chip.
fn top(rules: &StateRules) -> f64 {
    ((1u64 << (rules.threshold_bits - 1).min(30)) - 1) as f64
}

/// Makes codes coarser where a channel's scale is finer than the chip's widest threshold: its synapses are next to
/// nothing beside the threshold. `codes`: channels x n. A channel left without any gets the scale 1.
pub fn coarsen(scale: &mut [f64], codes: &mut [i32], power_of_two: bool, rules: &StateRules) {
    let n = codes.len() / scale.len().max(1);
    let widest = if power_of_two { top(rules).log2().floor().exp2() } else { top(rules) };
    for (scale, codes) in scale.iter_mut().zip(codes.chunks_mut(n.max(1))) {
        let ratio = *scale * widest;
        if ratio < 1.0 {
            codes.iter_mut().for_each(|q| *q = (f64::from(*q) * ratio).round() as i32);
            *scale = if codes.iter().all(|&q| q == 0) { 1.0 } else { 1.0 / widest };
        }
    }
}

/// Chooses them. `scale`: per channel, thresholds per code. `bounds`: per channel, the largest |sum of codes * input|
/// of one step (layered: of all steps). `steps`: over which a readout accumulates.
pub fn units(scale: &[f64], bounds: &[u64], steps: u32, fires: bool, rules: &StateRules) -> Units {
    let largest = bounds.iter().copied().max().unwrap_or(1).max(1);
    if !fires {
        let fits = |f: u32| (largest << f) * u64::from(steps) < 1 << 30 && largest << f < EXACT;
        let fraction = (0..=MAX_FRACTION).rev().find(|&f| fits(f)).unwrap_or(0);
        let unit = scale.iter().map(|s| s / f64::from(1u32 << fraction)).collect();
        return Units { fraction, threshold: vec![1; scale.len()], unit };
    }
    let top = top(rules);
    let highest = scale.iter().fold(0f64, |m, &s| m.max(1.0 / s));
    let lowest = scale.iter().fold(f64::INFINITY, |m, &s| m.min(1.0 / s));
    let mut fraction = 0;
    while fraction < MAX_FRACTION
        && lowest * f64::from(1u32 << fraction) < FINE
        && highest * f64::from(2u32 << fraction) < top
        && largest << (fraction + 1) < EXACT
    {
        fraction += 1;
    }
    let threshold: Vec<i32> =
        scale.iter().map(|s| (f64::from(1u32 << fraction) / s).round().clamp(1.0, top) as i32).collect();
    let unit = threshold.iter().map(|&t| 1.0 / f64::from(t)).collect();
    Units { fraction, threshold, unit }
}

/// Biases (in thresholds per step) and initial potentials (in thresholds) in those units.
///
/// # Errors
/// Work, naming `layer`: a bias is wider than the chip's.
pub fn state(layer: &str, units: &Units, bias: &[f64], initial: f64, fires: bool, rules: &StateRules) -> Result<State> {
    let top = ((1i64 << (rules.bias_bits - 1)) - 1) as f64;
    let whole = |(b, u): (&f64, &f64)| {
        let b = if fires { (b * BIAS_STEPS).round() / BIAS_STEPS } else { *b };
        let code = (b / u).round();
        let fits = code.abs() <= top;
        fits.then_some(code as i32).ok_or_else(|| {
            let need = code.abs().log2().floor() as u32 + 2;
            let have = rules.bias_bits;
            Error::work(layer, format!("a bias needs {need} bits with its sign, the chip's state.bias_bits is {have}"))
        })
    };
    Ok(State::Integer {
        bias: bias.iter().zip(&units.unit).map(whole).collect::<Result<_>>()?,
        initial: match fires {
            true => units.threshold.iter().map(|&t| (f64::from(t) * initial) as i32).collect(),
            false => vec![0; bias.len()],
        },
        threshold: units.threshold.clone(),
    })
}
