//! The form by samples against the one by sums: the same problem, the same answers.

mod common;

use common::{both, reals};
use synfit::chip::ScaleOwner;
use synfit::fit::{Method, Problem, Samples, Solution, Spec, Status, Sums, solve, solve_dual};

struct Case {
    n: usize,
    m: usize,
    x: Vec<f64>,
    t: Vec<f64>,
    prior: Vec<f64>,
}

impl Case {
    /// Rates in 0 .. 1, one input dead, one constant.
    fn new(seed: u64, samples: usize, n: usize, m: usize) -> Self {
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
        let mut x: Vec<f64> = wide(reals(seed, samples * n)).into_iter().map(f64::abs).collect();
        for row in x.chunks_exact_mut(n) {
            (row[0], row[1]) = (0.0, 0.5);
        }
        let prior: Vec<f64> = wide(reals(seed + 1, m * n)).into_iter().map(|w| w / (n as f64).sqrt()).collect();
        let noise = wide(reals(seed + 2, samples * m));
        let target = |at: usize| {
            let (s, o) = (at / m, at % m);
            (0..n).map(|i| x[s * n + i] * prior[o * n + i]).sum::<f64>() + 0.1 * noise[at] + 1.0
        };
        let t = (0..samples * m).map(target).collect();
        Self { n, m, x, t, prior }
    }

    fn samples(&self) -> Samples<'_> {
        Samples { n: self.n, m: self.m, x: &self.x, t: &self.t, bias: true }
    }

    /// The same problem by its sums.
    fn problem(&self, ridge: f64) -> Problem {
        let (n, m) = (self.n, self.m);
        let count = self.x.len() / n;
        let sum = |value: &dyn Fn(usize) -> f64| (0..count).map(value).sum::<f64>();
        let x = |s: usize, i: usize| self.x[s * n + i];
        let t = |s: usize, o: usize| self.t[s * m + o];
        let raw = [
            (0..n * n).map(|at| sum(&|s| x(s, at / n) * x(s, at % n))).collect::<Vec<_>>(),
            (0..m * n).map(|at| sum(&|s| t(s, at / n) * x(s, at % n))).collect(),
            (0..n).map(|i| sum(&|s| x(s, i))).collect(),
            (0..m).map(|o| sum(&|s| t(s, o))).collect(),
            (0..m).map(|o| sum(&|s| t(s, o).powi(2))).collect(),
        ];
        let [h, b, x, t, tt] = &raw;
        let problem = Problem::from_sums(Sums { h, b, x, t, tt, count: count as f64 }).unwrap();
        Problem { prior: Some(self.prior.clone()), ridge, ..problem }
    }
}

fn total(rows: &[f64]) -> f64 {
    rows.iter().sum()
}

#[test]
fn both_forms_agree() {
    for (seed, samples, n, m, ridge) in
        [(1, 30, 120, 5, 1e-2), (9, 50, 50, 3, 1e-3), (17, 7, 40, 1, 1.0), (4, 1, 9, 2, 0.1)]
    {
        let case = Case::new(seed, samples, n, m);
        let problem = case.problem(ridge);
        let specs: [(&str, Spec); 4] = [
            ("free", Spec::default()),
            ("4", Spec { grid: Some("4".parse().unwrap()), method: Method::Descent, ..Spec::default() }),
            (
                "3, layer",
                Spec {
                    grid: Some("3".parse().unwrap()),
                    owner: ScaleOwner::Layer,
                    method: Method::Descent,
                    ..Spec::default()
                },
            ),
            (
                "4, shift",
                Spec {
                    grid: Some("4".parse().unwrap()),
                    power_of_two: true,
                    method: Method::Descent,
                    ..Spec::default()
                },
            ),
        ];
        for dev in both() {
            for (name, spec) in &specs {
                let gram = solve(dev, &problem, spec).unwrap();
                let dual = solve_dual(dev, &case.samples(), (Some(&case.prior), ridge), spec, &|| false).unwrap();
                let size = total(&gram.objective.rtn);
                let near = |a: &[f64], b: &[f64], hair: f64| (total(a) - total(b)).abs() <= hair * size + 1e-9;
                assert!(near(&gram.objective.fit, &dual.objective.fit, 1e-6), "{name}: continuous optimum, {dev:?}");
                assert!(near(&gram.objective.rtn, &dual.objective.rtn, 1e-6), "{name}: round to nearest, {dev:?}");
                let (a, b) = (total(&gram.objective.grid), total(&dual.objective.grid));
                // few samples leave many equal choices: heuristics end in different ones
                assert!(b <= 1.3 * a + 1e-9, "{name}: {b} where sums give {a}, seed {seed}, {dev:?}");
                assert!(b <= total(&dual.objective.rtn) * (1.0 + 1e-9));
                if spec.grid.is_none() {
                    assert_eq!(dual.status, Status::Optimal);
                    let worst = gram.w.iter().zip(&dual.w).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(worst < 1e-6, "weights differ by {worst}");
                }
                stored(&dual, spec, &case, &problem);
            }
        }
    }
}

