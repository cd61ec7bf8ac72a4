//! Which layers wait how long before they may fire: the settling windows of the streaming schedule.

use std::collections::HashSet;

use crate::network::{Activation, Network, Op, is_shortcut};

/// The settling windows of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settle {
    /// Steps of the layers that fire on uneven input, by their place on the path from the input, again from the first
    /// after the last: one number for all, `2, 0` for every other one. Not empty.
    Repeated(Vec<u32>),
    /// A step each on average: where a level has a sum over a shortcut, the level before it takes both steps. Its neurons read
    /// one stream through many weights of either sign, and the sum, more even, need not wait as well. Layers that gain by
    /// it wait longer, while the longest path waits for at most a quarter of a train.
    Shared,
    /// At most so many steps in all along the longest path: one each for as many layers, evenly spread over the path from
    /// the first on; as many as a train has for every layer where that is enough for all of them.
    Within(u64),
}

/// Per node, how many layers that fire on uneven input are on the longest path up to it; the node counts itself. 0 for
/// nodes that need not wait: a layer whose input is constant sees the same current in every step.
pub fn settling_levels(network: &Network) -> Vec<u32> {
    let mut constant = vec![true; network.nodes.len()];
    let mut before = vec![0; network.nodes.len()];
    let mut levels = vec![0; network.nodes.len()];
    for (i, node) in network.nodes.iter().enumerate().skip(1) {
        let sources = node.sources();
        let even = sources.iter().all(|&s| constant[s]);
        before[i] = sources.iter().map(|&s| before[s]).max().unwrap_or(0);
        let Op::Neurons { activation, .. } = &node.op else {
            constant[i] = even;
            continue;
        };
        constant[i] = false;
        let fires = i != network.output || *activation != Activation::Linear;
        if fires && !even {
            before[i] += 1;
            levels[i] = before[i];
        }
    }
    levels
}

/// Per node, the steps that it waits, in a network that runs for `steps`. Layers of one level wait equally long, so that
/// the longest path waits for the levels' sum.
pub(super) fn windows(network: &Network, settle: &Settle, steps: u32) -> Vec<u32> {
    let levels = settling_levels(network);
    let count = u64::from(levels.iter().copied().max().unwrap_or(0));
    let depths = network.depths();
    let over = |i: usize| match &network.nodes[i].op {
        Op::Neurons { blocks, .. } => blocks.iter().any(|b| is_shortcut(&depths, b.source, i)),
        _ => false,
    };
    let sums: HashSet<u32> = (0..levels.len()).filter(|&i| over(i)).map(|i| levels[i]).collect();
    let sum = |level: u32| sums.contains(&level);
    let of_level = |level: u32| match (level, settle) {
        (0, _) => 0,
        (level, Settle::Repeated(these)) => these[(level as usize - 1) % these.len()],
        (level, Settle::Shared) => match (sum(level), level > 1 && !sum(level - 1), sum(level + 1)) {
            (true, true, _) => 0,
            (false, _, true) => 2,
            _ => 1,
        },
        (_, Settle::Within(budget)) if *budget >= count * u64::from(steps) => steps,
        (level, Settle::Within(budget)) => {
            let among_first = |levels: u32| (u64::from(levels) * count.min(*budget)).div_ceil(count);
            (among_first(level) - among_first(level - 1)) as u32
        }
    };
    levels.into_iter().map(of_level).collect()
}

/// Steps of a train for one that its network may wait in all where the tool chooses windows by trial.
const TRAIN: u32 = 4;

/// Steps that node `index` can wait longer while no path through it waits for more than a quarter of the steps of a train.
/// `windows`: per node, the steps that it waits.
pub(super) fn spare(network: &Network, windows: &[u32], index: usize, steps: u32) -> u32 {
    let nodes = network.nodes.len();
    let mut late = vec![0u32; nodes];
    for (i, node) in network.nodes.iter().enumerate().skip(1) {
        late[i] = windows[i] + node.sources().iter().map(|&s| late[s]).max().unwrap_or(0);
    }
    // longest wait of what comes after a node
    let mut after = vec![0u32; nodes];
    for (i, node) in network.nodes.iter().enumerate().skip(1).rev() {
        for s in node.sources() {
            after[s] = after[s].max(windows[i] + after[i]);
        }
    }
    (steps / TRAIN).saturating_sub(late[index] + after[index])
}
