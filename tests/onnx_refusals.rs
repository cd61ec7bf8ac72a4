//! What cannot be lowered is refused in one clear line that names file, node and operator; damaged files never panic.

mod common;

use common::{data, local};
use proptest::prelude::*;
use synfit::error::Kind;
use synfit::network;

/// (name, model, words that the error must hold, separated by |) from tests/reference/refusals.bin.
fn cases() -> Vec<(String, Vec<u8>, String)> {
    let bytes = std::fs::read(local("tests/reference/refusals.bin")).expect("tests/reference/refusals.bin");
    let mut parts = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (part, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        parts.push(part.to_vec());
        rest = after;
    }
    let text = |b: &Vec<u8>| String::from_utf8(b.clone()).expect("text");
    parts.chunks(3).map(|p| (text(&p[0]), p[1].clone(), text(&p[2]))).collect()
}

#[test]
fn what_cannot_be_lowered_is_named() {
    let folder = local("tests/reference/external");
    let cases = cases();
    assert!(cases.len() > 50);
    let mut failures = Vec::new();
    for (name, model, words) in cases {
        match network::from_bytes(&format!("{name}.onnx"), &model, Some(&folder)) {
            Ok(_) => failures.push(format!("{name}: was accepted")),
            Err(e) => {
                let line = e.to_string();
                let right = words.split('|').all(|w| line.contains(w));
                if !right
                    || e.kind != Kind::Input
                    || !line.starts_with(&format!("{name}.onnx: "))
                    || line.contains('\n')
                {
                    failures.push(format!("{name}: expected {words:?}, got: {line}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn unsupported_networks_are_refused_by_node_and_operator() {
    let Some(folder) = data("networks") else { return };
    for (file, words) in [
        ("unsupported_unet_upsample.onnx", r#"node "ConvTranspose_16" (ConvTranspose)"#),
        ("unsupported_mscn_128d.onnx", r#"node "Mul_39" (Mul)"#),
    ] {
        let error = network::read(&folder.join(file)).expect_err(file).to_string();
        assert!(error.starts_with(file) && error.contains(words) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = network::read(&local("nowhere.onnx")).expect_err("missing");
    assert!(error.kind == Kind::Input && error.subject.ends_with("nowhere.onnx"), "{error}");
}

/// The weights are most of the file; damage the rest too.
fn digits() -> Vec<u8> {
    std::fs::read(local("configs/digits/digits_cnn.onnx")).expect("configs/digits/digits_cnn.onnx")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn truncated_files_are_errors(at in 0usize..95_000) {
        let bytes = digits();
        prop_assume!(at < bytes.len());
        prop_assert!(network::from_bytes("cut.onnx", &bytes[..at], None).is_err());
    }

    /// Any answer will do, but there must be one.
    #[test]
    fn damaged_files_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), start in any::<bool>()) {
        let mut bytes = digits();
        for (index, byte) in changes {
            // Half of the cases damage the structure (the nodes stand first), half anything.
            let n = if start { 4096 } else { bytes.len() };
            bytes[index.index(n)] = byte;
        }
        let _ = network::from_bytes("damaged.onnx", &bytes, None);
    }

    #[test]
    fn damaged_operators_never_panic(case in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let cases = common::read_cases();
        let mut bytes = cases[case.index(cases.len())].model.clone();
        for (index, byte) in changes {
            let n = bytes.len();
            bytes[index.index(n)] = byte;
        }
        let _ = network::from_bytes("damaged.onnx", &bytes, None);
    }
}
