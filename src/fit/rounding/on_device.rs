//! The loops of the grid solver on a GPU, in f32, for some rows of a task.

use std::ops::Range;

use super::host::Host;
use super::{Lane, Rounding, Rows};
use crate::compute::solver::feedback;
use crate::compute::solver::{Steps, dense, descent, kbest, pairs};
use crate::compute::{Buffer, Device};
use crate::error::Result;
use crate::fit::quantize::SWEEPS;
use crate::fit::stepper::single;
use crate::fit::offload::batch_bytes;

pub(super) struct OnDevice<'a> {
    dev: Device,
    host: Host<'a>,
    rows: Range<usize>,
    steps: Steps<f32>,
    /// n x n: `feedback::Inputs::unit`.
    unit: Buffer<f32>,
    /// rows x n, and 2 x rows x n.
    w: Buffer<f32>,
    h: Buffer<f32>,
    b: Buffer<f32>,
    bounds: Option<Buffer<f32>>,
}

    /// Most bytes of a buffer of lanes.
    batch_bytes: u64,
impl<'a> OnDevice<'a> {
    /// Whether `dev` is a GPU that holds a problem of `n` inputs and so many rows: H and its factor, the rows' weights, targets,
    /// box, levels and products, and two buffers of lanes.
    pub fn fits(dev: &Device, n: usize, rows: usize) -> bool {
        let bytes = |matrices: usize, rows: usize| (matrices * rows * n * size_of::<f32>()) as u64;
        let largest = bytes(1, n).max(bytes(2, rows));
        let all = bytes(2, n) + bytes(6, rows) + 2 * batch_bytes(dev).min(dev.room() / 8);
        dev.is_gpu() && rows > 0 && largest <= dev.max_buffer_bytes() && all <= dev.room()
    }

    pub fn new(dev: &Device, host: Host<'a>, rows: Range<usize>) -> Result<Self> {
        let system = host.task.system;
        let n = system.n;
        let mut unit = single(&host.unit);
        (0..n).for_each(|i| unit[i * n + i] = host.diagonal[i] as f32);
        let own = |all: &[f64]| single(&all[rows.start * n..rows.end * n]);
        let bounds = host.task.bounds.map(|(l, u)| dev.upload(&[own(l), own(u)].concat())).transpose()?;
        Ok(Self {
            steps: Steps::of(host.task.grid),
            unit: dev.upload(&unit)?,
            w: dev.upload(&own(host.task.around))?,
            h: dev.upload(&single(&system.h))?,
            b: dev.upload(&own(&system.b))?,
            bounds,
            dev: dev.clone(),
            host,
            batch_bytes: batch_bytes(dev),
            rows,
        })
    }

    /// Error feedback of the lanes (with `paths` partial solutions), batch by batch: `take` gets each batch's levels and
    /// costs.
    fn feedback(
        &self,
        lanes: &[Lane],
        paths: usize,
        mut take: impl FnMut(&[Lane], &Buffer<f32>, &Buffer<f32>) -> Result<()>,
    ) -> Result<()> {
        let (n, rows) = (self.host.task.system.n, self.rows.len());
        let a_lane = if paths > 1 { kbest::device_bytes(n, paths) } else { 4 * n as u64 };
        // K-best takes two such buffers, and levels
        let most = (self.batch_bytes.min(self.dev.room() / 4) / a_lane).max(1) as usize;
        let inputs = feedback::Inputs { n, rows, unit: &self.unit, w: &self.w, bounds: self.bounds.as_ref() };
        for lanes in lanes.chunks(most) {
            self.host.stop()?;
            let own_row = |l: &Lane| (l.row - self.rows.start) as u32;
            let lane_rows = self.dev.upload(&lanes.iter().map(own_row).collect::<Vec<_>>())?;
            let scales = self.dev.upload(&lanes.iter().map(|l| l.scale as f32).collect::<Vec<_>>())?;
            let (mut q, mut cost) = (self.dev.zeros(lanes.len() * n)?, self.dev.zeros(lanes.len())?);
            let lane_data = (&lane_rows, &scales);
            if paths > 1 {
                kbest::kbest(&self.dev, &inputs, &self.steps, lane_data, paths, &mut q, &mut cost)?;
            } else {
                feedback::feedback(&self.dev, &inputs, &self.steps, lane_data, &mut q, &mut cost)?;
            }
            take(lanes, &q, &cost)?;
        }
        Ok(())
    }

