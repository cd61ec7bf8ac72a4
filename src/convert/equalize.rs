//! Thresholds by what the synapses that read a layer can say, where weights are coarse (cross-layer equalization: Nagel et
//! al., ICCV 2019, with spikes in the place of real activations).
//!
//! A threshold t that is f times higher makes a channel's spikes fewer and each worth more: its synapses grow f times, and what
//! rounding them costs falls f^2 times, as long as a row's largest synapse, which sets the step of its grid, is another
//! channel's. In return the channel's own values are counted in coarser steps. Per channel c, with readers' rows r:
//!
//! ```text
//! sum over r of [ R step(r)^2 / 12 x sum over c of taps(c) var(c) / (t(c) f(c))^2 ] + sum over c of w(c)^2 loss(c, f(c))
//! ```
//!
//! var is of the trained activation, loss what counting costs a value, w(c)^2 the squared weights that read c. Thresholds are
//! raised one channel at a time until none gains: what a channel gains only grows as others are raised.

use rayon::prelude::*;

use super::encode::{Code, Ramp};
use super::remainder;
use super::views::is_coarse;
use super::walk::Walk;
use crate::chip::ScaleOwner;
use crate::compute::simd::{sum_pairs, vectorized};
use crate::network::{Activation, Block, Network, Op};

/// R: the share of the squared error of rounding to nearest that a fit leaves, what its free synapses leave not counted: 0.1 to
/// 0.2 in most layers (columns *round*, *fit*, *stored* of a conversion's table).
const ROUNDING: f64 = 0.15;
/// Factors that are tried: powers of this one, so many.
const FACTOR: f64 = 1.1;
const FACTORS: i32 = 15;
/// Rounds over the channels at most.
const ROUNDS: usize = 8;

/// A block of synapses that reads the layer.
struct Reader<'a> {
    weight: &'a [f32],
    rows: usize,
    taps: usize,
    /// Per channel of the layer: the channels of the block that hand it on.
    places: Vec<Vec<usize>>,
}

/// A channel of the layer.
struct Channel {
    threshold: f64,
    /// Of its trained values.
    variance: f64,
    /// Mean squared error of counting them, per factor.
    losses: Vec<f64>,
}

impl Walk<'_> {
    /// Raises thresholds of `code`, layer `index`'s, which has seen the pre-activations `samples` (per channel). Not where units
    /// have several neurons: they make up for each other's synapses, and gain more from finer counts.
    pub(super) fn equalized(&self, index: usize, code: &mut Code, samples: &[Vec<f32>]) {
        let Some(grid) = self.rules.grid.as_ref().filter(|grid| is_coarse(grid)) else { return };
        let rectified = matches!(self.network.nodes[index].op, Op::Neurons { activation: Activation::Relu, .. });
        let plain = self.rules.types.is_none() && self.rules.owner != ScaleOwner::Layer && self.spiking.model.rounds();
        if !(self.options.equalize && rectified && plain && code.population() == 1) {
            return;
        }
        let channel = |(ramps, z): (&Vec<Ramp>, &Vec<f32>)| self.channel(&ramps[0], z);
        let channels: Vec<Channel> = code.ramps.par_iter().zip(samples).map(channel).collect();
        let largest = grid.levels().iter().fold(0.0f64, |most, level| most.max(level.abs()));
        let chosen = raised(&readers(self.network, index), &channels, ROUNDING / (12.0 * largest * largest));
        for (ramp, &i) in code.ramps.iter_mut().flatten().zip(&chosen) {
            let factor = FACTOR.powi(i as i32);
            ramp.width *= factor;
            ramp.value *= factor;
        }
        tracing::debug!(layer = self.network.nodes[index].name, ?chosen, "equalized");
    }

    fn channel(&self, ramp: &Ramp, z: &[f32]) -> Channel {
        let (start, steps) = (ramp.start, self.spiking.steps);
        let count = z.len().max(1) as f64;
        let value = |z: f64| z.max(0.0);
        let (sum, squares) = z.iter().fold((0.0, 0.0), |(sum, squares), &z| {
            let v = value(f64::from(z));
            (sum + v, squares + v * v)
        });
        let model = &self.spiking.model;
        let (v0, most) = (model.initial_potential(), model.max_rate());
        let loss = |i: i32| {
            let width = ramp.width * FACTOR.powi(i);
            let off = vectorized(|| {
                sum_pairs(z, z, |z, _| {
                    let rate = model.count_soft(((z - start) / width).min(most), v0, steps) / f64::from(steps);
                    (start + width * rate - value(z)).powi(2)
                })
            });
            off / count
        };
        let variance = (squares / count - (sum / count).powi(2)).max(0.0);
        Channel { threshold: ramp.width, variance, losses: (0..FACTORS).map(loss).collect() }
    }
}

