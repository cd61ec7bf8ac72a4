//! Rows that are read as one sum: each made up for by the next, inside bounds and masks, and only where rows are free.

#[path = "common/fit.rs"]
mod problems;

use problems::random;
use synfit::chip::ScaleOwner;
use synfit::compute::{Device, Team};
use synfit::fit::{Bounds, Problem, Solution, Spec, solve_repeats, solve_with};

const GOING_ON: &(dyn Fn() -> bool + Sync) = &|| false;

/// The problem with every row `per` times over.
fn repeated(p: &Problem, per: usize) -> Problem {
    let rows = |all: &[f64], width: usize| all.chunks(width).flat_map(|row| row.repeat(per)).collect::<Vec<_>>();
    Problem {
        m: p.m * per,
        b: rows(&p.b, p.n),
        tt: p.tt.as_ref().map(|tt| rows(tt, 1)),
        prior: p.prior.as_ref().map(|w| rows(w, p.n)),
        ..p.clone()
    }
}

/// sum over units of (w - W*) H (w - W*)^T, w the mean of a unit's rows.
fn off(p: &Problem, found: &Solution, free: &[f64], per: usize) -> f64 {
    let n = p.n;
    let unit = |o: usize| {
        let mean = |i: usize| (0..per).map(|k| found.w[(o * per + k) * n + i]).sum::<f64>() / per as f64;
        let far: Vec<f64> = (0..n).map(|i| mean(i) - free[o * n + i]).collect();
        (0..n * n).map(|at| far[at / n] * p.h[at] * far[at % n]).sum::<f64>()
    };
    (0..p.m).map(unit).sum()
}

fn spec(grid: &str) -> Spec {
    Spec { grid: Some(grid.parse().unwrap()), paths: 8, ..Spec::default() }
}

#[test]
fn a_sum_of_rows_is_as_fine_as_its_number_says() {
    let team = Team::from(&Device::cpu());
    for (seed, n, grid) in [(1, 24, "2"), (2, 24, "3"), (3, 60, "4"), (4, 9, "1.58"), (5, 33, "sym3")] {
        let p = Problem { ridge: 1e-3, ..Problem::from_sums(random(seed, 300, n, 5).sums()).unwrap() };
        let free = solve_with(&team, &p, &Spec::default(), GOING_ON).unwrap().w;
        let at = |per: usize, together: bool| {
            let (p2, spec) = (repeated(&p, per), spec(grid));
            let found = match together {
                true => solve_with(&team, &p2, &spec, GOING_ON).unwrap(),
                false => solve_repeats(&team, &p2, &spec, per, GOING_ON).unwrap(),
            };
            assert_eq!((found.w.len(), found.scale.len()), (p.m * per * n, p.m * per));
            off(&p, &found, &free, per)
        };
        let (one, alike, two, four) = (at(1, false), at(2, true), at(2, false), at(4, false));
        assert!((alike / one - 1.0).abs() < 1e-9, "{grid}: rows found together round alike");
        // half the error, and again half of that, squared
        assert!(two < 0.4 * one && four < 0.4 * two, "{grid}: {one}, {two}, {four}");
    }
}

#[test]
fn codes_scales_and_objectives_are_the_rows_own() {
    let team = Team::from(&Device::cpu());
    let p = repeated(&Problem::from_sums(random(7, 200, 12, 4).sums()).unwrap(), 3);
    let (n, grid) = (p.n, "3".parse::<synfit::chip::Grid>().unwrap());
    let open: Vec<f64> = (0..p.m * n).map(|at| 0.01 * (at % 7) as f64).collect();
    let mask: Vec<bool> = (0..p.m * n).map(|at| at % 5 != 0).collect();
    let bounded =
        Spec { lower: Bounds::Element(open.iter().map(|b| -b - 0.05).collect()), mask: Some(mask), ..spec("3") };
    let scales: Vec<f64> = (0..p.m).map(|o| 0.02 + 0.001 * o as f64).collect();
    let scaled = Spec { scale: Some(scales.clone()), upper: Bounds::Row(vec![0.06; p.m]), ..spec("3") };
    for spec in [&bounded, &scaled] {
        let found = solve_repeats(&team, &p, spec, 3, GOING_ON).unwrap();
        let codes = found.codes.as_ref().unwrap();
        for (at, &code) in codes.iter().enumerate() {
            let (o, i) = (at / n, at % n);
            assert_eq!(found.w[at], grid.value(code) * found.scale[o]);
            let hair = 1e-12;
            assert!(found.w[at] >= spec.lower_at(o, i, n) - hair && found.w[at] <= spec.upper_at(o, i, n) + hair);
        }
        // a unit's objective is that of the mean of its rows
        for unit in 0..p.m / 3 {
            let mean = |i: usize| (0..3).map(|k| found.w[(unit * 3 + k) * n + i]).sum::<f64>() / 3.0;
            let mean: Vec<f64> = (0..n).map(mean).collect();
            let quadratic: f64 = (0..n * n).map(|at| mean[at / n] * p.h[at] * mean[at % n]).sum();
            let linear: f64 = (0..n).map(|i| mean[i] * p.b[unit * 3 * n + i]).sum();
            let tt = p.tt.as_ref().unwrap()[unit * 3];
            let straight = tt + quadratic - 2.0 * linear;
            for told in &found.objective.grid[unit * 3..unit * 3 + 3] {
                assert!((straight - told).abs() <= 1e-8 * tt, "unit {unit}: {straight}, {told}");
            }
        }
        assert!(found.objective.bound.iter().zip(&found.objective.grid).all(|(bound, grid)| bound <= grid));
    }
    assert_eq!(solve_repeats(&team, &p, &scaled, 3, GOING_ON).unwrap().scale, scales);
}

#[test]
fn what_is_not_rounded_or_shares_scales_is_found_together() {
    let team = Team::from(&Device::cpu());
    let p = repeated(&Problem::from_sums(random(9, 200, 10, 4).sums()).unwrap(), 2);
    for spec in [Spec::default(), Spec { owner: ScaleOwner::Layer, ..spec("4") }] {
        let (turns, together) = (solve_repeats(&team, &p, &spec, 2, GOING_ON), solve_with(&team, &p, &spec, GOING_ON));
        assert_eq!(turns.unwrap().w, together.unwrap().w);
    }
}
