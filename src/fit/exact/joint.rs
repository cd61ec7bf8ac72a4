//! The best levels of all rows and the one scale that they share, proven: best-first bisection of the scale axis.
//!
//! Over an interval the sum of the rows' least objectives is a bound, but a poor one, as each row takes its own best
//! scale: its error falls with the interval's width as slowly as what it must be compared with. Tilting row o by
//! t_o (s - middle), with t_o summing to zero, changes no sum of objectives; the t_o that make all rows equally steep at
//! the middle make the bound's error fall with the square of the width (Lagrangian decomposition of s_1 = .. = s_m).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::Limits;
use super::row::{LEAST_SCALE, Row, floors};
use crate::error::Result;
use crate::fit::branch::{Best, Budget, Tree};
use crate::fit::quantize::Task;

/// Shares of the objective and of the rows' own sizes by which something better must be better.
const SLACK: (f64, f64) = (1e-10, 1e-14);
/// Narrower intervals, relative to the scale, are left as they are.
const NARROWEST: f64 = 1e-12;

/// Scales still to look at.
struct Interval {
    bound: f64,
    from: f64,
    to: f64,
}

/// The least bound is the greatest, so that a heap gives it first.
impl Ord for Interval {
    fn cmp(&self, other: &Self) -> Ordering {
        other.bound.total_cmp(&self.bound).then(other.from.total_cmp(&self.from))
    }
}

impl PartialOrd for Interval {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Interval {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Interval {}

fn total(bests: &[Best]) -> f64 {
    bests.iter().map(|b| b.value).sum()
}

/// The best rows at one scale, each with its share of the proven lower bound of their sum.
///
/// # Errors
/// As the box solver's.
pub(super) fn solve(task: &Task<'_>, tree: &Tree, rows: &[Row], limits: Limits<'_>) -> Result<Vec<(Best, f64)>> {
    let mut search = Search { tree, rows, best: rows.iter().map(|r| r.begun.clone()).collect() };
    let zeros: Vec<Best> = rows.iter().map(Row::zeros).collect();
    if total(&zeros) < total(&search.best) {
        search.best = zeros;
    }
    let known = total(&search.best);
    let range = vec![(0.0, search.best[0].scale); rows.len()];
    let above = |bounds: &[f64]| vec![bounds.iter().sum::<f64>() > known; bounds.len()];
    let floor = floors(task, range, &above, limits.cancelled)?.first().copied().unwrap_or(0.0);
    let unseen = search.run(floor, &mut limits.budget(rows.len()));
    let value = total(&search.best);
    let proven = (value - search.slack()).min(unseen).max(0.0);
    let share = if value > 0.0 && value.is_finite() { proven / value } else { 0.0 };
    Ok(search.best.into_iter().map(|best| (best.clone(), share * best.value)).collect())
}

struct Search<'a> {
    tree: &'a Tree,
    rows: &'a [Row],
    best: Vec<Best>,
}

impl Search<'_> {
    fn slack(&self) -> f64 {
        let size: f64 = self.rows.iter().map(|r| r.target.size).sum();
        SLACK.0 * total(&self.best).min(self.worst()) + SLACK.1 * size
    }

    fn worst(&self) -> f64 {
        self.rows.iter().map(|r| r.worst).sum()
    }

