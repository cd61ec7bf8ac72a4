//! Weights on a grid: against enumeration, Babai's identity, monotony, scale owners, boxes, devices.

mod common;
#[path = "common/fit.rs"]
mod problems;

use problems::random;
use synfit::chip::{Grid, ScaleOwner};
use synfit::compute::Device;
use synfit::compute::solver::{Steps, dense, feedback};
use synfit::fit::{Bounds, Method, Problem, Solution, Spec, Status, solve};

fn on_grid(text: &str, method: Method) -> Spec {
    Spec { grid: Some(text.parse().unwrap()), method, ..Spec::default() }
}

fn total(rows: &[f64]) -> f64 {
    rows.iter().sum()
}

/// The stored weights are scale times level, and the objectives are those of the stored weights.
fn check(p: &Problem, s: &Solution, grid: &Grid) {
    let (n, codes) = (p.n, s.codes.as_ref().unwrap());
    assert!(total(&s.objective.grid) <= total(&s.objective.rtn) * (1.0 + 1e-9));
    for o in 0..p.m {
        let w = &s.w[o * n..(o + 1) * n];
        for (i, w) in w.iter().enumerate() {
            assert_eq!(*w, grid.value(codes[o * n + i]) * s.scale[o]);
        }
        let quadratic: f64 = (0..n * n).map(|at| w[at / n] * p.h[at] * w[at % n]).sum();
        let linear: f64 = (0..n).map(|i| w[i] * p.b[o * n + i]).sum();
        let straight = p.tt.as_ref().unwrap()[o] + quadratic - 2.0 * linear;
        assert!((straight - s.objective.grid[o]).abs() <= 1e-8 * p.tt.as_ref().unwrap()[o], "row {o}");
        assert!(s.objective.bound[o] <= s.objective.grid[o]);
    }
}

#[test]
fn every_method_and_grid_keeps_its_promises() {
    let p = Problem::from_sums(random(1, 300, 24, 6).sums()).unwrap();
    for text in ["8", "4", "3", "2", "sym4", "sym2", "1.58", "1", "u4", "even4"] {
        let grid: Grid = text.parse().unwrap();
        let mut reached = vec![f64::INFINITY];
        for method in [Method::Rtn, Method::Feedback, Method::Descent, Method::Kbest] {
            let s = solve(&Device::cpu(), &p, &on_grid(text, method)).unwrap();
            check(&p, &s, &grid);
            let now = total(&s.objective.grid);
            assert!(s.objective.grid.iter().zip(&s.objective.rtn).all(|(g, r)| *g <= r * (1.0 + 1e-9)));
            let last = reached[reached.len() - 1];
            // each method but K-best holds the one before it
            let hair = if method == Method::Kbest { 1e-3 } else { 1e-9 };
            assert!(now <= last * (1.0 + hair), "{text} {method:?}: {now} after {last}");
            reached.push(now);
        }
        let auto = solve(&Device::cpu(), &p, &on_grid(text, Method::Auto)).unwrap();
        let coarse = grid.levels().len() <= 32;
        assert_eq!(total(&auto.objective.grid), reached[if coarse { 4 } else { 3 }]);
    }
}

#[test]
fn eight_bits_come_near_the_continuous_optimum() {
    let p = Problem::from_sums(random(2, 400, 40, 8).sums()).unwrap();
    let s = solve(&Device::cpu(), &p, &on_grid("8", Method::Auto)).unwrap();
    assert!(total(&s.objective.grid) < 1.02 * total(&s.objective.fit));
    assert!(total(&s.objective.grid) < total(&s.objective.rtn));
    assert_eq!(s.status, Status::Heuristic);
    assert!((s.gap - (1.0 - total(&s.objective.bound) / total(&s.objective.grid))).abs() < 1e-9);
}

/// Given scales: the best levels by enumeration of all of them.
fn enumerated(p: &Problem, o: usize, levels: &[f64], scale: f64) -> f64 {
    let n = p.n;
    let mut at = vec![0; n];
    let mut best = f64::INFINITY;
    loop {
        let w: Vec<f64> = at.iter().map(|&l| scale * levels[l]).collect();
        let quadratic: f64 = (0..n * n).map(|at| w[at / n] * p.h[at] * w[at % n]).sum();
        let linear: f64 = (0..n).map(|i| w[i] * p.b[o * n + i]).sum();
        best = best.min(p.tt.as_ref().unwrap()[o] + quadratic - 2.0 * linear);
        let Some(i) = (0..n).find(|&i| at[i] + 1 < levels.len()) else { return best };
        at[..i].fill(0);
        at[i] += 1;
    }
}

