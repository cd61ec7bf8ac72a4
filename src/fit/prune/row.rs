//! One row of a layer problem while its synapses go, one by one.

use faer::Par;

use super::singular;
use crate::compute::solver::dense::{self, Cholesky};
use crate::error::Result;
use crate::fit::system::System;

/// Removals whose update of H^-1 is put off, so that it becomes a matrix product.
const BLOCK: usize = 32;
/// Rows of more inputs are not searched for swaps, which take as long as the removals and gain little.
pub(super) const MOST_SWAPPED: usize = 1200;
/// A swap must gain this share of what the row explains.
const GAIN: f64 = 1e-10;
/// Rounds over all inputs that are gone.
const ROUNDS: usize = 4;

/// One removal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Of the problem.
    pub input: usize,
    /// By which the row's objective rises, or the score that it is chosen by.
    pub cost: f64,
}

/// A row's removals in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace {
    pub steps: Vec<Step>,
    /// So many of them its limits ask for.
    pub must: usize,
}

/// How many inputs a row still has, and how many it may.
pub(super) struct Left {
    of: usize,
    keep: usize,
    runs: Vec<usize>,
    /// Runs that have more than `keep`.
    over: usize,
    all: usize,
    most: usize,
}

impl Left {
    pub fn new(n: usize, runs: Option<(usize, usize)>, most: Option<usize>) -> Self {
        let (keep, of) = runs.unwrap_or((n, n.max(1)));
        let runs: Vec<usize> = (0..n.div_ceil(of)).map(|run| of.min(n - run * of)).collect();
        let over = runs.iter().filter(|&&left| left > keep).count();
        Self { of, keep, runs, over, all: n, most: most.unwrap_or(n) }
    }

    /// Whether an input has to go and this may be it: runs first, then the row.
    pub fn may_go(&self, input: usize) -> bool {
        if self.over > 0 { self.runs[input / self.of] > self.keep } else { self.all > self.most }
    }

    /// Nothing has to go.
    pub fn enough(&self) -> bool {
        self.over == 0 && self.all <= self.most
    }

    pub fn take(&mut self, input: usize) {
        let run = &mut self.runs[input / self.of];
        *run -= 1;
        self.over -= usize::from(*run == self.keep);
        self.all -= 1;
    }
}

/// The inputs that a layer's rows may keep, fitted without the others.
pub(super) struct Pool<'a> {
    pub s: &'a System,
    /// Of the system, rising.
    pub inputs: Vec<usize>,
    /// inputs x inputs: H^-1.
    inverse: Vec<f64>,
    /// m x inputs.
    w: Vec<f64>,
}

impl<'a> Pool<'a> {
    pub fn new(s: &'a System, inputs: Vec<usize>) -> Result<Self> {
        let k = inputs.len();
        let mut w: Vec<f64> =
            (0..s.m).flat_map(|o| inputs.iter().map(move |&i| s.b[o * s.n + i] / s.unit[i])).collect();
        if k == 0 {
            return Ok(Self { s, inputs, inverse: vec![], w });
        }
        let factor = factor(s, &inputs, dense::par(k.pow(3)))?;
        factor.solve(&mut w, s.m, dense::par(s.m * k * k));
        w.iter_mut().enumerate().for_each(|(at, w)| *w /= s.unit[inputs[at % k]]);
        let inverse = inverse(s, &factor, &inputs, dense::par(k.pow(3)));
        Ok(Self { s, inputs, inverse, w })
    }

    pub fn weights(&self, o: usize) -> &[f64] {
        &self.w[o * self.inputs.len()..(o + 1) * self.inputs.len()]
    }
}

/// Of the unit-diagonal H of some inputs.
fn factor(s: &System, inputs: &[usize], par: Par) -> Result<Cholesky> {
    let row = |&i: &usize| inputs.iter().map(move |&j| s.h[i * s.n + j] / (s.unit[i] * s.unit[j]));
    Cholesky::new(inputs.iter().flat_map(row).collect(), inputs.len(), par).ok_or_else(singular)
}

/// H^-1 of some inputs by that factor.
fn inverse(s: &System, factor: &Cholesky, inputs: &[usize], par: Par) -> Vec<f64> {
    let mut all = factor.inverse(par);
    for (row, &i) in all.chunks_exact_mut(inputs.len()).zip(inputs) {
        row.iter_mut().zip(inputs).for_each(|(v, &j)| *v /= s.unit[i] * s.unit[j]);
    }
    all
}

