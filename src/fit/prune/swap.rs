//! Swap moves: a node that is gone for one that is kept, wherever that lowers the cost.

use rayon::prelude::*;

use super::Pruner;
use super::greedy::lowest;
use super::state::Return;
use crate::error::Result;

/// A swap must gain this share of the cost: less is rounding.
const GAIN: f64 = 1e-9;
/// Rounds over all nodes, as a last resort; every swap lowers the cost, so that the search ends by itself.
const ROUNDS: usize = 100;

impl Pruner {
    /// Swaps until no swap helps. Returns how many it made.
    ///
    /// # Errors
    /// As `cost_of`.
    pub fn swap(&mut self) -> Result<usize> {
        let mut swaps = 0;
        for _ in 0..ROUNDS {
            let before = swaps;
            for node in self.those(false) {
                swaps += usize::from(self.swap_for(node)?);
            }
            if swaps == before {
                break;
            }
            self.refit()?;
        }
        Ok(swaps)
    }

    /// Puts `node` in the place of the one that is then cheapest to remove, if that helps.
    fn swap_for(&mut self, node: usize) -> Result<bool> {
        let back = self.consumers.iter().map(|c| c.returning(node)).collect::<Result<Vec<Option<Return>>>>()?;
        let gain: f64 = back.iter().flatten().map(|r| r.gain).sum();
        let left = self.those(true);
        let cost = |&v: &usize| -> Result<f64> {
            self.consumers.iter().zip(&back).map(|(c, back)| c.cost_after(back.as_ref(), v)).sum()
        };
        let costs = left.par_iter().map(cost).collect::<Result<Vec<f64>>>()?;
        let Some(&cost) = costs.get(lowest(&costs)) else { return Ok(false) };
        if gain - cost <= GAIN * self.cost {
            return Ok(false);
        }
        for (consumer, back) in self.consumers.iter_mut().zip(&back) {
            if let Some(back) = back {
                consumer.restore(node, back);
            }
        }
        self.kept[node] = true;
        self.cost -= gain;
        self.remove(left[lowest(&costs)])?;
        Ok(true)
    }
}
