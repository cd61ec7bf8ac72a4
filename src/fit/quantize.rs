//! Grid constraint: levels and scales for every row, by search of the scale, error feedback, coordinate descent and
//! re-scaling. METHOD section 5.
//!
//! The scale is searched against the true objective: at each candidate the row is rounded with error feedback, which
//! yields the objective exactly at no further cost. The best few candidates go down by coordinate descent, take the
//! best scale for their codes, and go down again until neither helps; the best of them is kept.

use super::snap::snapped;
use super::system::System;
use crate::chip::{Grid, ScaleOwner};
use crate::compute::solver::{Steps, dense};
use crate::error::Result;

use super::rounding::{Lane, Rounding};

/// Most sweeps of one descent; a fixed point comes long before.
pub(super) const SWEEPS: usize = 100;
/// Most rounds of descent and re-scaling.
const ROUNDS: usize = 50;

/// What to quantize.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub system: &'a System,
    pub grid: &'a Grid,
    pub owner: ScaleOwner,
    /// m: given scales, not searched.
    pub fixed: Option<&'a [f64]>,
    /// Significant bits of searched scales.
    pub scale_bits: i32,
    /// m x n (live inputs) each: the box.
    pub bounds: Option<(&'a [f64], &'a [f64])>,
}

/// Levels (m x n, live inputs, in units of the scale) and scales (m).
#[derive(Debug, Clone)]
pub(super) struct Quantized {
    pub levels: Vec<f64>,
    pub scale: Vec<f64>,
}

