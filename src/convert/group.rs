//! One group of a layer as a problem of its own: the sums over its inputs in the units of shifted codes.

use super::layer::Task;
use crate::chip::PairNoise;
use crate::compute::gram::Sums;
use crate::error::Result;
use crate::fit::{self, Fold, Noise, Problem};

/// Raw sums of one group, columns times their scale (see `Task::scales`).
pub(super) struct Group<'a> {
    h: Vec<f64>,
    b: Vec<f64>,
    x: Vec<f64>,
    t: &'a [f64],
    tt: &'a [f64],
    count: f64,
}

impl<'a> Group<'a> {
    /// `m`: rows of a group.
    pub fn new(task: &Task, sums: &'a Sums, g: usize, m: usize) -> Self {
        let (n, scales) = (task.inputs(), task.scales());
        let scaled = |v: &[f64]| -> Vec<f64> { v.iter().enumerate().map(|(i, v)| v * scales[i % n]).collect() };
        let h = scaled(&sums.h[g * n * n..(g + 1) * n * n])
            .chunks_exact(n)
            .zip(&scales)
            .flat_map(|(row, s)| row.iter().map(move |v| v * s))
            .collect();
        Self {
            h,
            b: scaled(&sums.b[g * m * n..(g + 1) * m * n]),
            x: scaled(&sums.x_sum[g * n..(g + 1) * n]),
            t: &sums.z_sum[g * m..(g + 1) * m],
            tt: &sums.zz[g * m..(g + 1) * m],
            count: sums.count as f64,
        }
    }

    pub fn sums(&self) -> fit::Sums<'_> {
        let Self { h, b, x, t, tt, count } = self;
        fit::Sums { h, b, x, t, tt, count: *count }
    }

    /// What programming makes of weights that read it.
    pub fn noise(&self, noise: &PairNoise) -> Noise {
        let n = self.x.len();
        Noise { power: (0..n).map(|i| self.h[i * n + i]).collect(), variance: noise.variances() }
    }

    /// The same as one part of the samples.
    pub fn fold(self) -> Fold {
        let Self { h, b, x, t, tt, count } = self;
        Fold { h, b, x, t: t.to_vec(), tt: tt.to_vec(), count }
    }

    /// With a ridge towards `prior` (m x n).
    ///
    /// # Errors
    /// Work: no samples, NaN or infinity.
    pub fn problem(&self, prior: &[f64], ridge: f64) -> Result<Problem> {
        Ok(Problem { prior: Some(prior.to_vec()), ridge, ..Problem::from_sums(self.sums())? })
    }
}
