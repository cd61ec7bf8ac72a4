//! The door to the layer solvers: checks, the continuous solution, the grid, and the account of what was reached.

use serde::Serialize;

use super::bounds::Bounds;
use super::continuous;
use super::exact;
use super::palette;
use super::problem::Problem;
use super::quantize::{Plan, Quantized, Task};
use super::rounding;
use super::signs::{self, Signs};
use super::snap::is_power_of_two;
use super::spread::Rest;
use super::system::System;
use super::types;
use crate::chip::{Grid, ScaleOwner};
use crate::compute::solver::kbest;
use crate::compute::{Device, Team};
use crate::error::{Error, Result};

/// How to solve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// ADMM for a box; for a grid K-best up to 32 levels (rows of up to 12 inputs proven where that is quick), descent
    /// beyond.
    #[default]
    Auto,
    /// Grid: round to nearest with the max-abs scale.
    Rtn,
    /// Grid: scale search and error feedback.
    Feedback,
    /// Grid: scale search, error feedback, coordinate descent and re-scaling to a fixed point.
    Descent,
    /// Grid: as descent, from K-best rounding, with pair moves.
    Kbest,
    /// Grid: as K-best, then branch and bound over levels and scales to the proven optimum, or as far as `nodes` reach.
    Exact,
    /// Box: alternating direction method of multipliers.
    Admm,
    /// Box: accelerated projected gradient.
    Gradient,
}

impl std::str::FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "auto" => Method::Auto,
            "rtn" => Method::Rtn,
            "feedback" => Method::Feedback,
            "descent" => Method::Descent,
            "kbest" => Method::Kbest,
            "exact" => Method::Exact,
            "admm" => Method::Admm,
            "gradient" => Method::Gradient,
            _ => {
                let message = format!("`{text}` is none of auto, rtn, feedback, descent, kbest, exact, admm, gradient");
                return Err(Error::input("method", message));
            }
        })
    }
}

/// Grids of so few levels are worth the search by K-best: finer ones lose little to begin with.
const KBEST_LEVELS: usize = 32;
/// Who asks for so many paths wants more starts and rounds, too.
const THOROUGH: usize = 32;
/// Inputs of a row that is tried to be proven by the way, and nodes for it.
const TINY: usize = 12;
const TINY_NODES: u64 = 20_000;
/// Inputs of a row that all promising scales are tried for.
const SHORT: usize = 32;

/// What the chip can hold, and how to look for the best of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub lower: Bounds,
    pub upper: Bounds,
    /// m x n: synapses that there are; the others are zero, whatever the bounds.
    pub mask: Option<Vec<bool>>,
    /// `None`: continuous weights, unless there is a palette.
    pub grid: Option<Grid>,
    /// Instead of a grid: every row has this many values of its own, which are part of the fit.
    pub palette: Option<usize>,
    /// With a grid of integers: every input has one of so many types, part of the fit, every row one level for each type,
    /// and a weight is its row's level for the input's type, or zero.
    pub types: Option<usize>,
    pub owner: ScaleOwner,
    /// Who owns the signs; with `Input` the grid must be unsigned.
    pub signs: Signs,
    /// n: with `signs` = `Input`, inputs with one number have one sign.
    pub sign_groups: Option<Vec<usize>>,
    /// Given scales instead of searched ones: one, or m. All alike if the layer owns the scale.
    pub scale: Option<Vec<f64>>,
    /// Significant bits of searched scales, as far as a method refines them: 53 or more for all that f64 has.
    pub scale_bits: i32,
    /// Scales are powers of two: a shift.
    pub power_of_two: bool,
    pub method: Method,
    /// K of K-best: partial solutions kept, 1 to 64.
    pub paths: usize,
    /// Relative gap at which continuous weights count as optimal.
    pub tolerance: f64,
    /// Most first-order iterations of the box solver.
    pub max_iterations: usize,
    /// Most nodes of branch and bound a row: some seconds' worth by default.
    pub nodes: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            lower: Bounds::None,
            upper: Bounds::None,
            mask: None,
            grid: None,
            palette: None,
            types: None,
            owner: ScaleOwner::Channel,
            signs: Signs::Free,
            sign_groups: None,
            scale: None,
            scale_bits: 53,
            power_of_two: false,
            method: Method::Auto,
            paths: 16,
            tolerance: 1e-5,
            max_iterations: 5000,
            nodes: 50_000_000,
        }
    }
}

