//! One row of the exact search: which scales can hold something better than what is known, and the search of them.

use super::Limits;
use crate::compute::{Device, Team};
use crate::error::Result;
use crate::fit::branch::{Best, Budget, Target, Tree};
use crate::fit::continuous;
use crate::fit::quantize::{Quantized, Task};
use crate::fit::solve::Method;

/// Shares of the objective and of the row's own size by which a better row must be better: rounding.
const SLACK: (f64, f64) = (1e-12, 1e-15);
/// Where nothing else says how small a scale can be: this share of the largest one.
pub(super) const LEAST_SCALE: f64 = 1e-6;
/// Bisections of the smallest scale that the box relaxation leaves, its tolerance and its most iterations.
const BISECTIONS: usize = 8;
const RELAXED: (f64, usize) = (1e-4, 200);

/// One row, and what limits its scale.
pub(super) struct Row {
    pub target: Target,
    /// Of infinite value where the box leaves no level.
    pub begun: Best,
    /// The most that q H w can be for levels q.
    pub reach: f64,
    /// The most that the square root of q H q can be.
    extent: f64,
    /// The box holds nothing at a smaller scale.
    floor: f64,
    /// Largest objective in the box that is worth a look, where none is known.
    pub worst: f64,
    least_level: f64,
    /// Levels of zero are a solution.
    zero: bool,
}

impl Row {
    pub fn new(task: &Task<'_>, tree: &Tree, begun: &Quantized, o: usize) -> Self {
        let (n, s) = (task.system.n, task.system);
        let levels = task.grid.levels();
        let (low, high) = ends(&levels);
        let at = o * n..(o + 1) * n;
        let bounds = task.bounds.map(|(l, u)| (&l[at.clone()], &u[at.clone()]));
        let target = tree.target(&s.free[at.clone()], bounds);
        let mut best = tree.best(&target, &begun.levels[at.clone()], begun.scale[o]);
        if !tree.within(&target, &best.levels, best.scale) {
            best.value = f64::INFINITY;
        }
        let mut row = Self {
            begun: best,
            reach: s.b[at.clone()].iter().map(|b| (low * b).max(high * b)).sum(),
            extent: low.abs().max(high.abs()) * s.h.iter().map(|h| h.abs()).sum::<f64>().sqrt(),
            floor: 0.0,
            worst: f64::INFINITY,
            least_level: levels.iter().filter(|v| **v != 0.0).fold(f64::INFINITY, |least, v| least.min(v.abs())),
            zero: levels.contains(&0.0) && tree.within(&target, &vec![0.0; n], 1.0),
            target,
        };
        if let Some((lower, upper)) = bounds {
            let needed = |(l, u): (&f64, &f64)| if *l > 0.0 { l / high.max(0.0) } else { u.min(0.0) / low.min(0.0) };
            row.floor = lower.iter().zip(upper).map(needed).filter(|v| *v > 0.0).fold(0.0, f64::max);
            let size = |b: f64| if b.is_finite() { b.abs() } else { 0.0 };
            let widest: f64 = (0..n).map(|i| s.h[i * n + i].sqrt() * size(lower[i]).max(size(upper[i]))).sum();
            row.worst = (10.0 * (row.target.size.sqrt() + widest)).powi(2);
        }
        row
    }

    /// Levels of zero, of infinite value where grid or box forbid them.
    pub fn zeros(&self) -> Best {
        let value = if self.zero { self.target.size } else { f64::INFINITY };
        Best { value, scale: self.begun.scale, levels: vec![0.0; self.begun.levels.len()] }
    }

    fn start(&self) -> Best {
        let zeros = self.zeros();
        if zeros.value < self.begun.value { zeros } else { self.begun.clone() }
    }

    fn slack(&self, best: &Best) -> f64 {
        SLACK.0 * best.value.min(self.worst) + SLACK.1 * self.target.size
    }

    /// Smallest scale at which this row can have an objective of `value` or less: w H w - 2 s q H w + s^2 q H q is at
    /// least w H w - 2 s reach, and its square root at least that of w H w less s extent. None if no scale can.
    pub fn least_scale(&self, value: f64) -> Option<f64> {
        let value = value.min(self.worst);
        let size = self.target.size;
        if size <= value {
            return Some(self.floor);
        }
        if self.reach <= 0.0 {
            return None;
        }
        let linear = (size - value) / (2.0 * self.reach);
        let norm = (size.sqrt() - value.sqrt()) / self.extent;
        Some(linear.max(norm).max(self.floor))
    }

    /// Scale above which levels other than zeros cost more than `value`: the first of them, from the last column, alone
    /// does.
    pub fn largest_scale(&self, tree: &Tree, value: f64) -> f64 {
        let reach = value.min(self.worst).sqrt();
        (0..tree.n).map(|j| (self.target.b(j).abs() + reach) / (tree.pivot(j) * self.least_level)).fold(0.0, f64::max)
    }

