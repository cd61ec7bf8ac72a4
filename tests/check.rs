//! The independent check: sound solutions agree, and whatever is tampered with is found.

#[path = "common/fit.rs"]
mod problems;

use assert_cmd::Command;
use synfit::compute::Device;
use synfit::fit::{Bounds, Problem, Solution, Spec, solve};
use synfit::verify::{Norm, Verdict, check, sampled};

fn problem(seed: u64, samples: usize, n: usize, m: usize) -> Problem {
    Problem::from_sums(problems::random(seed, samples, n, m).sums()).unwrap()
}

fn verdicts(p: &Problem, spec: &Spec, s: &Solution) -> Vec<Verdict> {
    check(p, spec, s, &sampled(p.m, p.m, 0)).unwrap().into_iter().map(|r| r.verdict).collect()
}

fn specs() -> Vec<Spec> {
    let boxed = Spec { lower: Bounds::Scalar(-0.3), upper: Bounds::Scalar(0.4), ..Spec::default() };
    let grid = |bits: &str| Some(bits.parse().unwrap());
    vec![
        Spec::default(),
        boxed.clone(),
        Spec { grid: grid("4"), ..Spec::default() },
        Spec { grid: grid("1.58"), ..Spec::default() },
        Spec { grid: grid("8"), ..boxed },
    ]
}

#[test]
fn sound_solutions_agree() {
    for (seed, samples, n, m) in [(1, 200, 12, 5), (2, 20, 30, 3), (3, 50, 1, 1), (4, 90, 40, 8)] {
        for ridge in [0.0, 1e-2] {
            let mut p = problem(seed, samples, n, m);
            p.ridge = ridge;
            p.prior = (ridge > 0.0).then(|| vec![0.1; n * m]);
            for spec in specs() {
                let s = solve(&Device::cpu(), &p, &spec).unwrap();
                let all = verdicts(&p, &spec, &s);
                assert!(all.iter().all(Verdict::agrees), "seed {seed}, ridge {ridge}, {spec:?}: {all:?}");
            }
        }
    }
}

#[test]
fn dead_and_duplicated_inputs_agree() {
    let raw = problems::random(5, 60, 6, 2);
    let x = raw.x.chunks(6).flat_map(|x| [x[0], x[1], 0.0, x[2], x[1], x[3] * 1e5, x[4] * 1e-5]).collect();
    let p = Problem::from_sums(problems::Raw::new(x, raw.t, 7, 2).sums()).unwrap();
    for spec in specs() {
        let s = solve(&Device::cpu(), &p, &spec).unwrap();
        let all = verdicts(&p, &spec, &s);
        assert!(all.iter().all(Verdict::agrees), "{spec:?}: {all:?}");
    }
}

#[test]
fn tampering_is_found() {
    let p = problem(7, 100, 10, 4);
    for spec in specs() {
        let sound = solve(&Device::cpu(), &p, &spec).unwrap();
        let spoil = |what: &str, spoil: &dyn Fn(&mut Solution)| {
            let mut s = sound.clone();
            spoil(&mut s);
            let all = verdicts(&p, &spec, &s);
            assert!(!all[2].agrees(), "{what} goes unseen: {spec:?}");
            assert!(all[0].agrees() && all[1].agrees() && all[3].agrees(), "{what} blames other rows: {all:?}");
        };
        spoil("a weight", &|s| s.w[2 * 10 + 3] += 0.05);
        spoil("the stored objective", &|s| s.objective.grid[2] *= 0.999);
        spoil("the fit's objective", &|s| s.objective.fit[2] *= 1.01);
        spoil("the bound", &|s| s.objective.bound[2] = s.objective.grid[2] * 1.001);
        if spec.grid.is_some() {
            spoil("a code", &|s| s.codes.as_mut().unwrap()[2 * 10 + 3] += 1);
            spoil("a scale", &|s| s.scale[2] *= 1.01);
        }
    }
}

#[test]
fn linear_programs_know_medians_and_midranges() {
    // Without inputs' help the best constant is the median for L1, the midrange for Chebyshev.
    let (x, t) = (vec![0.0; 5], vec![1.0, 2.0, 4.0, 8.0, 16.0]);
    let (open, closed) = ([f64::INFINITY], [f64::NEG_INFINITY]);
    let l1 = Norm::Absolute.least(&x, &t, &closed, &open, true).unwrap();
    assert!((l1.w[1] - 4.0).abs() < 1e-6 && (l1.objective - 21.0).abs() < 1e-6, "{} {}", l1.w[1], l1.objective);
    let max = Norm::Chebyshev.least(&x, &t, &closed, &open, true).unwrap();
    assert!((max.w[1] - 8.5).abs() < 1e-6 && (max.objective - 7.5).abs() < 1e-6);
    // A bound on the only weight: t = 3 x with w <= 2 leaves |x| each.
    let x = vec![1.0, -2.0, 3.0];
    let t: Vec<f64> = x.iter().map(|x| 3.0 * x).collect();
    let l1 = Norm::Absolute.least(&x, &t, &[0.0], &[2.0], false).unwrap();
    assert!((l1.w[0] - 2.0).abs() < 1e-6 && (l1.objective - 6.0).abs() < 1e-6);
}

#[test]
fn sampled_rows_are_spread_and_inside() {
    assert_eq!(sampled(10, 5, 0), [0, 2, 4, 6, 8]);
    assert_eq!(sampled(3, 10, 7), [0, 1, 2]);
    assert!(sampled(0, 4, 1).is_empty());
    for seed in 0..20 {
        assert!(sampled(17, 4, seed).iter().all(|&r| r < 17));
    }
}

#[test]
fn a_conversion_is_checked_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let run = |args: &[&str]| Command::cargo_bin("synfit").unwrap().args(args).output().unwrap();
    let dir = out.to_str().unwrap();
    assert!(run(&["demo", "--device", "cpu", "--steps", "4", "--out", dir]).status.success());
    let done = run(&["check", dir, "--rows", "2", "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let record: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(record["disagreements"], 0);
    assert_eq!(record["same_network"], true);
    assert!(record["rows"].as_array().unwrap().len() >= 8);
    // Another job than the one that gave the weights.
    let job = std::fs::read_to_string(out.join("job.toml")).unwrap();
    std::fs::write(out.join("job.toml"), job.replace("ridge = \"auto\"", "ridge = 0.3")).unwrap();
    let done = run(&["check", dir, "--rows", "1"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stdout).contains("does not give the stored network"));
    // A folder without a result.
    let done = run(&["check", folder.path().to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(2));
}
