//! The result as files that other tools read.

pub mod checkpoint;
mod graph;
pub mod nir;
pub mod safetensors;
