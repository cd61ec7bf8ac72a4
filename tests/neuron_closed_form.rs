//! The simulation of a constant current reproduces the closed form of every neuron model, spike for spike, in Rust and
//! in WGSL; the inverse gives back the rate.

use proptest::prelude::*;
use synfit::compute::step::{self, StepSpec};
use synfit::compute::{Choice, Device};
use synfit::network::Shape;
use synfit::neuron::continuous::ContinuousLif;
use synfit::neuron::{Model, Reset};

fn models() -> Vec<Model> {
    let mut all = Vec::new();
    for strict in [false, true] {
        all.push(Model { strict, ..Model::IF });
        all.push(Model { strict, max_spikes: 3, ..Model::IF });
        for refractory in [0, 1, 5] {
            all.push(Model { strict, refractory, reset: Reset::Zero, ..Model::IF });
            all.push(Model { strict, refractory, ..Model::LIF });
        }
        all.push(Model { strict, reset: Reset::Subtract, ..Model::LIF });
        all.push(Model { strict, refractory: 2, ..Model::IF });
    }
    all
}

/// Spike counts of constant currents, all in one dispatch: `currents` thresholds per step, threshold 1.
fn simulated(dev: &Device, model: Model, currents: &[f32], v0: f32, steps: usize) -> Vec<u32> {
    let shape = Shape::new(currents.len(), 1, 1);
    let n = currents.len();
    let spec = StepSpec {
        model,
        steps,
        steps_in: 1,
        settle: 0,
        counted: false,
        images: 1,
        shape,
        floor: i32::MIN,
        ceil: i32::MAX,
    };
    let mut trains = dev.poisoned(steps * n).unwrap();
    let mut end = dev.poisoned(n).unwrap();
    step::real(
        dev,
        &spec,
        &dev.upload(currents).unwrap(),
        &dev.upload(&vec![0.0; n]).unwrap(),
        &dev.upload(&vec![1.0; n]).unwrap(),
        &dev.upload(&vec![v0; n]).unwrap(),
        &mut trains,
        &mut end,
    )
    .unwrap();
    totals(&dev.download(&trains).unwrap(), n)
}

fn totals(trains: &[i32], n: usize) -> Vec<u32> {
    (0..n).map(|i| trains.iter().skip(i).step_by(n).map(|&s| s as u32).sum()).collect()
}

/// True if rounding in f32 may move a spike: the count changes when the current is nudged by a part in 10^5, or v0 is.
fn on_an_edge(model: &Model, current: f64, v0: f64, steps: u32) -> bool {
    let count = |c: f64, v: f64| model.count(c, v, steps);
    let nudge = 1e-5;
    let at = count(current, v0);
    [-nudge, nudge].iter().any(|e| count(current * (1.0 + e) + e, v0) != at || count(current, (v0 + e).max(0.0)) != at)
}

