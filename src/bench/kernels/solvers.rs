//! The layer solvers' inner loops, on one layer problem with correlated inputs: H = L L^T of a random L, 4 bits.

use super::super::sizes::Sizes;
use super::super::work;
use super::{Case, reals};
use crate::chip::Grid;
use crate::compute::solver::{self, Steps, dense, sample_sweep as sweep};
use crate::compute::{Buffer, Device};
use crate::error::Result;

const SCALE: f32 = 0.12;
/// Paths of K-best.
const PATHS: usize = 16;
/// Iterations of the solvers that iterate.
const ITERATIONS: usize = 10;

fn levels() -> Result<Steps<f32>> {
    Ok(Steps::of(&"4".parse::<Grid>()?))
}

/// A random L / diag(L) with ones, or L_ii, on the diagonal: rows of length about 1.
fn factor(n: usize) -> Vec<f32> {
    let size = 1.0 / (n as f32).sqrt();
    let mut l: Vec<f32> = reals(1, n * n).iter().map(|v| size * v).collect();
    (0..n).for_each(|i| {
        l[i * n + i] = 1.0;
        l[i * n + i + 1..(i + 1) * n].fill(0.0);
    });
    l
}

/// H = L L^T (n x n), and w H for m random rows w.
fn problem(n: usize, m: usize) -> (Vec<f64>, Vec<f64>) {
    let l: Vec<f64> = factor(n).iter().map(|v| f64::from(*v)).collect();
    let transposed: Vec<f64> = (0..n * n).map(|at| l[at % n * n + at / n]).collect();
    let mut h = vec![0.0; n * n];
    dense::product(&mut h, false, &l, &transposed, (n, n, n), dense::par(n * n * n));
    let w: Vec<f64> = reals(2, m * n).iter().map(|v| f64::from(*v)).collect();
    let mut b = vec![0.0; m * n];
    dense::product(&mut b, false, &w, &h, (m, n, n), dense::par(m * n * n));
    (h, b)
}

fn single(v: &[f64]) -> Vec<f32> {
    v.iter().map(|v| *v as f32).collect()
}

/// What moved: entries that differ.
fn changed(before: &[f32], after: &[f32]) -> usize {
    before.iter().zip(after).filter(|(a, b)| a != b).count()
}

pub fn feedback(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, n, rows, steps) = (dev.clone(), s.n, s.rows, levels()?);
    let (unit, w) = (dev.upload(&factor(n))?, dev.upload(&reals(2, rows * n))?);
    let lane_rows = dev.upload(&(0..rows as u32).collect::<Vec<_>>())?;
    let scales = dev.upload(&vec![SCALE; rows])?;
    let (mut q, mut cost) = (dev.zeros(rows * n)?, dev.zeros(rows)?);
    Ok(Some(Case {
        shape: format!("n = {n}, {rows} rows"),
        once: Box::new(move || {
            let inputs = solver::feedback::Inputs { n, rows, unit: &unit, w: &w, bounds: None };
            let lanes = (&lane_rows, &scales);
            let elapsed = dev.timed(|| solver::feedback::feedback(&dev, &inputs, &steps, lanes, &mut q, &mut cost))?;
            Ok((elapsed, work::feedback(n, rows)))
        }),
    }))
}

pub fn kbest(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, n, rows, steps) = (dev.clone(), s.n, s.rows.div_ceil(4), levels()?);
    let (unit, w) = (dev.upload(&factor(n))?, dev.upload(&reals(2, rows * n))?);
    let lane_rows = dev.upload(&(0..rows as u32).collect::<Vec<_>>())?;
    let scales = dev.upload(&vec![SCALE; rows])?;
    let (mut q, mut cost) = (dev.zeros(rows * n)?, dev.zeros(rows)?);
    Ok(Some(Case {
        shape: format!("n = {n}, {rows} rows, {PATHS} paths"),
        once: Box::new(move || {
            let inputs = solver::feedback::Inputs { n, rows, unit: &unit, w: &w, bounds: None };
            let lanes = (&lane_rows, &scales);
            let elapsed = dev.timed(|| solver::kbest::kbest(&dev, &inputs, &steps, lanes, PATHS, &mut q, &mut cost))?;
            Ok((elapsed, work::kbest(n, rows, PATHS, solver::kbest::BRANCHES)))
        }),
    }))
}

/// A grid problem on a device, and the levels that a sweep starts from.
struct OnGrid {
    n: usize,
    m: usize,
    h: Buffer<f32>,
    b: Buffer<f32>,
    scales: Buffer<f32>,
    start: (Vec<f32>, Vec<f32>),
}

