//! Factors and triangular solves.

use super::super::sizes::Sizes;
use super::super::work;
use super::{Case, reals};
use crate::compute::Device;
use crate::compute::factor::{self, Lower};
use crate::error::Result;

/// A symmetric, diagonally dominant matrix (n x n): positive definite for certain.
fn positive(n: usize) -> Vec<f32> {
    let mut a = reals(1, n * n);
    for i in 0..n {
        for j in 0..i {
            a[j * n + i] = a[i * n + j];
        }
        a[i * n + i] = n as f32;
    }
    a
}

pub fn cholesky(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, n) = (dev.clone(), s.n);
    let a = positive(n);
    Ok(Some(Case {
        shape: format!("n = {n}"),
        once: Box::new(move || {
            let mut l = lower(&dev, n, &a)?;
            let elapsed = dev.timed(|| factor::cholesky(&dev, &mut l)?.expect_positive("Cholesky"))?;
            Ok((elapsed, work::cholesky(n)))
        }),
    }))
}

fn lower(dev: &Device, n: usize, a: &[f32]) -> Result<Lower> {
    Lower::upload(dev, n, |i, row| row.copy_from_slice(&a[i * n..=i * n + i]))
}

/// The forward solve; the backward one does the same in the other order.
pub fn triangular(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, n, m) = (dev.clone(), s.n, s.n);
    let mut l = lower(&dev, n, &positive(n))?;
    factor::cholesky(&dev, &mut l)?.expect_positive("Cholesky")?;
    let sides = dev.upload(&reals(2, m * n))?;
    let mut x = dev.zeros(m * n)?;
    Ok(Some(Case {
        shape: format!("n = {n}, {m} sides"),
        once: Box::new(move || {
            dev.copy(&sides, 0, &mut x, 0, m * n)?;
            let elapsed = dev.timed(|| factor::forward(&dev, &l, m, &mut x))?;
            Ok((elapsed, work::triangular(n, m)))
        }),
    }))
}
