//! What a target can hold.

mod grid;

pub use grid::{Grid, ScaleOwner};
