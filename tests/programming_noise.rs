//! Programming noise of pairs of conductances: the model's draws, what the fit expects of them, and what it gains.

#[path = "common/fit.rs"]
mod common;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use synfit::chip::{Chip, Grid, PairNoise, ScaleOwner};
use synfit::compute::Device;
use synfit::fit::{Noise, Problem, Spec, solve, solve_noisy};

/// sigma by hand: aihwkit's ReRamWan2022NoiseModel at 1 s, on devices of 25 instead of 40 microsiemens, levels of 25/15.
fn sigma(level: u32) -> f64 {
    let u = f64::from(level) / 15.0;
    (0.348 + 16.030 * u - 43.853 * u.powi(2) + 45.393 * u.powi(3) - 16.815 * u.powi(4)) * 25.0 / 40.0
}

#[test]
fn draws_have_the_chip_files_spread() {
    let noise = PairNoise::of(&Chip::load("rram").unwrap().weights).unwrap();
    assert!(PairNoise::of(&Chip::load("generic8").unwrap().weights).is_none());
    let mut rng = fastrand::Rng::with_seed(7);
    for code in [-15i32, -4, 0, 1, 8, 15] {
        let step = 25.0 / 15.0;
        let wanted = (sigma(code.unsigned_abs()).powi(2) + sigma(0).powi(2)) / (step * step);
        assert!((noise.variance(code) / wanted - 1.0).abs() < 1e-9, "{code}");
        let draws: Vec<f64> = (0..40_000).map(|_| noise.draw(code, &mut rng)).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        // no conductance is negative: the low device can only be too high, a level of 1 is stopped now and then
        let inner = sigma(0) * 25.0 / 25.0 / step;
        assert!(
            (mean - f64::from(code)).abs() < 0.6 * inner + 0.25 * f64::from(u8::from(code == 1)) + 0.02,
            "{code}: {mean}"
        );
        assert!(variance <= 1.05 * wanted && variance > 0.3 * wanted, "{code}: {variance}, {wanted} wanted");
    }
}

