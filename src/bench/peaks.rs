//! What a device can do at most: the best runs of a multiply-add kernel and of a copy kernel.

use super::record::Peaks;
use super::sizes::Sizes;
use super::timing::{Plan, measure};
use super::work::Work;
use crate::compute::{Device, peak};
use crate::convert::Watch;
use crate::error::Result;

/// How many times as many runs, and seconds, as for a kernel: all others are held to these.
const PATIENCE: usize = 3;

/// Runs both.
///
/// # Errors
/// A lost device, too little memory, an interrupt.
pub fn peaks(dev: &Device, sizes: &Sizes, plan: &Plan, watch: &dyn Watch) -> Result<Peaks> {
    let (len, rounds) = sizes.fma;
    let plan = &Plan { runs: PATIENCE * plan.runs, seconds: PATIENCE as f64 * plan.seconds };
    let mut y = dev.upload(&vec![1.0; len])?;
    let (fma, arithmetic) = measure(plan, watch, || {
        // Keeps all values at 1: nothing grows, and nothing becomes so small that it costs extra.
        let elapsed = dev.timed(|| peak::fma(dev, rounds, (0.5, 0.5), &mut y))?;
        Ok((elapsed, Work { operations: (2 * rounds * len) as f64, bytes: (8 * len) as f64 }))
    })?;
    watch.tick();
    let x = dev.upload(&vec![1.0; sizes.copy])?;
    let mut to = dev.zeros(sizes.copy)?;
    let (copy, memory) = measure(plan, watch, || {
        let elapsed = dev.timed(|| peak::copy(dev, &x, &mut to))?;
        Ok((elapsed, Work { operations: 0.0, bytes: (8 * sizes.copy) as f64 }))
    })?;
    watch.tick();
    let rate = |amount: f64, seconds: f64| amount / seconds.max(1e-9) * 1e-9;
    Ok(Peaks {
        gflops: rate(arithmetic.operations, fma.best_seconds),
        gbps: rate(memory.bytes, copy.best_seconds),
        fma,
        copy,
    })
}