/// H^-1 = `inverse` - V^T V over the inputs that remain.
struct Removing<'a> {
    /// Inputs of the system, with places in what follows.
    inputs: Vec<usize>,
    on: Vec<bool>,
    /// inputs x inputs.
    inverse: std::borrow::Cow<'a, [f64]>,
    /// At most `BLOCK` x inputs.
    v: Vec<f64>,
    diagonal: Vec<f64>,
    w: Vec<f64>,
}

/// Removes inputs of row `o`, the cheapest first, until its limits are kept; with `on`, until none is left.
pub(super) fn greedy(pool: &Pool<'_>, o: usize, left: &mut Left, on: bool, trace: &mut Trace) -> Result<()> {
    let (s, k) = (pool.s, pool.inputs.len());
    let mut row = Removing {
        inputs: pool.inputs.clone(),
        on: vec![true; k],
        inverse: pool.inverse.as_slice().into(),
        v: vec![],
        diagonal: (0..k).map(|i| pool.inverse[i * k + i]).collect(),
        w: pool.weights(o).to_vec(),
    };
    trace.must = trace.steps.len();
    loop {
        let enough = left.enough();
        if enough && !on {
            return Ok(());
        }
        let may = |k: &usize| row.on[*k] && (enough || left.may_go(s.live[row.inputs[*k]]));
        let cost = |k: usize| row.w[k] * row.w[k] / row.diagonal[k];
        let cheapest =
            (0..row.inputs.len()).filter(may).map(|k| (cost(k), k)).reduce(|a, b| if b.0 < a.0 { b } else { a });
        let Some((cost, at)) = cheapest else { return Ok(()) };
        let input = s.live[row.inputs[at]];
        row.remove(at)?;
        left.take(input);
        trace.steps.push(Step { input, cost });
        trace.must += usize::from(!enough);
    }
}

impl Removing<'_> {
    fn remove(&mut self, at: usize) -> Result<()> {
        let n = self.inputs.len();
        let mut u = self.inverse[at * n..(at + 1) * n].to_vec();
        for v in self.v.chunks_exact(n) {
            dense::axpy(&mut u, -v[at], v);
        }
        let pivot = u[at];
        // cancellation ate all digits
        if pivot.is_nan() || pivot <= 0.0 {
            return Err(singular());
        }
        let step = -self.w[at] / pivot;
        dense::axpy(&mut self.w, step, &u);
        let root = 1.0 / pivot.sqrt();
        u.iter_mut().for_each(|v| *v *= root);
        self.diagonal.iter_mut().zip(&u).for_each(|(d, v)| *d -= v * v);
        (self.on[at], self.w[at]) = (false, 0.0);
        self.v.extend(u);
        if self.v.len() == BLOCK * n {
            self.close();
        }
        Ok(())
    }

    /// Closes the gaps that removals left, and works their update into the inverse.
    fn close(&mut self) {
        let n = self.inputs.len();
        let stays: Vec<usize> = (0..n).filter(|&k| self.on[k]).collect();
        let pick = |row: &[f64]| -> Vec<f64> { stays.iter().map(|&k| row[k]).collect() };
        let v: Vec<f64> = self.v.chunks_exact(n).flat_map(pick).collect();
        let (k, p) = (stays.len(), self.v.len() / n);
        let mut inverse: Vec<f64> = stays.iter().flat_map(|&i| pick(&self.inverse[i * n..(i + 1) * n])).collect();
        let minus: Vec<f64> = (0..k).flat_map(|i| v.iter().skip(i).step_by(k).map(|v| -v)).collect();
        if k > 0 {
            dense::product(&mut inverse, true, &minus, &v, (k, p, k), Par::Seq);
        }
        self.diagonal = (0..k).map(|i| inverse[i * k + i]).collect();
        self.w = pick(&self.w);
        self.inputs = stays.iter().map(|&i| self.inputs[i]).collect();
        self.on = vec![true; k];
        self.v = vec![];
        self.inverse = inverse.into();
    }
}

/// A row with some of its inputs, fitted.
pub(super) struct Kept<'a> {
    s: &'a System,
    row: usize,
    inputs: Vec<usize>,
    /// Of the inputs that are kept, in `inputs`' order.
    pub w: Vec<f64>,
    factor: Option<Cholesky>,
}

