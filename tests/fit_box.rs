//! Continuous weights: unconstrained, in a box, with signs; KKT conditions, brute force, certificates.

mod common;
#[path = "common/fit.rs"]
mod problems;

use problems::{Raw, random};
use synfit::compute::Device;
use synfit::fit::{Bounds, Method, Problem, Solution, Spec, Status, solve};

fn boxed(lower: f64, upper: f64, method: Method) -> Spec {
    Spec { lower: Bounds::Scalar(lower), upper: Bounds::Scalar(upper), method, ..Spec::default() }
}

/// The gradient H w - b of row `o`, in units in which H has a unit diagonal.
fn gradient(p: &Problem, s: &Solution, o: usize) -> Vec<f64> {
    let n = p.n;
    let w = &s.w[o * n..(o + 1) * n];
    (0..n)
        .map(|i| {
            let hw: f64 = (0..n).map(|j| p.h[i * n + j] * w[j]).sum();
            (hw - p.b[o * n + i]) / p.h[i * n + i].sqrt()
        })
        .collect()
}

fn check_kkt(p: &Problem, s: &Solution, lower: f64, upper: f64) {
    for o in 0..p.m {
        let size = (0..p.n).map(|i| p.b[o * p.n + i].abs() / p.h[i * p.n + i].sqrt()).fold(0.0, f64::max);
        for (i, g) in gradient(p, s, o).iter().enumerate() {
            let w = s.w[o * p.n + i];
            assert!((lower..=upper).contains(&w), "row {o}: {w}");
            let allowed = if w <= lower {
                *g >= -1e-6 * size
            } else if w >= upper {
                *g <= 1e-6 * size
            } else {
                g.abs() <= 1e-6 * size
            };
            assert!(allowed, "row {o} input {i}: w {w}, gradient {g:e} of {size:e}");
        }
    }
}

#[test]
fn unconstrained_is_least_squares_with_a_bias() {
    let raw = random(1, 60, 5, 3);
    let p = Problem::from_sums(raw.sums()).unwrap();
    let s = solve(&Device::cpu(), &p, &Spec::default()).unwrap();
    let bias = Problem::bias(&s.w, &raw.sums());
    assert_eq!(s.status, Status::Optimal);
    assert_eq!(s.w, s.free);
    for (o, bias) in bias.into_iter().enumerate() {
        let w = &s.w[o * 5..(o + 1) * 5];
        let straight = raw.objective(o, w, bias);
        assert!((straight - s.objective.grid[o]).abs() < 1e-8 * straight, "{straight} {}", s.objective.grid[o]);
        // no small step in any direction does better
        for i in 0..5 {
            for by in [-1e-3, 1e-3] {
                let mut other = w.to_vec();
                other[i] += by;
                assert!(raw.objective(o, &other, bias) >= straight);
            }
        }
    }
}

#[test]
fn box_solutions_satisfy_kkt_by_every_method() {
    for (seed, samples, n, m) in [(1, 100, 7, 5), (2, 300, 40, 9), (3, 50, 30, 4), (4, 400, 90, 20)] {
        let p = Problem::from_sums(random(seed, samples, n, m).sums()).unwrap();
        let mut totals = Vec::new();
        for method in [Method::Auto, Method::Admm, Method::Gradient] {
            let s = solve(&Device::cpu(), &p, &boxed(-0.4, 0.9, method)).unwrap();
            assert_eq!(s.status, Status::Optimal, "{method:?} {}", s.worst_gap);
            check_kkt(&p, &s, -0.4, 0.9);
            for o in 0..m {
                assert!(
                    s.objective.bound[o] <= s.objective.grid[o]
                        && s.objective.grid[o] <= s.objective.rtn[o] * (1.0 + 1e-12)
                );
            }
            totals.push(s.objective.grid.iter().sum::<f64>());
        }
        assert!(totals.iter().all(|t| (t / totals[0] - 1.0).abs() < 1e-9), "{totals:?}");
    }
}

/// Every combination of held inputs, solved exactly: the optimum of a tiny box problem without a doubt.
#[test]
fn tiny_boxes_by_enumeration() {
    for seed in 0..30 {
        let raw = random(seed, 20, 2, 1);
        let p = Problem::from_sums(raw.sums()).unwrap();
        let (lower, upper) = (-0.3, 0.5);
        let s = solve(&Device::cpu(), &p, &boxed(lower, upper, Method::Auto)).unwrap();
        let value = |w: [f64; 2]| {
            let quadratic = p.h[0] * w[0] * w[0] + 2.0 * p.h[1] * w[0] * w[1] + p.h[3] * w[1] * w[1];
            p.tt.as_ref().unwrap()[0] + quadratic - 2.0 * (p.b[0] * w[0] + p.b[1] * w[1])
        };
        let mut best = value([lower, lower]);
        for a in [lower, upper] {
            for b in [lower, upper] {
                best = best.min(value([a, b]));
            }
            let on_edge = |fixed: usize| {
                let other = 1 - fixed;
                let v = ((p.b[other] - p.h[1] * a) / p.h[3 * other]).clamp(lower, upper);
                if fixed == 0 { [a, v] } else { [v, a] }
            };
            best = best.min(value(on_edge(0))).min(value(on_edge(1)));
        }
        if s.free.iter().all(|w| (lower..=upper).contains(w)) {
            best = best.min(value([s.free[0], s.free[1]]));
        }
        assert!((s.objective.grid[0] - best).abs() <= 1e-9 * best, "seed {seed}: {} {best}", s.objective.grid[0]);
    }
}

