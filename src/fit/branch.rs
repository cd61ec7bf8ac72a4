//! Depth-first branch and bound over the codes of one row, with the scale left open inside an interval.
//!
//! With H = L L^T (L lower) the objective of levels q at scale s is sum_j (s a_j - b_j)^2, a = q L, b = w L. Entry j of
//! q L takes the levels of columns j and later only, so columns are decided from the last to the first (sphere decoding;
//! Agrell et al. 2002), and what a prefix of decided columns costs is a quadratic in s: A s^2 - 2 B s + C. Its least
//! value over the interval bounds all that the prefix can lead to; where it exceeds the best row known, so does everything
//! below it, and the interval shrinks with every column to where it does not. Children are tried in rising order of
//! their bounds (Schnorr and Euchner 1994).

use crate::compute::solver::dense::{self, Cholesky};

/// Inputs beyond which the best order of columns costs more than it saves.
const MOST_ORDERED: usize = 256;
/// A level may leave the box by this share of the bound: the scale may come from that very bound.
const HAIR: f64 = 1e-12;
/// Nodes between questions whether to stop.
const PATIENCE: u64 = 1 << 16;

/// What all rows share: the factor of H and the grid.
pub(super) struct Tree {
    pub n: usize,
    /// Rows of H by column of the tree.
    order: Vec<usize>,
    /// n x n by rows: L^T; the rest is not read.
    upper: Vec<f64>,
    /// Rising.
    levels: Vec<f64>,
}

/// One row to search.
pub(super) struct Target {
    /// n: w L.
    b: Vec<f64>,
    /// w H w.
    pub size: f64,
    /// n each, by column of the tree: the box.
    bounds: Option<(Vec<f64>, Vec<f64>)>,
}

/// The best row known: levels by column of the tree.
#[derive(Debug, Clone)]
pub(super) struct Best {
    pub value: f64,
    pub scale: f64,
    pub levels: Vec<f64>,
}

/// How many nodes may still be looked at, and memory that searches share.
pub(super) struct Budget<'a> {
    left: u64,
    unasked: u64,
    cancelled: &'a (dyn Fn() -> bool + Sync),
    /// n: the levels decided so far.
    levels: Vec<f64>,
    /// Children still to try of each column, the best one last.
    open: Vec<Vec<Node>>,
}

impl<'a> Budget<'a> {
    pub fn new(nodes: u64, cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { left: nodes, unasked: 0, cancelled, levels: Vec::new(), open: Vec::new() }
    }

    pub fn spent(&self) -> bool {
        self.left == 0
    }

    /// Cancelled work has no budget left.
    fn spend(&mut self, nodes: u64) {
        self.left = self.left.saturating_sub(nodes);
        self.unasked += nodes;
        if self.unasked >= PATIENCE {
            self.unasked = 0;
            if (self.cancelled)() {
                self.left = 0;
            }
        }
    }
}

/// A t^2 + 2 B t + C, with t the scale less the middle of the interval.
#[derive(Debug, Clone, Copy, Default)]
struct Quadratic {
    a: f64,
    b: f64,
    c: f64,
}

impl Quadratic {
    fn at(&self, t: f64) -> f64 {
        self.c + t * (2.0 * self.b + self.a * t)
    }

    /// Where it is least in an interval.
    fn argmin(&self, (from, to): (f64, f64)) -> f64 {
        if self.a > 0.0 {
            (-self.b / self.a).max(from).min(to)
        } else if self.b > 0.0 {
            from
        } else {
            to
        }
    }

    /// The part of an interval where it can be below `cut`, given that it is somewhere.
    fn below(&self, cut: f64, (from, to): (f64, f64)) -> (f64, f64) {
        if self.a <= 0.0 {
            return (from, to);
        }
        let middle = -self.b / self.a;
        let half = ((cut - self.c - self.b * middle) / self.a).max(0.0).sqrt();
        (from.max(middle - half), to.min(middle + half))
    }
}

/// A prefix: columns j and later are decided, column j with `level`.
#[derive(Debug, Clone, Copy)]
struct Node {
    level: f64,
    cost: Quadratic,
    range: (f64, f64),
    bound: f64,
}

impl Tree {
    /// `h`: n x n, symmetric. None if it is not positive definite.
    pub fn new(h: &[f64], n: usize, levels: Vec<f64>) -> Option<Self> {
        let par = dense::par(n * n * n / 3);
        let unit: Vec<f64> = (0..n).map(|k| h[k * n + k].sqrt()).collect();
        let normal = |i: usize, j: usize| h[i * n + j] / (unit[i] * unit[j]);
        let ordered = |order: &[usize]| {
            let a = order.iter().flat_map(|&i| order.iter().map(move |&j| normal(i, j))).collect();
            Cholesky::new(a, n, par)
        };
        let mut order: Vec<usize> = (0..n).collect();
        let mut factor = ordered(&order)?;
        if n <= MOST_ORDERED {
            let better = by_pivot(factor.inverse(par), &unit);
            // rounding may forbid one order of a matrix that hardly has full rank
            if let Some(other) = ordered(&better) {
                (order, factor) = (better, other);
            }
        }
        let mut upper = vec![0.0; n * n];
        for j in 0..n {
            for k in j..n {
                upper[j * n + k] = factor.data[j * n + k] * unit[order[k]];
            }
        }
        Some(Self { n, order, upper, levels })
    }

