//! Which inputs a layer can do without. A *node* (a neuron, or a channel) is a group of inputs in one or more layer
//! problems, its consumers; what its removal costs is what their refit without it cannot make up for. METHOD section 6.
//!
//! With H^-1 at hand the cost of removing the inputs P from all rows and refitting the others is exact:
//!     eps_P = tr( W_P ([H^-1]_PP)^-1 W_P^T ),   W <- W - W_P ([H^-1]_PP)^-1 [H^-1]_P,: ,   H^-1 by block elimination.
//! H is factored once; no candidate needs a solve of its own. After Hassibi and Stork, "Optimal brain surgeon" (1993).

mod exact;
mod greedy;
mod on_device;
mod row;
mod size;
mod state;
mod swap;
mod synapses;

use std::sync::Arc;

use rayon::prelude::*;

use super::problem::Problem;
use super::system::System;
use crate::error::{Error, Result};
use state::State;

pub use exact::Proof;
pub use greedy::Removal;
pub use size::{Size, spread};
pub use synapses::{Pattern, Runs, Score, Sparse, sparsify};

/// A layer problem that reads nodes.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// Its ridge, if any, is part of every cost.
    pub problem: Problem,
    /// Per node: its inputs of the problem; none if the consumer does not read it. Inputs of no node always stay.
    pub columns: Vec<Vec<usize>>,
}

/// Layer problems from which nodes are removed, refitted after every removal.
#[derive(Debug, Clone)]
pub struct Pruner {
    consumers: Vec<State>,
    /// Per node.
    kept: Vec<bool>,
    /// What the removals so far cost: sum over consumers and rows of what the objective rose by.
    cost: f64,
}

impl Pruner {
    /// Factors every consumer's H.
    ///
    /// # Errors
    /// Input: an H that cannot be a Gram matrix. Work: consumers that disagree on the number of nodes, columns that are
    /// not inputs of their problem or belong to two nodes, a malformed problem.
    pub fn new(consumers: &[Consumer]) -> Result<Self> {
        let nodes = consumers.first().map_or(0, |c| c.columns.len());
        let mut states = Vec::with_capacity(consumers.len());
        for consumer in consumers {
            consumer.problem.check()?;
            let mut owned = vec![false; consumer.problem.n];
            let sound =
                consumer.columns.iter().flatten().all(|&c| c < owned.len() && !std::mem::replace(&mut owned[c], true));
            if consumer.columns.len() != nodes || !sound {
                return Err(Error::work("pruning", "the nodes' inputs do not fit their consumers"));
            }
            let system = Arc::new(System::new(&consumer.problem)?);
            states.push(State::new(system, &consumer.problem, &consumer.columns));
        }
        Ok(Self { consumers: states, kept: vec![true; nodes], cost: 0.0 })
    }

    pub fn nodes(&self) -> usize {
        self.kept.len()
    }

    pub fn is_kept(&self, node: usize) -> bool {
        self.kept[node]
    }

    /// The nodes that remain, or that are gone.
    pub fn those(&self, kept: bool) -> Vec<usize> {
        (0..self.nodes()).filter(|&v| self.kept[v] == kept).collect()
    }

    /// What all removals together cost, in the problems' objective.
    pub fn cost(&self) -> f64 {
        self.cost
    }

    /// What the rows have to explain: sum over consumers of sum t^2, as far as it is known.
    pub fn scale(&self) -> f64 {
        self.consumers.iter().map(State::scale).sum()
    }

    /// What removing `node`, which is kept, would cost beyond `cost`.
    ///
    /// # Errors
    /// Work: H has become singular to working precision.
    pub fn cost_of(&self, node: usize) -> Result<f64> {
        self.consumers.iter().map(|c| c.cost(node)).sum()
    }

    /// `cost_of` of many nodes, by all cores.
    ///
    /// # Errors
    /// As `cost_of`.
    pub fn costs_of(&self, nodes: &[usize]) -> Result<Vec<f64>> {
        nodes.par_iter().map(|&v| self.cost_of(v)).collect()
    }

    /// Removes `node` and refits the rest. Returns what it cost.
    ///
    /// # Errors
    /// As `cost_of`.
    pub fn remove(&mut self, node: usize) -> Result<f64> {
        let cost = self.cost_of(node)?;
        self.consumers.iter_mut().try_for_each(|c| c.remove(node))?;
        self.kept[node] = false;
        self.cost += cost;
        Ok(cost)
    }

    /// Fits anew from H and B, free of the rounding that removals leave.
    ///
    /// # Errors
    /// As `cost_of`.
    pub fn refit(&mut self) -> Result<()> {
        self.consumers.iter_mut().try_for_each(State::refit)?;
        self.cost = self.consumers.iter().map(State::excess).sum();
        Ok(())
    }

    /// Removes all of `nodes` at once, with one refit.
    ///
    /// # Errors
    /// As `cost_of`.
    pub fn without(&mut self, nodes: &[usize]) -> Result<()> {
        for &node in nodes {
            self.consumers.iter_mut().for_each(|c| c.forget(node));
            self.kept[node] = false;
        }
        self.refit()
    }

    /// The consumers' weights (m x n each): zeros for nodes that are gone.
    pub fn weights(&self, consumer: usize) -> Vec<f64> {
        self.consumers[consumer].weights()
    }

    /// Per node: the sum of squares of its weights in all consumers, as fitted now.
    pub fn magnitudes(&self) -> Vec<f64> {
        (0..self.nodes()).map(|v| self.consumers.iter().map(|c| c.magnitude(v)).sum()).collect()
    }
}

fn singular() -> Error {
    Error::work("pruning", "H is singular to working precision; a ridge helps")
}
