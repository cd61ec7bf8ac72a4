//! Signs that belong to the inputs (Dale's law): all stored weights of an input have its sign, which is part of the fit;
//! what is stored are magnitudes, on an unsigned grid or continuous.
//!
//! With signs s given and S = diag(s), W = V S is the ordinary problem in V >= 0: H' = S H S, B' = B S, bounds turned
//! over. So this is a transformation around the other solvers; `choose` finds s.

mod choose;

use super::bounds::Bounds;
use super::problem::Problem;
use super::solve::{Method, Solution, Spec, Status, gaps, solve_with};
use super::system::System;
use crate::compute::Team;
use crate::error::{Error, Result};
use choose::Choice;

/// Searches for signs: each goes from a problem with a ridge (in units of the mean of H's diagonal), under which flips
/// interact less, to the problem itself. What is best for some layers is not for others.
const SEARCHES: [&[f64]; 3] = [&[0.0], &[1e-3, 0.0], &[1e-2, 1e-3, 0.0]];

/// Who owns the sign of a stored weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signs {
    /// Every weight its own.
    #[default]
    Free,
    /// The input: its source neuron, or its synapse row. The grid holds magnitudes.
    Input,
}

impl std::str::FromStr for Signs {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "free" => Ok(Signs::Free),
            "input" => Ok(Signs::Input),
            _ => Err(Error::input("signs", format!("`{text}` is none of free, input"))),
        }
    }
}

/// # Errors
/// `Input`: the grid has signs of its own; groups of signs that do not fit the problem.
pub(super) fn check(problem: &Problem, spec: &Spec) -> Result<()> {
    if let Some(groups) = &spec.sign_groups
        && (groups.len() != problem.n || groups.iter().any(|g| *g >= problem.n))
    {
        return Err(Error::input("signs", format!("their groups do not fit {} inputs", problem.n)));
    }
    if spec.signs == Signs::Input && spec.grid.as_ref().is_some_and(|grid| !grid.is_unsigned()) {
        return Err(Error::input("signs", "the inputs own them, so the grid must be unsigned (u4, say)"));
    }
    Ok(())
}

