//! One consumer while nodes come and go: H^-1 and W over the inputs that remain.

use std::sync::Arc;

use super::singular;
use crate::compute::Device;
use crate::compute::removal::Fitted;
use crate::compute::solver::dense::{self, Cholesky};
use crate::error::Result;
use crate::fit::problem::Problem;
use crate::fit::system::System;

#[derive(Debug, Clone)]
pub(super) struct State {
    system: Arc<System>,
    /// Per node: its inputs in the system's order. Dead inputs are not among them: they cost nothing.
    columns: Arc<Vec<Vec<usize>>>,
    /// What dead inputs get, m x n of the problem, and inputs (of the problem) that are gone.
    given: Arc<Vec<f64>>,
    dead: Arc<Vec<bool>>,
    /// Inputs of the system that remain, and where each stands among them.
    alive: Vec<usize>,
    place: Vec<usize>,
    /// alive x alive.
    inverse: Vec<f64>,
    /// m x alive.
    w: Vec<f64>,
}

const GONE: usize = usize::MAX;

/// A node put back: what its return gains, and what it changes.
pub(super) struct Return {
    /// [H^-1]_SS H_SP, alive x p.
    k: Vec<f64>,
    /// Of the Schur complement D = H_PP - H_PS [H^-1]_SS H_SP.
    d: Cholesky,
    /// The gradient that the node's inputs see, B_P - W H_SP, m x p, and the same times D^-1: their weights.
    w: Vec<f64>,
    /// Tr(C D^-1 C^T).
    pub gain: f64,
}

impl State {
    /// `columns`: per node, inputs of the problem.
    pub fn new(system: Arc<System>, problem: &Problem, columns: &[Vec<usize>]) -> Self {
        let mut place = vec![GONE; problem.n];
        system.live.iter().enumerate().for_each(|(k, &i)| place[i] = k);
        let dead = Arc::new(place.iter().map(|&k| k == GONE).collect());
        let columns: Vec<Vec<usize>> =
            columns.iter().map(|c| c.iter().map(|&i| place[i]).filter(|&k| k != GONE).collect()).collect();
        let (alive, place) = ((0..system.n).collect(), (0..system.n).collect());
        let inverse = inverse(&system, &system.factor, &(0..system.n).collect::<Vec<_>>());
        let w = system.free.clone();
        let given = problem.prior.clone().unwrap_or_else(|| vec![0.0; problem.m * problem.n]);
        Self { system, columns: Arc::new(columns), given: Arc::new(given), dead, alive, place, inverse, w }
    }

    pub fn m(&self) -> usize {
        self.system.m
    }

    /// Inputs that remain.
    pub fn inputs(&self) -> usize {
        self.alive.len()
    }

