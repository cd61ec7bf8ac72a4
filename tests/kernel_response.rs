//! The response kernels against the f64 formulas of src/neuron, on both devices: spike counts exact away from an edge,
//! currents and rates within 1e-5.

mod common;

use common::{assert_close, devices, reals};
use proptest::prelude::*;
use synfit::compute::{Buffer, Device, response};
use synfit::error::Result;
use synfit::network::Shape;
use synfit::neuron::continuous::ContinuousLif;
use synfit::neuron::{Model, Reset};

/// Every kind of model that `Model::validate` lets pass.
fn model() -> impl Strategy<Value = Model> {
    (0..=3u8, any::<bool>(), 0..=40u32, 1..=9u32, any::<bool>(), any::<bool>()).prop_map(
        |(leak, zero, refractory, max_spikes, strict, several)| {
            let several = several && !zero;
            Model {
                decay: [0.0, 0.5, 0.951_229_4, 0.999][leak as usize],
                reset: if zero { Reset::Zero } else { Reset::Subtract },
                refractory: if several { 0 } else { refractory / 10 * (refractory % 10) },
                max_spikes: if several { max_spikes } else { 1 },
                strict,
                dash: 0,
            }
        },
    )
}

/// Ordinary currents and what may go wrong: none, negative, the rheobase, just beside it, huge.
fn currents(seed: u64, len: usize, spread: f32) -> Vec<f32> {
    let edges =
        [0.0, -0.0, 1.0, 1.000_000_1, 0.999_999_94, 0.5, 0.25, 2.0, 1e30, -1e30, f32::MAX, f32::MIN, 1e-30, -1e-3];
    let mut all: Vec<f32> = reals(seed, len).iter().map(|v| v * spread + 0.4 * spread).collect();
    all.iter_mut().step_by(3).zip(edges).for_each(|(to, edge)| *to = edge);
    all
}

/// True if rounding in f32 may move a spike.
fn on_an_edge(model: &Model, current: f64, v0: f64, steps: u32) -> bool {
    let at = model.count(current, v0, steps);
    [-1e-5, 1e-5].iter().any(|e| {
        let nudged = (v0 + e).clamp(0.0, 1.0 - 1e-9);
        model.count(current * (1.0 + e) + e, v0, steps) != at || model.count(current, nudged, steps) != at
    })
}