/// The expected error by formula is the mean over draws, straight from the samples; and the fit that knows it is better than
/// the one that does not, by more than the draws' chance.
#[test]
fn the_expected_error_is_the_mean_over_draws() {
    let (n, m) = (24, 6);
    let raw = common::random(3, 300, n, m);
    let problem = Problem::from_sums(raw.sums()).unwrap();
    // normal noise that nothing stops, so that the formula is exact; most of it in the middle of the range
    let variance: Vec<f64> = (0..16).map(|k| 0.02 + 0.6 * (f64::from(k) / 15.0 * 3.0).sin().abs()).collect();
    let power = (0..n).map(|i| raw.x.iter().skip(i).step_by(n).map(|x| x * x).sum()).collect();
    let noise = Noise { power, variance: variance.clone() };
    for owner in [ScaleOwner::Channel, ScaleOwner::Layer] {
        let grid: Grid = "sym5".parse().unwrap();
        let spec = Spec { grid: Some(grid.clone()), owner, ..Spec::default() };
        let unaware = solve(&Device::cpu(), &problem, &spec).unwrap();
        let aware = solve_noisy(&Device::cpu(), &problem, &spec, &noise, &|| false).unwrap();
        let mut rng = fastrand::Rng::with_seed(5);
        let mut means = Vec::new();
        for solution in [&unaware, &aware] {
            let objective: f64 = solution.objective.grid.iter().sum();
            let bias = Problem::bias(&solution.w, &raw.sums());
            let codes = solution.codes.as_ref().unwrap();
            let straight: f64 = (0..m).map(|o| raw.objective(o, &solution.w[o * n..(o + 1) * n], bias[o])).sum();
            assert!((straight / objective - 1.0).abs() < 1e-8, "{straight} {objective}");
            if owner == ScaleOwner::Layer {
                assert!(solution.scale.iter().all(|s| *s == solution.scale[0]));
            }
            let mut normal = || (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
            let (draws, mut sum) = (400, 0.0);
            for _ in 0..draws {
                for o in 0..m {
                    let programmed: Vec<f64> = (0..n)
                        .map(|i| {
                            let q = codes[o * n + i];
                            solution.scale[o] * (f64::from(q) + variance[q.unsigned_abs() as usize].sqrt() * normal())
                        })
                        .collect();
                    sum += raw.objective(o, &programmed, bias[o]);
                }
            }
            let (mean, expected) =
                (sum / f64::from(draws), objective + noise.expected(solution, &grid).iter().sum::<f64>());
            assert!((mean / expected - 1.0).abs() < 0.05, "{owner:?}: {mean} over draws, {expected} by formula");
            means.push(mean);
        }
        println!("{owner:?}: {} unaware, {} aware", means[0], means[1]);
        assert!(means[1] < 0.9 * means[0], "{owner:?}: {means:?}");
    }
}

#[test]
fn without_noise_it_is_the_usual_problem_and_never_worse() {
    let raw = common::random(11, 200, 18, 5);
    let problem = Problem::from_sums(raw.sums()).unwrap();
    let spec = Spec { grid: Some("sym4".parse().unwrap()), ..Spec::default() };
    let noise = Noise { power: vec![1.0; 18], variance: vec![0.0; 8] };
    let usual = solve(&Device::cpu(), &problem, &spec).unwrap();
    let none = solve_noisy(&Device::cpu(), &problem, &spec, &noise, &|| false).unwrap();
    for (a, b) in none.objective.grid.iter().zip(&usual.objective.grid) {
        assert!(*a <= b * (1.0 + 1e-9), "{a} {b}");
    }
    let real = Spec::default();
    let refused = solve_noisy(&Device::cpu(), &problem, &real, &noise, &|| false).unwrap_err().to_string();
    assert!(refused.contains("grid of integers"), "{refused}");
}

fn synfit(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_synfit")).args(args).output().unwrap()
}

/// The digits network on a chip file, without its sizes.
fn digits(folder: &Path, chip: &Path, more: &[&str]) -> Value {
    let file = |name: &str| format!("{}/configs/digits/{name}", env!("CARGO_MANIFEST_DIR"));
    let (model, train, test) = (file("digits_cnn.onnx"), file("train_images.npy"), file("test_images.npy"));
    let out = folder.join("out").display().to_string();
    let fixed = [
        "convert",
        "--model",
        &model,
        "--calibration",
        &train,
        "--images",
        "300",
        "--test",
        &test,
        "--scale",
        "0.0625",
    ];
    let chip = chip.display().to_string();
    let rest = ["--chip", &chip, "--device", "cpu", "--json", "--out", &out];
    let run = synfit(&[&fixed[..], &rest, more].concat());
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).unwrap()
}

#[test]
fn a_conversion_that_knows_the_noise_errs_less_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let chip = folder.path().join("rram.toml");
    let text = Chip::text("rram").unwrap();
    std::fs::write(&chip, &text[..text.find("[array]").unwrap()]).unwrap();
    let of = |what: &str| digits(folder.path(), &chip, &["--noise", what, "--noise-draws", "4"]);
    let (fit, test, off) = (of("fit"), of("test"), of("off"));
    let error = |r: &Value| r["noise"]["relative_error"]["mean"].as_f64().unwrap();
    assert!(error(&fit) < error(&test), "{} with the noise known, {} without", error(&fit), error(&test));
    // the draws are what makes the difference: without them the network that knows nothing of noise is the better one
    assert!(error(&fit) > 1.5 * fit["test"]["relative_error"].as_f64().unwrap());
    assert_eq!(fit["noise"]["draws"], 4);
    assert!(fit["noise"]["agreement"]["deviation"].as_f64().unwrap() > 0.0);
    assert!(off["noise"].is_null() && off["layers"][0]["error"]["noise"].is_null());
    assert_eq!(off["test"], test["test"]);
    let added = |r: &Value| -> f64 {
        r["layers"].as_array().unwrap().iter().map(|l| l["error"]["noise"].as_f64().unwrap()).sum()
    };
    assert!(added(&fit) < added(&test), "{} {}", added(&fit), added(&test));
}

#[test]
fn wrong_noise_is_refused_by_line_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let text = Chip::text("rram").unwrap();
    for (from, to, says) in [
        ("levels = 16", "levels = 10", "power of two"),
        ("measured_to = 40.0", "measured_to = 0.0", "measured_to"),
        ("deviation = [0.348", "deviation = [-0.348", "not 0 or more"),
        ("measured_to = 40.0", "measured = 40.0", "measured"),
    ] {
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let refused = Chip::load(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(
            refused.contains("mine.toml:") && refused.contains("programming") && refused.contains(says),
            "{refused}"
        );
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
}
