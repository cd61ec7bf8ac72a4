//! One row's problem as a quadratic or linear program for an interior-point code.

use clarabel::algebra::CscMatrix;
use clarabel::solver::{DefaultSettingsBuilder, DefaultSolver, IPSolver, SolverStatus, SupportedConeT};

use crate::error::{Error, Result};

/// Relative accuracy that is asked of the interior point.
const TOLERANCE: f64 = 1e-10;

/// min over w of constant - 2 b.w + w H w, lower <= w <= upper.
pub struct Row {
    /// n x n, symmetric.
    pub h: Vec<f64>,
    pub b: Vec<f64>,
    pub constant: f64,
    /// n; infinite where there is no bound.
    pub lower: Vec<f64>,
    pub upper: Vec<f64>,
}

impl Row {
    /// The objective at `w`.
    pub fn objective(&self, w: &[f64]) -> f64 {
        let n = w.len();
        let quadratic: f64 = w.iter().enumerate().map(|(i, a)| a * dot(&self.h[i * n..(i + 1) * n], w)).sum();
        self.constant - 2.0 * dot(&self.b, w) + quadratic
    }

    /// Largest |projected gradient| at `w`, in units of |b|'s largest entry: 0 at the optimum. METHOD section 4.
    pub fn kkt(&self, w: &[f64]) -> f64 {
        let n = w.len();
        let size = self.b.iter().fold(f64::MIN_POSITIVE, |m, b| m.max(b.abs()));
        let at_bound = |w: f64, bound: f64| (w - bound).abs() <= 1e-9 * bound.abs().max(1e-300);
        let residual = |i: usize| {
            let g = dot(&self.h[i * n..(i + 1) * n], w) - self.b[i];
            match (at_bound(w[i], self.lower[i]), at_bound(w[i], self.upper[i])) {
                (true, true) => 0.0,
                (true, false) => (-g).max(0.0),
                (false, true) => g.max(0.0),
                (false, false) => g.abs(),
            }
        };
        (0..n).map(residual).fold(0.0, f64::max) / size
    }

    /// The least objective.
    ///
    /// # Errors
    /// Work: the interior point did not converge.
    pub fn least(&self) -> Result<Least> {
        let n = self.b.len();
        let open: Vec<usize> = (0..n).filter(|&i| self.lower[i] < self.upper[i]).collect();
        if open.len() < n {
            return self.least_of(&open);
        }
        // The upper triangle by columns; scaled by the diagonal so that badly scaled inputs look alike.
        let unit: Vec<f64> =
            (0..n).map(|i| self.h[i * n + i].max(0.0).sqrt()).map(|d| if d > 0.0 { d } else { 1.0 }).collect();
        let (mut columns, mut rows, mut values) = (vec![0], vec![], vec![]);
        for j in 0..n {
            for i in 0..=j {
                rows.push(i);
                values.push(2.0 * self.h[i * n + j] / (unit[i] * unit[j]));
            }
            columns.push(rows.len());
        }
        let h = CscMatrix::new(n, n, columns, rows, values);
        let q: Vec<f64> = self.b.iter().zip(&unit).map(|(b, u)| -2.0 * b / u).collect();
        let mut limits = Limits::new(n);
        for (i, (u, (lower, upper))) in unit.iter().zip(self.lower.iter().zip(&self.upper)).enumerate() {
            limits.bound(i, lower * u, upper * u);
        }
        let (x, value) = limits.solve(&h, &q)?;
        let w = x.iter().zip(&unit).map(|(x, u)| x / u).collect();
        Ok(Least { w, objective: self.constant + value })
    }

    /// The same where all but the `open` weights are fixed, which leaves an interior point no interior.
    fn least_of(&self, open: &[usize]) -> Result<Least> {
        let n = self.b.len();
        let mut w = self.lower.clone();
        open.iter().for_each(|&i| w[i] = 0.0);
        let pick = |all: &[f64]| -> Vec<f64> { open.iter().map(|&i| all[i]).collect() };
        let rest: Vec<f64> = (0..n).map(|i| self.b[i] - dot(&self.h[i * n..(i + 1) * n], &w)).collect();
        let row = Row {
            h: open.iter().flat_map(|&i| pick(&self.h[i * n..(i + 1) * n])).collect(),
            b: pick(&rest),
            constant: self.objective(&w),
            lower: pick(&self.lower),
            upper: pick(&self.upper),
        };
        if open.is_empty() {
            return Ok(Least { w, objective: row.constant });
        }
        let found = row.least()?;
        open.iter().zip(&found.w).for_each(|(&i, v)| w[i] = *v);
        Ok(Least { w, objective: found.objective })
    }
}

