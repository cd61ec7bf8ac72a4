//! A total number of the chip's cores, spread over the layers: again and again the step that loses least for each core
//! that it saves. What a network of some sizes takes is counted by placing it.

use super::super::{Options, fits};
use super::Curve;
use super::shrink::shrunk_by;
use super::structure::Structure;
use crate::chip::place::place;
use crate::error::{Error, Result};
use crate::network::Network;

/// A layer that no core holds counts as so many, so that it is made to fit first.
const UNPLACED: u64 = 1 << 32;

pub struct Cores<'a> {
    pub network: &'a Network,
    pub structure: &'a Structure,
    pub options: &'a Options,
}

impl Cores<'_> {
    /// Of the network with these sizes of its leaders.
    fn count(&self, sizes: &[Option<usize>]) -> u64 {
        let chip = &self.options.chip;
        let smaller = shrunk_by(self.network, self.structure, sizes);
        let placed = place(chip, &fits::demand(&smaller, self.options).within(chip));
        placed.cores + UNPLACED * placed.unplaced.len() as u64
    }

    /// Sizes of the `open` leaders under which the network takes at most `total` cores. `curves`: what their nested
    /// removals cost.
    ///
    /// # Errors
    /// Input: the chip's cores have no limits, or one node a layer still takes more.
    pub fn spread(&self, total: u64, sizes: &mut [Option<usize>], open: &[usize], curves: &[Curve]) -> Result<()> {
        let chip = &self.options.chip;
        let wrong = |why: String| Err(Error::input("keep", format!("cores={total}: {why}")));
        let mut least = sizes.to_vec();
        open.iter().for_each(|&l| least[l] = Some(1));
        let smaller = shrunk_by(self.network, self.structure, &least);
        let placed = place(chip, &fits::demand(&smaller, self.options).within(chip));
        if placed.layers.iter().all(|l| l.limit.is_empty()) {
            return wrong(format!("{} has no cores whose limits are known", chip.name));
        }
        let mut now = self.count(sizes);
        if now <= total {
            return Ok(());
        }
        let possible = self.count(&least);
        if possible > total {
            let possible = possible % UNPLACED;
            return wrong(format!("with one node in every layer that can be pruned it still takes {possible}"));
        }
        let cost = |l: usize, kept: usize| -> f64 {
            let curve = &curves[open.iter().position(|&o| o == l).unwrap_or(0)];
            match curve.nodes - kept {
                0 => 0.0,
                gone => curve.removals[gone - 1].cost,
            }
        };
        while now > total {
            let mut best: Option<(f64, usize, usize, u64)> = None;
            for &l in open {
                let kept = sizes[l].unwrap_or(self.network.nodes[l].shape.c);
                for (size, cores) in self.steps(sizes, l, kept, now, total) {
                    let each = (cost(l, size) - cost(l, kept)).max(0.0) / (now - cores) as f64;
                    if best.is_none_or(|b| each < b.0) {
                        best = Some((each, l, size, cores));
                    }
                }
            }
            match best {
                Some((_, l, size, cores)) => (sizes[l], now) = (Some(size), cores),
                // no layer alone gives a core back: all have to
                None => {
                    for &l in open {
                        let kept = sizes[l].unwrap_or(self.network.nodes[l].shape.c);
                        sizes[l] = Some((kept - 1).max(1));
                    }
                    now = self.count(sizes);
                }
            }
            tracing::debug!(cores = now, "spread");
        }
        Ok(())
    }

    /// The largest sizes of `l` below `kept` that take fewer cores than `now`: for the next core, and for half and all of
    /// what is asked for.
    fn steps(&self, sizes: &[Option<usize>], l: usize, kept: usize, now: u64, total: u64) -> Vec<(usize, u64)> {
        let with = |size: usize| {
            let mut other = sizes.to_vec();
            other[l] = Some(size);
            self.count(&other)
        };
        let mut found: Vec<(usize, u64)> = vec![];
        if kept <= 1 {
            return found;
        }
        let least = with(1);
        for wanted in [now - 1, total + (now - total) / 2, total] {
            if least > wanted || least >= now {
                continue;
            }
            // fewer nodes take fewer cores, but for how tiles happen to pack
            let (mut low, mut high) = (1, kept);
            let mut cores = least;
            while high - low > 1 {
                let middle = low.midpoint(high);
                let count = with(middle);
                if count <= wanted { (low, cores) = (middle, count) } else { high = middle }
            }
            found.push((low, cores));
        }
        found.dedup();
        found
    }
}
