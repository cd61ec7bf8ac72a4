//! What a target can hold: descriptions of chips, and whether a network fits one.

mod capacity;
mod convertible;
mod demand;
mod description;
mod file;
mod grid;
mod noise;
pub mod place;
pub mod rules;
mod weights;

pub use capacity::{ArrayLimits, ChipLimits, CoreLimits, Energy, LayerLimits, Layout, SynapseMemory};
pub use convertible::{FitRules, fit_rules};
pub use demand::{BlockNeed, Demand, LayerNeed, Most};
pub use description::{Chip, Dynamics, Leak, StateRules, ThresholdOwner};
pub use file::Origin;
pub use grid::{Grid, ScaleOwner};
pub use noise::{PairNoise, Programming};
pub use weights::{ChosenBy, Conductance, Owner, PaletteRule, Shared, SignOwner, SubsetSum, WeightRules};