#[test]
fn small_rows_come_near_the_exact_optimum() {
    let (mut exact, mut excess, mut rows) = (0, 0.0, 0);
    for seed in 0..40 {
        let p = Problem::from_sums(random(100 + seed, 60, 6, 2).sums()).unwrap();
        let searched = solve(&Device::cpu(), &p, &on_grid("3", Method::Auto)).unwrap();
        let spec = Spec { scale: Some(searched.scale.clone()), ..on_grid("3", Method::Auto) };
        let s = solve(&Device::cpu(), &p, &spec).unwrap();
        assert_eq!(s.scale, searched.scale);
        for o in 0..2 {
            let best = enumerated(&p, o, &spec.grid.as_ref().unwrap().levels(), s.scale[o]);
            let found = searched.objective.grid[o].min(s.objective.grid[o]);
            assert!(found >= best * (1.0 - 1e-9), "better than the best of all: {found} < {best}");
            assert!(s.objective.bound[o] <= best);
            exact += usize::from(found <= best * (1.0 + 1e-9));
            excess += found / best - 1.0;
            rows += 1;
        }
    }
    println!("{exact} of {rows} rows exact, mean excess {:.3} %", 100.0 * excess / f64::from(rows));
    assert!(exact * 10 >= rows as usize * 6 && excess / f64::from(rows) < 0.1);
}

/// METHOD 5.3: without clipping, the objective above the optimum is sum D_kk eta_k^2 with |eta| <= step / 2, and the
/// cost that feedback returns is that.
#[test]
fn babai_identity() {
    let n = 30;
    let p = Problem::from_sums(random(3, 200, n, 4).sums()).unwrap();
    let factor = dense::Cholesky::new(p.h.clone(), n, faer::Par::Seq).unwrap();
    let l = |j: usize, i: usize| factor.data[i * n + j];
    let mut unit = vec![0.0; n * n];
    for i in 0..n {
        for j in i + 1..n {
            unit[j * n + i] = l(j, i) / l(i, i);
        }
    }
    let diagonal: Vec<f64> = (0..n).map(|i| l(i, i)).collect();
    let mut free = p.b.clone();
    factor.solve(&mut free, 4, faer::Par::Seq);
    // a grid so wide that nothing is clipped
    let steps = Steps::Regular { low: -1e9, high: 1e9, step: 1.0 };
    for (o, scale) in [0.37, 0.11, 1.3, 0.02].into_iter().enumerate() {
        let w = &free[o * n..(o + 1) * n];
        let mut q = vec![0.0; n];
        let row = feedback::Row { w, bounds: None };
        let factor = feedback::Factor { unit: &unit, diagonal: &diagonal };
        let cost = feedback::twin(factor, &steps, &[(row, scale)], Some(&mut q))[0];
        let d: Vec<f64> = q.iter().zip(w).map(|(q, w)| scale * q - w).collect();
        let excess: f64 = (0..n * n).map(|at| d[at / n] * p.h[at] * d[at % n]).sum();
        assert!((cost - excess).abs() < 1e-9 * excess, "{cost} {excess}");
        let most: f64 = diagonal.iter().map(|l| (l * scale / 2.0).powi(2)).sum();
        assert!(cost <= most, "{cost} above the bound {most}");
    }
}

#[test]
fn owners_share_their_scale() {
    let p = Problem::from_sums(random(4, 200, 12, 5).sums()).unwrap();
    let solved = |owner| solve(&Device::cpu(), &p, &Spec { owner, ..on_grid("3", Method::Auto) }).unwrap();
    let (layer, channel, neuron) = (solved(ScaleOwner::Layer), solved(ScaleOwner::Channel), solved(ScaleOwner::Neuron));
    assert!(layer.scale.iter().all(|s| *s == layer.scale[0]));
    assert!(channel.scale.iter().any(|s| *s != channel.scale[0]));
    assert_eq!(channel.w, neuron.w);
    assert!(total(&layer.objective.grid) <= total(&layer.objective.rtn));
    assert!(total(&channel.objective.grid) < total(&layer.objective.grid));
    check(&p, &layer, &"3".parse().unwrap());
}

/// Scales that are powers of two: never off them, monotone, and the best of all such scales on small rows.
#[test]
fn power_of_two_scales() {
    let p = Problem::from_sums(random(10, 300, 24, 6).sums()).unwrap();
    for (text, owner) in [("8", ScaleOwner::Channel), ("4", ScaleOwner::Layer), ("2", ScaleOwner::Channel)] {
        let mut last = f64::INFINITY;
        for method in [Method::Rtn, Method::Feedback, Method::Descent] {
            let s = solve(&Device::cpu(), &p, &Spec { power_of_two: true, owner, ..on_grid(text, method) }).unwrap();
            check(&p, &s, &text.parse().unwrap());
            assert!(s.scale.iter().all(|s| s.log2().fract() == 0.0), "{text} {method:?}: {:?}", s.scale);
            assert!(total(&s.objective.grid) <= last * (1.0 + 1e-9));
            last = total(&s.objective.grid);
        }
        let free = solve(&Device::cpu(), &p, &Spec { owner, ..on_grid(text, Method::Auto) }).unwrap();
        assert!(total(&free.objective.grid) < last);
    }
    let (mut exact, mut excess) = (0, 0.0);
    for seed in 0..30 {
        let p = Problem::from_sums(random(300 + seed, 40, 5, 1).sums()).unwrap();
        let spec = Spec { power_of_two: true, ..on_grid("3", Method::Auto) };
        let s = solve(&Device::cpu(), &p, &spec).unwrap();
        let levels = spec.grid.unwrap().levels();
        let best = (-8..6).map(|k| enumerated(&p, 0, &levels, 2f64.powi(k))).fold(f64::INFINITY, f64::min);
        assert!(s.objective.grid[0] >= best * (1.0 - 1e-9) && s.objective.bound[0] <= best);
        exact += usize::from(s.objective.grid[0] <= best * (1.0 + 1e-9));
        excess += s.objective.grid[0] / best - 1.0;
    }
    println!("{exact} of 30 rows exact, mean excess {:.3} %", 100.0 * excess / 30.0);
    assert!(exact >= 18 && excess / 30.0 < 0.1);
    let wrong = Spec { power_of_two: true, scale: Some(vec![0.3]), ..on_grid("3", Method::Auto) };
    assert_eq!(solve(&Device::cpu(), &p, &wrong).unwrap_err().exit_code(), 2);
}

