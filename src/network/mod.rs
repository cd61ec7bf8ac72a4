//! The trained network: ONNX reader, lowering to layers, folding passes, data sets.

mod data;
mod fold;
mod layers;
mod lower;
mod onnx;

pub use data::{ChannelOrder, Dataset, Preprocess, read_labels};
pub use layers::{Activation, Block, Head, Layout, Network, Node, Op, Shape, Window, is_shortcut, last_uses};
pub use lower::{from_bytes, read};
