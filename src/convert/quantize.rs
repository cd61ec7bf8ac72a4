//! From the solver's codes and scales to what the chip stores: integer thresholds, biases and initial potentials in a
//! common fixed-point unit per output channel.
//!
//! A code q at channel o stands for q * scale_o thresholds. With a threshold of theta_o integer units the unit is
//! 1/theta_o, so scale_o = 2^f / theta_o: every channel's scale is a threshold. The fraction f is as large as exact
//! 24-bit sums and the chip's threshold width allow, so that thresholds and biases round finely.

use crate::chip::{Grid, StateRules};
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
/// What codes times inputs, and biases, may each add up to, so that both together fit an i32.
const WIDEST: u64 = 1 << 30;

/// A layer's integer units.
pub struct Units {
    /// f.
    pub fraction: u32,
    /// Per channel; 1 for a readout, which has none.
    pub threshold: Vec<i32>,
    /// Per channel: value of one integer unit, in thresholds (readout: target units).
    pub unit: Vec<f64>,
}

/// What the chip allows a layer's integers.
pub struct Limits<'a> {
    pub state: &'a StateRules,
    /// Of codes with their signs.
    pub grid: Grid,
    /// Least and largest fraction: the shift that all codes of the layer share.
    pub fraction: (u32, u32),
    /// The layer owns the scale: its thresholds are alike.
    pub one_scale: bool,
    pub power_of_two: bool,
}

/// Largest threshold of the chip that leaves the potential room to pass it, and to keep what it passes it by.
fn top(rules: &StateRules) -> f64 {
    let potential_bits = rules.potential_bits - u32::from(!rules.potential_unsigned);
    ((1u64 << rules.threshold_bits.min(potential_bits - 1).min(30)) - 1) as f64
}

fn top_bias(rules: &StateRules) -> f64 {
    ((1i64 << (rules.bias_bits - 1)) - 1) as f64
}

/// The least scale (thresholds per code) under which a channel's threshold and bias (thresholds per step) fit the chip.
pub fn least_scales(bias: &[f64], fires: bool, limits: &Limits<'_>) -> Vec<f64> {
    // room for a bias that moves a little when the weights are fitted again
    const ROOM: f64 = 1.02;
    let one = f64::from(1u32 << limits.fraction.0);
    let threshold = if fires { one / top(limits.state) } else { 0.0 };
    let widest = |b: &f64| (b.abs() * ROOM * one / top_bias(limits.state)).max(threshold);
    let mut least: Vec<f64> = bias.iter().map(widest).collect();
    if limits.power_of_two {
        least.iter_mut().filter(|s| **s > 0.0).for_each(|s| *s = s.log2().ceil().exp2());
    }
    if limits.one_scale {
        let most = least.iter().copied().fold(0.0, f64::max);
        least.fill(most);
    }
    least
}

/// Where a layer could not be fitted to scales that the chip's thresholds reach: makes codes coarser where a channel's scale is finer than the chip's widest threshold: its synapses are next to
/// nothing beside the threshold. `codes`: channels x n. A channel left without any gets the scale 1.
pub fn coarsen(scale: &mut [f64], codes: &mut [i32], limits: &Limits<'_>) {
    let n = codes.len() / scale.len().max(1);
    let top = top(limits.state);
    let widest = if limits.power_of_two { top.log2().floor().exp2() } else { top };
    for (scale, codes) in scale.iter_mut().zip(codes.chunks_mut(n.max(1))) {
        let ratio = *scale * widest;
        if ratio < 1.0 {
            codes.iter_mut().for_each(|q| *q = limits.grid.nearest(f64::from(*q) * ratio).0);
            let silent = codes.iter().all(|&q| q == 0) && !limits.one_scale;
            *scale = if silent { 1.0 } else { 1.0 / widest };
        }
    }
}

/// How many steps' input is added up: before a neuron's first chance to fire, and on top of that by a readout.
pub struct Added {
    pub at_once: u64,
    pub steps: u64,
}

/// The largest |sum of codes * input| of a row; `peaks`: of each input.
pub fn bound(row: &[i32], peaks: &[u64]) -> u64 {
    row.iter().zip(peaks).map(|(q, p)| u64::from(q.unsigned_abs()).saturating_mul(*p)).fold(0, u64::saturating_add)
}