fn check_levels_in_a_box(dev: &Device, p: &Problem, grid: &str, owner: ScaleOwner) {
    let upper = [0.1, 0.3, 0.5, 0.7, 0.9];
    let spec =
        Spec { lower: Bounds::Scalar(-0.2), upper: Bounds::Row(upper.to_vec()), owner, ..on_grid(grid, Method::Auto) };
    let s = solve(dev, p, &spec).unwrap();
    check(p, &s, &grid.parse().unwrap());
    for (at, w) in s.w.iter().enumerate() {
        assert!(*w >= -0.2 - 1e-9 && *w <= upper[at / p.n] + 1e-9, "{grid} {at}: {w}");
    }
}

#[test]
fn levels_stay_within_the_box() {
    let p = Problem::from_sums(random(5, 200, 12, 5).sums()).unwrap();
    for (grid, owner) in [("8", ScaleOwner::Channel), ("4", ScaleOwner::Layer), ("1.58", ScaleOwner::Channel)] {
        check_levels_in_a_box(&Device::cpu(), &p, grid, owner);
    }
    // large enough that a GPU gets it
    let p = Problem::from_sums(random(5, 600, 330, 5).sums()).unwrap();
    check_levels_in_a_box(common::both()[0], &p, "4", ScaleOwner::Channel);
}

#[test]
fn a_box_without_levels_is_refused() {
    let p = Problem::from_sums(random(6, 50, 3, 1).sums()).unwrap();
    // levels 0 and +-1 at scale 1; nothing between 0.3 and 0.6
    let spec = Spec {
        lower: Bounds::Scalar(0.3),
        upper: Bounds::Scalar(0.6),
        scale: Some(vec![1.0]),
        ..on_grid("1.58", Method::Auto)
    };
    let e = solve(&Device::cpu(), &p, &spec).unwrap_err();
    assert!(e.exit_code() == 2 && e.message.contains("holds no level"), "{e}");
}

#[test]
fn level_lists() {
    let p = Problem::from_sums(random(7, 200, 10, 3).sums()).unwrap();
    let grid = Grid::from_levels(vec![-1.0, -0.3, 0.0, 0.2, 0.45, 1.1]).unwrap();
    let spec = Spec { grid: Some(grid.clone()), ..Spec::default() };
    let s = solve(&Device::cpu(), &p, &spec).unwrap();
    check(&p, &s, &grid);
    assert!(s.codes.unwrap().iter().all(|c| (0..6).contains(c)));
    for bad in [Grid::Levels(vec![]), Grid::Levels(vec![1.0, 0.0]), Grid::Uniform { bits: 1 }] {
        let spec = Spec { grid: Some(bad), ..Spec::default() };
        assert_eq!(solve(&Device::cpu(), &p, &spec).unwrap_err().exit_code(), 2);
    }
}

#[test]
fn devices_agree_within_a_percent() {
    // large enough that a GPU gets it
    let p = Problem::from_sums(random(8, 400, 150, 24).sums()).unwrap();
    for (text, owner) in [("8", ScaleOwner::Channel), ("3", ScaleOwner::Layer)] {
        let grid: Grid = text.parse().unwrap();
        let solved = |dev: &Device| solve(dev, &p, &Spec { owner, ..on_grid(text, Method::Auto) }).unwrap();
        let [gpu, cpu] = common::both().map(solved);
        check(&p, &gpu, &grid);
        let ratio = total(&gpu.objective.grid) / total(&cpu.objective.grid);
        assert!((ratio - 1.0).abs() < 0.01, "{text} {owner:?}: {ratio}");
    }
}

#[test]
fn twice_the_same() {
    let p = Problem::from_sums(random(9, 300, 150, 24).sums()).unwrap();
    for dev in common::both() {
        let once = solve(dev, &p, &on_grid("4", Method::Auto)).unwrap();
        let again = solve(dev, &p, &on_grid("4", Method::Auto)).unwrap();
        assert_eq!((once.w, once.scale), (again.w, again.scale));
    }
}
