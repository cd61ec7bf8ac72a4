//! The exact method: against all levels with the best scale of each, on every kind of grid, in boxes, with scales given
//! and shared, and cut short by its node limit.

#[path = "common/fit.rs"]
mod problems;

use problems::{Raw, random};
use synfit::chip::{Grid, ScaleOwner};
use synfit::compute::Device;
use synfit::fit::{Bounds, Method, Problem, Solution, Spec, Status, solve};

fn exact(grid: &Grid) -> Spec {
    Spec { grid: Some(grid.clone()), method: Method::Exact, ..Spec::default() }
}

fn grids() -> Vec<Grid> {
    let mut all: Vec<Grid> = ["2", "3", "1.58", "1", "u2", "even2"].iter().map(|t| t.parse().unwrap()).collect();
    all.push(Grid::from_levels(vec![-1.0, -0.3, 0.0, 0.2, 1.1]).unwrap());
    all.push(Grid::from_levels(vec![0.1, 0.4, 1.0]).unwrap());
    all
}

/// Every vector of `n` levels.
fn all_levels(levels: &[f64], n: usize, mut each: impl FnMut(&[f64])) {
    let mut at = vec![0; n];
    let mut q = vec![levels[0]; n];
    loop {
        each(&q);
        let Some(i) = (0..n).find(|&i| at[i] + 1 < levels.len()) else { return };
        (0..i).for_each(|k| (at[k], q[k]) = (0, levels[0]));
        at[i] += 1;
        q[i] = levels[at[i]];
    }
}

/// (q H q, q b) of row `o`.
fn products(p: &Problem, o: usize, q: &[f64]) -> (f64, f64) {
    let n = p.n;
    let quadratic = (0..n * n).map(|at| q[at / n] * p.h[at] * q[at % n]).sum();
    (quadratic, (0..n).map(|i| q[i] * p.b[o * n + i]).sum())
}

/// The least objective of row `o` over all levels, each at its best scale in the box.
fn least(p: &Problem, o: usize, levels: &[f64], (lower, upper): (f64, f64)) -> f64 {
    let mut best = f64::INFINITY;
    all_levels(levels, p.n, |q| {
        let (mut from, mut to) = (0.0f64, f64::INFINITY);
        for v in q {
            let (l, u) = match *v {
                0.0 if lower <= 0.0 && 0.0 <= upper => (0.0, f64::INFINITY),
                0.0 => (f64::INFINITY, 0.0),
                v if v < 0.0 => (upper / v, lower / v),
                v => (lower / v, upper / v),
            };
            (from, to) = (from.max(l), to.min(u));
        }
        let (quadratic, linear) = products(p, o, q);
        let scale = (linear / quadratic).max(from).min(to);
        if from <= to && scale.is_finite() {
            best = best.min(scale * (scale * quadratic - 2.0 * linear));
        } else if quadratic == 0.0 && from <= to {
            best = best.min(0.0);
        }
    });
    p.tt.as_ref().unwrap()[o] + best
}

fn total(rows: &[f64]) -> f64 {
    rows.iter().sum()
}

/// Proven, stored as the grid has it, and worth what is said.
fn check(p: &Problem, s: &Solution, grid: &Grid) {
    assert_eq!(s.status, Status::Optimal, "gap {}", s.worst_gap);
    assert!(s.gap <= 1e-9 && s.worst_gap <= 1e-9);
    for o in 0..p.m {
        let codes = &s.codes.as_ref().unwrap()[o * p.n..(o + 1) * p.n];
        let q: Vec<f64> = codes.iter().map(|c| grid.value(*c)).collect();
        let (quadratic, linear) = products(p, o, &q);
        let straight = p.tt.as_ref().unwrap()[o] + s.scale[o] * (s.scale[o] * quadratic - 2.0 * linear);
        assert!((straight - s.objective.grid[o]).abs() <= 1e-9 * p.tt.as_ref().unwrap()[o]);
        assert!(s.objective.bound[o] <= s.objective.grid[o]);
    }
}

fn same(found: f64, best: f64, what: &str) {
    assert!((found - best).abs() <= 1e-9 * best, "{what}: {found} where the best of all is {best}");
}

#[test]
fn the_optimum_is_the_best_of_all_levels() {
    for grid in grids() {
        let levels = grid.levels();
        for n in 1..=if levels.len() < 5 { 6 } else { 5 } {
            for seed in 0..4 {
                let p = Problem::from_sums(random(seed, 40, n, 3).sums()).unwrap();
                let s = solve(&Device::cpu(), &p, &exact(&grid)).unwrap();
                for o in 0..3 {
                    let best = least(&p, o, &levels, (f64::NEG_INFINITY, f64::INFINITY));
                    // where only ever smaller scales come near zero weights, nothing is best
                    if best < p.tt.as_ref().unwrap()[o] * (1.0 - 1e-9) {
                        same(s.objective.grid[o], best, &format!("{grid:?}, n {n}, seed {seed}"));
                        assert!(s.objective.bound[o] >= best * (1.0 - 1e-9));
                    }
                }
            }
        }
    }
}

