//! Repeated runs of one piece of work: a warm-up, then the median of several.

use std::time::Instant;

use serde::Serialize;

use super::work::Work;
use crate::compute::Elapsed;
use crate::convert::{Watch, go_on};
use crate::error::Result;

/// How often a kernel runs.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Most runs after the warm-up, at least 1.
    pub runs: usize,
    /// No further run begins once the kernel has taken so many seconds.
    pub seconds: f64,
}

/// What told the seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// The GPU's timestamps around its compute passes.
    Gpu,
    /// The wall clock, from the call until the device had done all of it.
    Wall,
}

impl ClockKind {
    pub fn name(self) -> &'static str {
        match self {
            ClockKind::Gpu => "gpu",
            ClockKind::Wall => "wall",
        }
    }
}

/// Median seconds of the runs after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    /// What `seconds` were taken by.
    pub clock: ClockKind,
    pub runs: usize,
    pub seconds: f64,
    /// The same runs by the wall clock: transfers, waits and the host's part included.
    pub wall_seconds: f64,
    /// The fastest run, by `clock`.
    pub best_seconds: f64,
}

/// Runs `once` to warm up (shaders are compiled, memory is fetched), then as often as `plan` says.
///
/// # Errors
/// Those of `once`; an interrupt.
pub fn measure(
    plan: &Plan,
    watch: &dyn Watch,
    mut once: impl FnMut() -> Result<(Elapsed, Work)>,
) -> Result<(Timing, Work)> {
    go_on(watch)?;
    let start = Instant::now();
    let (_, mut work) = once()?;
    let mut runs = Vec::new();
    while runs.is_empty() || (runs.len() < plan.runs && start.elapsed().as_secs_f64() < plan.seconds) {
        go_on(watch)?;
        let (elapsed, done) = once()?;
        runs.push(elapsed);
        work = done;
    }
    let wall: Vec<f64> = runs.iter().map(|r| r.wall).collect();
    let gpu: Option<Vec<f64>> = runs.iter().map(|r| r.gpu).collect();
    let (clock, seconds) = gpu.map_or((ClockKind::Wall, wall.clone()), |g| (ClockKind::Gpu, g));
    let best_seconds = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let timing = Timing { clock, runs: runs.len(), seconds: median(seconds), wall_seconds: median(wall), best_seconds };
    Ok((timing, work))
}

/// The mean of the two in the middle where there is no single one; 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Silent;

    #[test]
    fn the_warm_up_does_not_count_and_the_median_does() {
        let mut seconds = [9.0, 3.0, 1.0, 2.0].into_iter();
        let plan = Plan { runs: 3, seconds: 60.0 };
        let (timing, work) = measure(&plan, &Silent, || {
            let wall = seconds.next().unwrap();
            Ok((Elapsed { wall, gpu: None }, Work { operations: wall, bytes: 0.0 }))
        })
        .unwrap();
        assert_eq!((timing.runs, timing.seconds, timing.best_seconds), (3, 2.0, 1.0));
        assert_eq!((timing.clock, work.operations), (ClockKind::Wall, 2.0));
    }

    #[test]
    fn the_gpu_clock_counts_where_every_run_has_it_and_the_budget_ends_the_runs() {
        let plan = Plan { runs: 100, seconds: 0.0 };
        let one = Elapsed { wall: 2.0, gpu: Some(0.5) };
        let (timing, _) = measure(&plan, &Silent, || Ok((one, Work::default()))).unwrap();
        assert_eq!((timing.runs, timing.clock), (1, ClockKind::Gpu));
        assert_eq!((timing.seconds, timing.wall_seconds), (0.5, 2.0));
    }
}
