//! Where the batched loops of the grid solver run: on this machine's cores in f64, or on a GPU in f32, whose descent the
//! CPU then finishes in f64.

use rayon::prelude::*;

use super::quantize::{Quantized, SWEEPS, Task};
use super::stepper::single;
use crate::compute::solver::feedback::{self, Factor, LANES, Row};
use crate::compute::solver::{Steps, dense, descent};
use crate::compute::{Buffer, Device};
use crate::error::{Error, Result};

/// One row to round with one scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    pub row: usize,
    pub scale: f64,
}

/// The loops that `quantize` is made of.
pub(super) trait Rounding {
    /// Error feedback of every lane: its objective above the unconstrained optimum; infinite if the box forbids it.
    fn costs(&self, lanes: &[Lane]) -> Result<Vec<f64>>;
    /// Error feedback of every lane: the levels (lanes x n).
    fn levels(&self, lanes: &[Lane]) -> Result<Vec<f64>>;
    /// Coordinate descent to a fixed point of the rows that are `going`; `hq` (m x n) is H times the levels, in and
    /// out. Whether anything moved.
    fn descend(&self, q: &mut Quantized, hq: &mut [f64], going: &[bool]) -> Result<bool>;
}

/// On `dev` if that is a GPU whose buffers hold H and the problem is worth its latency, else on the CPU.
///
/// # Errors
/// `Work`: the device failed.
pub(super) fn on<'a>(
    dev: &Device,
    task: Task<'a>,
    cancelled: &'a (dyn Fn() -> bool + Sync),
) -> Result<Box<dyn Rounding + 'a>> {
    let (n, m) = (task.system.n, task.system.m);
    let largest = (n * n).max(2 * m * n) as u64 * 4;
    let host = Host::new(task, cancelled);
    if dev.is_gpu() && m * n * n >= DEVICE_FROM && largest <= dev.max_buffer_bytes() {
        Ok(Box::new(OnDevice::new(dev, host)?))
    } else {
        Ok(Box::new(host))
    }
}

/// Multiplications of one product with H below which a GPU's latency costs more than it brings (a depthwise layer is
/// hundreds of tiny problems).
const DEVICE_FROM: usize = 1 << 19;
/// Multiplications below which a second core costs more than it brings.
const PARALLEL_FROM: usize = 1 << 18;

