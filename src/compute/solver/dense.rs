//! Dense linear algebra on flat row-major slices, by faer: products, Cholesky factors, solves, inverses.
//!
//! `m x n` below means m rows of n entries, row after row.

use faer::linalg::cholesky::llt;
use faer::linalg::{matmul, triangular_solve};
use faer::{Accum, MatMut, MatRef, Par};

use rayon::prelude::*;

use super::Real;
use crate::compute::simd::vectorized;

/// Products below this many multiplications are not worth a second core.
const PARALLEL_FROM: usize = 1 << 21;

/// All cores for `work` multiplications, or this one alone.
pub fn par(work: usize) -> Par {
    if work < PARALLEL_FROM { Par::Seq } else { Par::rayon(0) }
}

/// out (m x p) = a (m x n) b (n x p), or out += with `add`.
pub fn product<T: Real>(out: &mut [T], add: bool, a: &[T], b: &[T], (m, n, p): (usize, usize, usize), par: Par) {
    matmul::matmul(
        MatMut::from_row_major_slice_mut(out, m, p),
        if add { Accum::Add } else { Accum::Replace },
        MatRef::from_row_major_slice(a, m, n),
        MatRef::from_row_major_slice(b, n, p),
        T::of(1.0),
        par,
    );
}

/// out = a b with b n x n, of those rows of a and out (n entries each) that are `wanted`; the others stay.
pub fn product_of(out: &mut [f64], a: &[f64], b: &[f64], n: usize, wanted: &[bool]) {
    let count = wanted.iter().filter(|wanted| **wanted).count();
    if count == wanted.len() {
        return product(out, false, a, b, (count, n, n), par(count * n * n));
    }
    let rows = || wanted.iter().enumerate().filter(|(_, wanted)| **wanted).map(|(o, _)| o * n..(o + 1) * n);
    let gathered: Vec<f64> = rows().flat_map(|at| a[at].iter().copied()).collect();
    let mut found = vec![0.0; count * n];
    if !found.is_empty() {
        product(&mut found, false, &gathered, b, (count, n, n), par(count * n * n));
    }
    rows().zip(found.chunks_exact(n.max(1))).for_each(|(at, found)| out[at].copy_from_slice(found));
}

/// Rows and columns of a tile that fits a core's cache.
const TILE: usize = 64;

/// The transpose of a (n x n).
pub fn transposed(a: &[f64], n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * n];
    out.par_chunks_mut(TILE * n.max(1)).enumerate().for_each(|(band, rows)| {
        for from in (0..n).step_by(TILE) {
            for (j, row) in rows.chunks_exact_mut(n).enumerate() {
                let (column, end) = (band * TILE + j, n.min(from + TILE));
                row[from..end].iter_mut().enumerate().for_each(|(i, v)| *v = a[(from + i) * n + column]);
            }
        }
    });
    out
}

/// out (m x p) += alpha a^T b with a (s x m) and b (s x p): sums over samples.
pub fn add_outer(out: &mut [f64], alpha: f64, a: &[f64], b: &[f64], (s, m, p): (usize, usize, usize)) {
    matmul::matmul(
        MatMut::from_row_major_slice_mut(out, m, p),
        Accum::Add,
        MatRef::from_row_major_slice(a, s, m).transpose(),
        MatRef::from_row_major_slice(b, s, p),
        alpha,
        par(s * m * p),
    );
}

/// Lower factor L of a symmetric positive definite matrix, a = L L^T.
///
/// Held by columns: column j of L lies in `data[j * n + j .. (j + 1) * n]`; what is above the diagonal is garbage.
#[derive(Debug, Clone)]
pub struct Cholesky {
    pub data: Vec<f64>,
    pub n: usize,
}

impl Cholesky {
    /// Factors `a` (n x n, symmetric), consuming it. `None` if a pivot is not positive.
    pub fn new(mut a: Vec<f64>, n: usize, par: Par) -> Option<Self> {
        let scratch = llt::factor::cholesky_in_place_scratch::<f64>(n, par, Default::default());
        let mut memory = faer::dyn_stack::MemBuffer::new(scratch);
        llt::factor::cholesky_in_place(
            MatMut::from_column_major_slice_mut(&mut a, n, n),
            Default::default(),
            par,
            faer::dyn_stack::MemStack::new(&mut memory),
            Default::default(),
        )
        .ok()?;
        Some(Self { data: a, n })
    }

