//! One source of a layer on spike bits: which inputs each output position reads, and the table of sums that their spikes
//! choose rows of.

use pulp::Simd;

use super::{Lanes, Synapses, WIDTH};
use crate::compute::patch::View;

/// Two channels' 16-bit sums in one word, upper * 65536 + lower: added as one number, and taken apart at the end.
/// Written so for explicit vectors of words, because plain loops over 16-bit lanes are not kept in vector registers.
pub(super) const PAIRS: usize = WIDTH / 2;

/// The rows of one byte of spikes: 16 patterns of its lower four channels, 16 of its upper four. N vectors make K x 16
/// channels.
pub(super) type Patterns<V, const N: usize> = [[<V as Simd>::u32s; N]; 32];

pub(super) struct Block {
    /// For each output position the range of its `reads`.
    first: Vec<u32>,
    /// Input position and tap.
    reads: Vec<(u32, u32)>,
    /// Bytes of the source's channels.
    bytes: usize,
    shift: u32,
    /// chunks x taps x bytes x 2 halves x 16 patterns x wide x PAIRS; lower channels first, then upper ones.
    table: Vec<Line>,
}

/// Words of a cache line: rows of a table begin where no load spans two lines.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 2 * PAIRS]);

impl Block {
    pub fn new(s: &Synapses<'_>, wide: usize, chunks: usize) -> Block {
        let conv = &s.conv;
        let view = View::new(conv.input, conv.output, conv.window);
        let [kh, kw] = conv.window.kernel;
        let columns: Vec<_> = (0..kw).map(|j| view.columns_of(j)).collect();
        let (mut first, mut reads) = (vec![0], vec![]);
        for y in 0..conv.output.h {
            for x in 0..conv.output.w {
                for i in 0..kh {
                    let Some(row) = view.row_of(y, i) else { continue };
                    for (j, &(lo, hi, from)) in columns.iter().enumerate() {
                        if (lo..hi).contains(&x) {
                            let column = from + (x - lo) * conv.window.stride[1];
                            reads.push(((row * conv.input.w + column) as u32, (i * kw + j) as u32));
                        }
                    }
                }
                first.push(reads.len() as u32);
            }
        }
        let (taps, bytes) = (conv.window.taps(), conv.input.c.div_ceil(8));
        let code = |o: usize, four: usize, tap: usize, pattern: usize| -> i32 {
            let spiking = (0..4).filter(|i| pattern >> i & 1 == 1).map(|i| 4 * four + i).filter(|&c| c < conv.input.c);
            if o < conv.output.c { spiking.map(|c| s.codes[o * conv.depth() + c * taps + tap]).sum() } else { 0 }
        };
        let mut table = vec![Line([0; 2 * PAIRS]); chunks * taps * bytes * 16 * wide];
        let words: &mut [u32] = bytemuck::cast_slice_mut(&mut table);
        for (n, row) in words.chunks_exact_mut(wide * PAIRS).enumerate() {
            let (pattern, four) = (n % 16, n / 16 % (2 * bytes));
            let (tap, chunk) = (n / 32 / bytes % taps, n / 32 / bytes / taps);
            for (i, pair) in row.iter_mut().enumerate() {
                let o = chunk * wide * WIDTH + i / PAIRS * WIDTH + i % PAIRS;
                let [lower, upper] = [o, o + PAIRS].map(|o| code(o, four, tap, pattern) as u32);
                *pair = (upper << 16).wrapping_add(lower);
            }
        }
        Block { first, reads, bytes, shift: s.shift, table }
    }

    /// The rows of one chunk of output channels: taps x bytes.
    #[inline(always)]
    pub fn patterns<V: Simd, const N: usize>(&self, chunk: usize, chunks: usize) -> &[Patterns<V, N>] {
        let all = V::as_simd_u32s(bytemuck::cast_slice(&self.table)).0.as_chunks::<N>().0.as_chunks::<32>().0;
        &all[chunk * all.len() / chunks..(chunk + 1) * all.len() / chunks]
    }

    /// Adds the currents of output position `at` to `drive`, one entry a step. `table`: the chunk's rows.
    #[inline(always)]
    pub fn gather<V: Simd, const K: usize, const N: usize>(
        &self,
        simd: V,
        at: usize,
        table: &[Patterns<V, N>],
        source: &[u8],
        drive: &mut [[Lanes<i32>; K]],
    ) {
        let reads = &self.reads[self.first[at] as usize..self.first[at + 1] as usize];
        let steps = drive.len();
        let mut step = 0;
        // As many steps at a time as there are registers for their sums.
        while step < steps {
            let (left, drive) = (steps - step, &mut drive[step..]);
            step += if N == 1 && left >= 8 {
                self.gather_steps::<V, K, N, 8>(simd, reads, table, source, step, steps, drive)
            } else if N <= 2 && left >= 4 {
                self.gather_steps::<V, K, N, 4>(simd, reads, table, source, step, steps, drive)
            } else if N <= 4 && left >= 2 {
                self.gather_steps::<V, K, N, 2>(simd, reads, table, source, step, steps, drive)
            } else {
                self.gather_steps::<V, K, N, 1>(simd, reads, table, source, step, steps, drive)
            };
        }
    }

    /// `S` steps from `first` on; returns S.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "the inner loop of a kernel")]
    fn gather_steps<V: Simd, const K: usize, const N: usize, const S: usize>(
        &self,
        simd: V,
        reads: &[(u32, u32)],
        table: &[Patterns<V, N>],
        source: &[u8],
        first: usize,
        steps: usize,
        drive: &mut [[Lanes<i32>; K]],
    ) -> usize {
        let mut sums = [[simd.splat_u32s(0); N]; S];
        for &(position, tap) in reads {
            let from = position as usize * self.bytes * steps + first;
            let patterns = &table[tap as usize * self.bytes..][..self.bytes];
            for (byte, patterns) in patterns.iter().enumerate() {
                let spikes = &source[from + byte * steps..][..S];
                for (sums, spikes) in sums.iter_mut().zip(spikes) {
                    let (low, high) = (&patterns[usize::from(spikes & 15)], &patterns[16 + usize::from(spikes >> 4)]);
                    for n in 0..N {
                        sums[n] = simd.add_u32s(sums[n], low[n]);
                    }
                    for n in 0..N {
                        sums[n] = simd.add_u32s(sums[n], high[n]);
                    }
                }
            }
        }
        for (drive, sums) in drive.iter_mut().zip(&sums) {
            let sums: &[u32] = bytemuck::cast_slice(sums);
            for (drive, sums) in drive.iter_mut().zip(sums.as_chunks::<PAIRS>().0) {
                for l in 0..PAIRS {
                    let both = sums[l] as i32;
                    let lower = both << 16 >> 16;
                    drive[l] += lower << self.shift;
                    drive[l + PAIRS] += (both.wrapping_sub(lower) >> 16) << self.shift;
                }
            }
        }
        S
    }
}