/// f64 on the CPU.
pub(super) struct Host<'a> {
    task: Task<'a>,
    steps: Steps<f64>,
    unit: Vec<f64>,
    diagonal: Vec<f64>,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Host<'a> {
    pub fn new(task: Task<'a>, cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        let (unit, diagonal) = unit_factor(&task);
        Self { task, steps: Steps::of(task.grid), unit, diagonal, cancelled }
    }

    fn row(&self, o: usize) -> Row<'_, f64> {
        row(&self.task, o)
    }

    fn stop(&self) -> Result<()> {
        if (self.cancelled)() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Runs `each` on every group of lanes; `out` is cut alongside (`width` values a lane).
    fn groups(
        &self,
        lanes: &[Lane],
        out: &mut [f64],
        width: usize,
        each: impl Fn(&[(Row<'_, f64>, f64)], &mut [f64]) + Sync,
    ) {
        let n = self.task.system.n;
        let one = |(lanes, out): (&[Lane], &mut [f64])| {
            let rows: Vec<_> = lanes.iter().map(|l| (self.row(l.row), l.scale)).collect();
            // cancelled work leaves zeros behind; `stop` turns them into an error
            if !(self.cancelled)() {
                each(&rows, out);
            }
        };
        if lanes.len() * n * n < PARALLEL_FROM {
            lanes.chunks(LANES).zip(out.chunks_mut(LANES * width)).for_each(one);
        } else {
            lanes.par_chunks(LANES).zip(out.par_chunks_mut(LANES * width)).for_each(one);
        }
    }
}

/// The box of row `o` and its unconstrained weights.
fn row<'a>(task: &Task<'a>, o: usize) -> Row<'a, f64> {
    let n = task.system.n;
    let of = |all: &'a [f64]| &all[o * n..(o + 1) * n];
    Row { w: of(&task.system.free), bounds: task.bounds.map(|(lower, upper)| (of(lower), of(upper))) }
}

/// L of H = L L^T as `feedback::Factor` wants it: rows of L_ji / L_ii, and the diagonal.
pub(super) fn unit_factor(task: &Task<'_>) -> (Vec<f64>, Vec<f64>) {
    let (n, s) = (task.system.n, task.system);
    let mut unit = vec![0.0; n * n];
    for i in 0..n {
        let below = 1.0 / (s.factor.diagonal(i) * s.unit[i]);
        for j in i + 1..n {
            unit[j * n + i] = s.factor.data[i * n + j] * s.unit[j] * below;
        }
    }
    (unit, (0..n).map(|i| s.factor.diagonal(i) * s.unit[i]).collect())
}

impl Rounding for Host<'_> {
    fn costs(&self, lanes: &[Lane]) -> Result<Vec<f64>> {
        let factor = Factor { unit: &self.unit, diagonal: &self.diagonal };
        let mut costs = vec![0.0; lanes.len()];
        self.groups(lanes, &mut costs, 1, |rows, out| {
            out.copy_from_slice(&feedback::twin(factor, &self.steps, rows, None)[..rows.len()]);
        });
        self.stop()?;
        Ok(costs)
    }

    fn levels(&self, lanes: &[Lane]) -> Result<Vec<f64>> {
        let n = self.task.system.n;
        let factor = Factor { unit: &self.unit, diagonal: &self.diagonal };
        let mut levels = vec![0.0; lanes.len() * n];
        if n > 0 {
            self.groups(lanes, &mut levels, n, |rows, out| {
                feedback::twin(factor, &self.steps, rows, Some(out));
            });
        }
        self.stop()?;
        Ok(levels)
    }

    fn descend(&self, q: &mut Quantized, hq: &mut [f64], going: &[bool]) -> Result<bool> {
        let (n, m) = (self.task.system.n, self.task.system.m);
        if n == 0 {
            return Ok(false);
        }
        let scale = &q.scale;
        let gram = descent::Gram { h: &self.task.system.h, n };
        let one = |(o, (levels, hq)): (usize, (&mut [f64], &mut [f64]))| {
            if !going[o] || (self.cancelled)() {
                return false;
            }
            let b = &self.task.system.b[o * n..(o + 1) * n];
            descent::twin(gram, &self.steps, b, self.row(o), scale[o], (levels, hq), SWEEPS) > 0
        };
        let moved = if m * n * n < PARALLEL_FROM {
            q.levels.chunks_exact_mut(n).zip(hq.chunks_exact_mut(n)).enumerate().map(one).fold(false, |a, b| a | b)
        } else {
            let rows = q.levels.par_chunks_exact_mut(n).zip(hq.par_chunks_exact_mut(n));
            rows.enumerate().map(one).reduce(|| false, |a, b| a | b)
        };
        self.stop()?;
        Ok(moved)
    }
}

/// A buffer of levels (lanes x n) stays below this, so that several fit any device.
const MOST_BYTES: u64 = 64 << 20;

/// f32 on a GPU.
struct OnDevice<'a> {
    dev: Device,
    host: Host<'a>,
    steps: Steps<f32>,
    /// n x n: `feedback::Inputs::unit`.
    unit: Buffer<f32>,
    w: Buffer<f32>,
    h: Buffer<f32>,
    b: Buffer<f32>,
    bounds: Option<Buffer<f32>>,
}

impl<'a> OnDevice<'a> {
    fn new(dev: &Device, host: Host<'a>) -> Result<Self> {
        let system = host.task.system;
        let n = system.n;
        let mut unit = single(&host.unit);
        (0..n).for_each(|i| unit[i * n + i] = host.diagonal[i] as f32);
        let bounds = host.task.bounds.map(|(l, u)| dev.upload(&[single(l), single(u)].concat())).transpose()?;
        Ok(Self {
            steps: Steps::of(host.task.grid),
            unit: dev.upload(&unit)?,
            w: dev.upload(&single(&system.free))?,
            h: dev.upload(&single(&system.h))?,
            b: dev.upload(&single(&system.b))?,
            bounds,
            dev: dev.clone(),
            host,
        })
    }

