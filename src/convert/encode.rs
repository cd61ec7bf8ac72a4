//! How the neurons of a layer stand for the units of the trained network: the threshold of a unit that one neuron can
//! follow, a pair for one with a slope to either side, a small population for a curved one (`pieces`). METHOD section 2.
//!
//! A neuron is a *ramp*: it wants the rate clip((z - start) / width, 0, 1) (width < 0: an off neuron, which falls with
//! z), and stands for `value` ANN units per unit of rate. A unit is base + sum of value * rate over its ramps.
//!
//! The current is linear in z, because that is what synapses can give. A leaky neuron's response is not linear in the
//! current: it gets the line through its response that serves the samples best (`leaky`).

use rayon::prelude::*;

use super::offset;
use super::pieces;
use super::tail;
use super::views::Populations;
use crate::compute::simd::{sum_pairs, vectorized};
use crate::fit;
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
    /// The current for a position u = (z - start) / width on the ramp is rest + slope u, in thresholds per step.
    pub slope: f64,
    pub rest: f64,
}

impl Ramp {
    /// A ramp of a neuron whose rate is its current.
    fn new(start: f64, width: f64, value: f64) -> Self {
        Self { start, width, value, slope: 1.0, rest: 0.0 }
    }

    /// The ramp of a neuron whose highest rate is `most`, that reaches it where the pre-activation is `length` beyond `start`
    /// and the unit's value has changed by `height`.
    pub(super) fn spanning(start: f64, length: f64, height: f64, most: f64) -> Self {
        Self::new(start, length / most, height / most)
    }

    /// `parts` neurons of highest rate `most` that share the range of one, one after the other.
    fn split(self, parts: usize, most: f64) -> Vec<Self> {
        let share = 1.0 / parts as f64;
        let part = |i: usize| Self {
            start: self.start + i as f64 * most * share * self.width,
            width: share * self.width,
            value: share * self.value,
            ..self
        };
        (0..parts).map(part).collect()
    }

    /// `parts` neurons that all follow the whole range in `levels` counts, each an equal share of a count later than the one
    /// before it: together they count in `parts` times the levels.
    fn repeated(self, parts: usize, levels: u32) -> Vec<Self> {
        let share = 1.0 / parts as f64;
        let later = |i: usize| ((i as f64 + 0.5) * share - 0.5) * self.width / f64::from(levels);
        (0..parts).map(|i| Self { start: self.start + later(i), value: share * self.value, ..self }).collect()
    }

    /// Position on the ramp, 0 to 1 where it is inside.
    pub(super) fn position(&self, z: f64) -> f64 {
        (z - self.start) / self.width
    }
}

/// True for a neuron whose targets go through the inverse response: a refractory one, whose rate bends with its
/// current without leaking.
pub fn inverts(model: &Model) -> bool {
    !model.is_leaky() && model.refractory > 0
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

    /// Whether all neurons of a unit follow its whole range.
    pub fn repeats(&self) -> bool {
        let alike = |a: &Ramp, b: &Ramp| a.width == b.width && (a.start - b.start).abs() < a.width;
        self.ramps.iter().all(|unit| unit.iter().all(|ramp| alike(ramp, &unit[0])))
    }
}

/// What is known of a layer when its code is chosen.
pub struct Layer<'a> {
    pub activation: Activation,
    /// Pre-activations seen in calibration, per channel.
    pub samples: &'a [Vec<f32>],
    pub model: Model,
    pub steps: u32,
    pub population: Populations,
    /// Weights have few levels.
    pub coarse: bool,
    /// Of thresholds, over those with the least squared response error.
    pub coarser: f64,
    /// Units may have a value other than zero at rate zero.
    pub above_zero: bool,
}

impl Layer<'_> {
    /// The rate at the end of a ramp that is not to go on: a leaky neuron's line (`leaky`) takes it for 1.
    pub(super) fn most(&self) -> f64 {
        if self.model.is_leaky() { 1.0 } else { self.model.max_rate() }
    }

    /// Whether neurons of a rectified unit each follow all of its range, as one alone does.
    fn repeats(&self) -> bool {
        self.model.rounds() && (self.coarse || self.population.rectified == 1)
    }

    /// The neurons of a rectified unit. Coarse weights are what is left of the error where units have several: each neuron
    /// follows all of the range, and makes up for what the others' own weights and those that read them are off. Finer
    /// weights gain nothing by that; then each has a part of the range, which uneven input disturbs less.
    fn shared(&self, ramp: Ramp) -> Vec<Ramp> {
        let parts = self.population.rectified;
        match self.repeats() {
            true => ramp.repeated(parts, self.steps),
            false => ramp.split(parts, self.model.max_rate()),
        }
    }
}