/// What the interior point found.
pub struct Least {
    pub w: Vec<f64>,
    pub objective: f64,
}

/// How a linear fit measures its residuals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Sum of magnitudes.
    Absolute,
    /// The largest magnitude.
    Chebyshev,
}

impl Norm {
    /// min over w and c of the norm of (X w + c - t), lower <= w <= upper; c stays 0 without a bias. `x`: samples x n,
    /// by rows. Of the result, `w` has n values and, with a bias, c as the last one.
    ///
    /// # Errors
    /// Work: the interior point did not converge.
    pub fn least(self, x: &[f64], t: &[f64], lower: &[f64], upper: &[f64], bias: bool) -> Result<Least> {
        let (n, samples) = (lower.len(), t.len());
        let weights = n + usize::from(bias);
        // Variables: weights, then the magnitudes: one a sample, or a single one.
        let magnitudes = if self == Norm::Absolute { samples } else { 1 };
        let all = weights + magnitudes;
        let mut limits = Limits::new(all);
        for i in 0..n {
            limits.bound(i, lower[i], upper[i]);
        }
        for (s, (row, t)) in x.chunks_exact(n.max(1)).zip(t).enumerate() {
            let magnitude = weights + if self == Norm::Absolute { s } else { 0 };
            for sign in [1.0, -1.0] {
                // sign (x w + c - t) <= magnitude
                let mut entries: Vec<(usize, f64)> = row.iter().map(|x| sign * x).enumerate().collect();
                if bias {
                    entries.push((n, sign));
                }
                entries.push((magnitude, -1.0));
                limits.push(&entries, sign * t);
            }
        }
        let mut q = vec![0.0; all];
        q[weights..].fill(1.0);
        let (mut w, objective) = limits.solve(&CscMatrix::zeros((all, all)), &q)?;
        w.truncate(weights);
        Ok(Least { w, objective })
    }
}

/// Rows of A x <= limit.
struct Limits {
    variables: usize,
    entries: Vec<(usize, usize, f64)>,
    limit: Vec<f64>,
}

impl Limits {
    fn new(variables: usize) -> Self {
        Self { variables, entries: vec![], limit: vec![] }
    }

    fn push(&mut self, row: &[(usize, f64)], limit: f64) {
        let at = self.limit.len();
        self.entries.extend(row.iter().filter(|e| e.1 != 0.0).map(|&(j, v)| (j, at, v)));
        self.limit.push(limit);
    }

    fn bound(&mut self, i: usize, lower: f64, upper: f64) {
        if upper.is_finite() {
            self.push(&[(i, 1.0)], upper);
        }
        if lower.is_finite() {
            self.push(&[(i, -1.0)], -lower);
        }
    }

    /// min 1/2 x P x + q x: the optimum's place and value.
    fn solve(mut self, p: &CscMatrix<f64>, q: &[f64]) -> Result<(Vec<f64>, f64)> {
        self.entries.sort_by_key(|&(column, row, _)| (column, row));
        let mut columns = vec![0; self.variables + 1];
        self.entries.iter().for_each(|e| columns[e.0 + 1] += 1);
        (0..self.variables).for_each(|j| columns[j + 1] += columns[j]);
        let rows = self.entries.iter().map(|e| e.1).collect();
        let values = self.entries.iter().map(|e| e.2).collect();
        let count = self.limit.len();
        let a = CscMatrix::new(count, self.variables, columns, rows, values);
        let failed = |e: &dyn std::fmt::Display| Error::work("interior point", e.to_string());
        let settings = DefaultSettingsBuilder::default()
            .verbose(false)
            .tol_gap_rel(TOLERANCE)
            .tol_gap_abs(TOLERANCE)
            .tol_feas(TOLERANCE)
            .build()
            .map_err(|e| failed(&e))?;
        let cones = [SupportedConeT::NonnegativeConeT(count)];
        let mut solver = DefaultSolver::new(p, q, &a, &self.limit, &cones, settings).map_err(|e| failed(&e))?;
        solver.solve();
        match solver.solution.status {
            SolverStatus::Solved | SolverStatus::AlmostSolved => {
                Ok((solver.solution.x.clone(), solver.solution.obj_val))
            }
            other => Err(failed(&format!("ended as {other:?}"))),
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
