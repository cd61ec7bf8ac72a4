//! What pruning reads of the data: the consumers' Gram matrices over the trained activations, and the channels' means
//! and peaks.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::room::size;
use super::super::worker::images_within;
use super::super::{Images, Options, Watch, go_on, pieces};
use crate::compute::gram::{Moments, PatchSpec, Sums};
use crate::compute::{Device, Stop, Team, free_host_bytes};
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
    pub team: &'a Team,
    pub network: &'a Network,
    pub images: &'a Images,
    pub options: &'a Options,
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
        for &j in consumers {
            let free = free_host_bytes(self.options.host_bytes);
            if let Some(why) = free.and_then(|free| refusal(self.inputs(j), free)) {
                return Err(Error::input(format!("keep: layer {}", self.network.nodes[j].name), why));
            }
        }
        let parts = self.team.split(0..self.images.len());
        let batches =
            parts.iter().zip(self.team.devices()).map(|(part, dev)| part.len().div_ceil(self.batch(dev)) as u64);
        self.watch.stage("survey", batches.sum());
        let found = self.team.each(parts, |dev, images, stop| self.part(dev, images, (consumers, layers), stop))?;
        let (moments, activity): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        // per consumer: every device's, in their order
        let mut of_consumer: BTreeMap<usize, Vec<Moments>> = BTreeMap::new();
        moments.into_iter().flatten().for_each(|(j, m)| of_consumer.entry(j).or_default().push(m));
        let sums = of_consumer.into_iter().map(|(j, m)| Ok((j, Moments::finish_all(m)?))).collect::<Result<_>>()?;
        let mut seen: BTreeMap<usize, Activity> = BTreeMap::new();
        activity.into_iter().flatten().for_each(|(l, a)| seen.entry(l).or_default().merge(&a));
        for (l, activity) in &mut seen {
            let samples = (self.images.len() * self.network.nodes[*l].shape.area()) as f64;
            activity.mean.iter_mut().for_each(|m| *m /= samples);
        }
        Ok((sums, seen))
    }

    /// One device's part of the pass. Means are sums yet.
    fn part(
        &self,
        dev: &Device,
        images: Range<usize>,
        (consumers, layers): (&[usize], &[usize]),
        stop: &Stop,
    ) -> Result<(BTreeMap<usize, Moments>, BTreeMap<usize, Activity>)> {
        let mut moments = BTreeMap::new();
        for &j in consumers {
            // The targets are W times the inputs: H says it all.
            let output = Shape { c: 1, ..self.network.nodes[j].shape };
            moments.insert(j, Moments::new(dev, &self.patches(j), output, 1)?);
        }
        let mut seen: BTreeMap<usize, Activity> = layers.iter().map(|&l| (l, Activity::default())).collect();
        let forward = Forward::new(dev, self.network)?;
        for range in pieces(images, self.batch(dev)).take_while(|_| !stop.asked()) {
            go_on(self.watch)?;
            let count = range.len();
            let input = self.images.preprocess(&self.images.data.batch(range)?);
            forward.visit(dev, count, &input, |i, inputs, value| {
                if let Some(moments) = moments.get_mut(&i) {
                    let none = dev.upload(&vec![0f32; count * self.network.nodes[i].shape.area()])?;
                    moments.add(count, inputs, &none)?;
                }
                if let Some(activity) = seen.get_mut(&i) {
                    activity.add(&dev.view(value)?, self.network.nodes[i].shape);
                }
                Ok(())
            })?;
            self.watch.tick();
        }
        Ok((moments, seen))
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
    fn batch(&self, dev: &Device) -> usize {
        let largest = self.network.nodes.iter().map(|n| n.shape.len() as u64 * 4).max().unwrap_or(1);
        let most = (dev.max_buffer_bytes() / largest) as usize;
        images_within(dev, self.options, 3 * largest, most.min(self.images.len()))
    }
}

impl Activity {
    /// Adds another device's sums.
    fn merge(&mut self, other: &Activity) {
        self.mean.resize(other.mean.len().max(self.mean.len()), 0.0);
        self.peak.resize(self.mean.len(), 0.0);
        self.mean.iter_mut().zip(&other.mean).for_each(|(all, part)| *all += part);
        self.peak.iter_mut().zip(&other.peak).for_each(|(all, part)| *all = all.max(*part));
    }

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
