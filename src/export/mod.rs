//! The result as files that other tools read.

pub mod checkpoint;
pub mod safetensors;
