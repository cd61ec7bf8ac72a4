//! Problems that break solvers: rank-deficient, dead, duplicated and badly scaled inputs, fewer samples than inputs, one
//! input, one output, perfect fits, noise that makes H indefinite.

#[path = "common/fit.rs"]
mod problems;

use problems::{Raw, random};
use synfit::compute::Device;
use synfit::fit::{Bounds, Problem, Solution, Spec, Status, Sums, solve};

fn specs() -> Vec<Spec> {
    let grid = |text: &str| Spec { grid: Some(text.parse().unwrap()), ..Spec::default() };
    let boxed = |half: f64| Spec { lower: Bounds::Scalar(-half), upper: Bounds::Scalar(half), ..Spec::default() };
    vec![
        Spec::default(),
        boxed(0.3),
        boxed(3.0),
        grid("8"),
        grid("3"),
        Spec { upper: Bounds::Scalar(0.2), ..grid("4") },
    ]
}

/// Solves by every spec; checks what must hold whatever the problem.
fn check(raw: &Raw) -> Vec<Solution> {
    let p = Problem::from_sums(raw.sums()).unwrap();
    let tt: f64 = p.tt.as_ref().unwrap().iter().sum();
    let mut all = Vec::new();
    for spec in specs() {
        let s = solve(&Device::cpu(), &p, &spec).unwrap();
        assert!(s.w.iter().chain(&s.scale).chain(&s.free).all(|v| v.is_finite()), "{spec:?}");
        let bias = Problem::bias(&s.w, &raw.sums());
        for (o, bias) in bias.into_iter().enumerate() {
            let straight = raw.objective(o, &s.w[o * p.n..(o + 1) * p.n], bias);
            let told = s.objective.grid[o];
            assert!((straight - told).abs() <= 1e-6 * tt, "{spec:?} row {o}: {straight} but {told} was told");
            assert!(s.objective.bound[o] <= told && s.objective.fit[o] <= told * (1.0 + 1e-9) + 1e-9 * tt);
        }
        if spec.grid.is_none() {
            assert_eq!(s.status, Status::Optimal, "{spec:?}: gap {}", s.worst_gap);
        }
        all.push(s);
    }
    all
}

fn rebuilt(raw: &Raw, n: usize, input: impl Fn(&[f64], usize) -> f64) -> Raw {
    let x = raw.x.chunks_exact(raw.n).flat_map(|xs| (0..n).map(|i| input(xs, i)).collect::<Vec<_>>()).collect();
    Raw::new(x, raw.t.clone(), n, raw.m)
}

fn near(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance * (1.0 + b.abs()))
}

#[test]
fn dead_inputs_do_no_harm() {
    let raw = random(1, 80, 5, 3);
    let alive = check(&raw);
    // input 2 is always 0, input 6 always 7.5: constants that the bias takes up
    let dead = rebuilt(&raw, 7, |xs, i| match i {
        0 | 1 => xs[i],
        2 => 0.0,
        6 => 7.5,
        _ => xs[i - 1],
    });
    let with = check(&dead);
    for (alive, with) in alive.iter().zip(&with) {
        assert!(near(&with.objective.grid, &alive.objective.grid, 1e-9));
        assert!(near(&with.scale, &alive.scale, 1e-9));
        assert!((0..3).all(|o| with.w[o * 7 + 2] == 0.0 && with.w[o * 7 + 6] == 0.0));
    }
    // with a prior, a dead input keeps the network's own weight
    let mut p = Problem::from_sums(dead.sums()).unwrap();
    p.prior = Some(vec![0.125; 21]);
    let s = solve(&Device::cpu(), &p, &Spec::default()).unwrap();
    assert!((0..3).all(|o| s.w[o * 7 + 2] == 0.125 && s.w[o * 7 + 6] == 0.125));
    let s = solve(&Device::cpu(), &p, &Spec { upper: Bounds::Scalar(0.1), ..Spec::default() }).unwrap();
    assert_eq!(s.w[2], 0.1);
}

#[test]
fn all_inputs_dead() {
    let raw = Raw::new(vec![3.0; 40], (0..20).map(f64::from).collect(), 2, 1);
    let all = check(&raw);
    assert!(all.iter().all(|s| s.w == [0.0, 0.0] && s.damping == 0.0));
    let tt = 20.0 * (20.0f64.powi(2) - 1.0) / 12.0;
    assert!(all.iter().all(|s| (s.objective.grid[0] - tt).abs() < 1e-9));
}

#[test]
fn duplicated_inputs() {
    let raw = random(2, 80, 4, 3);
    let alone = check(&raw);
    let twice = rebuilt(&raw, 8, |xs, i| xs[i % 4]);
    let with = check(&twice);
    assert!(with.iter().all(|s| s.damping > 0.0 && s.damping <= 1e-9));
    // the unconstrained optimum is the same, and splits evenly
    assert!(near(&with[0].objective.fit, &alone[0].objective.fit, 1e-6));
    for o in 0..3 {
        for i in 0..4 {
            assert!((with[0].w[o * 8 + i] - 0.5 * alone[0].w[o * 4 + i]).abs() < 1e-3);
        }
    }
    // twice the box reaches at least as far
    assert!(with[1].objective.fit.iter().zip(&alone[1].objective.fit).all(|(w, a)| *w <= a * (1.0 + 1e-6)));
}

