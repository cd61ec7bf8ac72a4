//! The code of the network's input: how many levels it has, and what they stand for.

use super::Images;
use crate::chip::Chip;
use crate::error::Result;
use crate::network::{Layout, Network, Op};

/// Bits of the input's code on a chip with narrow thresholds: a layer's largest sums of codes times input are about four
/// codes times inputs, and should be about a threshold.
fn input_bits(chip: &Chip) -> u32 {
    let weight = chip.weights.signed_grid().map_or(0.0, |grid| grid.max_abs()).max(1.0).log2().ceil() as u32;
    chip.state.threshold_bits.saturating_sub(weight + 2).clamp(2, 11)
}

/// The same where biases are narrow, too: a bias has the unit of codes times inputs, so that the finer the input is, the
/// coarser are the codes beside which the biases fit. Both are equally fine at the square root of what there is room for.
/// `largest`: the largest input, in the units of the data file where it is whole numbers.
fn balanced_bits(network: &Network, images: &Images, chip: &Chip, largest: f32) -> u32 {
    let most = input_bits(chip);
    let Some(grid) = chip.weights.signed_grid() else { return most };
    let scale = images.scale.iter().fold(0f32, |most, s| most.max(s.abs()));
    // as the network sees it
    let largest = f64::from(if images.data.is_u8() { largest * scale } else { largest });
    // of each unit that reads the input: its bias over the largest current that one full input brings
    let mut ratios: Vec<f64> = Vec::new();
    for node in &network.nodes {
        let Op::Neurons { blocks, bias, .. } = &node.op else { continue };
        for block in blocks.iter().filter(|b| b.source == 0) {
            let rows = block.weight.chunks(block.weight.len() / bias.len().max(1));
            ratios.extend(rows.zip(bias).filter_map(|(row, b)| {
                let current = row.iter().fold(0f64, |most, w| most.max(f64::from(w.abs()))) * largest;
                (current > 0.0).then(|| f64::from(b.abs()) / current)
            }));
        }
    }
    ratios.sort_by(f64::total_cmp);
    let Some(typical) = ratios.get(ratios.len() / 2).copied().filter(|r| *r > 0.0) else { return most };
    let room = ((1u64 << (chip.state.bias_bits - 1)) - 1) as f64 / typical;
    if room >= grid.max_abs() * ((1u64 << most) - 1) as f64 {
        return most;
    }
    (room.sqrt().log2().round() as u32).clamp(2, most)
}

/// The input's largest size in calibration: of whole numbers, as they are, less the network's zero; of other data, as the
/// network sees it. Whole numbers are only looked at if the chip's thresholds are too narrow for all of them.
pub(super) fn largest_input(
    network: &Network,
    images: &Images,
    chip: &Chip,
    batches: &[std::ops::Range<usize>],
) -> Result<f32> {
    let whole = images.data.is_u8();
    if whole && balanced_bits(network, images, chip, 255.0) >= 8 {
        return Ok(255.0);
    }
    let (offset, area) = (offsets(network, images), images.data.shape().area());
    let mut largest = 0f32;
    for range in batches {
        let raw = images.data.batch(range.clone())?;
        if whole {
            let planes = raw.chunks_exact(area).enumerate();
            largest = planes.flat_map(|(i, p)| p.iter().map(move |v| (i, v))).fold(largest, |m, (i, v)| {
                m.max((v - offset[i % offset.len()]).abs()) //
            });
        } else {
            largest = images.preprocess(&raw).iter().fold(largest, |m, v| m.max(v.abs()));
        }
    }
    Ok(largest)
}

/// The whole numbers that stand for the network's zero, per channel.
fn offsets(network: &Network, images: &Images) -> Vec<f32> {
    let at = |v: &[f32], c: usize| v[c % v.len()];
    (0..network.input_shape().c)
        .map(|c| (-at(&images.shift, c) / at(&images.scale, c)).round().clamp(-255.0, 510.0))
        .collect()
}

/// The input's code. Whole numbers 0..255 stay what they are, less a whole offset per channel that puts the network's
/// zero (its padding) at 0, unless the chip's thresholds are too narrow for so many; other data is rounded to as many
/// bits as the first layer's sums can carry.
pub(super) fn input_code(
    network: &Network,
    images: &Images,
    chip: &Chip,
    largest: f32,
) -> (crate::spiking::InputCode, Vec<f64>) {
    let channels = network.input_shape().c;
    let at = |v: &[f32], c: usize| v[c % v.len()];
    let bits = balanced_bits(network, images, chip, largest);
    let levels = ((1u32 << bits) - 1) as f32;
    if images.data.is_u8() {
        let step = if bits < 8 { (largest / levels).max(1.0) } else { 1.0 };
        let offset = offsets(network, images);
        let code = crate::spiking::InputCode {
            layout: Layout::Nchw,
            scale: vec![1.0 / step; channels],
            shift: offset.iter().map(|o| -o / step).collect(),
            lo: -(510.0 / step).ceil() as i32,
            hi: (510.0 / step).ceil() as i32,
        };
        return (code, (0..channels).map(|c| f64::from(at(&images.scale, c) * step)).collect());
    }
    // 12 bits with the sign: a dense first layer of 4096 inputs with 8-bit weights still sums below 2^31.
    let step = if largest > 0.0 { largest / levels } else { 1.0 };
    let code = crate::spiking::InputCode {
        layout: Layout::Nchw,
        scale: (0..channels).map(|c| at(&images.scale, c) / step).collect(),
        shift: (0..channels).map(|c| at(&images.shift, c) / step).collect(),
        lo: -2 * levels as i32,
        hi: 2 * levels as i32,
    };
    (code, vec![f64::from(step); channels])
}
