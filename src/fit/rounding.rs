//! Where the batched loops of the grid solver run: on this machine's cores in f64, or on a GPU in f32, whose descent the
//! CPU then finishes in f64.

use std::borrow::Cow;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::quantize::{Quantized, SWEEPS, Task};
use super::stepper::single;
use crate::compute::solver::feedback::{self, Factor, LANES, Row};
use crate::compute::solver::{Steps, dense, descent, kbest, pairs};
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
    /// Error feedback of every lane: d H d^T of what is stored less what is rounded; infinite if the box forbids it.
    fn costs(&self, lanes: &[Lane]) -> Result<Vec<f64>>;
    /// Error feedback of every lane with `paths` partial solutions kept (1: plain feedback): the levels (lanes x n).
    fn levels(&self, lanes: &[Lane], paths: usize) -> Result<Vec<f64>>;
    /// Coordinate descent to a fixed point of the rows that are `going`; `hq` (m x n) is H times the levels, in and
    /// out.
    fn descend(&self, q: &mut Quantized, hq: &mut [f64], going: &[bool]) -> Result<()>;
    /// One sweep of pair moves, likewise. m: which rows moved.
    fn pair(&self, q: &mut Quantized, hq: &mut [f64], going: &[bool]) -> Result<Vec<bool>>;
    /// Rounds to these levels from now on.
    fn relevel(&mut self, steps: Steps<f64>);
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
    /// What K-best works on: in f32 it is twice as fast, and descent in f64 has the last word.
    single: OnceLock<Single>,
    screen: OnceLock<pairs::Screen<'static>>,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// A task in f32.
struct Single {
    unit: Vec<f32>,
    diagonal: Vec<f32>,
    w: Vec<f32>,
    bounds: Option<(Vec<f32>, Vec<f32>)>,
    steps: Steps<f32>,
}

impl Single {
    fn row(&self, o: usize) -> Row<'_, f32> {
        let n = self.diagonal.len();
        let at = o * n..(o + 1) * n;
        let bounds = self.bounds.as_ref().map(|(l, u)| (&l[at.clone()], &u[at.clone()]));
        Row { w: &self.w[at], bounds }
    }
}

impl<'a> Host<'a> {
    pub fn new(task: Task<'a>, cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        let (unit, diagonal) = unit_factor(&task);
        Self {
            task,
            steps: Steps::of(task.grid),
            unit,
            diagonal,
            single: OnceLock::new(),
            screen: OnceLock::new(),
            cancelled,
        }
    }

