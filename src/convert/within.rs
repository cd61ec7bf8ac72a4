//! A layer's problem under what the chip can hold: grid, range, signs, and scales that leave room for the biases.

use super::encode::{self, Code, Ramp};
use super::layer::{Rows, Solved, Task};
use super::quantize;
use super::walk::Walk;
use crate::chip::ScaleOwner;
use crate::compute::gram::Sums;
use crate::error::Result;
use crate::fit::{Bounds, Signs, Spec};

/// Of a scale, which becomes a threshold: the error that this adds is below 1e-8 of the targets' square, and no device's
/// rounding moves it.
const SCALE_BITS: i32 = 13;
/// K of K-best, where the grid is coarse enough for it: a conversion gains less from more than it costs.
const PATHS: usize = 8;
/// Thresholds a step that a bias may be before its unit's threshold is widened, and bits of a bias that need that.
const MOST_BIAS: f64 = 2.0;
const NARROW: u32 = 16;
/// The same for a unit's largest weight where units share a scale, in that of the middle unit.
const MOST_WEIGHT: f64 = 4.0;
/// Fits again with scales that leave room for the biases, which move a little each time.
const TRIES: usize = 4;
const MORE_ROOM: f64 = 1.1;

/// Bounds of m rows whose columns' signs are 1 or -1 where given, else 0.
fn signed_bounds(given: &[i8], m: usize) -> (Bounds, Bounds) {
    if given.iter().all(|g| *g == 0) {
        return (Bounds::None, Bounds::None);
    }
    let bound = |open: f64, closed: i8| {
        let row: Vec<f64> = given.iter().map(|g| if *g == closed { 0.0 } else { open }).collect();
        Bounds::Element(row.repeat(m))
    };
    (bound(f64::NEG_INFINITY, 1), bound(f64::INFINITY, -1))
}

