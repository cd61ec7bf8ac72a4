//! The best values for given codes: P^T H P v = P^T b, in a box by coordinate descent.

use crate::compute::solver::dense::{self, Cholesky};

/// Most sweeps of the coordinate descent in a box; K is small.
const SWEEPS: usize = 200;

/// One row: min over v of s^2 v A v^T - 2 s v c^T, A = P^T H P and c = P^T b, within the box of every weight.
pub(super) struct Row<'a> {
    pub n: usize,
    /// n x n.
    pub h: &'a [f64],
    pub b: &'a [f64],
    pub scale: f64,
    /// n each.
    pub bounds: Option<(&'a [f64], &'a [f64])>,
}

impl Row<'_> {
    /// Moves the `levels` (K, rising, in and out) to the best values for the weights that have them, `q` (n) and `hq` (H
    /// q) with them. A level that no weight has goes where one weight alone would gain the most.
    pub fn refit(&self, levels: &mut [f64], q: &mut [f64], hq: &mut [f64]) {
        let n = self.n;
        let codes: Vec<usize> = q.iter().map(|v| nearest(levels, *v)).collect();
        let mut used: Vec<usize> = codes.clone();
        used.sort_unstable();
        used.dedup();
        let (k, mut place) = (used.len(), vec![0; levels.len()]);
        used.iter().enumerate().for_each(|(at, code)| place[*code] = at);
        // rows of P^T H, then A and c
        let mut sums = vec![0.0; k * n];
        let mut c = vec![0.0; k];
        for (i, code) in codes.iter().map(|code| place[*code]).enumerate() {
            dense::axpy(&mut sums[code * n..(code + 1) * n], 1.0, &self.h[i * n..(i + 1) * n]);
            c[code] += self.b[i] / self.scale;
        }
        let mut a = vec![0.0; k * k];
        for (code, sums) in sums.chunks_exact(n).enumerate() {
            codes.iter().zip(sums).for_each(|(other, v)| a[code * k + place[*other]] += v);
        }
        let old: Vec<f64> = used.iter().map(|code| levels[*code]).collect();
        let Some(v) = self.best(&a, &c, &old, &codes, &place) else { return };
        used.iter().zip(&v).for_each(|(code, v)| levels[*code] = *v);
        q.iter_mut().zip(&codes).for_each(|(q, code)| *q = levels[*code]);
        hq.fill(0.0);
        v.iter().zip(sums.chunks_exact(n)).for_each(|(v, sums)| dense::axpy(hq, *v, sums));
        let unused: Vec<usize> = (0..levels.len()).filter(|code| used.binary_search(code).is_err()).collect();
        self.place_unused(levels, &unused, q, hq);
        levels.sort_by(f64::total_cmp);
    }

    /// The best values of the used codes; `None` if rounding spoils them.
    fn best(&self, a: &[f64], c: &[f64], old: &[f64], codes: &[usize], place: &[usize]) -> Option<Vec<f64>> {
        let k = c.len();
        let mut v = c.to_vec();
        Cholesky::new(a.to_vec(), k, faer::Par::Seq)?.solve(&mut v, 1, faer::Par::Seq);
        let (mut low, mut high) = (vec![f64::NEG_INFINITY; k], vec![f64::INFINITY; k]);
        if let Some((lower, upper)) = self.bounds {
            for (i, code) in codes.iter().map(|code| place[*code]).enumerate() {
                low[code] = low[code].max(lower[i] / self.scale);
                high[code] = high[code].min(upper[i] / self.scale);
            }
            if (0..k).any(|at| v[at] < low[at] || v[at] > high[at]) {
                // a level outside by a hair stays where it is
                (0..k).for_each(|at| (low[at], high[at]) = (low[at].min(old[at]), high[at].max(old[at])));
                v = old.to_vec();
                for _ in 0..SWEEPS {
                    let mut moved = 0.0f64;
                    for at in 0..k {
                        let slope = dense::dot(&a[at * k..(at + 1) * k], &v) - c[at];
                        let to = (v[at] - slope / a[at * k + at]).max(low[at]).min(high[at]);
                        moved = moved.max((to - v[at]).abs());
                        v[at] = to;
                    }
                    if moved < 1e-13 {
                        break;
                    }
                }
            }
        }
        let cost = |v: &[f64]| -> f64 {
            (0..k).map(|at| v[at] * (dense::dot(&a[at * k..(at + 1) * k], v) - 2.0 * c[at])).sum()
        };
        (v.iter().all(|v| v.is_finite()) && cost(&v) <= cost(old)).then_some(v)
    }

    fn place_unused(&self, levels: &mut [f64], unused: &[usize], q: &[f64], hq: &[f64]) {
        if unused.is_empty() {
            return;
        }
        let wanted = |i: usize| {
            let curvature = self.h[i * self.n + i];
            let mut to = q[i] - (hq[i] - self.b[i] / self.scale) / curvature;
            if let Some((lower, upper)) = self.bounds {
                to = to.max(lower[i] / self.scale).min(upper[i] / self.scale);
            }
            (curvature * (to - q[i]).powi(2), to)
        };
        let mut all: Vec<(f64, f64)> = (0..self.n).map(wanted).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.total_cmp(&b.1)));
        unused.iter().zip(all).for_each(|(code, (_, to))| levels[*code] = to);
    }
}

/// The best `values` (K) of the codes that are used, for one row in units of its weights: P^T H P v = P^T b. `codes`: n,
/// none for weights that are zero. Values that no weight has stay, and all where rounding spoils them.
pub(in crate::fit) fn row_values(h: &[f64], b: &[f64], codes: &[Option<usize>], values: &mut [f64]) {
    let n = b.len();
    let mut used: Vec<usize> = codes.iter().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    let k = used.len();
    let mut place = vec![0; values.len()];
    used.iter().enumerate().for_each(|(at, code)| place[*code] = at);
    let (mut a, mut c) = (vec![0.0; k * k], vec![0.0; k]);
    for (i, code) in codes.iter().enumerate().filter_map(|(i, code)| code.map(|code| (i, place[code]))) {
        c[code] += b[i];
        for (other, v) in codes.iter().zip(&h[i * n..(i + 1) * n]) {
            if let Some(other) = other {
                a[code * k + place[*other]] += v;
            }
        }
    }
    let mut v = c;
    let Some(factor) = Cholesky::new(a, k, faer::Par::Seq) else { return };
    factor.solve(&mut v, 1, faer::Par::Seq);
    if v.iter().all(|v| v.is_finite()) {
        used.iter().zip(v).for_each(|(code, v)| values[*code] = v);
    }
}

/// The position of the level nearest to `v`, which is one of them but for rounding.
pub(in crate::fit) fn nearest(levels: &[f64], v: f64) -> usize {
    let above = levels.partition_point(|level| *level < v);
    match above {
        0 => 0,
        at if at == levels.len() => at - 1,
        at if v - levels[at - 1] <= levels[at] - v => at - 1,
        at => at,
    }
}
