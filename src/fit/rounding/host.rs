//! The loops of the grid solver on this machine's cores, in f64.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::{Lane, Rounding, Rows};
use crate::compute::solver::feedback::{self, Factor, LANES, Row};
use crate::compute::solver::{Steps, dense, descent, kbest, pairs};
use crate::error::{Error, Result};
use crate::fit::quantize::{SWEEPS, Task};
use crate::fit::stepper::single;

/// Multiplications below which a second core costs more than it brings.
const PARALLEL_FROM: usize = 1 << 18;

/// f64 on the CPU.
pub(super) struct Host<'a> {
    pub task: Task<'a>,
    steps: Steps<f64>,
    pub unit: Arc<Vec<f64>>,
    pub diagonal: Arc<Vec<f64>>,
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
            unit: Arc::new(unit),
            diagonal: Arc::new(diagonal),
            single: OnceLock::new(),
            screen: OnceLock::new(),
            cancelled,
        }
    }

    /// Another one for the same task, with the same factor.
    pub fn again(&self) -> Self {
        let (unit, diagonal) = (self.unit.clone(), self.diagonal.clone());
        let (steps, single, screen) = (self.steps.clone(), OnceLock::new(), OnceLock::new());
        Self { task: self.task, steps, unit, diagonal, single, screen, cancelled: self.cancelled }
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
    pub fn exact(&self, lane: Lane, levels: &[f32], out: &mut [f64]) {
        let (bounds, steps) = (self.row(lane.row).bounds, self.steps.of_row(lane.row));
        for (i, (v, out)) in levels.iter().zip(out).enumerate() {
            let v = f64::from(*v);
            *out = match bounds {
                None => steps.nearest(v),
                Some((lower, upper)) => steps.nearest_within(v, lower[i] / lane.scale, upper[i] / lane.scale),
            };
        }
    }

    pub fn stop(&self) -> Result<()> {
        if (self.cancelled)() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Runs `moves` on every row that is `going`. Of every row: whether it moved.
    fn rows(&self, rows: Rows<'_>, moves: &Moves<'_>) -> Result<Vec<bool>> {
        let Rows { at, levels, hq, scale, going } = rows;
        let (n, m) = (self.task.system.n, at.len());
        if n == 0 {
            return Ok(vec![false; m]);
        }
        let gram = descent::Gram { h: &self.task.system.h, n };
        let one = |(r, state): (usize, (&mut [f64], &mut [f64]))| {
            let o = at.start + r;
            let b = &self.task.system.b[o * n..(o + 1) * n];
            going[r] && !(self.cancelled)() && moves(o, gram, b, self.row(o), scale[r], state)
        };
        let moved = if m * n * n < PARALLEL_FROM {
            levels.chunks_exact_mut(n).zip(hq.chunks_exact_mut(n)).enumerate().map(one).collect()
        } else {
            levels.par_chunks_exact_mut(n).zip(hq.par_chunks_exact_mut(n)).enumerate().map(one).collect()
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
fn unit_factor(task: &Task<'_>) -> (Vec<f64>, Vec<f64>) {
    let (n, s) = (task.system.n, task.system);
    let diagonal: Vec<f64> = (0..n).map(|i| s.factor.diagonal(i) * s.unit[i]).collect();
    let below: Vec<f64> = diagonal.iter().map(|d| 1.0 / d).collect();
    let mut unit = dense::transposed(&s.factor.data, n);
    for (j, row) in unit.chunks_exact_mut(n.max(1)).enumerate() {
        row[..j].iter_mut().zip(&below).for_each(|(v, below)| *v = *v * s.unit[j] * below);
        row[j..].fill(0.0);
    }
    (unit, diagonal)
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

    fn descend(&self, rows: Rows<'_>) -> Result<()> {
        self.rows(rows, &|o, gram, b, row, scale, state| {
            descent::twin(gram, &self.steps.of_row(o), b, row, scale, state, SWEEPS) > 0
        })?;
        Ok(())
    }

    fn pair(&self, rows: Rows<'_>) -> Result<Vec<bool>> {
        let system = self.task.system;
        let screen = self.screen.get_or_init(|| pairs::Screen::new(Cow::Owned(single(&system.h)), system.n));
        self.rows(rows, &|o, gram, b, row, scale, state| {
            pairs::twin((gram, screen), &self.steps.of_row(o), b, row, scale, state) > 0 //
        })
    }

    fn relevel(&mut self, steps: Steps<f64>) {
        self.steps = steps;
        self.single = OnceLock::new();
    }
}
