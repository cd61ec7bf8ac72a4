//! Neurons on cores: a layer is cut into tiles of rows x columns x channels, the fewest that a core can hold; tiles then
//! share cores, first fit. Layers are placed from the output back, so that it is known how many cores each spike reaches.

use std::ops::Range;

use super::{Placed, Placement, Unplaced};
use crate::chip::demand::hits;
use crate::chip::{Chip, ChosenBy, CoreLimits, Demand, LayerNeed, SynapseMemory};

/// What a tile takes of its core.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    neurons: u64,
    axons_in: u64,
    axons_out: u64,
    synapses: u64,
    bits: u64,
}

impl Use {
    fn limits(core: &CoreLimits) -> [(Option<u64>, &'static str); 5] {
        [
            (core.neurons, "neurons"),
            (core.axons_in, "input axons"),
            (core.axons_out, "output axons"),
            (core.synapses, "synapses"),
            (core.memory.as_ref().map(|m| m.bits), "synapse memory"),
        ]
    }

    fn all(&self) -> [u64; 5] {
        [self.neurons, self.axons_in, self.axons_out, self.synapses, self.bits]
    }

    fn most(self, other: Use) -> Use {
        Use {
            neurons: self.neurons.max(other.neurons),
            axons_in: self.axons_in.max(other.axons_in),
            axons_out: self.axons_out.max(other.axons_out),
            synapses: self.synapses.max(other.synapses),
            bits: self.bits.max(other.bits),
        }
    }

    fn plus(self, other: Use) -> Use {
        Use {
            neurons: self.neurons + other.neurons,
            axons_in: self.axons_in + other.axons_in,
            axons_out: self.axons_out + other.axons_out,
            synapses: self.synapses + other.synapses,
            bits: self.bits + other.bits,
        }
    }

    /// The first limit that it breaks: name, need, have.
    fn breaks(&self, core: &CoreLimits) -> Option<(&'static str, u64, u64)> {
        let pairs = self.all().into_iter().zip(Self::limits(core));
        pairs.into_iter().find_map(|(need, (limit, name))| limit.filter(|l| need > *l).map(|l| (name, need, l)))
    }
}

/// Sides of a tile.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tile {
    h: usize,
    w: usize,
    c: usize,
}

/// A layer cut into tiles.
struct Cut {
    tile: Tile,
    counts: [usize; 3],
    worst: Use,
    synapses: u64,
    bits: u64,
}

/// Cores that a first fit looks back at.
const OPEN: usize = 64;

pub fn place(chip: &Chip, demand: &Demand<'_>) -> Placement {
    let core = &chip.core;
    let nodes = &demand.network.nodes;
    let mut placement = Placement::default();
    // Cores that a spike of each position reaches.
    let mut reach: Vec<Vec<u64>> = nodes.iter().map(|n| vec![0; n.shape.area()]).collect();
    let mut open: Vec<Use> = Vec::new();
    for node in (0..nodes.len()).rev() {
        let Some(layer) = demand.layer(node) else {
            demand.lead_back(node, &mut reach);
            continue;
        };
        let one_position = chip.weights.palette.is_some_and(|p| p.chosen_by == ChosenBy::AxonType);
        let sparse = chip.stores_sparse();
        let found = Plan { core, layer, reach: &reach[node], one_position, sparse }.best();
        match found {
            Ok(cut) => {
                spread(layer, cut.tile, &mut reach);
                let reaches = reach[node].iter().copied().max().unwrap_or(0);
                placement.layers.push(Placed { reaches, ..placed(core, layer, &cut) });
                fit(core, &cut, &mut open, &mut placement.cores);
            }
            Err(why) => placement.unplaced.push(Unplaced { layer: layer.name.clone(), why }),
        }
    }
    placement.layers.reverse();
    placement.unplaced.reverse();
    placement
}

/// Cores that each position of the sources now reaches too: the tiles that read it.
fn spread(layer: &LayerNeed, tile: Tile, reach: &mut [Vec<u64>]) {
    let per_group = layer.shape.c / layer.groups;
    // a spike's channel lies in one group, whose outputs are in so many tiles
    let channels = if tile.c < per_group { per_group.div_ceil(tile.c) } else { 1 } as u64;
    let mut sources: Vec<usize> = layer.blocks.iter().map(|b| b.source).collect();
    sources.sort_unstable();
    sources.dedup();
    for source in sources {
        let blocks: Vec<_> = layer.blocks.iter().filter(|b| b.source == source).collect();
        let along = |axis: usize, size: usize, step: usize, from: usize| -> Vec<u64> {
            let mut count = vec![0; from];
            for span in spans(size, step) {
                let read = blocks.iter().map(|b| hits(b, layer, axis, span.clone()));
                let any =
                    read.fold(vec![0; from], |all, now| all.iter().zip(&now).map(|(a, b)| a + b).collect::<Vec<u64>>());
                count.iter_mut().zip(any).for_each(|(c, hit)| *c += u64::from(hit > 0));
            }
            count
        };
        let from = blocks[0].from;
        let rows = along(0, layer.shape.h, tile.h, from.h);
        let columns = along(1, layer.shape.w, tile.w, from.w);
        for (y, r) in rows.iter().enumerate() {
            for (x, c) in columns.iter().enumerate() {
                reach[source][y * from.w + x] += r * c * channels;
            }
        }
    }
}

