//! Reads an ONNX file into a plain graph: nodes in topological order (only those that the output needs), constant
//! tensors decoded, attributes by name. What an operator means is not known here; see `lower`.

mod graph;
mod proto;
pub mod tensor;

pub use graph::{Graph, OnnxNode, parse};
pub use tensor::{Tensor, Values};