    /// A row of the problem: its unconstrained weights and its box, over the rows of H.
    pub fn target(&self, w: &[f64], bounds: Option<(&[f64], &[f64])>) -> Target {
        let by_column = |all: &[f64]| -> Vec<f64> { self.order.iter().map(|&i| all[i]).collect() };
        let w = by_column(w);
        let b: Vec<f64> = (0..self.n).map(|j| dense::dot(self.tail(j), &w[j..])).collect();
        let size = dense::dot(&b, &b);
        Target { b, size, bounds: bounds.map(|(l, u)| (by_column(l), by_column(u))) }
    }

    /// Row j of L^T from its diagonal on.
    fn tail(&self, j: usize) -> &[f64] {
        &self.upper[j * self.n + j..(j + 1) * self.n]
    }

    /// L_jj.
    pub fn pivot(&self, j: usize) -> f64 {
        self.upper[j * self.n + j]
    }

    /// By how much a scale may vary within an interval: half a step at the largest level.
    pub fn ratio(&self) -> f64 {
        let most = self.levels.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        let step = self.levels.windows(2).map(|p| p[1] - p[0]).fold(f64::INFINITY, f64::min);
        (1.0 + 0.5 * step / most).clamp(1.01, 1.5)
    }

    /// Levels over the rows of H to levels by column, and their objective at `scale`.
    pub fn best(&self, target: &Target, levels: &[f64], scale: f64) -> Best {
        let levels: Vec<f64> = self.order.iter().map(|&i| levels[i]).collect();
        let (value, ..) = self.products(target, &levels, scale);
        Best { value, scale, levels }
    }

    /// (objective at `scale`, a.a, a.b): the objective is a.a s^2 - 2 a.b s + w H w. `levels` by column.
    pub fn products(&self, target: &Target, levels: &[f64], scale: f64) -> (f64, f64, f64) {
        let mut sums = (0.0, 0.0, 0.0);
        for j in 0..self.n {
            let a = dense::dot(self.tail(j), &levels[j..]);
            let r = scale * a - target.b[j];
            sums = (sums.0 + r * r, sums.1 + a * a, sums.2 + a * target.b[j]);
        }
        sums
    }

    /// Levels by column to levels over the rows of H.
    pub fn spread(&self, levels: &[f64], out: &mut [f64]) {
        self.order.iter().zip(levels).for_each(|(&i, level)| out[i] = *level);
    }

    /// Whether `best`'s levels at `scale` are in the box.
    pub fn within(&self, target: &Target, levels: &[f64], scale: f64) -> bool {
        (0..self.n).all(|j| {
            let (from, to) = target.scales(j, levels[j]);
            from <= scale && scale <= to
        })
    }

    /// Looks for levels and a scale in `scales` whose objective plus `tilt` times (scale - the middle of `scales`) is
    /// below `best.value` by more than `slack`, and leaves the best of them in `best`. Returns infinity when all was
    /// seen, or else, the budget having run out, the least that may be found among what was not.
    pub fn search(
        &self,
        target: &Target,
        scales: (f64, f64),
        tilt: f64,
        (best, slack): (&mut Best, f64),
        budget: &mut Budget<'_>,
    ) -> f64 {
        let (mut levels, mut open) = (std::mem::take(&mut budget.levels), std::mem::take(&mut budget.open));
        levels.resize(self.n, 0.0);
        open.resize(self.n, Vec::new());
        open.iter_mut().for_each(Vec::clear);
        let unseen = self.descend(target, scales, tilt, (best, slack), (&mut levels, &mut open), budget);
        (budget.levels, budget.open) = (levels, open);
        unseen
    }