    fn row(&self, o: usize) -> Row<'_, f64> {
        row(&self.task, o)
    }

    fn single(&self) -> &Single {
        self.single.get_or_init(|| Single {
            unit: single(&self.unit),
            diagonal: single(&self.diagonal),
            w: single(self.task.around),
            bounds: self.task.bounds.map(|(l, u)| (single(l), single(u))),
            steps: self.steps.single(),
        })
    }

    /// K-best of every lane in f32: the levels (lanes x n).
    fn kbest(&self, lanes: &[Lane], paths: usize) -> Vec<f64> {
        let (n, data) = (self.task.system.n, self.single());
        let factor = Factor { unit: &data.unit, diagonal: &data.diagonal };
        let one = |room: &mut kbest::Room<f32>, (lane, out): (&Lane, &mut [f64])| {
            // cancelled work leaves zeros behind; `stop` turns them into an error
            if !(self.cancelled)() {
                let mut q = vec![0.0; n];
                kbest::twin(
                    factor,
                    &data.steps.of_row(lane.row),
                    (data.row(lane.row), lane.scale as f32),
                    paths,
                    room,
                    &mut q,
                );
                self.exact(*lane, &q, out);
            }
        };
        let mut levels = vec![0.0; lanes.len() * n];
        let room = || kbest::Room::new(n, paths);
        if lanes.len() * n * n * paths < PARALLEL_FROM {
            let mut room = room();
            lanes.iter().zip(levels.chunks_exact_mut(n)).for_each(|work| one(&mut room, work));
        } else {
            lanes.par_iter().zip(levels.par_chunks_exact_mut(n)).for_each_init(room, one);
        }
        levels
    }

    /// A lane's levels as the grid and the box have them in f64: f32 rounds both.
    fn exact(&self, lane: Lane, levels: &[f32], out: &mut [f64]) {
        let (bounds, steps) = (self.row(lane.row).bounds, self.steps.of_row(lane.row));
        for (i, (v, out)) in levels.iter().zip(out).enumerate() {
            let v = f64::from(*v);
            *out = match bounds {
                None => steps.nearest(v),
                Some((lower, upper)) => steps.nearest_within(v, lower[i] / lane.scale, upper[i] / lane.scale),
            };
        }
    }

    fn stop(&self) -> Result<()> {
        if (self.cancelled)() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Runs `moves` on every row that is `going`. m: which rows moved.
    fn rows(&self, q: &mut Quantized, hq: &mut [f64], going: &[bool], moves: &Moves<'_>) -> Result<Vec<bool>> {
        let (n, m) = (self.task.system.n, self.task.system.m);
        if n == 0 {
            return Ok(vec![false; m]);
        }
        let scale = &q.scale;
        let gram = descent::Gram { h: &self.task.system.h, n };
        let one = |(o, state): (usize, (&mut [f64], &mut [f64]))| {
            let b = &self.task.system.b[o * n..(o + 1) * n];
            going[o] && !(self.cancelled)() && moves(o, gram, b, self.row(o), scale[o], state)
        };
        let moved = if m * n * n < PARALLEL_FROM {
            q.levels.chunks_exact_mut(n).zip(hq.chunks_exact_mut(n)).enumerate().map(one).collect()
        } else {
            let rows = q.levels.par_chunks_exact_mut(n).zip(hq.par_chunks_exact_mut(n));
            rows.enumerate().map(one).collect()
        };
        self.stop()?;
        Ok(moved)
    }

    /// Runs `each` on every group of lanes; `out` is cut alongside (`width` values a lane).
    fn groups(
        &self,
        lanes: &[Lane],
        out: &mut [f64],
        width: usize,
        each: impl Fn(&Steps<f64>, &[(Row<'_, f64>, f64)], &mut [f64]) + Sync,
    ) {
        let n = self.task.system.n;
        let one = |(lanes, out): (&[Lane], &mut [f64])| {
            let rows: Vec<_> = lanes.iter().map(|l| (self.row(l.row), l.scale)).collect();
            // cancelled work leaves zeros behind; `stop` turns them into an error
            if !(self.cancelled)() {
                each(&self.steps.of_row(lanes[0].row), &rows, out);
            }
        };
        // lanes that are carried together share their levels
        let at_once = if self.steps.by_row() { 1 } else { LANES };
        if lanes.len() * n * n < PARALLEL_FROM {
            lanes.chunks(at_once).zip(out.chunks_mut(at_once * width)).for_each(one);
        } else {
            lanes.par_chunks(at_once).zip(out.par_chunks_mut(at_once * width)).for_each(one);
        }
    }
}

/// One row's moves: its number, H, its part of B, its box, its scale, its levels and H times them. Whether anything moved.
type Moves<'a> =
    dyn Fn(usize, descent::Gram<'_, f64>, &[f64], Row<'_, f64>, f64, (&mut [f64], &mut [f64])) -> bool + Sync + 'a;

/// The box of row `o` and the weights that are rounded.
fn row<'a>(task: &Task<'a>, o: usize) -> Row<'a, f64> {
    let n = task.system.n;
    let of = |all: &'a [f64]| &all[o * n..(o + 1) * n];
    Row { w: of(task.around), bounds: task.bounds.map(|(lower, upper)| (of(lower), of(upper))) }
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
        self.groups(lanes, &mut costs, 1, |steps, rows, out| {
            out.copy_from_slice(&feedback::twin(factor, steps, rows, None)[..rows.len()]);
        });
        self.stop()?;
        Ok(costs)
    }

    fn levels(&self, lanes: &[Lane], paths: usize) -> Result<Vec<f64>> {
        let n = self.task.system.n;
        let factor = Factor { unit: &self.unit, diagonal: &self.diagonal };
        let mut levels = vec![0.0; lanes.len() * n];
        if n > 0 && paths > 1 {
            levels = self.kbest(lanes, paths);
        } else if n > 0 {
            self.groups(lanes, &mut levels, n, |steps, rows, out| {
                feedback::twin(factor, steps, rows, Some(out));
            });
        }
        self.stop()?;
        Ok(levels)
    }

    fn descend(&self, q: &mut Quantized, hq: &mut [f64], going: &[bool]) -> Result<()> {
        self.rows(q, hq, going, &|o, gram, b, row, scale, state| {
            descent::twin(gram, &self.steps.of_row(o), b, row, scale, state, SWEEPS) > 0
        })?;
        Ok(())
    }

    fn pair(&self, q: &mut Quantized, hq: &mut [f64], going: &[bool]) -> Result<Vec<bool>> {
        let system = self.task.system;
        let screen = self.screen.get_or_init(|| pairs::Screen::new(Cow::Owned(single(&system.h)), system.n));
        self.rows(q, hq, going, &|o, gram, b, row, scale, state| {
            pairs::twin((gram, screen), &self.steps.of_row(o), b, row, scale, state) > 0 //
        })
    }

    fn relevel(&mut self, steps: Steps<f64>) {
        self.steps = steps;
        self.single = OnceLock::new();
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
            w: dev.upload(&single(host.task.around))?,
            h: dev.upload(&single(&system.h))?,
            b: dev.upload(&single(&system.b))?,
            bounds,
            dev: dev.clone(),
            host,
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
        let (n, rows) = (self.host.task.system.n, self.host.task.system.m);
        let a_lane = if paths > 1 { kbest::device_bytes(n, paths) } else { 4 * n as u64 };
        let most = (self.dev.max_buffer_bytes().min(MOST_BYTES) / a_lane).max(1) as usize;
        let inputs = feedback::Inputs { n, rows, unit: &self.unit, w: &self.w, bounds: self.bounds.as_ref() };
        for lanes in lanes.chunks(most) {
            self.host.stop()?;
            let lane_rows = self.dev.upload(&lanes.iter().map(|l| l.row as u32).collect::<Vec<_>>())?;
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
        q: &mut Quantized,
        hq: &mut [f64],
        going: &[bool],
        moves: impl FnOnce(&descent::Inputs<'_>, &mut Buffer<f32>, &mut Buffer<f32>) -> Result<bool>,
    ) -> Result<()> {
        self.host.stop()?;
        let (n, m) = (self.host.task.system.n, self.host.task.system.m);
        let scales: Vec<f32> = q.scale.iter().zip(going).map(|(s, go)| if *go { *s as f32 } else { 0.0 }).collect();
        let scales = self.dev.upload(&scales)?;
        let bounds = self.bounds.as_ref();
        let inputs = descent::Inputs { n, m, h: &self.h, b: &self.b, scales: &scales, bounds };
        let (mut levels, mut products) = (self.dev.upload(&single(&q.levels))?, self.dev.upload(&single(hq))?);
        if !moves(&inputs, &mut levels, &mut products)? {
            return Ok(());
        }
        let mut exact = Vec::with_capacity(m * n);
        let lanes = q.scale.iter().enumerate().map(|(row, scale)| Lane { row, scale: *scale });
        self.exact(lanes, &self.dev.download(&levels)?, &mut exact);
        q.levels = exact;
        dense::product(hq, false, &q.levels, &self.host.task.system.h, (m, n, n), dense::par(m * n * n));
        Ok(())
    }

    /// Levels of some lanes in f64.
    fn exact(&self, lanes: impl Iterator<Item = Lane>, levels: &[f32], out: &mut Vec<f64>) {
        let n = self.host.task.system.n;
        for (lane, levels) in lanes.zip(levels.chunks_exact(n)) {
            let begin = out.len();
            out.resize(begin + n, 0.0);
            self.host.exact(lane, levels, &mut out[begin..]);
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
        let mut levels = Vec::with_capacity(lanes.len() * self.host.task.system.n);
        self.feedback(lanes, paths, |lanes, q, _| {
            self.exact(lanes.iter().copied(), &self.dev.download(q)?, &mut levels);
            Ok(())
        })?;
        Ok(levels)
    }

    fn descend(&self, q: &mut Quantized, hq: &mut [f64], going: &[bool]) -> Result<()> {
        self.moves(q, hq, going, |inputs, levels, products| {
            descent::descent(&self.dev, inputs, &self.steps, levels, products, SWEEPS).map(|sweeps| sweeps > 0)
        })?;
        self.host.descend(q, hq, going)
    }

    fn pair(&self, q: &mut Quantized, hq: &mut [f64], going: &[bool]) -> Result<Vec<bool>> {
        let mut moved = Vec::new();
        self.moves(q, hq, going, |inputs, levels, products| {
            moved = pairs::pairs(&self.dev, inputs, &self.steps, levels, products)?;
            Ok(moved.contains(&true))
        })?;
        Ok(moved)
    }

    fn relevel(&mut self, steps: Steps<f64>) {
        self.steps = steps.single();
        self.host.relevel(steps);
    }
}
