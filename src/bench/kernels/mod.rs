//! Every kernel of `compute` on seeded data: its case says how to run it once and what that run had to do.

mod dense;
mod layers;
mod neurons;
mod solvers;

use super::record::{Kernel, Limit, Peaks};
use super::sizes::Sizes;
use super::timing::{Plan, Timing, measure};
use super::work::Work;
use crate::compute::{Device, Elapsed};
use crate::convert::Watch;
use crate::error::{Error, Result};

/// A kernel with its data on a device.
pub struct Case {
    /// The sizes, for people.
    pub shape: String,
    /// Runs it once, all preparation outside the time.
    pub once: Box<dyn FnMut() -> Result<(Elapsed, Work)>>,
}

/// Puts a kernel's data on a device; none where the kernel does not run there.
type Build = fn(&Device, &Sizes) -> Result<Option<Case>>;

const ALL: [(&str, Build); 26] = [
    ("conv", layers::conv_real),
    ("conv_integer", layers::conv_integer),
    ("gram", layers::gram),
    ("gram_counts", layers::gram_counts),
    ("moments_targets", layers::moments_targets),
    ("pool_average", layers::pool_average),
    ("pool_winner", layers::pool_winner),
    ("gather", layers::gather),
    ("integrate_and_fire", neurons::integrate_and_fire),
    ("lookup", neurons::lookup),
    ("response", neurons::response),
    ("time_total", neurons::time_total),
    ("relu", neurons::relu),
    ("sigmoid", neurons::sigmoid),
    ("cholesky", dense::cholesky),
    ("triangular", dense::triangular),
    ("removal_costs", dense::removal_costs),
    ("removal", dense::removal),
    ("feedback", solvers::feedback),
    ("kbest", solvers::kbest),
    ("descent", solvers::descent),
    ("pairs", solvers::pairs),
    ("sample_sweep", solvers::sample_sweep),
    ("box_gradient", solvers::box_gradient),
    ("admm", solvers::admm),
    ("absolute", solvers::absolute),
];

/// All kernels' names, in the order of `kernels`.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// Measures the `wanted` kernels; a tick each. One that does not run on this device is left out.
///
/// # Errors
/// Input: an unknown name. A lost device, too little memory, an interrupt.
pub fn kernels(
    dev: &Device,
    sizes: &Sizes,
    plan: &Plan,
    peaks: &Peaks,
    wanted: &[String],
    watch: &dyn Watch,
) -> Result<Vec<Kernel>> {
    check(wanted)?;
    let mut measured = Vec::new();
    for (name, build) in ALL.iter().filter(|(name, _)| wanted.iter().any(|w| w == name)) {
        if let Some(mut case) = build(dev, sizes).map_err(|e| e.within(*name))? {
            let (timing, work) = measure(plan, watch, &mut case.once).map_err(|e| named(e, name))?;
            measured.push(record(name, case.shape, timing, work, peaks));
        }
        watch.tick();
    }
    Ok(measured)
}

/// Refuses names of no kernel.
///
/// # Errors
/// Input, by the name.
pub fn check(wanted: &[String]) -> Result<()> {
    match wanted.iter().find(|w| names().all(|n| n != *w)) {
        None => Ok(()),
        Some(unknown) => {
            let all: Vec<_> = names().collect();
            Err(Error::input("kernels", format!("`{unknown}` is none of {}", all.join(", "))))
        }
    }
}

/// An interrupt concerns no kernel.
fn named(e: Error, name: &str) -> Error {
    if e.kind == crate::error::Kind::Interrupted { e } else { e.within(name) }
}

fn record(name: &'static str, shape: String, timing: Timing, work: Work, peaks: &Peaks) -> Kernel {
    let seconds = timing.seconds.max(1e-9);
    let (gflops, gbps) = (work.operations / seconds * 1e-9, work.bytes / seconds * 1e-9);
    let (arithmetic, memory) = (gflops / peaks.gflops, gbps / peaks.gbps);
    let limit = if arithmetic >= memory { Limit::Arithmetic } else { Limit::Memory };
    Kernel {
        name,
        shape,
        operations: work.operations,
        bytes: work.bytes,
        timing,
        gflops,
        gbps,
        limit,
        percent_of_peak: 100.0 * arithmetic.max(memory),
    }
}

/// Seeded reals in -1 .. 1.
fn reals(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| 2.0 * rng.f32() - 1.0).collect()
}

/// Seeded integers in lo ..= hi.
fn integers(seed: u64, len: usize, lo: i32, hi: i32) -> Vec<i32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| rng.i32(lo..=hi)).collect()
}
