//! What a chip's synapses can hold: the values of a stored weight, who owns its sign and its scale. METHOD section 5.

use serde::{Deserialize, Serialize};

use super::{Grid, Programming, ScaleOwner};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightRules {
    /// Levels of a weight in units of its scale; magnitudes where the sign is not the weight's own. None: real-valued.
    #[serde(default)]
    pub grid: Option<Grid>,
    /// Real weights within these limits, in thresholds per spike.
    #[serde(default)]
    pub range: Option<[f64; 2]>,
    #[serde(default)]
    pub palette: Option<PaletteRule>,
    #[serde(default)]
    pub subset_sum: Option<SubsetSum>,
    #[serde(default)]
    pub conductance: Option<Conductance>,
    /// What programming makes of `conductance`.
    #[serde(default)]
    pub programming: Option<Programming>,
    #[serde(default)]
    pub sign: SignOwner,
    /// Who owns the weights' scale.
    #[serde(default)]
    pub scale: Owner,
    /// Scales are powers of two: codes are shifted.
    #[serde(default)]
    pub scale_power_of_two: bool,
    /// Least and largest shift of a code on its way to the potential, whose unit is the threshold's; [0, 0]: none.
    #[serde(default)]
    pub shifts: Option<[u32; 2]>,
    /// Thresholds, or biases, are in units of the same scale.
    #[serde(default)]
    pub scale_shared_with: Vec<Shared>,
    /// A spike costs an operation of a weight of zero, too: the chip goes through whole kernels or rows. Left out: it costs
    /// none.
    #[serde(default)]
    pub zero_costs: bool,
}

/// Who shares one scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    Layer,
    /// The synapses between two layers.
    Matrix,
    Core,
    #[default]
    Channel,
    Neuron,
}

impl From<ScaleOwner> for Owner {
    fn from(owner: ScaleOwner) -> Self {
        match owner {
            ScaleOwner::Layer => Owner::Layer,
            ScaleOwner::Channel => Owner::Channel,
            ScaleOwner::Neuron => Owner::Neuron,
        }
    }
}

/// Whose property the sign of a stored weight is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignOwner {
    /// Every weight has its own.
    #[default]
    Weight,
    /// A row of synapses: all weights of one input of a core.
    Row,
    /// The neuron that the spikes come from (Dale's law).
    Source,
    /// Every synapse is of one of two types, excitatory or inhibitory.
    SynapseType,
    /// A pair of devices or rows, one for either sign: the weight is their difference.
    Pair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    Bias,
    Threshold,
}

/// Every neuron has this many weights of its own, and a type of each input says which of them a spike adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaletteRule {
    pub values: u32,
    /// Of a value, with its sign.
    pub bits: u32,
    /// Who chooses among a neuron's values: the weight itself, or its source's type, alike for all neurons of a core.
    pub chosen_by: ChosenBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChosenBy {
    Weight,
    AxonType,
}

/// A weight is a sum of some of these base values, which a core shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubsetSum {
    pub currents: u32,
}

/// A weight is the difference of two conductances, each one of `levels` even steps from `lowest` to `highest`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conductance {
    /// Microsiemens.
    pub highest: f64,
    pub lowest: f64,
    /// 2 to 256.
    pub levels: u32,
}

/// A wrong field and why.
pub type Wrong = (&'static str, String);

impl WeightRules {
    /// Field and reason of what cannot be.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let kinds = [
            self.grid.is_some(),
            self.range.is_some(),
            self.palette.is_some(),
            self.subset_sum.is_some(),
            self.conductance.is_some(),
        ];
        if kinds.iter().filter(|k| **k).count() > 1 {
            return Err(("weights", "has more than one of grid, range, palette, subset_sum, conductance".into()));
        }
        if let Some(grid) = &self.grid {
            grid.check().map_err(|e| ("weights.grid", format!("{}: {}", e.subject, e.message)))?;
            let magnitudes = self.sign != SignOwner::Weight;
            if magnitudes && !grid.is_unsigned() {
                return Err(("weights.grid", "has signs of its own, and weights.sign gives them to another".into()));
            }
        }
        if let Some([low, high]) = self.range
            && !(low < high && low.is_finite() && high.is_finite())
        {
            return Err(("weights.range", "must be two finite numbers, the lower one first".into()));
        }
        if let Some(palette) = self.palette
            && !((1..=256).contains(&palette.values) && (2..=16).contains(&palette.bits))
        {
            return Err(("weights.palette", "must have 1 to 256 values of 2 to 16 bits".into()));
        }
        if let Some(subset) = self.subset_sum
            && !(1..=8).contains(&subset.currents)
        {
            return Err(("weights.subset_sum", "must have 1 to 8 currents".into()));
        }
        if let Some(c) = self.conductance {
            if !(c.lowest >= 0.0 && c.lowest < c.highest && c.highest.is_finite()) {
                return Err(("weights.conductance", "must have 0 <= lowest < highest".into()));
            }
            if !(2..=256).contains(&c.levels) {
                return Err(("weights.conductance", "must have 2 to 256 levels".into()));
            }
        }
        self.check_programming()?;
        match self.shifts {
            Some([low, high]) if low > high || high > 24 => {
                Err(("weights.shifts", "must be two of 0..=24, the lower one first".into()))
            }
            _ => Ok(()),
        }
    }

    /// The levels of a weight with its sign: the grid, or the magnitudes of a grid on either side of zero where a synapse
    /// type or a pair gives each weight its sign, or the differences of a pair of conductances, or what each of a neuron's
    /// own values can be, or sums of base currents that are set to 1, 2, 4 ... units.
    pub fn signed_grid(&self) -> Option<Grid> {
        match (&self.grid, self.conductance, self.sign) {
            (Some(grid), _, SignOwner::SynapseType | SignOwner::Pair) => Some(grid.with_signs()),
            (Some(grid), ..) => Some(grid.clone()),
            (None, Some(c), _) if c.levels.is_power_of_two() => Some(Grid::Symmetric { bits: c.levels.ilog2() + 1 }),
            (None, Some(c), _) => {
                let top = f64::from(c.levels - 1);
                Grid::from_levels((0..2 * c.levels - 1).map(|k| f64::from(k) - top).collect()).ok()
            }
            (None, None, _) if self.palette.is_some() => self.palette.map(|p| Grid::Uniform { bits: p.bits }),
            (None, None, sign) => self.subset_sum.map(|subset| {
                let sums = Grid::Unsigned { bits: subset.currents };
                if matches!(sign, SignOwner::SynapseType | SignOwner::Pair) { sums.with_signs() } else { sums }
            }),
        }
    }
}