    /// Inputs of the node that has most.
    pub fn largest(&self) -> usize {
        self.columns.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// H^-1 and W on `dev`, scaled so that H has a unit diagonal; groups are nodes.
    pub fn fitted(&self, dev: &Device) -> Result<Fitted> {
        let (n, m) = (self.alive.len(), self.m());
        let groups = (0..self.columns.len()).map(|node| self.places(node)).collect();
        let unit: Vec<f64> = self.alive.iter().map(|&k| self.system.unit[k]).collect();
        Fitted::upload(dev, (n, m), groups, |i, row| {
            let (inverse, weights) = row.split_at_mut(n);
            let line = self.inverse[i * n..(i + 1) * n].iter().zip(&unit);
            inverse.iter_mut().zip(line).for_each(|(to, (v, u))| *to = (v * u * unit[i]) as f32);
            weights.iter_mut().enumerate().for_each(|(o, to)| *to = (self.w[o * n + i] * unit[i]) as f32);
        })
    }

    /// Where the node's inputs stand among those that remain.
    fn places(&self, node: usize) -> Vec<usize> {
        self.columns[node].iter().map(|&k| self.place[k]).filter(|&k| k != GONE).collect()
    }

    /// m x places of a matrix with alive columns.
    fn gather(&self, all: &[f64], places: &[usize]) -> Vec<f64> {
        if all.is_empty() {
            return vec![];
        }
        all.chunks_exact(self.alive.len()).flat_map(|row| places.iter().map(|&k| row[k])).collect()
    }

    /// [H^-1]_PP.
    fn block(&self, places: &[usize]) -> Vec<f64> {
        let n = self.alive.len();
        places.iter().flat_map(|&i| places.iter().map(move |&j| self.inverse[i * n + j])).collect()
    }

    /// tr( W_P ([H^-1]_PP)^-1 W_P^T ).
    pub fn cost(&self, node: usize) -> Result<f64> {
        let places = self.places(node);
        quadratic(self.block(&places), &self.gather(&self.w, &places), places.len())
    }

    /// Removes the node's inputs: rank-p updates of H^-1 and W.
    pub fn remove(&mut self, node: usize) -> Result<()> {
        let places = self.places(node);
        let (n, p, m) = (self.alive.len(), places.len(), self.m());
        if p == 0 {
            return Ok(());
        }
        let factor = Cholesky::new(self.block(&places), p, dense::par(0)).ok_or_else(singular)?;
        // n x p, then p x n times A^-1
        let mut left = self.gather(&self.inverse, &places);
        let mut right = left.clone();
        factor.solve(&mut right, n, dense::par(0));
        let right: Vec<f64> = (0..p).flat_map(|k| right.iter().skip(k).step_by(p).copied()).collect();
        let mut cut = self.gather(&self.w, &places);
        left.iter_mut().chain(&mut cut).for_each(|v| *v = -*v);
        dense::product(&mut self.w, true, &cut, &right, (m, p, n), dense::par(m * n * p));
        dense::product(&mut self.inverse, true, &left, &right, (n, p, n), dense::par(n * n * p));
        self.close(&places);
        Ok(())
    }

    /// Closes the gaps that inputs at `places` leave.
    fn close(&mut self, places: &[usize]) {
        let n = self.alive.len();
        let mut stays = vec![true; n];
        places.iter().for_each(|&k| stays[k] = false);
        // runs of columns that stay
        let mut runs: Vec<std::ops::Range<usize>> = vec![];
        for k in (0..n).filter(|&k| stays[k]) {
            match runs.last_mut() {
                Some(run) if run.end == k => run.end += 1,
                _ => runs.push(k..k + 1),
            }
        }
        let close = |all: &mut Vec<f64>, keep: &dyn Fn(usize) -> bool| {
            let mut to = 0;
            for row in (0..all.len() / n).filter(|&r| keep(r)) {
                for run in &runs {
                    all.copy_within(row * n + run.start..row * n + run.end, to);
                    to += run.len();
                }
            }
            all.truncate(to);
        };
        close(&mut self.inverse, &|row| stays[row]);
        close(&mut self.w, &|_| true);
        let mut at = 0;
        self.alive.retain(|_| {
            at += 1;
            stays[at - 1]
        });
        self.place.fill(GONE);
        self.alive.iter().enumerate().for_each(|(k, &i)| self.place[i] = k);
    }

    /// What the return of `node`, which is gone, would bring. `None` if the consumer does not read it.
    pub fn returning(&self, node: usize) -> Result<Option<Return>> {
        let columns = &self.columns[node];
        let (n, p, m, all) = (self.alive.len(), columns.len(), self.m(), self.system.n);
        if p == 0 {
            return Ok(None);
        }
        let h = |i: usize, j: usize| self.system.h[i * all + j];
        let hp: Vec<f64> = self.alive.iter().flat_map(|&i| columns.iter().map(move |&j| h(i, j))).collect();
        let mut k = vec![0.0; n * p];
        dense::product(&mut k, false, &self.inverse, &hp, (n, n, p), dense::par(n * n * p));
        let mut schur: Vec<f64> = columns.iter().flat_map(|&i| columns.iter().map(move |&j| h(i, j))).collect();
        for (i, row) in hp.chunks_exact(p).enumerate() {
            for (a, &ha) in row.iter().enumerate() {
                for b in 0..p {
                    schur[a * p + b] -= ha * k[i * p + b];
                }
            }
        }
        let d = Cholesky::new(schur, p, dense::par(0)).ok_or_else(singular)?;
        let mut c = vec![0.0; m * p];
        dense::product(&mut c, false, &self.w, &hp, (m, n, p), dense::par(m * n * p));
        for (row, c) in c.chunks_exact_mut(p).enumerate() {
            c.iter_mut().zip(columns).for_each(|(c, &j)| *c = self.system.b[row * all + j] - *c);
        }
        let mut w = c.clone();
        d.solve(&mut w, m, dense::par(0));
        let gain = dense::dot(&w, &c);
        Ok(Some(Return { k, d, w, gain }))
    }

    /// What removing `node` would cost after that return.
    pub fn cost_after(&self, back: Option<&Return>, node: usize) -> Result<f64> {
        let Some(back) = back else { return self.cost(node) };
        let places = self.places(node);
        let (q, p) = (places.len(), back.d.n);
        if q == 0 {
            return Ok(0.0);
        }
        let ks: Vec<f64> = places.iter().flat_map(|&i| back.k[i * p..(i + 1) * p].iter().copied()).collect();
        let mut kd = ks.clone();
        back.d.solve(&mut kd, q, dense::par(0));
        let mut block = self.block(&places);
        let mut w = self.gather(&self.w, &places);
        for i in 0..q {
            let (ks, kd) = (&ks[i * p..(i + 1) * p], &kd);
            for j in 0..q {
                block[i * q + j] += dense::dot(ks, &kd[j * p..(j + 1) * p]);
            }
            for (row, wp) in back.w.chunks_exact(p).enumerate() {
                w[row * q + i] -= dense::dot(wp, ks);
            }
        }
        quadratic(block, &w, q)
    }

    /// Puts `node` back: H^-1 and W grow by bordering.
    pub fn restore(&mut self, node: usize, back: &Return) {
        let (n, p, m) = (self.alive.len(), back.d.n, self.m());
        let mut kd = back.k.clone();
        back.d.solve(&mut kd, n, dense::par(0));
        let inverse_d = back.d.inverse(dense::par(0));
        let kt: Vec<f64> = (0..p).flat_map(|a| back.k.iter().skip(a).step_by(p).copied()).collect();
        dense::product(&mut self.inverse, true, &kd, &kt, (n, p, n), dense::par(n * n * p));
        let minus: Vec<f64> = back.w.iter().map(|v| -v).collect();
        dense::product(&mut self.w, true, &minus, &kt, (m, p, n), dense::par(m * n * p));
        let wide = |all: &[f64], rows: usize, border: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            let mut out = Vec::with_capacity(rows * (n + p));
            for row in 0..rows {
                out.extend_from_slice(&all[row * n..(row + 1) * n]);
                out.extend((0..p).map(|a| border(row, a)));
            }
            out
        };
        self.w = wide(&self.w, m, &|row, a| back.w[row * p + a]);
        self.inverse = wide(&self.inverse, n, &|row, a| -kd[row * p + a]);
        for a in 0..p {
            self.inverse.extend((0..n).map(|i| -kd[i * p + a]));
            self.inverse.extend_from_slice(&inverse_d[a * p..(a + 1) * p]);
        }
        for (a, &k) in self.columns[node].iter().enumerate() {
            self.alive.push(k);
            self.place[k] = n + a;
        }
    }

