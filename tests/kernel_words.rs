//! Packed counts against the counts themselves, on both devices.

mod common;

use common::{devices, integers};
use proptest::prelude::*;
use synfit::compute::Device;
use synfit::compute::words::{self, Packing};

/// Words and sums of `counts` on `dev`; the counts must come back.
fn there_and_back(dev: &Device, packing: &Packing, len: usize, counts: &[i32]) -> (Vec<u32>, Vec<f32>) {
    let mut packed = dev.poisoned(packing.words()).unwrap();
    words::pack(dev, packing, &dev.upload(counts).unwrap(), &mut packed).unwrap();
    let mut back = dev.poisoned(counts.len()).unwrap();
    words::unpack(dev, packing, &packed, &mut back).unwrap();
    assert_eq!(dev.download(&back).unwrap(), counts, "{packing:?} on {dev:?}");
    let mut sums = dev.poisoned(len).unwrap();
    words::total(dev, packing, &packed, &mut sums).unwrap();
    (dev.download(&packed).unwrap(), dev.download(&sums).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn counts_come_back_and_add_up(steps in 1..=70usize, len in 0..=600usize,
                                   peak in prop::sample::select(vec![0i64, 1, 2, 3, 4, 15, 16, 255, 256, 65_535, 65_536]),
                                   seed in 0..1000u64) {
        let counts = integers(seed, steps * len, 0, peak as i32);
        let packing = Packing::new(steps, len, peak as u64);
        prop_assert_eq!(packing, Packing::of_width(steps, len, packing.bits()).unwrap());
        let sums: Vec<f32> =
            (0..len).map(|i| counts.iter().skip(i).step_by(len.max(1)).sum::<i32>() as f32).collect();
        let found: Vec<_> = devices().iter().map(|dev| there_and_back(dev, &packing, len, &counts)).collect();
        for (words, totals) in &found {
            prop_assert_eq!(words, &found[0].0);
            prop_assert_eq!(totals, &sums);
        }
    }
}

#[test]
fn spikes_take_a_bit_and_any_count_is_kept() {
    let spikes: Vec<i32> = (0..32 * 1000).map(|i| i32::from(i % 3 == 0)).collect();
    assert_eq!(Packing::new(32, 1000, 1).words(), 1000);
    // one step of many counts is packed across them
    assert_eq!(Packing::new(1, 1000, 255).words(), 250);
    let wild = [i32::MIN, -1, 0, 7, i32::MAX, 1 << 20];
    for dev in devices() {
        there_and_back(dev, &Packing::new(32, 1000, 1), 1000, &spikes);
        there_and_back(dev, &Packing::new(2, 3, u64::MAX), 3, &wild);
        there_and_back(dev, &Packing::new(1, 6, 1 << 31), 6, &wild);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!([0, 3, 5, 33].iter().all(|&bits| Packing::of_width(2, 3, bits).is_err()));
    let (dev, packing) = (Device::cpu(), Packing::new(2, 3, 1));
    let counts = dev.upload(&[0, 1, 2, 0, 0, 0]).unwrap();
    assert!(words::pack(&dev, &packing, &counts, &mut dev.zeros(3).unwrap()).is_err());
    for dev in devices() {
        let short = dev.upload(&[0, 1]).unwrap();
        assert!(words::pack(dev, &packing, &short, &mut dev.zeros(3).unwrap()).is_err());
        assert!(words::unpack(dev, &packing, &dev.zeros(2).unwrap(), &mut dev.zeros(6).unwrap()).is_err());
        assert!(words::total(dev, &packing, &dev.zeros(3).unwrap(), &mut dev.zeros(2).unwrap()).is_err());
    }
}