    /// Improves `best` until no scale from `floor` on can; returns the least that may be found among scales not seen to
    /// the end.
    fn run(&mut self, floor: f64, budget: &mut Budget<'_>) -> f64 {
        let value = total(&self.best).min(self.worst());
        let (size, reach) = self.rows.iter().fold((0.0, 0.0), |sum, r| (sum.0 + r.target.size, sum.1 + r.reach));
        if value < size && reach <= 0.0 {
            return f64::INFINITY;
        }
        let to = self.rows.iter().map(|r| r.largest_scale(self.tree, value)).fold(0.0, f64::max);
        let floor = self.rows.iter().map(|r| r.least_scale(f64::INFINITY).unwrap_or(0.0)).fold(floor, f64::max);
        let mut from = ((size - value) / (2.0 * reach)).max(floor);
        let mut unseen = f64::INFINITY;
        if from.is_nan() || from <= 0.0 {
            from = LEAST_SCALE * to;
            unseen = size - 2.0 * from * reach;
        }
        let mut open = BinaryHeap::new();
        while from < to {
            open.push(Interval { bound: 0.0, from, to: from * self.tree.ratio() });
            from *= self.tree.ratio();
        }
        while let Some(interval) = open.pop() {
            if budget.spent() {
                return unseen.min(interval.bound);
            }
            let cut = total(&self.best) - self.slack();
            if interval.bound >= cut || self.untilted((interval.from, interval.to), cut, budget) >= cut {
                continue;
            }
            let bound = self.tilted(&interval, budget).max(interval.bound);
            if bound >= total(&self.best) - self.slack() {
                continue;
            }
            let Interval { from, to, .. } = interval;
            let middle = 0.5 * (from + to);
            if to - from < NARROWEST * to {
                unseen = unseen.min(bound);
                continue;
            }
            open.push(Interval { bound, from, to: middle });
            open.push(Interval { bound, from: middle, to });
        }
        unseen
    }

    /// A lower bound over an interval, each row at its own best scale; no more than needed to reach `cut`.
    fn untilted(&self, scales: (f64, f64), cut: f64, budget: &mut Budget<'_>) -> f64 {
        let mut sum = 0.0;
        for row in self.rows {
            let mut best = Best { value: cut - sum, ..row.begun.clone() };
            let unseen = self.tree.search(&row.target, scales, 0.0, (&mut best, 0.0), budget);
            sum += best.value.min(unseen);
            if sum >= cut {
                break;
            }
        }
        sum
    }

    /// The rows at the middle of an interval, from which `best` may come; then the tilted lower bound.
    fn tilted(&mut self, interval: &Interval, budget: &mut Budget<'_>) -> f64 {
        let middle = 0.5 * (interval.from + interval.to);
        let mut there = Vec::with_capacity(self.rows.len());
        for row in self.rows {
            let mut best = Best { value: f64::INFINITY, scale: middle, levels: row.begun.levels.clone() };
            self.tree.search(&row.target, (middle, middle), 0.0, (&mut best, 0.0), budget);
            there.push(best);
        }
        if !total(&there).is_finite() {
            return interval.bound;
        }
        let products: Vec<(f64, f64, f64)> =
            self.rows.iter().zip(&there).map(|(r, b)| self.tree.products(&r.target, &b.levels, middle)).collect();
        // the scale that suits all these levels best
        let (quadratic, linear) = products.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.1, sum.1 + p.2));
        let common = linear / quadratic;
        let fits = |(row, best): (&Row, &Best)| self.tree.within(&row.target, &best.levels, common);
        let suited = common > 0.0 && common.is_finite() && self.rows.iter().zip(&there).all(fits);
        for scale in [middle, common].into_iter().take(1 + usize::from(suited)) {
            let at = |(row, best): (&Row, &Best)| {
                let value = self.tree.products(&row.target, &best.levels, scale).0;
                Best { value, scale, levels: best.levels.clone() }
            };
            let trial: Vec<Best> = self.rows.iter().zip(&there).map(at).collect();
            if total(&trial) < total(&self.best) {
                self.best = trial;
            }
        }
        let slopes: Vec<f64> = products.iter().map(|p| 2.0 * (p.1 * middle - p.2)).collect();
        let mean = slopes.iter().sum::<f64>() / slopes.len() as f64;
        let mut sum = 0.0;
        for ((row, slope), at) in self.rows.iter().zip(&slopes).zip(there) {
            let mut best = at;
            let scales = (interval.from, interval.to);
            let unseen = self.tree.search(&row.target, scales, mean - slope, (&mut best, 0.0), budget);
            sum += best.value.min(unseen);
        }
        sum
    }
}
