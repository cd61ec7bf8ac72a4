//! H of spike counts on the CPU: products of bytes, summed in 16, then 32 bits, so exactly. Four times as many products an
//! instruction as in f32. x86-64 with AVX2; elsewhere there is nothing here, and f32 blocks do it as exactly.

/// Largest count: one operand of the byte product is signed.
pub(super) const MOST: u64 = 127;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use none::Products;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::Products;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_hadd_epi32, _mm256_madd_epi16, _mm256_maddubs_epi16,
        _mm256_set1_epi16, _mm256_setzero_si256,
    };

    use rayon::prelude::*;

    use crate::compute::simd::vectorized;

    /// Bytes of a vector: samples whose products one instruction takes.
    const LANE: usize = 32;
    /// Rows and columns of H that are summed in registers: 12 sums and 7 operands.
    const ROWS: usize = 3;
    const COLUMNS: usize = 4;
    /// Rows of a panel: what stays in the innermost cache while the columns go by, a tile of 1024 samples being 12 KiB.
    const PANEL: usize = 12;
    /// Sum of x x^T over tiles of samples, for one group of a layer at a time.
    pub struct Products {
        n: usize,
        /// Products of two pairs of bytes that 16 bits hold.
        rounds: usize,
        /// Rows padded to whole panels x samples padded to whole vectors; padding is zero.
        x: Vec<u8>,
    }

    impl Products {
        /// For `n` inputs that count up to `largest`, at most `super::MOST`; `tile`: most samples at a time. None where
        /// the machine has no such instructions.
        pub fn new(n: usize, largest: u64, tile: usize) -> Option<Self> {
            if !std::arch::is_x86_feature_detected!("avx2") {
                return None;
            }
            let most = (2 * largest * largest).max(1);
            let rounds = (i16::MAX as u64 / most).max(1) as usize;
            Some(Products { n, rounds, x: vec![0; n.next_multiple_of(PANEL) * tile.next_multiple_of(LANE)] })
        }

        /// Adds the products of x, n x `wide` whole numbers from 0 to `largest`, to the lower half of `h`, n x n.
        /// Entries above it may change.
        pub fn add(&mut self, x: &[f32], wide: usize, h: &mut [i32], threads: bool) {
            let (n, stride) = (self.n, wide.next_multiple_of(LANE));
            let rows = &mut self.x[..n.next_multiple_of(PANEL) * stride];
            vectorized(|| rows.chunks_mut(stride).zip(x.chunks(wide)).for_each(|(to, from)| bytes(from, to)));
            rows[n * stride..].fill(0);
            let (rows, rounds) = (&*rows, self.rounds);
            let panel = |(p, h): (usize, &mut [i32])| {
                let panel = Panel { rows, stride, rounds, first: p * PANEL, n };
                // SAFETY: `new` has found the feature.
                unsafe { panel.add(h) }
            };
            match threads {
                true => h.par_chunks_mut(PANEL * n).enumerate().for_each(panel),
                false => h.chunks_mut(PANEL * n).enumerate().for_each(panel),
            }
        }
    }

    #[inline(always)]
    fn bytes(from: &[f32], to: &mut [u8]) {
        let (to, padding) = to.split_at_mut(from.len());
        // From 2^23 on a step of f32 is 1: the last bits of the sum are the number.
        to.iter_mut().zip(from).for_each(|(to, &v)| *to = (v + 8_388_608.0).to_bits() as u8);
        padding.fill(0);
    }

    /// `PANEL` rows of H.
    struct Panel<'a> {
        rows: &'a [u8],
        stride: usize,
        rounds: usize,
        first: usize,
        n: usize,
    }

    impl Panel<'_> {
        #[target_feature(enable = "avx2")]
        fn add(&self, h: &mut [i32]) {
            // Up to the diagonal.
            for column in (0..self.first + PANEL).step_by(COLUMNS) {
                let columns: [&[u8]; COLUMNS] = std::array::from_fn(|c| self.row(column + c));
                for row in (0..PANEL).step_by(ROWS) {
                    let rows: [&[u8]; ROWS] = std::array::from_fn(|r| self.row(self.first + row + r));
                    let sums = products(rows, columns, self.rounds);
                    for (r, sums) in sums.iter().enumerate() {
                        // The padding of the last panel has no row in `h`.
                        let Some(line) = h.get_mut((row + r) * self.n..(row + r + 1) * self.n) else { continue };
                        line.iter_mut().skip(column).zip(sums).for_each(|(h, s)| *h += s);
                    }
                }
            }
        }

        #[inline(always)]
        fn row(&self, row: usize) -> &[u8] {
            &self.rows[row * self.stride..(row + 1) * self.stride]
        }
    }

    /// All sums of products of a row and a column.
    #[target_feature(enable = "avx2")]
    fn products(rows: [&[u8]; ROWS], columns: [&[u8]; COLUMNS], rounds: usize) -> [[i32; COLUMNS]; ROWS] {
        let (zero, ones) = (_mm256_setzero_si256(), _mm256_set1_epi16(1));
        let rows = rows.map(|r| r.as_chunks::<LANE>().0);
        let columns = columns.map(|c| c.as_chunks::<LANE>().0);
        let count = rows[0].len();
        let (rows, columns) = (rows.map(|r| &r[..count]), columns.map(|c| &c[..count]));
        let mut wide = [[zero; COLUMNS]; ROWS];
        for first in (0..count).step_by(rounds) {
            let mut short = [[zero; COLUMNS]; ROWS];
            for k in first..(first + rounds).min(count) {
                let b: [__m256i; COLUMNS] = std::array::from_fn(|c| bytemuck::cast(columns[c][k]));
                for (short, row) in short.iter_mut().zip(&rows) {
                    let a: __m256i = bytemuck::cast(row[k]);
                    for (sum, &b) in short.iter_mut().zip(&b) {
                        *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(a, b));
                    }
                }
            }
            for (wide, short) in wide.iter_mut().zip(&short) {
                for (wide, &short) in wide.iter_mut().zip(short) {
                    *wide = _mm256_add_epi32(*wide, _mm256_madd_epi16(short, ones));
                }
            }
        }
        wide.map(|[a, b, c, d]| {
            let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
            let halves: [[i32; COLUMNS]; 2] = bytemuck::cast(pairs);
            std::array::from_fn(|c| halves[0][c] + halves[1][c])
        })
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod none {
    pub enum Products {}

    impl Products {
        pub fn new(_n: usize, _largest: u64, _tile: usize) -> Option<Self> {
            None
        }

        pub fn add(&mut self, _x: &[f32], _wide: usize, _h: &mut [i32], _threads: bool) {
            match *self {}
        }
    }
}
