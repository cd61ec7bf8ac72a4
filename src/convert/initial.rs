//! Initial potentials by trial. Half a threshold is best for a constant current (METHOD section 3); where the input is
//! uneven, a neuron that fired early cannot take its spike back, so that many fire too often. A lower potential to begin
//! with makes up for that. METHOD section 2 has what it brings.

use super::walk::{Walk, runner};
use super::{Initial, Response};
use crate::compute::simd::{sum_pairs, vectorized};
use crate::error::{Error, Result};
use crate::spiking::simulate::Runner;
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
        let (name, shape, decode) = (node.name.clone(), node.shape, node.decode.clone());
        let (rate, area) = (self.rate_per_total(index), shape.area());
        // [initial][channel]
        let mut errors = vec![vec![0.0; shape.c]; initials.len()];
        // as many images whatever the batches, which differ between devices
        let mut left = ENOUGH.0.max(ENOUGH.1.div_ceil(area));
        for batch in 0..self.batches.len() {
            if left == 0 {
                break;
            }
            super::go_on(self.watch)?;
            let images = self.batches[batch].len();
            let planes = shape.c * images.min(left);
            left -= images.min(left);
            let sources = runner(&self.runners, index)?.sources().to_vec();
            let inputs = sources.into_iter().map(|s| self.trains(s, batch)).collect::<Result<Vec<_>>>()?;
            let inputs: Vec<_> = inputs.iter().collect();
            let counts = runner(&self.runners, index)?.counts_from(self.dev, images, &inputs, &initials)?;
            let trained = match &mut self.ann[index] {
                Some(tape) => tape.values(self.dev, batch)?,
                None => return Err(Error::work(&name, "its trained activations are gone")),
            };
            let trained = self.dev.view(&trained)?;
            for (counts, errors) in counts.iter().zip(&mut errors) {
                let counts = self.dev.view(counts)?;
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
        self.runners[index] = Some(Runner::new(self.dev, &self.spiking, index)?);
        Ok(())
    }
}
