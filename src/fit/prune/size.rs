//! How many nodes shall remain: of one layer, or of all layers together.

use serde::{Deserialize, Serialize};

use super::Removal;
use crate::error::{Error, Result};

/// A layer's size as a designer states it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Size {
    /// So many nodes.
    Nodes(usize),
    /// This share of the nodes, 0..=1.
    Share(f64),
}

impl Size {
    /// Nodes that remain of `all`: at least one.
    ///
    /// # Errors
    /// Input: more than there are.
    pub fn of(self, all: usize) -> Result<usize> {
        match self {
            Size::Nodes(n) if n > all => Err(Error::input("", format!("{n} nodes to keep where there are {all}"))),
            Size::Nodes(n) => Ok(n),
            Size::Share(share) => Ok(((share * all as f64).round() as usize).clamp(1, all)),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = Error;

    /// `64` (nodes), `0.5` or `50%` (a share). A number with a point is a share: `1.0` is all, `1` is one.
    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::input("keep", format!("`{text}` is neither a number of nodes (64) nor a share (0.5, 50%)"));
        let share = |share: f64| if share > 0.0 && share <= 1.0 { Ok(Size::Share(share)) } else { Err(wrong()) };
        if let Some(percent) = text.strip_suffix('%') {
            return share(percent.trim().parse::<f64>().map_err(|_| wrong())? / 100.0);
        }
        match text.parse::<usize>() {
            Ok(0) => Err(wrong()),
            Ok(nodes) => Ok(Size::Nodes(nodes)),
            Err(_) => share(text.parse().map_err(|_| wrong())?),
        }
    }
}

/// Spreads a total over layers: `curves`, per layer the cost of its nested removals (cumulative, in a unit that layers
/// share) and the neurons that each removal frees; `free`: neurons that have to go. At least one node of a layer stays.
/// Takes the removals with the least cost per neuron, along the lower convex hull of every curve. Returns removals per
/// layer; what one step frees too much stays so.
///
/// # Errors
/// Input: the layers cannot free so many.
pub fn spread(curves: &[(&[Removal], usize)], free: usize) -> Result<Vec<usize>> {
    // Pieces of the hulls: (cost per neuron, layer, removals from, to).
    let mut pieces = vec![];
    for (layer, (curve, neurons)) in curves.iter().enumerate() {
        let at = |i: usize| if i == 0 { 0.0 } else { curve[i - 1].cost };
        let mut from = 0;
        while from < curve.len() {
            let slope = |to: usize| (at(to) - at(from)) / ((to - from) * neurons) as f64;
            let to = (from + 1..=curve.len()).fold(from + 1, |b, i| if slope(i) <= slope(b) { i } else { b });
            pieces.push((slope(to), layer, from, to));
            from = to;
        }
    }
    pieces.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut gone = vec![0; curves.len()];
    let mut left = free;
    for (_, layer, from, to) in pieces {
        if left == 0 {
            break;
        }
        let neurons = curves[layer].1;
        let steps = (to - from).min(left.div_ceil(neurons));
        gone[layer] = from + steps;
        left = left.saturating_sub(steps * neurons);
    }
    if left > 0 {
        return Err(Error::input("keep", format!("{left} more neurons would have to go than the layers can spare")));
    }
    Ok(gone)
}
