//! A fitted layer's answer to the calibration images, which the layers after it are fitted to: simulated spike trains
//! (measured response) or counts under the mean current (analytic response).

use super::walk::Walk;
use super::{LayerRecord, Response};
use crate::compute::Device;
use crate::compute::simd::{sum_pairs, vectorized};
use crate::error::Result;
use crate::spiking::{Responder, SpikingNode};

impl Walk<'_> {
    /// Runs layer `index` on the calibration images; keeps its trains and what the report says of them.
    pub(super) fn fire(&mut self, index: usize, record: &mut LayerRecord) -> Result<()> {
        let node = self.spiking.nodes[index].clone();
        let rate = self.rate_per_total(index);
        let most = (f64::from(self.spiking.steps) * self.spiking.model.max_rate()).floor() as f32;
        let analytic = self.options.response == Response::Analytic;
        let start = |walk: &Self, _, dev: &Device| {
            let responder = analytic.then(|| Responder::new(dev, &walk.spiking, index)).transpose()?;
            Ok((responder, walk.tapes.tape()?, Tally::default()))
        };
        let done = self.each_batch(&format!("simulate {}", node.name), start, |at, (responder, tape, tally)| {
            let trains = match responder {
                Some(responder) => {
                    let inputs = at.inputs(index)?;
                    responder.run(at.dev, at.images(), &inputs.iter().collect::<Vec<_>>())?
                }
                None => at.run(index)?,
            };
            let totals = trains.totals(at.dev)?;
            tape.push_trains(at.dev, &trains, trains.most(node.peak, at.walk.spiking.steps))?;
            let trained = at.trained(index)?;
            tally.add(&node, &at.dev.view(&totals)?, &at.dev.view(&trained)?, rate, most);
            Ok(())
        })?;
        let mut all = Tally::default();
        for (worker, (_, tape, tally)) in self.workers.iter_mut().zip(done) {
            worker.spikes[index] = Some(tape);
            all.merge(tally);
        }
        all.report(record, rate);
        Ok(())
    }
}

/// Running sums over the simulated calibration images.
#[derive(Default)]
struct Tally {
    neurons: f64,
    spikes: f64,
    saturated: f64,
    fired: Vec<bool>,
    error: f64,
    sum: f64,
    squares: f64,
    values: f64,
}

impl Tally {
    fn add(&mut self, node: &SpikingNode, totals: &[f32], trained: &[f32], rate: f64, most: f32) {
        let len = node.shape.len();
        let area = node.shape.area();
        self.fired.resize(len, false);
        let kept = node.decode.answered();
        for (image, values) in totals.chunks_exact(len).zip(trained.chunks_exact(node.decode.channels * area)) {
            self.neurons += len as f64;
            let rates: Vec<f32> = image.iter().map(|&n| (f64::from(n) * rate) as f32).collect();
            let decoded = node.decode.values(&rates, area);
            let planes = decoded.chunks_exact(area).zip(values.chunks_exact(area)).zip(&kept);
            vectorized(|| {
                self.fired.iter_mut().zip(image).for_each(|(fired, &n)| *fired |= n > 0.0);
                self.spikes += sum_pairs(image, image, |n, _| n);
                let most = f64::from(most);
                self.saturated += sum_pairs(image, image, |n, _| f64::from(u8::from(n >= most)));
                for ((decoded, values), _) in planes.filter(|(_, kept)| **kept) {
                    self.error += sum_pairs(decoded, values, |a, b| (a - b) * (a - b));
                    self.sum += sum_pairs(values, values, |v, _| v);
                    self.squares += sum_pairs(values, values, |v, _| v * v);
                    self.values += area as f64;
                }
            });
        }
    }

    /// Adds another device's sums.
    fn merge(&mut self, other: Tally) {
        if self.fired.len() < other.fired.len() {
            self.fired.resize(other.fired.len(), false);
        }
        self.fired.iter_mut().zip(&other.fired).for_each(|(all, fired)| *all |= fired);
        self.neurons += other.neurons;
        self.spikes += other.spikes;
        self.saturated += other.saturated;
        self.error += other.error;
        self.sum += other.sum;
        self.squares += other.squares;
        self.values += other.values;
    }

    fn report(&self, record: &mut LayerRecord, rate: f64) {
        let spread = self.squares - self.sum * self.sum / self.values.max(1.0);
        record.response_error = (spread > 0.0).then_some(self.error / spread);
        record.rate = Some(self.spikes * rate / self.neurons.max(1.0));
        record.saturated = Some(self.saturated / self.neurons.max(1.0));
        record.dead = Some(self.fired.iter().filter(|f| !**f).count() as f64 / self.fired.len().max(1) as f64);
    }
}
