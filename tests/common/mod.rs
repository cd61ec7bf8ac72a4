//! The harness that the integration tests share: devices, random data and shapes, f64 references, files.
#![allow(dead_code, reason = "every test file uses its own part")]

pub mod networks;
pub mod reference;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use proptest::prelude::*;
use synfit::chip::Chip;
use synfit::compute::{Checks, Choice, Device, Limits};
use synfit::convert::{Choose, Initial, Keep, NoiseUse, Options, Populations, Response, Ridge, Settle, Targets};
use synfit::network::{Shape, Window};
use synfit::spiking::Schedule;

/// What kernel tests run on: the GPU (a software one will do) with its own limits, the CPU, the GPU held to exactly
/// WebGPU's default limits without any optional feature and with shaders compiled without checks (a release on a real GPU
/// does without), and, where there is one, an adapter of OpenGL. Kernel tests never skip: no adapter is a failure. One
/// thread has them at a time, to its end: OpenGL's contexts give up on waiting for one another on a busy machine.
pub fn devices() -> &'static [Device] {
    static ONE: Mutex<()> = Mutex::new(());
    thread_local! {
        static HELD: MutexGuard<'static, ()> = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    }
    HELD.with(|_| all_devices())
}

fn all_devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let open = |limits, checks| Device::open_checked(Choice::Gpu, limits, checks);
        let own = open(Limits::Own, Checks::On).expect("the tests need an adapter: install mesa-vulkan-drivers");
        let default = open(Limits::Default, Checks::Off).expect("an adapter has WebGPU's default limits");
        [own, Device::cpu(), default].into_iter().chain(Device::open(Choice::OpenGl)).collect()
    })
}

/// The GPU and the CPU, for what lies above the kernels.
pub fn both() -> [&'static Device; 2] {
    let all = all_devices();
    [&all[0], &all[1]]
}

/// Uniform reals in -1..1.
pub fn reals(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| rng.f32() * 2.0 - 1.0).collect()
}

/// Uniform integers in lo..=hi.
pub fn integers(seed: u64, len: usize, lo: i32, hi: i32) -> Vec<i32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| rng.i32(lo..=hi)).collect()
}

/// A window over an input, and the output's height and width.
#[derive(Debug, Clone)]
pub struct Sliding {
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub window: Window,
}

/// Odd sizes, one-element sizes, strides, dilations, pads (negative ones too), outputs that reach beyond the input.
pub fn sliding(most: usize) -> impl Strategy<Value = Sliding> {
    let axis = move || (1..=most, 1..=4usize, 1..=3usize, 1..=2usize, -2..=3isize, 0..=2usize);
    (axis(), axis()).prop_map(|(a, b)| {
        let out = |(n, k, s, d, p, more): (usize, usize, usize, usize, isize, usize)| {
            let span = n as isize + p - ((k - 1) * d) as isize - 1;
            (span.max(0) as usize) / s + 1 + more
        };
        Sliding {
            input: [a.0, b.0],
            output: [out(a), out(b)],
            window: Window { kernel: [a.1, b.1], stride: [a.2, b.2], dilation: [a.3, b.3], pad: [a.4, b.4] },
        }
    })
}

/// The input's index within one channel plane that tap (i, j) of output (y, x) reads; none in the padding.
pub fn read_at(input: Shape, w: &Window, y: usize, x: usize, i: usize, j: usize) -> Option<usize> {
    let row = (y * w.stride[0] + i * w.dilation[0]) as isize - w.pad[0];
    let column = (x * w.stride[1] + j * w.dilation[1]) as isize - w.pad[1];
    let inside = row >= 0 && column >= 0 && (row as usize) < input.h && (column as usize) < input.w;
    inside.then(|| row as usize * input.w + column as usize)
}

/// Every element within `tolerance` of its reference, relative to `scale` (its own size by default).
pub fn assert_close(got: &[f32], want: &[f64], scale: Option<&[f64]>, tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (n, (&g, &w)) in got.iter().zip(want).enumerate() {
        let size = scale.map_or(w.abs(), |s| s[n].abs());
        let far = (g as f64 - w).abs();
        assert!(far <= tolerance * size, "{what}: element {n} is {g}, want {w} (scale {size})");
    }
}

use synfit::network::{Head, Layout, Network};

