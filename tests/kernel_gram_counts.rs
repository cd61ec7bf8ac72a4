//! Moments of spike counts are exact: equal to sums of 64-bit integers on every device and with every tile shape.

mod common;

use common::{Sliding, devices, integers, read_at, reals, sliding};
use proptest::prelude::*;
use synfit::compute::gram::{Moments, PatchSpec, Sums};
use synfit::compute::{Device, Tiles, Wide};
use synfit::network::{Shape, Window};

/// All devices, and the GPU with wide tiles and with the kernels of reals.
fn all() -> Vec<Device> {
    let wide = Tiles { counts: Wide::ALWAYS, ..Tiles::default() };
    let reals = Tiles { gram: Wide::ALWAYS, dots: false, ..Tiles::default() };
    devices().iter().cloned().chain([wide, reals].map(|tiles| devices()[0].with_tiles(tiles))).collect()
}

/// groups x n x n and groups x n.
fn brute(blocks: &[PatchSpec], output: Shape, images: usize, xs: &[Vec<i32>]) -> (Vec<i64>, Vec<i64>) {
    let groups = blocks[0].groups;
    let n: usize = blocks.iter().map(PatchSpec::entries).sum();
    let (mut h, mut sum) = (vec![0; groups * n * n], vec![0; groups * n]);
    for group in 0..groups {
        for (image, pos) in (0..images).flat_map(|i| (0..output.area()).map(move |p| (i, p))) {
            let mut patch: Vec<i64> = Vec::with_capacity(n);
            for (spec, x) in blocks.iter().zip(xs) {
                let each = spec.input.c / groups;
                let [high, wide] = spec.window.kernel;
                for c in group * each..(group + 1) * each {
                    let plane = &x[(image * spec.input.c + c) * spec.input.area()..][..spec.input.area()];
                    for (i, j) in (0..high).flat_map(|i| (0..wide).map(move |j| (i, j))) {
                        let at = read_at(spec.input, &spec.window, pos / output.w, pos % output.w, i, j);
                        patch.push(at.map_or(0, |at| i64::from(plane[at])));
                    }
                }
            }
            for (r, &x) in patch.iter().enumerate() {
                sum[group * n + r] += x;
                let row = &mut h[(group * n + r) * n..][..n];
                row.iter_mut().zip(&patch).for_each(|(h, y)| *h += x * y);
            }
        }
    }
    (h, sum)
}

fn run(dev: &Device, blocks: &[PatchSpec], output: Shape, images: usize, xs: &[Vec<i32>], largest: u64) -> Sums {
    let z = reals(9, images * output.len());
    let mut moments = Moments::new(dev, blocks, output, blocks[0].groups).unwrap().counts(largest);
    // in two batches, so that partial sums go on
    let cut = images / 2;
    for (from, to) in [(0, cut), (cut, images)] {
        let part = |x: &[i32], len: usize| -> Vec<f32> { x[from * len..to * len].iter().map(|&v| v as f32).collect() };
        let xs: Vec<_> = xs.iter().zip(blocks).map(|(x, b)| dev.upload(&part(x, b.input.len())).unwrap()).collect();
        let z = dev.upload(&z[from * output.len()..to * output.len()]).unwrap();
        moments.add(to - from, &xs.iter().collect::<Vec<_>>(), &z).unwrap();
    }
    moments.finish().unwrap()
}

fn check(blocks: &[PatchSpec], output: Shape, images: usize, largest: u64, seed: u64) {
    let xs: Vec<Vec<i32>> = blocks.iter().map(|b| integers(seed, images * b.input.len(), 0, largest as i32)).collect();
    let (h, sum) = brute(blocks, output, images, &xs);
    let whole = |all: &[f64]| -> Vec<i64> {
        assert!(all.iter().all(|v| v.fract() == 0.0));
        all.iter().map(|v| *v as i64).collect()
    };
    for dev in all() {
        let got = run(&dev, blocks, output, images, &xs, largest);
        let what = format!("{blocks:?} -> {output}, up to {largest}, on {dev:?} with {:?}", dev.tiles());
        assert!(whole(&got.h) == h, "h of {what}");
        assert!(whole(&got.x_sum) == sum, "sums of {what}");
        assert_eq!(got.count, (images * output.area()) as u64, "{what}");
    }
}

fn spec(s: &Sliding, channels: usize, groups: usize) -> PatchSpec {
    PatchSpec { input: Shape::new(channels, s.input[0], s.input[1]), window: s.window, groups }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_window(s in sliding(7), groups in 1..=2usize, each_in in 1..=12usize, skip in 0..=20usize,
                  images in 1..=3usize, largest in prop::sample::select(vec![1, 16, 32, 33, 254, 255, 256]), seed in 0..1000u64) {
        let output = Shape::new(groups * 2, s.output[0], s.output[1]);
        let mut blocks = vec![spec(&s, groups * each_in, groups)];
        if skip > 0 {
            let input = Shape::new(groups * skip, output.h, output.w);
            blocks.push(PatchSpec { input, window: Window::POINT, groups });
        }
        check(&blocks, output, images, largest, seed);
    }

    #[test]
    fn dense(n in 1..=200usize, images in 1..=150usize, seed in 0..1000u64) {
        let input = Shape::new(n, 1, 1);
        check(&[PatchSpec { input, window: Window::whole(input), groups: 1 }], Shape::new(3, 1, 1), images, 255, seed);
    }
}

/// Several tiles of either shape, whole words and torn ones.
#[test]
fn larger_than_a_tile() {
    let window =
        |k: usize, s: usize, p: isize| Window { kernel: [k, k], stride: [s, s], dilation: [1, 1], pad: [p, p] };
    let layer = |c, h, w, groups| PatchSpec { input: Shape::new(c, h, h), window: w, groups };
    check(&[layer(32, 9, window(3, 1, 1), 1)], Shape::new(2, 9, 9), 2, 255, 1);
    check(&[layer(150, 4, Window::POINT, 1)], Shape::new(2, 4, 4), 5, 255, 2);
    check(&[layer(17, 13, window(3, 2, 1), 1), layer(70, 7, Window::POINT, 1)], Shape::new(4, 7, 7), 3, 32, 3);
    check(&[layer(60, 8, window(3, 1, 1), 2)], Shape::new(4, 8, 8), 2, 16, 4);
}

/// More samples of 255 a split than 32 bits hold.
#[test]
fn sums_beyond_32_bits() {
    let (side, dev) = (2070, &devices()[0]);
    let window = Window { kernel: [5, 5], stride: [1, 1], dilation: [1, 1], pad: [0, 0] };
    let spec = PatchSpec { input: Shape::new(1, side, side), window, groups: 1 };
    let output = Shape::new(1, side - 4, side - 4);
    let mut moments = Moments::new(dev, &[spec], output, 1).unwrap().counts(255);
    let mut x = dev.zeros::<f32>(side * side).unwrap();
    dev.fill(&mut x, 255.0).unwrap();
    moments.add(1, &[&x], &dev.zeros(output.len()).unwrap()).unwrap();
    let got = moments.finish().unwrap();
    let samples = output.area() as f64;
    assert!(samples > 64.0 * f64::from(u32::MAX / (255 * 255)));
    assert!(got.h.iter().all(|&h| h == 65025.0 * samples) && got.x_sum.iter().all(|&x| x == 255.0 * samples));
}
