//! How strongly a layer's synapses are held to the trained ones: as the job says, or as cross-validation over the
//! calibration images says.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::group::Group;
use super::layer::{Rows, Task};
use super::walk::Walk;
use crate::compute::gram::Sums;
use crate::error::Result;
use crate::fit::{self, Fold};

/// Parts of the calibration images, each held out once.
pub(super) const FOLDS: usize = 4;
/// Inputs up to which a layer's ridge is looked for: it takes some twenty factorizations, and memory for as many Gram
/// matrices as folds.
const MOST_INPUTS: usize = 1152;
/// Where it is not looked for.
const USUAL: f64 = 1e-2;

/// The ridge towards the trained weights, relative to the mean diagonal of H.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ridge {
    /// Of every layer by cross-validation.
    Auto,
    Fixed(f64),
}

impl Ridge {
    /// Where there is nothing to choose by.
    pub fn fixed(self) -> f64 {
        match self {
            Ridge::Auto => USUAL,
            Ridge::Fixed(ridge) => ridge,
        }
    }
}

impl FromStr for Ridge {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Ridge::Auto),
            number => number.parse().map(Ridge::Fixed).map_err(|_| format!("{text} is neither a number nor auto")),
        }
    }
}

impl Serialize for Ridge {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Ridge::Auto => to.serialize_str("auto"),
            Ridge::Fixed(ridge) => to.serialize_f64(*ridge),
        }
    }
}

impl<'de> Deserialize<'de> for Ridge {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Word(String),
        }
        match Written::deserialize(from)? {
            Written::Number(ridge) => Ok(Ridge::Fixed(ridge)),
            Written::Word(word) => word.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl Walk<'_> {
    /// Parts of the images whose sums a layer's survey keeps apart: one if nothing is chosen by them.
    pub(super) fn folds(&self, task: &Task) -> usize {
        let chosen = self.options.ridge == Ridge::Auto && task.inputs() <= MOST_INPUTS;
        if chosen && self.images.len() >= 2 * FOLDS { FOLDS } else { 1 }
    }

    /// The layer's ridge. `folds`: sums of each part over what the trained weights lack of the targets, of the trained
    /// units; empty where there is nothing to choose by.
    pub(super) fn ridge(&self, task: &Task, rows: &Rows, folds: &[Sums]) -> Result<f64> {
        if folds.len() < 2 {
            return Ok(self.options.ridge.fixed());
        }
        let m = task.shape.c / task.groups;
        let of_group = |g: usize| folds.iter().map(|sums| Group::new(task, sums, g, m).fold()).collect();
        let problems: Vec<Vec<Fold>> = (0..task.groups).map(of_group).collect();
        // errors count in thresholds
        let square = |channel: usize| -> f64 {
            rows.gain[channel * rows.population..(channel + 1) * rows.population].iter().map(|g| g * g).sum()
        };
        let weight: Vec<Vec<f64>> = (0..task.groups).map(|g| (g * m..(g + 1) * m).map(square).collect()).collect();
        fit::cross_validated(&problems, &weight)
    }
}
