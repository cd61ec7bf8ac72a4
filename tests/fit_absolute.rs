//! Fits by magnitude against linear programs solved by an interior point, row by row.

mod common;
#[path = "common/fit.rs"]
mod problems;

use common::both;
use synfit::compute::Device;
use synfit::fit::{Bounds, Measure, Samples, Spec, Status, solve_absolute};
use synfit::verify::Norm;

struct Case {
    n: usize,
    m: usize,
    x: Vec<f64>,
    t: Vec<f64>,
}

/// Correlated inputs of unlike size, a linear map, and noise with far outliers.
fn case(seed: u64, samples: usize, n: usize, m: usize) -> Case {
    let raw = problems::random(seed, samples, n, m);
    let mut rng = fastrand::Rng::with_seed(seed + 100);
    let x = raw.x.iter().enumerate().map(|(at, v)| v * 10f64.powi((at % n) as i32 % 3 - 1)).collect();
    let t = raw.t.iter().map(|t| t + if rng.f64() < 0.1 { 20.0 * (rng.f64() - 0.3) } else { 0.0 }).collect();
    Case { n, m, x, t }
}

impl Case {
    fn samples(&self, bias: bool) -> Samples<'_> {
        Samples { n: self.n, m: self.m, x: &self.x, t: &self.t, bias }
    }

    fn target(&self, o: usize) -> Vec<f64> {
        self.t.iter().skip(o).step_by(self.m).copied().collect()
    }

    fn measured(&self, measure: Measure, o: usize, w: &[f64], bias: f64) -> f64 {
        let residuals = self
            .x
            .chunks(self.n)
            .zip(self.target(o))
            .map(|(x, t)| (x.iter().zip(&w[o * self.n..]).map(|(x, w)| x * w).sum::<f64>() + bias - t).abs());
        match measure {
            Measure::Sum => residuals.sum(),
            Measure::Largest => residuals.fold(0.0, f64::max),
        }
    }
}

fn norm(measure: Measure) -> Norm {
    match measure {
        Measure::Sum => Norm::Absolute,
        Measure::Largest => Norm::Chebyshev,
    }
}

fn check(dev: &Device, case: &Case, measure: Measure, bias: bool, spec: &Spec) {
    let fit = solve_absolute(dev, case.samples(bias), measure, spec, &|| false).unwrap();
    let n = case.n;
    for o in 0..case.m {
        let side = |side: &Bounds, open: f64| (0..n).map(|i| side.at(o, i, n, open)).collect::<Vec<_>>();
        let (lower, upper) = (side(&spec.lower, f64::NEG_INFINITY), side(&spec.upper, f64::INFINITY));
        let best = norm(measure).least(&case.x, &case.target(o), &lower, &upper, bias).unwrap().objective;
        let ours = case.measured(measure, o, &fit.w, fit.bias[o]);
        assert!((ours - fit.objective[o]).abs() <= 1e-7 * ours, "{measure:?}: {ours} is not {}", fit.objective[o]);
        assert!(fit.bound[o] <= best * (1.0 + 1e-8) + 1e-9, "{measure:?}: bound {} above {best}", fit.bound[o]);
        let far = 2.0 * spec.tolerance;
        assert!(
            ours <= best * (1.0 + far) + 1e-9,
            "{measure:?} output {o}: {ours}, best {best}, bound {}",
            fit.bound[o]
        );
        for (i, w) in fit.w[o * n..(o + 1) * n].iter().enumerate() {
            assert!(*w >= lower[i] - 1e-12 && *w <= upper[i] + 1e-12);
        }
    }
    assert_eq!(fit.status, Status::Optimal, "{measure:?}, bias {bias}: gap {} after {}", fit.worst_gap, fit.iterations);
}

fn specs() -> Vec<Spec> {
    let base = Spec { tolerance: 1e-3, max_iterations: 20_000, ..Spec::default() };
    vec![
        base.clone(),
        Spec { lower: Bounds::Scalar(-0.4), upper: Bounds::Scalar(0.5), ..base.clone() },
        Spec { lower: Bounds::Scalar(0.0), ..base },
    ]
}

#[test]
fn both_measures_reach_the_linear_programs_optimum() {
    for (seed, samples, n, m) in [(1, 60, 5, 3), (2, 120, 17, 2), (3, 40, 1, 1)] {
        let case = case(seed, samples, n, m);
        for measure in [Measure::Sum, Measure::Largest] {
            for spec in specs() {
                for bias in [true, false] {
                    check(&Device::cpu(), &case, measure, bias, &spec);
                }
            }
        }
    }
}

#[test]
fn the_device_reaches_it_too() {
    let case = case(4, 70, 6, 3);
    for spec in specs() {
        for measure in [Measure::Sum, Measure::Largest] {
            check(both()[0], &case, measure, true, &spec);
        }
    }
}

#[test]
fn outliers_do_not_move_the_sum_fit() {
    // An exact line with a few wild targets: the sum of magnitudes goes through the line.
    let x: Vec<f64> = (0..40).map(f64::from).collect();
    let t: Vec<f64> = (0..40).map(|s| if s % 9 == 4 { 500.0 } else { 3.0 * f64::from(s) - 7.0 }).collect();
    let samples = Samples { n: 1, m: 1, x: &x, t: &t, bias: true };
    let spec = Spec { tolerance: 1e-6, max_iterations: 50_000, ..Spec::default() };
    let fit = solve_absolute(&Device::cpu(), samples, Measure::Sum, &spec, &|| false).unwrap();
    assert!((fit.w[0] - 3.0).abs() < 1e-3 && (fit.bias[0] + 7.0).abs() < 1e-2, "{:?} {:?}", fit.w, fit.bias);
}

#[test]
fn dead_duplicated_and_few_samples() {
    let base = case(6, 30, 4, 2);
    let x = base.x.chunks(4).flat_map(|x| [x[0], 5.0, x[1], x[1], 0.0, x[2], x[3]]).collect();
    let degenerate = Case { n: 7, x, ..base };
    let few = case(7, 6, 10, 2);
    for case in [degenerate, few] {
        for measure in [Measure::Sum, Measure::Largest] {
            check(&Device::cpu(), &case, measure, true, &specs()[1]);
        }
    }
}

#[test]
fn a_grid_is_kept_and_beats_rounding() {
    let case = case(8, 150, 12, 4);
    for measure in [Measure::Sum, Measure::Largest] {
        for bits in ["2", "4", "1.58"] {
            let spec = Spec { grid: Some(bits.parse().unwrap()), ..specs()[0].clone() };
            let fit = solve_absolute(&Device::cpu(), case.samples(true), measure, &spec, &|| false).unwrap();
            let grid = spec.grid.as_ref().unwrap();
            let codes = fit.codes.as_ref().unwrap();
            for o in 0..4 {
                let ours = case.measured(measure, o, &fit.w, fit.bias[o]);
                assert!((ours - fit.objective[o]).abs() <= 1e-7 * ours);
                assert!(fit.bound[o] <= fit.fit[o] && fit.fit[o] <= fit.objective[o] * (1.0 + 1e-9));
                for i in 0..12 {
                    let (code, w) = (codes[o * 12 + i], fit.w[o * 12 + i]);
                    assert!((grid.value(code) * fit.scale[o] - w).abs() <= 1e-12 * w.abs());
                    assert_eq!(grid.nearest(grid.value(code)).0, code);
                }
            }
            let total = |v: &[f64]| v.iter().sum::<f64>();
            assert!(total(&fit.objective) < total(&fit.rtn), "{bits} bits, {measure:?}");
        }
    }
}
