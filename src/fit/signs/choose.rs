//! Which sign each input should have: a search over sign vectors by the objective of the best continuous weights under
//! them.
//!
//! It starts from the sign that most of each input's unconstrained weights have, by their squares. At the optimum under
//! given signs, what a flip of one input would change is known but for changes of the other weights' active bounds: a
//! row whose weight is free loses w^2 / (H_FF^-1)_ii, one whose weight is held at zero gains g^2 / (its Schur complement).
//! The inputs are ranked by that; the best flips are made together, as many as help most, then singly.

use rayon::prelude::*;

use super::super::continuous;
use super::{Problem, Spec, System};
use crate::compute::Team;
use crate::compute::solver::dense::{self, Cholesky};
use crate::error::{Error, Result};

/// A flip must gain this share of the objective.
const GAIN: f64 = 1e-9;
/// What tries of single flips may cost, in units of m n^3: by continuous weights, and by what is stored.
const WORK: (usize, usize) = (1 << 30, 1 << 27);

/// What the search looks at.
pub(super) struct Choice<'a> {
    team: &'a Team,
    problem: &'a Problem,
    spec: &'a Spec,
    system: &'a System,
    cancelled: &'a (dyn Fn() -> bool + Sync),
    /// n (all inputs): whether the bounds allow a positive sign, and a negative one, of the input and all that share its
    /// sign.
    allowed: Vec<(bool, bool)>,
    /// n (all inputs): the inputs that share its sign, by the first of them; empty for the others.
    members: Vec<Vec<usize>>,
    /// n: the first of those that share an input's sign.
    first: Vec<usize>,
    /// m x n over live inputs, in the scaling in which H has a unit diagonal.
    lower: Vec<f64>,
    upper: Vec<f64>,
    free: Vec<f64>,
    /// n x n over live inputs, in that scaling.
    h: Vec<f64>,
    inverse: Vec<f64>,
    tries: (usize, usize),
}

/// The best continuous weights under some signs.
struct Point {
    cost: f64,
    /// m x n over live inputs, scaled.
    w: Vec<f64>,
}