    /// Runs `moves`, which says whether anything moved, on the rows that are `going`.
    fn moves(
        &self,
        rows: Rows<'_>,
        moves: impl FnOnce(&descent::Inputs<'_>, &mut Buffer<f32>, &mut Buffer<f32>) -> Result<bool>,
    ) -> Result<()> {
        self.host.stop()?;
        let (n, m) = (self.host.task.system.n, rows.at.len());
        let scales = rows.scale.iter().zip(rows.going).map(|(s, go)| if *go { *s as f32 } else { 0.0 });
        let scales = self.dev.upload(&scales.collect::<Vec<_>>())?;
        let bounds = self.bounds.as_ref();
        let inputs = descent::Inputs { n, m, h: &self.h, b: &self.b, scales: &scales, bounds };
        let (mut levels, mut products) = (self.dev.upload(&single(rows.levels))?, self.dev.upload(&single(rows.hq))?);
        if !moves(&inputs, &mut levels, &mut products)? {
            return Ok(());
        }
        let lanes = rows.at.zip(rows.scale).map(|(row, scale)| Lane { row, scale: *scale });
        self.exact(lanes, &self.dev.download(&levels)?, rows.levels);
        dense::product(rows.hq, false, rows.levels, &self.host.task.system.h, (m, n, n), dense::par(m * n * n));
        Ok(())
    }

    /// Levels of some lanes in f64 (lanes x n).
    fn exact(&self, lanes: impl Iterator<Item = Lane>, levels: &[f32], out: &mut [f64]) {
        let n = self.host.task.system.n;
        for ((lane, levels), out) in lanes.zip(levels.chunks_exact(n)).zip(out.chunks_exact_mut(n)) {
            self.host.exact(lane, levels, out);
        }
    }
}

impl Rounding for OnDevice<'_> {
    fn costs(&self, lanes: &[Lane]) -> Result<Vec<f64>> {
        let mut costs = Vec::with_capacity(lanes.len());
        self.feedback(lanes, 1, |_, _, cost| {
            let finite = |c: f32| if c < 3e38 { f64::from(c) } else { f64::INFINITY };
            costs.extend(self.dev.download(cost)?.into_iter().map(finite));
            Ok(())
        })?;
        Ok(costs)
    }

    fn levels(&self, lanes: &[Lane], paths: usize) -> Result<Vec<f64>> {
        let n = self.host.task.system.n;
        let mut levels = vec![0.0; lanes.len() * n];
        let mut at = 0;
        self.feedback(lanes, paths, |lanes, q, _| {
            let end = at + lanes.len() * n;
            self.exact(lanes.iter().copied(), &self.dev.download(q)?, &mut levels[at..end]);
            at = end;
            Ok(())
        })?;
        Ok(levels)
    }

    fn descend(&self, mut rows: Rows<'_>) -> Result<()> {
        self.moves(rows.lent(), |inputs, levels, products| {
            descent::descent(&self.dev, inputs, &self.steps, levels, products, SWEEPS).map(|sweeps| sweeps > 0)
        })?;
        self.host.descend(rows)
    }

    fn pair(&self, rows: Rows<'_>) -> Result<Vec<bool>> {
        let mut moved = Vec::new();
        self.moves(rows, |inputs, levels, products| {
            moved = pairs::pairs(&self.dev, inputs, &self.steps, levels, products)?;
            Ok(moved.contains(&true))
        })?;
        Ok(moved)
    }

    fn relevel(&mut self, steps: Steps<f64>) {
        self.steps = steps.of_rows(self.rows.clone()).single();
        self.host.relevel(steps);
    }
}
