//! What a network costs on its chip: cores, synapse memory, spikes and synaptic operations, and energy where a source gives
//! a figure for one operation.

use serde::{Deserialize, Serialize};

use crate::chip::place::Placement;
use crate::chip::{Chip, Energy};
use crate::compare::TestRecord;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Cores or arrays taken, and those there are; null where the chip has none that synfit knows of.
    pub cores: Option<u64>,
    pub cores_there: Option<u64>,
    /// Synapses as the chip stores them: of cores that hold neurons, every position of a convolution has its own.
    pub stored_synapses: u64,
    /// By the chip's own formula; null where it is unknown.
    pub synapse_memory_bits: Option<u64>,
    pub spikes_per_image: f64,
    pub synops_per_image: f64,
    /// Null unless a source gives picojoules of an operation. Only what its figures cover: no idle power, no input.
    pub energy: Option<EnergyRecord>,
    /// What of the chip the simulation leaves out.
    #[serde(default)]
    pub not_simulated: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnergyRecord {
    pub picojoules_per_image: f64,
    /// Picojoules of one synaptic operation, and of one spike.
    pub synaptic_operation: Option<f64>,
    pub spike: Option<f64>,
    pub source: String,
}

impl Cost {
    pub fn of(chip: &Chip, placement: &Placement, test: &TestRecord) -> Self {
        let limited = placement.layers.iter().any(|l| !l.limit.is_empty());
        let bits: Option<Vec<u64>> = placement.layers.iter().map(|l| l.memory_bits).collect();
        Self {
            cores: limited.then_some(placement.cores),
            cores_there: chip.chip.cores,
            stored_synapses: placement.layers.iter().map(|l| l.synapses).sum(),
            synapse_memory_bits: bits.map(|b| b.iter().sum()),
            spikes_per_image: test.spikes_per_image,
            synops_per_image: test.synops_per_image,
            energy: energy(chip, test),
            not_simulated: chip.dynamics.not_simulated.clone(),
        }
    }

    /// One line.
    pub fn summary(&self, chip: &str) -> Option<String> {
        let mut parts = Vec::new();
        match (self.cores, self.cores_there) {
            (Some(n), Some(there)) => parts.push(format!("{n} of {there} cores")),
            (Some(n), None) => parts.push(format!("{n} cores or arrays")),
            (None, _) => {}
        }
        if let Some(bits) = self.synapse_memory_bits {
            parts.push(format!("{:.1} KB of synapse memory", bits as f64 / 8192.0));
        }
        if let Some(energy) = &self.energy {
            let unit =
                format!("{:.3} uJ an image for its operations ({})", energy.picojoules_per_image / 1e6, energy.source);
            parts.push(unit);
        }
        (!parts.is_empty()).then(|| format!("on {chip}: {}", parts.join(", ")))
    }
}

fn energy(chip: &Chip, test: &TestRecord) -> Option<EnergyRecord> {
    let Energy { synaptic_operation, spike } = chip.energy;
    // without the one figure that nearly all of it goes to, a sum says nothing
    let each = synaptic_operation?;
    let picojoules = each * test.synops_per_image + spike.unwrap_or(0.0) * test.spikes_per_image;
    let source = chip.origins.iter().find(|o| o.table == "energy")?.source.clone()?;
    Some(EnergyRecord { picojoules_per_image: picojoules, synaptic_operation, spike, source })
}