fn mapped(dev: &Device, y: &[f32], map: impl Fn(&mut Buffer<f32>) -> Result<()>) -> Vec<f32> {
    let mut y = dev.upload(y).unwrap();
    map(&mut y).unwrap();
    dev.download(&y).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_the_closed_form(model in model(), steps in 0..=700u32, images in 1..=3usize, c in 1..=5usize,
                                  area in 1..=40usize, spread in 0.01f32..30.0, start: bool, seed in 0..1000u64) {
        prop_assume!(model.validate().is_ok());
        let shape = Shape::new(c, area, 1);
        let current = currents(seed, images * shape.len(), spread);
        let v0: Vec<f32> = reals(seed + 1, c).iter().map(|v| if start { v.abs().min(0.999) } else { 0.0 }).collect();
        for dev in devices() {
            let mut counts = dev.poisoned(current.len()).unwrap();
            let (j, v) = (dev.upload(&current).unwrap(), dev.upload(&v0).unwrap());
            response::count(dev, &model, steps, shape, &v, &j, &mut counts).unwrap();
            for (i, (n, &j)) in dev.download(&counts).unwrap().into_iter().zip(&current).enumerate() {
                let (j, v) = (f64::from(j), f64::from(v0[i / area % c]));
                if !on_an_edge(&model, j, v, steps) {
                    prop_assert_eq!(n as u32, model.count(j, v, steps), "{:?} J = {} v0 = {} T = {}", model, j, v, steps);
                }
            }
        }
    }

    #[test]
    fn inverses_give_the_current(model in model(), seed in 0..1000u64, len in 1..=2000usize) {
        prop_assume!(model.validate().is_ok());
        let top = model.max_rate() as f32;
        let mut rates: Vec<f32> = reals(seed, len).iter().map(|v| v * v.abs() * top * 1.1).collect();
        let edges = [0.0, top, top * 0.999_999, top * 1e-6, 1e-30, 2.0 * top, 1e30, -1.0, -1e-3, -1e30];
        rates.iter_mut().step_by(5).zip(edges).for_each(|(to, edge)| *to = edge);
        let want: Vec<f64> = rates.iter().map(|&r| model.inverse(f64::from(r))).collect();
        // 1 + rate cancels at a rate of -1.
        let size: Vec<f64> = want.iter().map(|w| if model.is_leaky() { w.abs().max(1.0) } else { w.abs() }).collect();
        for dev in devices() {
            let got = mapped(dev, &rates, |y| response::inverse(dev, &model, y));
            assert_close(&got, &want, Some(&size), 1e-5, &format!("{model:?} on {dev:?}"));
        }
    }

    #[test]
    fn the_continuous_neuron_follows_its_formulas(tau_rc in 0.001f64..0.2, tau_ref in 0.0005f64..0.01, s in 1e-3f64..0.5,
                                                  seed in 0..1000u64, len in 1..=2000usize) {
        let lif = ContinuousLif { tau_rc, tau_ref };
        let current = currents(seed, len, 5.0);
        let rates: Vec<f32> = currents(seed + 1, len, 1.0).iter().map(|v| v.abs().min(0.9999) / tau_ref as f32).collect();
        let of = |x: &[f32], f: &dyn Fn(f64) -> f64| -> Vec<f64> { x.iter().map(|&v| f(f64::from(v))).collect() };
        for dev in devices() {
            let got = mapped(dev, &current, |y| response::continuous_rate(dev, &lif, y));
            assert_close(&got, &of(&current, &|j| lif.rate(j)), None, 1e-5, "rate");
            let got = mapped(dev, &current, |y| response::continuous_smooth_rate(dev, &lif, s, y));
            let want = of(&current, &|j| lif.smooth_rate(j, s));
            let size: Vec<f64> = want.iter().map(|w| w.max(1e-30)).collect();
            assert_close(&got, &want, Some(&size), 1e-5, "smooth rate");
            let got = mapped(dev, &rates, |y| response::continuous_inverse(dev, &lif, y));
            assert_close(&got, &of(&rates, &|r| lif.inverse(r)), None, 1e-5, "inverse");
        }
    }
}

#[test]
fn out_of_reach_is_infinite() {
    let lif = ContinuousLif { tau_rc: 0.02, tau_ref: 0.002 };
    for dev in devices() {
        let got = mapped(dev, &[501.0, 1e30, f32::MAX, 0.0, -3.0], |y| response::continuous_inverse(dev, &lif, y));
        assert_eq!(got, [f32::INFINITY, f32::INFINITY, f32::INFINITY, 1.0, 1.0], "on {dev:?}");
    }
}

#[test]
fn impossible_calls_are_refused() {
    for dev in devices() {
        let (current, v0) = (dev.zeros(12).unwrap(), dev.zeros(3).unwrap());
        let call = |model: Model, steps, c, counts: usize| {
            let mut counts = dev.zeros(counts).unwrap();
            response::count(dev, &model, steps, Shape::new(c, 2, 2), &v0, &current, &mut counts)
        };
        assert!(call(Model::IF, 8, 3, 12).is_ok());
        assert!(call(Model::IF, 8, 2, 12).is_err());
        assert!(call(Model::IF, 8, 3, 11).is_err());
        assert!(call(Model::IF, 40_000, 3, 12).is_err());
        assert!(call(Model { max_spikes: 1 << 20, ..Model::IF }, 64, 3, 12).is_err());
    }
}
