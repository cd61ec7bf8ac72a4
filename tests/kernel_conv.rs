//! Convolution against the definition, on both devices: reals within 1e-5 of f64, integers exactly.

mod common;

use common::{Sliding, assert_close, devices, integers, read_at, reals, sliding};
use proptest::prelude::*;
use synfit::compute::conv::{self, Conv, Start};
use synfit::compute::{Device, Tiles, Wide};
use synfit::network::{Shape, Window};

/// All devices, and the GPU with wide tiles.
fn all() -> Vec<Device> {
    let wide = Tiles { conv: Wide::ALWAYS, ..Tiles::default() };
    devices().iter().cloned().chain([devices()[0].with_tiles(wide)]).collect()
}

/// Sum of w * x and of |w| |x| over each output's patch.
fn reference(c: &Conv, images: usize, x: &[f64], w: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (each_in, each_out) = (c.input.c / c.groups, c.output.c / c.groups);
    let [kh, kw] = c.window.kernel;
    let (mut sums, mut sizes) = (Vec::new(), Vec::new());
    for image in 0..images {
        for o in 0..c.output.c {
            for pos in 0..c.output.area() {
                let (mut sum, mut size) = (0.0, 0.0);
                for ci in 0..each_in {
                    for i in 0..kh {
                        for j in 0..kw {
                            let at = read_at(c.input, &c.window, pos / c.output.w, pos % c.output.w, i, j);
                            let Some(at) = at else { continue };
                            let channel = o / each_out * each_in + ci;
                            let v = x[(image * c.input.c + channel) * c.input.area() + at]
                                * w[((o * each_in + ci) * kh + i) * kw + j];
                            sum += v;
                            size += v.abs();
                        }
                    }
                }
                sums.push(sum);
                sizes.push(size);
            }
        }
    }
    (sums, sizes)
}

fn check_real(c: &Conv, images: usize, seed: u64) {
    let x = reals(seed, images * c.input.len());
    let w = reals(seed + 1, c.output.c * c.depth());
    let b = reals(seed + 2, c.output.c);
    let old = reals(seed + 3, images * c.output.len());
    let wide = |v: &[f32]| v.iter().map(|&v| v as f64).collect::<Vec<_>>();
    let (sums, sizes) = reference(c, images, &wide(&x), &wide(&w));
    for dev in &all() {
        let (xd, wd, bd) = (dev.upload(&x).unwrap(), dev.upload(&w).unwrap(), dev.upload(&b).unwrap());
        for start in 0..3 {
            let mut y = if start == 1 { dev.upload(&old).unwrap() } else { dev.poisoned(old.len()).unwrap() };
            let from = [Start::Zero, Start::Keep, Start::Bias(&bd)][start];
            conv::real(dev, c, images, &xd, &wd, from, &mut y).unwrap();
            let added: Vec<f64> = (0..old.len())
                .map(|i| [0.0, old[i] as f64, b[i / c.output.area() % c.output.c] as f64][start])
                .collect();
            let want: Vec<f64> = sums.iter().zip(&added).map(|(s, a)| s + a).collect();
            let size: Vec<f64> = sizes.iter().zip(&added).map(|(s, a)| s + a.abs()).collect();
            assert_close(&dev.download(&y).unwrap(), &want, Some(&size), 1e-5, &format!("{c:?} on {dev:?}"));
        }
    }
}

fn check_integer(c: &Conv, images: usize, seed: u64, most_x: i32, most_w: i32) {
    let x = integers(seed, images * c.input.len(), 0, most_x);
    let w = integers(seed + 1, c.output.c * c.depth(), -most_w, most_w);
    let b = integers(seed + 2, c.output.c, -1000, 1000);
    let wide = |v: &[i32]| v.iter().map(|&v| v as f64).collect::<Vec<_>>();
    let (sums, _) = reference(c, images, &wide(&x), &wide(&w));
    let bound = c.depth() as u64 * most_x as u64 * most_w as u64;
    for dev in &all() {
        let (xd, wd, bd) = (dev.upload(&x).unwrap(), dev.upload(&w).unwrap(), dev.upload(&b).unwrap());
        let mut y = dev.poisoned(sums.len()).unwrap();
        conv::integer(dev, c, images, &xd, &wd, Start::Bias(&bd), bound, &mut y).unwrap();
        conv::integer(dev, c, images, &xd, &wd, Start::Keep, bound, &mut y).unwrap();
        let want: Vec<i32> =
            sums.iter().enumerate().map(|(i, s)| 2 * *s as i32 + b[i / c.output.area() % c.output.c]).collect();
        assert_eq!(dev.download(&y).unwrap(), want, "{c:?} on {dev:?}");
    }
}