#[test]
fn fewer_samples_than_inputs() {
    let s = check(&random(3, 12, 40, 3));
    // twelve centred samples are fitted exactly
    assert!(s[0].objective.fit.iter().zip(&s[0].objective.rtn).all(|(f, _)| *f < 1e-6));
    assert!(s[0].damping > 0.0);
    check(&random(4, 1, 5, 2));
    check(&random(5, 2, 9, 1));
}

#[test]
fn badly_scaled_inputs() {
    let raw = random(6, 120, 6, 2);
    let plain = check(&raw);
    let factor = |i: usize| [1e-6, 1e6, 1.0, 1e-3, 1e3, 1e-6][i];
    let scaled = rebuilt(&raw, 6, |xs, i| xs[i] * factor(i));
    let with = check(&scaled);
    assert!(near(&with[0].objective.fit, &plain[0].objective.fit, 1e-8));
    for at in 0..12 {
        assert!((with[0].w[at] * factor(at % 6) - plain[0].w[at]).abs() < 1e-6);
    }
    // bounds that follow the scaling leave the same problem
    let p = Problem::from_sums(scaled.sums()).unwrap();
    let side = |half: f64| Bounds::Element((0..12).map(|at| half / factor(at % 6)).collect());
    let s = solve(&Device::cpu(), &p, &Spec { lower: side(-0.3), upper: side(0.3), ..Spec::default() }).unwrap();
    assert_eq!(s.status, Status::Optimal);
    assert!(near(&s.objective.fit, &plain[1].objective.fit, 1e-8));
}

#[test]
fn one_input_one_output() {
    let raw = random(7, 30, 1, 1);
    let s = check(&raw);
    let p = Problem::from_sums(raw.sums()).unwrap();
    assert!((s[0].w[0] - p.b[0] / p.h[0]).abs() < 1e-12);
    assert_eq!(s[1].w[0], (p.b[0] / p.h[0]).clamp(-0.3, 0.3));
    // one weight with a scale of its own is stored without error
    assert!((s[3].w[0] - s[0].w[0]).abs() < 1e-9);
    check(&random(8, 30, 1, 4));
    check(&random(9, 30, 6, 1));
}

#[test]
fn perfect_fits_and_constant_targets() {
    let mut raw = random(10, 50, 4, 2);
    let t: Vec<f64> = raw.x.chunks_exact(4).flat_map(|x| [x[0] - 2.0 * x[3] + 1.0, 5.0]).collect();
    raw = Raw::new(raw.x.clone(), t, 4, 2);
    let all = check(&raw);
    assert!(near(&all[0].w, &[1.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0], 1e-9));
    assert!(all.iter().all(|s| s.w[4..].iter().all(|w| w.abs() < 1e-9)));
}

/// Sums from a device carry rounding: H may come out slightly indefinite.
#[test]
fn noisy_gram_matrices_are_damped_and_say_so() {
    let raw = random(11, 20, 30, 2);
    let sums = raw.sums();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut h = sums.h.to_vec();
    for i in 0..30 {
        for j in 0..=i {
            let v = h[i * 30 + j] * (1.0 + 1e-7 * (rng.f64() - 0.5));
            h[i * 30 + j] = v;
            h[j * 30 + i] = v;
        }
    }
    let p = Problem::from_sums(Sums { h: &h, ..sums }).unwrap();
    let s = solve(&Device::cpu(), &p, &Spec::default()).unwrap();
    assert!(s.damping >= 1e-9 && s.damping <= 1e-4, "{}", s.damping);
    assert!(s.w.iter().all(|w| w.is_finite()));
    // and what is no Gram matrix at all is refused
    let p = Problem::from_gram(2, 1, vec![1.0, 5.0, 5.0, 1.0], vec![1.0, 1.0]).unwrap();
    assert_eq!(solve(&Device::cpu(), &p, &Spec::default()).unwrap_err().subject, "h");
}

#[test]
fn malformed_problems_are_errors() {
    assert!(Problem::from_gram(2, 1, vec![1.0; 3], vec![1.0; 2]).is_err());
    assert!(Problem::from_gram(2, 1, vec![1.0, f64::NAN, 0.0, 1.0], vec![1.0; 2]).is_err());
    let sums = Sums { h: &[1.0], b: &[1.0], x: &[1.0], t: &[1.0], tt: &[1.0], count: 0.0 };
    assert!(Problem::from_sums(sums).is_err());
    let empty = Problem::from_gram(0, 0, vec![], vec![]).unwrap();
    assert!(solve(&Device::cpu(), &empty, &Spec::default()).is_err());
}
