//! The harness that the integration tests share.
#![allow(dead_code)]

pub mod reference;

use std::path::PathBuf;

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