/// Gives the tiles to cores: the first of the last cores that has room, or a new one.
fn fit(core: &CoreLimits, cut: &Cut, open: &mut Vec<Use>, cores: &mut u64) {
    let tiles: usize = cut.counts.iter().product();
    for _ in 0..tiles {
        match open.iter_mut().find(|used| used.plus(cut.worst).breaks(core).is_none()) {
            Some(used) => *used = used.plus(cut.worst),
            None => {
                *cores += 1;
                if open.len() == OPEN {
                    open.remove(0);
                }
                open.push(cut.worst);
            }
        }
    }
}

fn placed(core: &CoreLimits, layer: &LayerNeed, cut: &Cut) -> Placed {
    let used: Vec<_> = cut.worst.all().into_iter().zip(Use::limits(core)).map(|(u, (l, n))| (u, l, n)).collect();
    let (fullest, limit) = super::fullest(&used);
    let [rows, columns, channels] = cut.counts;
    let cores = (rows * columns * channels) as u64;
    let Tile { h, w, c } = cut.tile;
    Placed {
        layer: layer.name.clone(),
        cores,
        fullest,
        limit,
        split: (cores > 1).then(|| match layer.shape.area() {
            1 => format!("{cores} parts of up to {c} neurons"),
            _ => format!("{cores} tiles of up to {c} channels x {h} x {w} positions"),
        }),
        synapses: cut.synapses,
        memory_bits: core.memory.as_ref().map(|_| cut.bits),
        reaches: 0,
    }
}

/// 0..len in pieces of `step`.
fn spans(len: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(step.max(1)).map(move |start| start..(start + step).min(len))
}

/// Sizes of pieces when `len` is cut into 1, 2, 3 ... even ones, each once, falling.
fn sizes(len: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = (1..=len).map(|parts| len.div_ceil(parts)).collect();
    sizes.dedup();
    sizes
}

/// One layer on the way to its cores.
struct Plan<'a> {
    core: &'a CoreLimits,
    layer: &'a LayerNeed,
    /// Cores that a spike of each position reaches.
    reach: &'a [u64],
    /// A tile has one position: an axon is a tap then, and has the tap's type.
    one_position: bool,
    /// Synapses that are left out take no room.
    sparse: bool,
}