impl Spec {
    /// Whether any synapse has a bound.
    pub fn is_boxed(&self) -> bool {
        !(self.lower.is_none() && self.upper.is_none() && self.mask.is_none())
    }

    fn is_gone(&self, o: usize, i: usize, n: usize) -> bool {
        self.mask.as_ref().is_some_and(|mask| !mask[o * n + i])
    }

    /// The lower bound of synapse (o, i) among `n` inputs: zero where there is none, minus infinity where it is free.
    pub fn lower_at(&self, o: usize, i: usize, n: usize) -> f64 {
        if self.is_gone(o, i, n) { 0.0 } else { self.lower.at(o, i, n, f64::NEG_INFINITY) }
    }

    /// The upper bound, likewise.
    pub fn upper_at(&self, o: usize, i: usize, n: usize) -> f64 {
        if self.is_gone(o, i, n) { 0.0 } else { self.upper.at(o, i, n, f64::INFINITY) }
    }

    /// # Errors
    /// `Input`: a mask of the wrong length, or with synapses gone that the grid cannot store as zero.
    fn check_mask(&self, m: usize, n: usize) -> Result<()> {
        let Some(mask) = &self.mask else { return Ok(()) };
        if mask.len() != m * n {
            return Err(Error::input("mask", format!("holds {} values where {} are needed", mask.len(), m * n)));
        }
        let gone = mask.contains(&false);
        if gone && self.grid.as_ref().is_some_and(|grid| !grid.has_zero()) {
            return Err(Error::input("mask", "the grid has no zero: no synapse can be left out"));
        }
        if gone && self.palette.is_some() {
            return Err(Error::input("mask", "not with palettes: their values need not hold a zero"));
        }
        Ok(())
    }
}

/// How the result stands to the optimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Every row is within the tolerance of its proven lower bound.
    Optimal,
    /// Grid: the best found; `gap` says how far the optimum can at most be.
    Heuristic,
    /// Box: the iterations ran out first; `gap` says how far the optimum can at most be.
    IterationLimit,
}

/// Per row (m each): sum_s ||w x_s - t_s||^2, centred, plus the ridge term of the live inputs (and the damping's, where
/// there is any). Only what lies above the unconstrained optimum if the problem's `tt` is unknown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Objectives {
    /// Round to nearest with max-abs scale; without a grid, the unconstrained solution clipped to the box.
    pub rtn: Vec<f64>,
    /// Continuous weights in the box; not below zero if the grid is unsigned.
    pub fit: Vec<f64>,
    /// What is stored: on the grid if there is one, else `fit`.
    pub grid: Vec<f64>,
    /// Proven lower bound of what is stored; where the exact method searched rows that share a scale, only the sum of
    /// their bounds is proven.
    pub bound: Vec<f64>,
}

/// A solved layer problem.
#[derive(Debug, Clone)]
pub struct Solution {
    /// m x n: the weights that are stored.
    pub w: Vec<f64>,
    /// m x n: their codes on the grid; `w` = scale * grid.value(code), times the input's sign if inputs own the signs.
    /// With palettes: positions in the row's.
    pub codes: Option<Vec<i32>>,
    /// m x K, rising along a row: the rows' palettes.
    pub palette: Option<Vec<f64>>,
    /// n: the inputs' types, if they have any.
    pub types: Option<Vec<u8>>,
    /// n: 1 or -1 for each input, if inputs own the signs.
    pub signs: Option<Vec<i8>>,
    /// m: scale of each row; ones without a grid.
    pub scale: Vec<f64>,
    /// m x n: the unconstrained solution W*.
    pub free: Vec<f64>,
    pub objective: Objectives,
    pub status: Status,
    /// First-order iterations of the box solver.
    pub iterations: usize,
    /// (sum of objectives - sum of bounds) / sum of objectives, of what is stored.
    pub gap: f64,
    /// The same for the worst row, relative to that row's objective.
    pub worst_gap: f64,
    /// What the damping ladder added to the diagonal of H scaled to unit diagonal; 0 mostly.
    pub damping: f64,
    /// What else the user should know: a device result that missed its certificate and was redone.
    pub note: Option<String>,
}

