//! The chips' neurons against straight-line code that shares nothing with them, bit for bit, over random parameters,
//! weights and input trains; their measured responses; and the neurons of conversions as settings of them.

use synfit::neuron::chips::Exact;
use synfit::neuron::chips::loihi::Loihi;
use synfit::neuron::chips::truenorth::{Mode, TrueNorth};
use synfit::neuron::chips::xylo::Xylo;
use synfit::neuron::step::{State, integer};
use synfit::neuron::{Model, Reset};

const CASES: u64 = 10_000;

/// Weighted sums of a random train: a few inputs with weights up to `most`, each with its own rate.
fn drives(rng: &mut fastrand::Rng, most: i32, steps: usize) -> Vec<i32> {
    let inputs: Vec<(i32, f32)> = (0..rng.usize(1..12)).map(|_| (rng.i32(-most..=most), rng.f32())).collect();
    (0..steps).map(|_| inputs.iter().map(|(w, rate)| if rng.f32() < *rate { *w } else { 0 }).sum()).collect()
}

/// Some of each: small, ordinary, extreme.
fn pick(rng: &mut fastrand::Rng, most: i32) -> i32 {
    match rng.u8(..4) {
        0 => rng.i32(0..=most.min(16)),
        1 => most - rng.i32(0..=most.min(16)),
        _ => rng.i32(0..=most),
    }
}

#[test]
fn loihi() {
    let (mut fired, mut full, mut around) = (0u64, 0, 0);
    for case in 0..CASES {
        let rng = &mut fastrand::Rng::with_seed(case);
        let (du, dv) = (pick(rng, 4095), pick(rng, 4095));
        let vth = pick(rng, 131_071);
        let (mantissa, exponent) = (rng.i32(-4096..=4095), rng.u32(0..=7));
        let most = if case % 3 == 0 { 30_000 } else { 255 };
        let neuron =
            Loihi { du: du as u32, dv: dv as u32, vth: vth as u32, bias_mantissa: mantissa, bias_exponent: exponent };
        let mut state = neuron.start();
        // magnitudes and signs apart, 24-bit registers by masking
        let (mut u, mut v) = (0i64, 0i64);
        for a in drives(rng, most, 40) {
            let kept = u.unsigned_abs() * (4095 - du as u64) / 4096;
            let sum = if u < 0 { -(kept as i64) } else { kept as i64 } + 64 * i64::from(a);
            let low = sum & 0xff_ffff;
            u = if low > 0x80_0000 { low - 0x100_0000 } else { low };
            around += u64::from(u != sum);
            let kept = v.unsigned_abs() * (4096 - dv as u64) / 4096;
            let sum = if v < 0 { -(kept as i64) } else { kept as i64 };
            let sum = sum + u + i64::from(mantissa) * 2i64.pow(exponent);
            v = sum.clamp(-8_388_607, 8_388_607);
            full += u64::from(v != sum);
            let spike = v > i64::from(vth) * 64;
            if spike {
                v = 0;
            }
            fired += u64::from(spike);
            assert_eq!(neuron.step(&mut state, a), u32::from(spike), "case {case}");
            assert_eq!((i64::from(state.u), i64::from(state.v)), (u, v), "case {case}");
        }
    }
    assert!(fired > 10_000 && full > 100 && around > 100, "{fired} spikes, {full} clipped, {around} wrapped");
}

#[test]
fn xylo() {
    let (mut several, mut full) = (0u64, 0);
    for case in 0..CASES {
        let rng = &mut fastrand::Rng::with_seed(case ^ 0x5151);
        let (dash_syn, dash_mem) = (rng.u32(0..=16), rng.u32(0..=16));
        let (threshold, bias) = (pick(rng, 32_766) + 1, rng.i32(-500..=500));
        let max_spikes = [31, 15, 1][rng.usize(..3)];
        let most = if case % 4 == 0 { 20_000 } else { 127 << rng.u32(0..=3) };
        let neuron = Xylo { dash_syn, dash_mem, threshold, bias, max_spikes };
        let mut state = neuron.start();
        let (mut i, mut v) = (0i32, 0i32);
        // floor of the quotient by a power of two, in floating point
        let decay = |x: i32, dash: u32| -> i32 {
            let part = (f64::from(x) / f64::from(dash).exp2()).floor() as i32;
            if x != 0 && part == 0 { x - x / x.abs() } else { x - part }
        };
        for a in drives(rng, most, 40) {
            (i, v) = (decay(i, dash_syn), decay(v, dash_mem));
            i += a;
            i = i.clamp(-32_768, 32_767);
            v = v + i + bias;
            full += u64::from(!(-32_768..=32_767).contains(&v));
            v = v.clamp(-32_768, 32_767);
            let mut n = 0;
            while v >= threshold && n < max_spikes {
                v -= threshold;
                n += 1;
            }
            several += u64::from(n > 1);
            assert_eq!(neuron.step(&mut state, a), n, "case {case}");
            assert_eq!((state.current, state.v), (i, v), "case {case}");
        }
    }
    assert!(several > 1000 && full > 1000, "{several} steps with several spikes, {full} that saturate");
}

