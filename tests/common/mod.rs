//! The harness that the integration tests share.
#![allow(dead_code)]

pub mod reference;

use std::path::PathBuf;

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
