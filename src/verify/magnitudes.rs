//! Rows of a fit by magnitude against their linear programs.

use rayon::prelude::*;

use super::interior::Norm;
use super::rows::{RowCheck, Verdict};
use crate::error::Result;
use crate::fit::{AbsoluteFit, Measure, Samples, Spec};

/// Two evaluations of one objective may differ by this share of it, and of the targets' own measure.
const SAME: f64 = 1e-6;
const ROUNDING: f64 = 1e-9;

/// Checks `rows` of a fit, in parallel.
///
/// # Errors
/// Work: the interior point did not converge.
pub fn check_absolute(
    samples: Samples<'_>,
    measure: Measure,
    spec: &Spec,
    fit: &AbsoluteFit,
    rows: &[usize],
) -> Result<Vec<RowCheck>> {
    rows.par_iter().map(|&o| row(samples, measure, spec, fit, o)).collect()
}

fn row(samples: Samples<'_>, measure: Measure, spec: &Spec, fit: &AbsoluteFit, o: usize) -> Result<RowCheck> {
    let Samples { n, m, x, t, bias } = samples;
    let target: Vec<f64> = t.iter().skip(o).step_by(m).copied().collect();
    let side = |side: &crate::fit::Bounds, open: f64| (0..n).map(|i| side.at(o, i, n, open)).collect::<Vec<_>>();
    let (lower, upper) = (side(&spec.lower, f64::NEG_INFINITY), side(&spec.upper, f64::INFINITY));
    let norm = match measure {
        Measure::Sum => Norm::Absolute,
        Measure::Largest => Norm::Chebyshev,
    };
    let best = norm.least(x, &target, &lower, &upper, bias)?.objective;
    let w = &fit.w[o * n..(o + 1) * n];
    let residual = |(x, t): (&[f64], &f64)| (x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + fit.bias[o] - t).abs();
    let residuals = x.chunks_exact(n).zip(&target).map(residual);
    let again = match measure {
        Measure::Sum => residuals.sum(),
        Measure::Largest => residuals.fold(0.0, f64::max),
    };
    let own: f64 = target.iter().map(|t| t.abs()).sum();
    let slack = |value: f64, share: f64| share * value.abs() + ROUNDING * own;
    let outside = |(w, (l, u)): (&f64, (&f64, &f64))| *w < l - 1e-9 * l.abs() || *w > u + 1e-9 * u.abs();
    let what = if let Some(i) = w.iter().zip(lower.iter().zip(&upper)).position(outside) {
        Some(format!("weight {i} = {} is outside its bounds", w[i]))
    } else if (again - fit.objective[o]).abs() > slack(again, SAME) {
        Some("the objective of the stored weights comes out otherwise".into())
    } else if fit.fit[o] < best - slack(best, SAME) || fit.fit[o] > best + slack(best, 2.0 * spec.tolerance.max(SAME)) {
        Some("the continuous optimum comes out otherwise".into())
    } else if fit.bound[o] > best + slack(best, SAME) {
        Some("the lower bound is above the optimum".into())
    } else {
        None
    };
    Ok(RowCheck {
        row: o,
        inputs: n,
        stored: fit.objective[o],
        stored_again: again,
        fit: fit.fit[o],
        optimum: Some(best),
        bound: fit.bound[o],
        kkt: None,
        verdict: what.map_or(Verdict::Agrees, Verdict::Disagrees),
    })
}
