//! How the neurons of a layer stand for the units of the trained network: the threshold of a unit that one neuron can
//! follow, a small population for one that it cannot. METHOD section 2.
//!
//! A neuron is a *ramp*: it wants the rate clip((z - start) / width, 0, 1) (width < 0: an off neuron, which falls with
//! z), and stands for `value` ANN units per unit of rate. A unit is base + sum of value * rate over its ramps.

use rayon::prelude::*;

use crate::network::Activation;
use crate::neuron::Model;

/// One neuron's part in a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ramp {
    pub start: f64,
    /// Pre-activation units from rate 0 to rate 1; negative for an off neuron.
    pub width: f64,
    /// ANN units at rate 1.
    pub value: f64,
}

impl Ramp {
    /// Wanted rate, not yet clipped to what a neuron can do.
    pub fn rate(&self, z: f64) -> f64 {
        (z - self.start) / self.width
    }
}

/// A layer's code: for each unit (channel) its ramps, the same number for all, and its base.
#[derive(Debug, Clone, PartialEq)]
pub struct Code {
    pub ramps: Vec<Vec<Ramp>>,
    pub base: Vec<f64>,
}

impl Code {
    /// Neurons per unit.
    pub fn population(&self) -> usize {
        self.ramps.first().map_or(1, Vec::len)
    }
}

/// What is known of a layer when its code is chosen.
pub struct Layer<'a> {
    pub activation: Activation,
    /// Pre-activations seen in calibration, per channel.
    pub samples: &'a [Vec<f32>],
    pub model: Model,
    pub steps: u32,
    /// Neurons for a unit that one neuron cannot follow.
    pub population: usize,
}

/// Chooses thresholds and populations.
pub fn code(layer: &Layer) -> Code {
    let mut ramps: Vec<Option<Vec<Ramp>>> = layer.samples.par_iter().map(|z| unit(layer, z)).collect();
    // A channel that never left its silent range in calibration takes the layer's typical ramps.
    let typical = typical(layer, &ramps);
    let ramps: Vec<Vec<Ramp>> = ramps.iter_mut().map(|r| r.take().unwrap_or_else(|| typical.clone())).collect();
    let base = ramps.iter().map(|r| base(layer.activation, r)).collect();
    Code { ramps, base }
}

fn typical(layer: &Layer, ramps: &[Option<Vec<Ramp>>]) -> Vec<Ramp> {
    let mut known: Vec<&Vec<Ramp>> = ramps.iter().flatten().collect();
    known.sort_by(|a, b| a[0].width.abs().total_cmp(&b[0].width.abs()));
    match known.get(known.len() / 2) {
        Some(middle) => (*middle).clone(),
        None => unit(layer, &[-1.0, 1.0]).unwrap_or_else(|| vec![Ramp { start: 0.0, width: 1.0, value: 1.0 }]),
    }
}

/// The unit's value where all its ramps are silent: f at the point where on and off ramps meet.
fn base(activation: Activation, ramps: &[Ramp]) -> f64 {
    let rest = ramps
        .iter()
        .find(|r| r.width > 0.0)
        .map_or_else(|| ramps.iter().map(|r| r.start).fold(f64::NEG_INFINITY, f64::max), |r| r.start);
    activation.apply(rest)
}

/// None if the samples say nothing about the unit's range.
fn unit(layer: &Layer, z: &[f32]) -> Option<Vec<Ramp>> {
    let (lo, hi) = range(z)?;
    match layer.activation {
        Activation::Relu => Some(vec![threshold(layer, z, hi, f64::INFINITY)?]),
        Activation::Clip { lo: 0.0, hi: top } if top > 0.0 => {
            Some(vec![threshold(layer, z, hi.min(f64::from(top)), f64::from(top))?])
        }
        Activation::HardSigmoid { alpha, beta } if alpha > 0.0 => {
            let (alpha, beta) = (f64::from(alpha), f64::from(beta));
            Some(vec![Ramp { start: -beta / alpha, width: 1.0 / alpha, value: 1.0 }])
        }
        Activation::Linear => {
            let on = hi.max(1e-6 * -lo).max(f64::MIN_POSITIVE);
            let off = (-lo).max(1e-6 * on).max(f64::MIN_POSITIVE);
            Some(vec![Ramp { start: 0.0, width: on, value: on }, Ramp { start: 0.0, width: -off, value: -off }])
        }
        activation => {
            let rest = match activation {
                // Nearly silent at the low end: all ramps rise from there.
                Activation::Sigmoid
                | Activation::Softplus
                | Activation::Clip { .. }
                | Activation::HardSigmoid { .. } => lo,
                _ => 0.0f64.clamp(lo, hi),
            };
            Some(interpolate(activation, lo, rest, hi, layer.population.max(2)))
        }
    }
}

