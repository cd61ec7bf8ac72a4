//! Single synapses, every row with a mask of its own, by the same exact cost: the row of a layer problem is a problem of
//! its own with the same H, and its nodes are single inputs.

use std::sync::Arc;

use rayon::prelude::*;

use super::Pruner;
use super::greedy::lowest;
use super::state::State;
use crate::error::{Error, Result};
use crate::fit::problem::Problem;
use crate::fit::system::System;

/// Which synapses may stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pattern {
    /// This share of the layer's synapses goes (0..1), from whichever rows lose least by it.
    Sparsity(f64),
    /// So many inputs a row at most.
    FanIn(usize),
    /// Of every `of` inputs in a row's order (the last run may be shorter) at most `keep` stay.
    Runs { keep: usize, of: usize },
}

/// A layer with fewer synapses.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparse {
    /// m x n: which stay.
    pub mask: Vec<bool>,
    /// m x n: refitted, zeros where the mask is false.
    pub w: Vec<f64>,
    /// m: what the row's objective rose by.
    pub cost: Vec<f64>,
}

/// Removes synapses one by one, the cheapest of each row first, and refits the rest after each.
///
/// Costs O(n^3) a row at most; rows run on all cores, each with n^2 numbers of its own.
///
/// # Errors
/// Input: a pattern that makes no sense, an H that cannot be a Gram matrix. Work: a malformed problem.
pub fn sparsify(problem: &Problem, pattern: Pattern) -> Result<Sparse> {
    problem.check()?;
    check(pattern)?;
    let (n, m) = (problem.n, problem.m);
    let system = Arc::new(System::new(problem)?);
    let columns: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
    let whole = State::new(system, problem, &columns);
    let row = |o: usize| Pruner { consumers: vec![whole.row(o)], kept: vec![true; n], cost: 0.0 };
    let gone: Vec<Vec<usize>> = match pattern {
        Pattern::FanIn(most) => {
            (0..m).into_par_iter().map(|o| order(row(o), n, most, n)).map(nodes).collect::<Result<_>>()?
        }
        Pattern::Runs { keep, of } => {
            (0..m).into_par_iter().map(|o| order(row(o), of, keep, n)).map(nodes).collect::<Result<_>>()?
        }
        Pattern::Sparsity(share) => {
            let orders = (0..m).into_par_iter().map(|o| order(row(o), n, 0, n)).collect::<Result<Vec<_>>>()?;
            shared(&orders, (share * (n * m) as f64).round() as usize)
        }
    };
    let fitted = (0..m)
        .into_par_iter()
        .map(|o| {
            let mut row = row(o);
            row.without(&gone[o])?;
            Ok((row.those(true), row.weights(0), row.cost))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut sparse = Sparse { mask: vec![false; m * n], w: Vec::with_capacity(m * n), cost: vec![] };
    for (o, (kept, w, cost)) in fitted.into_iter().enumerate() {
        kept.into_iter().for_each(|i| sparse.mask[o * n + i] = true);
        sparse.w.extend(w);
        sparse.cost.push(cost);
    }
    Ok(sparse)
}

fn check(pattern: Pattern) -> Result<()> {
    match pattern {
        Pattern::Sparsity(share) if !(0.0..1.0).contains(&share) => {
            Err(Error::input("sparsity", format!("{share} is outside 0..1")))
        }
        Pattern::FanIn(0) => Err(Error::input("fan-in", "must be at least 1")),
        Pattern::Runs { keep, of } if keep == 0 || keep > of => {
            Err(Error::input("pattern", format!("{keep} of {of} synapses cannot stay")))
        }
        _ => Ok(()),
    }
}

fn nodes(order: Result<Vec<(usize, f64)>>) -> Result<Vec<usize>> {
    Ok(order?.into_iter().map(|(node, _)| node).collect())
}

/// Inputs of a row in the order in which they go, with their costs, until each run of `of` inputs has `keep` left.
fn order(mut row: Pruner, of: usize, keep: usize, n: usize) -> Result<Vec<(usize, f64)>> {
    let mut left: Vec<usize> = (0..n.div_ceil(of)).map(|run| of.min(n - run * of)).collect();
    let mut free: Vec<usize> = (0..n).filter(|i| left[i / of] > keep).collect();
    let mut order = vec![];
    while !free.is_empty() {
        let costs = free.iter().map(|&i| row.cost_of(i)).collect::<Result<Vec<_>>>()?;
        let at = lowest(&costs);
        let node = free.remove(at);
        order.push((node, row.remove(node)?));
        left[node / of] -= 1;
        if left[node / of] <= keep {
            free.retain(|i| i / of != node / of);
        }
    }
    Ok(order)
}

/// The `gone` cheapest removals of all rows, each row in its own order: a removal counts as dear as the dearest before it.
fn shared(orders: &[Vec<(usize, f64)>], gone: usize) -> Vec<Vec<usize>> {
    let mut all = vec![];
    for (row, order) in orders.iter().enumerate() {
        let mut dearest = 0f64;
        for (step, (_, cost)) in order.iter().enumerate() {
            dearest = dearest.max(*cost);
            all.push((dearest, row, step));
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut count = vec![0; orders.len()];
    all.iter().take(gone).for_each(|&(_, row, _)| count[row] += 1);
    orders.iter().zip(count).map(|(order, count)| order[..count].iter().map(|(node, _)| *node).collect()).collect()
}
