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

/// As `solve_with`, where the rows o `per` .. (o + 1) `per` have the same targets, up to a constant, and are read as one sum: each
/// in turn, and at last the first again. Objectives are those of a unit, of the mean of its rows (`rtn`: all rounded alike).
/// Without a grid, or where rows share scales, types or signs, it is `solve_with`: they are all found together.
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
    // what the weights found so far are off their targets, added up over a unit's rows
    let mut excess = vec![0.0; m / per * n];
    let mut found: Vec<Solution> = Vec::with_capacity(per);
    let (mut objectives, mut of_sum) = (Vec::with_capacity(per + 1), vec![]);
    // the problems of the turns have one after the other
    let mut h = problem.h.clone();
    for turn in 0..=per {
        let rows: Vec<usize> = (turn % per..m).step_by(per).collect();
        let before = (turn == per).then(|| found.remove(0));
        if let Some(before) = &before {
            add(&mut excess, before, -1.0);
        }
        let part = problem.rows(&rows, h).less(&excess);
        let mut new = solve_with(team, &part, &spec.rows(&rows, n), cancelled)?;
        h = part.h;
        new.free.iter_mut().zip(&excess).for_each(|(free, e)| *free += e);
        let now = std::mem::replace(&mut of_sum, new.objective.grid.clone());
        if let Some(before) = &before {
            for (o, (now, sum)) in now.iter().zip(&mut of_sum).enumerate().filter(|(_, (now, sum))| *now <= *sum) {
                new.keep(before, o);
                *sum = *now;
            }
        }
        add(&mut excess, &new, 1.0);
        objectives.push(new.objective.clone());
        found.insert(turn % per, new);
    }
    let first = objectives.swap_remove(0);
    let rest = match spec.is_boxed() {
        true => {
            let units = problem.rows(&(0..m).step_by(per).collect::<Vec<_>>(), h);
            solve_with(team, &units, &Spec::default(), cancelled)?.objective.fit
        }
        false => first.fit.clone(),
    };
    // the mean is off by a share of what the sum is off
    let mean = |(rest, sum): (&f64, &f64)| rest + (sum - rest).max(0.0) / (per * per) as f64;
    let of_unit = Objectives { grid: rest.iter().zip(&of_sum).map(mean).collect(), bound: rest, ..first };
    Ok(interleaved(found, n, &of_unit))
}

/// Adds `times` what a part's weights are off its own targets.
fn add(excess: &mut [f64], part: &Solution, times: f64) {
    excess.iter_mut().zip(part.w.iter().zip(&part.free)).for_each(|(e, (w, free))| *e += times * (w - free));
}

impl Solution {
    /// Takes row `o` of `before`.
    fn keep(&mut self, before: &Solution, o: usize) {
        let n = self.w.len() / self.scale.len();
        let row = o * n..(o + 1) * n;
        self.w[row.clone()].copy_from_slice(&before.w[row.clone()]);
        if let (Some(codes), Some(before)) = (&mut self.codes, &before.codes) {
            codes[row.clone()].copy_from_slice(&before[row]);
        }
        self.scale[o] = before.scale[o];
    }
}

impl Problem {
    /// The same with only the rows `rows`, and `h`, which is this one's.
    fn rows(&self, rows: &[usize], h: Vec<f64>) -> Self {
        let n = self.n;
        Self {
            n,
            m: rows.len(),
            h,
            b: picked(&self.b, rows, n),
            tt: self.tt.as_ref().map(|tt| picked(tt, rows, 1)),
            prior: self.prior.as_ref().map(|prior| picked(prior, rows, n)),
            ridge: self.ridge,
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
            scale: self
                .scale
                .as_ref()
                .map(|scale| if scale.len() == 1 { scale.clone() } else { picked(scale, rows, 1) }),
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
    (0..rows)
        .flat_map(|row| parts.iter().flat_map(move |part| &part[row * width..(row + 1) * width]))
        .copied()
        .collect()
}

/// `units`: their objectives.
fn interleaved(found: Vec<Solution>, n: usize, units: &Objectives) -> Solution {
    let of = |pick: fn(&Solution) -> &[f64], width: usize| woven(&found.iter().map(pick).collect::<Vec<_>>(), width);
    let each = |rows: &[f64]| woven(&vec![rows; found.len()], 1);
    let codes: Option<Vec<&[i32]>> = found.iter().map(|s| s.codes.as_deref()).collect();
    let gap = |grid: f64, bound: f64| if grid > 0.0 { ((grid - bound) / grid).max(0.0) } else { 0.0 };
    let (grid, bound) = (&units.grid, &units.bound);
    Solution {
        w: of(|s| &s.w, n),
        codes: codes.map(|codes| woven(&codes, n)),
        palette: None,
        types: None,
        signs: None,
        scale: of(|s| &s.scale, 1),
        free: of(|s| &s.free, n),
        objective: Objectives { rtn: each(&units.rtn), fit: each(&units.fit), grid: each(grid), bound: each(bound) },
        status: Status::Heuristic,
        iterations: found.iter().map(|s| s.iterations).max().unwrap_or(0),
        gap: gap(grid.iter().sum(), bound.iter().sum()),
        worst_gap: grid.iter().zip(bound).map(|(grid, bound)| gap(*grid, *bound)).fold(0.0, f64::max),
        damping: found.iter().map(|s| s.damping).fold(0.0, f64::max),
        note: found.into_iter().find_map(|s| s.note),
    }
}
