//! The magnitude kernel: both devices against the same iterations in f64, written out plainly.

mod common;

use common::{assert_close, devices, reals};
use proptest::prelude::*;
use synfit::compute::solver::absolute::{Buffers, Inputs, Measure, Shape, absolute};

const COUNT: usize = 5;

fn wide(v: Vec<f32>) -> Vec<f64> {
    v.into_iter().map(f64::from).collect()
}

/// The prox of the largest magnitude: cut at the level above which the magnitudes sum to `mass`, found by bisection.
fn level(r: &[f64], mass: f64) -> f64 {
    let (mut low, mut high) = (0.0, r.iter().fold(0.0, |m: f64, r| m.max(r.abs())));
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        let above: f64 = r.iter().map(|r| (r.abs() - middle).max(0.0)).sum();
        if above > mass { low = middle } else { high = middle }
    }
    high
}

fn check(seed: u64, shape: Shape) {
    let Shape { m, k, samples, rows, measure } = shape;
    let boxes = rows - samples;
    // Any A and P of moderate size will do: the kernel does not ask how they belong together.
    let a = wide(reals(seed, k * rows));
    let p: Vec<f64> = wide(reals(seed + 1, rows * k)).iter().map(|v| f64::from((v / rows as f64) as f32)).collect();
    let d = wide(reals(seed + 2, m * rows));
    let lower: Vec<f64> =
        wide(reals(seed + 3, m * boxes)).iter().map(|v| -0.2 - 0.3 * v.abs()).map(|v| f64::from(v as f32)).collect();
    let upper: Vec<f64> =
        wide(reals(seed + 4, m * boxes)).iter().map(|v| 0.1 + 0.3 * v.abs()).map(|v| f64::from(v as f32)).collect();
    let rho: Vec<f64> = (0..m).map(|o| f64::from(2.0f32 + o as f32)).collect();
    let (mut w, mut z, mut u) = (vec![0.0; m * k], vec![0.0; m * rows], vec![0.0; m * rows]);
    // z and u are differences of r, which such A and P may let grow: rounding is judged against the largest r met.
    let mut largest: f64 = 1.0;
    for _ in 0..COUNT {
        for o in 0..m {
            for j in 0..k {
                w[o * k + j] =
                    (0..rows).map(|s| (d[o * rows + s] + z[o * rows + s] - u[o * rows + s]) * p[s * k + j]).sum();
            }
            let r: Vec<f64> = (0..rows)
                .map(|s| {
                    let fit: f64 = (0..k).map(|j| w[o * k + j] * a[j * rows + s]).sum();
                    1.6 * (fit - d[o * rows + s]) - 0.6 * z[o * rows + s] + u[o * rows + s]
                })
                .collect();
            largest = r.iter().fold(largest, |m, v| m.max(v.abs()));
            let cut = level(&r[..samples], 1.0 / rho[o]);
            for s in 0..rows {
                z[o * rows + s] = match measure {
                    _ if s >= samples => r[s].clamp(lower[o * boxes + s - samples], upper[o * boxes + s - samples]),
                    Measure::Sum => r[s].signum() * (r[s].abs() - 1.0 / rho[o]).max(0.0),
                    Measure::Largest => r[s].clamp(-cut, cut),
                };
                u[o * rows + s] = r[s] - z[o * rows + s];
            }
        }
    }
    let single = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    for dev in devices() {
        let up = |v: &[f64]| dev.upload(&single(v)).unwrap();
        let bounds = if boxes == 0 { up(&[0.0]) } else { up(&[lower.clone(), upper.clone()].concat()) };
        let (a, p, d, rho) = (up(&a), up(&p), up(&d), up(&rho));
        let inputs = Inputs { shape, a: &a, p: &p, d: &d, bounds: &bounds, rho: &rho };
        let zeros = |len| dev.zeros::<f32>(len).unwrap();
        // The weights are written before they are read: poison shows if not.
        let mut state = Buffers { w: dev.poisoned(m * k).unwrap(), z: zeros(m * rows), u: zeros(m * rows) };
        absolute(dev, &inputs, &mut state, COUNT).unwrap();
        for (what, got, want) in [("w", &state.w, &w), ("z", &state.z, &z), ("u", &state.u, &u)] {
            let size = vec![want.iter().fold(largest, |m: f64, v| m.max(v.abs())); want.len()];
            let what = format!("{what} of {shape:?} on {}", dev.info().name);
            assert_close(&dev.download(got).unwrap(), want, Some(&size), 1e-5, &what);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_shapes(
        seed in any::<u32>(), m in 1..70usize, k in 1..70usize, samples in 1..300usize, boxed in any::<bool>(), sum in any::<bool>(),
    ) {
        let rows = samples + if boxed { k } else { 0 };
        let measure = if sum { Measure::Sum } else { Measure::Largest };
        check(u64::from(seed), Shape { m, k, samples, rows, measure });
    }
}

#[test]
fn edges() {
    for measure in [Measure::Sum, Measure::Largest] {
        for (m, k, samples, rows) in [(1, 1, 1, 1), (64, 64, 256, 320), (65, 1, 257, 258), (1, 130, 3, 133)] {
            check(7, Shape { m, k, samples, rows, measure });
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let dev = &devices()[1];
    let zeros = |len| dev.zeros::<f32>(len).unwrap();
    let shape = Shape { m: 2, k: 3, samples: 4, rows: 4, measure: Measure::Sum };
    let (a, p, d, bounds, rho) = (zeros(12), zeros(12), zeros(7), zeros(1), zeros(2));
    let mut state = Buffers { w: zeros(6), z: zeros(8), u: zeros(8) };
    let inputs = Inputs { shape, a: &a, p: &p, d: &d, bounds: &bounds, rho: &rho };
    assert!(absolute(dev, &inputs, &mut state, 1).unwrap_err().to_string().contains("absolute: d"));
}
