//! Blocks of a weight matrix on arrays of devices: rows are inputs, columns outputs.

use super::{Placed, Placement, Unplaced};
use crate::chip::{Chip, Demand};

pub fn place(chip: &Chip, demand: &Demand<'_>) -> Placement {
    let limits = &chip.array;
    let per_weight = limits.columns_per_weight.unwrap_or(1);
    let mut placement = Placement::default();
    for layer in &demand.layers {
        let groups = layer.groups as u64;
        let (inputs, outputs) = (layer.fan_in, layer.shape.c as u64 / groups * per_weight);
        let (rows, columns) = (limits.rows.unwrap_or(inputs), limits.columns.unwrap_or(outputs));
        // an output's columns stay together
        let columns = columns / per_weight * per_weight;
        if columns == 0 {
            let why = format!("a weight takes {per_weight} columns, an array has {}", limits.columns.unwrap_or(0));
            placement.unplaced.push(Unplaced { layer: layer.name.clone(), why });
            continue;
        }
        let (down, across) = (inputs.div_ceil(rows), outputs.div_ceil(columns));
        if down > 1 && !limits.partial_sums {
            let why = format!("{inputs} inputs, an array has {rows} rows and currents of arrays are not added up");
            placement.unplaced.push(Unplaced { layer: layer.name.clone(), why });
            continue;
        }
        let cores = down * across * groups;
        let used = [(inputs.min(rows), limits.rows, "rows"), (outputs.min(columns), limits.columns, "columns")];
        let (fullest, limit) = super::fullest(&used);
        placement.cores += cores;
        placement.layers.push(Placed {
            layer: layer.name.clone(),
            cores,
            fullest,
            limit,
            split: (cores > 1).then(|| {
                let part = |n: u64, what: &str| if n > 1 { format!("{n} blocks of {what}") } else { String::new() };
                let each = [part(groups, "channel groups"), part(down, "inputs"), part(across, "outputs")];
                each.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" x ")
            }),
            synapses: layer.weights,
            memory_bits: None,
            reaches: 0,
        });
    }
    placement
}
