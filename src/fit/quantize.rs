//! Grid constraint: levels and scales for every row, by search of the scale, error feedback, coordinate descent and
//! re-scaling. METHOD section 5.
//!
//! The scale is searched against the true objective: at each candidate the row is rounded with error feedback, which
//! yields the objective exactly at no further cost. The best few candidates go down by coordinate descent, take the
//! best scale for their codes, and go down again until neither helps; the best of them is kept.

use super::snap::{next_power_of_two, power_of_two, snapped};
use super::system::System;
use crate::chip::{Grid, ScaleOwner};
use crate::compute::solver::{Steps, dense};
use crate::error::Result;

use super::rounding::{Lane, Rounding, Rows};

/// Most sweeps of one descent; a fixed point comes long before.
pub(super) const SWEEPS: usize = 100;
/// Most rounds of descent, pair moves and re-scaling.
const ROUNDS: usize = 50;

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Scales a row that are rounded and settled.
    pub starts: usize,
    /// Partial solutions that the rounding keeps: 1 is error feedback, more is K-best.
    pub paths: usize,
    /// Whether pairs of levels are moved too.
    pub pairs: bool,
    /// Most rounds of rounding again, now with pair moves, at the best scales found.
    pub again: usize,
}

/// What to quantize.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub system: &'a System,
    /// m x n (live inputs): the continuous weights that are rounded. The best in the box: from the unconstrained ones
    /// error feedback would spend itself on what the box takes away.
    pub around: &'a [f64],
    pub grid: &'a Grid,
    pub owner: ScaleOwner,
    /// m: given scales, not searched.
    pub fixed: Option<&'a [f64]>,
    /// Significant bits of searched scales.
    pub scale_bits: i32,
    /// Searched scales are powers of two.
    pub power_of_two: bool,
    /// m x n (live inputs) each: the box.
    pub bounds: Option<(&'a [f64], &'a [f64])>,
}

/// Levels (m x n, live inputs, in units of the scale) and scales (m).
#[derive(Debug, Clone)]
pub(super) struct Quantized {
    pub levels: Vec<f64>,
    pub scale: Vec<f64>,
}

/// The best of what was tried: objectives of the rows, less a constant a row, and what reaches them.
struct Best {
    cost: Vec<f64>,
    kept: Quantized,
}

