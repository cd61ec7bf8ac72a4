//! Gather, activations, affine maps, sums and time sums against their definitions, on both devices.

mod common;

use common::{assert_close, devices, integers, reals};
use proptest::prelude::*;
use synfit::compute::{activate, gather, time};
use synfit::network::{Activation, Shape};

const ACTIVATIONS: [Activation; 11] = [
    Activation::Linear,
    Activation::Relu,
    Activation::Clip { lo: 0.0, hi: 6.0 },
    Activation::Clip { lo: -1.5, hi: 0.5 },
    Activation::LeakyRelu { alpha: 0.01 },
    Activation::Elu { alpha: 1.3 },
    Activation::Sigmoid,
    Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
    Activation::Tanh,
    Activation::Softplus,
    Activation::Remainder,
];

#[test]
fn activations_follow_their_definition() {
    let mut z = vec![0.0, -0.0, 1e-30, -1e-30, 1e-6, -1e-6, 0.34657, -0.34658, 80.0, -80.0, 86.9, -86.9];
    z.extend([100.0, -100.0, 1e4, -1e4, 1e30, -1e30, f32::MAX, f32::MIN]);
    z.extend(reals(1, 2000).iter().map(|v| v * 5.0));
    z.extend(reals(2, 2000).iter().map(|v| v * 80.0));
    z.extend(reals(3, 1000).iter().map(|v| v * 1e-3));
    for dev in devices() {
        for act in ACTIVATIONS {
            let mut y = dev.upload(&z).unwrap();
            activate::apply(dev, act, &mut y).unwrap();
            let want: Vec<f64> = z.iter().map(|&v| act.apply(v as f64)).collect();
            let size: Vec<f64> = z
                .iter()
                .zip(&want)
                .map(|(&v, w)| match act {
                    // Its two terms cancel.
                    Activation::HardSigmoid { alpha, beta } => ((alpha * v).abs() + beta).min(1.0 + 2.0 * beta) as f64,
                    // Below this, f32 loses its relative accuracy and may flush to zero.
                    _ => w.abs().max(1e-31),
                })
                .collect();
            assert_close(&dev.download(&y).unwrap(), &want, Some(&size), 1e-6, &format!("{act:?} on {dev:?}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn gathers_join_sources(images in 1..=5usize, first in 1..=300usize, second in 1..=300usize, seed in 0..1000u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (src, dst) = (rng.usize(1..=400), first + second + rng.usize(0..3));
        let x = integers(seed, images * src, -9, 9);
        let index: Vec<u32> = (0..first + second)
            .map(|_| if rng.u8(0..4) == 0 { u32::MAX } else { rng.u32(0..src as u32) })
            .collect();
        let real: Vec<f32> = x.iter().map(|&v| v as f32 / 4.0).collect();
        for dev in devices() {
            let (a, b) = (dev.upload(&index[..first]).unwrap(), dev.upload(&index[first..]).unwrap());
            let (xd, rd) = (dev.upload(&x).unwrap(), dev.upload(&real).unwrap());
            let (mut y, mut z) = (dev.upload(&vec![77; images * dst]).unwrap(), dev.zeros::<f32>(images * dst).unwrap());
            gather::into(dev, &a, images, src, &xd, 0, dst, &mut y).unwrap();
            gather::into(dev, &b, images, src, &xd, first, dst, &mut y).unwrap();
            gather::into(dev, &a, images, src, &rd, 0, dst, &mut z).unwrap();
            prop_assert!(gather::into(dev, &b, images, src, &xd, dst - second + 1, dst, &mut y).is_err());
            let (y, z) = (dev.download(&y).unwrap(), dev.download(&z).unwrap());
            for n in 0..images * dst {
                let (image, i) = (n / dst, n % dst);
                let want = match index.get(i) {
                    None => 77,
                    Some(&u32::MAX) => 0,
                    Some(&from) => x[image * src + from as usize],
                };
                prop_assert_eq!(y[n], want);
                let real = if i < first { want as f32 / 4.0 } else { 0.0 };
                prop_assert_eq!(z[n], real);
            }
        }
    }

    #[test]
    fn affine_maps_by_channel(images in 1..=4usize, c in 1..=5usize, h in 1..=9usize, w in 1..=9usize, seed in 0..1000u64) {
        let shape = Shape::new(c, h, w);
        let (a, b, y) = (reals(seed, c), reals(seed + 1, c), reals(seed + 2, images * shape.len()));
        for dev in devices() {
            let mut yd = dev.upload(&y).unwrap();
            activate::affine(dev, shape, &dev.upload(&a).unwrap(), &dev.upload(&b).unwrap(), &mut yd).unwrap();
            let channel = |n: usize| n / shape.area() % c;
            let want: Vec<f64> =
                y.iter().enumerate().map(|(n, &v)| a[channel(n)] as f64 * v as f64 + b[channel(n)] as f64).collect();
            let size: Vec<f64> =
                y.iter().enumerate().map(|(n, &v)| ((a[channel(n)] * v).abs() + b[channel(n)].abs()) as f64).collect();
            assert_close(&dev.download(&yd).unwrap(), &want, Some(&size), 1e-6, "affine");
        }
    }

    #[test]
    fn currents_lack_what_their_response_does(len in 0..=9000usize, top in 0.2f32..2.0, seed in 0..1000u64) {
        let (u, rest) = (reals(seed, len), reals(seed + 1, len));
        let u: Vec<f32> = u.iter().map(|u| 2.0 * u).collect();
        let found = devices().iter().map(|dev| {
            let (ud, mut rd) = (dev.upload(&u).unwrap(), dev.upload(&rest).unwrap());
            activate::lacking(dev, top, &ud, &mut rd).unwrap();
            assert!(activate::lacking(dev, top, &dev.zeros(len + 1).unwrap(), &mut rd).is_err());
            dev.download(&rd).unwrap()
        });
        for found in found {
            for ((&u, &rest), &lacks) in u.iter().zip(&rest).zip(&found) {
                // with what is lacking the response is the wanted one, and no smaller change does
                let (current, clip) = (u - rest, |v: f32| v.clamp(0.0, top));
                prop_assert!((clip(current + lacks) - clip(u)).abs() < 1e-6);
                prop_assert!(lacks.abs() <= rest.abs() + 1e-6);
                prop_assert!(lacks == 0.0 || (clip(current) - clip(u)).abs() > 0.0 || (lacks - rest).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn sums_element_by_element(len in 0..=9000usize, seed in 0..1000u64) {
        let (x, y) = (reals(seed, len), reals(seed + 1, len));
        let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        for dev in devices() {
            let (xd, mut yd) = (dev.upload(&x).unwrap(), dev.upload(&y).unwrap());
            activate::add(dev, &xd, &mut yd).unwrap();
            prop_assert_eq!(&dev.download(&yd).unwrap(), &want);
            prop_assert!(activate::add(dev, &dev.zeros(len + 1).unwrap(), &mut yd).is_err());
        }
    }

    #[test]
    fn time_sums_count_spikes(steps in 1..=70usize, len in 1..=5000usize, seed in 0..1000u64) {
        let trains = integers(seed, steps * len, 0, 3);
        let want: Vec<f32> = (0..len).map(|i| (0..steps).map(|t| trains[t * len + i]).sum::<i32>() as f32).collect();
        for dev in devices() {
            let mut y = dev.poisoned(len).unwrap();
            time::total(dev, steps, len, &dev.upload(&trains).unwrap(), &mut y).unwrap();
            prop_assert_eq!(&dev.download(&y).unwrap(), &want);
        }
    }
}
