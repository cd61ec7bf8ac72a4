//! Cholesky factors and triangular solves against an elementary f64 factorization, on both devices.

mod common;

use common::{devices, reals};
use proptest::prelude::*;
use synfit::compute::factor::{self, Factored};

/// A well-conditioned symmetric positive definite matrix: G G^T / n + 1.
fn positive(seed: u64, n: usize) -> Vec<f32> {
    let g = reals(seed, n * n);
    let mut a = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..n).map(|k| g[i * n + k] as f64 * g[j * n + k] as f64).sum();
            a[i * n + j] = (dot / n as f64 + (i == j) as u8 as f64) as f32;
            a[j * n + i] = a[i * n + j];
        }
    }
    a
}

/// L of A = L L^T, row by row, or the index of the first pivot that is not positive.
fn elementary(n: usize, a: &[f32]) -> Result<Vec<f64>, usize> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
            let v = a[i * n + j] as f64 - dot;
            if i == j && v <= 0.0 {
                return Err(i);
            }
            l[i * n + j] = if i == j { v.sqrt() } else { v / l[j * n + j] };
        }
    }
    Ok(l)
}

fn check(n: usize, m: usize, seed: u64) {
    let a = positive(seed, n);
    let l = elementary(n, &a).unwrap();
    let x = reals(seed + 1, m * n);
    let mut forward: Vec<f64> = x.iter().map(|&v| v as f64).collect();
    for row in forward.chunks_mut(n) {
        for i in 0..n {
            let dot: f64 = (0..i).map(|k| l[i * n + k] * row[k]).sum();
            row[i] = (row[i] - dot) / l[i * n + i];
        }
    }
    let mut solved = forward.clone();
    for row in solved.chunks_mut(n) {
        for i in (0..n).rev() {
            let dot: f64 = (i + 1..n).map(|k| l[k * n + i] * row[k]).sum();
            row[i] = (row[i] - dot) / l[i * n + i];
        }
    }
    // Relative to the largest element: the error of a solve is a property of the whole vector.
    let near = |got: &[f32], want: &[f64], what: &str| {
        let size = want.iter().fold(0.0f64, |s, v| s.max(v.abs()));
        for (g, w) in got.iter().zip(want) {
            assert!((*g as f64 - w).abs() <= 1e-5 * size, "{what}, n = {n}: {g}, want {w}");
        }
    };
    for dev in devices() {
        let mut ad = dev.upload(&a).unwrap();
        assert_eq!(factor::cholesky(dev, n, &mut ad).unwrap(), Factored::Done);
        let got = dev.download(&ad).unwrap();
        for i in 0..n {
            near(&got[i * n..=i * n + i], &l[i * n..=i * n + i], &format!("L on {dev:?}"));
            assert_eq!(got[i * n + i + 1..(i + 1) * n], a[i * n + i + 1..(i + 1) * n], "upper half on {dev:?}");
        }
        let mut y = dev.upload(&x).unwrap();
        factor::forward(dev, n, &ad, m, &mut y).unwrap();
        near(&dev.download(&y).unwrap(), &forward, &format!("forward on {dev:?}"));
        factor::backward(dev, n, &ad, m, &mut y).unwrap();
        near(&dev.download(&y).unwrap(), &solved, &format!("backward on {dev:?}"));
        let mut y = dev.upload(&x).unwrap();
        factor::solve(dev, n, &ad, m, &mut y).unwrap();
        near(&dev.download(&y).unwrap(), &solved, &format!("solve on {dev:?}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_size(n in 1..=150usize, m in 1..=80usize, seed in 0..1000u64) {
        check(n, m, seed);
    }

    #[test]
    fn the_failing_pivot_is_named(n in 1..=130usize, at in 0..130usize, seed in 0..1000u64) {
        let at = at % n;
        let mut a = positive(seed, n);
        a[at * n + at] = -1.0;
        prop_assert_eq!(elementary(n, &a), Err(at));
        for dev in devices() {
            let got = factor::cholesky(dev, n, &mut dev.upload(&a).unwrap()).unwrap();
            prop_assert_eq!(got, Factored::NotPositive { pivot: at }, "on {:?}", dev);
            prop_assert!(got.expect_positive("test").is_err());
        }
    }
}

#[test]
fn block_borders() {
    for n in [1, 31, 32, 33, 64, 65, 96, 257] {
        check(n, 3, n as u64);
    }
}
