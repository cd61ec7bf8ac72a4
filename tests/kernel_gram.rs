//! Least-squares moments against their definition, on both devices.

mod common;

use common::{assert_close, devices, integers, read_at, reals, sliding};
use proptest::prelude::*;
use synfit::compute::gram::{Moments, PatchSpec, Sums};
use synfit::compute::{Buffer, Device, Tiles, Wide};
use synfit::network::{Shape, Window};

/// All patches of all samples: [group][sample][n], and targets [group][sample][m].
fn samples(blocks: &[PatchSpec], output: Shape, images: usize, xs: &[Vec<f32>], z: &[f32]) -> Vec<Vec<[Vec<f64>; 2]>> {
    let groups = blocks[0].groups;
    let m = output.c / groups;
    let one = |g: usize, image: usize, pos: usize| {
        let mut x = Vec::new();
        for (spec, data) in blocks.iter().zip(xs) {
            let each = spec.input.c / groups;
            for c in g * each..(g + 1) * each {
                for i in 0..spec.window.kernel[0] {
                    for j in 0..spec.window.kernel[1] {
                        let at = read_at(spec.input, &spec.window, pos / output.w, pos % output.w, i, j);
                        x.push(at.map_or(0.0, |at| data[(image * spec.input.c + c) * spec.input.area() + at] as f64));
                    }
                }
            }
        }
        let z = (g * m..(g + 1) * m).map(|o| z[(image * output.c + o) * output.area() + pos] as f64).collect();
        [x, z]
    };
    (0..groups)
        .map(|g| (0..images * output.area()).map(|s| one(g, s / output.area(), s % output.area())).collect())
        .collect()
}

/// The sums, or (`f` = abs) their sizes.
fn reference(all: &[Vec<[Vec<f64>; 2]>], f: fn(f64) -> f64) -> Sums {
    let (n, m) = (all[0][0][0].len(), all[0][0][1].len());
    let (mut h, mut b, mut x_sum, mut z_sum, mut zz) = (vec![], vec![], vec![], vec![], vec![]);
    let sum =
        |group: &Vec<[Vec<f64>; 2]>, v: &dyn Fn(&[Vec<f64>; 2]) -> f64| group.iter().map(|s| f(v(s))).sum::<f64>();
    for group in all {
        for i in 0..n {
            (0..n).for_each(|j| h.push(sum(group, &|s| s[0][i] * s[0][j])));
            x_sum.push(sum(group, &|s| s[0][i]));
        }
        for o in 0..m {
            (0..n).for_each(|j| b.push(sum(group, &|s| s[1][o] * s[0][j])));
            z_sum.push(sum(group, &|s| s[1][o]));
            zz.push(sum(group, &|s| s[1][o] * s[1][o]));
        }
    }
    Sums { groups: all.len(), n, m, count: all[0].len() as u64, h, b, x_sum, z_sum, zz }
}

/// Images, inputs block by block, targets.
type Batch = (usize, Vec<Vec<f32>>, Vec<f32>);

fn run(dev: &Device, blocks: &[PatchSpec], output: Shape, batches: &[Batch]) -> Sums {
    add(dev, Moments::new(dev, blocks, output, blocks[0].groups).unwrap(), batches)
}

fn add(dev: &Device, mut moments: Moments, batches: &[Batch]) -> Sums {
    for (images, xs, z) in batches {
        let xs: Vec<Buffer<f32>> = xs.iter().map(|x| dev.upload(x).unwrap()).collect();
        moments.add(*images, &xs.iter().collect::<Vec<_>>(), &dev.upload(z).unwrap()).unwrap();
    }
    moments.finish().unwrap()
}

fn close(got: &Sums, want: &Sums, size: &Sums, tolerance: f64, what: &str) {
    assert_eq!((got.groups, got.n, got.m, got.count), (want.groups, want.n, want.m, want.count), "{what}");
    let narrow = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
    assert_close(&narrow(&got.h), &want.h, Some(&size.h), tolerance, &format!("h of {what}"));
    assert_close(&narrow(&got.b), &want.b, Some(&size.b), tolerance, &format!("b of {what}"));
    assert_close(&narrow(&got.x_sum), &want.x_sum, Some(&size.x_sum), tolerance, &format!("x_sum of {what}"));
    assert_close(&narrow(&got.z_sum), &want.z_sum, Some(&size.z_sum), tolerance, &format!("z_sum of {what}"));
    assert_close(&narrow(&got.zz), &want.zz, Some(&size.zz), tolerance, &format!("zz of {what}"));
}

