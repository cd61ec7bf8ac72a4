//! What the removal of groups of inputs costs a least-squares fit, and block elimination of the ones that go
//! (shaders/removal.wgsl): all candidates from one inverse, in f32. On the CPU the sums are in f64, rounded at the end.
//!
//! With P the group's inputs, eps_P = tr( W_P ([H^-1]_PP)^-1 W_P^T ) (METHOD section 6). Errors of f32 grow with the
//! condition of H: scale it to a unit diagonal first, and take what matters in the end from a fit in f64.

use rayon::prelude::*;

use super::buffer::Buffer;
use super::device::Device;
use super::gpu::{Bind, Dispatch, Gpu, Shader};
use crate::error::{Error, Result};

const SHADER: Shader = Shader { name: "removal.wgsl", source: include_str!("../../shaders/removal.wgsl") };
/// Inputs of a group at most: `MOST` of the shader.
pub const MOST: usize = 25;
/// Side of a tile of an update.
const TILE: usize = 64;

/// A fit of m rows to n inputs, and the groups that its inputs form.
#[derive(Debug)]
pub struct Fitted {
    n: usize,
    m: usize,
    groups: Vec<Vec<usize>>,
    /// n x (n + m): a row of H^-1 and the input's weights. Rows and columns of inputs that are gone are of no meaning.
    rows: Buffer<f32>,
    /// The groups' inputs one after the other, and where each group's begin.
    inputs: Buffer<u32>,
    starts: Buffer<u32>,
}

impl Fitted {
    /// Bytes of its largest buffer.
    pub fn bytes(n: usize, m: usize) -> u64 {
        (n * (n + m) * size_of::<f32>()) as u64
    }

    /// `fill(i, row)` writes row i of H^-1 (n) and the weights of input i in all rows (m). `groups`: at most `MOST` of the n
    /// inputs each, none in two. Errors: such groups, memory.
    pub fn upload(
        dev: &Device,
        (n, m): (usize, usize),
        groups: Vec<Vec<usize>>,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Fitted> {
        let mut owned = vec![false; n];
        let mut fresh = |&i: &usize| i < n && !std::mem::replace(&mut owned[i], true);
        if !groups.iter().all(|g| g.len() <= MOST && g.iter().all(&mut fresh)) {
            return Err(Error::work("removal", format!("groups are of up to {MOST} inputs, each in one of them")));
        }
        let rows = dev.upload_with(n * (n + m), |rows| {
            rows.par_chunks_exact_mut((n + m).max(1)).enumerate().for_each(|(i, row)| fill(i, row));
            Ok(())
        })?;
        let inputs: Vec<u32> = groups.iter().flatten().map(|&i| i as u32).collect();
        let ends = groups.iter().scan(0, |end, group| {
            *end += group.len() as u32;
            Some(*end)
        });
        let starts: Vec<u32> = std::iter::once(0).chain(ends).collect();
        let (inputs, starts) = (dev.upload(&inputs)?, dev.upload(&starts)?);
        Ok(Fitted { n, m, groups, rows, inputs, starts })
    }

    /// n x (n + m), as `upload` got it and removals left it.
    pub fn download(&self, dev: &Device) -> Result<Vec<f32>> {
        dev.download(&self.rows)
    }
}

/// What the removal of each of the groups `candidates`, which are there, would cost; infinite where [H^-1]_PP is not
/// positive definite in the device's precision. Errors: the device failed.
pub fn costs(dev: &Device, fitted: &Fitted, candidates: &[usize]) -> Result<Vec<f32>> {
    let Some(gpu) = dev.gpu() else {
        let rows = fitted.rows.host()?;
        return Ok(candidates.par_iter().map(|&g| cost_host(fitted, rows, g) as f32).collect());
    };
    let chosen = dev.upload(&candidates.iter().map(|&g| g as u32).collect::<Vec<_>>())?;
    let out = dev.poisoned::<f32>(candidates.len())?;
    run(gpu, fitted, ("cost", 0, candidates.len()), &chosen, &out)?;
    let sign = |cost: f32| if cost < 0.0 { f32::INFINITY } else { cost };
    Ok(dev.download(&out)?.into_iter().map(sign).collect())
}

/// Removes the inputs of `group` and refits the others, by block elimination. Where its cost is infinite the result is of
/// no use. Errors: the device failed.
pub fn remove(dev: &Device, fitted: &mut Fitted, group: usize) -> Result<()> {
    let (n, width, p) = (fitted.n, fitted.n + fitted.m, fitted.groups[group].len());
    if p == 0 {
        return Ok(());
    }
    let Some(gpu) = dev.gpu() else {
        return remove_host(fitted, group);
    };
    let none = dev.upload(&[0u32])?;
    let lines = dev.scratch::<f32>(p * width)?;
    run(gpu, fitted, ("panel", group, width.div_ceil(64)), &none, &lines)?;
    run(gpu, fitted, ("update", group, n.div_ceil(TILE) * width.div_ceil(TILE)), &none, &lines)
}

/// `what`: the entry point, the group, and workgroups.
fn run(
    gpu: &Gpu,
    fitted: &Fitted,
    (entry, group, groups): (&'static str, usize, usize),
    candidates: &Buffer<u32>,
    out: &Buffer<f32>,
) -> Result<()> {
    let params = [fitted.n, fitted.m, group, candidates.len()].map(|v| v as u32);
    gpu.run(
        &Dispatch { shader: SHADER, entry, scalar: "f32", constants: &[], params, groups: groups as u64 },
        &[
            Bind::Out(fitted.rows.gpu()?),
            Bind::In(fitted.inputs.gpu()?),
            Bind::In(fitted.starts.gpu()?),
            Bind::In(candidates.gpu()?),
            Bind::Out(out.gpu()?),
        ],
    )
}

/// L of [H^-1]_PP, p x p; none where that is not positive definite.
fn factor_host(fitted: &Fitted, rows: &[f32], group: &[usize]) -> Option<Vec<f64>> {
    let (width, p) = (fitted.n + fitted.m, group.len());
    let mut l = vec![0.0; p * p];
    for i in 0..p {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| l[i * p + k] * l[j * p + k]).sum();
            let v = f64::from(rows[group[i] * width + group[j]]) - dot;
            if i == j && (v <= 0.0 || v.is_nan()) {
                return None;
            }
            l[i * p + j] = if i == j { v.sqrt() } else { v / l[j * p + j] };
        }
    }
    Some(l)
}