impl Task<'_> {
    fn row<'a>(&self, all: &'a [f64], o: usize) -> &'a [f64] {
        &all[o * self.system.n..(o + 1) * self.system.n]
    }

    /// m: the scale at which the largest |w| of its owner is the largest level; 1 where all are zero.
    pub fn max_abs_scales(&self) -> Vec<f64> {
        if let Some(fixed) = self.fixed {
            return fixed.to_vec();
        }
        let most = |w: &[f64]| w.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        let top = self.grid.max_abs();
        let usable = |peak: f64| if peak > 0.0 && top > 0.0 { peak / top } else { 1.0 };
        match self.owner {
            ScaleOwner::Layer => vec![usable(most(&self.system.free)); self.system.m],
            ScaleOwner::Channel | ScaleOwner::Neuron => {
                (0..self.system.m).map(|o| usable(most(self.row(&self.system.free, o)))).collect()
            }
        }
    }

    /// Round to nearest with the max-abs scale: what chip tools ship, and the baseline.
    pub fn nearest(&self) -> Quantized {
        let (n, scale) = (self.system.n, self.max_abs_scales());
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
        let (ratio, count) = ladder(self.grid);
        // found[owner]: (cost, factor) of all candidates so far
        let owners = if self.owner == ScaleOwner::Layer { 1 } else { m };
        let mut found: Vec<Vec<(f64, f64)>> = vec![Vec::new(); owners];
        let mut next: Vec<Vec<f64>> = vec![(0..count).map(|i| 1.05 * ratio.powi(i)).collect(); owners];
        for round in 1..=3 {
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
                let width = ratio.powf(0.5f64.powi(round));
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
        let levels = rounding.levels(&lanes)?;
        let found = Quantized { levels, scale: lanes.iter().map(|l| l.scale).collect() };
        let mut kept = self.nearest();
        let mut least = self.costs(&kept);
        self.keep_better(&mut least, &mut kept, &self.costs(&found), &found);
        Ok(kept)
    }

    fn first_lanes(&self, scales: &[Vec<f64>]) -> Vec<Lane> {
        let base = self.max_abs_scales();
        (0..self.system.m).map(|row| Lane { row, scale: scales[row].first().copied().unwrap_or(base[row]) }).collect()
    }

    /// Search, error feedback, descent and re-scaling from several starts.
    pub fn descent(&self, rounding: &dyn Rounding) -> Result<Quantized> {
        let starts = if self.grid.levels().len() > 16 { 2 } else { 4 };
        let scales = self.search(rounding, starts)?;
        let most = scales.iter().map(Vec::len).max().unwrap_or(0);
        // round to nearest is the first start: the result is never worse than it
        let (mut least, mut kept) = self.settle(rounding, self.nearest())?;
        for start in 0..most {
            // rows with fewer candidates repeat their first one
            let mut lanes = self.first_lanes(&scales);
            for lane in &mut lanes {
                lane.scale = scales[lane.row].get(start).copied().unwrap_or(lane.scale);
            }
            let levels = rounding.levels(&lanes)?;
            let begun = Quantized { levels, scale: lanes.iter().map(|l| l.scale).collect() };
            let (cost, settled) = self.settle(rounding, begun)?;
            self.keep_better(&mut least, &mut kept, &cost, &settled);
        }
        Ok(kept)
    }

    /// Takes over what is better: row by row, or as a whole if the layer owns the scale.
    fn keep_better(&self, least: &mut [f64], kept: &mut Quantized, cost: &[f64], other: &Quantized) {
        let n = self.system.n;
        let whole = self.owner == ScaleOwner::Layer;
        let better = cost.iter().sum::<f64>() < least.iter().sum::<f64>();
        for o in 0..self.system.m {
            if if whole { better } else { cost[o] < least[o] } {
                least[o] = cost[o];
                kept.scale[o] = other.scale[o];
                kept.levels[o * n..(o + 1) * n].copy_from_slice(&other.levels[o * n..(o + 1) * n]);
            }
        }
    }

    /// Descent and re-scaling in turn until neither moves. Returns the rows' objectives, less a constant a row.
    fn settle(&self, rounding: &dyn Rounding, begun: Quantized) -> Result<(Vec<f64>, Quantized)> {
        let (n, m, s) = (self.system.n, self.system.m, self.system);
        let mut q = begun;
        let mut hq = vec![0.0; m * n];
        dense::product(&mut hq, false, &q.levels, &s.h, (m, n, n), dense::par(m * n * n));
        let mut going = vec![true; m];
        for _ in 0..ROUNDS {
            let moved = rounding.descend(&mut q, &mut hq, &going)?;
            let (num, den): (Vec<f64>, Vec<f64>) = (0..m)
                .map(|o| {
                    let k = self.row(&q.levels, o);
                    (dense::dot(k, self.row(&s.b, o)), dense::dot(k, self.row(&hq, o)))
                })
                .unzip();
            let mut changed = false;
            if self.fixed.is_none() {
                if self.owner == ScaleOwner::Layer {
                    let better = snapped(num.iter().sum::<f64>() / den.iter().sum::<f64>(), self.scale_bits);
                    if self.may_rescale(&q, better, 0..m) {
                        changed = (better - q.scale[0]).abs() > 1e-9 * better;
                        q.scale.fill(better);
                    }
                    going.fill(changed);
                } else {
                    for o in (0..m).filter(|&o| going[o]).collect::<Vec<_>>() {
                        let better = snapped(num[o] / den[o], self.scale_bits);
                        going[o] = false;
                        if self.may_rescale(&q, better, o..o + 1) {
                            going[o] = (better - q.scale[o]).abs() > 1e-9 * better;
                            q.scale[o] = better;
                        }
                        changed |= going[o];
                    }
                }
            }
            if !changed || !moved && self.fixed.is_some() {
                break;
            }
        }
        let cost = (0..m).map(|o| self.cost(&q, o, self.row(&hq, o))).collect();
        Ok((cost, q))
    }

    /// Objective of row `o` less what no levels can change; infinite outside the box. `hq`: H times its levels.
    fn cost(&self, q: &Quantized, o: usize, hq: &[f64]) -> f64 {
        let (k, scale) = (self.row(&q.levels, o), q.scale[o]);
        if !self.within(q, scale, o..o + 1, 1e-9 * scale) {
            return f64::INFINITY;
        }
        scale * (scale * dense::dot(k, hq) - 2.0 * dense::dot(k, self.row(&self.system.b, o)))
    }

    fn costs(&self, q: &Quantized) -> Vec<f64> {
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

/// The candidates for a scale: 1.05 times the max-abs scale, times powers of a ratio. The fewer the levels, the farther
/// below the max-abs scale is the best one, and the flatter the objective around it.
fn ladder(grid: &Grid) -> (f64, i32) {
    match grid.levels().len() {
        0..=3 => (0.89, 14),
        4..=7 => (0.90, 11),
        8..=15 => (0.92, 10),
        16..=63 => (0.95, 8),
        _ => (0.97, 6),
    }
}
