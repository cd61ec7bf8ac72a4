//! Pooling (shaders/pool.wgsl): averages and maxima of values, sums and rate winners of spike trains.

use rayon::prelude::*;

use super::buffer::{Buffer, Element, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Gpu, Shader};
use super::patch::{View, WindowParams, check_window};
use super::time;
use crate::error::{Error, Result};
use crate::network::{Shape, Window};

const SHADER: Shader = Shader { name: "pool.wgsl", source: include_str!("../../shaders/pool.wgsl") };
/// Taps of one dispatch: some drivers end a loop after 65,535 iterations without a word.
const MOST_TAPS: usize = 16_384;

/// A window sliding over every channel; `input.c == output.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    pub input: Shape,
    pub output: Shape,
    pub window: Window,
}

impl Pool {
    fn check<T: Element>(&self, images: usize, x: &Buffer<T>, y: &Buffer<T>) -> Result<()> {
        if self.input.c != self.output.c {
            return Err(Error::work("pooling", format!("{} to {} channels", self.input.c, self.output.c)));
        }
        check_window("pooling", self.input, self.output, &self.window)?;
        expect_len("pooling input", x, images * self.input.len())?;
        expect_len("pooling output", y, images * self.output.len())
    }

    /// How many images `y` holds.
    fn images<T: Element>(&self, y: &Buffer<T>) -> usize {
        y.len() / self.output.len().max(1)
    }
}

/// y = sum over the window / divisor[position]; `x`: images x input.len(), `divisor` (> 0): output.area(),
/// `y`: images x output.len(). Errors: lengths that do not fit.
pub fn average(dev: &Device, pool: &Pool, divisor: &Buffer<u32>, x: &Buffer<f32>, y: &mut Buffer<f32>) -> Result<()> {
    pool.check(pool.images(y), x, y)?;
    expect_len("pooling divisor", divisor, pool.output.area())?;
    if let Some(gpu) = dev.gpu() {
        return dispatch(gpu, "average", pool, 1, x, divisor.gpu()?, y);
    }
    let divisor = divisor.host()?;
    twin(
        pool,
        x.host()?,
        y.host_mut()?,
        |y| y.fill(0.0),
        |sum, v| sum + v,
        |y| {
            y.iter_mut().zip(divisor).for_each(|(y, &d)| *y /= d as f32);
        },
    );
    Ok(())
}

/// y = maximum over the taps inside the input, 0 where there are none. Shapes as in `average`.
pub fn maximum(dev: &Device, pool: &Pool, x: &Buffer<f32>, y: &mut Buffer<f32>) -> Result<()> {
    pool.check(pool.images(y), x, y)?;
    if let Some(gpu) = dev.gpu() {
        // No values per position are read; any buffer of words will do for the binding.
        return dispatch(gpu, "maximum", pool, 1, x, x.gpu()?, y);
    }
    let nothing = f32::NEG_INFINITY;
    twin(
        pool,
        x.host()?,
        y.host_mut()?,
        |y| y.fill(nothing),
        f32::max,
        |y| {
            y.iter_mut().filter(|y| **y == nothing).for_each(|y| *y = 0.0);
        },
    );
    Ok(())
}

/// Spike sums: y = weight[position] * sum over the window. Shapes as in `average`; images may be steps x images.
pub fn sum_weighted(
    dev: &Device,
    pool: &Pool,
    weight: &Buffer<u32>,
    x: &Buffer<i32>,
    y: &mut Buffer<i32>,
) -> Result<()> {
    pool.check(pool.images(y), x, y)?;
    expect_len("pooling weight", weight, pool.output.area())?;
    if let Some(gpu) = dev.gpu() {
        return dispatch(gpu, "weighted", pool, 1, x, weight.gpu()?, y);
    }
    let weight = weight.host()?;
    twin(
        pool,
        x.host()?,
        y.host_mut()?,
        |y| y.fill(0),
        i32::wrapping_add,
        |y| {
            y.iter_mut().zip(weight).for_each(|(y, &w)| *y = y.wrapping_mul(w as i32));
        },
    );
    Ok(())
}