/// Solves with `spec.signs` = `Input`.
///
/// # Errors
/// As `solve_with`; `Input` also for an input whose bounds allow neither sign.
pub(super) fn solve(
    team: &Team,
    problem: &Problem,
    spec: &Spec,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Solution> {
    let signed = Signed { team, problem, spec, cancelled };
    let signs = signed.choose()?;
    let mut found = signed.under(&signs)?;
    // The bound is what no signs can undercut, so the gap is what the signs cost too.
    found.objective.bound = solve_with(team, problem, &signed.relaxed(), cancelled)?.objective.bound;
    (found.gap, found.worst_gap) = gaps(&found.objective, &System::new(problem)?.targets());
    found.status = if found.worst_gap <= spec.tolerance { Status::Optimal } else { Status::Heuristic };
    for all in [&mut found.w, &mut found.free] {
        all.chunks_exact_mut(problem.n).for_each(|row| row.iter_mut().zip(&signs).for_each(|(w, s)| *w *= s));
    }
    found.signs = Some(signs.iter().map(|s| *s as i8).collect());
    Ok(found)
}

/// A problem whose inputs own the signs.
struct Signed<'a> {
    team: &'a Team,
    problem: &'a Problem,
    spec: &'a Spec,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Signed<'_> {
    /// n values, 1 or -1.
    fn choose(&self) -> Result<Vec<f64>> {
        let mut found: Vec<Vec<f64>> = Vec::new();
        for ridges in SEARCHES {
            let mut last = None;
            for ridge in ridges {
                let stiff = stiffened(self.problem, *ridge);
                let system = System::new(&stiff)?;
                let choice = Choice::new(self.team, &stiff, self.spec, &system, self.cancelled)?;
                let signs = choice.best(last)?;
                last = Some(signs.clone());
                found.retain(|other| *other != signs);
                found.push(signs);
            }
        }
        let mut best: Option<(f64, Vec<f64>)> = None;
        for signs in found {
            let cost = self.cost(&signs)?;
            if best.as_ref().is_none_or(|b| cost < b.0) {
                best = Some((cost, signs));
            }
        }
        let mut signs = best.map(|b| b.1).unwrap_or_default();
        let stored = self.spec.grid.is_some() || self.spec.palette.is_some();
        if stored && self.spec.method != Method::Rtn {
            let system = System::new(self.problem)?;
            let choice = Choice::new(self.team, self.problem, self.spec, &system, self.cancelled)?;
            choice.improve(&mut signs, |signs| self.cost(signs))?;
        }
        Ok(signs)
    }

    /// The objective of what is stored under some signs.
    fn cost(&self, signs: &[f64]) -> Result<f64> {
        Ok(self.under(signs)?.objective.grid.iter().sum())
    }

    /// The best under some signs, in V = W S.
    fn under(&self, signs: &[f64]) -> Result<Solution> {
        let (lower, upper) = turned(self.spec, self.problem, signs);
        let spec = Spec { signs: Signs::Free, sign_groups: None, lower, upper, ..self.spec.clone() };
        solve_with(self.team, &flipped(self.problem, signs), &spec, self.cancelled)
    }

    /// Continuous weights with signs of their own.
    fn relaxed(&self) -> Spec {
        let method = match self.spec.method {
            method @ (Method::Admm | Method::Gradient) => method,
            _ => Method::Auto,
        };
        let open = Spec {
            signs: Signs::Free,
            sign_groups: None,
            grid: None,
            palette: None,
            types: None,
            scale: None,
            power_of_two: false,
            ..self.spec.clone()
        };
        Spec { method, ..open }
    }
}

/// The problem with `ridge` times the mean of H's diagonal added to it.
fn stiffened(problem: &Problem, ridge: f64) -> Problem {
    let (n, mut stiff) = (problem.n, problem.clone());
    let live = (0..n).map(|i| problem.h[i * n + i]).filter(|v| *v > 0.0);
    let mean = live.clone().sum::<f64>() / live.count().max(1) as f64;
    (0..n).map(|i| i * n + i).filter(|&at| problem.h[at] > 0.0).for_each(|at| stiff.h[at] += ridge * mean);
    stiff
}

/// The problem in V = W S.
fn flipped(problem: &Problem, signs: &[f64]) -> Problem {
    let n = problem.n;
    let columns = |all: &[f64]| -> Vec<f64> { all.iter().enumerate().map(|(at, v)| v * signs[at % n]).collect() };
    Problem {
        h: problem.h.iter().enumerate().map(|(at, v)| v * signs[at / n] * signs[at % n]).collect(),
        b: columns(&problem.b),
        prior: problem.prior.as_deref().map(columns),
        ..problem.clone()
    }
}

/// The bounds of V = W S >= 0.
fn turned(spec: &Spec, problem: &Problem, signs: &[f64]) -> (Bounds, Bounds) {
    let (n, m) = (problem.n, problem.m);
    if spec.lower.is_none() && spec.upper.is_none() {
        return (Bounds::Scalar(0.0), Bounds::None);
    }
    let highest = |at: usize| match signs[at % n] > 0.0 {
        true => spec.upper.at(at / n, at % n, n, f64::INFINITY),
        false => -spec.lower.at(at / n, at % n, n, f64::NEG_INFINITY),
    };
    let lowest = |at: usize| match signs[at % n] > 0.0 {
        true => spec.lower.at(at / n, at % n, n, f64::NEG_INFINITY),
        false => -spec.upper.at(at / n, at % n, n, f64::INFINITY),
    };
    let lower = (0..m * n).map(|at| lowest(at).max(0.0)).collect();
    (Bounds::Element(lower), Bounds::Element((0..m * n).map(highest).collect()))
}
