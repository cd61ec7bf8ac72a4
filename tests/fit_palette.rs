//! Palettes of every output's own: against all assignments on small problems, and what every solution must keep to.

mod common;
#[path = "common/fit.rs"]
mod problems;

use problems::random;
use synfit::chip::ScaleOwner;
use synfit::compute::Device;
use synfit::compute::solver::dense::Cholesky;
use synfit::fit::{Bounds, Method, Problem, Signs, Solution, Spec, solve};
use synfit::verify;

fn of(count: usize) -> Spec {
    Spec { palette: Some(count), ..Spec::default() }
}

fn total(rows: &[f64]) -> f64 {
    rows.iter().sum()
}

/// Weights are values of their row's palette, and the objectives are those of the stored weights.
fn check(p: &Problem, spec: &Spec, s: &Solution) {
    let (palette, codes) = (s.palette.as_ref().unwrap(), s.codes.as_ref().unwrap());
    let count = spec.palette.unwrap();
    assert_eq!(palette.len(), p.m * count);
    for (at, w) in s.w.iter().enumerate() {
        let own = &palette[at / p.n * count..][..count];
        assert!(own.windows(2).all(|v| v[0] <= v[1]));
        let sign = s.signs.as_ref().map_or(1.0, |signs| f64::from(signs[at % p.n]));
        assert_eq!(*w, sign * own[codes[at] as usize]);
    }
    let checked = verify::check(p, spec, s, &verify::sampled(p.m, p.m, 0)).unwrap();
    assert!(checked.iter().all(|r| r.verdict.agrees()), "{:?}", checked.iter().map(|r| &r.verdict).collect::<Vec<_>>());
}

/// The best values for every assignment of n weights to `count` values, by normal equations.
fn best(p: &Problem, o: usize, count: usize) -> f64 {
    let n = p.n;
    let objective = |assignment: usize| {
        let code = |i: usize| assignment / count.pow(i as u32) % count;
        let used: Vec<usize> = (0..count).filter(|c| (0..n).any(|i| code(i) == *c)).collect();
        let k = used.len();
        let (mut a, mut c) = (vec![0.0; k * k], vec![0.0; k]);
        for i in 0..n {
            let at = used.binary_search(&code(i)).unwrap();
            c[at] += p.b[o * n + i];
            (0..n).for_each(|j| a[at * k + used.binary_search(&code(j)).unwrap()] += p.h[i * n + j]);
        }
        let mut v = c.clone();
        Cholesky::new(a, k, faer::Par::Seq).unwrap().solve(&mut v, 1, faer::Par::Seq);
        p.tt.as_ref().unwrap()[o] - v.iter().zip(&c).map(|(v, c)| v * c).sum::<f64>()
    };
    (0..count.pow(n as u32)).map(objective).fold(f64::INFINITY, f64::min)
}

#[test]
fn small_rows_get_the_best_palette() {
    let (mut exact, mut excess, mut rows) = (0, 0.0, 0);
    for seed in 0..50 {
        let (n, count) = (3 + seed as usize % 3, 2 + seed as usize % 2);
        let p = Problem::from_sums(random(seed, 50, n, 4).sums()).unwrap();
        let s = solve(&Device::cpu(), &p, &of(count)).unwrap();
        check(&p, &of(count), &s);
        for o in 0..4 {
            let (found, best) = (s.objective.grid[o], best(&p, o, count));
            assert!(found >= best * (1.0 - 1e-9) && s.objective.bound[o] <= best * (1.0 + 1e-9), "seed {seed} row {o}");
            exact += usize::from(found <= best * (1.0 + 1e-9));
            excess += found / best - 1.0;
            rows += 1;
        }
    }
    println!("{exact} of {rows} rows exact, mean excess {:.3} %", 100.0 * excess / f64::from(rows));
    assert!(exact * 10 >= rows as usize * 8 && excess / f64::from(rows) < 0.05);
}

#[test]
fn methods_and_counts_in_their_order() {
    let p = Problem::from_sums(random(1, 300, 24, 6).sums()).unwrap();
    let mut fewer = f64::INFINITY;
    for count in [1, 2, 4, 9, 16, 24] {
        let mut last = f64::INFINITY;
        for method in [Method::Rtn, Method::Feedback, Method::Descent] {
            let spec = Spec { method, ..of(count) };
            let s = solve(&Device::cpu(), &p, &spec).unwrap();
            check(&p, &spec, &s);
            assert!(s.objective.grid.iter().zip(&s.objective.rtn).all(|(g, r)| *g <= r * (1.0 + 1e-9)));
            assert!(total(&s.objective.grid) <= last * (1.0 + 1e-9), "{count} {method:?}");
            last = total(&s.objective.grid);
        }
        assert!(last < fewer, "{count} values are no better than fewer");
        fewer = last;
    }
    // a value for every weight
    let s = solve(&Device::cpu(), &p, &of(24)).unwrap();
    assert!(total(&s.objective.grid) <= total(&s.objective.fit) * (1.0 + 1e-9));
}

#[test]
fn boxes_signs_and_dead_inputs() {
    let raw = random(5, 80, 7, 3);
    let x = raw.x.chunks(7).flat_map(|x| [x[0], x[1], 0.0, x[2], x[1], x[3] * 1e4, x[4], x[5], x[6]]).collect();
    let mut p = Problem::from_sums(problems::Raw::new(x, raw.t, 9, 3).sums()).unwrap();
    p.ridge = 1e-4;
    p.prior = Some(vec![0.2; 27]);
    let boxed = Spec { lower: Bounds::Scalar(-0.4), upper: Bounds::Row(vec![0.3, 0.5, 0.7]), ..of(4) };
    for spec in [of(3), boxed.clone(), Spec { signs: Signs::Input, ..of(4) }, Spec { signs: Signs::Input, ..boxed }] {
        let s = solve(&Device::cpu(), &p, &spec).unwrap();
        check(&p, &spec, &s);
        assert!(total(&s.objective.grid) <= total(&s.objective.rtn));
        if !spec.lower.is_none() {
            assert!(s.w.iter().enumerate().all(|(at, w)| *w >= -0.4 - 1e-9 && *w <= [0.3, 0.5, 0.7][at / 9] + 1e-9));
        }
    }
}

/// Large enough that a GPU gets it.
#[test]
fn devices_agree() {
    let p = Problem::from_sums(random(6, 400, 150, 24).sums()).unwrap();
    let [gpu, cpu] = common::both().map(|dev| solve(dev, &p, &of(5)).unwrap());
    check(&p, &of(5), &gpu);
    let ratio = total(&gpu.objective.grid) / total(&cpu.objective.grid);
    assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
}

#[test]
fn what_cannot_be_is_refused() {
    let p = Problem::from_sums(random(7, 50, 3, 2).sums()).unwrap();
    for (spec, word) in [
        (of(0), "outside"),
        (of(257), "outside"),
        (Spec { grid: Some("4".parse().unwrap()), ..of(4) }, "not both"),
        (Spec { scale: Some(vec![1.0]), ..of(4) }, "no scale"),
        (Spec { owner: ScaleOwner::Layer, ..of(4) }, "layer"),
    ] {
        let e = solve(&Device::cpu(), &p, &spec).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(word), "{e}");
    }
}
