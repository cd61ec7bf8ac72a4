//! What pruning reads of the data: the consumers' Gram matrices over the trained activations, and the channels' means
//! and peaks.

use std::collections::BTreeMap;

use super::super::room::size;
use super::super::{Images, Watch, go_on};
use crate::compute::gram::{Moments, PatchSpec, Sums};
use crate::compute::{Device, free_host_bytes};
use crate::error::{Error, Result};
use crate::forward::Forward;
use crate::network::{Network, Op, Shape};

/// n x n matrices in f64 of one consumer at a time: the sums, the problem's H, the system's, its factor and inverse, and
/// what is left of the inverse while nodes go.
const COPIES: u64 = 6;

/// Why a consumer of `n` inputs is not looked at where `free` bytes are.
fn refusal(n: usize, free: u64) -> Option<String> {
    let square = (n as u64).saturating_mul(n as u64).saturating_mul(size_of::<f64>() as u64);
    let need = square.saturating_mul(COPIES);
    (need > free).then(|| {
        format!(
            "has {n} inputs: to prune what it reads takes {} where {} are free; keep the layers before it whole",
            size(need),
            size(free)
        )
    })
}

/// Of one layer's trained activations, per channel.
#[derive(Debug, Clone, Default)]
pub struct Activity {
    pub mean: Vec<f64>,
    pub peak: Vec<f64>,
}

pub struct Survey<'a> {
    pub dev: &'a Device,
    pub network: &'a Network,
    pub images: &'a Images,
    pub batch_bytes: u64,
    pub watch: &'a dyn Watch,
}

impl Survey<'_> {
    /// Presynaptic inputs of one row.
    pub fn inputs(&self, layer: usize) -> usize {
        let Op::Neurons { blocks, .. } = &self.network.nodes[layer].op else { return 0 };
        blocks.iter().map(|b| self.network.nodes[b.source].shape.c / b.groups * b.window.taps()).sum()
    }

    /// One pass over the calibration images: moments of the inputs of `consumers`, activity of `layers`.
    ///
    /// # Errors
    /// Input: a consumer has more inputs than memory allows. A broken device, an interrupt.
    pub fn run(
        &self,
        consumers: &[usize],
        layers: &[usize],
    ) -> Result<(BTreeMap<usize, Sums>, BTreeMap<usize, Activity>)> {
        let mut moments = BTreeMap::new();
        for &j in consumers {
            let node = &self.network.nodes[j];
            if let Some(why) = free_host_bytes().and_then(|free| refusal(self.inputs(j), free)) {
                return Err(Error::input(format!("keep: layer {}", node.name), why));
            }
            // The targets are W times the inputs: H says it all.
            let output = Shape { c: 1, ..node.shape };
            moments.insert(j, Moments::new(self.dev, &self.patches(j), output, 1)?);
        }
        let mut seen: BTreeMap<usize, Activity> = layers.iter().map(|&l| (l, Activity::default())).collect();
        let forward = Forward::new(self.dev, self.network)?;
        let size = self.batch();
        self.watch.stage("survey", self.images.len().div_ceil(size) as u64);
        for start in (0..self.images.len()).step_by(size) {
            go_on(self.watch)?;
            let range = start..(start + size).min(self.images.len());
            let count = range.len();
            let input = self.images.preprocess(&self.images.data.batch(range)?);
            forward.visit(self.dev, count, &input, |i, inputs, value| {
                if let Some(moments) = moments.get_mut(&i) {
                    let none = self.dev.upload(&vec![0f32; count * self.network.nodes[i].shape.area()])?;
                    moments.add(count, inputs, &none)?;
                }
                if let Some(activity) = seen.get_mut(&i) {
                    activity.add(&self.dev.view(value)?, self.network.nodes[i].shape);
                }
                Ok(())
            })?;
            self.watch.tick();
        }
        for (l, activity) in &mut seen {
            let samples = (self.images.len() * self.network.nodes[*l].shape.area()) as f64;
            activity.mean.iter_mut().for_each(|m| *m /= samples);
        }
        let sums = moments.into_iter().map(|(j, m)| Ok((j, m.finish()?))).collect::<Result<_>>()?;
        Ok((sums, seen))
    }

    fn patches(&self, layer: usize) -> Vec<PatchSpec> {
        let Op::Neurons { blocks, .. } = &self.network.nodes[layer].op else { return vec![] };
        let spec = |b: &crate::network::Block| PatchSpec {
            input: self.network.nodes[b.source].shape,
            window: b.window,
            groups: b.groups,
        };
        blocks.iter().map(spec).collect()
    }

    /// Images whose activations, three nodes at a time, fit the budget and one device binding.
    fn batch(&self) -> usize {
        let largest = self.network.nodes.iter().map(|n| n.shape.len() as u64 * 4).max().unwrap_or(1);
        let most = (self.batch_bytes / (3 * largest)).min(self.dev.max_buffer_bytes() / largest);
        most.clamp(1, self.images.len().max(1) as u64) as usize
    }
}

impl Activity {
    fn add(&mut self, values: &[f32], shape: Shape) {
        self.mean.resize(shape.c, 0.0);
        self.peak.resize(shape.c, 0.0);
        for (i, plane) in values.chunks_exact(shape.area()).enumerate() {
            self.mean[i % shape.c] += plane.iter().map(|v| f64::from(*v)).sum::<f64>();
            let peak = &mut self.peak[i % shape.c];
            *peak = plane.iter().fold(*peak, |m, v| m.max(f64::from(v.abs())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn many_inputs_are_refused_by_memory_alone() {
        let need = 6 * 8 * 9216u64 * 9216;
        assert_eq!(refusal(9216, need), None);
        let why = refusal(9216, 2 << 30).unwrap();
        assert!(why.contains("9216 inputs") && why.contains("3.8 GiB where 2.0 GiB are free"), "{why}");
        assert!(refusal(usize::MAX, u64::MAX - 1).is_some());
    }
}