impl Plan<'_> {
    /// The cut with the fewest tiles; among those the one with the most channels in a tile, then rows.
    fn best(&self) -> Result<Cut, String> {
        let shape = self.layer.shape;
        let channels = self.channel_sizes();
        let mut best: Option<(usize, Tile)> = None;
        let sides = |len: usize| if self.one_position { vec![1] } else { sizes(len) };
        for h in sides(shape.h) {
            for w in sides(shape.w) {
                if best.is_some_and(|(least, _)| shape.h.div_ceil(h) * shape.w.div_ceil(w) > least) {
                    continue;
                }
                let profiles = self.profiles(h, w);
                let fits = |c: usize| self.worst(&profiles, Tile { h, w, c }).breaks(self.core).is_none();
                // more channels need more of everything
                let at = channels.partition_point(|c| !fits(*c));
                let Some(&c) = channels.get(at) else { continue };
                let tiles = shape.h.div_ceil(h) * shape.w.div_ceil(w) * shape.c.div_ceil(c);
                let better = best.is_none_or(|(least, tile)| (tiles, tile.c) < (least, c));
                if better {
                    best = Some((tiles, Tile { h, w, c }));
                }
            }
        }
        let Some((_, tile)) = best else {
            let least = Tile { h: 1, w: 1, c: 1 };
            let (name, need, have) =
                self.worst(&self.profiles(1, 1), least).breaks(self.core).unwrap_or(("neurons", 1, 0));
            return Err(format!("one of its neurons alone needs {need} {name}, a core has {have}"));
        };
        let counts = [shape.h.div_ceil(tile.h), shape.w.div_ceil(tile.w), shape.c.div_ceil(tile.c)];
        let profiles = self.profiles(tile.h, tile.w);
        let worst = self.worst(&profiles, tile);
        let mut total = Use::default();
        for rows in spans(shape.h, tile.h) {
            for columns in spans(shape.w, tile.w) {
                let (rows, columns) = (self.along(0, &rows), self.along(1, &columns));
                for channels in spans(shape.c, tile.c) {
                    total = total.plus(self.tile(&rows, &columns, channels.len()));
                }
            }
        }
        Ok(Cut { tile, counts, worst, synapses: total.synapses, bits: total.bits })
    }

    /// Channels of a tile, falling: even parts of all, or of whole groups, or of a group.
    fn channel_sizes(&self) -> Vec<usize> {
        let (all, groups) = (self.layer.shape.c, self.layer.groups);
        if groups == 1 {
            return sizes(all);
        }
        let per_group = all / groups;
        let mut list: Vec<usize> = sizes(groups).into_iter().map(|g| g * per_group).collect();
        list.extend(sizes(per_group));
        list.dedup();
        list
    }

    /// Distinct tiles by what they read: rows and columns, each with the taps per source position of every block.
    fn profiles(&self, h: usize, w: usize) -> [Vec<Span>; 2] {
        let shape = self.layer.shape;
        let distinct = |axis: usize, size: usize, step: usize| {
            let mut all: Vec<Span> = spans(size, step).map(|span| self.along(axis, &span)).collect();
            all.sort();
            all.dedup();
            all
        };
        [distinct(0, shape.h, h), distinct(1, shape.w, w)]
    }

    fn along(&self, axis: usize, span: &Range<usize>) -> Span {
        let taps = |b| {
            let mut count: Vec<(u64, u64)> = Vec::new();
            for hit in hits(b, self.layer, axis, span.clone()).into_iter().filter(|h| *h > 0) {
                match count.iter_mut().find(|(taps, _)| *taps == hit) {
                    Some((_, positions)) => *positions += 1,
                    None => count.push((hit, 1)),
                }
            }
            count.sort_unstable();
            count
        };
        Span { len: span.len(), taps: self.layer.blocks.iter().map(taps).collect() }
    }

    /// The most that any tile of this size takes of each limit.
    fn worst(&self, [rows, columns]: &[Vec<Span>; 2], tile: Tile) -> Use {
        let mut worst = Use { axons_out: self.axons_out(tile), ..Use::default() };
        for row in rows {
            for column in columns {
                worst = worst.most(self.tile(row, column, tile.c));
            }
        }
        worst
    }

    /// Without output axons.
    fn tile(&self, rows: &Span, columns: &Span, channels: usize) -> Use {
        let neurons = (rows.len * columns.len * channels) as u64;
        let mut used = Use { neurons, ..Use::default() };
        for (b, (rows, columns)) in self.layer.blocks.iter().zip(rows.taps.iter().zip(&columns.taps)) {
            let per_group = self.layer.shape.c / b.groups;
            let touched = channels.div_ceil(per_group) as u64;
            let inputs = (b.from.c / b.groups) as u64 * touched;
            let outputs = channels.min(per_group) as u64;
            for (r, positions) in rows {
                for (c, more) in columns {
                    let axons = inputs * positions * more;
                    used.axons_in += axons;
                    used.synapses += axons * r * c * outputs;
                    if let Some(memory) = &self.core.memory {
                        used.bits += axons * memory.axon(r * c * outputs, neurons);
                    }
                }
            }
        }
        self.left(used, (rows.len * columns.len) as u64)
    }

    /// What a tile of `positions` takes where synapses are pruned: inputs as far as limits of a neuron say, its synapses
    /// taken as spread evenly over them.
    fn left(&self, full: Use, positions: u64) -> Use {
        let LayerNeed { most, density, .. } = self.layer;
        if most.is_none() && *density >= 1.0 {
            return full;
        }
        let at_most = |units: u64, all: u64| most.map_or(all, |most| all.min(units * most.inputs));
        let readers = if most.is_some_and(|most| most.together) { positions } else { full.neurons };
        let axons_in = at_most(readers, full.axons_in);
        let synapses = if self.sparse {
            (at_most(full.neurons, full.synapses) as f64 * density).ceil() as u64
        } else {
            full.synapses * axons_in / full.axons_in.max(1)
        };
        let axon = |memory: &SynapseMemory| axons_in * memory.axon(synapses.div_ceil(axons_in.max(1)), full.neurons);
        let bits = self.core.memory.as_ref().map_or(0, axon);
        Use { axons_in, synapses, bits, ..full }
    }

    /// The most pairs of a neuron and a core that it reaches, of any tile.
    fn axons_out(&self, tile: Tile) -> u64 {
        if self.core.axons_out.is_none() {
            return 0;
        }
        let shape = self.layer.shape;
        let sum = |rows: Range<usize>, columns: Range<usize>| -> u64 {
            rows.map(|y| self.reach[y * shape.w..][columns.clone()].iter().sum::<u64>()).sum()
        };
        let tiles = spans(shape.h, tile.h).flat_map(|r| spans(shape.w, tile.w).map(move |c| (r.clone(), c)));
        tiles.map(|(r, c)| sum(r, c)).max().unwrap_or(0) * tile.c as u64
    }
}

/// A range of rows or columns of a layer: for each block, source positions by how many taps read them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    len: usize,
    taps: Vec<Vec<(u64, u64)>>,
}
