//! A layer problem whose residuals count by magnitude: the sum over samples (l1) or the largest (chebyshev). ADMM over
//! all outputs on the device until a dual bound certifies the gap; then the grid, if there is one. METHOD section 7.
//!
//! Unlike least squares this needs the samples themselves: x and t, not their sums.

mod certify;
mod grid;
mod scaled;

use serde::Serialize;

use super::bounds::Bounds;
use super::signs::Signs;
use super::solve::{Spec, Status};
use crate::compute::Device;
use crate::compute::solver::absolute::{self, Buffers, Data, Inputs, Measure, Shape, State};
use crate::compute::solver::dense;
use crate::error::{Error, Result};
use certify::Certificate;
use scaled::Scaled;

/// Iterations between looks at the certificate, at first and at most.
const CHECK: (usize, usize) = (50, 400);
/// Primal and dual residual may differ by this factor before rho moves, by the second.
const BALANCE: (f64, f64) = (3.0, 2.0);

/// The samples of a layer problem.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    pub n: usize,
    pub m: usize,
    /// S x n.
    pub x: &'a [f64],
    /// S x m.
    pub t: &'a [f64],
    /// Whether outputs have a bias.
    pub bias: bool,
}

impl Samples<'_> {
    pub fn count(&self) -> usize {
        self.x.len() / self.n.max(1)
    }
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct AbsoluteFit {
    /// m x n: what is stored.
    pub w: Vec<f64>,
    /// m.
    pub bias: Vec<f64>,
    /// m x n, with a grid.
    pub codes: Option<Vec<i32>>,
    /// m; ones without a grid.
    pub scale: Vec<f64>,
    /// m: the measure of what is stored, of round to nearest (without a grid: as `fit`), of continuous weights, and a
    /// proven lower bound.
    pub objective: Vec<f64>,
    pub rtn: Vec<f64>,
    pub fit: Vec<f64>,
    pub bound: Vec<f64>,
    pub status: Status,
    pub iterations: usize,
    pub gap: f64,
    pub worst_gap: f64,
    pub note: Option<String>,
}

