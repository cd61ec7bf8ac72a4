//! ADMM and projected gradient kernels: both devices against the same iterations in f64, written out plainly.

mod common;

use common::{assert_close, devices, reals};
use proptest::prelude::*;
use synfit::compute::Device;
use synfit::compute::solver::{admm, box_gradient, dense};

/// A Gram matrix with unit diagonal plus `shift`, so that nothing about it is hard.
fn gram(seed: u64, n: usize, shift: f64) -> Vec<f64> {
    let samples = 2 * n + 3;
    let x: Vec<f64> = reals(seed, samples * n).into_iter().map(f64::from).collect();
    let mut h = vec![0.0; n * n];
    for s in x.chunks_exact(n) {
        for i in 0..n {
            for j in 0..n {
                h[i * n + j] += s[i] * s[j];
            }
        }
    }
    let d: Vec<f64> = (0..n).map(|i| h[i * n + i].sqrt()).collect();
    (0..n * n).map(|at| h[at] / (d[at / n] * d[at % n]) + if at / n == at % n { shift } else { 0.0 }).collect()
}

fn multiply(a: &[f64], b: &[f64], m: usize, n: usize) -> Vec<f64> {
    (0..m * n).map(|at| (0..n).map(|k| a[at / n * n + k] * b[k * n + at % n]).sum()).collect()
}

fn single(v: &[f64]) -> Vec<f32> {
    v.iter().map(|v| *v as f32).collect()
}

struct Case {
    h: Vec<f64>,
    b: Vec<f64>,
    lower: Vec<f64>,
    upper: Vec<f64>,
}

impl Case {
    fn new(seed: u64, m: usize, n: usize) -> Self {
        // through f32 once, so that devices and reference start from the same numbers
        let clean = |v: Vec<f64>| v.into_iter().map(|v| f64::from(v as f32)).collect::<Vec<_>>();
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
        let h = clean(gram(seed, n, 0.0));
        let lower: Vec<f64> = wide(reals(seed + 2, m * n)).iter().map(|v| -0.3 - 0.2 * v.abs()).collect();
        let upper: Vec<f64> = wide(reals(seed + 3, m * n)).iter().map(|v| 0.2 + 0.2 * v.abs()).collect();
        Self { h, b: wide(reals(seed + 1, m * n)), lower: clean(lower), upper: clean(upper) }
    }

    fn bounds(&self, dev: &Device) -> synfit::compute::Buffer<f32> {
        dev.upload(&[single(&self.lower), single(&self.upper)].concat()).unwrap()
    }
}

const COUNT: usize = 7;

fn check_admm(seed: u64, m: usize, n: usize) {
    let case = Case::new(seed, m, n);
    let rho = 0.25;
    let mut shifted = case.h.clone();
    (0..n).for_each(|i| shifted[i * n + i] += rho);
    let k = dense::Cholesky::new(shifted, n, faer::Par::Seq).unwrap().inverse(faer::Par::Seq);
    let k: Vec<f64> = k.iter().map(|v| f64::from(*v as f32)).collect();
    let (mut z, mut u) = (vec![0.0; m * n], vec![0.0; m * n]);
    for _ in 0..COUNT {
        let v: Vec<f64> = (0..m * n).map(|i| case.b[i] + rho * (z[i] - u[i])).collect();
        let w = multiply(&v, &k, m, n);
        for i in 0..m * n {
            let relaxed = 1.6 * w[i] - 0.6 * z[i];
            let next = (relaxed + u[i]).clamp(case.lower[i], case.upper[i]);
            u[i] += relaxed - next;
            z[i] = next;
        }
    }
    for dev in devices() {
        let zeros = || dev.zeros::<f32>(m * n).unwrap();
        let b = dev.upload(&single(&case.b)).unwrap();
        let mut state = admm::Buffers {
            z: zeros(),
            u: zeros(),
            w: dev.poisoned(m * n).unwrap(),
            v: dev.upload(&single(&case.b)).unwrap(),
            v_next: dev.poisoned(m * n).unwrap(),
        };
        let (k, bounds) = (dev.upload(&single(&k)).unwrap(), case.bounds(dev));
        let inputs = admm::Inputs { n, m, k: &k, b: &b, bounds: &bounds, rho: rho as f32 };
        admm::admm(dev, &inputs, &mut state, COUNT).unwrap();
        let size = vec![1.0; m * n];
        assert_close(&dev.download(&state.z).unwrap(), &z, Some(&size), 1e-5, &format!("z {m} x {n} on {dev:?}"));
        let largest = u.iter().fold(1.0f64, |most, v| most.max(v.abs()));
        let size = vec![largest; m * n];
        assert_close(&dev.download(&state.u).unwrap(), &u, Some(&size), 1e-5, &format!("u {m} x {n} on {dev:?}"));
    }
}

