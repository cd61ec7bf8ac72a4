//! Cholesky factorization, triangular solves with many right-hand sides and the inverse (shaders/cholesky.wgsl and
//! triangular.wgsl): f32 in blocks of 32 on a GPU, faer in f64 on the CPU. A matrix is held in bands of rows, a buffer
//! each, so that its size is bounded by the device's memory and not by a binding.
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
/// Side of a tile of an update; bands begin at multiples of it.
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

/// The lower half of a symmetric n x n matrix, or its factor L.
#[derive(Debug)]
pub struct Lower {
    n: usize,
    bands: Vec<Band>,
}

/// Rows first..end, `end` values each: what follows a row's diagonal is of no meaning.
#[derive(Debug)]
struct Band {
    first: usize,
    end: usize,
    rows: Buffer<f32>,
}

impl Band {
    fn rows(&self) -> usize {
        self.end - self.first
    }
}

/// Where the bands begin and end, so that none has more than `most` bytes. Error: not even 64 rows of it fit.
fn cut(n: usize, most: u64) -> Result<Vec<(usize, usize)>> {
    let bytes = |first: usize, end: usize| ((end - first) * end * size_of::<f32>()) as u64;
    let mut bands = Vec::new();
    let mut first = 0;
    while first < n {
        let mut end = (first + TILE).min(n);
        if bytes(first, end) > most {
            return Err(Error::work("Cholesky", format!("{TILE} rows of {n} exceed a buffer of {most} bytes")));
        }
        while end < n && bytes(first, (end + TILE).min(n)) <= most {
            end = (end + TILE).min(n);
        }
        bands.push((first, end));
        first = end;
    }
    Ok(bands)
}

impl Lower {
    /// Bytes of such a matrix on `dev`. Error: it cannot be cut into bands that fit.
    pub fn bytes(dev: &Device, n: usize) -> Result<u64> {
        let bands = cut(n, dev.max_buffer_bytes())?;
        Ok(bands.iter().map(|(first, end)| ((end - first) * end * size_of::<f32>()) as u64).sum())
    }