fn check(blocks: &[PatchSpec], output: Shape, images: usize, seed: u64) {
    let xs: Vec<Vec<f32>> = blocks.iter().map(|b| reals(seed, images * b.input.len())).collect();
    let z = reals(seed + 1, images * output.len());
    let all = samples(blocks, output, images, &xs, &z);
    let (want, size) = (reference(&all, |v| v), reference(&all, f64::abs));
    let counts: Vec<Vec<f32>> = blocks
        .iter()
        .map(|b| integers(seed, images * b.input.len(), 0, 16).iter().map(|&v| v as f32).collect())
        .collect();
    let whole: Vec<f32> = integers(seed + 1, z.len(), -16, 16).iter().map(|&v| v as f32).collect();
    let exact = reference(&samples(blocks, output, images, &counts, &whole), |v| v);
    let wide = devices()[0].with_tiles(Tiles { gram: Wide::ALWAYS, ..Tiles::default() });
    for dev in devices().iter().chain([&wide]) {
        let what = format!("{blocks:?} -> {output} on {dev:?} with {:?}", dev.tiles());
        let batch = |xs: &Vec<Vec<f32>>, z: &[f32], from: usize, to: usize| {
            let cut = |v: &[f32], len: usize| v[from * len..to * len].to_vec();
            let xs = xs.iter().zip(blocks).map(|(x, b)| cut(x, b.input.len())).collect();
            (to - from, xs, cut(z, output.len()))
        };
        let cut = images / 2;
        let got = run(dev, blocks, output, &[batch(&xs, &z, 0, cut), batch(&xs, &z, cut, images)]);
        close(&got, &want, &size, 1e-5, &what);
        let batches = [batch(&counts, &whole, 0, images)];
        let got = run(dev, blocks, output, &batches);
        assert_eq!(got, exact, "{what}");
        let moments = Moments::new(dev, blocks, output, blocks[0].groups).unwrap().targets_only();
        assert_eq!(add(dev, moments, &batches), Sums { h: vec![], ..exact.clone() }, "targets only: {what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_blocks(s in sliding(7), groups in 1..=3usize, each_in in 1..=4usize, each_out in 1..=5usize,
                  skip in 0..=3usize, images in 1..=4usize, seed in 0..1000u64) {
        let output = Shape::new(groups * each_out, s.output[0], s.output[1]);
        let mut blocks = vec![PatchSpec { input: Shape::new(groups * each_in, s.input[0], s.input[1]), window: s.window, groups }];
        if skip > 0 {
            let input = Shape::new(groups * skip, output.h, output.w);
            blocks.push(PatchSpec { input, window: Window::POINT, groups });
        }
        check(&blocks, output, images, seed);
    }
}

/// More rows than a tile, dense and convolutional, several blocks.
#[test]
fn larger_than_a_tile() {
    let input = Shape::new(150, 1, 1);
    let dense = PatchSpec { input, window: Window::whole(input), groups: 1 };
    check(&[dense], Shape::new(70, 1, 1), 40, 1);
    let input = Shape::new(9, 6, 5);
    let window = Window { kernel: [3, 3], stride: [2, 1], dilation: [1, 1], pad: [1, 1] };
    let output = Shape::new(67, 3, 5);
    let skip = PatchSpec { input: Shape::new(66, 3, 5), window: Window::POINT, groups: 1 };
    check(&[PatchSpec { input, window, groups: 1 }, skip], output, 3, 2);
}

/// A million samples: f32 blocks summed in f64 stay near f64, and spike counts are exact.
#[test]
fn a_million_samples() {
    let window = Window { kernel: [1, 2], stride: [1, 1], dilation: [1, 1], pad: [0, 0] };
    let (images, input, output) = (4, Shape::new(1, 1000, 264), Shape::new(1, 1000, 263));
    let spec = PatchSpec { input, window, groups: 1 };
    for whole in [false, true] {
        let make = |seed, len| -> Vec<f32> {
            match whole {
                // Offset: all products positive, so that nothing cancels and errors would pile up.
                false => reals(seed, len).iter().map(|v| v + 1.5).collect(),
                true => integers(seed, len, 0, 16).iter().map(|&v| v as f32).collect(),
            }
        };
        let (x, z) = (make(1, images * input.len()), make(2, images * output.len()));
        let want = {
            let mut s = Sums {
                groups: 1,
                n: 2,
                m: 1,
                count: 0,
                h: vec![0.0; 4],
                b: vec![0.0; 2],
                x_sum: vec![0.0; 2],
                z_sum: vec![0.0],
                zz: vec![0.0],
            };
            for image in 0..images {
                for pos in 0..output.area() {
                    let at = image * input.area() + pos / output.w * input.w + pos % output.w;
                    let (u, v, t) = (x[at] as f64, x[at + 1] as f64, z[image * output.area() + pos] as f64);
                    for (sum, v) in s.h.iter_mut().zip([u * u, u * v, u * v, v * v]) {
                        *sum += v;
                    }
                    s.b[0] += t * u;
                    s.b[1] += t * v;
                    s.x_sum[0] += u;
                    s.x_sum[1] += v;
                    s.z_sum[0] += t;
                    s.zz[0] += t * t;
                    s.count += 1;
                }
            }
            s
        };
        assert!(want.count > 1_000_000);
        for dev in devices() {
            let got = run(dev, &[spec], output, &[(images, vec![x.clone()], z.clone())]);
            if whole {
                assert_eq!(got, want, "on {dev:?}");
            } else {
                close(&got, &want, &want, 1e-6, &format!("a million on {dev:?}"));
            }
        }
    }
}

/// Bytes squared are too large for f32 sums of many samples: short blocks keep H exact.
#[test]
fn bytes_are_exact() {
    let (input, output, images) = (Shape::new(3, 34, 35), Shape::new(5, 32, 33), 9);
    let window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [0, 0] };
    for input in [input, Shape::new(24, 1, 1)] {
        let (window, output, images) =
            if input.area() == 1 { (Window::POINT, Shape::new(7, 1, 1), 3001) } else { (window, output, images) };
        let spec = PatchSpec { input, window, groups: 1 };
        let x: Vec<f32> = integers(3, images * input.len(), 0, 255).iter().map(|&v| v as f32).collect();
        let z = reals(4, images * output.len());
        let want = reference(&samples(&[spec], output, images, std::slice::from_ref(&x), &z), |v| v);
        assert!(want.h.iter().any(|h| *h > (1 << 24) as f64 && h % 2.0 == 1.0));
        for dev in devices() {
            let mut moments = Moments::new(dev, &[spec], output, 1).unwrap().integers(255);
            moments.add(images, &[&dev.upload(&x).unwrap()], &dev.upload(&z).unwrap()).unwrap();
            let got = moments.finish().unwrap();
            assert!(got.h == want.h && got.x_sum == want.x_sum, "{spec:?} on {dev:?}");
        }
    }
}

#[test]
fn wrong_lengths_and_groups_are_refused() {
    for dev in devices() {
        let input = Shape::new(4, 3, 3);
        let spec = PatchSpec { input, window: Window::POINT, groups: 2 };
        let output = Shape::new(2, 3, 3);
        assert!(Moments::new(dev, &[spec], output, 1).is_err());
        assert!(Moments::new(dev, &[], output, 1).is_err());
        let mut moments = Moments::new(dev, &[spec], output, 2).unwrap();
        let (x, z) = (dev.zeros(36).unwrap(), dev.zeros(18).unwrap());
        assert!(moments.add(1, &[&x, &x], &z).is_err());
        assert!(moments.add(2, &[&x], &z).is_err());
        assert!(moments.add(1, &[&x], &z).is_ok());
    }
}
