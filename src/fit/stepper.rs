//! The first-order methods of the box solver, with their state: on this machine's cores in f64, or on a GPU.

use super::continuous::{Batch, keep};
use super::solve::Method;
use crate::compute::solver::dense::{self, Cholesky};
use crate::compute::solver::{admm, box_gradient};
use crate::compute::{Buffer, Device};
use crate::error::Result;

/// A first-order method over the rows of a batch.
pub(super) trait Stepper {
    /// `count` iterations (at least one); the point inside the box (rows x n) that they lead to.
    fn run(&mut self, batch: &Batch<'_>, count: usize) -> Result<Vec<f64>>;
    /// Goes on with the rows `open` (rising) alone, which `batch` holds already.
    fn keep(&mut self, batch: &Batch<'_>, open: &[usize]) -> Result<()>;
}

/// The method's stepper, starting at `w` (rows x n, inside the box): on `dev` in f32 if that is a GPU with room for it, else
/// in f64.
pub(super) fn start(dev: &Device, batch: &Batch<'_>, method: Method, w: &[f64]) -> Result<Box<dyn Stepper>> {
    let gradient = method == Method::Gradient;
    // the matrix; targets, box and state of ADMM
    let bytes = (batch.n * (batch.n + 8 * batch.rows.len()) * size_of::<f32>()) as u64;
    Ok(match (gradient, dev.is_gpu() && bytes <= dev.room()) {
        (true, false) => Box::new(Gradient { state: box_gradient::start(batch.n, w.to_vec()), step: step(batch) }),
        (true, true) => Box::new(DeviceGradient::new(dev, batch, w)?),
        (false, false) => {
            let k = shifted_inverse(batch, FIRST_RHO);
            let state = admm::start(admm_data(batch, &k, FIRST_RHO), w.to_vec());
            Box::new(Admm { state, k, rho: FIRST_RHO })
        }
        (false, true) => Box::new(DeviceAdmm::new(dev, batch, w)?),
    })
}

fn step(batch: &Batch<'_>) -> f64 {
    1.0 / box_gradient::largest_eigenvalue(batch.h, batch.n)
}

/// ADMM's first penalty, for H with a unit diagonal; balanced later.
const FIRST_RHO: f64 = 0.1;

struct Gradient {
    state: box_gradient::State<f64>,
    step: f64,
}

impl Stepper for Gradient {
    fn run(&mut self, batch: &Batch<'_>, count: usize) -> Result<Vec<f64>> {
        let Batch { n, h, b, lower, upper, .. } = batch;
        let data = box_gradient::Data { n: *n, b, lower, upper, h, step: self.step };
        box_gradient::twin(data, &mut self.state, count, batch.par());
        Ok(self.state.w.clone())
    }

    fn keep(&mut self, batch: &Batch<'_>, open: &[usize]) -> Result<()> {
        keep(&mut self.state.w, open, batch.n);
        keep(&mut self.state.y, open, batch.n);
        keep(&mut self.state.t, open, 1);
        Ok(())
    }
}

struct Admm {
    state: admm::State<f64>,
    /// n x n: (H + rho I)^-1.
    k: Vec<f64>,
    rho: f64,
}

impl Stepper for Admm {
    fn run(&mut self, batch: &Batch<'_>, count: usize) -> Result<Vec<f64>> {
        let Admm { state, k, rho, .. } = self;
        admm::twin(admm_data(batch, k, *rho), state, count - 1, batch.par());
        let before = state.z.clone();
        admm::twin(admm_data(batch, k, *rho), state, 1, batch.par());
        if let Some(wanted) = balanced(&state.w, &state.z, &state.u, &before, *rho) {
            state.u.iter_mut().for_each(|u| *u *= *rho / wanted);
            let v = state.z.iter().zip(&state.u).zip(&batch.b).map(|((z, u), b)| b + wanted * (z - u));
            state.v = v.collect();
            *rho = wanted;
            *k = shifted_inverse(batch, wanted);
        }
        Ok(state.z.clone())
    }

    fn keep(&mut self, batch: &Batch<'_>, open: &[usize]) -> Result<()> {
        let admm::State { z, u, w, v } = &mut self.state;
        [z, u, w, v].into_iter().for_each(|all| keep(all, open, batch.n));
        Ok(())
    }
}

fn admm_data<'a>(batch: &'a Batch<'_>, k: &'a [f64], rho: f64) -> admm::Data<'a, f64> {
    admm::Data { n: batch.n, b: &batch.b, lower: &batch.lower, upper: &batch.upper, k, rho }
}

