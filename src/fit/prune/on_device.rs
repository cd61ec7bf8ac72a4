//! Greedy removal where there are thousands of candidates: their costs, and the elimination of the one that goes, in f32 on
//! a device, from the one inverse that the CPU has. What all removals cost in the end is worked out in f64.

use super::greedy::{Removal, lowest};
use super::{Pruner, State};
use crate::compute::Device;
use crate::compute::removal::{self, Fitted, MOST};
use crate::error::Result;
use crate::fit::factorize;

impl Pruner {
    /// Whether `dev` should do it: a real GPU that has room, a large problem, and groups that its kernel takes.
    pub fn pays(&self, dev: &Device) -> bool {
        let all: u64 = self.consumers.iter().map(|c| Fitted::bytes(c.inputs(), c.m())).sum();
        let fits = |c: &State| c.largest() <= MOST && Fitted::bytes(c.inputs(), c.m()) <= dev.max_buffer_bytes();
        let inputs = self.consumers.iter().map(State::inputs).max().unwrap_or(0);
        all <= dev.room() && factorize::pays(dev, inputs) && self.consumers.iter().all(fits)
    }

    /// As `greedy`, with costs to f32's precision on `dev`; where those of two nodes differ by less another may go first. The
    /// last step's cost is exact; if f32 comes to its end before, the CPU goes on.
    ///
    /// # Errors
    /// As `cost_of`; nodes with more inputs than `removal::MOST`; the device failed.
    pub fn greedy_on(&mut self, dev: &Device, keep: usize) -> Result<Vec<Removal>> {
        let mut fitted = self.consumers.iter().map(|c| c.fitted(dev)).collect::<Result<Vec<_>>>()?;
        let (mut left, mut steps, mut total) = (self.those(true), vec![], self.cost);
        while left.len() > keep {
            let mut costs = vec![0.0; left.len()];
            for fit in &fitted {
                let found = removal::costs(dev, fit, &left)?;
                costs.iter_mut().zip(found).for_each(|(sum, cost)| *sum += f64::from(cost));
            }
            let cheapest = lowest(&costs);
            if !costs[cheapest].is_finite() {
                break;
            }
            let node = left.remove(cheapest);
            fitted.iter_mut().try_for_each(|fit| removal::remove(dev, fit, node))?;
            total += costs[cheapest];
            steps.push(Removal { node, cost: total });
        }
        drop(fitted);
        self.without(&steps.iter().map(|step| step.node).collect::<Vec<_>>())?;
        if let Some(last) = steps.last_mut() {
            last.cost = self.cost;
        }
        tracing::debug!(nodes = steps.len(), f32 = total, f64 = self.cost, "removed on {}", dev.info().name);
        steps.extend(self.greedy(keep)?);
        Ok(steps)
    }
}
