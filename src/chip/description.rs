//! A chip's description: what its synapses, neurons, states and cores can hold. One TOML file a chip; the built-in ones
//! are configs/chips/*.toml, with the source of every table. A field that a file leaves out means "no limit"; one that it
//! calls "unknown" means that nobody could say.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::capacity::{self, ArrayLimits, ChipLimits, CoreLimits, Energy, LayerLimits, Layout};
use super::demand::Most;
use super::file::{ChipFile, Origin};
use super::weights::{WeightRules, Wrong};
use super::{Grid, SignOwner};
use crate::error::{Error, Result};
use crate::neuron::Model;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chip {
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub weights: WeightRules,
    /// The setting of the chip's neuron that a conversion uses.
    pub neuron: Model,
    /// What of the chip's own neuron that setting leaves out, or cannot.
    #[serde(default)]
    pub dynamics: Dynamics,
    #[serde(default)]
    pub state: StateRules,
    #[serde(default)]
    pub core: CoreLimits,
    #[serde(default)]
    pub layer: LayerLimits,
    #[serde(default)]
    pub array: ArrayLimits,
    #[serde(default)]
    pub chip: ChipLimits,
    #[serde(default)]
    pub energy: Energy,
    /// Where the tables come from, and what is unknown; not a table of the file.
    #[serde(skip)]
    pub origins: Vec<Origin>,
}

/// The chip's own neuron, in words and kinds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dynamics {
    /// What the neuron is called.
    pub model: String,
    /// How the potential leaks when the leak is set as weak as it goes.
    pub leak: Leak,
    /// Whether neurons can integrate their first steps of input without firing (`--settle`). Left out: they can.
    pub settle: Option<bool>,
    /// What of the chip a conversion does not imitate (noise, say): said in every report.
    pub not_simulated: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leak {
    /// It can be switched off.
    #[default]
    None,
    /// v <- v - (v >> dash), by at least 1: it never stops.
    Shift,
}

/// Widths of a neuron's integers, sign included for potential and bias.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateRules {
    pub potential_bits: u32,
    /// The potential does not fall below zero.
    pub potential_unsigned: bool,
    pub threshold_bits: u32,
    /// Who owns a threshold that is chosen apart from the weights' scale. None: it follows the scale, whose owner it has.
    pub threshold: Option<ThresholdOwner>,
    pub bias_bits: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdOwner {
    Neuron,
    /// Two neurons share one.
    Pair,
    Layer,
    Core,
}

impl Default for StateRules {
    fn default() -> Self {
        Self { potential_bits: 32, potential_unsigned: false, threshold_bits: 31, threshold: None, bias_bits: 32 }
    }
}

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../configs/chips/", $name, ".toml")))),+]
    };
}

const BUILT_IN: &[(&str, &str)] = built_in![
    "generic8",
    "lif8",
    "float",
    "digital",
    "analog",
    "loihi1",
    "loihi2",
    "truenorth",
    "spinnaker1",
    "spinnaker2",
    "brainscales2",
    "dynapse2",
    "speck",
    "xylo-audio2",
    "xylo-audio3",
    "xylo-imu",
    "akida1000",
    "odin",
    "reckon",
    "rram",
];

impl Chip {
    /// A built-in chip by name, or a file.
    ///
    /// # Errors
    /// Unknown name, unreadable file, unknown or impossible field: all name the chip or file, the line and the field.
    pub fn load(name_or_file: &str) -> Result<Chip> {
        Self::parse(name_or_file, &Self::text(name_or_file)?)
    }

