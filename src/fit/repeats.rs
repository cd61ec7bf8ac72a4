//! Rows that count together: several neurons that stand for one unit, of which only the sum is read. On a coarse grid each
//! is fitted to what the ones before it leave of the sum, so that the sum is off by no more than its last row is: as if its
//! steps were as many times finer as there are rows.

use super::bounds::Bounds;
use super::problem::Problem;
use super::signs::Signs;
use super::solve::{Objectives, Solution, Spec, Status, solve_with};
use crate::chip::ScaleOwner;
use crate::compute::Team;
use crate::compute::solver::dense;
use crate::error::Result;

/// As `solve_with`, where the rows o `per` .. (o + 1) `per` are read as one sum. A row's objectives are those of the sum so
/// far: of what its own weights and those of the rows before it lack of their targets. Without a grid, or where rows
/// share scales, types or signs, it is `solve_with`: they are all found together.
///
/// # Errors
/// As `solve_with`.
pub fn solve_repeats(
    team: &Team,
    problem: &Problem,
    spec: &Spec,
    per: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Solution> {
    let (n, m) = (problem.n, problem.m);
    let alone = spec.grid.is_some()
        && spec.palette.is_none()
        && spec.types.is_none()
        && spec.signs != Signs::Input
        && spec.owner == ScaleOwner::Channel;
    if per < 2 || !m.is_multiple_of(per) || !alone {
        return solve_with(team, problem, spec, cancelled);
    }
    let mut found: Vec<Solution> = Vec::with_capacity(per);
    for k in 0..per {
        let rows: Vec<usize> = (k..m).step_by(per).collect();
        let mut part = problem.rows(&rows);
        if let Some(before) = found.last() {
            let excess: Vec<f64> = before.w.iter().zip(&before.free).map(|(w, free)| w - free).collect();
            part = part.less(&excess);
        }
        found.push(solve_with(team, &part, &spec.rows(&rows, n), cancelled)?);
    }
    Ok(interleaved(found, n))
}

impl Problem {
    /// The same with only the rows `rows`.
    fn rows(&self, rows: &[usize]) -> Self {
        let n = self.n;
        Self {
            m: rows.len(),
            b: picked(&self.b, rows, n),
            tt: self.tt.as_ref().map(|tt| picked(tt, rows, 1)),
            prior: self.prior.as_ref().map(|prior| picked(prior, rows, n)),
            ..self.clone()
        }
    }

    /// The same with weights `excess` (m x n) less in all targets, and in what the ridge pulls towards.
    fn less(mut self, excess: &[f64]) -> Self {
        let n = self.n;
        let mut current = vec![0.0; self.m * n];
        dense::product(&mut current, false, excess, &self.h, (self.m, n, n), dense::par(self.m * n * n));
        for (o, tt) in self.tt.iter_mut().flatten().enumerate() {
            let row = o * n..(o + 1) * n;
            let (excess, current) = (&excess[row.clone()], &current[row.clone()]);
            *tt = (*tt - 2.0 * dense::dot(excess, &self.b[row]) + dense::dot(excess, current)).max(0.0);
        }
        self.b.iter_mut().zip(&current).for_each(|(b, less)| *b -= less);
        let prior = self.prior.get_or_insert_with(|| vec![0.0; self.m * n]);
        prior.iter_mut().zip(excess).for_each(|(prior, less)| *prior -= less);
        self
    }
}

impl Spec {
    /// For only the rows `rows` of a problem of `n` inputs.
    fn rows(&self, rows: &[usize], n: usize) -> Self {
        let bounds = |all: &Bounds| match all {
            Bounds::Row(all) => Bounds::Row(picked(all, rows, 1)),
            Bounds::Element(all) => Bounds::Element(picked(all, rows, n)),
            all => all.clone(),
        };
        Self {
            lower: bounds(&self.lower),
            upper: bounds(&self.upper),
            mask: self.mask.as_ref().map(|mask| picked(mask, rows, n)),
            scale: self.scale.as_ref().map(|scale| if scale.len() == 1 { scale.clone() } else { picked(scale, rows, 1) }),
            ..self.clone()
        }
    }
}

/// Rows of `width` values.
fn picked<T: Copy>(all: &[T], rows: &[usize], width: usize) -> Vec<T> {
    rows.iter().flat_map(|&row| &all[row * width..(row + 1) * width]).copied().collect()
}

/// Row after row, one from each part in turn.
fn woven<T: Copy>(parts: &[&[T]], width: usize) -> Vec<T> {
    let rows = parts.first().map_or(0, |part| part.len() / width.max(1));
    (0..rows).flat_map(|row| parts.iter().flat_map(move |part| &part[row * width..(row + 1) * width])).copied().collect()
}

fn interleaved(found: Vec<Solution>, n: usize) -> Solution {
    let of = |pick: fn(&Solution) -> &[f64], width: usize| woven(&found.iter().map(pick).collect::<Vec<_>>(), width);
    let codes: Option<Vec<&[i32]>> = found.iter().map(|s| s.codes.as_deref()).collect();
    let objective = Objectives {
        rtn: of(|s| &s.objective.rtn, 1),
        fit: of(|s| &s.objective.fit, 1),
        grid: of(|s| &s.objective.grid, 1),
        bound: of(|s| &s.objective.bound, 1),
    };
    let (stored, bound): (f64, f64) = (objective.grid.iter().sum(), objective.bound.iter().sum());
    Solution {
        w: of(|s| &s.w, n),
        codes: codes.map(|codes| woven(&codes, n)),
        palette: None,
        types: None,
        signs: None,
        scale: of(|s| &s.scale, 1),
        free: of(|s| &s.free, n),
        objective,
        status: match () {
            () if found.iter().any(|s| s.status == Status::IterationLimit) => Status::IterationLimit,
            () if found.iter().any(|s| s.status == Status::Heuristic) => Status::Heuristic,
            () => Status::Optimal,
        },
        iterations: found.iter().map(|s| s.iterations).max().unwrap_or(0),
        gap: if stored > 0.0 { ((stored - bound) / stored).max(0.0) } else { 0.0 },
        worst_gap: found.iter().map(|s| s.worst_gap).fold(0.0, f64::max),
        damping: found.iter().map(|s| s.damping).fold(0.0, f64::max),
        note: found.into_iter().find_map(|s| s.note),
    }
}