impl<'a> Kept<'a> {
    /// `inputs`: of the system.
    pub fn new(s: &'a System, row: usize, inputs: Vec<usize>) -> Result<Self> {
        let mut kept = Self { s, row, inputs, w: vec![], factor: None };
        kept.refit()?;
        Ok(kept)
    }

    pub fn inputs(&self) -> impl Iterator<Item = usize> {
        self.inputs.iter().copied()
    }

    fn b(&self, k: usize) -> f64 {
        self.s.b[self.row * self.s.n + k]
    }

    fn h(&self, i: usize, j: usize) -> f64 {
        self.s.h[i * self.s.n + j]
    }

    fn refit(&mut self) -> Result<()> {
        let unit = &self.s.unit;
        self.w = self.inputs.iter().map(|&k| self.b(k) / unit[k]).collect();
        if self.inputs.is_empty() {
            return Ok(());
        }
        let factor = factor(self.s, &self.inputs, Par::Seq)?;
        factor.solve(&mut self.w, 1, Par::Seq);
        self.w.iter_mut().zip(&self.inputs).for_each(|(w, &k)| *w /= unit[k]);
        self.factor = Some(factor);
        Ok(())
    }

    /// Exchanges an input of `pool` that is gone for one of the same run of `of` inputs of the problem, while that lowers the
    /// objective. Whether any was.
    pub fn swap(&mut self, pool: &[usize], of: usize) -> Result<bool> {
        let (n, k) = (pool.len(), self.inputs.len());
        let Some(factor) = self.factor.take().filter(|_| n <= MOST_SWAPPED && k < n) else { return Ok(false) };
        let mut inverse = inverse(self.s, &factor, &self.inputs, Par::Seq);
        let run = |k: usize| self.s.live[k] / of;
        let least = GAIN * (0..k).map(|i| self.w[i] * self.b(self.inputs[i])).sum::<f64>().abs();
        let mut gone: Vec<usize> = pool.iter().copied().filter(|i| self.inputs.binary_search(i).is_err()).collect();
        let mut any = false;
        for _ in 0..ROUNDS {
            let mut moved = false;
            for back in &mut gone {
                let h: Vec<f64> = self.inputs.iter().map(|&i| self.h(*back, i)).collect();
                let mut e = vec![0.0; k];
                dense::product(&mut e, false, &h, &inverse, (1, k, k), Par::Seq);
                let d = self.h(*back, *back) - dense::dot(&h, &e);
                let c = self.b(*back) - dense::dot(&h, &self.w);
                // nothing is left of it beside the others
                if d <= 1e-12 * self.h(*back, *back) {
                    continue;
                }
                let after = |i: usize| (self.w[i] - c / d * e[i]).powi(2) / (inverse[i * k + i] + e[i] * e[i] / d);
                let here = (0..k).filter(|&i| run(self.inputs[i]) == run(*back));
                let Some((cost, out)) = here.map(|i| (after(i), i)).reduce(|a, b| if b.0 < a.0 { b } else { a }) else {
                    continue;
                };
                if c * c / d - cost <= least {
                    continue;
                }
                exchange(&mut inverse, &mut self.w, (&e, d, c), out);
                std::mem::swap(back, &mut self.inputs[out]);
                moved = true;
            }
            any |= moved;
            if !moved {
                break;
            }
        }
        if any {
            self.inputs.sort_unstable();
            self.refit()?;
        }
        Ok(any)
    }
}

