//! Rearrangements (shaders/gather.wgsl): slices, transposes, pads, and Concat as several calls.

use rayon::prelude::*;

use super::buffer::{Buffer, Element, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Shader};
use crate::error::{Error, Result};

const SHADER: Shader = Shader { name: "gather.wgsl", source: include_str!("../../shaders/gather.wgsl") };

/// y[image][dst_offset + i] = x[image][index[i]], or 0 where index[i] is `u32::MAX` (or beyond `src_len`).
/// `x`: images x src_len, `y`: images x dst_len; the rest of `y` stays. Errors: lengths that do not fit.
#[expect(clippy::too_many_arguments, reason = "a kernel's inputs and outputs")]
pub fn into<T: Element>(
    dev: &Device,
    index: &Buffer<u32>,
    images: usize,
    src_len: usize,
    x: &Buffer<T>,
    dst_offset: usize,
    dst_len: usize,
    y: &mut Buffer<T>,
) -> Result<()> {
    expect_len("gather input", x, images * src_len)?;
    expect_len("gather output", y, images * dst_len)?;
    let count = index.len();
    if dst_offset + count > dst_len {
        return Err(Error::work("gather", format!("{count} elements at {dst_offset} of {dst_len}")));
    }
    if count == 0 || images == 0 {
        return Ok(());
    }
    if let Some(gpu) = dev.gpu() {
        let params = [images, count, src_len, dst_offset, dst_len].map(|v| v as u32);
        let groups = (images * count).div_ceil(256) as u64;
        return gpu.run(
            &Dispatch { shader: SHADER, entry: "gather", scalar: T::WGSL, constants: &[], params, groups },
            &[Bind::In(index.gpu()?), Bind::In(x.gpu()?), Bind::Out(y.gpu()?)],
        );
    }
    let (index, x) = (index.host()?, x.host()?);
    y.host_mut()?.par_chunks_mut(dst_len).enumerate().for_each(|(image, y)| {
        let x = &x[image * src_len..][..src_len];
        for (y, &from) in y[dst_offset..].iter_mut().zip(index) {
            *y = x.get(from as usize).copied().unwrap_or_default();
        }
    });
    Ok(())
}