impl OnGrid {
    /// Starts at zero.
    fn new(dev: &Device, s: &Sizes) -> Result<Self> {
        let (n, m) = (s.n, s.rows);
        let (h, b) = problem(n, m);
        Ok(Self {
            n,
            m,
            h: dev.upload(&single(&h))?,
            b: dev.upload(&single(&b))?,
            scales: dev.upload(&vec![SCALE; m])?,
            start: (vec![0.0; m * n], vec![0.0; m * n]),
        })
    }

    fn inputs(&self) -> solver::descent::Inputs<'_> {
        solver::descent::Inputs { n: self.n, m: self.m, h: &self.h, b: &self.b, scales: &self.scales, bounds: None }
    }

    /// Levels and H times them, to sweep over.
    fn state(&self, dev: &Device) -> Result<(Buffer<f32>, Buffer<f32>)> {
        Ok((dev.upload(&self.start.0)?, dev.upload(&self.start.1)?))
    }
}

/// The first sweep from zero, in which most columns move.
pub fn descent(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, steps, on) = (dev.clone(), levels()?, OnGrid::new(dev, s)?);
    Ok(Some(Case {
        shape: format!("n = {}, {} rows, 1 sweep", on.n, on.m),
        once: Box::new(move || {
            let (mut q, mut hq) = on.state(&dev)?;
            let elapsed =
                dev.timed(|| solver::descent::descent(&dev, &on.inputs(), &steps, &mut q, &mut hq, 1).map(drop))?;
            let moves = changed(&on.start.0, &dev.view(&q)?);
            Ok((elapsed, work::descent(on.n, on.m, moves)))
        }),
    }))
}

/// A sweep from where descent ends.
pub fn pairs(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, steps, mut on) = (dev.clone(), levels()?, OnGrid::new(dev, s)?);
    let (mut q, mut hq) = on.state(&dev)?;
    solver::descent::descent(&dev, &on.inputs(), &steps, &mut q, &mut hq, 100)?;
    on.start = (dev.download(&q)?, dev.download(&hq)?);
    Ok(Some(Case {
        shape: format!("n = {}, {} rows, 1 sweep", on.n, on.m),
        once: Box::new(move || {
            let (mut q, mut hq) = on.state(&dev)?;
            let elapsed = dev.timed(|| solver::pairs::pairs(&dev, &on.inputs(), &steps, &mut q, &mut hq).map(drop))?;
            // A move changes two levels.
            let moves = changed(&on.start.0, &dev.view(&q)?) / 2;
            Ok((elapsed, work::pairs(on.n, on.m, moves)))
        }),
    }))
}

/// The first sweep of descent from zero, in the space of half as many samples as there are inputs.
pub fn sample_sweep(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, steps, n, m, samples) = (dev.clone(), levels()?, s.n, s.rows, s.n / 2);
    let size = 1.0 / (samples as f32).sqrt();
    let x: Vec<f64> = reals(1, n * samples).iter().map(|v| f64::from(size * v)).collect();
    let (probe, pull) = sweep::descent(&x, samples, 1e-2);
    let factors = [vec![SCALE; m], single(&pull)].concat();
    let (x, probe, factors) = (dev.upload(&single(&x))?, dev.upload(&single(&probe))?, dev.upload(&factors)?);
    let prior = dev.upload(&reals(2, m * n))?;
    // Residuals of zero weights: less the targets.
    let targets = reals(3, m * samples);
    Ok(Some(Case {
        shape: format!("n = {n}, {samples} samples, {m} rows, 1 sweep"),
        once: Box::new(move || {
            let inputs = sweep::Inputs { n, m, samples, x: &x, probe: &probe, prior: &prior, factors: &factors };
            let (mut v, mut r) = (dev.upload(&vec![0.0; m * n])?, dev.upload(&targets)?);
            let mut moves = 0;
            let elapsed = dev.timed(|| {
                let moved = sweep::sweep(&dev, &inputs, &steps, &mut v, &mut r, false)?;
                moves = moved.iter().map(|&rows| rows as usize).sum();
                Ok(())
            })?;
            Ok((elapsed, work::sample_sweep(n, m, samples, moves)))
        }),
    }))
}