#[test]
fn truenorth() {
    let (mut fired, mut low) = (0u64, [0u64; 4]);
    for case in 0..CASES {
        let rng = &mut fastrand::Rng::with_seed(case ^ 0x7171);
        let (leak, reversal, saturates) = (rng.i32(-255..=255), rng.bool(), rng.bool());
        let (threshold, floor) = (pick(rng, 262_143), pick(rng, 262_143));
        let (kind, r) = (rng.usize(..3), rng.i32(-2000..=2000));
        let mode = [Mode::Value(r), Mode::Linear, Mode::None][kind];
        let initial = rng.i32(-500..=500);
        let most = if case % 3 == 0 { 200_000 } else { 255 };
        let neuron = TrueNorth { leak, reversal, threshold, floor, mode, saturates, initial };
        let (mut state, mut v) = (neuron.start(), initial);
        let register = |v: i32| v.clamp(-524_288, 524_287);
        for a in drives(rng, most, 40) {
            v = register(v + a);
            if !reversal || v > 0 {
                v = register(v + leak);
            } else if v < 0 {
                v = register(v - leak);
            }
            let mut spike = 0;
            if v >= threshold {
                spike = 1;
                if kind == 0 {
                    v = r;
                } else if kind == 1 {
                    v -= threshold;
                }
            } else if v + floor < 0 {
                low[if saturates { 3 } else { kind }] += 1;
                if saturates {
                    v = -floor;
                } else if kind == 0 {
                    v = -r;
                } else if kind == 1 {
                    v += floor;
                }
            }
            v = register(v);
            fired += spike;
            assert_eq!(u64::from(neuron.step(&mut state, a)), spike, "case {case}");
            assert_eq!(state, v, "case {case}");
        }
    }
    assert!(fired > 10_000 && low.iter().all(|n| *n > 1000), "{fired} spikes, {low:?} below");
}

/// What conversions step (`step::integer`) is the chip's neuron with current decay, leak and floor out of the way.
#[test]
fn conversions_use_settings_of_them() {
    for case in 0..2000u64 {
        let rng = &mut fastrand::Rng::with_seed(case ^ 0x9191);
        let theta = rng.i32(1..4000);
        let bias = rng.i32(-60..=60);
        let train = drives(rng, 127, 50);
        let plain = |model: Model, initial: i32, (floor, ceil): (i32, i32)| -> Vec<u32> {
            let mut state = State::new(initial);
            train.iter().map(|a| integer(&model, floor, ceil, &mut state, a + bias, theta) as u32).collect()
        };
        // one unit of a conversion is 2^6 of the chip's, so that biases have the exponent 6
        let loihi = Loihi { du: 4095, dv: 0, vth: theta as u32, bias_mantissa: bias, bias_exponent: 6 };
        let model = Model { reset: Reset::Zero, strict: true, ..Model::IF };
        let mut state = loihi.start();
        let spikes: Vec<u32> = train.iter().map(|a| loihi.step(&mut state, *a)).collect();
        assert_eq!(spikes, plain(model, 0, (-131_071, 131_071)), "loihi, case {case}");

        let xylo = Xylo { dash_syn: 0, dash_mem: 15, threshold: theta, bias, max_spikes: 31 };
        let model = Model { max_spikes: 31, dash: 15, ..Model::IF };
        let mut state = xylo.start();
        let spikes: Vec<u32> = train.iter().map(|a| xylo.step(&mut state, *a)).collect();
        assert_eq!(spikes, plain(model, 0, (-32_768, 32_767)), "xylo, case {case}");

        let truenorth = TrueNorth {
            leak: bias,
            reversal: false,
            threshold: theta,
            floor: 524_288,
            mode: Mode::Linear,
            saturates: true,
            initial: theta / 2,
        };
        let mut state = truenorth.start();
        let spikes: Vec<u32> = train.iter().map(|a| truenorth.step(&mut state, *a)).collect();
        assert_eq!(spikes, plain(Model::IF, theta / 2, (-524_288, 524_287)), "truenorth, case {case}");
    }
}

/// The measured response of neurons without a leak is the closed form; with one it rises with the drive, and its inverse is
/// the least drive that reaches a count.
#[test]
fn responses_are_measured() {
    let flat = TrueNorth {
        leak: 0,
        reversal: false,
        threshold: 100,
        floor: 0,
        mode: Mode::Linear,
        saturates: true,
        initial: 50,
    };
    for drive in -20..=120 {
        let closed = ((drive * 64 + 50) / 100).clamp(0, 64);
        assert_eq!(flat.count(drive, 64), if drive < 0 { 0 } else { closed as u32 }, "{drive}");
    }
    let leaky = Loihi { du: 400, dv: 200, vth: 500, bias_mantissa: 0, bias_exponent: 0 };
    let counts: Vec<u32> = (0..=255).map(|a| leaky.count(a, 200)).collect();
    assert!(counts.windows(2).all(|p| p[0] <= p[1]) && counts[0] == 0 && counts[255] > 50, "{counts:?}");
    for spikes in [1, 10, 40] {
        let least = leaky.least_drive(0..=255, spikes, 200).unwrap();
        assert!(counts[least as usize] >= spikes && counts[least as usize - 1] < spikes);
    }
    assert_eq!(leaky.least_drive(0..=255, 201, 200), None);
}
