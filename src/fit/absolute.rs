//! A layer problem whose residuals count by magnitude: the sum over samples (l1) or the largest (chebyshev). ADMM over
//! all outputs on the device until a dual bound certifies the gap; then the grid, if there is one. METHOD section 7.
//!
//! Unlike least squares this needs the samples themselves: x and t, not their sums.

mod certify;
mod grid;
mod scaled;

use serde::Serialize;

use super::bounds::Bounds;
use super::solve::{Spec, Status};
use crate::compute::Device;
use crate::compute::solver::absolute::{self, Buffers, Data, Inputs, Measure, State};
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

/// In f64 on the CPU. Returns the iterations.
fn on_host(
    scaled: &Scaled,
    spec: &Spec,
    best: &mut Certificate,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<usize> {
    let shape = scaled.shape;
    let mut state: State<f64> = absolute::start(shape);
    let mut rho = scaled.rho();
    let par = dense::par(shape.m * shape.k * shape.rows);
    let mut pace = Pace::new(spec.max_iterations);
    while let Some(count) = pace.next() {
        stop(cancelled)?;
        let data = |rho| Data {
            shape,
            a: &scaled.a,
            p: &scaled.p,
            d: &scaled.d,
            lower: &scaled.lower,
            upper: &scaled.upper,
            rho,
        };
        absolute::twin(data(&rho), &mut state, count - 1, par);
        let before = state.z.clone();
        absolute::twin(data(&rho), &mut state, 1, par);
        best.look(scaled, &state, &rho);
        if best.worst() <= spec.tolerance {
            break;
        }
        balance(scaled, &mut state, &before, &mut rho);
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
    let shape = scaled.shape;
    let single = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let bounds = match scaled.lower.is_empty() {
        true => vec![0.0],
        false => [single(&scaled.lower), single(&scaled.upper)].concat(),
    };
    let (a, p, d) = (dev.upload(&single(&scaled.a))?, dev.upload(&single(&scaled.p))?, dev.upload(&single(&scaled.d))?);
    let bounds = dev.upload(&bounds)?;
    let mut rho = scaled.rho();
    let mut state = Buffers {
        w: dev.zeros(shape.m * shape.k)?,
        z: dev.zeros(shape.m * shape.rows)?,
        u: dev.zeros(shape.m * shape.rows)?,
    };
    let mut pace = Pace::new(spec.max_iterations);
    let mut last = f64::INFINITY;
    while let Some(count) = pace.next() {
        stop(cancelled)?;
        let shared = dev.upload(&single(&rho))?;
        let inputs = Inputs { shape, a: &a, p: &p, d: &d, bounds: &bounds, rho: &shared };
        absolute::absolute(dev, &inputs, &mut state, count - 1)?;
        let double = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
        let before = double(dev.download(&state.z)?);
        absolute::absolute(dev, &inputs, &mut state, 1)?;
        let mut host = State {
            w: double(dev.download(&state.w)?),
            z: double(dev.download(&state.z)?),
            u: double(dev.download(&state.u)?),
        };
        best.look(scaled, &host, &rho);
        // f32 goes no further where a long stretch brings next to nothing.
        if best.worst() <= spec.tolerance || (count == CHECK.1 && best.worst() > 0.9 * last) {
            break;
        }
        last = best.worst();
        balance(scaled, &mut host, &before, &mut rho);
        dev.write(&mut state.u, 0, &single(&host.u))?;
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
fn balance(scaled: &Scaled, state: &mut State<f64>, before: &[f64], rho: &mut [f64]) {
    let rows = scaled.shape.rows;
    let fitted = scaled.residuals(&state.w);
    for (o, rho) in rho.iter_mut().enumerate() {
        let part = o * rows..(o + 1) * rows;
        let z = &state.z[part.clone()];
        let primal: f64 = z.iter().zip(&fitted[part.clone()]).map(|(z, r)| (z - r).powi(2)).sum();
        let dual: f64 = z.iter().zip(&before[part.clone()]).map(|(z, b)| (z - b).powi(2)).sum();
        let factor = match (primal / dual.max(f64::MIN_POSITIVE)).sqrt() {
            ratio if ratio > BALANCE.0 => BALANCE.1,
            ratio if ratio < 1.0 / BALANCE.0 => 1.0 / BALANCE.1,
            _ => continue,
        };
        *rho *= factor;
        state.u[part].iter_mut().for_each(|u| *u /= factor);
    }
}