    fn lower(&self) -> MatRef<'_, f64> {
        MatRef::from_column_major_slice(&self.data, self.n, self.n)
    }

    /// L_jj.
    pub fn diagonal(&self, j: usize) -> f64 {
        self.data[j * self.n + j]
    }

    /// x (rows x n) = x a^-1, in place.
    pub fn solve(&self, x: &mut [f64], rows: usize, par: Par) {
        let mut x = MatMut::from_column_major_slice_mut(x, self.n, rows);
        triangular_solve::solve_lower_triangular_in_place(self.lower(), x.as_mut(), par);
        triangular_solve::solve_upper_triangular_in_place(self.lower().transpose(), x, par);
    }

    /// a^-1 (n x n), both triangles.
    pub fn inverse(&self, par: Par) -> Vec<f64> {
        let n = self.n;
        let mut out = vec![0.0; n * n];
        let mut memory = faer::dyn_stack::MemBuffer::new(llt::inverse::inverse_scratch::<f64>(n, par));
        llt::inverse::inverse(
            MatMut::from_column_major_slice_mut(&mut out, n, n),
            self.lower(),
            par,
            faer::dyn_stack::MemStack::new(&mut memory),
        );
        // tile by tile: one of the two is read or written across its rows
        for tile in (0..n).step_by(TILE) {
            for i in 0..n {
                for j in tile..i.min(tile + TILE) {
                    out[i * n + j] = out[j * n + i];
                }
            }
        }
        out
    }
}

/// sum a_i b_i.
#[inline]
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    // Four partial sums, so that the compiler may use vector lanes and long sums lose less.
    let mut parts = [T::default(); 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: T = a4.remainder().iter().zip(b4.remainder()).map(|(x, y)| *x * *y).sum();
    for (x, y) in a4.zip(b4) {
        for i in 0..4 {
            parts[i] += x[i] * y[i];
        }
    }
    (parts[0] + parts[1]) + (parts[2] + parts[3]) + tail
}

/// y += alpha x.
///
/// In a function of its own, whose slices are known to lie apart: inlined into the loop over columns, whether vectors are
/// used came to depend on where in memory the slices lie.
#[inline]
pub fn axpy<T: Real>(y: &mut [T], alpha: T, x: &[T]) {
    vectorized(
        #[inline(always)]
        || {
            for (y, x) in y.iter_mut().zip(x) {
                *y += alpha * *x;
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole tiles, parts of them, and less than one.
    #[test]
    fn transposes_of_any_size() {
        for n in [0, 1, 3, 64, 65, 130] {
            let a: Vec<f64> = (0..n * n).map(|at| at as f64).collect();
            let t = transposed(&a, n);
            assert!((0..n * n).all(|at| t[at] == a[at % n * n + at / n]), "{n}");
        }
    }

    #[test]
    fn inverses_are_symmetric() {
        let n = 70;
        let entry = |at: usize| if at / n == at % n { n as f64 } else { 1.0 / (1 + at / n + at % n) as f64 };
        let a: Vec<f64> = (0..n * n).map(entry).collect();
        let inverse = Cholesky::new(a.clone(), n, Par::Seq).unwrap().inverse(Par::Seq);
        assert!((0..n * n).all(|at| inverse[at] == inverse[at % n * n + at / n]));
        let mut one = vec![0.0; n * n];
        product(&mut one, false, &a, &inverse, (n, n, n), Par::Seq);
        assert!((0..n * n).all(|at| (one[at] - f64::from(u8::from(at / n == at % n))).abs() < 1e-12));
    }

    #[test]
    fn products_of_some_rows() {
        let (n, m) = (5, 4);
        let a: Vec<f64> = (0..m * n).map(|at| (at * at % 7) as f64).collect();
        let b: Vec<f64> = (0..n * n).map(|at| (at * 3 % 11) as f64).collect();
        let mut all = vec![0.0; m * n];
        product(&mut all, false, &a, &b, (m, n, n), Par::Seq);
        for wanted in [[true; 4], [false; 4], [false, true, true, false], [true, false, false, true]] {
            let mut out = vec![-1.0; m * n];
            product_of(&mut out, &a, &b, n, &wanted);
            let expected = |at: usize| if wanted[at / n] { all[at] } else { -1.0 };
            assert!((0..m * n).all(|at| out[at] == expected(at)), "{wanted:?}");
        }
    }
}
