//! Every operator and attribute that the reader knows, one small model each, against onnxruntime
//! (tests/reference/operators.bin, written by tests/reference/make.py).

mod common;

use common::{local, read_cases, reference, relative_error, to_chw, with_head};
use synfit::network;

#[test]
fn operators_agree_with_onnxruntime() {
    let folder = local("tests/reference/external");
    let mut failures = Vec::new();
    let cases = read_cases();
    for case in &cases {
        let network = match network::from_bytes(&case.name, &case.model, Some(&folder)) {
            Ok(network) => network,
            Err(e) => {
                failures.push(e.to_string());
                continue;
            }
        };
        let y = with_head(network.head, reference::output(&network, &to_chw(&network, &case.input)));
        let expected: Vec<f64> = case.output.iter().map(|&v| v as f64).collect();
        // Half precision rounds in onnxruntime itself.
        let tolerance = if case.name.contains("float16") { 2e-3 } else { 1e-5 };
        let error = if y.len() == expected.len() { relative_error(&y, &expected) } else { f64::INFINITY };
        if error.is_nan() || error > tolerance {
            failures.push(format!(
                "{}: relative error {error:.1e}, {} and {} outputs",
                case.name,
                y.len(),
                expected.len()
            ));
        }
        if case.nodes >= 0 && network.nodes.len() != case.nodes as usize {
            let names: Vec<_> = network.nodes.iter().map(|n| &n.name).collect();
            failures.push(format!("{}: {} nodes, {} expected: {names:?}", case.name, network.nodes.len(), case.nodes));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() > 100, "the table is cut short");
}
