//! Response-aware targets (METHOD section 2): where the trained unit is silent, any current that keeps the neuron silent
//! is as good as the unit's own, and likewise above saturation. The least squares then spend nothing on making a
//! silent unit as negative as the trained one.
//!
//! A round takes as target, where the wanted rate u = (z - start) / width is at its end, the current that the layer now
//! gives, clipped to beyond that end; elsewhere u itself. That is majorization-minimization of
//!     sum dist(W x + b, { currents that give clip(u, 0, top) })^2,
//! which is convex and bounds the response error, because the response is 1-Lipschitz. H stays; only B is summed again.

use super::Targets;
use super::encode::{self, Code};
use super::layer::{Rows, Task};
use super::residual::Baseline;
use super::walk::Walk;
use crate::compute::gram::{Moments, Sums};
use crate::compute::{Device, activate};
use crate::error::Result;
use crate::network::{Activation, Op};
use crate::spiking::Schedule;

/// Rounds: half of the units are silent in most layers, so that each round halves what is left to gain. A pruned network
/// has more of it.
const ROUNDS: usize = 2;
const ROUNDS_PRUNED: usize = 8;

impl Walk<'_> {
    /// `sums` over targets made ones over response-aware targets; as they are for layers whose neurons do not respond
    /// linearly between silence and saturation, and if the job does not want it.
    pub(super) fn aware_targets(&mut self, task: &Task, rows: &Rows, code: &Code, mut sums: Sums) -> Result<Sums> {
        let model = self.spiking.model;
        let linear = code.ramps.iter().flatten().all(|r| r.width > 0.0 && r.slope == 1.0 && r.rest == 0.0);
        // the first smaller or thinner layer, and all after it
        let first = self.plan.as_ref().and_then(|p| p.kept.keys().next());
        let pruned = first.is_some_and(|&first| task.index >= first) || task.thin.is_some() || self.thinned;
        let wanted = match self.options.targets {
            Targets::Auto => pruned || (self.options.schedule == Schedule::Streaming && !self.rules.sign_of_source),
            targets => targets == Targets::Response,
        };
        if !(wanted && linear && code.population() == 1 && !model.is_leaky() && !encode::inverts(&model)) {
            return Ok(sums);
        }
        let single = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<_>>();
        let (gain, offset) = (single(&rows.gain), single(&rows.offset));
        let top = model.max_rate() as f32;
        // all of a rectified layer's kept activations say as much as pre-activations do: what is silent is zero
        let rectified = matches!(
            self.network.nodes[task.index].op,
            Op::Neurons { activation: Activation::Relu | Activation::Remainder, .. }
        ) && task.picked.is_none()
            && code.ramps.iter().flatten().all(|r| r.start >= 0.0)
            && self.workers.iter().all(|w| w.ann[task.index].is_some());
        for round in 0..if pruned { ROUNDS_PRUNED } else { ROUNDS } {
            let solved = self.continuous(task, rows, &sums)?;
            let bias = single(&solved.bias);
            let start = |walk: &Self, _, dev: &Device| {
                let current = Baseline::new(dev, &walk.patches(task), task.shape, &solved.w, &bias)?;
                let moments = walk.moments(task, task.shape, dev)?.targets_only();
                Ok((dev.upload(&gain)?, dev.upload(&offset)?, current, moments))
            };
            let stage = format!("targets {} {}", task.name, round + 1);
            let done = self.each_batch(&stage, start, |at, (gain, offset, current, moments)| {
                let (dev, images) = (at.dev, at.images());
                let mut u = if rectified { at.trained(task.index)? } else { at.wanted(task)? };
                activate::affine(dev, task.shape, gain, offset, &mut u)?;
                let xs = at.rates(task)?;
                let xs: Vec<_> = xs.iter().collect();
                // u less the current
                let mut rest = current.subtract(dev, images, &xs, &u)?;
                activate::lacking(dev, top, &u, &mut rest)?;
                moments.add(images, &xs, &rest)
            })?;
            let (mut currents, moments): (Vec<_>, Vec<_>) =
                done.into_iter().map(|(_, _, current, moments)| (current, moments)).unzip();
            let (current, summed) = (currents.swap_remove(0), Moments::finish_all(moments)?);
            sums = current.restore(Sums { h: std::mem::take(&mut sums.h), ..summed });
        }
        Ok(sums)
    }
}
