//! Where layers come to lie: how many cores each takes, how full they are, and how a layer that is too large for one is cut.

mod arrays;
mod layers;
mod tiles;

use serde::Serialize;

use super::{Chip, Demand, Layout};

pub use layers::{bias_words, neuron_words, weight_words};

/// Where one layer lies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Placed {
    pub layer: String,
    /// Cores that hold a part of it.
    pub cores: u64,
    /// The largest share of a core's limit that one of its parts takes, and which limit that is.
    pub fullest: f64,
    pub limit: String,
    /// How it is cut, in words; none where one core holds it.
    pub split: Option<String>,
    /// Synapses that are stored, and bits of synapse memory where the chip's formula is known.
    pub synapses: u64,
    pub memory_bits: Option<u64>,
    /// Cores that the spikes of one neuron reach at the most; 0 where the arrangement does not say.
    pub reaches: u64,
}

/// All layers.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Placement {
    pub layers: Vec<Placed>,
    /// Cores that hold something; parts of several layers may share one.
    pub cores: u64,
    /// Layers of which not even the smallest part fits a core, and why.
    pub unplaced: Vec<Unplaced>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unplaced {
    pub layer: String,
    pub why: String,
}

/// Greedy placement.
pub fn place(chip: &Chip, demand: &Demand<'_>) -> Placement {
    match chip.chip.layout {
        Layout::Neurons => tiles::place(chip, demand),
        Layout::Layers => layers::place(chip, demand),
        Layout::Arrays => arrays::place(chip, demand),
    }
}

/// The largest share of (used, limit, name), and its name.
fn fullest(used: &[(u64, Option<u64>, &str)]) -> (f64, String) {
    let shares = used.iter().filter_map(|(used, limit, name)| limit.map(|l| (*used as f64 / l as f64, *name)));
    let (share, name) = shares.fold((0.0, ""), |best, now| if now.0 > best.0 { now } else { best });
    (share, name.to_string())
}
