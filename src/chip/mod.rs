//! What a target can hold.

mod description;
mod grid;

pub use description::{Capacity, Chip, StateRules, WeightRules};
pub use grid::{Grid, ScaleOwner};
