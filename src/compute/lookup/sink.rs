//! Where the spikes of a layer on spike bits go: bits of its own, or counts for several initial potentials.

use super::{Lanes, WIDTH};
use crate::network::Shape;

/// A vector of neurons, whose initial potentials are those of a trial.
#[derive(Clone, Copy)]
pub(super) struct Vector {
    pub trial: usize,
    /// Within its chunk.
    pub k: usize,
    /// From the piece's first.
    pub position: usize,
    /// Its first.
    pub channel: usize,
}

/// Where spikes go.
pub(super) trait Sink {
    /// Takes a vector through its steps: `fires(step)` is 1 in the lanes that fire then, to be asked once a step in order.
    fn spikes(&mut self, at: Vector, steps: usize, fires: impl FnMut(usize) -> Lanes<i32>);
    /// All vectors of a position are done; `channel` is the chunk's first.
    fn finish(&mut self, position: usize, channel: usize);
}

/// A piece of `Spikes`.
pub(super) struct Bits<'a> {
    out: &'a mut [u8],
    each: usize,
}

impl<'a> Bits<'a> {
    /// `each`: bytes of a position.
    pub fn new(out: &'a mut [u8], each: usize) -> Self {
        Self { out, each }
    }
}

impl Sink for Bits<'_> {
    #[inline(always)]
    fn spikes(&mut self, at: Vector, steps: usize, mut fires: impl FnMut(usize) -> Lanes<i32>) {
        let out = &mut self.out[at.position * self.each..][..self.each];
        // A chunk's last vectors may have one byte of channels or none at all.
        let mut bytes = out.chunks_exact_mut(steps.max(1)).skip(at.channel / 8);
        let (mut first, mut second) = (bytes.next(), bytes.next());
        for from in (0..steps).step_by(8) {
            let count = (steps - from).min(8);
            // A lane's bits are its steps.
            let mut trains = [0; WIDTH];
            for step in 0..count {
                trains.iter_mut().zip(fires(from + step)).for_each(|(train, fires)| *train |= fires << step);
            }
            for (out, bytes) in [&mut first, &mut second].into_iter().zip(by_step(&trains)) {
                if let Some(out) = out {
                    out[from..from + count].copy_from_slice(&bytes[..count]);
                }
            }
        }
    }

    #[inline(always)]
    fn finish(&mut self, _: usize, _: usize) {}
}

/// A byte for each of eight steps and each half of the lanes, whose bits are lanes, of lanes whose bits are steps. Not part
/// of the loops around it, whose vectors it would take apart.
#[inline(never)]
fn by_step(trains: &Lanes<i32>) -> [[u8; 8]; 2] {
    let bytes = trains.map(|train| train as u8);
    let [first, second] = [0, 8].map(|from| std::array::from_fn(|lane| bytes[from + lane]));
    [first, second].map(|lanes| transposed(u64::from_le_bytes(lanes)).to_le_bytes())
}

/// Bit i of byte j becomes bit j of byte i: blocks of one, two and four bits change places.
fn transposed(mut x: u64) -> u64 {
    for (apart, mask) in [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)] {
        let differ = (x ^ (x >> apart)) & mask;
        x ^= differ ^ (differ << apart);
    }
    x
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
    fn spikes(&mut self, at: Vector, steps: usize, mut fires: impl FnMut(usize) -> Lanes<i32>) {
        let mut sums = [0; WIDTH];
        for step in 0..steps {
            sums.iter_mut().zip(fires(step)).for_each(|(sum, fires)| *sum += fires);
        }
        let wide = self.sums.len() / self.out.len();
        self.sums[at.trial * wide + at.k] = sums;
    }

    #[inline(always)]
    fn finish(&mut self, position: usize, channel: usize) {
        let (area, wide) = (self.shape.area(), self.sums.len() / self.out.len());
        self.done.extend_from_slice(&self.sums);
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
