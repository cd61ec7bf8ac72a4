//! What a conversion fits for a chip: its constraint kinds as the solver states them, or which of them it cannot yet.

use super::weights::{ChosenBy, Owner};
use super::{Chip, Grid, Leak, ScaleOwner, Shared, SignOwner, ThresholdOwner};
use crate::error::{Error, Result};

/// The constraints of a layer problem.
#[derive(Debug, Clone, PartialEq)]
pub struct FitRules {
    /// Of signed weights; magnitudes where the source owns the sign. None: real-valued.
    pub grid: Option<Grid>,
    pub range: Option<[f64; 2]>,
    /// Every input has one of so many types, every neuron a level of the grid for each, and a weight is the one of its
    /// input's type, or zero.
    pub types: Option<usize>,
    /// All weights of one source neuron have one sign.
    pub sign_of_source: bool,
    /// Who owns the number of thresholds that a code is worth: a scale that its neurons do not own is still theirs where
    /// they own their thresholds.
    pub owner: ScaleOwner,
    pub power_of_two: bool,
    /// Least and largest shift of a code; none where it is unknown whether there is one.
    pub shifts: Option<[u32; 2]>,
}

/// # Errors
/// Input: one line that says which of the chip's constraints a conversion cannot keep.
pub fn fit_rules(chip: &Chip) -> Result<FitRules> {
    let weights = &chip.weights;
    let missing = |why: &str| Err(Error::input(format!("chip {}", chip.name), why));
    if chip.is_unknown("weights.grid") {
        return missing("what its weights can hold is unknown (weights.grid); say what to fit with --bits");
    }
    if chip.dynamics.leak == Leak::Shift && chip.neuron.dash == 0 {
        return missing("its neuron always leaks by a shift (dynamics.leak): neuron.dash must say by which");
    }
    if chip.neuron.dash > 0 && weights.signed_grid().is_none() {
        return missing("its neuron leaks by shifts, which real weights (no weights.grid) have no integers for");
    }
    let types = weights.palette.filter(|p| p.chosen_by == ChosenBy::AxonType);
    if weights.palette.is_some() && types.is_none() {
        return missing(
            "values of a neuron's own, chosen by each weight (weights.palette), cannot be converted to yet; see \
             `synfit solve --palette`",
        );
    }
    if weights.sign == SignOwner::Row {
        return missing("signs that belong to rows of synapses (weights.sign) cannot be converted to yet");
    }
    let shared = weights.scale_shared_with.contains(&Shared::Threshold);
    let own_threshold = chip.state.threshold == Some(ThresholdOwner::Neuron) && !shared;
    let owner = match weights.scale {
        _ if own_threshold => ScaleOwner::Channel,
        Owner::Channel => ScaleOwner::Channel,
        Owner::Neuron => ScaleOwner::Neuron,
        // Who shares more than the chip asks for breaks no rule of it: a core's scale is a layer's.
        Owner::Layer | Owner::Matrix | Owner::Core => ScaleOwner::Layer,
    };
    Ok(FitRules {
        grid: weights.signed_grid(),
        types: types.map(|p| p.values as usize),
        range: weights.range,
        sign_of_source: weights.sign == SignOwner::Source,
        owner,
        // a threshold that is chosen apart makes up for the shift
        power_of_two: weights.scale_power_of_two && chip.state.threshold.is_none(),
        shifts: if chip.is_unknown("weights.shifts") { Some([0, 0]) } else { weights.shifts },
    })
}
