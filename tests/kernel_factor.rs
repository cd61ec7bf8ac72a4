//! Cholesky factors and triangular solves against an elementary f64 factorization, on both devices.

mod common;

use std::sync::OnceLock;

use common::{devices, reals};
use proptest::prelude::*;
use synfit::compute::factor::{self, Factored, Lower};
use synfit::compute::{Choice, Device, Limits};

/// All devices, and the GPU with so small buffers that a matrix of 300 takes several.
fn all() -> Vec<Device> {
    static BANDED: OnceLock<Device> = OnceLock::new();
    let banded = BANDED.get_or_init(|| Device::open_with(Choice::Gpu, Limits::Buffer(80_000)).unwrap());
    devices().iter().chain([banded]).cloned().collect()
}

fn lower(dev: &Device, n: usize, a: &[f32]) -> Lower {
    Lower::upload(dev, n, |i, row| row.copy_from_slice(&a[i * n..=i * n + i])).unwrap()
}

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
    for dev in &all() {
        let mut ad = lower(dev, n, &a);
        assert_eq!(factor::cholesky(dev, &mut ad).unwrap(), Factored::Done);
        let mut rows = 0;
        ad.download(dev, |i, row| {
            near(row, &l[i * n..=i * n + i], &format!("L on {dev:?}"));
            rows += 1;
        })
        .unwrap();
        assert_eq!(rows, n);
        let mut y = dev.upload(&x).unwrap();
        factor::forward(dev, &ad, m, &mut y).unwrap();
        near(&dev.download(&y).unwrap(), &forward, &format!("forward on {dev:?}"));
        factor::backward(dev, &ad, m, &mut y).unwrap();
        near(&dev.download(&y).unwrap(), &solved, &format!("backward on {dev:?}"));
        let mut y = dev.upload(&x).unwrap();
        factor::solve(dev, &ad, m, &mut y).unwrap();
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
            let got = factor::cholesky(dev, &mut lower(dev, n, &a)).unwrap();
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

#[test]
fn several_bands() {
    let dev = Device::open_with(Choice::Gpu, Limits::Buffer(80_000)).unwrap();
    for n in [150, 192, 200, 300] {
        let bands = lower(&dev, n, &positive(1, n)).bands();
        assert!(bands > 1 && (n < 300 || bands > 3), "{n}: {bands}");
        check(n, 60, n as u64);
    }
    // not even a tile's rows fit
    let e = Lower::upload(&dev, 2000, |_, _| {}).unwrap_err();
    assert!(e.to_string().contains("80000 bytes"), "{e}");
    assert!(Lower::bytes(&dev, 300).unwrap() >= 300 * 301 / 2 * 4);
}

#[test]
fn the_inverse_is_one() {
    let n = 170;
    let a = positive(3, n);
    for dev in &all() {
        let mut l = lower(dev, n, &a);
        factor::cholesky(dev, &mut l).unwrap().expect_positive("test").unwrap();
        let mut inverse = vec![f32::NAN; n * n];
        factor::inverse(dev, &l, |first, rows| inverse[first * n..][..rows.len()].copy_from_slice(rows)).unwrap();
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let dot: f64 = (0..n).map(|k| f64::from(inverse[i * n + k]) * f64::from(a[k * n + j])).sum();
            assert!((dot - f64::from(i == j)).abs() < 1e-4, "({i}, {j}): {dot} on {dev:?}");
        }
    }
}