#[test]
fn signs_and_bounds_a_row_or_an_element() {
    let p = Problem::from_sums(random(5, 200, 6, 2).sums()).unwrap();
    let spec = Spec { lower: Bounds::Scalar(0.0), ..Spec::default() };
    let s = solve(&Device::cpu(), &p, &spec).unwrap();
    assert!(s.w.iter().all(|w| *w >= 0.0) && s.status == Status::Optimal);
    check_kkt(&p, &s, 0.0, f64::INFINITY);
    // a sign an input; equal bounds fix a weight
    let lower: Vec<f64> = (0..12).map(|at| [0.0, f64::NEG_INFINITY, 0.25][at % 3]).collect();
    let upper: Vec<f64> = (0..12).map(|at| [f64::INFINITY, 0.0, 0.25][at % 3]).collect();
    let spec = Spec { lower: Bounds::Element(lower), upper: Bounds::Element(upper), ..Spec::default() };
    let s = solve(&Device::cpu(), &p, &spec).unwrap();
    assert_eq!(s.status, Status::Optimal);
    for (at, w) in s.w.iter().enumerate() {
        assert!([*w >= 0.0, *w <= 0.0, *w == 0.25][at % 3], "{at}: {w}");
    }
    // a row each
    let spec = Spec { lower: Bounds::Row(vec![-0.1, -2.0]), upper: Bounds::Row(vec![0.1, 2.0]), ..Spec::default() };
    let s = solve(&Device::cpu(), &p, &spec).unwrap();
    assert!(s.w[..6].iter().all(|w| w.abs() <= 0.1) && s.w[6..].iter().all(|w| w.abs() <= 2.0));
}

/// A ridge pulls towards the prior, and without bounds the optimum is that of the regularised problem.
#[test]
fn ridge_pulls_towards_the_prior() {
    let mut p = Problem::from_sums(random(6, 50, 4, 2).sums()).unwrap();
    p.prior = Some((0..8).map(|i| f64::from(i) * 0.1).collect());
    p.ridge = 1e9;
    let s = solve(&Device::cpu(), &p, &Spec::default()).unwrap();
    assert!(s.w.iter().zip(p.prior.as_ref().unwrap()).all(|(w, w0)| (w - w0).abs() < 1e-6));
    p.ridge = 0.1;
    let mu = 0.1 * (0..4).map(|i| p.h[5 * i]).sum::<f64>() / 4.0;
    let s = solve(&Device::cpu(), &p, &Spec::default()).unwrap();
    for at in 0..8 {
        let (o, i) = (at / 4, at % 4);
        let hw: f64 = (0..4).map(|j| p.h[4 * i + j] * s.w[4 * o + j]).sum();
        let pull = mu * (s.w[at] - p.prior.as_ref().unwrap()[at]);
        assert!((hw - p.b[at] + pull).abs() < 1e-9 * p.h[5 * i], "{at}");
    }
}

#[test]
fn crossing_bounds_and_wrong_shapes_are_refused() {
    let p = Problem::from_sums(random(7, 20, 3, 2).sums()).unwrap();
    let refused = |spec: Spec| solve(&Device::cpu(), &p, &spec).unwrap_err();
    assert_eq!(refused(boxed(1.0, -1.0, Method::Auto)).exit_code(), 2);
    assert_eq!(refused(boxed(f64::NAN, 1.0, Method::Auto)).exit_code(), 2);
    assert_eq!(refused(Spec { lower: Bounds::Row(vec![0.0; 3]), ..Spec::default() }).subject, "lower");
    assert_eq!(refused(Spec { method: Method::Rtn, ..Spec::default() }).subject, "method");
}

#[test]
fn a_cancelled_solve_says_so() {
    let p = Problem::from_sums(random(8, 300, 40, 5).sums()).unwrap();
    let spec = boxed(-0.01, 0.01, Method::Admm);
    let e = synfit::fit::solve_with(&Device::cpu(), &p, &spec, &|| true).unwrap_err();
    assert_eq!(e.kind, synfit::error::Kind::Interrupted);
}

/// The kernels of a device and the CPU path come to the same optimum.
#[test]
fn devices_agree() {
    let raw: Raw = random(9, 300, 70, 12);
    let p = Problem::from_sums(raw.sums()).unwrap();
    for method in [Method::Auto, Method::Admm, Method::Gradient] {
        let mut totals = Vec::new();
        for dev in common::both() {
            let s = solve(dev, &p, &boxed(-0.3, 0.5, method)).unwrap();
            assert_eq!(s.status, Status::Optimal);
            assert_eq!(s.note, None);
            check_kkt(&p, &s, -0.3, 0.5);
            totals.push(s.objective.grid.iter().sum::<f64>());
        }
        assert!((totals[0] / totals[1] - 1.0).abs() < 1e-6, "{method:?} {totals:?}");
    }
}
