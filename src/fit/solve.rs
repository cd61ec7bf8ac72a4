//! The door to the layer solvers: checks, the continuous solution, the grid, and the account of what was reached.

use serde::Serialize;

use super::bounds::Bounds;
use super::continuous;
use super::problem::Problem;
use super::quantize::{Quantized, Task};
use super::rounding;
use super::system::System;
use crate::chip::{Grid, ScaleOwner};
use crate::compute::Device;
use crate::compute::solver::Steps;
use crate::error::{Error, Result};

/// How to solve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// ADMM for a box, descent for a grid.
    #[default]
    Auto,
    /// Grid: round to nearest with the max-abs scale.
    Rtn,
    /// Grid: scale search and error feedback.
    Feedback,
    /// Grid: scale search, error feedback, coordinate descent and re-scaling to a fixed point.
    Descent,
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
            "admm" => Method::Admm,
            "gradient" => Method::Gradient,
            _ => {
                let message = format!("`{text}` is none of auto, rtn, feedback, descent, admm, gradient");
                return Err(Error::input("method", message));
            }
        })
    }
}

/// What the chip can hold, and how to look for the best of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub lower: Bounds,
    pub upper: Bounds,
    /// `None`: continuous weights.
    pub grid: Option<Grid>,
    pub owner: ScaleOwner,
    /// Given scales instead of searched ones: one, or m. All alike if the layer owns the scale.
    pub scale: Option<Vec<f64>>,
    /// Significant bits of searched scales, as far as a method refines them: 53 or more for all that f64 has.
    pub scale_bits: i32,
    pub method: Method,
    /// Relative gap at which continuous weights count as optimal.
    pub tolerance: f64,
    /// Most first-order iterations of the box solver.
    pub max_iterations: usize,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            lower: Bounds::None,
            upper: Bounds::None,
            grid: None,
            owner: ScaleOwner::Channel,
            scale: None,
            scale_bits: 53,
            method: Method::Auto,
            tolerance: 1e-5,
            max_iterations: 5000,
        }
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
    /// Continuous weights in the box.
    pub fit: Vec<f64>,
    /// What is stored: on the grid if there is one, else `fit`.
    pub grid: Vec<f64>,
    /// Proven lower bound of what is stored.
    pub bound: Vec<f64>,
}

/// A solved layer problem.
#[derive(Debug, Clone)]
pub struct Solution {
    /// m x n: the weights that are stored.
    pub w: Vec<f64>,
    /// m x n: their codes on the grid; `w` = scale * grid.value(code).
    pub codes: Option<Vec<i32>>,
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
pub fn solve(dev: &Device, problem: &Problem, spec: &Spec) -> Result<Solution> {
    solve_with(dev, problem, spec, &|| false)
}

/// Solves a layer problem; `cancelled` is asked now and then, from any thread.
///
/// # Errors
/// `Input`: bounds that do not fit the problem or cross, a bad grid, a method that does not suit, a box that holds no
/// level, an h that is no Gram matrix. `Work`: a malformed problem. `Interrupted`: cancelled.
pub fn solve_with(
    dev: &Device,
    problem: &Problem,
    spec: &Spec,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Solution> {
    check(problem, spec)?;
    let system = System::new(problem)?;
    let (n, m) = (problem.n, problem.m);
    let boxed = !(spec.lower.is_none() && spec.upper.is_none());
    let lower = |o: usize, i: usize| spec.lower.at(o, i, n, f64::NEG_INFINITY);
    let upper = |o: usize, i: usize| spec.upper.at(o, i, n, f64::INFINITY);
    let bounds = boxed.then(|| (system.gather(lower), system.gather(upper)));
    let bounds = bounds.as_ref().map(|(l, u)| (l.as_slice(), u.as_slice()));

    let mut note = None;
    let mut iterations = 0;
    let (fit, bound) = match bounds {
        None => (system.free.clone(), system.rest.clone()),
        Some(bounds) => {
            let limits = (spec.tolerance, spec.max_iterations);
            let mut found = continuous::solve(dev, &system, bounds, spec.method, limits, cancelled)?;
            if dev.is_gpu() && !found.certified {
                note = Some(format!("{} missed the certificate; solved again on the CPU", dev.info().name));
                found = continuous::solve(&Device::cpu(), &system, bounds, spec.method, limits, cancelled)?;
            }
            iterations = found.iterations;
            (found.w, found.bound)
        }
    };
    let fit_objective = system.objectives(&fit);
    let fixed = spec.scale.as_ref().map(|s| if s.len() == 1 { vec![s[0]; m] } else { s.clone() });
    let rest = Rest { problem, system: &system, lower: &lower, upper: &upper };
    let (w, codes, scale, rtn, stored) = match &spec.grid {
        None => {
            let clipped: Vec<f64> = match bounds {
                None => fit.clone(),
                Some((l, u)) => system.free.iter().zip(l.iter().zip(u)).map(|(w, (l, u))| w.max(*l).min(*u)).collect(),
            };
            (rest.spread(&fit), None, vec![1.0; m], system.objectives(&clipped), fit_objective.clone())
        }
        Some(grid) => {
            let task = Task {
                system: &system,
                grid,
                owner: spec.owner,
                fixed: fixed.as_deref(),
                scale_bits: spec.scale_bits,
                bounds,
            };
            let nearest = task.nearest();
            let rounding = rounding::on(dev, task, cancelled)?;
            let found = match spec.method {
                Method::Rtn => nearest.clone(),
                Method::Feedback => task.feedback(rounding.as_ref())?,
                _ => task.descent(rounding.as_ref())?,
            };
            if let Some(o) = task.outside(&found) {
                return Err(Error::input(
                    "lower",
                    format!("the box of output {o} holds no level of the grid at any scale"),
                ));
            }
            let (w, codes) = rest.store(grid, &found);
            (
                w,
                Some(codes),
                found.scale.clone(),
                system.objectives(&values(&nearest, system.n)),
                system.objectives(&values(&found, system.n)),
            )
        }
    };
    let objective = Objectives { rtn, fit: fit_objective, grid: stored, bound };
    let (gap, worst_gap) = gaps(&objective, &system);
    let status = match (&spec.grid, worst_gap <= spec.tolerance) {
        (_, true) => Status::Optimal,
        (Some(_), false) => Status::Heuristic,
        (None, false) => Status::IterationLimit,
    };
    let free = rest.spread(&system.free);
    Ok(Solution { w, codes, scale, free, objective, status, iterations, gap, worst_gap, damping: system.damping, note })
}

/// Levels times scales (m x n).
fn values(q: &Quantized, n: usize) -> Vec<f64> {
    q.levels.iter().enumerate().map(|(at, level)| level * q.scale[at / n]).collect()
}

/// (total, worst row) relative gap. A row that fits perfectly is measured against its own target.
fn gaps(objective: &Objectives, system: &System) -> (f64, f64) {
    let n = system.n;
    let own = |o: usize| {
        let (w, b) = (&system.free[o * n..(o + 1) * n], &system.b[o * n..(o + 1) * n]);
        system.rest[o] + w.iter().zip(b).map(|(w, b)| w * b).sum::<f64>().max(0.0)
    };
    let relative = |gap: f64, value: f64, own: f64| if gap <= 1e-12 * own { 0.0 } else { gap / value };
    let rows = objective.grid.iter().zip(&objective.bound);
    let worst = rows.clone().enumerate().map(|(o, (v, b))| relative(v - b, *v, own(o))).fold(0.0, f64::max);
    let (value, bound): (f64, f64) = rows.fold((0.0, 0.0), |sum, (v, b)| (sum.0 + v, sum.1 + b));
    (relative(value - bound, value, (0..system.m).map(own).sum()), worst)
}

/// From the system's live inputs back to all of the problem's.
struct Rest<'a> {
    problem: &'a Problem,
    system: &'a System,
    lower: &'a dyn Fn(usize, usize) -> f64,
    upper: &'a dyn Fn(usize, usize) -> f64,
}

impl Rest<'_> {
    /// Continuous weights of all inputs; dead ones get the prior, within the box.
    fn spread(&self, w: &[f64]) -> Vec<f64> {
        let (n, live) = (self.problem.n, self.system.n);
        let mut all = self.dead(|v, o, i| v.max((self.lower)(o, i)).min((self.upper)(o, i)));
        for (at, w) in w.iter().enumerate() {
            all[at / live * n + self.system.live[at % live]] = *w;
        }
        all
    }

