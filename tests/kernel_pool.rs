//! Pooling against its definition, on both devices.

mod common;

use common::{assert_close, devices, integers, read_at, reals, sliding};
use proptest::prelude::*;
use synfit::compute::pool::{self, Pool};
use synfit::network::{Shape, Window};

/// For every output of every image: what its window reads inside the input.
fn windows(p: &Pool, images: usize) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    for plane in 0..images * p.input.c {
        for pos in 0..p.output.area() {
            let [kh, kw] = p.window.kernel;
            let taps = (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j)));
            all.push(
                taps.filter_map(|(i, j)| read_at(p.input, &p.window, pos / p.output.w, pos % p.output.w, i, j))
                    .map(|at| plane * p.input.area() + at)
                    .collect(),
            );
        }
    }
    all
}

fn check(p: &Pool, steps: usize, images: usize, seed: u64) {
    let x = reals(seed, images * p.input.len());
    let trains = integers(seed + 1, steps * images * p.input.len(), -1, 2);
    let each: Vec<u32> = integers(seed + 2, p.output.area(), 1, 9).iter().map(|&v| v as u32).collect();
    let reads = windows(p, images);
    let area = p.output.area();
    for dev in devices() {
        let (xd, td, ed) = (dev.upload(&x).unwrap(), dev.upload(&trains).unwrap(), dev.upload(&each).unwrap());
        let what = format!("{p:?} on {dev:?}");

        let mut y = dev.poisoned(reads.len()).unwrap();
        pool::average(dev, p, &ed, &xd, &mut y).unwrap();
        let mean = |f: fn(f64) -> f64| -> Vec<f64> {
            reads
                .iter()
                .enumerate()
                .map(|(n, r)| r.iter().map(|&i| f(x[i] as f64)).sum::<f64>() / each[n % area] as f64)
                .collect()
        };
        assert_close(&dev.download(&y).unwrap(), &mean(|v| v), Some(&mean(f64::abs)), 1e-5, &what);

        let mut y = dev.poisoned(reads.len()).unwrap();
        pool::maximum(dev, p, &xd, &mut y).unwrap();
        let most: Vec<f32> = reads.iter().map(|r| r.iter().map(|&i| x[i]).reduce(f32::max).unwrap_or(0.0)).collect();
        assert_eq!(dev.download(&y).unwrap(), most, "{what}");

        let reads = windows(p, steps * images);
        let mut y = dev.poisoned(reads.len()).unwrap();
        pool::sum_weighted(dev, p, &ed, &td, &mut y).unwrap();
        let sums: Vec<i32> = reads
            .iter()
            .enumerate()
            .map(|(n, r)| each[n % area] as i32 * r.iter().map(|&i| trains[i]).sum::<i32>())
            .collect();
        assert_eq!(dev.download(&y).unwrap(), sums, "{what}");

        let mut y = dev.poisoned(reads.len()).unwrap();
        pool::winner(dev, p, steps, &td, &mut y).unwrap();
        let (step_in, step_out) = (images * p.input.len(), images * p.output.len());
        let count = |i: usize, t: usize| (0..=t).map(|s| trains[i % step_in + s * step_in]).sum::<i32>();
        let most: Vec<i32> = reads
            .iter()
            .enumerate()
            .map(|(n, r)| r.iter().map(|&i| count(i, n / step_out)).max().unwrap_or(0))
            .collect();
        let want: Vec<i32> =
            (0..most.len()).map(|n| most[n] - if n < step_out { 0 } else { most[n - step_out] }).collect();
        assert_eq!(dev.download(&y).unwrap(), want, "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_window(s in sliding(9), c in 1..=4usize, images in 1..=3usize, steps in 1..=5usize, seed in 0..1000u64) {
        let p = Pool {
            input: Shape::new(c, s.input[0], s.input[1]),
            output: Shape::new(c, s.output[0], s.output[1]),
            window: s.window,
        };
        check(&p, steps, images, seed);
    }
}

/// A global pool of more taps than lavapipe's 65,535 loop iterations.
#[test]
fn large_windows_are_whole() {
    let input = Shape::new(2, 300, 301);
    let p = Pool { input, output: Shape::new(2, 1, 1), window: Window::whole(input) };
    let mut x = vec![1.0f32; input.len()];
    x[70_000] = -3.0;
    x[input.area() - 1] = 9.0;
    for dev in devices() {
        let (xd, one) = (dev.upload(&x).unwrap(), dev.upload(&[1]).unwrap());
        let mut y = dev.poisoned(2).unwrap();
        pool::average(dev, &p, &one, &xd, &mut y).unwrap();
        assert_eq!(dev.download(&y).unwrap(), [90_304.0, 90_300.0], "on {dev:?}");
        pool::maximum(dev, &p, &xd, &mut y).unwrap();
        assert_eq!(dev.download(&y).unwrap(), [9.0, 1.0], "on {dev:?}");
    }
}
