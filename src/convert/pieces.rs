//! Straight pieces that come close to a curved activation, each the ramp of one neuron: on ramps above the point where all
//! are silent, off ramps below it. Knots are equally spaced in the integral of sqrt|f''|, which evens out the error between
//! them.

use super::encode::{FEW, Layer, Ramp};
use crate::network::Activation;

/// Cells in which a side's curvature is measured.
const GRID: usize = 512;

/// The ramps of a unit whose samples `z` lie from `lo` to `hi` and whose neurons are silent at `rest`. How many of them are on
/// ramps is what leaves the least squared error of pieces and counts: a straight side needs few for itself, but they count in
/// finer steps.
pub(super) fn follow(layer: &Layer, z: &[f32], [lo, rest, hi]: [f64; 3]) -> Vec<Ramp> {
    let count = layer.population.curved.max(2);
    let side = |to: f64| Side::new(layer.activation, rest, to);
    if rest <= lo {
        return side(hi).ramps(layer, count);
    }
    if rest >= hi {
        return side(lo).ramps(layer, count);
    }
    let (above, below) = (side(hi), side(lo));
    let few: Vec<f64> = z.iter().step_by(z.len().div_ceil(FEW)).map(|&z| f64::from(z)).collect();
    let divided = |on: usize| {
        let mut ramps = above.ramps(layer, on);
        ramps.extend(below.ramps(layer, count - on));
        (error(layer, rest, &ramps, &few), ramps)
    };
    let best = (2..count).map(divided).fold(divided(1), |best, next| if next.0 < best.0 { next } else { best });
    best.1
}

/// Squared error of the ramps over samples, and of rounding the rates of those that are neither silent nor full.
fn error(layer: &Layer, rest: f64, ramps: &[Ramp], z: &[f64]) -> f64 {
    let base = layer.activation.apply(rest);
    let of = |z: f64| {
        let (mut off, mut rounding) = (base - layer.activation.apply(z), 0.0);
        for ramp in ramps {
            let rate = ramp.position(z).clamp(0.0, layer.most());
            off += ramp.value * rate;
            if rate > 0.0 && rate < layer.most() {
                rounding += (ramp.value / f64::from(layer.steps)).powi(2) / 12.0;
            }
        }
        off * off + rounding
    };
    z.iter().map(|&z| of(z)).sum()
}

/// The activation from where its neurons are silent to an end of its range.
struct Side {
    activation: Activation,
    from: f64,
    /// A cell; negative below `from`.
    step: f64,
    /// Integral of sqrt|f''| up to each cell's beginning, and to the end.
    sums: Vec<f64>,
}

impl Side {
    fn new(activation: Activation, from: f64, to: f64) -> Self {
        let f = |z: f64| activation.apply(z);
        let step = (to - from) / GRID as f64;
        // within a cell: a bend at `from` is no part of this side
        let h = step / 2.0;
        let bend = |i: usize| {
            let z = from + step * (i as f64 + 0.5);
            ((f(z + h) - 2.0 * f(z) + f(z - h)) / (h * h)).abs().sqrt()
        };
        let density: Vec<f64> = (0..GRID).map(bend).collect();
        let mean = density.iter().sum::<f64>() / GRID as f64;
        // A straight stretch still needs a knot now and then; what is straight throughout is divided evenly, not by rounding.
        let even = (f(to) - f(from)).abs().sqrt() / (to - from).abs();
        let least = 0.05 * mean + 1e-3 * even + f64::MIN_POSITIVE;
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        for d in density {
            sum += d + least;
            sums.push(sum);
        }
        Self { activation, from, step, sums }
    }

    /// Where `share` of the integral lies before.
    fn knot(&self, share: f64) -> f64 {
        let wanted = share * self.sums[GRID];
        let cell = self.sums.partition_point(|sum| *sum <= wanted).clamp(1, GRID) - 1;
        let within = (wanted - self.sums[cell]) / (self.sums[cell + 1] - self.sums[cell]);
        self.from + self.step * (cell as f64 + within)
    }

    fn ramps(&self, layer: &Layer, pieces: usize) -> Vec<Ramp> {
        let knots: Vec<f64> = (0..=pieces).map(|i| self.knot(i as f64 / pieces as f64)).collect();
        let f = |z: f64| self.activation.apply(z);
        knots.windows(2).map(|k| Ramp::spanning(k[0], k[1] - k[0], f(k[1]) - f(k[0]), layer.most())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Populations;
    use crate::neuron::Model;

    /// One piece begins where another ends, wherever the curve lies in the range: at its upper end, its lower end or not at all.
    #[test]
    fn as_many_pieces_as_neurons_side_by_side() {
        let ranges =
            [(-3.0, 4.0), (-40.0, 1.0), (-1.0, 300.0), (20.0, 80.0), (-90.0, -30.0), (0.5, 0.501), (-1e-4, 2.0)];
        let curves = [Activation::Elu { alpha: 2.0 }, Activation::Sigmoid, Activation::Tanh, Activation::Softplus];
        for activation in curves {
            for (lo, hi) in ranges {
                for count in [2, 3, 4, 8, 16, 64] {
                    let layer = Layer {
                        activation,
                        samples: &[],
                        model: Model::IF,
                        steps: 64,
                        population: Populations { rectified: 1, curved: count },
                        coarse: false,
                        coarser: 1.0,
                        above_zero: false,
                    };
                    let z: Vec<f32> = (0..600).map(|i| (lo + (hi - lo) * f64::from(i) / 599.0) as f32).collect();
                    for rest in [lo, 0.0f64.clamp(lo, hi)] {
                        let what = format!("{activation:?} on {lo}..{hi} from {rest} in {count}");
                        let mut ramps = follow(&layer, &z, [lo, rest, hi]);
                        assert_eq!(ramps.len(), count, "{what}");
                        ramps.sort_by(|a, b| (a.start + a.width.min(0.0)).total_cmp(&(b.start + b.width.min(0.0))));
                        let mut at = lo;
                        for ramp in ramps {
                            let (from, to) = (ramp.start + ramp.width.min(0.0), ramp.start + ramp.width.max(0.0));
                            let near = 1e-9 * (hi - lo);
                            assert!((from - at).abs() < near && to > from, "{what}: {from}..{to} after {at}");
                            at = to;
                        }
                        assert!((at - hi).abs() < 1e-9 * (hi - lo), "{what}: {at}");
                    }
                }
            }
        }
    }
}