/// A path under `$SYNFIT_DATA` (the shared networks and data). Without that variable the caller's test is skipped with
/// a printed line, unless `SYNFIT_DATA_REQUIRED=1`.
pub fn data(relative: &str) -> Option<PathBuf> {
    match std::env::var_os("SYNFIT_DATA") {
        Some(root) => Some(PathBuf::from(root).join(relative)),
        None => {
            assert!(
                std::env::var_os("SYNFIT_DATA_REQUIRED").is_none_or(|v| v != "1"),
                "SYNFIT_DATA_REQUIRED=1, but SYNFIT_DATA is not set"
            );
            println!("skipped: SYNFIT_DATA is not set ({relative})");
            None
        }
    }
}

/// A file of this repository.
pub fn local(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// ||a - b|| / ||b||.
pub fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    let difference: f64 = a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum();
    let norm: f64 = b.iter().map(|y| y * y).sum();
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

/// The uniform numbers that tests/reference/make.py feeds to onnxruntime: a 64-bit linear congruential generator
/// (Knuth's MMIX constants), its upper 24 bits over 2^24. Exact in f32 on both sides.
pub fn uniform(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u32 << 24) as f32
        })
        .collect()
}

/// Channels-last values as the network wants them.
pub fn to_chw(network: &Network, x: &[f32]) -> Vec<f64> {
    let s = network.input_shape();
    match network.layout {
        Layout::Nchw => x.iter().map(|&v| v as f64).collect(),
        Layout::Nhwc => (0..s.len()).map(|i| x[(i % s.area()) * s.c + i / s.area()] as f64).collect(),
    }
}

/// What the graph does with the output node's tensor.
pub fn with_head(head: Head, mut y: Vec<f64>) -> Vec<f64> {
    match head {
        Head::None => y,
        Head::Sigmoid => y.into_iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect(),
        Head::Softmax | Head::LogSoftmax => {
            let max = y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = y.iter().map(|v| (v - max).exp()).sum::<f64>().ln() + max;
            y.iter_mut().for_each(|v| *v -= log_sum);
            if head == Head::Softmax { y.into_iter().map(f64::exp).collect() } else { y }
        }
        Head::ArgMax => {
            let best = (0..y.len()).fold(0, |b, i| if y[i] > y[b] { i } else { b });
            vec![best as f64]
        }
    }
}

/// One model of tests/reference/operators.bin.
pub struct Case {
    pub name: String,
    pub model: Vec<u8>,
    /// Nodes that the network should have, negative for any number.
    pub nodes: i32,
    /// In the file's layout.
    pub input: Vec<f32>,
    pub output: Vec<f32>,
}

/// The records of tests/reference/operators.bin: five parts each, every part after its length (u32).
pub fn read_cases() -> Vec<Case> {
    let bytes = std::fs::read(local("tests/reference/operators.bin")).expect("tests/reference/operators.bin");
    let mut rest = bytes.as_slice();
    let mut part = || -> Option<Vec<u8>> {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let (part, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        rest = after;
        Some(part.to_vec())
    };
    let floats = |b: Vec<u8>| b.as_chunks::<4>().0.iter().map(|&c| f32::from_le_bytes(c)).collect();
    let mut cases = Vec::new();
    while let Some(name) = part() {
        cases.push(Case {
            name: String::from_utf8(name).expect("name"),
            model: part().expect("model"),
            nodes: i32::from_le_bytes(part().expect("nodes").try_into().expect("four bytes")),
            input: floats(part().expect("input")),
            output: floats(part().expect("output")),
        });
    }
    cases
}

/// A conversion with the usual choices for `chip`, T = 16, that is not slow.
pub fn options(chip: Chip) -> Options {
    Options {
        chip,
        steps: 16,
        schedule: Schedule::Streaming,
        response: Response::Measured,
        settle: Settle::Repeated(vec![1]),
        initial: Initial::Calibrated,
        targets: Targets::Linear,
        offset: true,
        equalize: true,
        method: "descent".parse().unwrap(),
        keep: Keep::parse(&[]).unwrap(),
        prune: Choose::Optimal,
        refine: true,
        tune: 0,
        sparse: Default::default(),
        ridge: Ridge::Fixed(1e-2),
        noise: NoiseUse::Off,
        remainder: 2,
        population: Populations { rectified: 1, curved: 4 },
        decides: false,
        batch_bytes: 16 << 20,
        host_bytes: None,
        seed: 0,
    }
}