#[test]
fn within_a_box() {
    for grid in grids() {
        for (seed, (lower, upper)) in
            [(-0.2, 0.7), (-1e9, 0.1), (0.0, 0.5), (0.05, 2.0), (-0.4, -0.02)].into_iter().enumerate()
        {
            let p = Problem::from_sums(random(20 + seed as u64, 40, 4, 2).sums()).unwrap();
            let spec = Spec { lower: Bounds::Scalar(lower), upper: Bounds::Scalar(upper), ..exact(&grid) };
            let best: Vec<f64> = (0..2).map(|o| least(&p, o, &grid.levels(), (lower, upper))).collect();
            match solve(&Device::cpu(), &p, &spec) {
                Err(e) => assert!(best.iter().any(|b| b.is_infinite()), "{grid:?} {lower} {upper} {best:?}: {e}"),
                Ok(s) => {
                    assert!(
                        s.w.iter().all(|w| *w >= lower * (1.0 - 1e-9 * lower.signum()) - 1e-12 && *w <= upper + 1e-9)
                    );
                    for o in (0..2).filter(|&o| best[o] < p.tt.as_ref().unwrap()[o] * (1.0 - 1e-9)) {
                        same(s.objective.grid[o], best[o], &format!("{grid:?} in {lower} ..= {upper}"));
                    }
                }
            }
        }
    }
}

#[test]
fn with_a_given_scale() {
    for grid in grids() {
        let p = Problem::from_sums(random(40, 40, 5, 3).sums()).unwrap();
        let scale = vec![0.5, 0.05, 3.0];
        let spec = Spec { scale: Some(scale.clone()), ..exact(&grid) };
        let s = solve(&Device::cpu(), &p, &spec).unwrap();
        check(&p, &s, &grid);
        assert_eq!(s.scale, scale);
        for (o, scale) in scale.iter().enumerate() {
            let mut best = f64::INFINITY;
            all_levels(&grid.levels(), 5, |q| {
                let (quadratic, linear) = products(&p, o, q);
                best = best.min(scale * (scale * quadratic - 2.0 * linear));
            });
            same(s.objective.grid[o], p.tt.as_ref().unwrap()[o] + best, &format!("{grid:?}"));
        }
    }
}

/// One scale for all rows: the least over a fine ladder of scales, each row's levels the best of all there and then the
/// scale the best for these levels, is no better.
#[test]
fn with_a_shared_scale() {
    for (seed, text) in ["2", "3", "1.58", "u2", "1"].into_iter().enumerate() {
        let grid: Grid = text.parse().unwrap();
        let p = Problem::from_sums(random(50 + seed as u64, 40, 3, 3).sums()).unwrap();
        let s = solve(&Device::cpu(), &p, &Spec { owner: ScaleOwner::Layer, ..exact(&grid) }).unwrap();
        check(&p, &s, &grid);
        assert!(s.scale.iter().all(|v| *v == s.scale[0]));
        let mut tried = f64::INFINITY;
        for step in 0..4000 {
            let scale = 0.05 * s.scale[0] * 1.002f64.powi(step);
            let (mut quadratic, mut linear) = (0.0, 0.0);
            for o in 0..3 {
                let mut best = (f64::INFINITY, 0.0, 0.0);
                all_levels(&grid.levels(), 3, |q| {
                    let (a, b) = products(&p, o, q);
                    if scale * (scale * a - 2.0 * b) < best.0 {
                        best = (scale * (scale * a - 2.0 * b), a, b);
                    }
                });
                (quadratic, linear) = (quadratic + best.1, linear + best.2);
            }
            if quadratic > 0.0 && linear > 0.0 {
                tried = tried.min(total(p.tt.as_ref().unwrap()) - linear * linear / quadratic);
            }
        }
        let found = total(&s.objective.grid);
        assert!((found - tried).abs() <= 1e-9 * found, "{text}: {found} where a ladder of scales finds {tried}");
    }
}

