//! The output layer of a network whose decision is what counts: instead of the outputs themselves, accumulate each
//! output's deviation from their mean, and the mean once more beside them. The decision depends on the deviations only.
//! Where all outputs move together (the costs of a control policy) they are far smaller than the outputs, and the same
//! grid holds them far more finely.

use crate::network::{Block, Shape};
use crate::spiking::Decode;

/// The layer's linear maps with m + 1 rows: deviations, then the mean.
pub fn blocks(blocks: &[Block], outputs: usize) -> Vec<Block> {
    blocks.iter().map(|b| Block { weight: rows(&b.weight, outputs), ..b.clone() }).collect()
}

/// `values` (weights, biases): m x length, row-major; gives (m + 1) x length.
pub fn rows(values: &[f32], outputs: usize) -> Vec<f32> {
    let length = values.len() / outputs;
    let mut mean = vec![0f64; length];
    for row in values.chunks_exact(length) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v) / outputs as f64);
    }
    let deviations = values.iter().enumerate().map(|(i, v)| (f64::from(*v) - mean[i % length]) as f32);
    deviations.chain(mean.iter().map(|m| *m as f32)).collect()
}

/// Pre-activations of a batch, `[images][shape]`, made into deviations and mean, `[images][shape + 1 channel]`.
pub fn targets(z: &[f32], shape: Shape) -> Vec<f32> {
    z.chunks_exact(shape.len()).flat_map(|image| rows(image, shape.c)).collect()
}

/// The mean is added to every output.
pub fn decode(outputs: usize) -> Decode {
    Decode {
        channels: outputs,
        origin: (0..outputs as u32).chain([Decode::ALL]).collect(),
        gain: vec![1.0; outputs + 1],
        base: vec![0.0; outputs],
    }
}
