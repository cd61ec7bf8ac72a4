//! What a device can do at most: a loop of fused multiply-adds in registers (shaders/peak_fma.wgsl) and a copy of memory
//! (shaders/peak_copy.wgsl). `synfit bench` holds the other kernels to what these two reach.

use rayon::prelude::*;

use super::buffer::{Buffer, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Shader};
use crate::error::{Error, Result};

const FMA: Shader = Shader { name: "peak_fma.wgsl", source: include_str!("../../shaders/peak_fma.wgsl") };
const COPY: Shader = Shader { name: "peak_copy.wgsl", source: include_str!("../../shaders/peak_copy.wgsl") };
/// Elements of a vector of the shaders; both kernels take whole ones.
pub const VECTOR: usize = 4;
/// Rounds of a turn of the shader's loop; `fma` takes a multiple of it.
pub const TURN: usize = 8;
/// Most rounds: some drivers end loops after 65,535 turns without a word.
pub const MOST_ROUNDS: usize = 32_768;
/// Vectors that a core of the twin advances together: more than its units have multiply-adds in flight.
const CHAINS: usize = 12;

/// y <- a y + b for every element, `rounds` times over: 2 rounds x len operations and no more memory than `y`, once.
/// Devices may round once or twice a step. `y` holds whole vectors; `rounds` is a multiple of `TURN`.
///
/// # Errors
/// `Work`: a length or a number of rounds that does not fit, or the device failed.
pub fn fma(dev: &Device, rounds: usize, (a, b): (f32, f32), y: &mut Buffer<f32>) -> Result<()> {
    let vectors = whole("peak_fma", y)?;
    if !rounds.is_multiple_of(TURN) || rounds > MOST_ROUNDS {
        return Err(Error::work("peak_fma", format!("{rounds} rounds, not a multiple of {TURN} up to {MOST_ROUNDS}")));
    }
    if let Some(gpu) = dev.gpu() {
        let params = [vectors as u32, (rounds / TURN) as u32, a.to_bits(), b.to_bits()];
        let groups = vectors.div_ceil(1024) as u64;
        return gpu.run(
            &Dispatch { shader: FMA, entry: "rounds", scalar: "f32", constants: &[], params, groups },
            &[Bind::Out(y.gpu()?)],
        );
    }
    let y = y.host_mut()?;
    let each = y.len().div_ceil(4 * rayon::current_num_threads()).max(1);
    y.par_chunks_mut(each.next_multiple_of(16 * CHAINS)).for_each(|y| advance(y, rounds, a, b));
    Ok(())
}

/// y <- x: 8 bytes an element. Both hold whole vectors. Errors: lengths.
pub fn copy(dev: &Device, x: &Buffer<f32>, y: &mut Buffer<f32>) -> Result<()> {
    let vectors = whole("peak_copy", x)?;
    expect_len("peak_copy: output", y, x.len())?;
    if let Some(gpu) = dev.gpu() {
        let groups = vectors.div_ceil(256) as u64;
        return gpu.run(
            &Dispatch { shader: COPY, entry: "copy", scalar: "f32", constants: &[], params: vectors as u32, groups },
            &[Bind::In(x.gpu()?), Bind::Out(y.gpu()?)],
        );
    }
    let x = x.host()?;
    let each = x.len().div_ceil(rayon::current_num_threads()).max(1);
    y.host_mut()?.par_chunks_mut(each).zip(x.par_chunks(each)).for_each(|(y, x)| y.copy_from_slice(x));
    Ok(())
}

fn whole(what: &str, buffer: &Buffer<f32>) -> Result<usize> {
    match buffer.len().is_multiple_of(VECTOR) {
        true => Ok(buffer.len() / VECTOR),
        false => Err(Error::work(what, format!("{} elements are not whole vectors of {VECTOR}", buffer.len()))),
    }
}

/// One core's part, with the widest vectors that it has: products of matrices use them too.
fn advance(y: &mut [f32], rounds: usize, a: f32, b: f32) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature is there.
        return unsafe { advance_512(y, rounds, a, b) };
    }
    pulp::Arch::new().dispatch(Rounds { y, rounds, a, b });
}

struct Rounds<'a> {
    y: &'a mut [f32],
    rounds: usize,
    a: f32,
    b: f32,
}

impl pulp::WithSimd for Rounds<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let (a, b) = (simd.splat_f32s(self.a), simd.splat_f32s(self.b));
        let (vectors, rest) = S::as_mut_simd_f32s(self.y);
        let (blocks, left) = vectors.as_chunks_mut::<CHAINS>();
        for block in blocks {
            let mut v = *block;
            for _ in 0..self.rounds {
                for chain in &mut v {
                    *chain = simd.mul_add_e_f32s(*chain, a, b);
                }
            }
            *block = v;
        }
        for v in left {
            (0..self.rounds).for_each(|_| *v = simd.mul_add_e_f32s(*v, a, b));
        }
        remainder(rest, self.rounds, self.a, self.b);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn advance_512(y: &mut [f32], rounds: usize, a: f32, b: f32) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps};
    let (a_all, b_all) = (_mm512_set1_ps(a), _mm512_set1_ps(b));
    let (vectors, rest) = y.as_chunks_mut::<16>();
    let (blocks, left) = vectors.as_chunks_mut::<CHAINS>();
    for block in blocks {
        // SAFETY: every one of these arrays holds the 16 numbers that are read and written.
        let mut v: [_; CHAINS] = std::array::from_fn(|n| unsafe { _mm512_loadu_ps(block[n].as_ptr()) });
        for _ in 0..rounds {
            for chain in &mut v {
                *chain = _mm512_fmadd_ps(*chain, a_all, b_all);
            }
        }
        for (to, v) in block.iter_mut().zip(v) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) };
        }
    }
    left.iter_mut().for_each(|v| remainder(v, rounds, a, b));
    remainder(rest, rounds, a, b);
}

fn remainder(y: &mut [f32], rounds: usize, a: f32, b: f32) {
    for v in y {
        (0..rounds).for_each(|_| *v = *v * a + b);
    }
}