#[test]
fn dead_duplicated_and_few() {
    let raw = random(60, 40, 3, 2);
    let levels: Grid = "2".parse().unwrap();
    let plain = Problem::from_sums(raw.sums()).unwrap();
    let alone = solve(&Device::cpu(), &plain, &exact(&levels)).unwrap();
    // a dead input changes nothing
    let x = raw.x.chunks(3).flat_map(|x| [x[0], 5.0, x[1], x[2]]).collect();
    let p = Problem::from_sums(Raw::new(x, raw.t.clone(), 4, 2).sums()).unwrap();
    let s = solve(&Device::cpu(), &p, &exact(&levels)).unwrap();
    check(&p, &s, &levels);
    (0..2).for_each(|o| same(s.objective.grid[o], alone.objective.grid[o], "a dead input"));
    // a twin of an input: H is singular
    let x = raw.x.chunks(3).flat_map(|x| [x[0], x[1], x[0], x[2]]).collect();
    let p = Problem::from_sums(Raw::new(x, raw.t.clone(), 4, 2).sums()).unwrap();
    let s = solve(&Device::cpu(), &p, &exact(&levels)).unwrap();
    check(&p, &s, &levels);
    for o in 0..2 {
        let best = least(&p, o, &levels.levels(), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(s.damping > 0.0 && (s.objective.grid[o] - best).abs() <= 1e-7 * best, "{} {best}", s.objective.grid[o]);
    }
    // fewer samples than inputs: fits that may be perfect
    for samples in [1, 2, 4] {
        let p = Problem::from_sums(random(61, samples, 5, 2).sums()).unwrap();
        let s = solve(&Device::cpu(), &p, &exact(&levels)).unwrap();
        for o in 0..2 {
            let (own, best) =
                (p.tt.as_ref().unwrap()[o], least(&p, o, &levels.levels(), (f64::NEG_INFINITY, f64::INFINITY)));
            assert!((s.objective.grid[o] - best).abs() <= 1e-7 * own, "{} {best}", s.objective.grid[o]);
        }
    }
}

#[test]
fn a_node_limit_leaves_a_right_bound() {
    let p = Problem::from_sums(random(70, 60, 8, 4).sums()).unwrap();
    let grid: Grid = "3".parse().unwrap();
    let whole = solve(&Device::cpu(), &p, &exact(&grid)).unwrap();
    check(&p, &whole, &grid);
    for owner in [ScaleOwner::Channel, ScaleOwner::Layer] {
        let best = solve(&Device::cpu(), &p, &Spec { owner, ..exact(&grid) }).unwrap();
        let mut last = 0.0;
        for nodes in [0, 10, 1_000, 30_000, 3_000_000] {
            let s = solve(&Device::cpu(), &p, &Spec { nodes, owner, ..exact(&grid) }).unwrap();
            let bound = total(&s.objective.bound);
            assert!(bound <= total(&best.objective.grid) * (1.0 + 1e-12));
            assert!(total(&s.objective.grid) >= total(&best.objective.grid) * (1.0 - 1e-9));
            assert!(bound >= last * (1.0 - 1e-9) && (nodes > 10 || s.status == Status::Heuristic), "{nodes}");
            last = bound;
        }
    }
}

#[test]
fn scales_of_few_bits_stay_few() {
    let p = Problem::from_sums(random(80, 60, 6, 3).sums()).unwrap();
    let grid: Grid = "3".parse().unwrap();
    let s = solve(&Device::cpu(), &p, &Spec { scale_bits: 13, ..exact(&grid) }).unwrap();
    let descent = solve(&Device::cpu(), &p, &Spec { scale_bits: 13, method: Method::Descent, ..exact(&grid) }).unwrap();
    let few = |v: f64| synfit::fit::snapped(v, 13) == v;
    assert!(
        s.scale.iter().zip(&descent.scale).all(|(v, begun)| few(*v) || v == begun) && s.scale.iter().any(|v| few(*v))
    );
    let free = solve(&Device::cpu(), &p, &exact(&grid)).unwrap();
    for o in 0..3 {
        assert!(s.objective.bound[o] <= free.objective.grid[o] * (1.0 + 1e-12));
        assert!(s.objective.grid[o] <= free.objective.grid[o] + 1e-6 * p.tt.as_ref().unwrap()[o]);
    }
}

#[test]
fn a_grid_is_needed_and_cancelling_works() {
    let p = Problem::from_sums(random(90, 60, 12, 3).sums()).unwrap();
    let spec = Spec { method: Method::Exact, ..Spec::default() };
    assert_eq!(solve(&Device::cpu(), &p, &spec).unwrap_err().subject, "method");
    let grid: Grid = "4".parse().unwrap();
    let e = synfit::fit::solve_with(&Device::cpu(), &p, &exact(&grid), &|| true).unwrap_err();
    assert_eq!(e.kind, synfit::error::Kind::Interrupted);
}