    /// `fill(i, row)` writes row i up to its diagonal, i + 1 values. Errors: as `bytes`, memory.
    pub fn upload(dev: &Device, n: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Result<Lower> {
        let mut bands = Vec::new();
        for (first, end) in cut(n, dev.max_buffer_bytes())? {
            let rows = dev.upload_with((end - first) * end, |data| {
                data.par_chunks_exact_mut(end).enumerate().for_each(|(r, row)| {
                    let (half, rest) = row.split_at_mut(first + r + 1);
                    fill(first + r, half);
                    rest.fill(0.0);
                });
                Ok(())
            })?;
            bands.push(Band { first, end, rows });
        }
        Ok(Lower { n, bands })
    }

    /// Rows and columns.
    pub fn size(&self) -> usize {
        self.n
    }

    /// Number of buffers that hold it.
    pub fn bands(&self) -> usize {
        self.bands.len()
    }

    /// Hands out every row up to its diagonal, `read(i, row)`.
    pub fn download(&self, dev: &Device, mut read: impl FnMut(usize, &[f32])) -> Result<()> {
        for band in &self.bands {
            let data = dev.view(&band.rows)?;
            for (r, row) in data.chunks_exact(band.end).enumerate() {
                read(band.first + r, &row[..=band.first + r]);
            }
        }
        Ok(())
    }

    /// n x n in f64, the upper half zeros.
    fn wide(&self) -> Result<Vec<f64>> {
        let mut all = vec![0.0; self.n * self.n];
        for band in &self.bands {
            let data = band.rows.host()?;
            let rows = all[band.first * self.n..band.end * self.n].par_chunks_exact_mut(self.n);
            rows.zip(data.par_chunks_exact(band.end)).enumerate().for_each(|(r, (to, from))| {
                let half = ..=band.first + r;
                to[half].iter_mut().zip(&from[half]).for_each(|(t, f)| *t = f64::from(*f));
            });
        }
        Ok(all)
    }
}

/// Factors a = L L^T in place. After `NotPositive` the contents are of no use. Errors: the device failed.
pub fn cholesky(dev: &Device, a: &mut Lower) -> Result<Factored> {
    match dev.gpu() {
        _ if a.n == 0 => Ok(Factored::Done),
        Some(gpu) => cholesky_shader(dev, gpu, a),
        None => cholesky_host(a),
    }
}

/// x <- L^-1 x for every row of `x`: m x n row-major; `l` as `cholesky` leaves it. Errors: lengths.
pub fn forward(dev: &Device, l: &Lower, m: usize, x: &mut Buffer<f32>) -> Result<()> {
    triangular(dev, l, m, x, false)
}

/// x <- L^-T x for every row of `x`. Shapes and errors as in `forward`.
pub fn backward(dev: &Device, l: &Lower, m: usize, x: &mut Buffer<f32>) -> Result<()> {
    triangular(dev, l, m, x, true)
}

/// x <- A^-1 x for every row of `x`, A = L L^T. Shapes and errors as in `forward`.
pub fn solve(dev: &Device, l: &Lower, m: usize, x: &mut Buffer<f32>) -> Result<()> {
    forward(dev, l, m, x)?;
    backward(dev, l, m, x)
}

/// A^-1 by rows, as many at a time as a buffer holds: `read(first, rows)` gets rows x n values. Errors: a row exceeds a
/// buffer, the device failed.
pub fn inverse(dev: &Device, l: &Lower, mut read: impl FnMut(usize, &[f32])) -> Result<()> {
    let n = l.n;
    let most = (dev.max_buffer_bytes() as usize / size_of::<f32>() / n.max(1)).min(n);
    if most == 0 && n > 0 {
        return Err(Error::work("inverse", format!("a row of {n} exceeds a buffer")));
    }
    for first in (0..n).step_by(most.max(1)) {
        let count = most.min(n - first);
        let mut x = dev.upload_with(count * n, |rows| {
            rows.fill(0.0);
            rows.chunks_exact_mut(n).enumerate().for_each(|(r, row)| row[first + r] = 1.0);
            Ok(())
        })?;
        solve(dev, l, count, &mut x)?;
        read(first, &dev.view(&x)?);
    }
    Ok(())
}

fn cholesky_shader(dev: &Device, gpu: &Gpu, a: &mut Lower) -> Result<Factored> {
    let n = a.n;
    let status = dev.upload(&[u32::MAX])?;
    let lines = dev.scratch::<f32>(n * BLOCK)?;
    for first in (0..n).step_by(BLOCK) {
        let run = |entry, band: &Band, groups: usize| {
            let params = [n, first, band.first, band.rows(), band.end].map(|v| v as u32);
            gpu.run(
                &Dispatch { shader: CHOLESKY, entry, scalar: "f32", constants: &[], params, groups: groups as u64 },
                &[Bind::Out(band.rows.gpu()?), Bind::Out(lines.gpu()?), Bind::Out(status.gpu()?)],
            )
        };
        let rest = first + BLOCK;
        let own = a.bands.partition_point(|band| band.end <= first);
        run("diagonal", &a.bands[own], 1)?;
        let below = || a.bands[own..].iter().filter(|band| band.end > rest);
        let rows = |band: &Band| band.end - band.first.max(rest);
        for band in below() {
            run("panel", band, rows(band).div_ceil(64))?;
        }
        for band in below() {
            run("update", band, rows(band).div_ceil(TILE) * (band.end - rest).div_ceil(TILE))?;
        }
    }
    Ok(match dev.download(&status)?[0] {
        u32::MAX => Factored::Done,
        pivot => Factored::NotPositive { pivot: pivot as usize },
    })
}

/// In f64, rounded at the end.
fn cholesky_host(a: &mut Lower) -> Result<Factored> {
    let n = a.n;
    let wide = a.wide()?;
    let factor = match Llt::new(MatRef::from_row_major_slice(&wide, n, n), Side::Lower) {
        Ok(factor) => factor,
        Err(LltError::NonPositivePivot { index }) => return Ok(Factored::NotPositive { pivot: index }),
    };
    let l = factor.L();
    for band in &mut a.bands {
        let (first, end) = (band.first, band.end);
        band.rows.host_mut()?.par_chunks_mut(end).enumerate().for_each(|(r, row)| {
            row[..=first + r].iter_mut().enumerate().for_each(|(j, v)| *v = l[(first + r, j)] as f32);
        });
    }
    Ok(Factored::Done)
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
    band_row: u32,
    band_stride: u32,
}

fn triangular(dev: &Device, l: &Lower, m: usize, x: &mut Buffer<f32>, backward: bool) -> Result<()> {
    let n = l.n;
    expect_len("triangular solve: right-hand sides", x, m * n)?;
    if n == 0 || m == 0 {
        return Ok(());
    }
    let Some(gpu) = dev.gpu() else {
        return triangular_host(l, m, x.host_mut()?, backward);
    };
    let blocks = n.div_ceil(BLOCK);
    for step in 0..blocks {
        let first = BLOCK * if backward { blocks - 1 - step } else { step };
        let run = |entry, band: &Band, begin: usize, end: usize, groups: usize| {
            let params = Params {
                n: n as u32,
                m: m as u32,
                first: first as u32,
                begin: begin as u32,
                end: end as u32,
                backward: backward as u32,
                band_row: band.first as u32,
                band_stride: band.end as u32,
            };
            gpu.run(
                &Dispatch { shader: TRIANGULAR, entry, scalar: "f32", constants: &[], params, groups: groups as u64 },
                &[Bind::In(band.rows.gpu()?), Bind::Out(x.gpu()?)],
            )
        };
        let update = |band: &Band, begin: usize, end: usize| {
            run("update", band, begin, end, m.div_ceil(TILE) * (end - begin).div_ceil(TILE))
        };
        let own = l.bands.partition_point(|band| band.end <= first);
        run("diagonal", &l.bands[own], 0, 0, m.div_ceil(64))?;
        if backward {
            update(&l.bands[own], 0, first)?;
        } else {
            for band in l.bands[own..].iter().filter(|band| band.end > first + BLOCK) {
                update(band, band.first.max(first + BLOCK), band.end)?;
            }
        }
    }
    Ok(())
}

/// In f64, rounded at the end; a right-hand side is a column for faer.
fn triangular_host(l: &Lower, m: usize, x: &mut [f32], backward: bool) -> Result<()> {
    let n = l.n;
    let wide = l.wide()?;
    let l = MatRef::from_row_major_slice(&wide, n, n);
    let mut sides: Vec<f64> = x.par_iter().map(|&v| v as f64).collect();
    let columns = MatMut::from_column_major_slice_mut(&mut sides, n, m);
    if backward {
        solve_upper_triangular_in_place(l.transpose(), columns, Par::rayon(0));
    } else {
        solve_lower_triangular_in_place(l, columns, Par::rayon(0));
    }
    x.par_iter_mut().zip(sides).for_each(|(x, s)| *x = s as f32);
    Ok(())
}