/// An input with H^-1 h = `e`, Schur complement `d` and gradient `c` comes in and takes the place of the one at `out`.
fn exchange(inverse: &mut [f64], w: &mut [f64], (e, d, c): (&[f64], f64, f64), out: usize) {
    let k = w.len();
    // bordered by the new input: column `out`, its last entry, and its diagonal
    let u: Vec<f64> = (0..k).map(|i| inverse[i * k + out] + e[i] * e[out] / d).collect();
    let (last, pivot) = (-e[out] / d, u[out]);
    let weight = (w[out] - c / d * e[out]) / pivot;
    for i in 0..k {
        w[i] -= c / d * e[i] + weight * u[i];
        let row = &mut inverse[i * k..(i + 1) * k];
        dense::axpy(row, e[i] / d, e);
        dense::axpy(row, -u[i] / pivot, &u);
    }
    for j in 0..k {
        let v = -e[j] / d - last * u[j] / pivot;
        (inverse[out * k + j], inverse[j * k + out]) = (v, v);
    }
    inverse[out * k + out] = 1.0 / d - last * last / pivot;
    w[out] = c / d - weight * last;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::problem::Problem;

    fn system(seed: u64, n: usize, m: usize) -> System {
        let mut rng = fastrand::Rng::with_seed(seed);
        let samples = 3 * n;
        let mix: Vec<f64> = (0..n * n).map(|_| rng.f64() - 0.5).collect();
        let raw: Vec<f64> = (0..samples * n).map(|_| rng.f64() - 0.5).collect();
        let mut x = raw.clone();
        dense::product(&mut x, true, &raw, &mix, (samples, n, n), Par::Seq);
        let t: Vec<f64> = (0..samples * m).map(|_| rng.f64() - 0.5).collect();
        let (mut h, mut b) = (vec![0.0; n * n], vec![0.0; m * n]);
        dense::add_outer(&mut h, 1.0, &x, &x, (samples, n, n));
        dense::add_outer(&mut b, 1.0, &t, &x, (samples, m, n));
        let mut p = Problem::from_gram(n, m, h, b).unwrap();
        p.ridge = 1e-3;
        System::new(&p).unwrap()
    }

    fn excess(s: &System, o: usize, inputs: Vec<usize>) -> f64 {
        let kept = Kept::new(s, o, inputs).unwrap();
        let mut d: Vec<f64> = s.free[o * s.n..(o + 1) * s.n].iter().map(|w| -w).collect();
        kept.inputs().zip(&kept.w).for_each(|(k, w)| d[k] += w);
        (0..s.n).map(|k| d[k] * dense::dot(&d, &s.h[k * s.n..(k + 1) * s.n])).sum()
    }

    /// More inputs than one block of put-off updates holds, down to none.
    #[test]
    fn every_removal_costs_what_a_full_refit_loses() {
        let (n, m) = (3 * BLOCK + 7, 2);
        let s = system(4, n, m);
        let pool = Pool::new(&s, (0..n).collect()).unwrap();
        for o in 0..m {
            let mut trace = Trace::default();
            greedy(&pool, o, &mut Left::new(n, None, None), true, &mut trace).unwrap();
            assert_eq!((trace.steps.len(), trace.must), (n, 0));
            let mut kept: Vec<usize> = (0..n).collect();
            let mut before = 0.0;
            for step in &trace.steps {
                let all = excess(&s, o, kept.clone());
                let cost =
                    |gone: usize| excess(&s, o, kept.iter().copied().filter(|k| s.live[*k] != gone).collect()) - all;
                let told = cost(step.input);
                assert!((told - step.cost).abs() <= 1e-6 * told + 1e-10 * (all + told), "{told} {}", step.cost);
                // and nothing else is cheaper: looked at now and then, each costs a refit
                if kept.len().is_multiple_of(13) {
                    let least = kept.iter().map(|&k| cost(s.live[k])).fold(f64::INFINITY, f64::min);
                    assert!(told <= least * (1.0 + 1e-6), "{told} {least}");
                }
                kept.retain(|k| s.live[*k] != step.input);
                before += step.cost;
                assert!((excess(&s, o, kept.clone()) - before).abs() <= 1e-6 * before);
            }
        }
    }

    #[test]
    fn after_swaps_no_exchange_helps_and_the_runs_are_kept() {
        for (of, keep) in [(24, 8), (4, 2)] {
            let s = system(9, 24, 1);
            // a bad start: the first inputs of each run
            let start: Vec<usize> = (0..24).filter(|&k| s.live[k] % of < keep).collect();
            let begun = excess(&s, 0, start.clone());
            let mut kept = Kept::new(&s, 0, start).unwrap();
            assert!(kept.swap(&(0..24).collect::<Vec<_>>(), of).unwrap());
            let now: Vec<usize> = kept.inputs().collect();
            let cost = excess(&s, 0, now.clone());
            assert!(cost < begun);
            for run in 0..24 / of {
                assert_eq!(now.iter().filter(|&&k| s.live[k] / of == run).count(), keep);
            }
            for &out in &now {
                for back in (0..24).filter(|k| !now.contains(k) && s.live[*k] / of == s.live[out] / of) {
                    let mut other: Vec<usize> = now.iter().copied().filter(|&k| k != out).chain([back]).collect();
                    other.sort_unstable();
                    assert!(excess(&s, 0, other) >= cost * (1.0 - 1e-9));
                }
            }
        }
    }
}