/// What is stored is on the grid, and costs what it says by the sums, too.
fn stored(dual: &Solution, spec: &Spec, case: &Case, problem: &Problem) {
    let n = case.n;
    if let (Some(grid), Some(codes)) = (&spec.grid, &dual.codes) {
        for (at, (w, code)) in dual.w.iter().zip(codes).enumerate() {
            assert_eq!(*w, dual.scale[at / n] * grid.value(*code));
        }
        if spec.owner == ScaleOwner::Layer {
            assert!(dual.scale.iter().all(|s| *s == dual.scale[0]));
        }
    }
    let live: Vec<usize> = (0..n).filter(|&i| problem.h[i * n + i] > 0.0).collect();
    let mean = live.iter().map(|&i| problem.h[i * n + i]).sum::<f64>() / live.len().max(1) as f64;
    for o in 0..case.m {
        let row = &dual.w[o * n..(o + 1) * n];
        let of = |i: usize| &problem.h[i * n..(i + 1) * n];
        let quadratic: f64 = (0..n).map(|i| row[i] * of(i).iter().zip(row).map(|(h, w)| h * w).sum::<f64>()).sum();
        let linear: f64 = row.iter().zip(&problem.b[o * n..]).map(|(w, b)| w * b).sum();
        let pull: f64 = live.iter().map(|&i| (row[i] - case.prior[o * n + i]).powi(2)).sum();
        let tt = problem.tt.as_ref().unwrap()[o];
        let cost = quadratic - 2.0 * linear + tt + problem.ridge * mean * pull;
        let claimed = dual.objective.grid[o];
        assert!((cost - claimed).abs() <= 1e-6 * (tt + claimed) + 1e-9, "row {o}: {claimed} said, {cost} true");
        assert!(dual.objective.bound[o] <= claimed * (1.0 + 1e-9) + 1e-12);
    }
}

/// Without a ridge there are many perfect fits: the damping says what made one of them.
#[test]
fn no_ridge_is_damped() {
    let case = Case::new(5, 10, 60, 2);
    let cpu = synfit::compute::Device::cpu();
    let found = solve_dual(&cpu, &case.samples(), (None, 0.0), &Spec::default(), &|| false).unwrap();
    let size: f64 = case.t.iter().map(|t| t * t).sum();
    assert!(total(&found.objective.grid) < 1e-6 * size && found.damping > 0.0, "{:?}", found.objective.grid);
}

#[test]
fn what_cannot_be_is_refused() {
    let case = Case::new(5, 4, 6, 2);
    let cpu = synfit::compute::Device::cpu();
    let palettes = Spec { palette: Some(3), ..Spec::default() };
    let error = solve_dual(&cpu, &case.samples(), (None, 0.1), &palettes, &|| false).unwrap_err();
    assert!(error.to_string().contains("palettes"), "{error}");
    let mut wrong = case.samples();
    wrong.t = &wrong.t[1..];
    assert!(solve_dual(&cpu, &wrong, (None, 0.1), &Spec::default(), &|| false).is_err());
    let grid = Spec { grid: Some("4".parse().unwrap()), ..Spec::default() };
    let stopped = solve_dual(&cpu, &case.samples(), (None, 0.1), &grid, &|| true).unwrap_err();
    assert_eq!(stopped.kind, synfit::error::Kind::Interrupted);
}