fn check_gradient(seed: u64, m: usize, n: usize) {
    let case = Case::new(seed, m, n);
    let step = f64::from((1.0 / box_gradient::largest_eigenvalue(&case.h, n)) as f32);
    let (mut w, mut y, mut t) = (vec![0.0; m * n], vec![0.0; m * n], vec![1.0; m]);
    for _ in 0..COUNT {
        let hy = multiply(&y, &case.h, m, n);
        for (o, t) in t.iter_mut().enumerate() {
            let at = o * n..(o + 1) * n;
            let next: Vec<f64> =
                at.clone().map(|i| (y[i] - step * (hy[i] - case.b[i])).clamp(case.lower[i], case.upper[i])).collect();
            let uphill: f64 = at.clone().zip(&next).map(|(i, next)| (y[i] - next) * (next - w[i])).sum();
            let now: f64 = if uphill > 0.0 { 1.0 } else { *t };
            *t = (1.0 + (1.0 + 4.0 * now * now).sqrt()) / 2.0;
            for (i, next) in at.zip(&next) {
                y[i] = next + (now - 1.0) / *t * (next - w[i]);
                w[i] = *next;
            }
        }
    }
    for dev in devices() {
        let zeros = || dev.zeros::<f32>(m * n).unwrap();
        let (h, b) = (dev.upload(&single(&case.h)).unwrap(), dev.upload(&single(&case.b)).unwrap());
        let mut state = box_gradient::Buffers {
            w: zeros(),
            y: zeros(),
            t: dev.upload(&vec![1.0f32; m]).unwrap(),
            next: dev.poisoned(m * n).unwrap(),
        };
        let bounds = case.bounds(dev);
        let inputs = box_gradient::Inputs { n, m, h: &h, b: &b, bounds: &bounds, step: step as f32 };
        box_gradient::box_gradient(dev, &inputs, &mut state, COUNT).unwrap();
        let size = vec![1.0; m * n];
        assert_close(&dev.download(&state.w).unwrap(), &w, Some(&size), 1e-5, &format!("w {m} x {n} on {dev:?}"));
        assert_close(&dev.download(&state.y).unwrap(), &y, Some(&size), 1e-5, &format!("y {m} x {n} on {dev:?}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn admm_iterates_alike(seed in 0..1000u64, m in 1..70usize, n in 1..80usize) {
        check_admm(seed, m, n);
    }

    #[test]
    fn gradient_iterates_alike(seed in 0..1000u64, m in 1..70usize, n in 1..80usize) {
        check_gradient(seed, m, n);
    }
}

#[test]
fn tile_edges() {
    for (m, n) in [(1, 1), (64, 64), (65, 63), (63, 129), (3, 257)] {
        check_admm(5, m, n);
        check_gradient(5, m, n);
    }
}

#[test]
fn lengths_are_checked() {
    for dev in devices() {
        let b = dev.zeros::<f32>(6).unwrap();
        let zeros = || dev.zeros::<f32>(6).unwrap();
        let mut state = admm::Buffers { z: zeros(), u: zeros(), w: zeros(), v: zeros(), v_next: zeros() };
        let (k, bounds) = (dev.zeros::<f32>(8).unwrap(), dev.zeros::<f32>(12).unwrap());
        let inputs = admm::Inputs { n: 3, m: 2, k: &k, b: &b, bounds: &bounds, rho: 1.0 };
        assert!(admm::admm(dev, &inputs, &mut state, 1).is_err());
    }
}
