//! Sums over time of spike trains (shaders/time.wgsl).

use rayon::prelude::*;

use super::buffer::{Buffer, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Gpu, Shader};
use super::simd::vectorized;
use super::step::MOST_STEPS;
use crate::error::{Error, Result};

const SHADER: Shader = Shader { name: "time.wgsl", source: include_str!("../../shaders/time.wgsl") };
/// Elements that one task of the twin sums.
const BLOCK: usize = 4096;

/// y[i] = sum over steps of trains[step][i]. `trains`: steps x len, `y`: len; sums below 2^24 are exact.
/// Errors: lengths, too many steps.
pub fn total(dev: &Device, steps: usize, len: usize, trains: &Buffer<i32>, y: &mut Buffer<f32>) -> Result<()> {
    check(steps, len, trains)?;
    expect_len("time sum: output", y, len)?;
    if let Some(gpu) = dev.gpu() {
        return dispatch(gpu, "total", steps, len, trains.gpu()?, y.gpu()?);
    }
    let trains = trains.host()?;
    y.host_mut()?.par_chunks_mut(BLOCK).enumerate().for_each(|(block, y)| {
        let mut sums = vec![0i32; y.len()];
        vectorized(|| {
            for step in 0..steps {
                let row = &trains[step * len + block * BLOCK..][..y.len()];
                sums.iter_mut().zip(row).for_each(|(s, &v)| *s = s.wrapping_add(v));
            }
            y.iter_mut().zip(&sums).for_each(|(y, &s)| *y = s as f32);
        });
    });
    Ok(())
}

/// y[step][i] = sum of trains[..=step][i]; both steps x len.
pub(super) fn running(dev: &Device, steps: usize, len: usize, trains: &Buffer<i32>, y: &mut Buffer<i32>) -> Result<()> {
    check(steps, len, trains)?;
    expect_len("running sum: output", y, steps * len)?;
    if let Some(gpu) = dev.gpu() {
        return dispatch(gpu, "running", steps, len, trains.gpu()?, y.gpu()?);
    }
    let y = y.host_mut()?;
    y.copy_from_slice(trains.host()?);
    for step in 1..steps {
        let (before, now) = y.split_at_mut(step * len);
        now[..len].iter_mut().zip(&before[(step - 1) * len..]).for_each(|(n, &b)| *n = n.wrapping_add(b));
    }
    Ok(())
}

fn check(steps: usize, len: usize, trains: &Buffer<i32>) -> Result<()> {
    if steps > MOST_STEPS {
        return Err(Error::work("time sum", format!("{steps} steps, at most {MOST_STEPS}")));
    }
    expect_len("time sum: trains", trains, steps * len)
}

fn dispatch(
    gpu: &Gpu,
    entry: &'static str,
    steps: usize,
    len: usize,
    trains: &wgpu::Buffer,
    y: &wgpu::Buffer,
) -> Result<()> {
    let groups = len.div_ceil(256) as u64;
    let params = [steps as u32, len as u32];
    gpu.run(
        &Dispatch { shader: SHADER, entry, scalar: "i32", constants: &[], params, groups },
        &[Bind::In(trains), Bind::Out(y)],
    )
}
