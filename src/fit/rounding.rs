//! Where the batched loops of the grid solver run: on this machine's cores in f64, or on a GPU.

use rayon::prelude::*;

use super::quantize::{Quantized, SWEEPS, Task};
use crate::compute::solver::feedback::{self, Factor, LANES, Row};
use crate::compute::solver::{Steps, descent};
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
