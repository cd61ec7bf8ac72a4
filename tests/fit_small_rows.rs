//! Small rows: the default method against the proven optimum, 200 random problems with correlated inputs.

#[path = "common/fit.rs"]
mod problems;

use std::time::Instant;

use problems::random;
use synfit::compute::Device;
use synfit::fit::{Method, Problem, Solution, Spec, Status, solve};

/// What the default method must reach: mean excess over the exact optimum, share of rows that are exact.
const BAR: (f64, f64) = (0.01, 0.8);
/// Two objectives within this share of one another are the same.
const SAME: f64 = 1e-9;

fn solved(p: &Problem, bits: &str, method: Method) -> Solution {
    let spec = Spec { grid: Some(bits.parse().unwrap()), method, ..Spec::default() };
    solve(&Device::cpu(), p, &spec).unwrap()
}

/// Of the default method on 200 rows of 8 inputs: (mean excess, share exact); checks the bounds on the way.
fn measured(bits: &str) -> (f64, f64) {
    let (mut excess, mut exact, mut seconds) = (0.0, 0, 0.0);
    for seed in 0..200 {
        // without t's own sum of squares objectives are what the grid alone costs
        let p = Problem { tt: None, ..Problem::from_sums(random(1000 + seed, 64, 8, 1).sums()).unwrap() };
        let begun = Instant::now();
        let best = solved(&p, bits, Method::Exact);
        seconds += begun.elapsed().as_secs_f64();
        assert_eq!(best.status, Status::Optimal, "seed {seed}: gap {}", best.gap);
        let (best, s) = (best.objective.grid[0], solved(&p, bits, Method::Auto));
        let found = s.objective.grid[0];
        assert!(found >= best * (1.0 - SAME), "seed {seed}: {found} beats the proven optimum {best}");
        assert!(s.objective.bound[0] <= best * (1.0 + SAME), "seed {seed}: the bound is above the optimum");
        excess += (found / best - 1.0) / 200.0;
        exact += usize::from(found <= best * (1.0 + SAME));
    }
    println!("{bits} bits: mean excess {:.3} %, {exact} of 200 exact; proven in {seconds:.2} s", 100.0 * excess);
    (excess, exact as f64 / 200.0)
}

#[test]
fn two_bits() {
    let (excess, exact) = measured("2");
    assert!(excess <= BAR.0 && exact >= BAR.1, "mean excess {excess}, {exact} of the rows exact");
}

#[test]
fn three_bits() {
    let (excess, exact) = measured("3");
    assert!(excess <= BAR.0 && exact >= BAR.1, "mean excess {excess}, {exact} of the rows exact");
}
