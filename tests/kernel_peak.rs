//! The two kernels that measure what a device can do at most, against their definition, on both devices.

mod common;

use common::{assert_close, devices, reals};
use proptest::prelude::*;
use synfit::compute::peak;

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn multiply_adds_follow_their_definition(vectors in 1..=3000usize, turns in 0..=20usize, seed in 0..1000u64) {
        let (len, rounds) = (peak::VECTOR * vectors, peak::TURN * turns);
        let x = reals(seed, len);
        let (a, b) = (0.75, -0.4);
        // In closed form: what is left of x, and of the limit b / (1 - a).
        let left = f64::from(a).powi(rounds as i32);
        let limit = f64::from(b) / (1.0 - f64::from(a));
        let want: Vec<f64> = x.iter().map(|&x| left * f64::from(x) + (1.0 - left) * limit).collect();
        for dev in devices() {
            let mut y = dev.upload(&x).unwrap();
            peak::fma(dev, rounds, (a, b), &mut y).unwrap();
            let scale = vec![4.0; len];
            assert_close(&dev.download(&y).unwrap(), &want, Some(&scale), 1e-6, &format!("{rounds} rounds on {dev:?}"));
        }
    }

    #[test]
    fn copies_are_whole(vectors in 1..=70_000usize, seed in 0..1000u64) {
        let x = reals(seed, peak::VECTOR * vectors);
        for dev in devices() {
            let (from, mut to) = (dev.upload(&x).unwrap(), dev.poisoned(x.len()).unwrap());
            peak::copy(dev, &from, &mut to).unwrap();
            prop_assert_eq!(dev.download(&to).unwrap(), x.clone());
        }
    }
}

/// As many rounds as one dispatch may have: a loop that ends early without a word would show.
#[test]
fn long_loops_run_to_their_end() {
    for dev in devices() {
        let mut y = dev.upload(&[0.0; 64]).unwrap();
        // Every round adds one: exact up to 2^24.
        peak::fma(dev, peak::MOST_ROUNDS, (1.0, 1.0), &mut y).unwrap();
        assert_eq!(dev.download(&y).unwrap(), vec![peak::MOST_ROUNDS as f32; 64], "{dev:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for dev in devices() {
        let mut y = dev.zeros(6).unwrap();
        assert!(peak::fma(dev, peak::TURN, (1.0, 1.0), &mut y).is_err());
        let mut y = dev.zeros(8).unwrap();
        assert!(peak::fma(dev, 5, (1.0, 1.0), &mut y).is_err());
        assert!(peak::fma(dev, peak::MOST_ROUNDS + peak::TURN, (1.0, 1.0), &mut y).is_err());
        let x = dev.zeros(12).unwrap();
        assert!(peak::copy(dev, &x, &mut y).is_err());
    }
}

/// The GPU's own clock ticks while passes run, and hardly longer than the wall's (drivers round).
#[test]
fn measurements_have_both_clocks() {
    for dev in devices() {
        let mut y = dev.upload(&vec![1.0; 1 << 14]).unwrap();
        peak::fma(dev, 64, (0.5, 0.5), &mut y).unwrap();
        let took = dev.timed(|| peak::fma(dev, 4096, (0.5, 0.5), &mut y)).unwrap();
        assert!(took.wall > 0.0, "{dev:?}");
        assert_eq!(took.gpu.is_some(), dev.has_clock(), "{dev:?}");
        if let Some(gpu) = took.gpu {
            assert!(gpu > 0.0 && gpu <= 2.0 * took.wall + 1e-3, "{dev:?}: {took:?}");
        }
        // Nothing is measured of what runs between measurements, or of nothing.
        peak::fma(dev, 4096, (0.5, 0.5), &mut y).unwrap();
        assert_eq!(dev.timed(|| Ok(())).unwrap().gpu, None);
    }
}
