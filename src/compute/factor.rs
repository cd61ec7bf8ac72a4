//! Cholesky factorization and triangular solves with many right-hand sides (shaders/cholesky.wgsl and
//! triangular.wgsl): f32 in blocks of 32 on a GPU, faer in f64 on the CPU.
//!
//! On a GPU the relative error is about cond(A) x 1e-7: a caller that needs more refines with f64 residuals.

use faer::linalg::solvers::{Llt, LltError};
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{MatMut, MatRef, Par, Side};
use rayon::prelude::*;

use super::buffer::{Buffer, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Gpu, Shader};
use crate::error::{Error, Result};

const CHOLESKY: Shader = Shader { name: "cholesky.wgsl", source: include_str!("../../shaders/cholesky.wgsl") };
const TRIANGULAR: Shader = Shader { name: "triangular.wgsl", source: include_str!("../../shaders/triangular.wgsl") };
/// Columns of a step: `BLOCK` of the shaders.
const BLOCK: usize = 32;
/// Side of a tile of an update.
const TILE: usize = 64;

/// How a factorization ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factored {
    Done,
    /// The pivot with this index was not positive: the matrix is not positive definite (to the device's precision).
    NotPositive {
        pivot: usize,
    },
}

/// Factors a = L L^T in place. `a`: n x n row-major; its lower half is read and becomes L, the upper half is not
/// touched. After `NotPositive` the contents are of no use. Errors: lengths.
pub fn cholesky(dev: &Device, n: usize, a: &mut Buffer<f32>) -> Result<Factored> {
    expect_len("Cholesky: matrix", a, n * n)?;
    if n == 0 {
        return Ok(Factored::Done);
    }
    match dev.gpu() {
        Some(gpu) => cholesky_shader(dev, gpu, n, a),
        None => Ok(cholesky_host(n, a.host_mut()?)),
    }
}

/// x <- L^-1 x for every row of `x`: m x n row-major; `l` as `cholesky` leaves it. Errors: lengths.
pub fn forward(dev: &Device, n: usize, l: &Buffer<f32>, m: usize, x: &mut Buffer<f32>) -> Result<()> {
    triangular(dev, n, l, m, x, false)
}

/// x <- L^-T x for every row of `x`. Shapes and errors as in `forward`.
pub fn backward(dev: &Device, n: usize, l: &Buffer<f32>, m: usize, x: &mut Buffer<f32>) -> Result<()> {
    triangular(dev, n, l, m, x, true)
}

/// x <- A^-1 x for every row of `x`, A = L L^T. Shapes and errors as in `forward`.
pub fn solve(dev: &Device, n: usize, l: &Buffer<f32>, m: usize, x: &mut Buffer<f32>) -> Result<()> {
    forward(dev, n, l, m, x)?;
    backward(dev, n, l, m, x)
}

fn cholesky_shader(dev: &Device, gpu: &Gpu, n: usize, a: &mut Buffer<f32>) -> Result<Factored> {
    let status = dev.upload(&[u32::MAX])?;
    for first in (0..n).step_by(BLOCK) {
        let run = |entry, groups: usize| {
            let params = [n as u32, first as u32];
            gpu.run(
                &Dispatch { shader: CHOLESKY, entry, scalar: "f32", constants: &[], params, groups: groups as u64 },
                &[Bind::Out(a.gpu()?), Bind::Out(status.gpu()?)],
            )
        };
        run("diagonal", 1)?;
        let rest = n.saturating_sub(first + BLOCK);
        run("panel", rest.div_ceil(64))?;
        run("update", rest.div_ceil(TILE).pow(2))?;
    }
    Ok(match dev.download(&status)?[0] {
        u32::MAX => Factored::Done,
        pivot => Factored::NotPositive { pivot: pivot as usize },
    })
}

/// In f64, rounded at the end.
fn cholesky_host(n: usize, a: &mut [f32]) -> Factored {
    let wide: Vec<f64> = a.par_iter().map(|&v| v as f64).collect();
    let factor = match Llt::new(MatRef::from_row_major_slice(&wide, n, n), Side::Lower) {
        Ok(factor) => factor,
        Err(LltError::NonPositivePivot { index }) => return Factored::NotPositive { pivot: index },
    };
    let l = factor.L();
    a.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
        row[..=i].iter_mut().enumerate().for_each(|(j, v)| *v = l[(i, j)] as f32);
    });
    Factored::Done
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    n: u32,
    m: u32,
    first: u32,
    begin: u32,
    end: u32,
    backward: u32,
}

fn triangular(dev: &Device, n: usize, l: &Buffer<f32>, m: usize, x: &mut Buffer<f32>, backward: bool) -> Result<()> {
    expect_len("triangular solve: factor", l, n * n)?;
    expect_len("triangular solve: right-hand sides", x, m * n)?;
    if n == 0 || m == 0 {
        return Ok(());
    }
    let Some(gpu) = dev.gpu() else {
        triangular_host(n, l.host()?, m, x.host_mut()?, backward);
        return Ok(());
    };
    let blocks = n.div_ceil(BLOCK);
    for step in 0..blocks {
        let first = BLOCK * if backward { blocks - 1 - step } else { step };
        let (begin, end) = if backward { (0, first) } else { ((first + BLOCK).min(n), n) };
        let params = Params {
            n: n as u32,
            m: m as u32,
            first: first as u32,
            begin: begin as u32,
            end: end as u32,
            backward: backward as u32,
        };
        let run = |entry, groups: usize| {
            gpu.run(
                &Dispatch { shader: TRIANGULAR, entry, scalar: "f32", constants: &[], params, groups: groups as u64 },
                &[Bind::In(l.gpu()?), Bind::Out(x.gpu()?)],
            )
        };
        run("diagonal", m.div_ceil(64))?;
        run("update", m.div_ceil(TILE) * (end - begin).div_ceil(TILE))?;
    }
    Ok(())
}

/// In f64, rounded at the end; a right-hand side is a column for faer.
fn triangular_host(n: usize, l: &[f32], m: usize, x: &mut [f32], backward: bool) {
    let wide: Vec<f64> = l.par_iter().map(|&v| v as f64).collect();
    let l = MatRef::from_row_major_slice(&wide, n, n);
    let mut sides: Vec<f64> = x.par_iter().map(|&v| v as f64).collect();
    let columns = MatMut::from_column_major_slice_mut(&mut sides, n, m);
    if backward {
        solve_upper_triangular_in_place(l.transpose(), columns, Par::rayon(0));
    } else {
        solve_lower_triangular_in_place(l, columns, Par::rayon(0));
    }
    x.par_iter_mut().zip(sides).for_each(|(x, s)| *x = s as f32);
}

/// The error of a caller that needs the factor: `what` names the matrix.
impl Factored {
    pub fn expect_positive(self, what: &str) -> Result<()> {
        match self {
            Factored::Done => Ok(()),
            Factored::NotPositive { pivot } => {
                Err(Error::work(what, format!("matrix is not positive definite (pivot {pivot})")))
            }
        }
    }
}
