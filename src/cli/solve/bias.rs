//! Biases in the chip's integers: rounded to the scale of their output, after which the weights are fitted once more to
//! what the rounding leaves. METHOD section 2.

use super::input::Means;
use crate::compute::Team;
use crate::error::{Error, Result};
use crate::fit::{Problem, Solution, Spec, solve};

/// A result with stored biases.
pub struct Stored {
    /// The problem that the weights solve: biases are part of the targets.
    pub problem: Problem,
    /// The scales are those of the first fit.
    pub spec: Spec,
    pub solution: Solution,
    /// m each: `bias` = scale * code.
    pub codes: Vec<i32>,
    pub bias: Vec<f64>,
}

/// The biases that go with `solution`, m: tm - W xm.
pub fn real(solution: &Solution, means: &Means) -> Vec<f64> {
    let n = means.x.len();
    let row = |o: usize| solution.w[o * n..(o + 1) * n].iter().zip(&means.x).map(|(w, x)| w * x).sum::<f64>();
    means.t.iter().enumerate().map(|(o, t)| t - row(o)).collect()
}

/// Rounds the biases of `first` to codes of `bits` bits (two's complement) and fits the weights to them, with the scales
/// of `first`. `count`: samples.
///
/// # Errors
/// As `solve`.
pub fn store(
    team: &Team,
    (problem, spec): (&Problem, &Spec),
    first: &Solution,
    (means, count): (&Means, usize),
    bits: u32,
) -> Result<Stored> {
    let top = f64::from(bits - 1).exp2();
    let code = |(bias, scale): (f64, &f64)| (bias / scale).round().clamp(-top, top - 1.0) as i32;
    let codes: Vec<i32> = real(first, means).into_iter().zip(&first.scale).map(code).collect();
    let bias: Vec<f64> = codes.iter().zip(&first.scale).map(|(code, scale)| f64::from(*code) * scale).collect();
    let problem = problem.with_bias(&means.x, &means.t, count as f64, &bias)?;
    let spec = Spec { scale: Some(first.scale.clone()), ..spec.clone() };
    let solution = solve(team, &problem, &spec)?;
    Ok(Stored { problem, spec, solution, codes, bias })
}

/// # Errors
/// `Input`: bits that no code has, or a result whose biases have no scale.
pub fn check(bits: u32, has_means: bool, has_grid: bool) -> Result<()> {
    let wrong = |message: &str| Err(Error::input("--bias-bits", message));
    if !(2..=31).contains(&bits) {
        return wrong(&format!("{bits} is outside 2..=31"));
    }
    if !has_means {
        return wrong("needs x and t: h and b say nothing of the means");
    }
    if !has_grid {
        return wrong("needs a grid (--bits or --levels): a bias is stored in units of its output's scale");
    }
    Ok(())
}