/// Solves; of `spec` it takes bounds, grid, scale owner, tolerance and the limit of iterations.
///
/// # Errors
/// `Input`: bounds that do not fit or cross, a grid together with bounds. `Work`: lengths, no samples, the device.
/// `Interrupted`: cancelled.
pub fn solve_absolute(
    dev: &Device,
    samples: Samples<'_>,
    measure: Measure,
    spec: &Spec,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<AbsoluteFit> {
    let Samples { n, m, .. } = samples;
    if n == 0 || m == 0 || samples.count() == 0 {
        return Err(Error::work("layer problem", format!("{} samples, {n} inputs, {m} outputs", samples.count())));
    }
    if samples.t.len() != samples.count() * m || samples.x.len() != samples.count() * n {
        return Err(Error::work("layer problem", "x and t do not agree"));
    }
    Bounds::check(&spec.lower, &spec.upper, m, n)?;
    if spec.grid.is_some() && !(spec.lower.is_none() && spec.upper.is_none()) {
        return Err(Error::input("objective", "l1 and chebyshev know a grid or bounds, not both at once"));
    }
    if spec.mask.is_some() {
        return Err(Error::input("mask", "synapses can be left out with --objective l2 only"));
    }
    if spec.signs != Signs::Free {
        return Err(Error::input("signs", "inputs own them with --objective l2 only"));
    }
    if spec.types.is_some() {
        return Err(Error::input("types", "are for --objective l2"));
    }
    if spec.palette.is_some() {
        return Err(Error::input("palette", "is for --objective l2"));
    }
    let scaled = Scaled::new(samples, measure, &spec.lower, &spec.upper)?;
    let mut best = Certificate::new(&scaled);
    let mut note = None;
    let mut iterations = 0;
    if dev.is_gpu() {
        iterations = on_device(dev, &scaled, spec, &mut best, cancelled)?;
        if best.worst() > spec.tolerance {
            note = Some(format!("{} missed the certificate; solved again on the CPU", dev.info().name));
        }
    }
    if best.worst() > spec.tolerance {
        iterations += on_host(&scaled, spec, &mut best, cancelled)?;
    }
    let (fit, bound) = (best.objectives(), best.bounds());
    let (w, bias) = best.weights(&scaled);
    let mut result = AbsoluteFit {
        w,
        bias,
        codes: None,
        scale: vec![1.0; m],
        objective: fit.clone(),
        rtn: fit.clone(),
        fit,
        bound,
        status: Status::Optimal,
        iterations,
        gap: 0.0,
        worst_gap: 0.0,
        note,
    };
    if let Some(grid) = &spec.grid {
        grid::store(&mut result, dev, samples, measure, grid, spec, cancelled)?;
    }
    let (value, least): (f64, f64) = (result.objective.iter().sum(), result.bound.iter().sum());
    result.gap = certify::relative(value, least, best.own());
    let rows = result.objective.iter().zip(&result.bound).zip(best.owns());
    result.worst_gap = rows.map(|((v, b), own)| certify::relative(*v, *b, own)).fold(0.0, f64::max);
    result.status = match (result.worst_gap <= spec.tolerance, &spec.grid) {
        (true, _) => Status::Optimal,
        (false, Some(_)) => Status::Heuristic,
        (false, None) => Status::IterationLimit,
    };
    Ok(result)
}

/// The outputs that are still open: what the iteration needs of them.
struct Batch {
    outputs: Vec<usize>,
    shape: Shape,
    /// As in `Scaled`, of these outputs alone.
    d: Vec<f64>,
    lower: Vec<f64>,
    upper: Vec<f64>,
    rho: Vec<f64>,
    state: State<f64>,
}

impl Batch {
    /// All outputs that `best` leaves open, from nothing.
    fn new(scaled: &Scaled, outputs: Vec<usize>) -> Self {
        let shape = Shape { m: outputs.len(), ..scaled.shape };
        let boxes = shape.rows - shape.samples;
        Self {
            d: picked(&scaled.d, shape.rows, &outputs),
            lower: picked(&scaled.lower, boxes, &outputs),
            upper: picked(&scaled.upper, boxes, &outputs),
            rho: vec![scaled.first_rho(); shape.m],
            state: absolute::start(shape),
            shape,
            outputs,
        }
    }

    /// Drops outputs that are done, so that slow ones do not hold the others up.
    fn shrink(&mut self, done: impl Fn(usize) -> bool) {
        let keep: Vec<usize> = (0..self.shape.m).filter(|&at| !done(self.outputs[at])).collect();
        // Moving everything costs about as much as an iteration.
        if keep.len() * 10 > self.shape.m * 9 {
            return;
        }
        let Shape { k, rows, samples, .. } = self.shape;
        for (all, width) in [
            (&mut self.d, rows),
            (&mut self.lower, rows - samples),
            (&mut self.upper, rows - samples),
            (&mut self.rho, 1),
            (&mut self.state.w, k),
            (&mut self.state.z, rows),
            (&mut self.state.u, rows),
        ] {
            *all = picked(all, width, &keep);
        }
        self.outputs = keep.iter().map(|&at| self.outputs[at]).collect();
        self.shape.m = keep.len();
    }
}

/// The rows `which` of a matrix of rows of `width`.
fn picked(all: &[f64], width: usize, which: &[usize]) -> Vec<f64> {
    which.iter().flat_map(|&o| &all[o * width..(o + 1) * width]).copied().collect()
}

/// In f64 on the CPU. Returns the iterations.
fn on_host(
    scaled: &Scaled,
    spec: &Spec,
    best: &mut Certificate,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<usize> {
    let mut batch = Batch::new(scaled, best.open(spec.tolerance));
    let mut pace = Pace::new(spec.max_iterations);
    while let Some(count) = pace.next() {
        stop(cancelled)?;
        let Batch { shape, d, lower, upper, rho, state, .. } = &mut batch;
        let data = Data { shape: *shape, a: &scaled.a, p: &scaled.p, d, lower, upper, rho };
        let par = dense::par(shape.m * shape.k * shape.rows);
        absolute::twin(data, state, count - 1, par);
        let before = state.z.clone();
        absolute::twin(data, state, 1, par);
        best.look(scaled, &batch.outputs, &batch.state, &batch.rho);
        if best.worst() <= spec.tolerance {
            break;
        }
        balance(scaled, &mut batch, &before);
        batch.shrink(|o| best.gap(o) <= spec.tolerance);
    }
    Ok(pace.done)
}

/// In f32 on a GPU. Returns the iterations.
fn on_device(
    dev: &Device,
    scaled: &Scaled,
    spec: &Spec,
    best: &mut Certificate,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<usize> {
    let single = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let double = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
    let (a, p) = (dev.upload(&single(&scaled.a))?, dev.upload(&single(&scaled.p))?);
    let mut batch = Batch::new(scaled, best.open(spec.tolerance));
    let mut pace = Pace::new(spec.max_iterations);
    let mut last = f64::INFINITY;
    while let Some(count) = pace.next() {
        stop(cancelled)?;
        let bounds = match batch.lower.is_empty() {
            true => vec![0.0],
            false => [single(&batch.lower), single(&batch.upper)].concat(),
        };
        let (d, bounds, rho) = (dev.upload(&single(&batch.d))?, dev.upload(&bounds)?, dev.upload(&single(&batch.rho))?);
        let inputs = Inputs { shape: batch.shape, a: &a, p: &p, d: &d, bounds: &bounds, rho: &rho };
        let up = |v: &[f64]| dev.upload(&single(v));
        let mut state = Buffers { w: up(&batch.state.w)?, z: up(&batch.state.z)?, u: up(&batch.state.u)? };
        absolute::absolute(dev, &inputs, &mut state, count - 1)?;
        let before = double(dev.download(&state.z)?);
        absolute::absolute(dev, &inputs, &mut state, 1)?;
        batch.state = State {
            w: double(dev.download(&state.w)?),
            z: double(dev.download(&state.z)?),
            u: double(dev.download(&state.u)?),
        };
        best.look(scaled, &batch.outputs, &batch.state, &batch.rho);
        // f32 goes no further where a long stretch brings next to nothing.
        if best.worst() <= spec.tolerance || (count == CHECK.1 && best.worst() > 0.9 * last) {
            break;
        }
        last = best.worst();
        balance(scaled, &mut batch, &before);
        batch.shrink(|o| best.gap(o) <= spec.tolerance);
    }
    Ok(pace.done)
}

/// How many iterations before the next look: more and more.
struct Pace {
    done: usize,
    step: usize,
    most: usize,
}

impl Pace {
    fn new(most: usize) -> Self {
        Self { done: 0, step: CHECK.0, most }
    }

    fn next(&mut self) -> Option<usize> {
        let count = self.step.min(self.most.saturating_sub(self.done));
        self.done += count;
        self.step = (self.step * 3 / 2).min(CHECK.1);
        (count > 0).then_some(count)
    }
}

fn stop(cancelled: &(dyn Fn() -> bool + Sync)) -> Result<()> {
    if cancelled() { Err(Error::interrupted()) } else { Ok(()) }
}

/// Moves each output's rho towards where primal and dual residual are of one size; the unscaled dual stays.
fn balance(scaled: &Scaled, batch: &mut Batch, before: &[f64]) {
    let rows = batch.shape.rows;
    let fitted = scaled.residuals(batch.shape.m, &batch.d, &batch.state.w);
    for (o, rho) in batch.rho.iter_mut().enumerate() {
        let part = o * rows..(o + 1) * rows;
        let z = &batch.state.z[part.clone()];
        let primal: f64 = z.iter().zip(&fitted[part.clone()]).map(|(z, r)| (z - r).powi(2)).sum();
        let dual: f64 = z.iter().zip(&before[part.clone()]).map(|(z, b)| (z - b).powi(2)).sum();
        let factor = match (primal / dual.max(f64::MIN_POSITIVE)).sqrt() {
            ratio if ratio > BALANCE.0 => BALANCE.1,
            ratio if ratio < 1.0 / BALANCE.0 => 1.0 / BALANCE.1,
            _ => continue,
        };
        *rho *= factor;
        batch.state.u[part].iter_mut().for_each(|u| *u /= factor);
    }
}
