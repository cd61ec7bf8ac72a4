//! H of spike counts on the CPU: products of bytes, summed in integers, so exactly. Four times as many products an
//! instruction as in f32. x86-64 with AVX-512 VNNI or AVX2; elsewhere there is nothing here, and f32 blocks do it as
//! exactly.

/// Largest count: one operand of the byte product is signed.
pub(super) const MOST: u64 = 127;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use none::Products;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::Products;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_add_epi16, _mm256_add_epi32, _mm256_hadd_epi32, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_setzero_si256, _mm512_castsi512_si256, _mm512_dpbusd_epi32,
        _mm512_extracti64x4_epi64, _mm512_setzero_si512,
    };

    use rayon::prelude::*;

    use crate::compute::simd::vectorized;

    /// Bytes of the widest vector, to which rows are padded.
    const LANE: usize = 64;
    /// Columns of H that are summed in registers at a time.
    const COLUMNS: usize = 4;
    /// Rows of a panel: what stays in the innermost cache while the columns go by, a tile of 1024 samples being 12 KiB.
    const PANEL: usize = 12;

    /// Rows of H that are summed in registers: 16 sums and 5 operands of the 32 vectors there are, 12 sums and 5 operands
    /// of 16.
    const WIDE_ROWS: usize = 4;
    const ROWS: usize = 3;

    /// Instructions that multiply bytes.
    #[derive(Clone, Copy, PartialEq)]
    enum Way {
        /// AVX-512 VNNI: 64 products, summed by four in 32 bits.
        Wide,
        /// AVX2: 32 products, summed by two in 16 bits, which hold so many pairs.
        Narrow { rounds: usize },
    }

    /// Sum of x x^T over tiles of samples, for one group of a layer at a time.
    pub struct Products {
        n: usize,
        way: Way,
        /// Rows padded to whole panels x samples padded to whole vectors; padding is zero.
        x: Vec<u8>,
    }

    impl Products {
        /// For `n` inputs that count up to `largest`, at most `super::MOST`; `tile`: most samples at a time. None where
        /// the machine has no such instructions.
        pub fn new(n: usize, largest: u64, tile: usize) -> Option<Self> {
            Way::all(largest).next().map(|way| Self::by(way, n, tile))
        }

        fn by(way: Way, n: usize, tile: usize) -> Self {
            Products { n, way, x: vec![0; n.next_multiple_of(PANEL) * tile.next_multiple_of(LANE)] }
        }

        /// Adds the products of x, n x `wide` whole numbers from 0 to `largest`, to the lower half of `h`, n x n.
        /// Entries above it may change.
        pub fn add(&mut self, x: &[f32], wide: usize, h: &mut [i32], threads: bool) {
            let (n, stride) = (self.n, wide.next_multiple_of(LANE));
            let rows = &mut self.x[..n.next_multiple_of(PANEL) * stride];
            vectorized(|| rows.chunks_mut(stride).zip(x.chunks(wide)).for_each(|(to, from)| bytes(from, to)));
            rows[n * stride..].fill(0);
            let (rows, way) = (&*rows, self.way);
            let panel = |(p, h): (usize, &mut [i32])| {
                let panel = Panel { rows, stride, first: p * PANEL, n };
                // SAFETY: `Way::all` has found the features.
                match way {
                    Way::Wide => panel.add(h, |rows, columns| unsafe { wide_products(rows, columns) }),
                    Way::Narrow { rounds } => panel.add(h, |rows, columns| unsafe { products(rows, columns, rounds) }),
                }
            };
            match threads {
                true => h.par_chunks_mut(PANEL * n).enumerate().for_each(panel),
                false => h.chunks_mut(PANEL * n).enumerate().for_each(panel),
            }
        }
    }

    impl Way {
        /// What this machine has, best first.
        fn all(largest: u64) -> impl Iterator<Item = Way> {
            let wide =
                std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vnni");
            let most = (2 * largest * largest).max(1);
            let narrow = Way::Narrow { rounds: (i16::MAX as u64 / most).max(1) as usize };
            let has = [(wide, Way::Wide), (std::arch::is_x86_feature_detected!("avx2"), narrow)];
            has.into_iter().filter_map(|(has, way)| has.then_some(way))
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
        first: usize,
        n: usize,
    }

    impl Panel<'_> {
        /// `products`: of R rows, R a divisor of `PANEL`, and as many columns as are summed at a time.
        #[inline(always)]
        fn add<const R: usize>(
            &self,
            h: &mut [i32],
            products: impl Fn([&[u8]; R], [&[u8]; COLUMNS]) -> [[i32; COLUMNS]; R],
        ) {
            // Up to the diagonal.
            for column in (0..self.first + PANEL).step_by(COLUMNS) {
                let columns: [&[u8]; COLUMNS] = std::array::from_fn(|c| self.row(column + c));
                for row in (0..PANEL).step_by(R) {
                    let sums = products(std::array::from_fn(|r| self.row(self.first + row + r)), columns);
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
    #[target_feature(enable = "avx512f,avx512vnni,avx2")]
    fn wide_products(rows: [&[u8]; WIDE_ROWS], columns: [&[u8]; COLUMNS]) -> [[i32; COLUMNS]; WIDE_ROWS] {
        let rows = rows.map(|r| r.as_chunks::<64>().0);
        let columns = columns.map(|c| c.as_chunks::<64>().0);
        let count = rows[0].len();
        let (rows, columns) = (rows.map(|r| &r[..count]), columns.map(|c| &c[..count]));
        let mut sums = [[_mm512_setzero_si512(); COLUMNS]; WIDE_ROWS];
        for k in 0..count {
            let mut b = [_mm512_setzero_si512(); COLUMNS];
            for (b, column) in b.iter_mut().zip(&columns) {
                *b = bytemuck::cast(column[k]);
            }
            for (sums, row) in sums.iter_mut().zip(&rows) {
                let a: __m512i = bytemuck::cast(row[k]);
                for (sum, &b) in sums.iter_mut().zip(&b) {
                    *sum = _mm512_dpbusd_epi32(*sum, a, b);
                }
            }
        }
        let mut totals = [[0; COLUMNS]; WIDE_ROWS];
        for (totals, sums) in totals.iter_mut().zip(&sums) {
            let mut halves = [_mm256_setzero_si256(); COLUMNS];
            for (half, &s) in halves.iter_mut().zip(sums) {
                *half = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64::<1>(s));
            }
            *totals = total(halves);
        }
        totals
    }

    /// The same.
    #[target_feature(enable = "avx2")]
    fn products(rows: [&[u8]; ROWS], columns: [&[u8]; COLUMNS], rounds: usize) -> [[i32; COLUMNS]; ROWS] {
        let (zero, ones) = (_mm256_setzero_si256(), _mm256_set1_epi16(1));
        let rows = rows.map(|r| r.as_chunks::<32>().0);
        let columns = columns.map(|c| c.as_chunks::<32>().0);
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
        wide.map(|sums| total(sums))
    }

    /// Sums of the lanes.
    #[target_feature(enable = "avx2")]
    fn total([a, b, c, d]: [__m256i; COLUMNS]) -> [i32; COLUMNS] {
        let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        let halves: [[i32; COLUMNS]; 2] = bytemuck::cast(pairs);
        std::array::from_fn(|c| halves[0][c] + halves[1][c])
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Every way this machine has gives the products of plain integers, at sizes around panels and vectors.
        #[test]
        fn all_ways_are_exact() {
            for (n, wide, largest) in [(1, 1, 1), (11, 63, 127), (12, 64, 4), (13, 65, 127), (50, 200, 16)] {
                let x: Vec<f32> = (0..n * wide).map(|i| ((i * 7919 + i / 5) as u64 % (largest + 1)) as f32).collect();
                for way in Way::all(largest) {
                    let mut h = vec![3; n * n];
                    // Poisoned: what an earlier tile has left must not count.
                    let mut products = Products::by(way, n, wide);
                    products.x.fill(99);
                    products.add(&x, wide, &mut h, false);
                    for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                        let sum: f32 = (0..wide).map(|s| x[i * wide + s] * x[j * wide + s]).sum();
                        assert_eq!(h[i * n + j], 3 + sum as i32, "({i}, {j}) of {n} x {n}, {wide} samples");
                    }
                }
            }
        }
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