    /// Error feedback of the lanes, batch by batch: `take` gets each batch's levels and costs.
    fn feedback(
        &self,
        lanes: &[Lane],
        mut take: impl FnMut(&[Lane], &Buffer<f32>, &Buffer<f32>) -> Result<()>,
    ) -> Result<()> {
        let (n, rows) = (self.host.task.system.n, self.host.task.system.m);
        let most = (self.dev.max_buffer_bytes().min(MOST_BYTES) / (4 * n as u64)).max(1) as usize;
        let inputs = feedback::Inputs { n, rows, unit: &self.unit, w: &self.w, bounds: self.bounds.as_ref() };
        for lanes in lanes.chunks(most) {
            self.host.stop()?;
            let lane_rows = self.dev.upload(&lanes.iter().map(|l| l.row as u32).collect::<Vec<_>>())?;
            let scales = self.dev.upload(&lanes.iter().map(|l| l.scale as f32).collect::<Vec<_>>())?;
            let (mut q, mut cost) = (self.dev.zeros(lanes.len() * n)?, self.dev.zeros(lanes.len())?);
            feedback::feedback(&self.dev, &inputs, &self.steps, (&lane_rows, &scales), &mut q, &mut cost)?;
            take(lanes, &q, &cost)?;
        }
        Ok(())
    }

    /// Levels of some lanes as the grid and the box have them in f64: f32 rounds both.
    fn exact(&self, lanes: impl Iterator<Item = Lane>, levels: &[f32], out: &mut Vec<f64>) {
        let n = self.host.task.system.n;
        for (lane, levels) in lanes.zip(levels.chunks_exact(n)) {
            let bounds = self.host.row(lane.row).bounds;
            out.extend(levels.iter().enumerate().map(|(i, v)| match bounds {
                None => self.host.steps.nearest(f64::from(*v)),
                Some((lower, upper)) => {
                    let (lower, upper) = (lower[i] / lane.scale, upper[i] / lane.scale);
                    self.host.steps.nearest_within(f64::from(*v), lower, upper)
                }
            }));
        }
    }
}

impl Rounding for OnDevice<'_> {
    fn costs(&self, lanes: &[Lane]) -> Result<Vec<f64>> {
        let mut costs = Vec::with_capacity(lanes.len());
        self.feedback(lanes, |_, _, cost| {
            let finite = |c: f32| if c < 3e38 { f64::from(c) } else { f64::INFINITY };
            costs.extend(self.dev.download(cost)?.into_iter().map(finite));
            Ok(())
        })?;
        Ok(costs)
    }

    fn levels(&self, lanes: &[Lane]) -> Result<Vec<f64>> {
        let mut levels = Vec::with_capacity(lanes.len() * self.host.task.system.n);
        self.feedback(lanes, |lanes, q, _| {
            self.exact(lanes.iter().copied(), &self.dev.download(q)?, &mut levels);
            Ok(())
        })?;
        Ok(levels)
    }

    fn descend(&self, q: &mut Quantized, hq: &mut [f64], going: &[bool]) -> Result<bool> {
        self.host.stop()?;
        let (n, m) = (self.host.task.system.n, self.host.task.system.m);
        let scales: Vec<f32> = q.scale.iter().zip(going).map(|(s, go)| if *go { *s as f32 } else { 0.0 }).collect();
        let scales = self.dev.upload(&scales)?;
        let bounds = self.bounds.as_ref();
        let inputs = descent::Inputs { n, m, h: &self.h, b: &self.b, scales: &scales, bounds };
        let (mut levels, mut products) = (self.dev.upload(&single(&q.levels))?, self.dev.upload(&single(hq))?);
        let sweeps = descent::descent(&self.dev, &inputs, &self.steps, &mut levels, &mut products, SWEEPS)?;
        if sweeps > 0 {
            let mut exact = Vec::with_capacity(m * n);
            let lanes = q.scale.iter().enumerate().map(|(row, scale)| Lane { row, scale: *scale });
            self.exact(lanes, &self.dev.download(&levels)?, &mut exact);
            q.levels = exact;
            dense::product(hq, false, &q.levels, &self.host.task.system.h, (m, n, n), dense::par(m * n * n));
        }
        let finished = self.host.descend(q, hq, going)?;
        Ok(sweeps > 0 || finished)
    }
}
