//! Factors, triangular solves, and removals of inputs.

use super::super::sizes::Sizes;
use super::super::work;
use super::{Case, reals};
use crate::compute::Device;
use crate::compute::factor::{self, Lower};
use crate::compute::removal::{self, Fitted};
use crate::error::Result;

/// Inputs of a group: the taps of a 3 x 3 channel.
const GROUP: usize = 9;

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

fn fitted(dev: &Device, (n, rows): (usize, usize), inverse: &[f32], weights: &[f32]) -> Result<Fitted> {
    let groups = (0..n / GROUP).map(|g| (g * GROUP..(g + 1) * GROUP).collect()).collect();
    Fitted::upload(dev, (n, rows), groups, |i, row| {
        let (left, right) = row.split_at_mut(n);
        left.copy_from_slice(&inverse[i * n..(i + 1) * n]);
        right.copy_from_slice(&weights[i * rows..(i + 1) * rows]);
    })
}

/// What every group's removal would cost.
pub fn removal_costs(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, n, rows) = (dev.clone(), s.n, s.rows);
    let all = fitted(&dev, (n, rows), &positive(n), &reals(2, n * rows))?;
    let candidates: Vec<usize> = (0..n / GROUP).collect();
    Ok(Some(Case {
        shape: format!("n = {n} in groups of {GROUP}, {rows} rows"),
        once: Box::new(move || {
            let elapsed = dev.timed(|| removal::costs(&dev, &all, &candidates).map(drop))?;
            Ok((elapsed, work::removal_costs((n, rows), candidates.len(), GROUP)))
        }),
    }))
}

/// The removal of one group.
pub fn removal(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, n, rows) = (dev.clone(), s.n, s.rows);
    let (inverse, weights) = (positive(n), reals(2, n * rows));
    Ok(Some(Case {
        shape: format!("{GROUP} of n = {n}, {rows} rows"),
        once: Box::new(move || {
            let mut all = fitted(&dev, (n, rows), &inverse, &weights)?;
            let elapsed = dev.timed(|| removal::remove(&dev, &mut all, 0))?;
            Ok((elapsed, work::removal((n, rows), GROUP)))
        }),
    }))
}
