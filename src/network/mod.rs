//! The trained network: ONNX reader, folding passes, data sets.

mod layers;

pub use layers::{Activation, Block, Head, Layout, Network, Node, Op, Shape, Window, last_uses};
