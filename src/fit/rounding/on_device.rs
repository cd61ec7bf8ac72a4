//! The loops of the grid solver on a GPU, in f32, for some rows of a task.

use std::ops::Range;

use rayon::prelude::*;

use super::host::Host;
use super::{Lane, Rounding, Rows};
use crate::compute::solver::feedback;
use crate::compute::solver::{Steps, dense, descent, kbest, pairs};
use crate::compute::{Buffer, Device};
use crate::error::Result;
use crate::fit::offload::batch_bytes;
use crate::fit::quantize::SWEEPS;
use crate::fit::stepper::single;

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
    /// Most bytes of a buffer of lanes.
    batch_bytes: u64,
}

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
            batch_bytes: batch_bytes(dev),
            dev: dev.clone(),
            host,
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

    /// Runs `moves`, which says of every row whether it moved, on the rows that are `going`; says it too.
    fn moves(
        &self,
        rows: Rows<'_>,
        moves: impl FnOnce(&descent::Inputs<'_>, &mut Buffer<f32>, &mut Buffer<f32>) -> Result<Vec<bool>>,
    ) -> Result<Vec<bool>> {
        self.host.stop()?;
        let (n, m) = (self.host.task.system.n, rows.at.len());
        let scales = rows.scale.iter().zip(rows.going).map(|(s, go)| if *go { *s as f32 } else { 0.0 });
        let scales = self.dev.upload(&scales.collect::<Vec<_>>())?;
        let bounds = self.bounds.as_ref();
        let inputs = descent::Inputs { n, m, h: &self.h, b: &self.b, scales: &scales, bounds };
        let (mut levels, mut products) = (self.dev.upload(&single(rows.levels))?, self.dev.upload(&single(rows.hq))?);
        let moved = moves(&inputs, &mut levels, &mut products)?;
        if moved.contains(&true) {
            let lanes: Vec<_> = rows.at.zip(rows.scale).map(|(row, scale)| Lane { row, scale: *scale }).collect();
            self.exact(&lanes, &moved, &self.dev.download(&levels)?, rows.levels);
            dense::product_of(rows.hq, rows.levels, &self.host.task.system.h, n, &moved);
        }
        Ok(moved)
    }

    /// Levels in f64 (lanes x n) of those lanes that are `wanted`; the others stay.
    fn exact(&self, lanes: &[Lane], wanted: &[bool], levels: &[f32], out: &mut [f64]) {
        let n = self.host.task.system.n;
        let work = lanes.par_iter().zip(wanted).zip(levels.par_chunks_exact(n)).zip(out.par_chunks_exact_mut(n));
        work.filter(|((of, _), _)| *of.1).for_each(|((of, levels), out)| self.host.exact(*of.0, levels, out));
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
            self.exact(lanes, &vec![true; lanes.len()], &self.dev.download(q)?, &mut levels[at..end]);
            at = end;
            Ok(())
        })?;
        Ok(levels)
    }

    fn descend(&self, mut rows: Rows<'_>) -> Result<()> {
        self.moves(rows.lent(), |inputs, levels, products| {
            descent::descent(&self.dev, inputs, &self.steps, levels, products, SWEEPS)
        })?;
        self.host.descend(rows)
    }

    fn pair(&self, rows: Rows<'_>) -> Result<Vec<bool>> {
        self.moves(rows, |inputs, levels, products| pairs::pairs(&self.dev, inputs, &self.steps, levels, products))
    }

    fn relevel(&mut self, steps: Steps<f64>) {
        self.steps = steps.of_rows(self.rows.clone()).single();
        self.host.relevel(steps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chip::{Grid, ScaleOwner};
    use crate::compute::Choice;
    use crate::fit::problem::Problem;
    use crate::fit::quantize::Task;
    use crate::fit::system::System;

    const N: usize = 30;
    const M: usize = 5;

    fn system() -> System {
        let mut rng = fastrand::Rng::with_seed(3);
        let x: Vec<f64> = (0..3 * N * N).map(|_| rng.f64() - 0.4).collect();
        let mut h = vec![0.0; N * N];
        dense::add_outer(&mut h, 1.0, &x, &x, (3 * N, N, N));
        let b = (0..M * N).map(|_| 20.0 * (rng.f64() - 0.5)).collect();
        System::new(&Problem::from_gram(N, M, h, b).unwrap()).unwrap()
    }

    /// Hands a rounding of that system on the GPU to `check`.
    fn on_gpu(check: impl Fn(&System, OnDevice<'_>)) {
        let (system, grid): (System, Grid) = (system(), "3".parse().unwrap());
        let task = Task {
            system: &system,
            around: &system.free,
            grid: &grid,
            owner: ScaleOwner::Channel,
            fixed: None,
            scale_bits: 24,
            power_of_two: false,
            bounds: None,
        };
        let dev = Device::open(Choice::Gpu).unwrap();
        check(&system, OnDevice::new(&dev, Host::new(task, &|| false), 0..M).unwrap());
    }

    /// However the lanes are cut into batches, they round alike.
    #[test]
    fn batches_do_not_matter() {
        on_gpu(|_, mut device| {
            let lanes: Vec<Lane> = (0..3 * M).map(|l| Lane { row: l % M, scale: 0.02 + 0.005 * l as f64 }).collect();
            let rounded = |device: &OnDevice<'_>| {
                (device.costs(&lanes).unwrap(), device.levels(&lanes, 1).unwrap(), device.levels(&lanes, 7).unwrap())
            };
            let whole = rounded(&device);
            // one lane at a time, and batches of which the last one is smaller
            for bytes in [1, 4 * kbest::device_bytes(N, 7)] {
                device.batch_bytes = bytes;
                assert!(rounded(&device) == whole, "{bytes}");
            }
        });
    }

    /// Rows that rest keep their levels and products to the bit; those of the others belong together.
    #[test]
    fn rows_that_rest_stay() {
        on_gpu(|system, device| {
            let going = [true, false, true, true, false];
            let scale = [0.03; M];
            for paired in [false, true] {
                let (mut levels, mut hq) = (vec![1.0; M * N], vec![0.0; M * N]);
                dense::product_of(&mut hq, &levels, &system.h, N, &[true; M]);
                // nobody looks at what rests
                hq[N..2 * N].fill(7.25);
                let before = (levels.clone(), hq.clone());
                let rows = Rows { at: 0..M, levels: &mut levels, hq: &mut hq, scale: &scale, going: &going };
                let moved = if paired {
                    device.pair(rows).unwrap()
                } else {
                    device.descend(rows).map(|()| going.to_vec()).unwrap()
                };
                assert!(moved.contains(&true));
                let mut exact = vec![0.0; M * N];
                dense::product_of(&mut exact, &levels, &system.h, N, &[true; M]);
                for o in 0..M {
                    let at = o * N..(o + 1) * N;
                    assert_eq!(moved[o], levels[at.clone()] != before.0[at.clone()], "row {o}");
                    assert!(going[o] || !moved[o], "row {o} rests");
                    if !moved[o] {
                        assert_eq!(hq[at.clone()], before.1[at]);
                        continue;
                    }
                    let near =
                        hq[at.clone()].iter().zip(&exact[at]).all(|(a, b)| (a - b).abs() <= 1e-9 * (1.0 + b.abs()));
                    assert!(near, "row {o}: products of other levels");
                }
            }
        });
    }
}
