//! The best nodes to remove, proven by branch and bound: what some removals cost is a lower bound of what they cost with
//! others added, because a refit with fewer inputs is never better. After Narendra and Fukunaga, "A branch and bound
//! algorithm for feature subset selection" (1977).

use super::Pruner;
use crate::error::Result;

/// How far a proof came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// No other choice costs less (to 1e-9 relative).
    pub proven: bool,
    /// Partial choices looked at.
    pub visited: u64,
}

struct Search {
    best: f64,
    chosen: Option<Pruner>,
    visited: u64,
    most: u64,
}

impl Pruner {
    /// Removes the cheapest set of nodes that leaves `keep` of them: greedy and swaps first, then branch and bound over at
    /// most `visits` partial choices.
    ///
    /// # Errors
    /// As `cost_of`.
    pub fn exact(&mut self, keep: usize, visits: u64) -> Result<Proof> {
        let whole = self.clone();
        self.greedy(keep)?;
        self.swap()?;
        let free = whole.those(true);
        let gone = free.len().saturating_sub(keep);
        let mut search = Search { best: self.cost, chosen: None, visited: 0, most: visits };
        let done = search.branch(&whole, &free, gone)?;
        if let Some(chosen) = search.chosen {
            *self = chosen;
            self.refit()?;
        }
        Ok(Proof { proven: done, visited: search.visited })
    }
}

impl Search {
    /// Tries all ways to remove `gone` of `free` from `state`; false if the visits ran out.
    fn branch(&mut self, state: &Pruner, free: &[usize], gone: usize) -> Result<bool> {
        if gone == 0 {
            if state.cost < self.best * (1.0 - 1e-9) {
                self.best = state.cost;
                self.chosen = Some(state.clone());
            }
            return Ok(true);
        }
        let mut order: Vec<(f64, usize)> = state.costs_of(free)?.into_iter().zip(free.iter().copied()).collect();
        // The dearest first: child i removes i and leaves only cheaper ones to choose from, so that the large subtrees
        // are those with high bounds.
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let rest: Vec<usize> = order.iter().map(|(_, v)| *v).collect();
        for i in (0..=order.len() - gone).rev() {
            if state.cost + order[i].0 >= self.best * (1.0 - 1e-9) {
                break;
            }
            if self.visited >= self.most {
                return Ok(false);
            }
            self.visited += 1;
            let mut child = state.clone();
            child.remove(order[i].1)?;
            if !self.branch(&child, &rest[i + 1..], gone - 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
