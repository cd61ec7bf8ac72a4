//! The harness of the kernel tests: both devices, random data and shapes, f64 references.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::sync::OnceLock;

use proptest::prelude::*;
use synfit::compute::{Choice, Device};
use synfit::network::{Shape, Window};

/// The GPU (a software one will do) and the CPU. Kernel tests never skip: no adapter is a failure.
pub fn devices() -> &'static [Device; 2] {
    static DEVICES: OnceLock<[Device; 2]> = OnceLock::new();
    DEVICES.get_or_init(|| {
        [Device::open(Choice::Gpu).expect("the tests need an adapter: install mesa-vulkan-drivers"), Device::cpu()]
    })
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
