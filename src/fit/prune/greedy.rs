//! Removal one after the other: by the exact cost, or in a given order for comparison. The removals are nested, so that
//! one run gives the whole curve of cost over size.

use serde::{Deserialize, Serialize};

use super::Pruner;
use crate::error::Result;

/// One step of a nested sequence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Removal {
    pub node: usize,
    /// What this and all removals before it cost together.
    pub cost: f64,
}

impl Pruner {
    /// Removes the cheapest node until `keep` of them remain.
    ///
    /// # Errors
    /// As `cost_of`.
    pub fn greedy(&mut self, keep: usize) -> Result<Vec<Removal>> {
        let mut steps = vec![];
        let mut left = self.those(true);
        while left.len() > keep {
            let costs = self.costs_of(&left)?;
            let cheapest = lowest(&costs);
            let node = left.remove(cheapest);
            self.remove(node)?;
            steps.push(Removal { node, cost: self.cost });
        }
        Ok(steps)
    }

    /// Removes the kept node with the lowest `score` (one per node; the first on a tie) until `keep` remain.
    ///
    /// # Errors
    /// As `cost_of`.
    pub fn by_score(&mut self, score: &[f64], keep: usize) -> Result<Vec<Removal>> {
        let mut order = self.those(true);
        order.sort_by(|&a, &b| score[a].total_cmp(&score[b]));
        let gone = order.len().saturating_sub(keep);
        order[..gone]
            .iter()
            .map(|&node| {
                self.remove(node)?;
                Ok(Removal { node, cost: self.cost })
            })
            .collect()
    }
}

/// Index of the lowest value, the first on a tie.
pub(super) fn lowest(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] < values[best] { i } else { best })
}