impl Task<'_> {
    fn row<'a>(&self, all: &'a [f64], o: usize) -> &'a [f64] {
        &all[o * self.system.n..(o + 1) * self.system.n]
    }

    /// A searched scale as it may be stored.
    fn candidate(&self, scale: f64) -> f64 {
        if self.power_of_two { power_of_two(scale) } else { snapped(scale, self.scale_bits) }
    }

    /// m: the scale at which the largest |w| of its owner is the grid's reach (the next power of two if only those may
    /// be); 1 where all are zero.
    pub fn max_abs_scales(&self) -> Vec<f64> {
        self.scales_of(self.around)
    }

    fn scales_of(&self, w: &[f64]) -> Vec<f64> {
        if let Some(fixed) = self.fixed {
            return fixed.to_vec();
        }
        let most = |w: &[f64]| w.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        let top = self.grid.reach();
        let usable = |peak: f64| match peak > 0.0 && top > 0.0 {
            true if self.power_of_two => next_power_of_two(peak / top),
            true => peak / top,
            false => 1.0,
        };
        match self.owner {
            ScaleOwner::Layer => vec![usable(most(w)); self.system.m],
            ScaleOwner::Channel | ScaleOwner::Neuron => {
                (0..self.system.m).map(|o| usable(most(self.row(w, o)))).collect()
            }
        }
    }

    /// The unconstrained weights, rounded to nearest with the max-abs scale: what chip tools ship, and the baseline.
    pub fn nearest(&self) -> Quantized {
        let (n, scale) = (self.system.n, self.scales_of(&self.system.free));
        let steps = Steps::<f64>::of(self.grid);
        let level = |at: usize| {
            let (w, s) = (self.system.free[at], scale[at / n]);
            match self.bounds {
                None => steps.nearest(w / s),
                Some((lower, upper)) => steps.nearest_within(w / s, lower[at] / s, upper[at] / s),
            }
        };
        Quantized { levels: (0..self.system.m * n).map(level).collect(), scale }
    }

    /// The best scales found per row (all rows alike if the layer owns the scale), best first, at most `keep`.
    /// Empty where no level lies within the bounds at any scale tried.
    fn search(&self, rounding: &dyn Rounding, keep: usize) -> Result<Vec<Vec<f64>>> {
        let base = self.max_abs_scales();
        if self.fixed.is_some() {
            return Ok(base.into_iter().map(|s| vec![s]).collect());
        }
        let m = self.system.m;
        let ladder = ladder(self.grid, self.power_of_two);
        // found[owner]: (cost, factor) of all candidates so far
        let owners = if self.owner == ScaleOwner::Layer { 1 } else { m };
        let mut found: Vec<Vec<(f64, f64)>> = vec![Vec::new(); owners];
        let mut next: Vec<Vec<f64>> =
            vec![(0..ladder.count).map(|i| ladder.first * ladder.ratio.powi(i)).collect(); owners];
        for round in 1..=1 + ladder.refinements {
            let lanes: Vec<Lane> = (0..m)
                .flat_map(|row| next[row % owners].iter().map(move |f| (row, *f)))
                .map(|(row, f)| Lane { row, scale: f * base[row] })
                .collect();
            let costs = rounding.costs(&lanes)?;
            let mut at = 0;
            let mut sums: Vec<Vec<f64>> = next.iter().map(|f| vec![0.0; f.len()]).collect();
            for row in 0..m {
                for sum in &mut sums[row % owners] {
                    *sum += costs[at];
                    at += 1;
                }
            }
            for (owner, sums) in sums.iter().enumerate() {
                found[owner].extend(sums.iter().copied().zip(next[owner].iter().copied()).filter(|c| c.0.is_finite()));
                found[owner].sort_by(|a, b| a.0.total_cmp(&b.0));
                // the ends of the ladder are no wall: the first refinement may step over them
                let width = ladder.ratio.powf(0.5f64.powi(round));
                next[owner] = match found[owner].first() {
                    Some(&(_, f)) if round == 1 => vec![f / width, f * width, f * width * width * width],
                    Some(&(_, f)) => vec![f / width, f * width],
                    None => Vec::new(),
                };
            }
        }
        let best = |o: usize| found[o % owners].iter().take(keep).map(|c| c.1 * base[o]).collect();
        Ok((0..m).map(best).collect())
    }

    /// Search and error feedback alone.
    pub fn feedback(&self, rounding: &dyn Rounding) -> Result<Quantized> {
        let scales = self.search(rounding, 1)?;
        let lanes: Vec<Lane> = self.first_lanes(&scales);
        let levels = rounding.levels(&lanes, 1)?;
        let found = Quantized { levels, scale: lanes.iter().map(|l| l.scale).collect() };
        let kept = self.nearest();
        let mut best = Best { cost: self.costs(&kept), kept };
        self.keep_better(&mut best, &self.costs(&found), &found);
        Ok(best.kept)
    }

    fn first_lanes(&self, scales: &[Vec<f64>]) -> Vec<Lane> {
        let base = self.max_abs_scales();
        (0..self.system.m).map(|row| Lane { row, scale: scales[row].first().copied().unwrap_or(base[row]) }).collect()
    }

    /// Search, then from several starts error feedback or K-best, descent, pair moves and re-scaling, as `plan` says.
    pub fn descent(&self, rounding: &dyn Rounding, plan: Plan) -> Result<Quantized> {
        let scales = self.search(rounding, plan.starts)?;
        let most = scales.iter().map(Vec::len).max().unwrap_or(0);
        let (base, mut open) = (self.max_abs_scales(), vec![true; self.system.m]);
        // round to nearest is the first start: the result is never worse than it
        let (cost, kept) = self.settle(rounding, self.nearest(), &open, false)?;
        let mut best = Best { cost, kept };
        for start in 0..most {
            // rows with fewer candidates repeat their first one
            let scale = |o: usize| scales[o].get(start).or(scales[o].first()).copied().unwrap_or(base[o]);
            self.round(rounding, plan.paths, false, scale, &open, &mut best)?;
        }
        // the best scales found are better starts than those of the search
        for _ in 0..plan.again {
            let scale = best.kept.scale.clone();
            open = self.round(rounding, plan.paths, plan.pairs, |o| scale[o], &open, &mut best)?;
            if !open.contains(&true) {
                break;
            }
        }
        Ok(best.kept)
    }

    /// Rounds the rows that are `open` at some scales, settles them, and keeps what is better. m: which rows are.
    fn round(
        &self,
        rounding: &dyn Rounding,
        paths: usize,
        pairs: bool,
        scale: impl Fn(usize) -> f64,
        open: &[bool],
        best: &mut Best,
    ) -> Result<Vec<bool>> {
        let n = self.system.n;
        let lanes: Vec<Lane> =
            (0..self.system.m).filter(|&o| open[o]).map(|row| Lane { row, scale: scale(row) }).collect();
        let levels = rounding.levels(&lanes, paths)?;
        let mut begun = best.kept.clone();
        for (at, lane) in lanes.iter().enumerate() {
            begun.scale[lane.row] = lane.scale;
            begun.levels[lane.row * n..(lane.row + 1) * n].copy_from_slice(&levels[at * n..(at + 1) * n]);
        }
        let (cost, settled) = self.settle(rounding, begun, open, pairs)?;
        Ok(self.keep_better(best, &cost, &settled))
    }

    /// Takes over what is better: row by row, or as a whole if the layer owns the scale. m: which rows were.
    fn keep_better(&self, best: &mut Best, cost: &[f64], other: &Quantized) -> Vec<bool> {
        let n = self.system.n;
        let whole = (self.owner == ScaleOwner::Layer).then(|| cost.iter().sum::<f64>() < best.cost.iter().sum::<f64>());
        let better: Vec<bool> = (0..self.system.m).map(|o| whole.unwrap_or(cost[o] < best.cost[o])).collect();
        for o in (0..self.system.m).filter(|&o| better[o]) {
            best.cost[o] = cost[o];
            best.kept.scale[o] = other.scale[o];
            best.kept.levels[o * n..(o + 1) * n].copy_from_slice(&other.levels[o * n..(o + 1) * n]);
        }
        better
    }

    /// Descent, pair moves (if `pairs`) and re-scaling of the rows that are `open`, in turn until none moves. Returns the
    /// rows' objectives, less a constant a row; infinite for those that are not open.
    fn settle(
        &self,
        rounding: &dyn Rounding,
        begun: Quantized,
        open: &[bool],
        pairs: bool,
    ) -> Result<(Vec<f64>, Quantized)> {
        let (n, m, s) = (self.system.n, self.system.m, self.system);
        let mut q = begun;
        let mut hq = vec![0.0; m * n];
        dense::product_of(&mut hq, &q.levels, &s.h, n, open);
        let mut going = open.to_vec();
        for _ in 0..ROUNDS {
            rounding.descend(Rows::all(&mut q, &mut hq, &going))?;
            let paired = if pairs { rounding.pair(Rows::all(&mut q, &mut hq, &going))? } else { vec![false; m] };
            self.rescale(&mut q, &hq, &mut going);
            going.iter_mut().zip(&paired).for_each(|(going, paired)| *going |= paired);
            if self.owner == ScaleOwner::Layer && going.contains(&true) {
                going.fill(true);
            }
            if !going.contains(&true) {
                break;
            }
        }
        let cost = |o: usize| if open[o] { self.cost(&q, o, self.row(&hq, o)) } else { f64::INFINITY };
        Ok(((0..m).map(cost).collect(), q))
    }

    /// Gives the rows that are `going` the best scale for the levels they have (METHOD section 5.5), where their box
    /// lets them; those whose scale stays stop going.
    fn rescale(&self, q: &mut Quantized, hq: &[f64], going: &mut [bool]) {
        if self.fixed.is_some() {
            going.fill(false);
            return;
        }
        let best = |rows: std::ops::Range<usize>| {
            let (mut num, mut den) = (0.0, 0.0);
            for o in rows {
                let k = self.row(&q.levels, o);
                num += dense::dot(k, self.row(&self.system.b, o));
                den += dense::dot(k, self.row(hq, o));
            }
            self.candidate(num / den)
        };
        let m = self.system.m;
        let whole = self.owner == ScaleOwner::Layer;
        let size = if whole { m.max(1) } else { 1 };
        for rows in (0..m / size).map(|group| group * size..(group + 1) * size) {
            if !going[rows.start] {
                continue;
            }
            let (before, better) = (q.scale[rows.start], best(rows.clone()));
            let moves = self.may_rescale(q, better, rows.clone()) && (better - before).abs() > 1e-9 * better;
            if moves {
                q.scale[rows.clone()].fill(better);
            }
            going[rows].fill(moves);
        }
    }

    /// Objective of row `o` less what no levels can change; infinite outside the box. `hq`: H times its levels.
    pub fn cost(&self, q: &Quantized, o: usize, hq: &[f64]) -> f64 {
        let (k, scale) = (self.row(&q.levels, o), q.scale[o]);
        if !self.within(q, scale, o..o + 1, 1e-9 * scale) {
            return f64::INFINITY;
        }
        scale * (scale * dense::dot(k, hq) - 2.0 * dense::dot(k, self.row(&self.system.b, o)))
    }

    pub fn costs(&self, q: &Quantized) -> Vec<f64> {
        let (n, m) = (self.system.n, self.system.m);
        let mut hq = vec![0.0; m * n];
        dense::product(&mut hq, false, &q.levels, &self.system.h, (m, n, n), dense::par(m * n * n));
        (0..m).map(|o| self.cost(q, o, self.row(&hq, o))).collect()
    }

    /// The first row that the box leaves no level at its scale, if any.
    pub fn outside(&self, q: &Quantized) -> Option<usize> {
        (0..self.system.m).find(|&o| !self.within(q, q.scale[o], o..o + 1, 1e-9 * q.scale[o]))
    }

    /// Whether the rows may take `scale` with the levels they have: a positive number, and all within the box.
    fn may_rescale(&self, q: &Quantized, scale: f64, rows: std::ops::Range<usize>) -> bool {
        scale > 0.0 && scale.is_finite() && self.within(q, scale, rows, 0.0)
    }

    fn within(&self, q: &Quantized, scale: f64, rows: std::ops::Range<usize>, hair: f64) -> bool {
        let n = self.system.n;
        self.bounds.is_none_or(|(lower, upper)| {
            (rows.start * n..rows.end * n).all(|at| {
                let value = scale * q.levels[at];
                lower[at] - hair <= value && value <= upper[at] + hair
            })
        })
    }
}

/// The candidates for a scale, in units of the max-abs one: `first` times powers of `ratio`, refined between.
pub(super) struct Ladder {
    pub first: f64,
    pub ratio: f64,
    pub count: i32,
    pub refinements: i32,
}

/// The max-abs power of two and those below.
const POWERS: Ladder = Ladder { first: 1.0, ratio: 0.5, count: 5, refinements: 0 };

/// The fewer the levels, the farther below the max-abs scale is the best one, and the flatter the objective around it.
pub(super) fn ladder(grid: &Grid, power_of_two: bool) -> Ladder {
    if power_of_two {
        return POWERS;
    }
    let (ratio, count) = match grid.levels().len() {
        0..=3 => (0.89, 14),
        4..=7 => (0.90, 11),
        8..=15 => (0.92, 10),
        16..=63 => (0.95, 8),
        _ => (0.97, 6),
    };
    Ladder { first: 1.05, ratio, count, refinements: 2 }
}
