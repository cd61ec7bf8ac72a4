//! Rectified units that never rest: a neuron that begins to fire where such a unit's values begin divides their range into
//! its counts, not the way from zero to it. What it leaves out is a constant, which goes to the biases of what reads it.

use super::encode::{Layer, Ramp};
use super::tail;
use super::walk::Walk;
use crate::compute::simd::{sum_pairs, vectorized};
use crate::network::{Network, Op, Shape, Window};

/// Share of its threshold that a unit's low values must reach.
const WORTH: f64 = 0.1;
/// Share of the samples that may lie below what counts as low.
const LOW: usize = 64;
/// Starts and widths that are tried.
const STARTS: usize = 10;
const WIDTHS: i32 = 24;
/// Error that a start must save: what follows pays for it with larger biases and, where spikes are uneven, with more of
/// that.
const GAIN: f64 = 0.9;

/// The ramp of the rectifier `from` (which starts at zero) that starts above it with the least squared error over the samples,
/// if one is better.
pub(super) fn above_zero(layer: &Layer, z: &[f32], from: Ramp, levels: u32) -> Ramp {
    let mut sorted = z.to_vec();
    sorted.sort_by(f32::total_cmp);
    let (Some(&low), Some(&middle)) = (sorted.get(sorted.len() / LOW), sorted.get(sorted.len() / 2)) else {
        return from;
    };
    if f64::from(low) < WORTH * from.width {
        return from;
    }
    // Values below the samples' are as likely as ones above.
    let below = |v: &f32| 2.0 * f64::from(middle) - f64::from(*v);
    let mirrored: Vec<f32> = z.iter().filter(|v| **v < middle).map(|v| below(v) as f32).collect();
    let upper: Vec<f32> = z.iter().filter(|v| **v >= middle).copied().collect();
    let (values, weights): (Vec<f32>, Vec<f32>) = tail::smoothed(&mirrored, levels)
        .into_iter()
        .map(|(v, w)| (2.0 * f64::from(middle) - v, w))
        .chain(tail::smoothed(&upper, levels))
        .map(|(v, w)| (v.max(0.0) as f32, w as f32))
        .unzip();
    let (model, steps) = (&layer.model, f64::from(levels));
    let (v0, most) = (model.initial_potential(), model.max_rate());
    let error = |start: f64, width: f64| -> f64 {
        vectorized(|| {
            sum_pairs(&values, &weights, |z, weight| {
                let count = model.count_soft(((z - start) / width).min(most), v0, levels);
                weight * (start + width * count / steps - z).powi(2)
            })
        })
    };
    let mut best = (GAIN * error(0.0, from.width), from);
    for start in (1..=STARTS).map(|i| f64::from(middle) * i as f64 / STARTS as f64) {
        let room = (from.width * most - start) / most;
        for width in (0..=WIDTHS).map(|i| room * 0.5 * 1.05f64.powi(i)).filter(|w| *w > 0.0) {
            let found = error(start, width);
            if found < best.0 {
                best = (found, Ramp { start, width, value: width, ..from });
            }
        }
    }
    best.1
}

impl Walk<'_> {
    /// Whether units of layer `index` may have a value of their own at rate zero: not where a reader's window reaches beyond
    /// the map, because there it reads zeros; nor where the chip's biases or a scale shared by the layer may ask for wider
    /// thresholds, which needs currents that are proportional.
    pub(super) fn may_rest_above_zero(&self, index: usize) -> bool {
        self.options.offset && !self.narrow() && read_inside(self.network, index)
    }
}

fn read_inside(network: &Network, index: usize) -> bool {
    let shape = network.nodes[index].shape;
    (index + 1..network.nodes.len()).all(|reader| {
        let node = &network.nodes[reader];
        match &node.op {
            Op::Input => true,
            Op::Neurons { blocks, .. } => {
                blocks.iter().filter(|b| b.source == index).all(|b| inside(shape, node.shape, &b.window))
            }
            Op::AveragePool { source, window, .. } | Op::MaxPool { source, window } => {
                *source != index || (inside(shape, node.shape, window) && read_inside(network, reader))
            }
            Op::Concat { sources } => !sources.contains(&index) || read_inside(network, reader),
            Op::Gather { source, index: places } => {
                *source != index || (!places.contains(&u32::MAX) && read_inside(network, reader))
            }
        }
    })
}

/// No position of the window reaches beyond the map.
fn inside(input: Shape, output: Shape, w: &Window) -> bool {
    let (size, positions) = ([input.h, input.w], [output.h, output.w]);
    (0..2).all(|a| {
        let last = ((positions[a] - 1) * w.stride[a] + (w.kernel[a] - 1) * w.dilation[a]) as isize - w.pad[a];
        w.pad[a] <= 0 && last < size[a] as isize
    })
}
