//! Signs owned by the inputs: against all sign vectors on small problems, and what every solution must keep to.

mod common;
#[path = "common/fit.rs"]
mod problems;

use problems::random;
use synfit::compute::Device;
use synfit::fit::{Bounds, Problem, Signs, Solution, Spec, Status, solve};
use synfit::verify::{self, Row};

fn signed(grid: Option<&str>) -> Spec {
    Spec { signs: Signs::Input, grid: grid.map(|g| g.parse().unwrap()), ..Spec::default() }
}

fn total(rows: &[f64]) -> f64 {
    rows.iter().sum()
}

/// Weights have their input's sign, are its code times the scale, and lead to the stated objectives.
fn check(p: &Problem, spec: &Spec, s: &Solution) {
    let signs = s.signs.as_ref().unwrap();
    assert_eq!(signs.len(), p.n);
    assert!(signs.iter().all(|s| s.abs() == 1));
    assert!(s.w.iter().enumerate().all(|(at, w)| w * f64::from(signs[at % p.n]) >= 0.0));
    if let (Some(grid), Some(codes)) = (&spec.grid, &s.codes) {
        for (at, w) in s.w.iter().enumerate() {
            let magnitude = grid.value(codes[at]) * s.scale[at / p.n];
            assert!(codes[at] >= 0 && *w == magnitude * f64::from(signs[at % p.n]));
        }
    } else {
        assert!(spec.grid.is_none() && s.codes.is_none());
    }
    for o in 0..p.m {
        assert!(s.objective.bound[o] <= s.objective.fit[o] * (1.0 + 1e-9));
        assert!(s.objective.fit[o] <= s.objective.grid[o] * (1.0 + 1e-5) + 1e-12);
    }
    let checked = verify::check(p, spec, s, &verify::sampled(p.m, p.m, 0)).unwrap();
    assert!(checked.iter().all(|r| r.verdict.agrees()), "{:?}", checked.iter().map(|r| &r.verdict).collect::<Vec<_>>());
}

/// Every sign vector of n inputs.
fn vectors(n: usize) -> impl Iterator<Item = Vec<f64>> {
    (0..1 << n).map(move |bits: usize| (0..n).map(|i| if bits >> i & 1 == 1 { -1.0 } else { 1.0 }).collect())
}

/// The best continuous weights under the best signs, by an independent code.
fn best_continuous(p: &Problem) -> f64 {
    let row = |o: usize, signs: &[f64]| {
        let bound = |sign: f64, open: f64| signs.iter().map(|s| if *s == sign { 0.0 } else { open }).collect();
        let (lower, upper) = (bound(1.0, f64::NEG_INFINITY), bound(-1.0, f64::INFINITY));
        let b = p.b[o * p.n..(o + 1) * p.n].to_vec();
        Row { h: p.h.clone(), b, constant: p.tt.as_ref().unwrap()[o], lower, upper }.least().unwrap().objective
    };
    vectors(p.n).map(|signs| (0..p.m).map(|o| row(o, &signs)).sum()).fold(f64::INFINITY, f64::min)
}

/// The best codes under the best signs at given scales, by enumeration.
fn best_codes(p: &Problem, levels: &[f64], scale: &[f64]) -> f64 {
    let n = p.n;
    let row = |o: usize, signs: &[f64]| {
        let codes = levels.len().pow(n as u32);
        let cost = |code: usize| {
            let level = |i: usize| levels[code / levels.len().pow(i as u32) % levels.len()];
            let w: Vec<f64> = (0..n).map(|i| signs[i] * scale[o] * level(i)).collect();
            let quadratic: f64 = (0..n * n).map(|at| w[at / n] * p.h[at] * w[at % n]).sum();
            p.tt.as_ref().unwrap()[o] + quadratic - 2.0 * (0..n).map(|i| w[i] * p.b[o * n + i]).sum::<f64>()
        };
        (0..codes).map(cost).fold(f64::INFINITY, f64::min)
    };
    vectors(n).map(|signs| (0..p.m).map(|o| row(o, &signs)).sum()).fold(f64::INFINITY, f64::min)
}

#[test]
fn small_problems_get_the_best_signs() {
    let (mut exact, mut excess, count) = (0, 0.0, 60);
    for seed in 0..count {
        let (n, m) = (3 + seed as usize % 3, 1 + seed as usize % 4);
        let p = Problem::from_sums(random(seed, 50, n, m).sums()).unwrap();
        let s = solve(&Device::cpu(), &p, &signed(None)).unwrap();
        check(&p, &signed(None), &s);
        let (best, found) = (best_continuous(&p), total(&s.objective.grid));
        assert!(found >= best * (1.0 - 1e-6) && total(&s.objective.bound) <= best * (1.0 + 1e-9), "seed {seed}");
        exact += usize::from(found <= best * (1.0 + 1e-6));
        excess += found / best - 1.0;
    }
    println!("{exact} of {count} problems exact, mean excess {:.3} %", 100.0 * excess / count as f64);
    assert!(exact * 10 >= 9 * count as usize && excess / (count as f64) < 0.02);
}