/// Who reads `index`, also through pools, concatenations and rearrangements. Not grouped convolutions, nor remainder layers,
/// which have the weights of what they follow.
fn readers(network: &Network, index: usize) -> Vec<Reader<'_>> {
    let count = network.nodes[index].shape.c;
    // per node: the channel of `index` that each of its channels hands on
    let mut handed: Vec<Vec<Option<usize>>> = network.nodes.iter().map(|n| vec![None; n.shape.c]).collect();
    handed[index] = (0..count).map(Some).collect();
    let mut readers = vec![];
    for (i, node) in network.nodes.iter().enumerate().skip(index + 1) {
        match &node.op {
            Op::Neurons { blocks, bias, .. } if remainder::of(network, i).is_none() => {
                let reads = |b: &&Block| b.groups == 1 && handed[b.source].iter().any(Option::is_some);
                for block in blocks.iter().filter(reads) {
                    let mut places = vec![vec![]; count];
                    let from = handed[block.source].iter().enumerate();
                    from.for_each(|(k, c)| c.iter().for_each(|&c| places[c].push(k)));
                    readers.push(Reader { weight: &block.weight, rows: bias.len(), taps: block.window.taps(), places });
                }
            }
            Op::Neurons { .. } | Op::Input => {}
            Op::AveragePool { source, .. } | Op::MaxPool { source, .. } => handed[i] = handed[*source].clone(),
            Op::Concat { sources } => handed[i] = sources.iter().flat_map(|&s| handed[s].clone()).collect(),
            Op::Gather { source, index } => {
                let area = network.nodes[*source].shape.area();
                let first = |places: &[u32]| {
                    let at = places.iter().find(|&&at| at != u32::MAX)?;
                    handed[*source][*at as usize / area]
                };
                handed[i] = index.chunks(node.shape.area()).map(first).collect();
            }
        }
    }
    readers
}

impl Reader<'_> {
    /// Sizes of the weights of one row that read `channel`.
    fn sizes(&self, row: usize, channel: usize) -> impl Iterator<Item = f64> {
        let width = self.weight.len() / self.rows;
        let first = self.places[channel].iter().map(move |k| row * width + k * self.taps);
        first.flat_map(|at| self.weight[at..at + self.taps].iter().map(|w| f64::from(w.abs())))
    }

    fn reach(&self, row: usize, channel: usize) -> f64 {
        self.sizes(row, channel).fold(0.0, f64::max)
    }

    fn inputs(&self, channel: usize) -> f64 {
        (self.places[channel].len() * self.taps) as f64
    }
}

/// What a row's step is set by.
#[derive(Clone, Copy, Default)]
struct Top {
    reach: f64,
    channel: usize,
    /// Of another channel.
    second: f64,
}

impl Top {
    fn of(reader: &Reader, channels: &[Channel], chosen: &[usize], row: usize) -> Self {
        let mut top = Top::default();
        for (c, (channel, &i)) in channels.iter().zip(chosen).enumerate() {
            top.with(c, reader.reach(row, c) * channel.threshold * FACTOR.powi(i as i32));
        }
        top
    }

    /// One channel's reach, at least what it was before.
    fn with(&mut self, channel: usize, reach: f64) {
        if channel == self.channel {
            self.reach = self.reach.max(reach);
        } else if reach > self.reach {
            *self = Self { reach, channel, second: self.reach };
        } else {
            self.second = self.second.max(reach);
        }
    }

    fn without(&self, channel: usize) -> f64 {
        if channel == self.channel { self.second } else { self.reach }
    }

    /// A row of one synapse (a shortcut) has a step that suits it.
    fn rounds(&self) -> bool {
        self.second > 0.0
    }
}