/// Chooses thresholds and populations.
pub fn code(layer: &Layer) -> Code {
    let chosen = |z: &Vec<f32>| {
        let mut ramps = unit(layer, z)?;
        if layer.model.is_leaky() {
            ramps.iter_mut().for_each(|ramp| *ramp = leaky(layer, ramp, z));
        }
        Some(ramps)
    };
    let mut ramps: Vec<Option<Vec<Ramp>>> = layer.samples.par_iter().map(chosen).collect();
    // A channel that never left its silent range in calibration takes the layer's typical ramps.
    let typical = typical(layer, &ramps);
    let ramps: Vec<Vec<Ramp>> = ramps.iter_mut().map(|r| r.take().unwrap_or_else(|| typical.clone())).collect();
    let base = ramps.iter().map(|r| base(layer.activation, r)).collect();
    Code { ramps, base }
}

fn typical(layer: &Layer, ramps: &[Option<Vec<Ramp>>]) -> Vec<Ramp> {
    // a rectifier that never fires rests where it bends, wherever others begin
    let from_bend = |unit: &Vec<Ramp>| match bounds(layer.activation) {
        Some((bend, f64::INFINITY)) if layer.above_zero && layer.repeats() => {
            let parts = unit.len() as f64;
            let top = unit.iter().map(|r| r.start + r.width).sum::<f64>() / parts;
            layer.shared(Ramp::new(bend, top - bend, top - bend))
        }
        _ => unit.clone(),
    };
    let mut known: Vec<Vec<Ramp>> = ramps.iter().flatten().map(from_bend).collect();
    known.sort_by(|a, b| a[0].width.abs().total_cmp(&b[0].width.abs()));
    match known.get(known.len() / 2) {
        Some(middle) => middle.clone(),
        None => {
            // around the bend
            let at = match bounds(layer.activation) {
                Some((f64::NEG_INFINITY, hi)) => hi,
                Some((lo, _)) => lo,
                None => 0.0,
            };
            let around = [(at - 1.0) as f32, (at + 1.0) as f32];
            unit(layer, &around).unwrap_or_else(|| layer.shared(Ramp::new(at, 1.0, 1.0)))
        }
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

/// The bounds between which an activation is its pre-activation; None if it is not a clip.
fn bounds(activation: Activation) -> Option<(f64, f64)> {
    match activation {
        Activation::Relu => Some((0.0, f64::INFINITY)),
        Activation::Clip { lo, hi } if lo < hi => {
            let lo = if lo <= f32::MIN { f64::NEG_INFINITY } else { f64::from(lo) };
            let hi = if hi >= f32::MAX { f64::INFINITY } else { f64::from(hi) };
            Some((lo, hi))
        }
        _ => None,
    }
}

/// None if the samples say nothing about the unit's range.
fn unit(layer: &Layer, z: &[f32]) -> Option<Vec<Ramp>> {
    let (lo, hi) = range(z)?;
    match layer.activation {
        // a neuron that never fires, and whose spikes would say nothing
        Activation::Clip { lo: bound, hi: value } if bound >= value => Some(vec![Ramp::new(hi, hi - lo, 0.0)]),
        Activation::Relu | Activation::Clip { .. } => Some(layer.shared(clip(layer, z, (lo, hi))?)),
        Activation::HardSigmoid { alpha, beta } => {
            let (alpha, beta) = (f64::from(alpha), f64::from(beta));
            Some(vec![Ramp::spanning(-beta / alpha, 1.0 / alpha, 1.0, layer.most())])
        }
        Activation::Linear => Some(pair([hi, -lo].map(|end| end / layer.most()), 1.0).to_vec()),
        Activation::LeakyRelu { alpha } => {
            // either side is a rectifier; both begin at zero
            let layer = &Layer { above_zero: false, ..*layer };
            let width = |z: &[f32], hi: f64| threshold(layer, z, hi, f64::INFINITY).map_or(0.0, |ramp| ramp.width);
            let turned: Vec<f32> = z.iter().map(|z| -z).collect();
            let both = pair([width(z, hi), width(&turned, -lo)], f64::from(alpha));
            Some(both.into_iter().flat_map(|ramp| layer.shared(ramp)).collect())
        }
        // Nearly silent at the low end: all ramps rise from there.
        Activation::Sigmoid | Activation::Softplus => Some(pieces::follow(layer, z, [lo, lo, hi])),
        Activation::Tanh | Activation::Elu { .. } | Activation::Remainder => {
            Some(pieces::follow(layer, z, [lo, 0.0f64.clamp(lo, hi), hi]))
        }
    }
}

/// The one ramp of a rectifier or clip over samples from `lo` to `hi`. It rises from the lower bound; where no sample is so
/// low, to the upper one, or to the samples' end: c - relu(c - z), with a neuron that rises with z all the same, so that a
/// maximum over several has a winner. Values from zero are counted from there, even if they are never so low: a reader's
/// padding is zero.
fn clip(layer: &Layer, z: &[f32], (lo, hi): (f64, f64)) -> Option<Ramp> {
    let (from, to) = bounds(layer.activation)?;
    if from < lo && from != 0.0 {
        let layer = &Layer { above_zero: false, ..*layer };
        let to = to.min(hi);
        let below: Vec<f32> = z.iter().map(|&z| (to - f64::from(z)) as f32).collect();
        let ramp = threshold(layer, &below, to - lo, to - from)?;
        return Some(Ramp { start: to - layer.most() * ramp.width, ..ramp });
    }
    let above: Vec<f32> = z.iter().map(|&z| (f64::from(z) - from) as f32).collect();
    let ramp = threshold(layer, &above, hi.min(to) - from, to - from)?;
    Some(Ramp { start: from + ramp.start, ..ramp })
}

/// An on and an off neuron from zero, which a unit with a slope to either side takes: z above zero, `alpha` z below. A side
/// with few values or none is as wide as a part of the other, which costs its rounding little: a threshold that is lower by
/// far would make the synapses of one neuron many times those of others.
fn pair([on, off]: [f64; 2], alpha: f64) -> [Ramp; 2] {
    let least = on.max(off) / 64.0;
    let (on, off) = (on.max(least), off.max(least));
    [Ramp::new(0.0, on, on), Ramp::new(0.0, -off, -alpha * off)]
}

/// Range of the samples without the outermost thousandth at either end; None if it is a point.
fn range(z: &[f32]) -> Option<(f64, f64)> {
    let mut sorted = z.to_vec();
    sorted.sort_by(f32::total_cmp);
    let cut = sorted.len() / 1000;
    let (lo, hi) = (f64::from(*sorted.get(cut)?), f64::from(*sorted.get(sorted.len() - 1 - cut)?));
    // devices that round differently are to choose the same thresholds
    let near = (fit::snapped(lo, 10), fit::snapped(hi, 10));
    (hi > lo).then_some(if near.1 > near.0 { near } else { (lo, hi) })
}

/// The rectifier's threshold with the least squared response error over the samples: rounding asks for a low one,
/// saturation for a high one. `top`: where the activation itself saturates.
fn threshold(layer: &Layer, z: &[f32], hi: f64, top: f64) -> Option<Ramp> {
    if hi <= 0.0 {
        return None;
    }
    if layer.model.is_leaky() {
        return Some(Ramp::new(0.0, hi, hi)); // `leaky` chooses the rest
    }
    // Neurons that share the range count as one would with so many times the steps.
    let levels = layer.steps * layer.population.rectified as u32;
    let (positive, weight): (Vec<f32>, Vec<f32>) = tail::smoothed(z, levels)
        .into_iter()
        .filter(|(v, _)| *v > 0.0)
        .map(|(v, weight)| (v as f32, weight as f32))
        .unzip();
    let v0 = layer.model.initial_potential();
    let steps = f64::from(levels);
    // A hard reset's high rates are coarse (1, 1/2, 1/3 ..): there it pays to stay low.
    let (least, count) = if layer.model == Model::IF { (0.25, 40) } else { (0.25 / layer.model.max_rate(), 80) };
    let (model, most) = (&layer.model, layer.model.max_rate());
    // One that stands for more than the activation's own bound would go beyond it; the bound itself clips as it does.
    let bound = top / most;
    let candidates = (0..=count)
        .map(|i| hi * least * 1.05f64.powi(i))
        .filter(|theta| *theta < bound)
        .chain(bound.is_finite().then_some(bound));
    let error = |theta: f64| -> f64 {
        let off = |z: f64, count: f64| (theta * count / steps - z).powi(2);
        if model.rounds() {
            // `inverse` of such a neuron is the rate itself.
            return vectorized(|| {
                sum_pairs(&positive, &weight, |z, weight| {
                    let z = z.min(top);
                    weight * off(z, model.count_soft((z / theta).min(most), v0, levels))
                })
            });
        }
        let parts = layer.population.rectified as u32;
        let count = |z: f64| -> u32 {
            let share = |i: u32| {
                model.count(model.inverse(z / theta * f64::from(parts) - f64::from(i) * most), v0, layer.steps)
            };
            (0..parts).map(share).sum()
        };
        let wanted = positive.iter().map(|&z| f64::from(z).min(top)).zip(&weight);
        wanted.map(|(z, &weight)| f64::from(weight) * off(z, f64::from(count(z)))).sum()
    };
    let theta =
        candidates.map(|theta| (theta, error(theta))).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(theta, _)| theta)?;
    let ramp = Ramp::new(0.0, theta, theta);
    let plain = layer.repeats() && top == f64::INFINITY;
    let Ramp { start, width, .. } =
        if plain && layer.above_zero { offset::above_zero(layer, z, ramp, levels) } else { ramp };
    let width = (width * layer.coarser).min(bound);
    Some(Ramp::new(start, width, width))
}

/// A leaky neuron's ramp: the straight line of current, and the ANN units of a spike, with the least squared error of
/// the decoded response over the samples. Its response bends most at the rheobase, where its rate jumps up from zero:
/// the line may cross the rheobase before or after the ramp's start.
fn leaky(layer: &Layer, ramp: &Ramp, z: &[f32]) -> Ramp {
    let steps = f64::from(layer.steps);
    let v0 = layer.model.initial_potential();
    let few = z.len().div_ceil(FEW);
    // Some rise beyond their ramp's end.
    let endless = matches!(layer.activation, Activation::Linear | Activation::LeakyRelu { .. })
        || bounds(layer.activation).is_some_and(|(_, hi)| hi == f64::INFINITY);
    let samples: Vec<(f64, f64)> = z
        .iter()
        .step_by(few)
        .map(|&z| ramp.position(f64::from(z)))
        .map(|u| (u, if endless { u.max(0.0) } else { u.clamp(0.0, 1.0) }))
        .collect();
    let highest = layer.model.inverse(0.5 * layer.model.max_rate());
    let mut best = (f64::INFINITY, *ramp);
    for top in (0..TOPS).map(|i| 1.0 + (highest - 1.0) * 0.8f64.powi(i)) {
        for share in (0..=RESTS).map(|i| 0.3 - 0.9 * f64::from(i) / f64::from(RESTS)) {
            let rest = 1.0 + (top - 1.0) * share;
            let slope = top - rest;
            let (mut square, mut product, mut wanted) = (0.0, 0.0, 0.0);
            for &(u, w) in &samples {
                let rate = f64::from(layer.model.count(rest + slope * u, v0, layer.steps)) / steps;
                square += rate * rate;
                product += rate * w;
                wanted += w * w;
            }
            if product <= 0.0 {
                continue;
            }
            let error = wanted - product * product / square;
            if error < best.0 {
                best = (error, Ramp { slope, rest, value: ramp.value * product / square, ..*ramp });
            }
        }
    }
    best.1
}

/// Samples that are enough to choose a unit's ramps by, and candidates for a leaky neuron's line.
pub(super) const FEW: usize = 512;
const TOPS: i32 = 16;
const RESTS: i32 = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neurons_of_a_unit_count_together_as_finely_as_one_in_more_steps() {
        let (model, steps, width) = (Model::IF, 8, 1.5);
        for parts in 1..6 {
            let ramps = Ramp::new(0.0, width, width).repeated(parts, steps);
            for i in 0..2000 {
                let z = width * f64::from(i - 200) / 1500.0 + 1e-5;
                let count = |r: &Ramp| model.count_soft(r.position(z), model.initial_potential(), steps);
                let together: f64 = ramps.iter().map(|r| r.value * count(r) / f64::from(steps)).sum();
                let levels = steps * parts as u32;
                let one = width * model.count_soft(z / width, model.initial_potential(), levels) / f64::from(levels);
                // at the upper end the last ones are full a share of a count later
                let hair = if z > width * (1.0 - 1.0 / f64::from(steps)) { width / f64::from(steps) } else { 1e-9 };
                assert!((together - one).abs() <= hair, "{parts} at {z}: {together}, {one}");
            }
        }
    }

    #[test]
    fn all_neurons_of_a_unit_that_never_rests_begin_where_its_values_begin() {
        let mut rng = fastrand::Rng::with_seed(1);
        let busy: Vec<f32> = (0..4000).map(|_| 5.0 + rng.f32()).collect();
        let silent = vec![-1.0; 4000];
        for (coarse, rectified) in [(false, 1), (true, 1), (true, 2), (true, 3)] {
            let code = code(&Layer {
                activation: Activation::Relu,
                samples: &[busy.clone(), silent.clone()],
                model: Model::IF,
                steps: 32,
                population: Populations { rectified, curved: 4 },
                coarse,
                coarser: 1.0,
                above_zero: true,
            });
            assert!(code.repeats() && code.population() == rectified);
            assert!(code.ramps[0].iter().all(|r| r.start > 4.0 && r.start + r.width < 7.0), "{:?}", code.ramps[0]);
            // the one that was never seen to fire rests at zero
            assert!(code.ramps[1].iter().all(|r| r.start.abs() < 0.2 && r.width > 4.0), "{:?}", code.ramps[1]);
            let value: f64 = code.ramps[1].iter().map(|r| r.value).sum();
            assert!((value - code.ramps[1][0].width).abs() < 1e-9);
        }
    }
}