pub fn box_gradient(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    use solver::box_gradient::{Buffers, Inputs, box_gradient, largest_eigenvalue};
    let (dev, n, m) = (dev.clone(), s.n, s.rows);
    let (h, b) = problem(n, m);
    let step = (1.0 / largest_eigenvalue(&h, n)) as f32;
    let (h, b) = (dev.upload(&single(&h))?, dev.upload(&single(&b))?);
    let bounds = dev.upload(&[vec![-0.5; m * n], vec![0.5; m * n]].concat())?;
    let (ones, zeros) = (vec![1.0; m], vec![0.0; m * n]);
    Ok(Some(Case {
        shape: format!("n = {n}, {m} rows, {ITERATIONS} iterations"),
        once: Box::new(move || {
            let inputs = Inputs { n, m, h: &h, b: &b, bounds: &bounds, step };
            let zeros = || dev.upload(&zeros);
            let mut state = Buffers { w: zeros()?, y: zeros()?, t: dev.upload(&ones)?, next: zeros()? };
            let elapsed = dev.timed(|| box_gradient(&dev, &inputs, &mut state, ITERATIONS))?;
            Ok((elapsed, work::box_gradient(n, m, ITERATIONS)))
        }),
    }))
}

pub fn admm(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    use solver::admm::{Buffers, Inputs, admm};
    let (dev, n, m, rho) = (dev.clone(), s.n, s.rows, 1.0);
    let (mut h, b) = problem(n, m);
    (0..n).for_each(|i| h[i * n + i] += f64::from(rho));
    let par = dense::par(n * n * n);
    let Some(k) = dense::Cholesky::new(h, n, par).map(|l| l.inverse(par)) else { return Ok(None) };
    let (k, b) = (dev.upload(&single(&k))?, dev.upload(&single(&b))?);
    let bounds = dev.upload(&[vec![-0.5; m * n], vec![0.5; m * n]].concat())?;
    let zeros = vec![0.0; m * n];
    Ok(Some(Case {
        shape: format!("n = {n}, {m} rows, {ITERATIONS} iterations"),
        once: Box::new(move || {
            let inputs = Inputs { n, m, k: &k, b: &b, bounds: &bounds, rho };
            let new = || dev.upload(&zeros);
            let mut state = Buffers { z: new()?, u: new()?, w: new()?, v: dev.zeros(m * n)?, v_next: new()? };
            dev.copy(&b, 0, &mut state.v, 0, m * n)?;
            let elapsed = dev.timed(|| admm(&dev, &inputs, &mut state, ITERATIONS))?;
            Ok((elapsed, work::admm(n, m, ITERATIONS)))
        }),
    }))
}

/// The sum of magnitudes over samples, weights in a box.
pub fn absolute(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    use solver::absolute::{Buffers, Inputs, Measure, Shape, absolute};
    let (k, m, samples) = (s.n / 4, s.rows, s.samples);
    let rows = samples + k;
    let (dev, shape) = (dev.clone(), Shape { m, k, samples, rows, measure: Measure::Sum });
    // A: the samples, and the identity for the box.
    let mut a: Vec<f64> = reals(1, samples * k).iter().map(|v| f64::from(*v)).collect();
    a.extend((0..k * k).map(|at| if at / k == at % k { 1.0 } else { 0.0 }));
    let mut gram = vec![0.0; k * k];
    dense::add_outer(&mut gram, 1.0, &a, &a, (rows, k, k));
    let par = dense::par(k * k * k);
    let Some(inverse) = dense::Cholesky::new(gram, k, par).map(|l| l.inverse(par)) else { return Ok(None) };
    let mut p = vec![0.0; rows * k];
    dense::product(&mut p, false, &a, &inverse, (rows, k, k), dense::par(rows * k * k));
    let transposed: Vec<f32> = (0..k * rows).map(|at| a[at % rows * k + at / rows] as f32).collect();
    let mut d = reals(2, m * rows);
    d.chunks_exact_mut(rows).for_each(|row| row[samples..].fill(0.0));
    let (a, p, d) = (dev.upload(&transposed)?, dev.upload(&single(&p))?, dev.upload(&d)?);
    let bounds = dev.upload(&[vec![-0.5; m * k], vec![0.5; m * k]].concat())?;
    let rho = dev.upload(&vec![1.0; m])?;
    let zeros = vec![0.0; m * rows];
    Ok(Some(Case {
        shape: format!("k = {k}, {samples} samples, {m} rows, {ITERATIONS} iterations"),
        once: Box::new(move || {
            let inputs = Inputs { shape, a: &a, p: &p, d: &d, bounds: &bounds, rho: &rho };
            let new = |len: usize| dev.upload(&zeros[..len]);
            let mut state = Buffers { w: new(m * k)?, z: new(m * rows)?, u: new(m * rows)? };
            let elapsed = dev.timed(|| absolute(&dev, &inputs, &mut state, ITERATIONS))?;
            Ok((elapsed, work::absolute(k, m, rows, ITERATIONS)))
        }),
    }))
}
