//! Initial potentials and settling windows by trial. Half a threshold is best for a constant current (METHOD section 3);
//! where the input is uneven, a neuron that fired early cannot take its spike back, so that many fire too often. A lower
//! potential to begin with makes up for that (METHOD section 2 has what it brings), and so does a longer wait, which costs
//! latency: shallow networks can afford it.

use super::settle::{Settle, spare};
use super::walk::Walk;
use super::worker::ready;
use super::{Initial, Response};
use crate::compute::simd::{sum_pairs, vectorized};
use crate::error::Result;
use crate::spiking::{Layer, Schedule, SpikingOp, State};

/// What is tried beside half a threshold, in thresholds.
const TRIED: [f64; 7] = [0.4, 0.3, 0.2, 0.1, 0.0, 0.6, 0.7];
/// Calibration images and samples a channel that are enough to choose by.
const ENOUGH: (usize, usize) = (128, 16_384);
/// Share of its error that a channel must gain by leaving half a threshold: less is chance.
const GAIN: f64 = 0.01;
/// Longest wait that is tried, in steps beyond the usual one.
const LONGER: u32 = 3;
/// Share of its squared error that a layer must gain by each step that it waits longer.
const STEP_GAIN: f64 = 0.02;

/// Squared relative error from which on it is worth its latency that a layer waits longer.
const LARGE: f64 = 1e-4;

/// Potentials to begin with, and the squared error of the decoded rates that they leave, as a share of the squared values.
struct Trial {
    chosen: Vec<i32>,
    error: f64,
}

impl Walk<'_> {
    /// Gives every channel of layer `index`, just fitted, the initial potential with the least squared error of its
    /// decoded rates on the calibration images, and the layer the settling window, where windows are the tool's to choose
    /// and the network's latency leaves room. Leaves layers alone that see constant currents (the first one, and all in
    /// the layered schedule), and neurons that are not one to a unit or not in integers.
    pub(super) fn initial_potentials(&mut self, index: usize) -> Result<()> {
        let node = &self.spiking.nodes[index];
        let SpikingOp::Neurons(layer) = &node.op else { return Ok(()) };
        let State::Integer { .. } = &layer.state else { return Ok(()) };
        let single = node.decode.origin.windows(2).all(|pair| pair[0] < pair[1]);
        let uneven = self.spiking.schedule == Schedule::Streaming
            && layer.synapses.iter().any(|s| !self.spiking.nodes[s.source].constant);
        let wanted = self.options.initial == Initial::Calibrated && self.options.response == Response::Measured;
        if !(wanted && single && uneven && layer.fires) {
            return Ok(());
        }
        let usual = layer.settle;
        let mut best = (usual, self.trial(index)?);
        let longest = match self.options.settle {
            // a layer that is not to wait at all has its reasons
            Settle::Shared if usual > 0 && best.1.error > LARGE => {
                LONGER.min(spare(self.network, &self.windows, index, self.spiking.steps))
            }
            _ => 0,
        };
        for settle in usual + 1..=usual + longest {
            self.neurons(index, |layer| layer.settle = settle);
            self.upload(index)?;
            let trial = self.trial(index)?;
            if trial.error < best.1.error * (1.0 - STEP_GAIN).powi((settle - best.0) as i32) {
                best = (settle, trial);
            }
        }
        let (settle, trial) = best;
        self.windows[index] = settle;
        self.neurons(index, |layer| {
            layer.settle = settle;
            if let State::Integer { initial, .. } = &mut layer.state {
                *initial = trial.chosen;
            }
        });
        self.upload(index)
    }

    fn neurons(&mut self, index: usize, change: impl FnOnce(&mut Layer)) {
        if let SpikingOp::Neurons(layer) = &mut self.spiking.nodes[index].op {
            change(layer);
        }
    }

    /// The potentials for the settling window that the layer has.
    fn trial(&mut self, index: usize) -> Result<Trial> {
        let node = &self.spiking.nodes[index];
        let mut initials = vec![];
        if let SpikingOp::Neurons(Layer { state: State::Integer { threshold, initial, .. }, .. }) = &node.op {
            initials.push(initial.clone());
            initials.extend(TRIED.map(|part| threshold.iter().map(|t| (f64::from(*t) * part) as i32).collect()));
        }
        let (shape, decode) = (node.shape, node.decode.clone());
        let (rate, area) = (self.rate_per_total(index), shape.area());
        // as many images whatever the batches, which differ between devices
        let enough = ENOUGH.0.max(ENOUGH.1.div_ceil(area)).min(self.images.len());
        // [device][initial, and squares of the values][channel]
        let mut states = self.states(|_, _, _| Ok(vec![vec![0.0; shape.c]; initials.len() + 1]))?;
        self.work(0..enough, &mut states, |at, errors| {
            let images = at.images();
            let planes = shape.c * images.min(enough - at.first());
            let inputs = at.inputs(index)?;
            let inputs: Vec<_> = inputs.iter().collect();
            let counts = ready(&at.worker.runners, index)?.counts_from(at.dev, images, &inputs, &initials)?;
            let trained = at.trained(index)?;
            let trained = at.dev.view(&trained)?;
            let [errors @ .., squares] = errors.as_mut_slice() else { return Ok(()) };
            for plane in 0..planes {
                let (image, channel) = (plane / shape.c, plane % shape.c);
                let origin = decode.origin[channel] as usize;
                let values = &trained[(image * decode.channels + origin) * area..][..area];
                squares[channel] += vectorized(|| sum_pairs(values, values, |v, _| v * v));
            }
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
        let mut errors = vec![vec![0.0; shape.c]; initials.len() + 1];
        for part in &states {
            errors.iter_mut().flatten().zip(part.iter().flatten()).for_each(|(sum, part)| *sum += part);
        }
        let mut trial = Trial { chosen: initials[0].clone(), error: 0.0 };
        for (channel, chosen) in trial.chosen.iter_mut().enumerate() {
            let half = errors[0][channel];
            let each = initials.iter().zip(&errors).map(|(initial, errors)| (errors[channel], initial[channel]));
            let least = each.skip(1).min_by(|a, b| a.0.total_cmp(&b.0));
            let (error, initial) = least.filter(|least| least.0 < half * (1.0 - GAIN)).unwrap_or((half, *chosen));
            (trial.error, *chosen) = (trial.error + error, initial);
        }
        let squares: f64 = errors[initials.len()].iter().sum();
        trial.error /= squares.max(f64::MIN_POSITIVE);
        Ok(trial)
    }
}