/// Makes codes coarser, by powers of two, where sums of codes times input, or biases, could leave 32 bits: many inputs
/// with wide codes over many steps. `codes`: channels x n; `peaks`: n, all steps at once; `bias`: thresholds per step.
pub fn shrink(scale: &mut [f64], codes: &mut [i32], peaks: &[u64], bias: &[f64], added: &Added, limits: &Limits<'_>) {
    let n = peaks.len().max(1);
    let least = limits.fraction.0;
    let times = (added.at_once * added.steps) as f64 * f64::from(1u32 << least);
    let excess = |(row, scale): (&[i32], f64), bias: f64| {
        let sums = bound(row, peaks) as f64 * (added.steps << least) as f64;
        let widest = sums.max(bias.abs() / scale * times) / WIDEST as f64;
        if widest > 1.0 { widest.log2().ceil().exp2() } else { 1.0 }
    };
    let mut factors: Vec<f64> =
        codes.chunks(n).zip(scale.iter()).zip(bias).map(|((row, s), b)| excess((row, *s), *b)).collect();
    if limits.one_scale {
        let most = factors.iter().copied().fold(1.0, f64::max);
        factors.fill(most);
    }
    for ((row, scale), factor) in codes.chunks_mut(n).zip(scale).zip(factors).filter(|(_, f)| *f > 1.0) {
        row.iter_mut().for_each(|q| *q = limits.grid.nearest(f64::from(*q) / factor).0);
        *scale *= factor;
    }
}

/// Chooses them. `scale`: per channel, thresholds per code. `bias`: per channel, thresholds per step. `bounds`: per channel,
/// the largest |sum of codes * input| of what is added up at once.
pub fn units(scale: &[f64], bias: &[f64], bounds: &[u64], added: &Added, fires: bool, limits: &Limits<'_>) -> Units {
    let largest = bounds.iter().copied().max().unwrap_or(1).max(1);
    let (least, most) = (limits.fraction.0, limits.fraction.1.min(MAX_FRACTION.max(limits.fraction.0)));
    let widest_bias = bias.iter().zip(scale).fold(0f64, |m, (b, s)| m.max(b.abs() / s));
    let bias_fits = |f: u32| {
        let wide = widest_bias * f64::from(1u32 << f);
        wide <= top_bias(limits.state) && wide * (added.at_once * added.steps) as f64 <= WIDEST as f64 || f == least
    };
    if !fires {
        let fits = |f: u32| (largest << f).saturating_mul(added.steps) < WIDEST && largest << f < EXACT && bias_fits(f);
        let fraction = (least..=most).rev().find(|&f| fits(f)).unwrap_or(least);
        let unit = scale.iter().map(|s| s / f64::from(1u32 << fraction)).collect();
        return Units { fraction, threshold: vec![1; scale.len()], unit };
    }
    let top = top(limits.state);
    let highest = scale.iter().fold(0f64, |m, &s| m.max(1.0 / s));
    let lowest = scale.iter().fold(f64::INFINITY, |m, &s| m.min(1.0 / s));
    let mut fraction = least;
    while fraction < most
        && lowest * f64::from(1u32 << fraction) < FINE
        && highest * f64::from(2u32 << fraction) < top
        && largest << (fraction + 1) < EXACT
        && bias_fits(fraction + 1)
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
    let top = top_bias(rules);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chip::StateRules;

    #[test]
    fn codes_shrink_by_as_many_halvings_as_their_sums_need() {
        let state = StateRules::default();
        let limits = Limits {
            state: &state,
            grid: "16".parse().unwrap(),
            fraction: (0, 12),
            one_scale: false,
            power_of_two: false,
        };
        let (peaks, added) = ([1 << 10, 1 << 10], Added { at_once: 1 << 10, steps: 1 });
        // sums of 2^25, 2^20 and nothing; the last has a bias of 2^10 codes a step, 2^20 in all
        let (mut codes, mut scale) = (vec![30_000, -2768, 1000, 24, 0, 1], vec![1e-4, 1e-3, 1e-3]);
        shrink(&mut scale, &mut codes, &peaks, &[0.0, 0.0, 1.024], &added, &limits);
        assert_eq!(
            (codes.as_slice(), scale.as_slice()),
            (&[30_000, -2768, 1000, 24, 0, 1][..], &[1e-4, 1e-3, 1e-3][..])
        );
        // 64 times as many steps: 2^31, 2^26, 2^26
        let (peaks, added) = ([1 << 16, 1 << 16], Added { at_once: 1 << 16, steps: 1 });
        shrink(&mut scale, &mut codes, &peaks, &[0.0, 0.0, 1.024], &added, &limits);
        assert_eq!((&codes[..4], scale[0], scale[1]), (&[15_000, -1384, 1000, 24][..], 2e-4, 1e-3));
        // a bias of 2^15 codes a step, 2^31 in all
        shrink(&mut scale, &mut codes, &peaks, &[0.0, 0.0, 32.768], &added, &limits);
        assert_eq!((codes[2], codes[3], scale[1], scale[2]), (1000, 24, 1e-3, 2e-3));
    }
}