/// Residual balancing: the rho at which the relative primal and dual residuals would be alike, if it is far from this
/// one.
fn balanced(w: &[f64], z: &[f64], u: &[f64], before: &[f64], rho: f64) -> Option<f64> {
    let norm = |all: &mut dyn Iterator<Item = f64>| all.map(|v| v * v).sum::<f64>().sqrt();
    let primal = norm(&mut w.iter().zip(z).map(|(w, z)| w - z));
    let primal_size = norm(&mut w.iter().copied()).max(norm(&mut z.iter().copied()));
    let dual = rho * norm(&mut z.iter().zip(before).map(|(a, b)| a - b));
    let dual_size = rho * norm(&mut u.iter().copied());
    let tiny = f64::MIN_POSITIVE;
    let ratio = (primal / primal_size.max(tiny)) / (dual / dual_size.max(tiny)).max(tiny);
    let wanted = (rho * ratio.sqrt().clamp(0.1, 10.0)).clamp(1e-6, 1e3);
    (!(0.25..=4.0).contains(&(wanted / rho))).then_some(wanted)
}

/// (H + rho I)^-1.
fn shifted_inverse(batch: &Batch<'_>, rho: f64) -> Vec<f64> {
    let n = batch.n;
    let par = dense::par(n * n * n);
    let mut a = batch.h.to_vec();
    (0..n).for_each(|k| a[k * n + k] += rho);
    match Cholesky::new(a, n, par) {
        Some(factor) => factor.inverse(par),
        // H itself was factored, so H + rho I can be; were it not, this K makes the iteration a gradient step
        None => (0..n * n).map(|at| if at / n == at % n { 1.0 / (n as f64 + rho) } else { 0.0 }).collect(),
    }
}

/// A matrix for a device, with infinities as the largest numbers: shaders may take them for impossible.
pub(super) fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| (*v as f32).clamp(-3e38, 3e38)).collect()
}