/// Per channel the factor's number; `rounding`: squared error of a synapse over the square of its row's largest one.
fn raised(readers: &[Reader], channels: &[Channel], rounding: f64) -> Vec<usize> {
    let mut chosen = vec![0usize; channels.len()];
    let spread = |c: usize, i: usize| channels[c].variance / (channels[c].threshold * FACTOR.powi(i as i32)).powi(2);
    let mut tops: Vec<Vec<Top>> = readers
        .iter()
        .map(|r| (0..r.rows).into_par_iter().map(|row| Top::of(r, channels, &chosen, row)).collect())
        .collect();
    let all = |r: &Reader| (0..channels.len()).map(|c| r.inputs(c) * spread(c, 0)).sum::<f64>();
    let mut spreads: Vec<f64> = readers.iter().map(all).collect();
    for _ in 0..ROUNDS {
        let before = chosen.clone();
        for c in 0..channels.len() {
            let now = chosen[c];
            // per row: its reach without c and with it, a factor of one
            let rows: Vec<Vec<[f64; 2]>> = readers
                .iter()
                .zip(&tops)
                .map(|(r, tops)| {
                    let there = tops.iter().enumerate().filter(|(_, top)| top.rounds());
                    there.map(|(row, top)| [top.without(c), r.reach(row, c) * channels[c].threshold]).collect()
                })
                .collect();
            let power: f64 =
                readers.iter().map(|r| (0..r.rows).flat_map(|row| r.sizes(row, c)).map(|w| w * w).sum::<f64>()).sum();
            let cost = |i: usize| {
                let factor = FACTOR.powi(i as i32);
                let rounded: f64 = readers
                    .iter()
                    .zip(&rows)
                    .zip(&spreads)
                    .map(|((r, rows), all)| {
                        let steps: f64 = rows.iter().map(|[others, own]| others.max(own * factor).powi(2)).sum();
                        steps * (all + r.inputs(c) * (spread(c, i) - spread(c, now)))
                    })
                    .sum();
                rounding * rounded + power * channels[c].losses[i]
            };
            let found = (now..channels[c].losses.len()).map(|i| (i, cost(i))).min_by(|a, b| a.1.total_cmp(&b.1));
            let Some((best, _)) = found.filter(|(i, _)| *i > now) else { continue };
            chosen[c] = best;
            for ((r, tops), all) in readers.iter().zip(&mut tops).zip(&mut spreads) {
                *all += r.inputs(c) * (spread(c, best) - spread(c, now));
                let reach = channels[c].threshold * FACTOR.powi(best as i32);
                tops.iter_mut().enumerate().for_each(|(row, top)| top.with(c, r.reach(row, c) * reach));
            }
        }
        if chosen == before {
            break;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(weight: &[f32], channels: usize, taps: usize) -> Reader<'_> {
        let places = (0..channels).map(|c| vec![c]).collect();
        Reader { weight, rows: weight.len() / (channels * taps), taps, places }
    }

    /// A channel of threshold 1 whose values are counted with an error of `unit` at factor one.
    fn channel(unit: f64) -> Channel {
        Channel { threshold: 1.0, variance: 0.05, losses: (0..FACTORS).map(|i| unit * FACTOR.powi(2 * i)).collect() }
    }

    /// The sum of the file's header, straight.
    fn cost(reader: &Reader, channels: &[Channel], chosen: &[usize], rounding: f64) -> f64 {
        let factor = |c: usize| channels[c].threshold * FACTOR.powi(chosen[c] as i32);
        let all = || 0..channels.len();
        let rows = (0..reader.rows).map(|row| {
            let step = all().map(|c| reader.reach(row, c) * factor(c)).fold(0.0, f64::max);
            step * step * all().map(|c| reader.inputs(c) * channels[c].variance / factor(c).powi(2)).sum::<f64>()
        });
        let counted = all().map(|c| {
            let power: f64 = (0..reader.rows).flat_map(|row| reader.sizes(row, c)).map(|w| w * w).sum();
            power * channels[c].losses[chosen[c]]
        });
        rounding * rows.sum::<f64>() + counted.sum::<f64>()
    }

    #[test]
    fn no_further_step_gains() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut some = 0;
        for case in 0..40 {
            let (n, rows, taps) = (1 + rng.usize(0..9), 1 + rng.usize(0..7), 1 + rng.usize(0..4));
            let sizes: Vec<f32> = (0..n).map(|_| 0.1 + rng.f32()).collect();
            let weight: Vec<f32> = (0..rows * n * taps).map(|i| sizes[i / taps % n] * (rng.f32() - 0.5)).collect();
            let reader = reader(&weight, n, taps);
            let channels: Vec<Channel> = (0..n).map(|_| channel(1e-4 * rng.f64())).collect();
            let rounding = 0.15 / (12.0 * 9.0);
            let chosen = raised(std::slice::from_ref(&reader), &channels, rounding);
            if n == 1 {
                assert_eq!(chosen, [0], "one channel cannot be larger than others");
                continue;
            }
            let least = cost(&reader, &channels, &chosen, rounding);
            assert!(least <= cost(&reader, &channels, &vec![0; n], rounding), "case {case}");
            some += usize::from(chosen.iter().any(|i| *i > 0));
            for c in 0..n {
                for i in chosen[c]..FACTORS as usize {
                    let mut other = chosen.clone();
                    other[c] = i;
                    let other = cost(&reader, &channels, &other, rounding);
                    assert!(other >= least * (1.0 - 1e-9), "case {case}: channel {c} at {i}");
                }
            }
        }
        assert!(some > 20, "{some}");
    }

    #[test]
    fn small_synapses_grow_as_coarse_weights_ask() {
        // two rows: channel 0 sets the steps, channel 1 has a quarter of its weights
        let weight = [1.0, 0.25, -1.0, 0.25];
        let reader = reader(&weight, 2, 1);
        let factor = |bits: i32, unit: f64| {
            let largest = 2f64.powi(bits - 1) - 1.0;
            let channels = [channel(unit), channel(unit)];
            raised(std::slice::from_ref(&reader), &channels, ROUNDING / (12.0 * largest * largest))
        };
        assert_eq!(factor(3, 1e-6)[0], 0);
        let found = FACTOR.powi(factor(3, 1e-6)[1] as i32);
        assert!(found > 3.0 && found <= 4.0, "{found}");
        // finer weights, or coarser counts, ask for less
        assert!(factor(4, 3e-4)[1] < factor(3, 3e-4)[1]);
        assert!(factor(3, 1e-3)[1] < factor(3, 1e-5)[1]);
    }
}