impl<'a> Choice<'a> {
    /// # Errors
    /// `Input`: an input's bounds allow neither sign.
    pub fn new(
        team: &'a Team,
        problem: &'a Problem,
        spec: &'a Spec,
        system: &'a System,
        cancelled: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Self> {
        let (n, live) = (problem.n, system.n);
        let lower = |o: usize, i: usize| spec.lower_at(o, i, n);
        let upper = |o: usize, i: usize| spec.upper_at(o, i, n);
        let allows = |i: usize| {
            ((0..problem.m).all(|o| upper(o, i) >= 0.0), (0..problem.m).all(|o| lower(o, i) <= 0.0)) //
        };
        let (first, members) = shared(spec.sign_groups.as_deref(), n);
        let mut allowed: Vec<_> = (0..n).map(allows).collect();
        for group in &members {
            let all = group.iter().fold((true, true), |all, &i| (all.0 && allowed[i].0, all.1 && allowed[i].1));
            group.iter().for_each(|&i| allowed[i] = all);
        }
        if let Some(i) = allowed.iter().position(|(plus, minus)| !plus && !minus) {
            return Err(Error::input("signs", format!("the bounds of input {i} allow it neither sign")));
        }
        let scaled = |at: usize, v: f64| v * system.unit[at % live];
        let all = |v: &[f64]| -> Vec<f64> { v.iter().enumerate().map(|(at, v)| scaled(at, *v)).collect() };
        let tries = |work: usize| work / (problem.m * live.pow(3)).max(1);
        Ok(Self {
            team,
            problem,
            spec,
            system,
            cancelled,
            allowed,
            members,
            first,
            lower: all(&system.gather(lower)),
            upper: all(&system.gather(upper)),
            free: all(&system.free),
            h: (0..live * live).map(|at| system.h[at] / (system.unit[at / live] * system.unit[at % live])).collect(),
            inverse: system.factor.inverse(dense::par(live.pow(3))),
            tries: (tries(WORK.0), tries(WORK.1)),
        })
    }

    /// The best signs found by continuous weights: n values, 1 or -1. From `start`, if given.
    pub fn best(&self, start: Option<Vec<f64>>) -> Result<Vec<f64>> {
        let mut signs = start.unwrap_or_else(|| self.majority());
        let mut point = self.point(&signs)?;
        loop {
            let order = self.ranked(&signs, &point);
            let mut best: Option<(Vec<f64>, Point)> = None;
            let mut count = order.iter().filter(|(change, _)| *change < 0.0).count();
            let least =
                |best: &Option<(Vec<f64>, Point)>| best.as_ref().map_or(point.cost * (1.0 - GAIN), |b| b.1.cost);
            while count > 0 {
                let trial = self.with_flips(&signs, order[..count].iter().map(|(_, i)| *i));
                let now = self.point(&trial)?;
                if now.cost < least(&best) {
                    best = Some((trial, now));
                }
                count /= 2;
            }
            for (_, i) in order.iter().take(if best.is_some() { 0 } else { self.tries.0 }) {
                let trial = self.with_flips(&signs, [*i]);
                let now = self.point(&trial)?;
                if now.cost < least(&best) {
                    best = Some((trial, now));
                    break;
                }
            }
            match best {
                Some(better) => (signs, point) = better,
                None => return Ok(signs),
            }
        }
    }

    /// Flips single inputs as long as that lowers `cost` (of what is stored), the most promising ones first.
    pub fn improve(&self, signs: &mut Vec<f64>, cost: impl Fn(&[f64]) -> Result<f64>) -> Result<()> {
        let mut least = cost(signs)?;
        let mut tries = self.tries.1;
        loop {
            let order = self.ranked(signs, &self.point(signs)?);
            let mut moved = false;
            for (_, i) in order.iter().take(tries) {
                tries -= 1;
                let trial = self.with_flips(signs, [*i]);
                let now = cost(&trial)?;
                if now < least * (1.0 - GAIN) {
                    (least, *signs, moved) = (now, trial, true);
                    break;
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// The sign that most of an input's weights have, by their squares; of a dead input by its prior.
    fn majority(&self) -> Vec<f64> {
        let (p, s) = (self.problem, self.system);
        let mut votes = vec![0.0; p.n];
        if let Some(prior) = &p.prior {
            prior.iter().enumerate().for_each(|(at, w)| votes[at % p.n] += w * w.abs());
        }
        s.live.iter().for_each(|&i| votes[i] = 0.0);
        s.free.iter().enumerate().for_each(|(at, w)| votes[s.live[at % s.n]] += w * w.abs());
        let mut shared = vec![0.0; p.n];
        votes.iter().enumerate().for_each(|(i, vote)| shared[self.first[i]] += vote);
        let votes: Vec<f64> = self.first.iter().map(|first| shared[*first]).collect();
        let sign = |(vote, allowed): (&f64, &(bool, bool))| match allowed {
            (true, false) => 1.0,
            (false, true) => -1.0,
            _ => {
                if *vote < 0.0 {
                    -1.0
                } else {
                    1.0
                }
            }
        };
        votes.iter().zip(&self.allowed).map(sign).collect()
    }

    /// The interval of a (scaled) weight under a sign.
    fn interval(&self, at: usize, sign: f64) -> (f64, f64) {
        if sign > 0.0 { (self.lower[at].max(0.0), self.upper[at]) } else { (self.lower[at], self.upper[at].min(0.0)) }
    }

    /// `signs` with those of the inputs `which`, and of all that share them, turned over.
    fn with_flips(&self, signs: &[f64], which: impl IntoIterator<Item = usize>) -> Vec<f64> {
        let mut flipped = signs.to_vec();
        which.into_iter().flat_map(|i| &self.members[i]).for_each(|&i| flipped[i] = -flipped[i]);
        flipped
    }

    fn point(&self, signs: &[f64]) -> Result<Point> {
        let (n, m, s) = (self.system.n, self.system.m, self.system);
        let sign = |at: usize| signs[s.live[at % n]];
        let (lower, upper): (Vec<f64>, Vec<f64>) = (0..m * n)
            .map(|at| {
                let (low, high) = self.interval(at, sign(at));
                (low / s.unit[at % n], high / s.unit[at % n])
            })
            .unzip();
        let limits = (self.spec.tolerance, self.spec.max_iterations);
        let found = continuous::solve(self.team, s, (&lower, &upper), self.spec.method, limits, self.cancelled)?;
        let cost = s.objectives(&found.w).iter().sum();
        Ok(Point { cost, w: found.w.iter().enumerate().map(|(at, w)| w * s.unit[at % n]).collect() })
    }

    /// The inputs that may be flipped (the first of those that share a sign), each with the change of the objective that
    /// its flip would about bring; the best first.
    fn ranked(&self, signs: &[f64], point: &Point) -> Vec<(f64, usize)> {
        let (n, m) = (self.system.n, self.system.m);
        if n == 0 {
            return Vec::new();
        }
        let d: Vec<f64> = point.w.iter().zip(&self.free).map(|(w, f)| w - f).collect();
        let mut g = vec![0.0; m * n];
        dense::product(&mut g, false, &d, &self.h, (m, n, n), dense::par(m * n * n));
        let rows: Vec<Vec<f64>> = (0..m).into_par_iter().map(|o| self.changes(o, signs, point, &g)).collect();
        let change = |k: usize| rows.iter().map(|row| row[k]).sum::<f64>();
        let mut changes = vec![None; self.problem.n];
        for k in (0..n).filter(|k| self.allowed[self.system.live[*k]] == (true, true)) {
            *changes[self.first[self.system.live[k]]].get_or_insert(0.0) += change(k);
        }
        let mut order: Vec<(f64, usize)> =
            changes.into_iter().enumerate().filter_map(|(i, change)| change.map(|c| (c, i))).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        order
    }

    /// What each input's flip would change of row `o`'s objective, were no other weight to reach or leave a bound.
    fn changes(&self, o: usize, signs: &[f64], point: &Point, g: &[f64]) -> Vec<f64> {
        let n = self.system.n;
        let sign = |k: usize| signs[self.system.live[k]];
        let (free, held): (Vec<usize>, Vec<usize>) = (0..n).partition(|&k| {
            let (low, high) = self.interval(o * n + k, sign(k));
            low < point.w[o * n + k] && point.w[o * n + k] < high
        });
        // Curvature along one weight with the free ones following: through H^-1 or H, whichever block is smaller.
        let mut curvature = vec![0.0; n];
        if held.len() <= free.len() {
            let (inside, outside) = conditional(&self.inverse, n, &held, &free);
            held.iter().zip(inside).for_each(|(k, v)| curvature[*k] = v);
            free.iter().zip(outside).for_each(|(k, v)| curvature[*k] = 1.0 / v);
        } else {
            let (inside, outside) = conditional(&self.h, n, &free, &held);
            free.iter().zip(inside).for_each(|(k, v)| curvature[*k] = 1.0 / v);
            held.iter().zip(outside).for_each(|(k, v)| curvature[*k] = v);
        }
        (0..n)
            .map(|k| {
                let (w, c) = (point.w[o * n + k], curvature[k]);
                let slope = if free.binary_search(&k).is_ok() { 0.0 } else { g[o * n + k] };
                let (low, high) = self.interval(o * n + k, -sign(k));
                let t = (w - slope / c).max(low).min(high) - w;
                t * (2.0 * slope + c * t)
            })
            .collect()
    }
}

/// For inputs in groups (of one each without any): the first of each input's group, and the groups by their first.
fn shared(groups: Option<&[usize]>, n: usize) -> (Vec<usize>, Vec<Vec<usize>>) {
    let Some(groups) = groups else { return ((0..n).collect(), (0..n).map(|i| vec![i]).collect()) };
    let mut known = vec![None; n];
    let first: Vec<usize> = groups.iter().enumerate().map(|(i, g)| *known[*g].get_or_insert(i)).collect();
    let mut members = vec![Vec::new(); n];
    first.iter().enumerate().for_each(|(i, first)| members[*first].push(i));
    (first, members)
}

/// Of a symmetric positive definite `a` (n x n): the diagonal of (a_SS)^-1 over `set`, and of
/// a_RR - a_RS (a_SS)^-1 a_SR over `rest`.
fn conditional(a: &[f64], n: usize, set: &[usize], rest: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let block = |rows: &[usize], columns: &[usize]| -> Vec<f64> {
        rows.iter().flat_map(|&i| columns.iter().map(move |&j| a[i * n + j])).collect()
    };
    let diagonal: Vec<f64> = rest.iter().map(|&i| a[i * n + i]).collect();
    if set.is_empty() {
        return (Vec::new(), diagonal);
    }
    let k = set.len();
    let Some(factor) = Cholesky::new(block(set, set), k, faer::Par::Seq) else {
        // rounding has the better of it: as if there were no correlations
        return (set.iter().map(|&i| 1.0 / a[i * n + i]).collect(), diagonal);
    };
    let inverse = factor.inverse(faer::Par::Seq);
    let across = block(rest, set);
    let mut solved = vec![0.0; rest.len() * k];
    if !rest.is_empty() {
        dense::product(&mut solved, false, &across, &inverse, (rest.len(), k, k), faer::Par::Seq);
    }
    let left = |(r, diagonal): (usize, &f64)| {
        (diagonal - dense::dot(&across[r * k..(r + 1) * k], &solved[r * k..(r + 1) * k])).max(1e-12 * diagonal)
    };
    ((0..k).map(|i| inverse[i * k + i]).collect(), diagonal.iter().enumerate().map(left).collect())
}
