//! Spike trains of neurons that fire at most once a step, a bit a step: what the CPU path keeps of them. 32 times
//! smaller than counts in 32-bit integers, and the form that `lookup` reads and writes.

use rayon::prelude::*;

use super::simd::vectorized;
use crate::error::{Error, Result};
use crate::network::Shape;

/// Bits of a batch: `[image][position][byte][step]`, channel c in bit c % 8 of byte c / 8; bits beyond the last channel
/// are zero. The steps of eight channels lie side by side, for `lookup` to take several at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Spikes {
    images: usize,
    shape: Shape,
    steps: usize,
    bytes: Vec<u8>,
}

/// The eight bits of a byte, one a byte, lowest first.
const SPREAD: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[byte] |= ((byte as u64 >> bit) & 1) << (8 * bit);
            bit += 1;
        }
        byte += 1;
    }
    table
};

impl Spikes {
    /// No spikes yet.
    pub(super) fn silent(images: usize, shape: Shape, steps: usize) -> Self {
        Self { images, shape, steps, bytes: vec![0; images * Self::image_bytes(shape, steps)] }
    }

    /// From the bytes of `bytes()`.
    ///
    /// # Errors
    /// Work: another number of bytes than images, shape and steps make.
    pub fn from_bytes(images: usize, shape: Shape, steps: usize, bytes: Vec<u8>) -> Result<Self> {
        let want = images * Self::image_bytes(shape, steps);
        if bytes.len() != want {
            return Err(Error::work("spikes", format!("{} bytes where {want} are needed", bytes.len())));
        }
        Ok(Self { images, shape, steps, bytes })
    }

    /// From counts `[step][image][shape]`; none if a count is neither 0 nor 1.
    pub fn pack(images: usize, shape: Shape, steps: usize, counts: &[i32]) -> Option<Self> {
        if counts.par_chunks(1 << 16).any(|c| vectorized(|| c.iter().fold(0, |all, &c| all | c)) & !1 != 0) {
            return None;
        }
        let mut it = Self::silent(images, shape, steps);
        let (area, each) = (shape.area(), it.position_bytes());
        let image_bytes = Self::image_bytes(shape, steps).max(1);
        it.bytes.par_chunks_mut(image_bytes).enumerate().for_each(|(image, bytes)| {
            for step in 0..steps {
                let counts = &counts[(step * images + image) * shape.len()..][..shape.len()];
                for (c, plane) in counts.chunks_exact(area).enumerate() {
                    for (position, &n) in plane.iter().enumerate() {
                        bytes[position * each + c / 8 * steps + step] |= (n as u8) << (c % 8);
                    }
                }
            }
        });
        Some(it)
    }

    pub fn images(&self) -> usize {
        self.images
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn steps(&self) -> usize {
        self.steps
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Bytes of one position, all steps.
    pub(super) fn position_bytes(&self) -> usize {
        self.steps * self.shape.c.div_ceil(8)
    }

    pub(super) fn image_bytes(shape: Shape, steps: usize) -> usize {
        shape.area() * steps * shape.c.div_ceil(8)
    }

    /// Counts `[step][image][shape]`.
    pub fn unpack(&self, counts: &mut [i32]) {
        let (shape, area, each) = (self.shape, self.shape.area(), self.position_bytes());
        let image_bytes = Self::image_bytes(shape, self.steps);
        counts.par_chunks_mut(shape.len().max(1)).enumerate().for_each(|(row, counts)| {
            let (step, image) = (row / self.images, row % self.images);
            let bytes = &self.bytes[image * image_bytes..][..image_bytes];
            for (c, plane) in counts.chunks_exact_mut(area).enumerate() {
                let reads = bytes[c / 8 * self.steps + step..].iter().step_by(each);
                plane.iter_mut().zip(reads).for_each(|(n, byte)| *n = i32::from(byte >> (c % 8) & 1));
            }
        });
    }

    /// Counts over all steps, `[image][shape]`.
    pub fn totals(&self, totals: &mut [f32]) {
        let (shape, area, each) = (self.shape, self.shape.area(), self.position_bytes());
        let image_bytes = Self::image_bytes(shape, self.steps);
        totals.par_chunks_mut(shape.len().max(1)).enumerate().for_each(|(image, totals)| {
            let bytes = &self.bytes[image * image_bytes..][..image_bytes];
            totals.fill(0.0);
            // Eight sums in a word: no byte of it overflows within 255 steps.
            let mut words = vec![[0u64; BESIDE]; shape.c.div_ceil(8)];
            // Some positions at a time: channel after channel their sums lie too far apart to be written one by one.
            for (block, bytes) in bytes.chunks(each * BESIDE).enumerate() {
                let (first, last) = (block * BESIDE, (block * BESIDE + BESIDE).min(area));
                for from in (0..self.steps).step_by(255) {
                    let count = (self.steps - from).min(255);
                    for (position, bytes) in bytes.chunks_exact(each).enumerate() {
                        for (steps, words) in bytes.chunks_exact(self.steps).zip(&mut words) {
                            words[position] = steps[from..from + count].iter().map(|&b| SPREAD[usize::from(b)]).sum();
                        }
                    }
                    vectorized(|| {
                        for (c, plane) in totals.chunks_exact_mut(area).enumerate() {
                            for (total, word) in plane[first..last].iter_mut().zip(&words[c / 8]) {
                                *total += f32::from((word >> (8 * (c % 8))) as u8);
                            }
                        }
                    });
                }
            }
        });
    }
}

/// Positions whose sums are made side by side: a cache line of results.
const BESIDE: usize = 16;