/// The rate winner's spike train: y[t] = max over the window of the spikes up to t, minus the same up to t - 1 (0 before
/// the first step); 0 where no tap is inside. Counts may be negative.
/// `x`: steps x images x input.len(), `y`: steps x images x output.len().
pub fn winner(dev: &Device, pool: &Pool, steps: usize, x: &Buffer<i32>, y: &mut Buffer<i32>) -> Result<()> {
    let all = pool.images(y);
    pool.check(all, x, y)?;
    if steps == 0 || !all.is_multiple_of(steps) {
        return Err(Error::work("pooling", format!("{all} images are not a multiple of {steps} steps")));
    }
    if pool.window.taps() > MOST_TAPS {
        return Err(Error::work("pooling", format!("a window of more than {MOST_TAPS} taps")));
    }
    let mut so_far = dev.scratch(x.len())?;
    time::running(dev, steps, x.len() / steps, x, &mut so_far)?;
    if let Some(gpu) = dev.gpu() {
        return dispatch(gpu, "winner", pool, all / steps, &so_far, x.gpu()?, y);
    }
    let y = y.host_mut()?;
    // Codes of the input may be negative.
    let nothing = i32::MIN;
    twin(
        pool,
        so_far.host()?,
        y,
        |y| y.fill(nothing),
        i32::max,
        |y| {
            y.iter_mut().filter(|y| **y == nothing).for_each(|y| *y = 0);
        },
    );
    let step = y.len() / steps;
    for t in (1..steps).rev() {
        let (before, now) = y.split_at_mut(t * step);
        now[..step].iter_mut().zip(&before[(t - 1) * step..]).for_each(|(n, b)| *n -= b);
    }
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    window: WindowParams,
    first: u32,
    last: u32,
    fresh: u32,
    done: u32,
    images_a_step: u32,
}

fn dispatch<T: Element>(
    gpu: &Gpu,
    entry: &'static str,
    pool: &Pool,
    images_a_step: usize,
    x: &Buffer<T>,
    per_position: &wgpu::Buffer,
    y: &mut Buffer<T>,
) -> Result<()> {
    let taps = pool.window.taps();
    let images = pool.images(y);
    for first in (0..taps).step_by(MOST_TAPS) {
        let last = (first + MOST_TAPS).min(taps);
        let params = Params {
            window: WindowParams::new(images, 1, pool.input, pool.output, &pool.window),
            first: first as u32,
            last: last as u32,
            fresh: (first == 0) as u32,
            done: (last == taps) as u32,
            images_a_step: images_a_step as u32,
        };
        let groups = y.len().div_ceil(256) as u64;
        gpu.run(
            &Dispatch { shader: SHADER, entry, scalar: T::WGSL, constants: &[], params, groups },
            &[Bind::In(x.gpu()?), Bind::In(per_position), Bind::Out(y.gpu()?)],
        )?;
    }
    Ok(())
}

/// Plane by plane, tap by tap along the rows: `begin` the output plane, `fold` every tap inside in, `end` it.
fn twin<T: Element>(
    pool: &Pool,
    x: &[T],
    y: &mut [T],
    begin: impl Fn(&mut [T]) + Sync,
    fold: impl Fn(T, T) -> T + Sync,
    end: impl Fn(&mut [T]) + Sync,
) {
    let view = View::new(pool.input, pool.output, pool.window);
    let (from, stride) = (pool.input.area(), pool.window.stride[1]);
    y.par_chunks_mut(pool.output.area()).zip(x.par_chunks(from)).for_each(|(y, x)| {
        begin(y);
        for j in 0..pool.window.kernel[1] {
            let (lo, hi, first) = view.columns_of(j);
            for i in 0..pool.window.kernel[0] {
                for (row, line) in y.chunks_mut(pool.output.w).enumerate() {
                    let Some(source) = view.row_of(row, i) else { continue };
                    let reads = x[source * view.width..][..view.width].get(first..).unwrap_or(&[]);
                    line[lo..hi].iter_mut().zip(reads.iter().step_by(stride)).for_each(|(y, &x)| *y = fold(*y, x));
                }
            }
        }
        end(y);
    });
}