/// Solves a layer problem. See `solve_with`.
///
/// ```
/// use synfit::compute::Device;
/// use synfit::fit::{Problem, Spec, solve};
///
/// // two inputs, one output; H and B of centred samples
/// let problem = Problem::from_gram(2, 1, vec![2.0, 0.5, 0.5, 1.0], vec![1.0, -0.5])?;
/// let spec = Spec { grid: Some("8".parse()?), ..Spec::default() };
/// let solution = solve(&Device::cpu(), &problem, &spec)?;
/// assert_eq!(solution.codes.unwrap().len(), 2);
/// assert!(solution.objective.grid[0] < 1e-4);
/// # Ok::<(), synfit::Error>(())
/// ```
///
/// # Errors
/// As `solve_with`.
pub fn solve(on: impl Into<Team>, problem: &Problem, spec: &Spec) -> Result<Solution> {
    solve_with(on, problem, spec, &|| false)
}

/// Solves a layer problem on a device, or on a team of which each has its share of the rows; `cancelled` is asked now and
/// then, from any thread.
///
/// # Errors
/// `Input`: bounds or a mask that do not fit the problem, bounds that cross, a bad grid, a method that does not suit, a box that holds no
/// level, an h that is no Gram matrix. `Work`: a malformed problem. `Interrupted`: cancelled.
pub fn solve_with(
    on: impl Into<Team>,
    problem: &Problem,
    spec: &Spec,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Solution> {
    let team = &on.into();
    check(problem, spec)?;
    if spec.signs == Signs::Input {
        return signs::solve(team, problem, spec, cancelled);
    }
    let system = System::on(team, problem)?;
    let (n, m) = (problem.n, problem.m);
    let boxed = spec.is_boxed();
    let lower = |o: usize, i: usize| spec.lower_at(o, i, n);
    let upper = |o: usize, i: usize| spec.upper_at(o, i, n);
    let bounds = boxed.then(|| (system.gather(lower), system.gather(upper)));
    let bounds = bounds.as_ref().map(|(l, u)| (l.as_slice(), u.as_slice()));
    // An unsigned grid bounds the weights too, whatever its scale.
    let floor = if spec.grid.as_ref().is_some_and(Grid::is_unsigned) { 0.0 } else { f64::NEG_INFINITY };
    let within = (boxed || floor == 0.0)
        .then(|| (system.gather(|o, i| lower(o, i).max(floor)), system.gather(|o, i| upper(o, i).max(floor))));
    let within = within.as_ref().map(|(l, u)| (l.as_slice(), u.as_slice()));

    let mut note = None;
    let mut iterations = 0;
    let (fit, mut bound) = match within {
        None => (system.free.clone(), system.rest.clone()),
        Some(within) => {
            let limits = (spec.tolerance, spec.max_iterations);
            let mut found = continuous::solve(team, &system, within, spec.method, limits, cancelled)?;
            if team.devices().any(Device::is_gpu) && !found.certified {
                note = Some(format!("{team} missed the certificate; solved again on the CPU"));
                found =
                    continuous::solve(&Team::from(&Device::cpu()), &system, within, spec.method, limits, cancelled)?;
            }
            iterations = found.iterations;
            (found.w, found.bound)
        }
    };
    let fit_objective = system.objectives(&fit);
    let fixed = spec.scale.as_ref().map(|s| if s.len() == 1 { vec![s[0]; m] } else { s.clone() });
    let rest = Rest { problem, system: &system, lower: &lower, upper: &upper };
    let any = Grid::Ternary;
    let task = Task {
        system: &system,
        around: &fit,
        grid: spec.grid.as_ref().unwrap_or(&any),
        owner: spec.owner,
        fixed: fixed.as_deref(),
        scale_bits: spec.scale_bits,
        power_of_two: spec.power_of_two,
        bounds,
    };
    let held = |found: &Quantized| match task.outside(found) {
        None => Ok(system.objectives(&values(found, system.n))),
        Some(o) => {
            let message = format!("the box of output {o} holds no level of the grid at any scale");
            Err(Error::input("lower", message))
        }
    };
    let (mut palette, mut typed) = (None, None);
    let (w, codes, scale, rtn, stored) = match (&spec.grid, spec.palette) {
        (None, Some(count)) => {
            let nearest = palette::nearest(&task, count);
            let mut rounding = rounding::on(team, task, cancelled)?;
            let found = palette::solve(&task, count, spec.method, rounding.as_mut())?;
            let stored = held(&found.stored)?;
            let (w, codes, own) = rest.store_palettes(&found);
            palette = Some(own);
            (w, Some(codes), vec![1.0; m], system.objectives(&values(&nearest.stored, system.n)), stored)
        }
        (None, None) => {
            let clipped: Vec<f64> = match bounds {
                None => fit.clone(),
                Some((l, u)) => system.free.iter().zip(l.iter().zip(u)).map(|(w, (l, u))| w.max(*l).min(*u)).collect(),
            };
            (rest.spread(&fit), None, vec![1.0; m], system.objectives(&clipped), fit_objective.clone())
        }
        (Some(grid), _) if spec.types.is_some() => {
            let count = spec.types.unwrap_or(1);
            let nearest = types::nearest(&task, count)?;
            let found = types::solve(&task, count, spec.method, cancelled)?;
            let stored = held(&found.stored)?;
            let mut all = vec![0; n];
            system.live.iter().zip(&found.types).for_each(|(&i, t)| all[i] = *t);
            typed = Some(all);
            let (w, codes) = rest.store_live(grid, &found.stored);
            (w, Some(codes), found.stored.scale, system.objectives(&values(&nearest.stored, system.n)), stored)
        }
        (Some(grid), _) => {
            let nearest = task.nearest();
            let rounding = rounding::on(team, task, cancelled)?;
            let plan = plan(spec.method, spec.paths, grid, system.n);
            let nodes = nodes(spec, grid, system.n);
            let found = match spec.method {
                Method::Rtn => nearest.clone(),
                Method::Feedback => task.feedback(rounding.as_ref())?,
                Method::Exact | Method::Auto if nodes > 0 => {
                    let begun = task.descent(rounding.as_ref(), plan)?;
                    let exact = exact::solve(&task, &begun, nodes, cancelled)?;
                    system.raise(&mut bound, &exact.lower, exact.together);
                    exact.found
                }
                _ => task.descent(rounding.as_ref(), plan)?,
            };
            let stored = held(&found)?;
            let (w, codes) = rest.store(grid, &found);
            (w, Some(codes), found.scale, system.objectives(&values(&nearest, system.n)), stored)
        }
    };
    // a bound that is reached may be above the objective by rounding
    let bound = bound.iter().zip(&stored).map(|(b, v)| b.min(*v)).collect();
    let objective = Objectives { rtn, fit: fit_objective, grid: stored, bound };
    let (gap, worst_gap) = gaps(&objective, &system.targets());
    let status = match (&codes, worst_gap <= spec.tolerance) {
        (_, true) => Status::Optimal,
        (Some(_), false) => Status::Heuristic,
        (None, false) => Status::IterationLimit,
    };
    let free = rest.spread(&system.free);
    Ok(Solution {
        w,
        codes,
        palette,
        types: typed,
        signs: None,
        scale,
        free,
        objective,
        status,
        iterations,
        gap,
        worst_gap,
        damping: system.damping,
        note,
    })
}

/// How much the grid solver tries.
fn plan(method: Method, paths: usize, grid: &Grid, n: usize) -> Plan {
    let few = grid.levels().len() <= KBEST_LEVELS;
    if matches!(method, Method::Kbest | Method::Exact) || method == Method::Auto && few {
        let again = if paths >= THOROUGH { 4 } else { 2 };
        // a short row's objective jumps with the scale, and costs next to nothing
        let starts = if n <= SHORT { 16 } else { again };
        return Plan { starts, paths, pairs: true, again };
    }
    Plan { starts: if few { 4 } else { 2 }, paths: 1, pairs: false, again: 0 }
}

/// Nodes a row of branch and bound: what was asked for, and a few for tiny rows, which mostly need no more to be proven.
fn nodes(spec: &Spec, grid: &Grid, n: usize) -> u64 {
    let searched = spec.owner != ScaleOwner::Layer && !spec.power_of_two;
    let tiny = n <= TINY && grid.levels().len() <= KBEST_LEVELS && searched;
    match spec.method {
        Method::Exact => spec.nodes,
        Method::Auto if tiny => spec.nodes.min(TINY_NODES),
        _ => 0,
    }
}

/// Levels times scales (m x n).
fn values(q: &Quantized, n: usize) -> Vec<f64> {
    q.levels.iter().enumerate().map(|(at, level)| level * q.scale[at / n]).collect()
}

/// (total, worst row) relative gap. A row that fits perfectly is measured against its own target, `own` (m).
pub(super) fn gaps(objective: &Objectives, own: &[f64]) -> (f64, f64) {
    let relative = |gap: f64, value: f64, own: f64| if gap <= 1e-12 * own { 0.0 } else { gap / value };
    let rows = objective.grid.iter().zip(&objective.bound);
    let worst = rows.clone().zip(own).map(|((v, b), own)| relative(v - b, *v, *own)).fold(0.0, f64::max);
    let (value, bound): (f64, f64) = rows.fold((0.0, 0.0), |sum, (v, b)| (sum.0 + v, sum.1 + b));
    (relative(value - bound, value, own.iter().sum()), worst)
}

fn check(problem: &Problem, spec: &Spec) -> Result<()> {
    problem.check()?;
    if problem.n == 0 || problem.m == 0 {
        return Err(Error::work("layer problem", format!("{} inputs and {} outputs", problem.n, problem.m)));
    }
    Bounds::check(&spec.lower, &spec.upper, problem.m, problem.n)?;
    spec.check_mask(problem.m, problem.n)?;
    signs::check(problem, spec)?;
    if let Some(grid) = &spec.grid {
        grid.check()?;
    }
    palette::check(spec)?;
    types::check(spec)?;
    if spec.grid.is_none() && spec.power_of_two {
        return Err(Error::input("scale-power-of-two", "without a grid there is no scale"));
    }
    let continuous = spec.grid.is_none() && spec.palette.is_none();
    let on_grid =
        matches!(spec.method, Method::Rtn | Method::Feedback | Method::Descent | Method::Kbest | Method::Exact);
    if continuous && on_grid {
        return Err(Error::input("method", "rtn, feedback, descent, kbest and exact need a grid"));
    }
    if spec.method == Method::Exact && (spec.power_of_two || spec.palette.is_some()) {
        return Err(Error::input("method", "exact searches neither palettes nor scales that are powers of two"));
    }
    if !(1..=kbest::MOST_PATHS).contains(&spec.paths) {
        return Err(Error::input("paths", format!("{} is outside 1..={}", spec.paths, kbest::MOST_PATHS)));
    }
    if let Some(scale) = &spec.scale {
        if scale.len() != 1 && scale.len() != problem.m {
            return Err(Error::input(
                "scale",
                format!("holds {} values where 1 or {} are needed", scale.len(), problem.m),
            ));
        }
        if scale.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
            return Err(Error::input("scale", "must be positive"));
        }
        if spec.power_of_two && !scale.iter().copied().all(is_power_of_two) {
            return Err(Error::input("scale", "holds what is no power of two"));
        }
        if spec.owner == ScaleOwner::Layer && scale.iter().any(|s| s != &scale[0]) {
            return Err(Error::input("scale", "the layer owns the scale, but the rows have several"));
        }
    }
    if spec.tolerance <= 0.0 || spec.tolerance.is_nan() {
        return Err(Error::input("tolerance", format!("{} is not positive", spec.tolerance)));
    }
    Ok(())
}