fn double(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

/// What both device steppers hold of the batch.
struct Resident {
    dev: Device,
    /// n x n: H, or (H + rho I)^-1.
    matrix: Buffer<f32>,
    b: Buffer<f32>,
    /// 2 x rows x n.
    bounds: Buffer<f32>,
}

impl Resident {
    fn new(dev: &Device, batch: &Batch<'_>, matrix: &[f64]) -> Result<Self> {
        let bounds = [single(&batch.lower), single(&batch.upper)].concat();
        let (matrix, b) = (dev.upload(&single(matrix))?, dev.upload(&single(&batch.b))?);
        Ok(Self { dev: dev.clone(), matrix, b, bounds: dev.upload(&bounds)? })
    }

    fn get(&self, buffer: &Buffer<f32>) -> Result<Vec<f64>> {
        Ok(double(self.dev.download(buffer)?))
    }

    /// The rows `open` of a buffer of `width` columns, as a new one.
    fn kept(&self, buffer: &Buffer<f32>, open: &[usize], width: usize) -> Result<Buffer<f32>> {
        let mut all = self.get(buffer)?;
        keep(&mut all, open, width);
        self.dev.upload(&single(&all))
    }

    fn keep(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.b = self.dev.upload(&single(&batch.b))?;
        self.bounds = self.dev.upload(&[single(&batch.lower), single(&batch.upper)].concat())?;
        Ok(())
    }
}

/// f32 rounds bounds: back into the box.
fn clipped(batch: &Batch<'_>, mut w: Vec<f64>) -> Vec<f64> {
    w.iter_mut().zip(batch.lower.iter().zip(&batch.upper)).for_each(|(w, (l, u))| *w = w.max(*l).min(*u));
    w
}

struct DeviceGradient {
    held: Resident,
    state: box_gradient::Buffers,
    step: f32,
}

impl DeviceGradient {
    fn new(dev: &Device, batch: &Batch<'_>, w: &[f64]) -> Result<Self> {
        let w = single(w);
        let state = box_gradient::Buffers {
            t: dev.upload(&vec![1.0; batch.rows.len()])?,
            y: dev.upload(&w)?,
            next: dev.zeros(w.len())?,
            w: dev.upload(&w)?,
        };
        Ok(Self { held: Resident::new(dev, batch, batch.h)?, state, step: step(batch) as f32 })
    }
}

impl Stepper for DeviceGradient {
    fn run(&mut self, batch: &Batch<'_>, count: usize) -> Result<Vec<f64>> {
        let Resident { dev, matrix, b, bounds } = &self.held;
        let inputs = box_gradient::Inputs { n: batch.n, m: batch.rows.len(), h: matrix, b, bounds, step: self.step };
        box_gradient::box_gradient(dev, &inputs, &mut self.state, count)?;
        Ok(clipped(batch, self.held.get(&self.state.w)?))
    }

    fn keep(&mut self, batch: &Batch<'_>, open: &[usize]) -> Result<()> {
        self.held.keep(batch)?;
        self.state = box_gradient::Buffers {
            w: self.held.kept(&self.state.w, open, batch.n)?,
            y: self.held.kept(&self.state.y, open, batch.n)?,
            t: self.held.kept(&self.state.t, open, 1)?,
            next: self.held.dev.zeros(open.len() * batch.n)?,
        };
        Ok(())
    }
}

struct DeviceAdmm {
    held: Resident,
    state: admm::Buffers,
    rho: f64,
}

impl DeviceAdmm {
    fn new(dev: &Device, batch: &Batch<'_>, w: &[f64]) -> Result<Self> {
        let held = Resident::new(dev, batch, &shifted_inverse(batch, FIRST_RHO))?;
        let v: Vec<f64> = w.iter().zip(&batch.b).map(|(w, b)| b + FIRST_RHO * w).collect();
        let state = admm::Buffers {
            z: dev.upload(&single(w))?,
            u: dev.zeros(w.len())?,
            w: dev.upload(&single(w))?,
            v: dev.upload(&single(&v))?,
            v_next: dev.zeros(w.len())?,
        };
        Ok(Self { held, state, rho: FIRST_RHO })
    }

    fn iterate(&mut self, batch: &Batch<'_>, count: usize) -> Result<()> {
        let Resident { dev, matrix, b, bounds } = &self.held;
        let rho = self.rho as f32;
        let inputs = admm::Inputs { n: batch.n, m: batch.rows.len(), k: matrix, b, bounds, rho };
        admm::admm(dev, &inputs, &mut self.state, count)
    }
}

impl Stepper for DeviceAdmm {
    fn run(&mut self, batch: &Batch<'_>, count: usize) -> Result<Vec<f64>> {
        self.iterate(batch, count - 1)?;
        let before = self.held.get(&self.state.z)?;
        self.iterate(batch, 1)?;
        let (w, z, mut u) =
            (self.held.get(&self.state.w)?, self.held.get(&self.state.z)?, self.held.get(&self.state.u)?);
        if let Some(wanted) = balanced(&w, &z, &u, &before, self.rho) {
            u.iter_mut().for_each(|u| *u *= self.rho / wanted);
            let v: Vec<f64> = z.iter().zip(&u).zip(&batch.b).map(|((z, u), b)| b + wanted * (z - u)).collect();
            self.rho = wanted;
            self.held.matrix = self.held.dev.upload(&single(&shifted_inverse(batch, wanted)))?;
            self.state.u = self.held.dev.upload(&single(&u))?;
            self.state.v = self.held.dev.upload(&single(&v))?;
        }
        Ok(clipped(batch, z))
    }

    fn keep(&mut self, batch: &Batch<'_>, open: &[usize]) -> Result<()> {
        self.held.keep(batch)?;
        let kept = |buffer: &Buffer<f32>| self.held.kept(buffer, open, batch.n);
        self.state = admm::Buffers {
            z: kept(&self.state.z)?,
            u: kept(&self.state.u)?,
            w: kept(&self.state.w)?,
            v: kept(&self.state.v)?,
            v_next: self.held.dev.zeros(open.len() * batch.n)?,
        };
        Ok(())
    }
}
