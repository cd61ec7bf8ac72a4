//! A chip's description: what its synapses, neurons and states can hold. One TOML file a chip; the built-in ones are
//! configs/chips/*.toml. A field that a file leaves out means "no limit".

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Grid, ScaleOwner};
use crate::error::{Error, Result};
use crate::neuron::Model;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chip {
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// Where the figures come from.
    #[serde(default)]
    pub source: String,
    #[serde(default)]
    pub weights: WeightRules,
    pub neuron: Model,
    #[serde(default)]
    pub state: StateRules,
    #[serde(default)]
    pub capacity: Capacity,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightRules {
    /// None: real-valued synapses.
    #[serde(default)]
    pub grid: Option<Grid>,
    #[serde(default)]
    pub scale: ScaleOwner,
    /// Scales, in thresholds, are powers of two: codes are shifted, and thresholds cannot make up for it.
    #[serde(default)]
    pub scale_power_of_two: bool,
}

/// Widths of a neuron's integers, sign included for potential and bias.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateRules {
    pub potential_bits: u32,
    pub threshold_bits: u32,
    pub bias_bits: u32,
}

impl Default for StateRules {
    fn default() -> Self {
        Self { potential_bits: 32, threshold_bits: 31, bias_bits: 32 }
    }
}

/// Most of each that the chip holds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    pub neurons: Option<u64>,
    pub synapses: Option<u64>,
    /// Presynaptic neurons of one neuron.
    pub fan_in: Option<u64>,
}

const BUILT_IN: &[(&str, &str)] = &[
    ("generic8", include_str!("../../configs/chips/generic8.toml")),
    ("lif8", include_str!("../../configs/chips/lif8.toml")),
    ("float", include_str!("../../configs/chips/float.toml")),
];

impl Chip {
    /// A built-in chip by name, or a file.
    ///
    /// # Errors
    /// Unknown name, unreadable file, unknown or impossible field: all name the chip or file and the field.
    pub fn load(name_or_file: &str) -> Result<Chip> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_file) {
            return Self::parse(name_or_file, text);
        }
        let path = Path::new(name_or_file);
        if !path.exists() {
            let known: Vec<&str> = Self::built_in().collect();
            return Err(Error::input(
                format!("chip `{name_or_file}`"),
                format!("no such file, and no built-in chip of that name (there are: {})", known.join(", ")),
            ));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::input(name_or_file, e.to_string()))?;
        Self::parse(name_or_file, &text)
    }

    /// Names of the built-in chips, the default one first.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    fn parse(file: &str, text: &str) -> Result<Chip> {
        let chip: Chip = toml::from_str(text).map_err(|e| Error::input(file, one_line(&e)))?;
        chip.check().map_err(|e| e.within(file))?;
        Ok(chip)
    }

    fn check(&self) -> Result<()> {
        self.neuron.validate()?;
        if let Some(grid) = &self.weights.grid {
            grid.check().map_err(|e| e.within("weights.grid"))?;
        }
        for (field, bits) in [
            ("state.potential_bits", self.state.potential_bits),
            ("state.threshold_bits", self.state.threshold_bits),
            ("state.bias_bits", self.state.bias_bits),
        ] {
            if !(4..=32).contains(&bits) {
                return Err(Error::input(field, format!("{bits} is outside 4..=32")));
            }
        }
        Ok(())
    }

    /// Lowest and highest potential in the neuron's integer units.
    pub fn potential(&self) -> (i32, i32) {
        let top = (1i64 << (self.state.potential_bits - 1)) - 1;
        (-top as i32, top as i32)
    }
}

/// A TOML error in one line: where and what.
fn one_line(e: &toml::de::Error) -> String {
    e.to_string().lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
}
