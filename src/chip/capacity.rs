//! How much a chip holds, of what, and in which arrangement. What is left out has no limit.

use serde::{Deserialize, Serialize};

use super::weights::Wrong;

/// How layers come onto cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A core holds any neurons, each with all of its synapses; layers are cut into tiles.
    #[default]
    Neurons,
    /// A core holds one layer, whose positions share their weights.
    Layers,
    /// An array holds a block of a layer's weight matrix; positions follow each other in time.
    Arrays,
}

/// Limits of the whole chip.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChipLimits {
    pub layout: Layout,
    pub cores: Option<u64>,
    pub neurons: Option<u64>,
    pub synapses: Option<u64>,
    /// Values of the network's input and output.
    pub inputs: Option<u64>,
    pub outputs: Option<u64>,
    /// Whether a spike that belongs to the winner of a window can be told (max pooling).
    pub max_pool: Option<bool>,
}

/// Limits of a core that holds neurons.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoreLimits {
    pub neurons: Option<u64>,
    /// Presynaptic neurons of one neuron.
    pub fan_in: Option<u64>,
    /// Presynaptic neurons of all neurons of a core.
    pub axons_in: Option<u64>,
    /// Pairs of a neuron and a core that it reaches.
    pub axons_out: Option<u64>,
    /// Cores that one neuron reaches.
    pub destinations: Option<u64>,
    /// Synapses of one presynaptic neuron, on the whole chip.
    pub fan_out: Option<u64>,
    pub synapses: Option<u64>,
    pub memory: Option<SynapseMemory>,
}

/// Synapse memory of a core. The weights of one input axon lie in blocks; a block is rounded up to whole words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynapseMemory {
    pub bits: u64,
    pub weight_bits: u64,
    /// Weights of one block; 0: no blocks, bit after bit.
    #[serde(default)]
    pub block_weights: u64,
    /// Bits of a block beside its weights.
    #[serde(default)]
    pub block_bits: u64,
    #[serde(default = "one")]
    pub word_bits: u64,
    /// Widths that a weight's target can be written in, rising, where an axon does not reach all neurons of its core.
    #[serde(default)]
    pub index_bits: Vec<u64>,
}

fn one() -> u64 {
    1
}

impl SynapseMemory {
    /// Bits of one axon with `weights` synapses, on a core of `neurons`.
    pub fn axon(&self, weights: u64, neurons: u64) -> u64 {
        let index = if weights < neurons {
            let need = u64::from(neurons.max(1).next_power_of_two().ilog2());
            self.index_bits.iter().copied().find(|bits| *bits >= need).unwrap_or(if self.index_bits.is_empty() {
                0
            } else {
                need
            })
        } else {
            0
        };
        let width = self.weight_bits + index;
        if self.block_weights == 0 {
            return weights * width;
        }
        let block = |weights: u64| (weights * width + self.block_bits).next_multiple_of(self.word_bits);
        let (whole, rest) = (weights / self.block_weights, weights % self.block_weights);
        whole * block(self.block_weights) + if rest > 0 { block(rest) } else { 0 }
    }
}

/// Limits of a core that holds a layer. Memories are in words, one entry a core or one for all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LayerLimits {
    pub weight_memory: Vec<u64>,
    pub neuron_memory: Vec<u64>,
    pub bias_memory: Vec<u64>,
    /// Weights are addressed by powers of two: c * 2^(ceil log2(kx ky) + ceil log2 f) words for c input channels, f output
    /// channels and a kernel of kx by ky. Otherwise each takes a word.
    pub padded_addresses: bool,
    /// Bits of a weight and of a word of weight memory: how many weights share one.
    pub weight_bits: Option<u64>,
    pub word_bits: Option<u64>,
    /// Largest side of a kernel, and whether both sides must be alike.
    pub kernel: Option<u64>,
    pub square_kernel: bool,
    pub channels: Option<u64>,
    /// Groups of a convolution, and distance of its taps: 1 for none.
    pub groups: Option<u64>,
    pub dilation: Option<u64>,
    /// Largest side of a layer's input and output.
    pub input: Option<u64>,
    pub output: Option<u64>,
    /// What a stride, or the side of a sum pooling window, may be; empty: anything.
    pub strides: Vec<u64>,
    pub pools: Vec<u64>,
    pub padding: Option<u64>,
    /// Layers that one layer may feed.
    pub destinations: Option<u64>,
    /// Kernels of one layer: 1 where branches with weights of their own cannot be added up in a core.
    pub kernels: Option<u64>,
    /// Whether a layer may be cut by output channels over several cores.
    pub split: bool,
}

/// Limits of an array of devices.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArrayLimits {
    pub rows: Option<u64>,
    pub columns: Option<u64>,
    /// Columns that a weight takes: 2 for a pair.
    pub columns_per_weight: Option<u64>,
    /// Whether the currents of several arrays can be added up, so that a neuron may have more inputs than rows.
    pub partial_sums: bool,
}

/// What the chip spends; only what a source says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Energy {
    /// Picojoules of one synaptic operation.
    pub synaptic_operation: Option<f64>,
    /// Picojoules of one spike that leaves a neuron.
    pub spike: Option<f64>,
}

pub(super) fn check(core: &CoreLimits, layer: &LayerLimits, array: &ArrayLimits) -> Result<(), Wrong> {
    let positive = |field: &'static str, value: Option<u64>| match value {
        Some(0) => Err((field, "must be at least 1".to_string())),
        _ => Ok(()),
    };
    positive("core.neurons", core.neurons)?;
    positive("core.fan_in", core.fan_in)?;
    positive("core.axons_in", core.axons_in)?;
    positive("array.rows", array.rows)?;
    positive("array.columns", array.columns)?;
    positive("array.columns_per_weight", array.columns_per_weight)?;
    positive("layer.weight_bits", layer.weight_bits)?;
    positive("layer.word_bits", layer.word_bits)?;
    if let Some(memory) = &core.memory
        && (memory.word_bits == 0 || memory.weight_bits == 0)
    {
        return Err(("core.memory", "needs weight_bits and word_bits of at least 1".into()));
    }
    Ok(())
}