    /// At the given scale.
    pub fn given(&self, tree: &Tree, budget: &mut Budget<'_>) -> (Best, f64) {
        let mut best = self.start();
        let (scale, margin) = (self.begun.scale, self.slack(&best));
        let unseen = tree.search(&self.target, (scale, scale), 0.0, (&mut best, margin), budget);
        let proven = (best.value - margin).min(unseen).max(0.0);
        (best, proven)
    }

    /// The intervals in which something better than `best` may be, those nearest to its scale first.
    fn intervals(&self, tree: &Tree, best: &Best, from: f64) -> Vec<(f64, f64)> {
        let to = self.largest_scale(tree, best.value);
        let (mut at, ratio) = (from, tree.ratio());
        let mut all = Vec::new();
        while at < to {
            all.push((at, at * ratio));
            at *= ratio;
        }
        let distance = |(from, to): &(f64, f64)| ((from * to).sqrt() / best.scale).ln().abs();
        all.sort_by(|x, y| distance(x).total_cmp(&distance(y)));
        all
    }

    /// What `nodes` nodes an interval find.
    pub fn glance(&self, tree: &Tree, nodes: u64, limits: Limits<'_>) -> Best {
        let mut best = self.start();
        let from = self.least_scale(best.value).unwrap_or(f64::INFINITY);
        let from = if from > 0.0 { from } else { LEAST_SCALE * self.largest_scale(tree, best.value) };
        for scales in self.intervals(tree, &best, from) {
            let margin = self.slack(&best);
            let mut budget = Budget::new(nodes, limits.cancelled);
            tree.search(&self.target, scales, 0.0, (&mut best, margin), &mut budget);
        }
        best
    }

    /// The best levels and scale, and a proven lower bound of their objective, from the best known. At scales below
    /// `floor` is nothing better.
    pub fn solve(&self, tree: &Tree, mut best: Best, floor: f64, budget: &mut Budget<'_>) -> (Best, f64) {
        let mut unseen = f64::INFINITY;
        if let Some(least) = self.least_scale(best.value) {
            let mut from = least.max(floor);
            if from <= 0.0 {
                from = LEAST_SCALE * self.largest_scale(tree, best.value);
                unseen = self.target.size - 2.0 * from * self.reach;
            }
            for scales in self.intervals(tree, &best, from) {
                if scales.0 < self.largest_scale(tree, best.value) {
                    let margin = self.slack(&best);
                    unseen = unseen.min(tree.search(&self.target, scales, 0.0, (&mut best, margin), budget));
                }
            }
        } else {
            // zeros are the best, or nothing but ever smaller scales comes near them
            unseen = self.target.size;
        }
        let proven = (best.value - self.slack(&best)).min(unseen).max(0.0);
        (best, proven)
    }
}

/// The lowest and the highest level.
fn ends(levels: &[f64]) -> (f64, f64) {
    (levels.first().copied().unwrap_or(0.0), levels.last().copied().unwrap_or(0.0))
}

/// m: scales below which the box relaxation, |w| at most the largest levels, rules everything out. Each row's lies
/// between the two of `range`; `above` says of the rows' bounds (above the unconstrained optimum) which rule out.
///
/// # Errors
/// As the box solver's.
pub(super) fn floors(
    task: &Task<'_>,
    mut range: Vec<(f64, f64)>,
    above: &dyn Fn(&[f64]) -> Vec<bool>,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<f64>> {
    let (n, s) = (task.system.n, task.system);
    let (low, high) = ends(&task.grid.levels());
    for _ in 0..BISECTIONS {
        let scale: Vec<f64> = range.iter().map(|(from, to)| from.max(1e-3 * to).min(*to) * to).map(f64::sqrt).collect();
        let given = |at: usize| task.bounds.map_or((f64::NEG_INFINITY, f64::INFINITY), |(l, u)| (l[at], u[at]));
        let side = |at: usize| (scale[at / n] * low.min(0.0), scale[at / n] * high.max(0.0));
        let (mut lower, mut upper) = (vec![0.0; s.m * n], vec![0.0; s.m * n]);
        let mut empty = vec![false; s.m];
        for at in 0..s.m * n {
            let ((l, u), (from, to)) = (given(at), side(at));
            (lower[at], upper[at]) = (l.max(from), u.min(to).max(l.max(from)));
            empty[at / n] |= l.max(from) > u.min(to);
        }
        let found =
            continuous::solve(&Team::from(&Device::cpu()), s, (&lower, &upper), Method::Auto, RELAXED, cancelled)?;
        let bounds: Vec<f64> = found.bound.iter().zip(&s.rest).map(|(b, rest)| (b - rest) * (1.0 - 1e-9)).collect();
        for (o, out) in above(&bounds).into_iter().enumerate() {
            let end = if out || empty[o] { &mut range[o].0 } else { &mut range[o].1 };
            *end = scale[o];
        }
    }
    Ok(range.into_iter().map(|(from, _)| from).collect())
}
