//! Where the batched loops of the grid solver run: on this machine's cores in f64, or on a GPU in f32, whose descent the
//! CPU then finishes in f64; rows are split where there are several devices.

mod host;
mod on_device;

use std::ops::Range;

use super::offload::least_work;
use super::quantize::{Quantized, Task};
use crate::compute::solver::Steps;
use crate::compute::{Device, Team};
use crate::error::Result;
use host::Host;
use on_device::OnDevice;

/// One row to round with one scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    pub row: usize,
    pub scale: f64,
}

/// Levels of some rows under way.
pub(super) struct Rows<'a> {
    /// The rows' numbers.
    pub at: Range<usize>,
    /// rows x n.
    pub levels: &'a mut [f64],
    /// rows x n: H times the levels.
    pub hq: &'a mut [f64],
    /// rows.
    pub scale: &'a [f64],
    /// rows: which of them may move.
    pub going: &'a [bool],
}

impl<'a> Rows<'a> {
    /// All rows of `q`.
    pub fn all(q: &'a mut Quantized, hq: &'a mut [f64], going: &'a [bool]) -> Self {
        Rows { at: 0..q.scale.len(), levels: &mut q.levels, hq, scale: &q.scale, going }
    }

    /// The same rows for a while.
    fn lent(&mut self) -> Rows<'_> {
        let Rows { at, levels, hq, scale, going } = self;
        Rows { at: at.clone(), levels, hq, scale, going }
    }

    /// Cuts them into `parts`, which follow one another and are all of them.
    fn cut(self, parts: &[Range<usize>]) -> Vec<Self> {
        let Rows { at, mut levels, mut hq, scale, going } = self;
        let n = levels.len() / at.len().max(1);
        let mut cut = Vec::with_capacity(parts.len());
        for part in parts {
            let (own_levels, later_levels) = std::mem::take(&mut levels).split_at_mut(part.len() * n);
            let (own_hq, later_hq) = std::mem::take(&mut hq).split_at_mut(part.len() * n);
            (levels, hq) = (later_levels, later_hq);
            let own = part.start - at.start..part.end - at.start;
            let (scale, going) = (&scale[own.clone()], &going[own]);
            cut.push(Rows { at: part.clone(), levels: own_levels, hq: own_hq, scale, going });
        }
        cut
    }
}

/// The loops that `quantize` is made of.
pub(super) trait Rounding: Send + Sync {
    /// Error feedback of every lane: d H d^T of what is stored less what is rounded; infinite if the box forbids it.
    fn costs(&self, lanes: &[Lane]) -> Result<Vec<f64>>;
    /// Error feedback of every lane with `paths` partial solutions kept (1: plain feedback): the levels (lanes x n).
    fn levels(&self, lanes: &[Lane], paths: usize) -> Result<Vec<f64>>;
    /// Coordinate descent to a fixed point of the rows that are `going`; H times the levels comes in and goes out.
    fn descend(&self, rows: Rows<'_>) -> Result<()>;
    /// One sweep of pair moves, likewise. Of every row: whether it moved.
    fn pair(&self, rows: Rows<'_>) -> Result<Vec<bool>>;
    /// Rounds to these levels from now on.
    fn relevel(&mut self, steps: Steps<f64>);
}

/// On the GPUs of `team` whose buffers hold H, if the problem is worth their latency, each with its share of the rows; else
/// on the CPU.
///
/// # Errors
/// `Work`: a device failed.
pub(super) fn on<'a>(
    team: &Team,
    task: Task<'a>,
    cancelled: &'a (dyn Fn() -> bool + Sync),
) -> Result<Box<dyn Rounding + 'a>> {
    let (n, m) = (task.system.n, task.system.m);
    let host = Host::new(task, cancelled);
    let rows = team.split(0..m);
    let takes =
        |(dev, rows): (&Device, &Range<usize>)| m * n * n >= least_work(dev) && OnDevice::fits(dev, n, rows.len());
    if !team.devices().zip(&rows).any(takes) {
        return Ok(Box::new(host));
    }
    let part = |(dev, rows): (&Device, &Range<usize>)| -> Result<Box<dyn Rounding + 'a>> {
        match takes((dev, rows)) {
            true => Ok(Box::new(OnDevice::new(dev, host.again(), rows.clone())?)),
            false => Ok(Box::new(host.again())),
        }
    };
    let mut parts = team.devices().zip(&rows).map(part).collect::<Result<Vec<_>>>()?;
    match parts.len() {
        1 => Ok(parts.swap_remove(0)),
        _ => Ok(Box::new(Split { team: team.clone(), n, rows, parts })),
    }
}

/// Every device with its rows.
struct Split<'a> {
    team: Team,
    n: usize,
    /// One range and one part a device, in the team's order.
    rows: Vec<Range<usize>>,
    parts: Vec<Box<dyn Rounding + 'a>>,
}

impl Split<'_> {
    /// Gives every part the lanes of its rows; `width` values a lane, in the lanes' order.
    fn lanes(
        &self,
        lanes: &[Lane],
        width: usize,
        work: impl Fn(&dyn Rounding, &[Lane]) -> Result<Vec<f64>> + Sync,
    ) -> Result<Vec<f64>> {
        let own = |rows: &Range<usize>| (0..lanes.len()).filter(|&l| rows.contains(&lanes[l].row)).collect::<Vec<_>>();
        let places: Vec<Vec<usize>> = self.rows.iter().map(own).collect();
        let found = self.team.each(self.parts.iter().zip(&places), |_, (part, places), _| {
            work(part.as_ref(), &places.iter().map(|&l| lanes[l]).collect::<Vec<_>>())
        })?;
        let mut all = vec![0.0; lanes.len() * width];
        for (places, found) in places.iter().zip(found) {
            for (&l, values) in places.iter().zip(found.chunks_exact(width.max(1))) {
                all[l * width..(l + 1) * width].copy_from_slice(values);
            }
        }
        Ok(all)
    }
}

impl Rounding for Split<'_> {
    fn costs(&self, lanes: &[Lane]) -> Result<Vec<f64>> {
        self.lanes(lanes, 1, |part, lanes| part.costs(lanes))
    }

    fn levels(&self, lanes: &[Lane], paths: usize) -> Result<Vec<f64>> {
        self.lanes(lanes, self.n, |part, lanes| part.levels(lanes, paths))
    }

    fn descend(&self, rows: Rows<'_>) -> Result<()> {
        let parts = self.parts.iter().zip(rows.cut(&self.rows));
        self.team.each(parts, |_, (part, rows), _| part.descend(rows)).map(drop)
    }

    fn pair(&self, rows: Rows<'_>) -> Result<Vec<bool>> {
        let parts = self.parts.iter().zip(rows.cut(&self.rows));
        Ok(self.team.each(parts, |_, (part, rows), _| part.pair(rows))?.concat())
    }

    fn relevel(&mut self, steps: Steps<f64>) {
        self.parts.iter_mut().for_each(|part| part.relevel(steps.clone()));
    }
}
