//! Grid constraint, exactly: the best levels and the best scale of every row, proven. METHOD section 5.
//!
//! The scale axis is cut into short intervals, outside of which no scale can beat the best row known (`row`); `branch`
//! searches each for anything better. Where the layer owns the scale, its rows are searched together (`joint`). What
//! the node limit leaves unseen lowers the bound, not the result.

mod joint;
mod row;

use rayon::prelude::*;

use super::branch::{Best, Budget, Tree};
use super::quantize::{Quantized, Task};
use super::snap::snapped;
use crate::chip::ScaleOwner;
use crate::error::{Error, Result};
use row::{Row, floors};

/// Nodes an interval of a first look at all scales: the better the best row known, the less is left to search.
const GLANCE: u64 = 20_000;

/// What was found, and what is proven.
pub(super) struct Exact {
    pub found: Quantized,
    /// m: proven lower bound of each row's objective above the unconstrained optimum.
    pub lower: Vec<f64>,
    /// The layer owns the scale: only the bounds' sum is proven.
    pub together: bool,
}

/// How far to search.
#[derive(Clone, Copy)]
struct Limits<'a> {
    /// Nodes a row.
    nodes: u64,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Limits<'a> {
    fn budget(&self, rows: usize) -> Budget<'a> {
        Budget::new(self.nodes.saturating_mul(rows as u64), self.cancelled)
    }
}

/// Searches every row, from the levels and scales of `begun`, looking at `nodes` nodes a row at most.
///
/// # Errors
/// `Interrupted`: cancelled. `Work`: a matrix that was factored before cannot be.
pub(super) fn solve(
    task: &Task<'_>,
    begun: &Quantized,
    nodes: u64,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Exact> {
    let (n, m) = (task.system.n, task.system.m);
    let limits = Limits { nodes, cancelled };
    let tree = Tree::new(&task.system.h, n, task.grid.levels())
        .ok_or_else(|| Error::work("exact", "h is not positive definite"))?;
    let rows: Vec<Row> = (0..m).map(|o| Row::new(task, &tree, begun, o)).collect();
    let together = task.owner == ScaleOwner::Layer && task.fixed.is_none();
    let proven = match (together, task.fixed) {
        (true, _) => joint::solve(task, &tree, &rows, limits)?,
        (false, Some(_)) => rows.par_iter().map(|row| row.given(&tree, &mut limits.budget(1))).collect(),
        (false, None) => apart(task, &tree, &rows, limits)?,
    };
    if cancelled() {
        return Err(Error::interrupted());
    }
    let mut exact = Exact { found: begun.clone(), lower: proven.iter().map(|p| p.1).collect(), together };
    // a scale cut to few bits costs a little: what it was begun with may then be better
    let stored = |((best, _), row): (&(Best, f64), &Row)| {
        let few = if task.fixed.is_none() { snapped(best.scale, task.scale_bits) } else { best.scale };
        let scale = if tree.within(&row.target, &best.levels, few) { few } else { best.scale };
        Best { value: tree.products(&row.target, &best.levels, scale).0, scale, levels: best.levels.clone() }
    };
    let bests: Vec<Best> = proven.iter().zip(&rows).map(stored).collect();
    let alike = bests.iter().all(|b| b.scale == bests[0].scale);
    let all = alike && bests.iter().map(|b| b.value).sum::<f64>() < rows.iter().map(|r| r.begun.value).sum();
    for (o, (best, row)) in bests.iter().zip(&rows).enumerate() {
        if if together { all } else { best.value < row.begun.value } {
            exact.found.scale[o] = best.scale;
            tree.spread(&best.levels, &mut exact.found.levels[o * n..(o + 1) * n]);
        }
    }
    Ok(exact)
}

/// Every row at its own best scale.
fn apart(task: &Task<'_>, tree: &Tree, rows: &[Row], limits: Limits<'_>) -> Result<Vec<(Best, f64)>> {
    let first: Vec<Best> = rows.par_iter().map(|row| row.glance(tree, limits.nodes.min(GLANCE), limits)).collect();
    let from = |(row, best): (&Row, &Best)| row.least_scale(best.value).unwrap_or(0.0);
    let range: Vec<(f64, f64)> = rows.iter().zip(&first).map(|at| (from(at), at.1.scale)).collect();
    let values: Vec<f64> = first.iter().map(|best| best.value).collect();
    let above = |bounds: &[f64]| bounds.iter().zip(&values).map(|(bound, value)| bound > value).collect();
    let floors = floors(task, range, &above, limits.cancelled)?;
    let search = |((row, best), floor): ((&Row, Best), f64)| row.solve(tree, best, floor, &mut limits.budget(1));
    Ok(rows.par_iter().zip(first).zip(floors).map(search).collect())
}