#[test]
fn small_problems_on_a_grid() {
    let (mut exact, mut excess, count) = (0, 0.0, 40);
    for seed in 0..count {
        let (n, m) = (3 + seed as usize % 3, 1 + seed as usize % 3);
        let p = Problem::from_sums(random(500 + seed, 50, n, m).sums()).unwrap();
        let searched = solve(&Device::cpu(), &p, &signed(Some("u2"))).unwrap();
        check(&p, &signed(Some("u2")), &searched);
        let spec = Spec { scale: Some(searched.scale.clone()), ..signed(Some("u2")) };
        let fixed = solve(&Device::cpu(), &p, &spec).unwrap();
        check(&p, &spec, &fixed);
        let best = best_codes(&p, &[0.0, 1.0, 2.0, 3.0], &fixed.scale);
        let found = total(&searched.objective.grid).min(total(&fixed.objective.grid));
        assert!(found >= best * (1.0 - 1e-9) && total(&fixed.objective.bound) <= best);
        exact += usize::from(found <= best * (1.0 + 1e-9));
        excess += found / best - 1.0;
    }
    println!("{exact} of {count} problems exact, mean excess {:.3} %", 100.0 * excess / count as f64);
    assert!(exact * 10 >= 8 * count as usize && excess / (count as f64) < 0.02);
}

#[test]
fn a_single_output_needs_no_choice() {
    // every weight may have its own sign then, but for dead ones
    let p = Problem::from_sums(random(1, 200, 20, 1).sums()).unwrap();
    let s = solve(&Device::cpu(), &p, &signed(None)).unwrap();
    assert_eq!(s.status, Status::Optimal);
    assert!(s.gap < 1e-5);
}

#[test]
fn boxes_lists_ridges_and_dead_inputs() {
    let raw = random(5, 80, 7, 3);
    let x = raw.x.chunks(7).flat_map(|x| [x[0], x[1], 0.0, x[2], x[1], x[3] * 1e4, x[4], x[5], x[6]]).collect();
    let mut p = Problem::from_sums(problems::Raw::new(x, raw.t, 9, 3).sums()).unwrap();
    p.ridge = 1e-4;
    p.prior = Some((0..27).map(|at| if at % 9 == 2 { -0.5 } else { 0.2 }).collect());
    let levels = synfit::chip::Grid::from_levels(vec![0.0, 0.25, 1.0, 1.5]).unwrap();
    let boxed = |spec: Spec| Spec { lower: Bounds::Scalar(-0.4), upper: Bounds::Row(vec![0.3, 0.5, 0.7]), ..spec };
    for spec in [
        signed(None),
        boxed(signed(None)),
        signed(Some("u4")),
        boxed(signed(Some("u4"))),
        Spec { grid: Some(levels), ..signed(None) },
        Spec { owner: synfit::chip::ScaleOwner::Layer, power_of_two: true, ..signed(Some("u3")) },
    ] {
        let s = solve(&Device::cpu(), &p, &spec).unwrap();
        check(&p, &spec, &s);
        assert_eq!(s.signs.as_ref().unwrap()[2], -1, "the dead input follows its prior");
    }
}

/// Large enough that a GPU gets it.
#[test]
fn devices_agree() {
    let p = Problem::from_sums(random(6, 260, 100, 54).sums()).unwrap();
    for spec in [signed(None), signed(Some("u3"))] {
        let [gpu, cpu] = common::both().map(|dev| solve(dev, &p, &spec).unwrap());
        check(&p, &spec, &gpu);
        check(&p, &spec, &cpu);
        let ratio = total(&gpu.objective.grid) / total(&cpu.objective.grid);
        assert!((ratio - 1.0).abs() < 0.02, "{ratio}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let p = Problem::from_sums(random(7, 50, 3, 2).sums()).unwrap();
    let apart = Spec { lower: Bounds::Row(vec![0.1, -1.0]), upper: Bounds::Row(vec![1.0, -0.1]), ..signed(None) };
    for (spec, word) in [(signed(Some("4")), "unsigned"), (signed(Some("1")), "unsigned"), (apart, "neither sign")] {
        let e = solve(&Device::cpu(), &p, &spec).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(word), "{e}");
    }
}
