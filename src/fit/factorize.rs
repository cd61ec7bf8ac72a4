//! The factor of a layer's H: in f64 on the CPU, or, where H is large and there is a real GPU, in f32 on that and as good
//! as f64 by refinement. Which way a large one goes is told, with its size.

use faer::Par;
use rayon::prelude::*;

use super::offload;
use super::system::PARALLEL_FROM;
use crate::compute::Device;
use crate::compute::factor::{self, Factored, Lower};
use crate::compute::solver::dense::{self, Cholesky};
use crate::error::{Error, Result};

/// A smaller pivot of the unit-diagonal H is rounding error: in f64, and in f32.
const LEAST_PIVOT: f64 = 1e-12;
const LEAST_ROUGH_PIVOT: f64 = 1e-4;
/// The ladder's first rung, and where it ends, in units of the unit-diagonal H: rounding noise never needs so much.
const DAMPING: (f64, f64) = (1e-11, 0.05);
/// Inputs from which a real GPU is asked.
const LARGE: usize = 1024;

/// Factors the unit-diagonal form of `h`, adding to its diagonal as little of 1e-11, 1e-10, .. as makes it positive
/// definite. Returns the factor and what was added.
pub(super) fn exactly(h: &[f64], unit: &[f64]) -> Result<(Cholesky, f64)> {
    let n = unit.len();
    let par = dense::par(n * n * n / 3);
    let mut damping = 0.0;
    loop {
        let mut a = with_unit_diagonal(h, unit);
        for k in 0..n {
            a[k * n + k] = 1.0 + damping;
        }
        let enough = |c: &Cholesky| (0..n).all(|k| c.diagonal(k).powi(2) >= LEAST_PIVOT);
        match Cholesky::new(a, n, par).filter(enough) {
            Some(found) => return Ok((found, damping)),
            None if damping < DAMPING.1 => damping = if damping == 0.0 { DAMPING.0 } else { damping * 10.0 },
            None => {
                return Err(Error::input("h", "is not positive semidefinite: it cannot be a sum of x x^T"));
            }
        }
    }
}

/// h_ij / (unit_i unit_j).
pub(super) fn with_unit_diagonal(h: &[f64], unit: &[f64]) -> Vec<f64> {
    let at_once = PARALLEL_FROM.max(unit.len());
    let entry = |at: usize| h[at] / (unit[at / unit.len()] * unit[at % unit.len()]);
    (0..h.len()).into_par_iter().with_min_len(at_once).map(entry).collect()
}

/// A factor in f32 that stays on its device.
pub(super) struct Rough {
    dev: Device,
    lower: Lower,
}

/// Whether H of n inputs is worth a device's while.
pub(super) fn pays(dev: &Device, n: usize) -> bool {
    offload::is_real(dev) && n >= LARGE
}

impl Rough {
    /// The factor of the unit-diagonal form of `h` on `dev`; none where f32 cannot carry it or the device has no room for
    /// it, which is told.
    pub fn new(dev: &Device, h: &[f64], unit: &[f64]) -> Option<Self> {
        let n = unit.len();
        let name = &dev.info().name;
        let megabytes = (n * (n + 1) / 2 * size_of::<f32>()) >> 20;
        let factored = || {
            let (need, room) = ((n * (n + 1) / 2 * size_of::<f32>()) as u64, dev.room());
            if need > room {
                return Err(Error::work("budget", format!("{} MiB are left of it", room >> 20)));
            }
            let mut lower = Lower::upload(dev, n, |i, row| {
                let scaled = row.iter_mut().zip(&h[i * n..]).zip(unit);
                scaled.for_each(|((v, h), u)| *v = (h / (u * unit[i])) as f32);
                row[i] = 1.0;
            })?;
            factor::cholesky(dev, &mut lower).map(|how| (lower, how))
        };
        match factored() {
            Ok((lower, Factored::Done)) => {
                tracing::debug!("H of {n} inputs: factored on {name} in {} parts, {megabytes} MiB", lower.bands());
                Some(Rough { dev: dev.clone(), lower })
            }
            Ok((_, Factored::NotPositive { .. })) => {
                tracing::debug!("H of {n} inputs is too ill conditioned for f32: factored on the CPU");
                None
            }
            Err(e) => {
                let wide = (n * n * size_of::<f64>()) >> 20;
                tracing::info!(
                    "H of {n} inputs takes {megabytes} MiB, which {name} has not ({e}): factored on the CPU in {wide} MiB"
                );
                None
            }
        }
    }

    /// L in f64; none if a pivot is so small that f32 cannot be trusted with it.
    pub fn factor(&self) -> Result<Option<Cholesky>> {
        let n = self.lower.size();
        let mut data = vec![0.0; n * n];
        self.lower.download(&self.dev, |i, row| {
            data[i * n..].iter_mut().zip(row).for_each(|(to, v)| *to = f64::from(*v));
        })?;
        let factor = Cholesky { data: dense::transposed(&data, n), n };
        let enough = (0..n).all(|k| factor.diagonal(k).powi(2) >= LEAST_ROUGH_PIVOT);
        Ok(enough.then_some(factor))
    }

    /// x (rows x n) = x times the inverse of the unit-diagonal H, to f32's precision.
    pub fn solve(&self, x: &mut [f64]) -> Result<()> {
        let n = self.lower.size();
        let most = (self.dev.max_buffer_bytes() as usize / size_of::<f32>() / n).max(1);
        for rows in x.chunks_mut(most * n) {
            // Residuals are of any size: each row is brought to 1.
            let sizes: Vec<f64> =
                rows.chunks_exact(n).map(|row| row.iter().fold(0.0, |s: f64, v| s.max(v.abs()))).collect();
            let scaled = |(row, size): (&[f64], &f64)| -> Vec<f32> {
                row.iter().map(|v| if *size > 0.0 { (v / size) as f32 } else { 0.0 }).collect()
            };
            let narrow: Vec<f32> = rows.chunks_exact(n).zip(&sizes).flat_map(scaled).collect();
            let mut sides = self.dev.upload(&narrow)?;
            factor::solve(&self.dev, &self.lower, sizes.len(), &mut sides)?;
            let solved = self.dev.view(&sides)?;
            for ((row, from), size) in rows.chunks_exact_mut(n).zip(solved.chunks_exact(n)).zip(&sizes) {
                row.iter_mut().zip(from).for_each(|(v, f)| *v = f64::from(*f) * size);
            }
        }
        Ok(())
    }
}

/// What solves for a correction: x (rows x n) = x times the inverse of the unit-diagonal H.
pub(super) enum Solver<'a> {
    Exact(&'a Cholesky),
    Rough(&'a Rough),
}

impl Solver<'_> {
    pub fn solve(&self, x: &mut [f64], rows: usize, par: Par) -> Result<()> {
        match self {
            Solver::Exact(factor) => factor.solve(x, rows, par),
            Solver::Rough(factor) => factor.solve(x)?,
        }
        Ok(())
    }
}