    /// `search` with its memory.
    fn descend(
        &self,
        target: &Target,
        scales: (f64, f64),
        tilt: f64,
        (best, slack): (&mut Best, f64),
        (levels, open): (&mut Vec<f64>, &mut [Vec<Node>]),
        budget: &mut Budget<'_>,
    ) -> f64 {
        let middle = 0.5 * (scales.0 + scales.1);
        let range = (scales.0 - middle, scales.1 - middle);
        let cost = Quadratic { a: 0.0, b: 0.5 * tilt, c: 0.0 };
        let mut node = Node { level: 0.0, cost, range, bound: cost.at(cost.argmin(range)) };
        let mut j = self.n;
        loop {
            if j == 0 {
                let t = node.cost.argmin(node.range);
                (best.value, best.scale) = (node.cost.at(t), middle + t);
                best.levels.clone_from(levels);
            } else {
                let seen = self.children(target, j - 1, (&node, levels), middle, best.value - slack, &mut open[j - 1]);
                budget.spend(seen);
                j -= 1;
            }
            // the next child of the deepest column that has one
            loop {
                if j == self.n {
                    return f64::INFINITY;
                }
                match open[j].pop() {
                    Some(child) if child.bound < best.value - slack => {
                        node = child;
                        levels[j] = node.level;
                        break;
                    }
                    _ => {
                        open[j].clear();
                        j += 1;
                    }
                }
            }
            if budget.spent() {
                let rest = open.iter().flatten().map(|n| n.bound);
                return rest.fold(node.bound, f64::min);
            }
        }
    }

    /// The levels of column j whose prefixes can be below `cut`, the best last. Returns how many were looked at.
    fn children(
        &self,
        target: &Target,
        j: usize,
        (node, levels): (&Node, &[f64]),
        middle: f64,
        cut: f64,
        out: &mut Vec<Node>,
    ) -> u64 {
        let (pivot, b) = (self.pivot(j), target.b[j]);
        let base = dense::dot(&self.tail(j)[1..], &levels[j + 1..]);
        // |s a - b| <= reach at some scale of the range
        let reach = (cut - node.bound).max(0.0).sqrt() * (1.0 + 1e-12) + 1e-14 * b.abs();
        let (s1, s2) = (middle + node.range.0, middle + node.range.1);
        let least = if b - reach >= 0.0 { (b - reach) / s2 } else { (b - reach) / s1 };
        let most = if b + reach >= 0.0 { (b + reach) / s1 } else { (b + reach) / s2 };
        let hair = 1e-12 * (least.abs() + most.abs() + base.abs()) / pivot;
        let from = self.levels.partition_point(|v| *v < (least - base) / pivot - hair);
        let to = self.levels.partition_point(|v| *v <= (most - base) / pivot + hair);
        for &level in self.levels.get(from..to).unwrap_or(&[]) {
            let (low, high) = target.scales(j, level);
            let range = (node.range.0.max(low - middle), node.range.1.min(high - middle));
            if range.0 > range.1 {
                continue;
            }
            let a = base + pivot * level;
            let r = middle * a - b;
            let cost = Quadratic { a: node.cost.a + a * a, b: node.cost.b + a * r, c: node.cost.c + r * r };
            let bound = cost.at(cost.argmin(range));
            if bound < cut {
                out.push(Node { level, cost, range: cost.below(cut, range), bound });
            }
        }
        out.sort_unstable_by(|x, y| y.bound.total_cmp(&x.bound));
        1 + to.saturating_sub(from) as u64
    }
}

impl Target {
    /// Entry j of w L.
    pub fn b(&self, j: usize) -> f64 {
        self.b[j]
    }

    /// The scales at which `level` lies in column j's box.
    fn scales(&self, j: usize, level: f64) -> (f64, f64) {
        let Some((lower, upper)) = &self.bounds else { return (0.0, f64::INFINITY) };
        let (l, u) = (lower[j], upper[j]);
        let none = (f64::INFINITY, f64::NEG_INFINITY);
        // at least |near| and at most |far| from zero, on the level's side of it
        let (near, far) = if level > 0.0 { (l, u) } else { (-u, -l) };
        if level == 0.0 {
            return if l <= 0.0 && 0.0 <= u { (0.0, f64::INFINITY) } else { none };
        }
        if far < 0.0 {
            return none;
        }
        let size = level.abs();
        ((near.max(0.0) / size) * (1.0 - HAIR), (far / size) * (1.0 + HAIR))
    }
}

/// The order in which each column, from the last, is the one that the columns before it determine least: its pivot
/// 1 / (H^-1)_kk is the largest (Wolniansky et al. 1998), so that wrong levels cost most where the tree is narrow.
/// `inverse`: of H with its rows and columns divided by `unit`.
fn by_pivot(mut inverse: Vec<f64>, unit: &[f64]) -> Vec<usize> {
    let n = unit.len();
    let mut left: Vec<usize> = (0..n).collect();
    let mut order = vec![0; n];
    for at in (0..n).rev() {
        let pivot = |k: usize| unit[k].powi(2) / inverse[k * n + k];
        let Some(best) = (0..left.len()).max_by(|&x, &y| pivot(left[x]).total_cmp(&pivot(left[y]))) else { break };
        let k = left.swap_remove(best);
        order[at] = k;
        let row: Vec<f64> = left.iter().map(|&i| inverse[k * n + i]).collect();
        let own = inverse[k * n + k];
        for (&i, x) in left.iter().zip(&row) {
            for (&j, y) in left.iter().zip(&row) {
                inverse[i * n + j] -= x * y / own;
            }
        }
    }
    order
}