fn shaped(s: &Sliding, groups: usize, each_in: usize, each_out: usize) -> Conv {
    Conv {
        input: Shape::new(groups * each_in, s.input[0], s.input[1]),
        output: Shape::new(groups * each_out, s.output[0], s.output[1]),
        window: s.window,
        groups,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_window(s in sliding(9), groups in 1..=3usize, each_in in 1..=5usize, each_out in 1..=9usize,
                  images in 1..=4usize, seed in 0..1000u64) {
        check_real(&shaped(&s, groups, each_in, each_out), images, seed);
    }

    #[test]
    fn any_window_of_integers(s in sliding(9), groups in 1..=3usize, each_in in 1..=5usize, each_out in 1..=9usize,
                              images in 1..=4usize, seed in 0..1000u64) {
        let c = shaped(&s, groups, each_in, each_out);
        check_integer(&c, images, seed, 16, 127);
        check_integer(&c, images, seed, 255, 32_767);
    }

    #[test]
    fn dense(n in 1..=300usize, m in 1..=150usize, h in 1..=3usize, images in 1..=70usize, seed in 0..1000u64) {
        let input = Shape::new(n.div_ceil(h), h, 1);
        let c = Conv { input, output: Shape::new(m, 1, 1), window: Window::whole(input), groups: 1 };
        check_real(&c, images, seed);
    }
}

#[test]
fn typical_layers() {
    let window =
        |k: usize, s: usize, p: isize| Window { kernel: [k, k], stride: [s, s], dilation: [1, 1], pad: [p, p] };
    let layer = |cin, h, cout, ho, w, groups| Conv {
        input: Shape::new(cin, h, h),
        output: Shape::new(cout, ho, ho),
        window: w,
        groups,
    };
    check_real(&layer(16, 33, 70, 33, window(3, 1, 1), 1), 2, 1);
    check_real(&layer(65, 16, 67, 16, Window::POINT, 1), 3, 2);
    check_real(&layer(16, 16, 32, 8, window(1, 2, 0), 1), 3, 3);
    check_real(&layer(24, 12, 24, 6, window(3, 2, 1), 24), 2, 4);
    check_real(&layer(24, 12, 144, 12, window(3, 1, 1), 24), 2, 5);
    // Several images in one tile.
    check_real(&layer(8, 8, 12, 8, window(3, 1, 1), 1), 37, 8);
    check_real(&layer(12, 5, 16, 3, window(3, 1, 0), 2), 45, 9);
    check_integer(&layer(8, 4, 12, 4, window(3, 1, 1), 1), 61, 10, 16, 127);
    check_integer(&layer(64, 8, 64, 8, window(3, 1, 1), 1), 2, 6, 16, 127);
    check_integer(&layer(24, 12, 24, 12, window(3, 1, 1), 24), 2, 7, 255, 127);
    // Several tiles of either shape, in groups.
    check_integer(&layer(10, 10, 280, 10, window(3, 1, 1), 2), 3, 11, 255, 127);
}

/// A sum longer than the 65,535 loop iterations after which lavapipe stops without a word.
#[test]
fn long_sums_are_whole() {
    for rows in [1, 8] {
        let input = Shape::new(200_003, 1, 1);
        let c = Conv { input, output: Shape::new(rows, 1, 1), window: Window::POINT, groups: 1 };
        for dev in devices() {
            let x = dev.upload(&vec![1; c.input.len()]).unwrap();
            let w = dev.upload(&vec![3; rows * c.depth()]).unwrap();
            let mut y = dev.poisoned(rows).unwrap();
            conv::integer(dev, &c, 1, &x, &w, Start::Zero, 3 * 200_003, &mut y).unwrap();
            assert_eq!(dev.download(&y).unwrap(), vec![600_009; rows], "on {dev:?}");
        }
    }
}

#[test]
fn lengths_and_bounds_are_checked() {
    let c = Conv { input: Shape::new(2, 3, 3), output: Shape::new(4, 3, 3), window: Window::POINT, groups: 1 };
    for dev in devices() {
        let (x, w) = (dev.zeros::<f32>(18).unwrap(), dev.zeros::<f32>(8).unwrap());
        let mut y = dev.zeros::<f32>(36).unwrap();
        assert!(conv::real(dev, &c, 1, &x, &w, Start::Zero, &mut y).is_ok());
        assert!(conv::real(dev, &c, 2, &x, &w, Start::Zero, &mut y).is_err());
        assert!(conv::real(dev, &Conv { groups: 3, ..c }, 1, &x, &w, Start::Zero, &mut y).is_err());
        let (x, w) = (dev.zeros::<i32>(18).unwrap(), dev.zeros::<i32>(8).unwrap());
        let mut y = dev.zeros::<i32>(36).unwrap();
        assert!(conv::integer(dev, &c, 1, &x, &w, Start::Zero, 1 << 31, &mut y).is_err());
    }
}
