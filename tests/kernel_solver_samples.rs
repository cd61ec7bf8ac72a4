//! The sweep in the space of samples on both devices: what it claims, recomputed in f64.

mod common;

use common::{devices, reals};
use proptest::prelude::*;
use synfit::chip::Grid;
use synfit::compute::solver::{Steps, sample_sweep};

const MU: f64 = 0.25;

/// |X^T v - t|^2 + mu |v - prior|^2 of a row.
fn cost(x: &[f64], samples: usize, t: &[f64], prior: &[f64], v: &[f64]) -> f64 {
    let residual = |s: usize| (0..v.len()).map(|j| x[j * samples + s] * v[j]).sum::<f64>() - t[s];
    let ridge: f64 = v.iter().zip(prior).map(|(v, p)| (v - p).powi(2)).sum();
    (0..samples).map(|s| residual(s).powi(2)).sum::<f64>() + MU * ridge
}

fn check(seed: u64, m: usize, n: usize, samples: usize, grid: &Grid) {
    let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let (x, t, prior) = (reals(seed, n * samples), reals(seed + 1, m * samples), reals(seed + 2, m * n));
    let (xd, td, priord) = (wide(&x), wide(&t), wide(&prior));
    let (probe, pull) = sample_sweep::descent(&xd, samples, MU);
    let single = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<_>>();
    let scale = (0.8 / grid.max_abs()) as f32;
    // the last row rests
    let scales: Vec<f32> = (0..m).map(|o| if o + 1 == m && m > 1 { 0.0 } else { scale }).collect();
    let levels: Vec<f64> = grid.levels().iter().map(|l| f64::from(*l as f32 * scale)).collect();
    let residuals = |v: &[f64]| -> Vec<f32> {
        (0..m * samples)
            .map(|at| {
                let (o, s) = (at / samples, at % samples);
                ((0..n).map(|j| xd[j * samples + s] * v[o * n + j]).sum::<f64>() - td[at]) as f32
            })
            .collect()
    };
    let steps = Steps::<f32>::of(grid);
    for dev in devices() {
        let up = |v: &[f32]| dev.upload(v).unwrap();
        let (bx, bp, probe) = (up(&x), up(&prior), up(&single(&probe)));
        let factors = up(&[scales.as_slice(), &single(&pull)].concat());
        let inputs = sample_sweep::Inputs { n, m, samples, x: &bx, probe: &probe, prior: &bp, factors: &factors };
        let (mut v, mut r) = (up(&prior), up(&residuals(&priord)));
        sample_sweep::sweep(dev, &inputs, &steps, &mut v, &mut r, true).unwrap();
        let forced = wide(&dev.download(&v).unwrap());
        let mut sweeps = 0;
        while sample_sweep::sweep(dev, &inputs, &steps, &mut v, &mut r, false).unwrap().iter().any(|m| *m > 0) {
            sweeps += 1;
            assert!(sweeps < 200, "levels swap for ever on {dev:?}");
        }
        let (v, r) = (wide(&dev.download(&v).unwrap()), wide(&dev.download(&r).unwrap()));
        for o in 0..m {
            let row = |of: &[f64]| of[o * n..(o + 1) * n].to_vec();
            let (own, target) = (row(&v), &td[o * samples..(o + 1) * samples]);
            if scales[o] == 0.0 {
                assert_eq!(own, row(&priord), "a row that rests moved");
                continue;
            }
            let of = |v: &[f64]| cost(&xd, samples, target, &row(&priord), v);
            let near = |v: f64| levels.iter().any(|l| (l - v).abs() <= 1e-6);
            assert!(own.iter().chain(&row(&forced)).all(|v| near(*v)), "off the grid: {own:?}");
            let after = of(&own);
            assert!(after <= of(&row(&forced)) * (1.0 + 1e-5), "descent went up");
            let exact = residuals(&v);
            for s in 0..samples {
                let (has, want) = (r[o * samples + s], f64::from(exact[o * samples + s]));
                assert!((has - want).abs() <= 1e-4 * (1.0 + n as f64).sqrt(), "residual {has} for {want}");
            }
            // a fixed point: no single column can do better
            for j in 0..n {
                for level in &levels {
                    let mut other = own.clone();
                    other[j] = *level;
                    assert!(of(&other) >= after * (1.0 - 1e-4) - 1e-4, "row {o} column {j}: {level} is better");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn sweeps_end_in_a_fixed_point(seed in 0..1000u64, m in 1..6usize, n in 1..24usize, samples in 1..140usize, bits in 0..4usize) {
        let grids = ["4", "8", "1.58", "even4"];
        check(seed, m, n, samples, &grids[bits].parse().unwrap());
        check(seed, m, n, samples, &Grid::from_levels(vec![-1.0, -0.35, 0.0, 0.1, 0.4, 1.2]).unwrap());
    }
}

/// More columns than one dispatch goes through.
#[test]
fn many_columns_are_split() {
    check(3, 2, 700, 5, &"3".parse().unwrap());
}

#[test]
fn wrong_lengths_are_refused() {
    for dev in devices() {
        let up = |len: usize| dev.zeros::<f32>(len).unwrap();
        let (x, prior, factors) = (up(12), up(8), up(6));
        let inputs =
            sample_sweep::Inputs { n: 4, m: 2, samples: 3, x: &x, probe: &x, prior: &prior, factors: &factors };
        let steps = Steps::<f32>::of(&"4".parse().unwrap());
        let error = sample_sweep::sweep(dev, &inputs, &steps, &mut up(8), &mut up(5), false).unwrap_err();
        assert!(error.to_string().contains("residuals"), "{error}");
    }
}

/// Error feedback in the space of samples rounds as error feedback along the factor of H = X^T X + mu does.
#[test]
fn feedback_is_that_of_the_gram_matrix() {
    use synfit::compute::solver::{dense, feedback};
    let (n, samples, m) = (40, 13, 3);
    let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
    let (x, w) = (wide(reals(1, n * samples)), wide(reals(2, m * n)));
    let entry = |at: usize| {
        let (i, j) = (at / n, at % n);
        let product: f64 = (0..samples).map(|s| x[i * samples + s] * x[j * samples + s]).sum();
        if i == j { product + MU } else { product }
    };
    let h: Vec<f64> = (0..n * n).map(entry).collect();
    let factor = dense::Cholesky::new(h, n, faer::Par::Seq).unwrap();
    let diagonal: Vec<f64> = (0..n).map(|i| factor.diagonal(i)).collect();
    let unit: Vec<f64> = (0..n * n)
        .map(|at| if at / n > at % n { factor.data[at % n * n + at / n] / diagonal[at % n] } else { 0.0 })
        .collect();
    let steps = Steps::<f64>::of(&"4".parse().unwrap());
    let scale = 0.11;
    let probe = sample_sweep::feedback(&x, samples, MU);
    let columns = sample_sweep::Columns { x: &x, probe: &probe, pull: &vec![0.0; n], samples };
    for w in w.chunks_exact(n) {
        let mut levels = vec![0.0; n];
        let row = feedback::Row { w, bounds: None };
        let of = feedback::Factor { unit: &unit, diagonal: &diagonal };
        feedback::twin(of, &steps, &[(row, scale)], Some(&mut levels));
        let (mut v, mut r) = (w.to_vec(), vec![0.0; samples]);
        sample_sweep::twin(columns, &steps, w, scale, (&mut v, &mut r), true);
        let near = v.iter().zip(&levels).all(|(v, l)| (v - l * scale).abs() < 1e-9);
        assert!(near, "{v:?} where the factor gives {levels:?}");
    }
}
