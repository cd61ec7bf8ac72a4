//! The simulation of a layer against one neuron's step, on both devices: integers bit for bit.

mod common;

use common::{assert_close, devices, integers, reals};
use proptest::prelude::*;
use synfit::compute::step::{self, StepSpec};
use synfit::network::Shape;
use synfit::neuron::step::{State, integer, integrate, integrate_real, leak, real};
use synfit::neuron::{Model, Reset};

fn model() -> impl Strategy<Value = Model> {
    (prop::bool::ANY, 0..=3u32, 1..=4u32, prop::bool::ANY).prop_map(|(zero, refractory, max_spikes, strict)| Model {
        decay: 0.0,
        reset: if zero { Reset::Zero } else { Reset::Subtract },
        refractory,
        max_spikes,
        strict,
        dash: 0,
    })
}

fn spec(model: Model, steps: usize, constant: bool, images: usize, shape: Shape) -> StepSpec {
    let steps_in = if constant { 1 } else { steps };
    StepSpec { model, steps, steps_in, settle: 0, counted: false, images, shape, floor: -5000, ceil: 6000 }
}

/// `trains` as they are wanted: steps, or their sum.
fn summed(s: &StepSpec, trains: Vec<i32>) -> Vec<i32> {
    let neurons = s.images * s.shape.len();
    if s.counted { (0..neurons).map(|n| trains.iter().skip(n).step_by(neurons).sum()).collect() } else { trains }
}