#[test]
fn simulation_of_a_constant_current_is_the_closed_form() {
    let mut rng = fastrand::Rng::with_seed(7);
    for dev in [Device::cpu(), Device::open(Choice::Gpu).unwrap()] {
        let mut checked = 0;
        for model in models() {
            for steps in [1u32, 7, 64, 301] {
                for v0 in [0.0f32, 0.5] {
                    let currents: Vec<f32> = (0..97)
                        .map(|i| match i {
                            0 => 0.0,
                            1 => -0.3,
                            2 => 1.0,
                            3 => 5.0,
                            _ => rng.f32() * if model.is_leaky() { 4.0 } else { 1.5 } - 0.1,
                        })
                        .collect();
                    let counted = simulated(&dev, model, &currents, v0, steps as usize);
                    for (&current, &n) in currents.iter().zip(&counted) {
                        let (current, v0) = (f64::from(current), f64::from(v0));
                        if on_an_edge(&model, current, v0, steps) {
                            continue;
                        }
                        checked += 1;
                        assert_eq!(n, model.count(current, v0, steps), "{model:?} J = {current} v0 = {v0} T = {steps}");
                    }
                }
            }
        }
        assert!(checked > 9_000, "only {checked} cases were clear of an edge");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Integers leave no edge out: every case is exact, ties included.
    #[test]
    fn integer_simulation_is_the_closed_form_exactly(
        theta in 1i32..5000, v0 in 0.0f64..1.0, steps in 1u32..200, strict: bool, most in 1u32..4,
        currents in prop::collection::vec(-3000i32..12_000, 1..70),
    ) {
        let model = Model { strict, max_spikes: most, ..Model::IF };
        let v0 = (f64::from(theta) * v0) as i32;
        let n = currents.len();
        let shape = Shape::new(n, 1, 1);
        for dev in [Device::cpu(), gpu()] {
            let spec = StepSpec { model, steps: steps as usize, steps_in: 1, settle: 0, counted: false, images: 1, shape, floor: -1 << 30, ceil: 1 << 30 };
            let mut trains = dev.poisoned(steps as usize * n).unwrap();
            let mut end = dev.poisoned(n).unwrap();
            let filled = |v: i32| dev.upload(&vec![v; n]).unwrap();
            step::integer(&dev, &spec, &dev.upload(&currents).unwrap(), &filled(0), &filled(theta), &filled(v0), &mut trains, &mut end).unwrap();
            let counted = totals(&dev.download(&trains).unwrap(), n);
            for (&j, &n) in currents.iter().zip(&counted) {
                let total = i64::from(j) * i64::from(steps) + i64::from(v0);
                let theta = i64::from(theta);
                let passed = if strict { (total + theta - 1).div_euclid(theta) - 1 } else { total.div_euclid(theta) };
                // A constant current above most thresholds a step never catches up: it fires at every chance.
                let exact = passed.clamp(0, i64::from(most * steps)) as u32;
                prop_assert_eq!(n, exact, "J = {} theta = {} v0 = {} T = {}", j, theta, v0, steps);
            }
        }
    }

    #[test]
    fn the_inverse_gives_the_rate_back(rate in 0.01f64..1.0, refractory in 0u32..4, leaky: bool) {
        let steps = 100_000;
        let base = if leaky { Model::LIF } else { Model { reset: Reset::Zero, ..Model::IF } };
        let model = Model { refractory, ..base };
        let rate = rate * model.max_rate();
        // Reset to zero fires with whole periods only: the largest rate of that kind below.
        let period = (1.0 / rate - f64::from(refractory)).ceil();
        let rate = 1.0 / (period + f64::from(refractory));
        let current = model.inverse(rate);
        let got = f64::from(model.count(current * (1.0 + 1e-9) + 1e-9, 0.0, steps)) / f64::from(steps);
        prop_assert!((got - rate).abs() < 2e-5 + 1e-3 * rate, "{} for {} at J = {}", got, rate, current);
        let soft = Model { reset: Reset::Subtract, ..Model::IF };
        let got = f64::from(soft.count(soft.inverse(rate), 0.5, steps)) / f64::from(steps);
        prop_assert!((got - rate).abs() < 2e-5);
        for model in [model, Model { reset: Reset::Subtract, ..model }, Model { max_spikes: 3, ..soft }] {
            let back = model.rate(model.inverse(rate));
            prop_assert!((back - rate).abs() < 1e-9 + 1e-6 * rate, "{} for {} of {:?}", back, rate, model);
            prop_assert!(model.rate(1e9) <= model.max_rate() && model.rate(-rate) == 0.0);
        }
    }

    #[test]
    fn continuous_lif_inverts_and_limits(rate in 3.0f64..400.0) {
        // At lower rates the current lies so near the rheobase (by e^(-1/(rate tau_rc))) that an f64 cannot hold the
        // difference to nine digits.
        let lif = ContinuousLif { tau_rc: 0.02, tau_ref: 0.002 };
        prop_assert!((lif.rate(lif.inverse(rate)) / rate - 1.0).abs() < 1e-9);
        // The soft response tends to the hard one, the aliased one lies below it by less than one step a period.
        let current = lif.inverse(rate);
        prop_assert!((lif.smooth_rate(current, 1e-9) / rate - 1.0).abs() < 1e-6);
        let (dt, aliased) = (0.001, lif.aliased_rate(current, 0.001));
        prop_assert!(aliased <= rate * (1.0 + 1e-9) && 1.0 / aliased < 1.0 / rate + dt * (1.0 + 1e-9));
    }
}

fn gpu() -> Device {
    use std::sync::OnceLock;
    static GPU: OnceLock<Device> = OnceLock::new();
    GPU.get_or_init(|| Device::open(Choice::Gpu).unwrap()).clone()
}

#[test]
fn worked_examples() {
    // J = 0.3, theta = 1, T = 10: soft reset from half a threshold fires floor(3.5) = 3 times.
    assert_eq!(Model::IF.count(0.3, 0.5, 10), 3);
    // Reset to zero: period ceil(1/0.3) = 4, floor(10/4) = 2.
    let zero = Model { reset: Reset::Zero, ..Model::IF };
    assert_eq!(zero.count(0.3, 0.0, 10), 2);
    // One refractory step: floor((10 + 1)/(4 + 1)) = 2.
    assert_eq!(Model { refractory: 1, ..zero }.count(0.3, 0.0, 10), 2);
    // A leaky neuron never fires below its rheobase.
    assert_eq!(Model::LIF.count(1.0, 0.0, 1000), 0);
    // J = 2: period floor(ln(1/2)/ln(alpha)) + 1 = floor(13.86) + 1 = 14.
    assert_eq!(Model::LIF.count(2.0, 0.0, 28), 2);
    assert_eq!(Model::LIF.count(2.0, 0.0, 27), 1);
}
