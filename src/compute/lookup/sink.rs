//! Where the spikes of a layer on spike bits go: bits of its own, or counts for several initial potentials.

use super::{Lanes, WIDTH};
use crate::network::Shape;

/// Where spikes go.
pub(super) trait Sink {
    /// One vector of neurons at one step. `vector` counts within the chunk, `position` from the piece's first;
    /// `channel` is the vector's first.
    fn spikes(&mut self, trial: usize, vector: usize, step: usize, position: usize, channel: usize, fires: Lanes<i32>);
    /// All steps of a position are done; `channel` is the chunk's first.
    fn finish(&mut self, position: usize, channel: usize);
}

/// A piece of `Spikes`.
pub(super) struct Bits<'a> {
    out: &'a mut [u8],
    each: usize,
    steps: usize,
}

impl<'a> Bits<'a> {
    /// `each`: bytes of a position.
    pub fn new(out: &'a mut [u8], each: usize, steps: usize) -> Self {
        Self { out, each, steps }
    }
}

impl Sink for Bits<'_> {
    #[inline(always)]
    fn spikes(&mut self, _: usize, _: usize, step: usize, position: usize, channel: usize, fires: Lanes<i32>) {
        let out = &mut self.out[position * self.each..][..self.each];
        let fires = fires.map(|f| f as u8);
        for (byte, eight) in fires.as_chunks::<8>().0.iter().enumerate() {
            // A chunk's last vectors may have no channel at all.
            if let Some(out) = out.get_mut((channel / 8 + byte) * self.steps + step) {
                // Byte i of the word is 0 or 1: the product gathers them in its highest byte, the first lowest.
                *out = (u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
            }
        }
    }

    #[inline(always)]
    fn finish(&mut self, _: usize, _: usize) {}
}

/// Counts of an image, one result for each trial.
pub(super) struct Counts<'a, 'b> {
    out: &'a mut [&'b mut [f32]],
    shape: Shape,
    /// trials x vectors of a chunk: the position under way.
    sums: Vec<Lanes<i32>>,
    /// The same for up to `BESIDE` finished positions: channel after channel their sums lie too far apart in `out` to be
    /// written one by one.
    done: Vec<Lanes<i32>>,
}

/// Positions written at a time.
const BESIDE: usize = 16;

impl<'a, 'b> Counts<'a, 'b> {
    /// `wide`: vectors of a chunk.
    pub fn new(out: &'a mut [&'b mut [f32]], shape: Shape, wide: usize) -> Self {
        let sums = vec![[0; WIDTH]; out.len() * wide];
        Self { out, shape, sums, done: Vec::new() }
    }
}

impl Sink for Counts<'_, '_> {
    #[inline(always)]
    fn spikes(&mut self, trial: usize, vector: usize, _: usize, _: usize, _: usize, fires: Lanes<i32>) {
        let wide = self.sums.len() / self.out.len();
        for (sum, fires) in self.sums[trial * wide + vector].iter_mut().zip(fires) {
            *sum += fires;
        }
    }

    #[inline(always)]
    fn finish(&mut self, position: usize, channel: usize) {
        let (area, wide) = (self.shape.area(), self.sums.len() / self.out.len());
        self.done.extend_from_slice(&self.sums);
        self.sums.fill([0; WIDTH]);
        let beside = position % BESIDE + 1;
        if beside < BESIDE && position + 1 < area {
            return;
        }
        for (trial, out) in self.out.iter_mut().enumerate() {
            for (lane, plane) in out[channel * area..].chunks_exact_mut(area).take(wide * WIDTH).enumerate() {
                let sums = self.done[trial * wide + lane / WIDTH..].iter().step_by(self.sums.len());
                let plane = &mut plane[position + 1 - beside..=position];
                plane.iter_mut().zip(sums).for_each(|(out, sums)| *out = sums[lane % WIDTH] as f32);
            }
        }
        self.done.clear();
    }
}