    /// Stored weights and codes of all inputs; dead ones get the level nearest to the prior.
    fn store(&self, grid: &Grid, q: &Quantized) -> (Vec<f64>, Vec<i32>) {
        let (n, live) = (self.problem.n, self.system.n);
        let steps = Steps::<f64>::of(grid);
        let mut levels = self.dead(|v, o, i| {
            let s = q.scale[o];
            steps.nearest_within(v / s, (self.lower)(o, i) / s, (self.upper)(o, i) / s)
        });
        for (at, level) in q.levels.iter().enumerate() {
            levels[at / live * n + self.system.live[at % live]] = *level;
        }
        let codes = levels.iter().map(|v| grid.nearest(*v).0).collect();
        let w = levels.iter().enumerate().map(|(at, level)| level * q.scale[at / n]).collect();
        (w, codes)
    }

    fn dead(&self, value: impl Fn(f64, usize, usize) -> f64) -> Vec<f64> {
        let (n, m) = (self.problem.n, self.problem.m);
        let mut dead = vec![true; n];
        self.system.live.iter().for_each(|&i| dead[i] = false);
        let prior = |at: usize| self.problem.prior.as_ref().map_or(0.0, |p| p[at]);
        (0..m * n).map(|at| if dead[at % n] { value(prior(at), at / n, at % n) } else { 0.0 }).collect()
    }
}

fn check(problem: &Problem, spec: &Spec) -> Result<()> {
    problem.check()?;
    if problem.n == 0 || problem.m == 0 {
        return Err(Error::work("layer problem", format!("{} inputs and {} outputs", problem.n, problem.m)));
    }
    Bounds::check(&spec.lower, &spec.upper, problem.m, problem.n)?;
    if let Some(grid) = &spec.grid {
        grid.check()?;
    } else if matches!(spec.method, Method::Rtn | Method::Feedback | Method::Descent) {
        return Err(Error::input("method", "rtn, feedback and descent need a grid"));
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
        if spec.owner == ScaleOwner::Layer && scale.iter().any(|s| s != &scale[0]) {
            return Err(Error::input("scale", "the layer owns the scale, but the rows have several"));
        }
    }
    if spec.tolerance <= 0.0 || spec.tolerance.is_nan() {
        return Err(Error::input("tolerance", format!("{} is not positive", spec.tolerance)));
    }
    Ok(())
}