/// Column `column` of L^-1 times the group's rows.
fn solved_host(fitted: &Fitted, rows: &[f32], group: &[usize], l: &[f64], column: usize) -> Vec<f64> {
    let (width, p) = (fitted.n + fitted.m, group.len());
    let mut y = Vec::with_capacity(p);
    for k in 0..p {
        let dot: f64 = (0..k).map(|d| l[k * p + d] * y[d]).sum();
        y.push((f64::from(rows[group[k] * width + column]) - dot) / l[k * p + k]);
    }
    y
}

fn cost_host(fitted: &Fitted, rows: &[f32], group: usize) -> f64 {
    let group = &fitted.groups[group];
    let Some(l) = factor_host(fitted, rows, group) else { return f64::INFINITY };
    let column = |o: usize| solved_host(fitted, rows, group, &l, fitted.n + o);
    (0..fitted.m).flat_map(column).map(|y| y * y).sum()
}

fn remove_host(fitted: &mut Fitted, group: usize) -> Result<()> {
    let width = fitted.n + fitted.m;
    let rows = fitted.rows.host()?;
    let group = &fitted.groups[group];
    let Some(l) = factor_host(fitted, rows, group) else {
        return Err(Error::work("removal", "the group's inverse is not positive definite"));
    };
    let y: Vec<Vec<f64>> =
        (0..width).into_par_iter().map(|column| solved_host(fitted, rows, group, &l, column)).collect();
    fitted.rows.host_mut()?.par_chunks_exact_mut(width).zip(&y).for_each(|(row, own)| {
        for (v, other) in row.iter_mut().zip(&y) {
            let dot: f64 = own.iter().zip(other).map(|(a, b)| a * b).sum();
            *v = (f64::from(*v) - dot) as f32;
        }
    });
    Ok(())
}
