//! Axon types: weights that are their row's value for the input's type, or zero, against exhaustive search and against
//! what the constraint says.

mod common;

use synfit::chip::Grid;
use synfit::compute::Device;
use synfit::fit::{Method, Problem, Spec, solve};

/// n inputs, m outputs, correlated.
fn problem(seed: u64, n: usize, m: usize) -> Problem {
    let mut rng = fastrand::Rng::with_seed(seed);
    let samples = 4 * n;
    let mut normal = || (0..4).map(|_| rng.f64() - 0.5).sum::<f64>();
    let mix: Vec<f64> = (0..n * n).map(|_| normal()).collect();
    let mut h = vec![0.0; n * n];
    for _ in 0..samples {
        let z: Vec<f64> = (0..n).map(|_| normal()).collect();
        let x: Vec<f64> = (0..n).map(|i| z[i] + 0.5 * (0..n).map(|j| mix[i * n + j] * z[j]).sum::<f64>()).collect();
        (0..n * n).for_each(|at| h[at] += x[at / n] * x[at % n]);
    }
    let w: Vec<f64> = (0..m * n).map(|_| normal()).collect();
    let b = (0..m * n).map(|at| (0..n).map(|j| w[at / n * n + j] * h[j * n + at % n]).sum()).collect();
    let mut problem = Problem::from_gram(n, m, h, b).unwrap();
    let target = |o: usize| (0..n).map(|i| problem.b[o * n + i] * w[o * n + i]).sum::<f64>();
    problem.tt = Some((0..m).map(target).collect());
    problem
}

fn spec(types: usize, bits: u32) -> Spec {
    Spec { grid: Some(Grid::Uniform { bits }), types: Some(types), ..Spec::default() }
}

/// The least objective of any types, synapses and real values (a bound of whole ones), by trying them all.
fn exhaustive(p: &Problem, count: usize) -> f64 {
    let (n, m) = (p.n, p.m);
    let mut best = f64::INFINITY;
    for assignment in 0..count.pow(n as u32) {
        let types: Vec<usize> = (0..n).map(|i| assignment / count.pow(i as u32) % count).collect();
        let mut total = 0.0;
        for o in 0..m {
            let mut least = f64::INFINITY;
            for on in 0..1u32 << n {
                // P^T H P v = P^T b, two values at most
                let (mut a, mut c) = ([[0.0; 2]; 2], [0.0; 2]);
                for i in (0..n).filter(|i| on >> i & 1 == 1) {
                    c[types[i]] += p.b[o * n + i];
                    for j in (0..n).filter(|j| on >> j & 1 == 1) {
                        a[types[i]][types[j]] += p.h[i * n + j];
                    }
                }
                let gain = match (a[0][0] > 0.0, a[1][1] > 0.0) {
                    (true, true) => {
                        let det = a[0][0] * a[1][1] - a[0][1] * a[1][0];
                        if det < 1e-9 * a[0][0] * a[1][1] {
                            continue;
                        }
                        (c[0] * c[0] * a[1][1] - 2.0 * c[0] * c[1] * a[0][1] + c[1] * c[1] * a[0][0]) / det
                    }
                    (true, false) => c[0] * c[0] / a[0][0],
                    (false, true) => c[1] * c[1] / a[1][1],
                    (false, false) => 0.0,
                };
                least = least.min(p.tt.as_ref().unwrap()[o] - gain);
            }
            total += least;
        }
        best = best.min(total);
    }
    best
}

#[test]
fn small_problems_come_near_the_best_of_all() {
    let (mut ratios, mut ahead) = (Vec::new(), 0);
    for seed in 0..30 {
        let p = problem(seed, 5, 3);
        let best = exhaustive(&p, 2);
        let found = solve(&Device::cpu(), &p, &spec(2, 12)).unwrap();
        let total: f64 = found.objective.grid.iter().sum();
        let nearest: f64 = found.objective.rtn.iter().sum();
        // whole values of 12 bits are next to real ones
        assert!(total >= best * (1.0 - 1e-9) - 1e-9, "seed {seed}: {total} below {best}");
        assert!(total <= nearest * (1.0 + 1e-9), "seed {seed}");
        ahead += i32::from(total < nearest * 0.99);
        ratios.push(total / best);
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let equal = ratios.iter().filter(|r| **r < 1.001).count();
    assert!(
        mean < 1.3 && equal >= 20 && ahead >= 20,
        "mean {mean}, {equal} equal, {ahead} better than nearest: {ratios:?}"
    );
}

#[test]
fn the_constraint_holds() {
    for (seed, types, bits) in [(1, 4, 9), (2, 1, 9), (3, 4, 3), (4, 16, 9)] {
        let (n, m) = (40, 12);
        let mut p = problem(seed, n, m);
        // a dead input
        (0..n).for_each(|i| (p.h[7 * n + i], p.h[i * n + 7]) = (0.0, 0.0));
        (0..m).for_each(|o| p.b[o * n + 7] = 0.0);
        let given = vec![0.02; m];
        for scale in [None, Some(given.clone())] {
            let spec = Spec { scale: scale.clone(), ..spec(types, bits) };
            let found = solve(&Device::cpu(), &p, &spec).unwrap();
            let (codes, kinds) = (found.codes.unwrap(), found.types.unwrap());
            assert!(kinds.iter().all(|k| usize::from(*k) < types));
            assert!(scale.is_none_or(|s| s == found.scale));
            for o in 0..m {
                let mut values = vec![None; types];
                for i in 0..n {
                    let q = codes[o * n + i];
                    assert_eq!(found.w[o * n + i], f64::from(q) * found.scale[o]);
                    if q != 0 {
                        assert!((-(1 << (bits - 1))..1 << (bits - 1)).contains(&q));
                        assert_eq!(*values[usize::from(kinds[i])].get_or_insert(q), q, "row {o}, input {i}");
                    }
                }
                assert_eq!(codes[o * n + 7], 0, "a dead input");
                assert!(found.objective.bound[o] <= found.objective.grid[o]);
            }
        }
    }
}

#[test]
fn wrong_specs_are_refused() {
    let p = problem(1, 4, 2);
    for (bad, word) in [
        (Spec { grid: None, ..spec(4, 9) }, "grid"),
        (Spec { types: Some(0), ..spec(4, 9) }, "0 is outside"),
        (Spec { grid: Some(Grid::Unsigned { bits: 4 }), ..spec(4, 9) }, "both signs"),
        (Spec { method: Method::Exact, ..spec(4, 9) }, "exact"),
        (Spec { power_of_two: true, ..spec(4, 9) }, "powers of two"),
    ] {
        let said = solve(&Device::cpu(), &p, &bad).unwrap_err().to_string();
        assert!(said.contains("types") && said.contains(word), "{said}");
    }
}