/// Range of the samples without the outermost thousandth at either end; None if it is a point.
fn range(z: &[f32]) -> Option<(f64, f64)> {
    let mut sorted = z.to_vec();
    sorted.sort_by(f32::total_cmp);
    let cut = sorted.len() / 1000;
    let (lo, hi) = (f64::from(*sorted.get(cut)?), f64::from(*sorted.get(sorted.len() - 1 - cut)?));
    (hi > lo).then_some((lo, hi))
}

/// The rectifier's threshold with the least squared response error over the samples: rounding asks for a low one,
/// saturation for a high one. `top`: where the activation itself saturates.
fn threshold(layer: &Layer, z: &[f32], hi: f64, top: f64) -> Option<Ramp> {
    if hi <= 0.0 {
        return None;
    }
    let positive: Vec<f64> = z.iter().map(|&v| f64::from(v)).filter(|&v| v > 0.0).collect();
    let v0 = layer.model.initial_potential();
    let steps = f64::from(layer.steps);
    // A leaky neuron's or a hard reset's high rates are coarse (1, 1/2, 1/3 ..): there it pays to stay low.
    let (least, count) = if layer.model == Model::IF { (0.25, 40) } else { (0.25 / layer.model.max_rate(), 80) };
    let candidates = (0..=count).map(|i| hi * least * 1.05f64.powi(i));
    let error = |theta: f64| -> f64 {
        positive
            .iter()
            .map(|&z| {
                let current = layer.model.inverse(z.min(top) / theta);
                let rate = f64::from(layer.model.count(current, v0, layer.steps)) / steps;
                (theta * rate - z.min(top)).powi(2)
            })
            .sum()
    };
    let theta =
        candidates.map(|theta| (theta, error(theta))).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(theta, _)| theta)?;
    Some(Ramp { start: 0.0, width: theta, value: theta })
}

/// Piecewise-linear interpolation of a smooth activation on [lo, hi] by `count` ramps: on ramps above `rest`, off ramps
/// below it. Knots are equally spaced in the integral of sqrt|f''|, which evens out the interpolation error.
fn interpolate(activation: Activation, lo: f64, rest: f64, hi: f64, count: usize) -> Vec<Ramp> {
    const GRID: usize = 512;
    let side = |from: f64, to: f64, pieces: usize| -> Vec<Ramp> {
        let at = |i: f64| from + (to - from) * i / GRID as f64;
        let h = (to - from) / GRID as f64;
        let f = |z: f64| activation.apply(z);
        let mut density: Vec<f64> = (0..GRID)
            .map(|i| {
                let z = at(i as f64 + 0.5);
                ((f(z + h) - 2.0 * f(z) + f(z - h)) / (h * h)).abs().sqrt()
            })
            .collect();
        let mean = density.iter().sum::<f64>() / GRID as f64;
        // A straight stretch still needs a knot now and then.
        density.iter_mut().for_each(|d| *d += 0.05 * mean + f64::MIN_POSITIVE);
        let total: f64 = density.iter().sum();
        let mut knots = vec![from];
        let mut sum = 0.0;
        for (i, d) in density.iter().enumerate() {
            let wanted = total * knots.len() as f64 / pieces as f64;
            if sum + d >= wanted && knots.len() < pieces {
                knots.push(at(i as f64 + (wanted - sum) / d));
            }
            sum += d;
        }
        knots.push(to);
        knots.windows(2).map(|k| Ramp { start: k[0], width: k[1] - k[0], value: f(k[1]) - f(k[0]) }).collect()
    };
    if rest <= lo {
        return side(lo, hi, count);
    }
    if rest >= hi {
        return side(hi, lo, count);
    }
    let bend = |a: f64, b: f64| (activation.apply(b) - activation.apply(a)).abs();
    let share = bend(rest, hi) / (bend(rest, hi) + bend(lo, rest)).max(f64::MIN_POSITIVE);
    let on = ((count as f64 * share).round() as usize).clamp(1, count - 1);
    let mut ramps = side(rest, hi, on);
    ramps.extend(side(rest, lo, count - on));
    ramps
}