    /// Takes the node's inputs out and leaves the others as they are, for a `refit` to come.
    pub fn forget(&mut self, node: usize) {
        for k in self.columns[node].iter().copied() {
            self.place[k] = GONE;
        }
        self.alive.retain(|&k| self.place[k] != GONE);
    }

    /// H^-1 and W of the inputs that remain, from H and B.
    pub fn refit(&mut self) -> Result<()> {
        self.alive.sort_unstable();
        self.alive.iter().enumerate().for_each(|(k, &i)| self.place[i] = k);
        let (n, m, s) = (self.alive.len(), self.m(), &self.system);
        if n == 0 {
            (self.inverse, self.w) = (vec![], vec![]);
            return Ok(());
        }
        let a: Vec<f64> = self
            .alive
            .iter()
            .flat_map(|&i| self.alive.iter().map(move |&j| s.h[i * s.n + j] / (s.unit[i] * s.unit[j])))
            .collect();
        let factor = Cholesky::new(a, n, dense::par(n * n * n / 3)).ok_or_else(singular)?;
        self.inverse = inverse(s, &factor, &self.alive);
        self.w = (0..m).flat_map(|row| self.alive.iter().map(move |&k| s.b[row * s.n + k] / s.unit[k])).collect();
        factor.solve(&mut self.w, m, dense::par(m * n * n));
        self.w.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(&self.alive).for_each(|(w, &k)| *w /= s.unit[k]));
        Ok(())
    }

    /// What the objective rose by: tr( (W - W*) H (W - W*)^T ).
    pub fn excess(&self) -> f64 {
        let (n, m) = (self.system.n, self.m());
        if n == 0 {
            return 0.0;
        }
        let mut d: Vec<f64> = self.system.free.iter().map(|w| -w).collect();
        for (at, w) in self.w.iter().enumerate() {
            d[at / self.alive.len() * n + self.alive[at % self.alive.len()]] += w;
        }
        let mut hd = vec![0.0; m * n];
        dense::product(&mut hd, false, &d, &self.system.h, (m, n, n), dense::par(m * n * n));
        dense::dot(&d, &hd).max(0.0)
    }

    /// Sum over rows of what they have to explain.
    pub fn scale(&self) -> f64 {
        self.system.targets().iter().sum()
    }

    /// m x n of the problem; dead inputs of nodes that remain get the prior.
    pub fn weights(&self) -> Vec<f64> {
        let n = self.dead.len();
        let mut all = self.given.to_vec();
        for (at, w) in all.iter_mut().enumerate() {
            *w *= f64::from(u8::from(self.dead[at % n]));
        }
        for (at, w) in self.w.iter().enumerate() {
            let k = self.alive[at % self.alive.len()];
            all[at / self.alive.len() * n + self.system.live[k]] = *w;
        }
        all
    }

    /// Sum of squares of the node's weights.
    pub fn magnitude(&self, node: usize) -> f64 {
        self.gather(&self.w, &self.places(node)).iter().map(|w| w * w).sum()
    }
}

/// H^-1 over `alive` from the factor of its unit-diagonal form.
fn inverse(system: &System, factor: &Cholesky, alive: &[usize]) -> Vec<f64> {
    let n = alive.len();
    if n == 0 {
        return vec![];
    }
    let mut all = factor.inverse(dense::par(n * n * n / 3));
    for (row, &i) in all.chunks_exact_mut(n).zip(alive) {
        row.iter_mut().zip(alive).for_each(|(v, &j)| *v /= system.unit[i] * system.unit[j]);
    }
    all
}

/// tr( W A^-1 W^T ) for A (p x p) and W (rows x p).
fn quadratic(a: Vec<f64>, w: &[f64], p: usize) -> Result<f64> {
    match p {
        0 => Ok(0.0),
        1 if a[0] > 0.0 => Ok(dense::dot(w, w) / a[0]),
        1 => Err(singular()),
        _ => {
            let factor = Cholesky::new(a, p, dense::par(0)).ok_or_else(singular)?;
            let mut x = w.to_vec();
            factor.solve(&mut x, w.len() / p, dense::par(0));
            Ok(dense::dot(&x, w).max(0.0))
        }
    }
}