impl Walk<'_> {
    /// Solves it. Where its biases are too wide for the chip at the best scales, the scales are only as fine as the biases
    /// allow, and the weights are fitted to those; where groups have to share a scale, they take the coarsest.
    pub(super) fn solve_within(&self, task: &Task, rows: &Rows, targets: &Sums) -> Result<Solved> {
        let m = task.shape.c * rows.population / task.groups;
        let limits = self.limits(task);
        let mut specs = self.specs(task, rows);
        specs.iter_mut().enumerate().for_each(|(g, spec)| spec.mask = task.mask(g));
        let mut tried = self.solve(task, rows, targets, &specs, true)?;
        if self.rules.grid.is_none() {
            return Ok(tried);
        }
        let mut least = vec![0.0f64; tried.bias.len()];
        // a search that ends elsewhere each time moves the biases more than one that rounds the same weights again
        let (tries, room) = if self.rules.types.is_some() { (3 * TRIES, MORE_ROOM) } else { (TRIES, 1.0) };
        for _ in 0..tries {
            let scale: Vec<f64> = tried.solutions.iter().flat_map(|s| s.scale.iter().copied()).collect();
            let now = quantize::least_scales(&tried.bias, task.fires, &limits);
            for ((all, now), scale) in least.iter_mut().zip(&now).zip(&scale) {
                *all = all.max(if now > scale { now * room } else { *now });
            }
            let mut wanted: Vec<f64> = scale.iter().zip(&least).map(|(scale, least)| scale.max(*least)).collect();
            if limits.one_scale {
                let most = wanted.iter().copied().fold(0.0, f64::max);
                wanted.fill(most);
            }
            if wanted == scale {
                break;
            }
            for ((spec, found), scale) in specs.iter_mut().zip(&tried.solutions).zip(wanted.chunks(m)) {
                spec.scale = Some(scale.to_vec());
                // the signs are settled: looking for them again costs more than it could bring
                if let Some(signs) = &found.signs {
                    (spec.lower, spec.upper) = signed_bounds(signs, m);
                }
            }
            tried = self.solve(task, rows, targets, &specs, true)?;
        }
        Ok(tried)
    }

    /// Biases of few bits, or one scale for all rows of a layer.
    pub(super) fn narrow(&self) -> bool {
        self.rules.grid.is_some()
            && (self.rules.owner == ScaleOwner::Layer || self.options.chip.state.bias_bits < NARROW)
    }

    /// Where a layer's units share a scale, or biases have few bits, one unit with a large bias or large weights (mostly one
    /// that is nearly always silent, so that its threshold is low) makes all others coarse. Its threshold is widened instead,
    /// and its targets with it; none if no unit needs it.
    pub(super) fn widened<'a>(&self, code: &'a mut Code, solved: &Solved, targets: &mut Sums) -> Option<&'a Code> {
        let shared = self.rules.owner == ScaleOwner::Layer;
        let narrow = self.narrow();
        // a threshold that stands for twice as much halves the current, where that is proportional to the unit's input
        let through_zero = |r: &Ramp| r.start == 0.0 && r.rest == 0.0;
        let proportional = code.population() == 1 && code.ramps.iter().flatten().all(through_zero);
        let linear = !encode::inverts(&self.spiking.model) && !self.spiking.model.is_leaky();
        if self.rules.grid.is_none() || !(narrow && proportional && linear) {
            return None;
        }
        let rows = solved.solutions.iter().flat_map(|s| s.free.chunks(targets.n));
        let largest: Vec<f64> = rows.map(|row| row.iter().fold(0.0, |most, w| w.abs().max(most))).collect();
        let mut sorted = largest.clone();
        sorted.sort_by(f64::total_cmp);
        let most = if shared { MOST_WEIGHT * sorted[sorted.len() / 2] } else { f64::INFINITY };
        let by_weight = |largest: f64| if most > 0.0 { largest / most } else { 1.0 };
        let factors: Vec<f64> =
            solved.bias.iter().zip(largest).map(|(b, w)| (b.abs() / MOST_BIAS).max(by_weight(w)).max(1.0)).collect();
        if factors.iter().all(|f| *f == 1.0) {
            return None;
        }
        let n = targets.n;
        for (row, factor) in factors.into_iter().enumerate() {
            code.ramps[row].iter_mut().for_each(|r| (r.width, r.value) = (r.width * factor, r.value * factor));
            targets.b[row * n..(row + 1) * n].iter_mut().for_each(|b| *b /= factor);
            targets.z_sum[row] /= factor;
            targets.zz[row] /= factor * factor;
        }
        Some(code)
    }

    /// What the chip can hold, and how it is looked for, without what depends on the layer.
    pub(super) fn spec(&self) -> Spec {
        Spec {
            grid: self.rules.grid.clone(),
            types: self.rules.types,
            owner: self.rules.owner,
            scale_bits: SCALE_BITS,
            power_of_two: self.rules.power_of_two,
            method: self.options.method,
            paths: PATHS,
            ..Spec::default()
        }
    }

    /// Whether nothing of what the chip asks for depends on the layer.
    pub(super) fn plain(&self) -> bool {
        self.rules.range.is_none()
            && self.rules.types.is_none()
            && !self.rules.sign_of_source
            && self.rules.owner != ScaleOwner::Layer
    }

    /// For each group's problem.
    fn specs(&self, task: &Task, rows: &Rows) -> Vec<Spec> {
        let m = task.shape.c * rows.population / task.groups;
        let (lower, upper) = self.range(task, m);
        let own = Spec { lower, upper, ..self.spec() };
        let Some(signs) = self.rules.sign_of_source.then(|| self.sources_signs(task)).flatten() else {
            // Inputs have no sign of their own: their magnitudes may be given either.
            let grid =
                if self.rules.sign_of_source { own.grid.as_ref().map(|g| g.with_signs()) } else { own.grid.clone() };
            return vec![Spec { grid, ..own }; task.groups];
        };
        let spec = |signs: super::signs::Columns| {
            let (lower, upper) = signed_bounds(&signs.given, m);
            Spec { signs: Signs::Input, sign_groups: Some(signs.group), lower, upper, ..own.clone() }
        };
        signs.into_iter().map(spec).collect()
    }

    /// Bounds of the weights (m x n) from the chip's range, which is per spike; for the network's input, per full input. A
    /// readout's unit is free, so that its range is no bound.
    fn range(&self, task: &Task, m: usize) -> (Bounds, Bounds) {
        let Some([low, high]) = self.rules.range.filter(|_| task.fires) else { return (Bounds::None, Bounds::None) };
        let per_code = task.blocks.iter().zip(&task.columns).flat_map(|(b, c)| {
            let source = &self.spiking.nodes[b.source];
            let size = if source.constant { source.peak as f64 } else { 1.0 };
            std::iter::repeat_n(1.0 / (size * f64::from(1u32 << c.shift)), c.channels * c.taps)
        });
        let per_code: Vec<f64> = per_code.collect();
        let bound = |v: f64| Bounds::Element(per_code.iter().map(|p| v * p).collect::<Vec<_>>().repeat(m));
        (bound(low), bound(high))
    }
}
