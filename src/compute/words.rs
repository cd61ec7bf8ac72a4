//! Counts of spike trains packed several to a word (shaders/words.wgsl): what is kept of trains between layers, and all of
//! them that leaves a GPU.

use rayon::prelude::*;

use super::buffer::{Buffer, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Gpu, Shader};
use super::simd::vectorized;
use crate::error::{Error, Result};

const SHADER: Shader = Shader { name: "words.wgsl", source: include_str!("../../shaders/words.wgsl") };
/// Words that one task of the twin takes.
const PIECE: usize = 1 << 12;

/// How the counts of trains `[steps][len]` lie in words: field f of word j, from the lowest bit up, holds count j + f * words
/// of the flat trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    steps: usize,
    len: usize,
    bits: u32,
    words: usize,
}

impl Packing {
    /// For counts from 0 to `peak`; any bits of a count where that takes more than 16.
    pub fn new(steps: usize, len: usize, peak: u64) -> Self {
        let bits = [1, 2, 4, 8, 16].into_iter().find(|bits| peak >> bits == 0).unwrap_or(32);
        let per_word = 32 / bits as usize;
        // all counts of an element in few words: their sum reads each once
        let words = if steps > 1 { steps.div_ceil(per_word) * len } else { len.div_ceil(per_word) };
        Self { steps, len, bits, words }
    }

    /// As `new`, of counts of `bits` bits.
    ///
    /// # Errors
    /// Work: no such width.
    pub fn of_width(steps: usize, len: usize, bits: u32) -> Result<Self> {
        let it = Self::new(steps, len, 1u64.checked_shl(bits).map_or(u64::MAX, |power| power - 1));
        if it.bits == bits { Ok(it) } else { Err(Error::work("packed counts", format!("{bits} bits a count"))) }
    }

    /// Number of words.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Number of counts.
    pub fn counts(&self) -> usize {
        self.steps * self.len
    }

    pub fn bits(&self) -> u32 {
        self.bits
    }

    pub fn steps(&self) -> usize {
        self.steps
    }

    fn mask(&self) -> u32 {
        u32::MAX >> (32 - self.bits)
    }

    fn fields(&self) -> u32 {
        32 / self.bits
    }

    fn dispatch(&self, gpu: &Gpu, entry: &'static str, threads: usize, buffers: [&wgpu::Buffer; 2]) -> Result<()> {
        let params = [self.steps, self.len, self.bits as usize, self.words].map(|v| v as u32);
        gpu.run(
            &Dispatch {
                shader: SHADER,
                entry,
                scalar: "u32",
                constants: &[],
                params,
                groups: threads.div_ceil(256) as u64,
            },
            &[Bind::In(buffers[0]), Bind::Out(buffers[1])],
        )
    }
}

/// `words`: of `counts`, `[steps][len]`, none of which is wider than the packing's.
///
/// # Errors
/// Work: lengths that do not fit; on the CPU, a count that does not.
pub fn pack(dev: &Device, packing: &Packing, counts: &Buffer<i32>, words: &mut Buffer<u32>) -> Result<()> {
    expect_len("packed counts: counts", counts, packing.counts())?;
    expect_len("packed counts: words", words, packing.words)?;
    if let Some(gpu) = dev.gpu() {
        return packing.dispatch(gpu, "pack", packing.words, [counts.gpu()?, words.gpu()?]);
    }
    let counts = counts.host()?;
    let all = counts.par_chunks(PIECE).map(|c| vectorized(|| c.iter().fold(0, |all, &c| all | c as u32)));
    if all.reduce(|| 0, |a, b| a | b) & !packing.mask() != 0 {
        return Err(Error::work("packed counts", format!("a count takes more than {} bits", packing.bits)));
    }
    words.host_mut()?.par_chunks_mut(PIECE).enumerate().for_each(|(piece, words)| {
        words.fill(0);
        for f in 0..packing.fields() {
            let from = counts.get(f as usize * packing.words + piece * PIECE..).unwrap_or_default();
            vectorized(|| words.iter_mut().zip(from).for_each(|(w, &c)| *w |= (c as u32) << (f * packing.bits)));
        }
    });
    Ok(())
}

/// `counts`, `[steps][len]`: of `words`.
///
/// # Errors
/// Work: lengths that do not fit.
pub fn unpack(dev: &Device, packing: &Packing, words: &Buffer<u32>, counts: &mut Buffer<i32>) -> Result<()> {
    expect_len("packed counts: words", words, packing.words)?;
    expect_len("packed counts: counts", counts, packing.counts())?;
    if let Some(gpu) = dev.gpu() {
        return packing.dispatch(gpu, "unpack", packing.words, [words.gpu()?, counts.gpu()?]);
    }
    let (words, mask) = (words.host()?, packing.mask());
    counts.host_mut()?.chunks_mut(packing.words.max(1)).zip(0..).for_each(|(counts, f)| {
        counts.par_chunks_mut(PIECE).zip(words.par_chunks(PIECE)).for_each(|(counts, words)| {
            let shift: u32 = f * packing.bits;
            vectorized(|| counts.iter_mut().zip(words).for_each(|(c, w)| *c = (w >> shift & mask) as i32));
        });
    });
    Ok(())
}

/// y[i] = sum over steps of the counts of element i; sums below 2^24 are exact. `y`: len.
///
/// # Errors
/// Work: lengths that do not fit.
pub fn total(dev: &Device, packing: &Packing, words: &Buffer<u32>, y: &mut Buffer<f32>) -> Result<()> {
    expect_len("packed counts: words", words, packing.words)?;
    expect_len("packed counts: sums", y, packing.len)?;
    if let Some(gpu) = dev.gpu() {
        return packing.dispatch(gpu, "total", packing.len, [words.gpu()?, y.gpu()?]);
    }
    let (words, y, mask) = (words.host()?, y.host_mut()?, packing.mask());
    if packing.steps == 1 {
        y.chunks_mut(packing.words.max(1)).zip(0..).for_each(|(y, f)| {
            let shift: u32 = f * packing.bits;
            y.iter_mut().zip(words).for_each(|(y, w)| *y = (w >> shift & mask) as i32 as f32);
        });
        return Ok(());
    }
    y.par_chunks_mut(PIECE).enumerate().for_each(|(piece, y)| {
        let mut sums = vec![0u32; y.len()];
        for row in words.chunks_exact(packing.len) {
            let words = &row[piece * PIECE..][..y.len()];
            for shift in (0..packing.fields()).map(|f| f * packing.bits) {
                vectorized(|| {
                    sums.iter_mut().zip(words).for_each(|(s, w)| *s = s.wrapping_add(w >> shift & mask));
                });
            }
        }
        y.iter_mut().zip(&sums).for_each(|(y, &s)| *y = s as i32 as f32);
    });
    Ok(())
}
