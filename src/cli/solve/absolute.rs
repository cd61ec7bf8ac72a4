//! `synfit solve --objective l1|chebyshev`: residuals count by magnitude.

use std::time::Instant;

use super::input::RawSamples;
use super::{Args, Found, Line, Objective, write};
use crate::cli::check;
use crate::compute::Device;
use crate::error::{Error, Result};
use crate::fit::{Measure, Samples, Spec, solve_absolute};
use crate::verify;

/// # Errors
/// As `solve`'s.
pub fn run(args: &Args, device: &Device, raw: &RawSamples, spec: &Spec) -> Result<()> {
    let measure = match args.objective {
        Objective::Chebyshev => Measure::Largest,
        _ => Measure::Sum,
    };
    let samples = Samples { n: raw.n, m: raw.m, x: &raw.x, t: &raw.t, bias: !args.no_bias };
    let begun = Instant::now();
    let fit =
        solve_absolute(device, samples, measure, spec, &|| false).map_err(|e| e.within(args.problem.display()))?;
    let seconds = begun.elapsed().as_secs_f64();
    let checked = match args.check {
        true => {
            let rows = verify::sampled(raw.m, args.rows.max(1), 0);
            Some(verify::check_absolute(samples, measure, spec, &fit, &rows)?)
        }
        false => None,
    };
    let disagreements = checked.as_ref().map(|rows| rows.iter().filter(|r| !r.verdict.agrees()).count());
    if let Some(rows) = &checked {
        eprintln!("{}", check::table("output", rows.iter().map(|r| (r.row.to_string(), r))));
    }
    if let Some(out) = &args.out {
        write(
            out,
            &Found {
                w: &fit.w,
                codes: fit.codes.as_deref(),
                signs: None,
                palette: None,
                types: None,
                scale: &fit.scale,
                bias: fit.bias.clone(),
                bias_codes: None,
            },
            raw.n,
            raw.m,
        )?;
    }
    let total = |rows: &[f64]| rows.iter().sum::<f64>();
    let line = Line {
        objective: total(&fit.objective),
        rtn_objective: total(&fit.rtn),
        fit_objective: total(&fit.fit),
        bound: total(&fit.bound),
        gap: fit.gap,
        worst_gap: fit.worst_gap,
        status: fit.status,
        iterations: fit.iterations,
        seconds,
        inputs: raw.n,
        outputs: raw.m,
        samples: Some(samples.count()),
        damping: 0.0,
        device: &device.info().name,
        note: fit.note.as_deref(),
        checked: checked.as_ref().map(Vec::len),
        disagreements,
    };
    let text = serde_json::to_string(&line).map_err(|e| Error::work("result", e.to_string()))?;
    println!("{text}");
    match disagreements {
        None | Some(0) => Ok(()),
        Some(n) => Err(Error::work(args.problem.display().to_string(), format!("{n} rows disagree"))),
    }
}
