//! What the tests of the layer solvers share: the real problems and small random ones.
#![allow(dead_code)]

use std::path::PathBuf;

use ndarray::{Array2, Ix2, IxDyn, OwnedRepr};
use ndarray_npy::NpzReader;
use synfit::fit::{Problem, Sums};

/// The file `problems/NAME` of the test data, or `None` (with a printed line) where there is none.
/// With SYNFIT_DATA_REQUIRED=1 its absence fails the test.
pub fn data(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("SYNFIT_DATA").map(|d| PathBuf::from(d).join("problems").join(name));
    match path.filter(|p| p.exists()) {
        Some(path) => Some(path),
        None => {
            assert!(
                std::env::var("SYNFIT_DATA_REQUIRED").as_deref() != Ok("1"),
                "no problems/{name} under SYNFIT_DATA"
            );
            println!("skipped: no problems/{name} under SYNFIT_DATA");
            None
        }
    }
}

pub fn array(path: &PathBuf, name: &str) -> Vec<f64> {
    let mut npz = NpzReader::new(std::fs::File::open(path).unwrap()).unwrap();
    if let Ok(a) = npz.by_name::<OwnedRepr<f64>, IxDyn>(name) {
        return a.iter().copied().collect();
    }
    let a = npz.by_name::<OwnedRepr<f32>, IxDyn>(name).unwrap();
    a.iter().map(|v| f64::from(*v)).collect()
}

pub fn matrix(path: &PathBuf, name: &str) -> Array2<f64> {
    let mut npz = NpzReader::new(std::fs::File::open(path).unwrap()).unwrap();
    if let Ok(a) = npz.by_name::<OwnedRepr<f64>, Ix2>(name) {
        return a;
    }
    npz.by_name::<OwnedRepr<f32>, Ix2>(name).unwrap().mapv(f64::from)
}

pub const RESNET: [&str; 4] =
    ["resnet20_conv1.npz", "resnet20_layer1.0.conv1.npz", "resnet20_layer2.0.conv2.npz", "resnet20_layer3.2.conv2.npz"];

/// One of the ResNet-20 problems, with the ANN's weights as prior.
pub fn resnet(name: &str) -> Option<Problem> {
    let path = data(name)?;
    let (h, b, w) = (matrix(&path, "h"), matrix(&path, "b"), array(&path, "w"));
    let (m, n) = b.dim();
    let flat = |a: Array2<f64>| a.iter().copied().collect::<Vec<_>>();
    Some(Problem { prior: Some(w), ..Problem::from_gram(n, m, flat(h), flat(b)).unwrap() })
}

/// x^T x and so on of row-major samples.
pub struct Raw {
    pub n: usize,
    pub m: usize,
    pub samples: usize,
    pub x: Vec<f64>,
    pub t: Vec<f64>,
    h: Vec<f64>,
    b: Vec<f64>,
    sx: Vec<f64>,
    st: Vec<f64>,
    tt: Vec<f64>,
}

impl Raw {
    pub fn new(x: Vec<f64>, t: Vec<f64>, n: usize, m: usize) -> Self {
        let samples = x.len() / n;
        let (mut h, mut b) = (vec![0.0; n * n], vec![0.0; m * n]);
        let (mut sx, mut st, mut tt) = (vec![0.0; n], vec![0.0; m], vec![0.0; m]);
        for s in 0..samples {
            let (xs, ts) = (&x[s * n..(s + 1) * n], &t[s * m..(s + 1) * m]);
            for i in 0..n {
                sx[i] += xs[i];
                for j in 0..n {
                    h[i * n + j] += xs[i] * xs[j];
                }
            }
            for o in 0..m {
                st[o] += ts[o];
                tt[o] += ts[o] * ts[o];
                for i in 0..n {
                    b[o * n + i] += ts[o] * xs[i];
                }
            }
        }
        Self { n, m, samples, x, t, h, b, sx, st, tt }
    }

    pub fn sums(&self) -> Sums<'_> {
        Sums { h: &self.h, b: &self.b, x: &self.sx, t: &self.st, tt: &self.tt, count: self.samples as f64 }
    }

    /// sum_s (w x_s + b - t_s)^2 of output `o`, straight from the samples.
    pub fn objective(&self, o: usize, w: &[f64], bias: f64) -> f64 {
        (0..self.samples)
            .map(|s| {
                let y: f64 = self.x[s * self.n..(s + 1) * self.n].iter().zip(w).map(|(x, w)| x * w).sum();
                (y + bias - self.t[s * self.m + o]).powi(2)
            })
            .sum()
    }
}

/// Samples of correlated inputs (a shared component in all of them) and targets that a linear map plus noise makes.
pub fn random(seed: u64, samples: usize, n: usize, m: usize) -> Raw {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut normal = move || (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
    let w: Vec<f64> = (0..m * n).map(|_| normal()).collect();
    let (mut x, mut t) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        let common = normal();
        let xs: Vec<f64> = (0..n).map(|_| 1.0 + common + 0.7 * normal()).collect();
        for o in 0..m {
            t.push((0..n).map(|i| w[o * n + i] * xs[i]).sum::<f64>() + 0.3 * normal() + 2.0);
        }
        x.extend(xs);
    }
    Raw::new(x, t, n, m)
}