    /// The description as it is written, with its comments and sources.
    ///
    /// # Errors
    /// Input: unknown name, unreadable file.
    pub fn text(name_or_file: &str) -> Result<String> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_file) {
            return Ok((*text).to_string());
        }
        let path = Path::new(name_or_file);
        if !path.exists() {
            let known: Vec<&str> = Self::built_in().collect();
            return Err(Error::input(
                format!("chip `{name_or_file}`"),
                format!("no such file, and no built-in chip of that name (there are: {})", known.join(", ")),
            ));
        }
        std::fs::read_to_string(path).map_err(|e| Error::input(name_or_file, e.to_string()))
    }

    /// Names of the built-in chips, the default one first.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// # Errors
    /// Input: names `file`, the line and the field.
    pub fn parse(file: &str, text: &str) -> Result<Chip> {
        let parsed = ChipFile::parse(file, text)?;
        let mut chip: Chip = parsed.read()?;
        chip.check().map_err(|(field, why)| parsed.wrong(field, why))?;
        chip.neuron.validate().map_err(|e| parsed.wrong("neuron", format!("{}: {}", e.subject, e.message)))?;
        chip.origins = parsed.origins;
        Ok(chip)
    }

    fn check(&self) -> std::result::Result<(), Wrong> {
        self.weights.check()?;
        capacity::check(&self.core, &self.layer, &self.array)?;
        for (field, bits) in [
            ("state.potential_bits", self.state.potential_bits),
            ("state.threshold_bits", self.state.threshold_bits),
            ("state.bias_bits", self.state.bias_bits),
        ] {
            if !(4..=32).contains(&bits) {
                return Err((field, format!("{bits} is outside 4..=32")));
            }
        }
        Ok(())
    }

    /// Another grid instead of what the chip's weights can hold: signed ones have signs of their own.
    pub fn replace_grid(&mut self, grid: Option<Grid>) {
        let unsigned = grid.as_ref().is_some_and(Grid::is_unsigned);
        let sign = if unsigned { self.weights.sign } else { SignOwner::Weight };
        let kept = std::mem::take(&mut self.weights);
        self.weights = WeightRules {
            grid,
            sign,
            range: None,
            palette: None,
            subset_sum: None,
            conductance: None,
            programming: None,
            ..kept
        };
        for origin in self.origins.iter_mut().filter(|o| o.table == "weights") {
            origin.unknown.retain(|field| field != "grid");
        }
    }

    /// Whether a synapse can be left out: a grid without a zero stores one for every input.
    pub fn can_leave_out(&self) -> bool {
        self.weights.signed_grid().is_none_or(|grid| grid.has_zero())
    }

    /// What a neuron with `inputs` is to be pruned to: `core.fan_in`, and where a core's neurons share few input axons,
    /// `core.axons_in` for all of them together. None if it fits, or if pruning cannot help.
    pub fn most_inputs(&self, inputs: u64) -> Option<Most> {
        let fan_in = self.core.fan_in.filter(|most| *most < inputs && self.can_leave_out())?;
        let axons = self.core.axons_in.filter(|axons| *axons < inputs);
        Some(Most { inputs: fan_in.min(axons.unwrap_or(fan_in)), together: axons.is_some() })
    }

    /// Whether it stores synapses one by one, so that those that are left out take no room.
    pub fn stores_sparse(&self) -> bool {
        let listed = self.core.memory.as_ref().is_none_or(|memory| !memory.index_bits.is_empty());
        self.chip.layout == Layout::Neurons && listed
    }

    /// Lowest and highest potential in the neuron's integer units.
    pub fn potential(&self) -> (i32, i32) {
        let top = (1i64 << (self.state.potential_bits - 1)) - 1;
        match self.state.potential_unsigned {
            true => (0, ((1i64 << self.state.potential_bits.min(31)) - 1) as i32),
            false => (-top as i32, top as i32),
        }
    }

    /// Whether its neurons are known to wait for steps of input before they fire.
    pub fn settles(&self) -> bool {
        self.dynamics.settle.unwrap_or(!self.is_unknown("dynamics.settle"))
    }

    /// Fields that the file calls unknown, `table.field`.
    pub fn unknown(&self) -> impl Iterator<Item = String> + '_ {
        self.origins.iter().flat_map(|o| {
            o.unknown.iter().map(|f| if o.table.is_empty() { f.clone() } else { format!("{}.{f}", o.table) })
        })
    }

    pub fn is_unknown(&self, field: &str) -> bool {
        self.unknown().any(|f| f == field)
    }
}
