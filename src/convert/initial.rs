//! Initial potentials by trial. Half a threshold is best for a constant current (METHOD section 3); where the input is
//! uneven, a neuron that fired early cannot take its spike back, so that many fire too often. A lower potential to begin
//! with makes up for that. METHOD section 2 has what it brings.

use super::walk::Walk;
use super::worker::ready;
use super::{Initial, Response};
use crate::compute::simd::{sum_pairs, vectorized};
use crate::error::Result;
use crate::spiking::{Schedule, SpikingOp, State};

/// What is tried beside half a threshold, in thresholds.
const TRIED: [f64; 7] = [0.4, 0.3, 0.2, 0.1, 0.0, 0.6, 0.7];
/// Calibration images and samples a channel that are enough to choose by.
const ENOUGH: (usize, usize) = (128, 16_384);
/// Share of its error that a channel must gain by leaving half a threshold: less is chance.
const GAIN: f64 = 0.01;

impl Walk<'_> {
    /// Gives every channel of layer `index`, just fitted, the initial potential with the least squared error of its
    /// decoded rates on the calibration images. Leaves layers alone that see constant currents (the first one, and all
    /// in the layered schedule), and neurons that are not one to a unit or not in integers.
    pub(super) fn initial_potentials(&mut self, index: usize) -> Result<()> {
        let node = &self.spiking.nodes[index];
        let SpikingOp::Neurons(layer) = &node.op else { return Ok(()) };
        let State::Integer { threshold, initial, .. } = &layer.state else { return Ok(()) };
        let single = node.decode.origin.windows(2).all(|pair| pair[0] < pair[1]);
        let uneven = self.spiking.schedule == Schedule::Streaming
            && layer.synapses.iter().any(|s| !self.spiking.nodes[s.source].constant);
        let wanted = self.options.initial == Initial::Calibrated && self.options.response == Response::Measured;
        if !(wanted && single && uneven && layer.fires) {
            return Ok(());
        }
        let mut initials = vec![initial.clone()];
        initials.extend(TRIED.map(|part| threshold.iter().map(|t| (f64::from(*t) * part) as i32).collect()));
        let (shape, decode) = (node.shape, node.decode.clone());
        let (rate, area) = (self.rate_per_total(index), shape.area());
        // as many images whatever the batches, which differ between devices
        let enough = ENOUGH.0.max(ENOUGH.1.div_ceil(area)).min(self.images.len());
        // [device][initial][channel]
        let mut states = self.states(|_, _, _| Ok(vec![vec![0.0; shape.c]; initials.len()]))?;
        self.work(0..enough, &mut states, |at, errors| {
            let images = at.images();
            let planes = shape.c * images.min(enough - at.first());
            let inputs = at.inputs(index)?;
            let inputs: Vec<_> = inputs.iter().collect();
            let counts = ready(&at.worker.runners, index)?.counts_from(at.dev, images, &inputs, &initials)?;
            let trained = at.trained(index)?;
            let trained = at.dev.view(&trained)?;
            for (counts, errors) in counts.iter().zip(errors.iter_mut()) {
                let counts = at.dev.view(counts)?;
                for (plane, n) in counts.chunks_exact(area).enumerate().take(planes) {
                    let (image, channel) = (plane / shape.c, plane % shape.c);
                    let origin = decode.origin[channel] as usize;
                    let wanted = &trained[(image * decode.channels + origin) * area..][..area];
                    let (gain, base) = (decode.gain[channel] * rate, decode.base[origin]);
                    errors[channel] += vectorized(|| {
                        sum_pairs(n, wanted, |n, t| {
                            let error = base + gain * n - t;
                            error * error
                        })
                    });
                }
            }
            Ok(())
        })?;
        let mut errors = vec![vec![0.0; shape.c]; initials.len()];
        for part in &states {
            errors.iter_mut().flatten().zip(part.iter().flatten()).for_each(|(sum, part)| *sum += part);
        }
        let mut chosen = initials[0].clone();
        for (channel, chosen) in chosen.iter_mut().enumerate() {
            let mut least = errors[0][channel] * (1.0 - GAIN);
            for (initial, errors) in initials.iter().zip(&errors).skip(1) {
                if errors[channel] < least {
                    (least, *chosen) = (errors[channel], initial[channel]);
                }
            }
        }
        if let SpikingOp::Neurons(layer) = &mut self.spiking.nodes[index].op
            && let State::Integer { initial, .. } = &mut layer.state
        {
            *initial = chosen;
        }
        self.upload(index)
    }
}
