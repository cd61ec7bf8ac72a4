//! The passes over the images: variations of them seen, gradients taken, every layer stepped.

use super::super::go_on;
use super::super::worker::room;
use super::Tuner;
use super::descent::{Descent, has_axes};
use super::gradients::Gradient;
use super::vary::Vary;
use crate::error::Result;
use crate::network::{Dataset, Op};

/// Size of the first steps, in units of a layer's typical weight.
const RATE: f64 = 0.01;
/// What it is multiplied by to start again, and below what it is not.
const SMALLER: f64 = 0.25;
const LEAST: f64 = 1e-3;
/// The part of the steps after which that is decided, and what is too much, in units of the start.
const PART: usize = 10;
const MUCH: f64 = 1.5;
/// A bias's unit, in units of its layer's values.
const BIAS: f64 = 0.2;
/// Images that the axes of a layer's inputs are found on, at most.
const AXES: usize = 512;
/// Bytes of an entry of their sums: f32 and f64, of two threads.
const SUMS: u64 = 24;

impl Tuner<'_> {
    /// All passes over the images. A network that lacks much more than the `before` of its start when a part of them is done
    /// was moved too far from what was good already: it starts again in smaller steps.
    pub(super) fn run(&mut self, before: f64) -> Result<()> {
        let start = self.tuned.clone();
        let mut rate = RATE;
        while !self.passes(rate, (rate > LEAST).then_some(MUCH * before))? {
            self.tuned.clone_from(&start);
            rate *= SMALLER;
        }
        Ok(())
    }

    /// False: stopped after a part of them, since more than `most` lacks.
    fn passes(&mut self, rate: f64, most: Option<f64>) -> Result<bool> {
        let all = self.images.len();
        let steps = self.options.tune * all.div_ceil(self.batch);
        let mut rng = fastrand::Rng::with_seed(self.options.seed);
        let vary = Vary::new(self.trained, self.size[0] as f32, self.images.data.is_random());
        let layers = self.layers();
        let mut descents = self.descents(&layers, &vary, &mut rng)?;
        let mut order: Vec<usize> = (0..all).collect();
        let mut step = 0;
        self.watch.stage("tune", steps as u64);
        for pass in 0..self.options.tune {
            rng.shuffle(&mut order);
            let anew = self.images.data.anew(pass);
            let data = anew.as_ref().unwrap_or(&self.images.data);
            for picked in order.chunks(self.batch) {
                go_on(self.watch)?;
                let seen = self.see(picked.len(), &self.varied(data, picked, &vary, &mut rng)?)?;
                let gradients = self.gradients(seen)?;
                let rate = rate * 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos());
                for ((&i, gradient), descent) in layers.iter().zip(&gradients).zip(&mut descents) {
                    self.moved(i, &descent.step(rate, gradient));
                }
                step += 1;
                self.watch.tick();
                if let Some(most) = most.filter(|_| step == steps.div_ceil(PART)) {
                    let lacking = self.lacking()?;
                    tracing::debug!(rate, lacking, most, "tuning");
                    if lacking > most {
                        return Ok(false);
                    }
                    self.watch.stage("tune", (steps - step) as u64);
                }
            }
        }
        Ok(true)
    }

    /// Variations of these images of `data`, preprocessed.
    fn varied(&self, data: &Dataset, picked: &[usize], vary: &Vary, rng: &mut fastrand::Rng) -> Result<Vec<f32>> {
        let mut input = Vec::new();
        for &image in picked {
            let image = self.images.preprocess(&data.batch(image..image + 1)?);
            vary.image(&image, rng, &mut input);
        }
        vary.mix(&mut input, rng);
        Ok(input)
    }

    /// What steps each of `layers`, along the axes of its inputs where they can be found.
    fn descents(&self, layers: &[usize], vary: &Vary, rng: &mut fastrand::Rng) -> Result<Vec<Descent>> {
        let images: Vec<usize> = (0..self.images.len().min(AXES)).collect();
        let mut descents: Vec<Descent> = layers.iter().map(|&i| self.descent(i)).collect();
        let inputs = |i: usize| self.masks[i].len() / self.tuned.nodes[i].shape.c;
        let samples = |i: usize| images.len() * self.tuned.nodes[i].shape.area();
        let mut left: Vec<usize> = (0..layers.len()).collect();
        left.retain(|&k| has_axes(inputs(layers[k]), samples(layers[k])));
        // sums of as many layers at once as there is room for
        let bytes = |i: usize| {
            let groups = self.blocks(i).next().map_or(1, |b| b.groups);
            (groups * inputs(i) * inputs(i)) as u64 * SUMS
        };
        while !left.is_empty() {
            let mut room = room(self.dev, self.options) / 4;
            let mut few = 0;
            while few < left.len() && (few == 0 || bytes(layers[left[few]]) <= room) {
                room = room.saturating_sub(bytes(layers[left[few]]));
                few += 1;
            }
            let now: Vec<usize> = left.drain(..few).collect();
            let mut sums = now.iter().map(|&k| self.moments(layers[k])).collect::<Result<Vec<_>>>()?;
            self.watch.stage("tune: axes", images.len().div_ceil(self.batch) as u64);
            for picked in images.chunks(self.batch) {
                go_on(self.watch)?;
                let seen = self.see(picked.len(), &self.varied(&self.images.data, picked, vary, rng)?)?;
                for (&k, sums) in now.iter().zip(&mut sums) {
                    let i = layers[k];
                    sums.add(picked.len(), &self.inputs(i, &seen.values)?, self.value(&seen.values, i)?)?;
                }
                self.watch.tick();
            }
            for (k, sums) in now.into_iter().zip(sums) {
                descents[k].turn(&sums.finish()?);
            }
        }
        Ok(descents)
    }

    /// Steps in units of a block's typical weight.
    fn descent(&self, i: usize) -> Descent {
        let rows = self.tuned.nodes[i].shape.c;
        let mut first = 0;
        let mut units = vec![];
        for block in self.blocks(i) {
            let width = block.weight.len() / rows;
            let masks = self.masks[i].chunks_exact(self.masks[i].len() / rows).flat_map(|row| &row[first..][..width]);
            let (squares, count) = block.weight.iter().zip(masks).fold((0.0, 0usize), |(sum, count), (w, stays)| {
                (sum + f64::from(*w).powi(2), count + usize::from(*stays))
            });
            units.extend(std::iter::repeat_n((squares / count.max(1) as f64).sqrt(), width));
            first += width;
        }
        units.push(self.size[i] * BIAS);
        Descent::new(rows, units)
    }

    /// Adds `step` to the parameters of layer `i` that stay.
    pub(super) fn moved(&mut self, i: usize, step: &Gradient) {
        let Op::Neurons { blocks, bias, .. } = &mut self.tuned.nodes[i].op else { return };
        let n = step.weights.len() / bias.len();
        let mut first = 0;
        for block in blocks.iter_mut().filter(|b| !self.silent[b.source]) {
            let width = block.weight.len() / bias.len();
            for (row, weights) in block.weight.chunks_exact_mut(width).enumerate() {
                let at = row * n + first..row * n + first + width;
                let step = step.weights[at.clone()].iter().zip(&self.masks[i][at]);
                weights
                    .iter_mut()
                    .zip(step)
                    .filter(|(_, (_, stays))| **stays)
                    .for_each(|(w, (by, _))| *w += *by as f32);
            }
            first += width;
        }
        let step = step.bias.iter().zip(&self.stays[i]);
        bias.iter_mut().zip(step).filter(|(_, (_, stays))| **stays).for_each(|(b, (by, _))| *b += *by as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Images, Options, Silent};
    use super::super::gradients::tests::network;
    use super::*;
    use crate::compute::Device;

    #[test]
    fn what_lacks_too_much_starts_again_in_smaller_steps() {
        let (network, plan) = network(&mut fastrand::Rng::with_seed(6));
        let data = Dataset::uniform(network.input_shape(), 40, &[-1.0], &[1.0], 3).unwrap();
        let images = Images { data, scale: vec![1.0], shift: vec![0.0] };
        let (dev, options) = (Device::cpu(), Options { tune: 20, ..Options::plain("generic8") });
        let tuner = || Tuner::new(&dev, &network, &images, &options, &plan, &Silent).unwrap();
        let mut stopped = tuner();
        assert!(!stopped.passes(RATE, Some(0.0)).unwrap());
        assert!(stopped.tuned != tuner().tuned);
        // no start is good enough: what comes of the smallest steps from the first one, and no less
        let (mut again, mut small) = (tuner(), tuner());
        again.run(0.0).unwrap();
        let rates = std::iter::successors(Some(RATE), |rate| Some(rate * SMALLER));
        assert!(small.passes(rates.take(9).find(|rate| *rate <= LEAST).unwrap(), None).unwrap());
        assert!(again.tuned == small.tuned && again.lacking().unwrap() < tuner().lacking().unwrap());
        // one is: the first steps go on
        let (mut first, mut whole) = (tuner(), tuner());
        first.run(f64::INFINITY).unwrap();
        assert!(whole.passes(RATE, None).unwrap() && first.tuned == whole.tuned);
    }
}