fn at(s: &StepSpec, t: usize, n: usize) -> (usize, usize) {
    let row = if s.steps_in == 1 { 0 } else { t };
    (row * s.images * s.shape.len() + n, n % s.shape.len() / s.shape.area())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn integers_agree_bit_for_bit(m in model(), steps in 1..=20usize, constant in prop::bool::ANY, images in 1..=3usize,
                                  c in 1..=4usize, h in 1..=20usize, w in 1..=20usize, wild in prop::bool::ANY,
                                  settle in 0..=23usize, dash in prop_oneof![Just(0), 1..=20u32],
                                  counted in prop::bool::ANY, seed in 0..1000u64) {
        let m = Model { dash, ..m };
        let mut s = StepSpec { settle, counted, ..spec(m, steps, constant, images, Shape::new(c, h, w)) };
        // Wild: currents that overflow 32 bits, no bounds on the potential.
        let most = if wild { i32::MAX } else { 3000 };
        if wild {
            (s.floor, s.ceil) = (i32::MIN, i32::MAX);
        }
        let neurons = images * s.shape.len();
        let current = integers(seed, s.steps_in * neurons, -most, most);
        let (bias, theta) = (integers(seed + 1, c, -most / 9, most / 9), integers(seed + 2, c, 1, 1000));
        let v0 = integers(seed + 3, c, 0, 500);
        let (mut trains, mut v_end) = (vec![0; steps * neurons], vec![0; neurons]);
        for n in 0..neurons {
            let mut state = State::new(v0[at(&s, 0, n).1]);
            let drive = |t: usize| {
                let (i, c) = at(&s, t, n);
                if t < steps { current[i].saturating_add(bias[c]) } else { 0 }
            };
            for t in 0..settle.min(steps) {
                state.v = integrate(s.floor, s.ceil, leak(dash, state.v), drive(t));
            }
            for t in 0..steps {
                let (_, c) = at(&s, t, n);
                let drive = drive(t + settle);
                trains[t * neurons + n] = integer(&m, s.floor, s.ceil, &mut state, drive, theta[c]);
            }
            v_end[n] = state.v;
        }
        let trains = summed(&s, trains);
        for dev in devices() {
            let up = |v: &[i32]| dev.upload(v).unwrap();
            let (mut td, mut vd) = (dev.poisoned(trains.len()).unwrap(), dev.poisoned(neurons).unwrap());
            step::integer(dev, &s, &up(&current), &up(&bias), &up(&theta), &up(&v0), &mut td, &mut vd).unwrap();
            prop_assert_eq!(&dev.download(&td).unwrap(), &trains);
            prop_assert_eq!(&dev.download(&vd).unwrap(), &v_end);
        }
    }

    #[test]
    fn reals_agree_away_from_thresholds(m in model(), leak in 0..=2u8, steps in 1..=20usize, constant in prop::bool::ANY,
                                        images in 1..=3usize, c in 1..=4usize, h in 1..=12usize, settle in 0..=23usize,
                                        seed in 0..1000u64) {
        let m = Model { decay: [0.0, 0.5, 0.95][leak as usize], ..m };
        let s = StepSpec { settle, ..spec(m, steps, constant, images, Shape::new(c, h, 3)) };
        let neurons = images * s.shape.len();
        let current = reals(seed, s.steps_in * neurons);
        let (bias, v0) = (reals(seed + 1, c), reals(seed + 3, c));
        let theta: Vec<f32> = reals(seed + 2, c).iter().map(|v| v.abs() + 0.1).collect();
        let (mut trains, mut v_end, mut clear) = (vec![0; steps * neurons], vec![0.0; neurons], vec![true; neurons]);
        for n in 0..neurons {
            let mut state = State::new(v0[at(&s, 0, n).1]);
            let drive = |t: usize| {
                let (i, c) = at(&s, t, n);
                if t < steps { current[i] + bias[c] } else { 0.0 }
            };
            for t in 0..settle.min(steps) {
                state.v = integrate_real(&m, state.v, drive(t));
            }
            for t in 0..steps {
                let (_, c) = at(&s, t, n);
                let (before, drive) = (state, drive(t + settle));
                trains[t * neurons + n] = real(&m, &mut state, drive, theta[c]);
                // A rounding may decide where some multiple of theta is this near.
                let mut probe = before;
                let mut spike = |shift: f32| {
                    probe = before;
                    real(&m, &mut probe, drive + shift, theta[c])
                };
                clear[n] &= spike(1e-4) == spike(-1e-4);
            }
            v_end[n] = state.v;
        }
        prop_assert!(clear.iter().filter(|c| **c).count() * 10 >= neurons * 9 - 10);
        for dev in devices() {
            let up = |v: &[f32]| dev.upload(v).unwrap();
            let (mut td, mut vd) = (dev.poisoned::<i32>(trains.len()).unwrap(), dev.poisoned(neurons).unwrap());
            step::real(dev, &s, &up(&current), &up(&bias), &up(&theta), &up(&v0), &mut td, &mut vd).unwrap();
            let (td, vd) = (dev.download(&td).unwrap(), dev.download(&vd).unwrap());
            for n in (0..neurons).filter(|&n| clear[n]) {
                for t in 0..steps {
                    prop_assert_eq!(td[t * neurons + n], trains[t * neurons + n]);
                }
                prop_assert!((vd[n] - v_end[n]).abs() <= 1e-5 * (1.0 + v_end[n].abs()));
            }
        }
    }

    #[test]
    fn readouts_accumulate(steps in 1..=30usize, constant in prop::bool::ANY, images in 1..=3usize, c in 1..=4usize,
                           h in 1..=12usize, seed in 0..1000u64) {
        let m = Model { decay: 0.0, reset: Reset::Subtract, refractory: 0, max_spikes: 1, strict: false, dash: 0 };
        let s = spec(m, steps, constant, images, Shape::new(c, h, 3));
        let neurons = images * s.shape.len();
        let (x, b, v0) = (integers(seed, s.steps_in * neurons, -9999, 9999), integers(seed, c, -9, 9), integers(seed, c, 0, 9));
        let want: Vec<i32> = (0..neurons)
            .map(|n| v0[at(&s, 0, n).1] + (0..steps).map(|t| x[at(&s, t, n).0] + b[at(&s, t, n).1]).sum::<i32>())
            .collect();
        let real = |v: &[i32]| v.iter().map(|&v| v as f32 / 7.0).collect::<Vec<_>>();
        let close: Vec<f64> = want.iter().map(|&v| v as f64 / 7.0).collect();
        let size = vec![1500.0 * steps as f64; neurons];
        for dev in devices() {
            let mut y = dev.poisoned(neurons).unwrap();
            step::accumulate(dev, &s, &dev.upload(&x).unwrap(), &dev.upload(&b).unwrap(), &dev.upload(&v0).unwrap(), &mut y)
                .unwrap();
            prop_assert_eq!(&dev.download(&y).unwrap(), &want);
            let up = |v: &[i32]| dev.upload(&real(v)).unwrap();
            let mut y = dev.poisoned(neurons).unwrap();
            step::accumulate(dev, &s, &up(&x), &up(&b), &up(&v0), &mut y).unwrap();
            assert_close(&dev.download(&y).unwrap(), &close, Some(&size), 1e-6, "readout");
        }
    }
}
