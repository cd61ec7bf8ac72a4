//! One layer a core: Speck and its kind. Memories may differ from core to core, so that layers and cores are matched.

use super::{Placed, Placement, Unplaced};
use crate::chip::{Chip, Demand, LayerLimits, LayerNeed};

/// Words of weight memory of a layer. With padded addresses a kernel of kx by ky over c input channels and f output
/// channels takes c * 2^(ceil log2(kx ky) + ceil log2 f) words (Speck overview; sinabs's mapping); otherwise as many as its
/// weights need, packed.
pub fn weight_words(limits: &LayerLimits, layer: &LayerNeed, outputs: u64) -> u64 {
    let exponent = |n: u64| n.max(1).next_power_of_two().ilog2();
    let block = |b: &crate::chip::BlockNeed| {
        let (inputs, taps) = ((b.from.c / b.groups) as u64, b.window.taps() as u64);
        if limits.padded_addresses {
            return inputs << (exponent(taps) + exponent(outputs));
        }
        let bits = inputs * taps * outputs * limits.weight_bits.unwrap_or(1);
        bits.div_ceil(limits.word_bits.unwrap_or(1))
    };
    layer.blocks.iter().map(block).sum()
}

/// Words of neuron memory: one a neuron.
pub fn neuron_words(layer: &LayerNeed, outputs: u64) -> u64 {
    outputs * layer.shape.area() as u64
}

/// Words of bias memory: one an output channel.
pub fn bias_words(outputs: u64) -> u64 {
    outputs
}

/// A core's memory: its own entry, or the one for all.
fn at(memory: &[u64], core: usize) -> Option<u64> {
    if memory.len() == 1 { Some(memory[0]) } else { memory.get(core).copied() }
}

struct Part {
    layer: usize,
    outputs: u64,
}

pub fn place(chip: &Chip, demand: &Demand<'_>) -> Placement {
    let limits = &chip.layer;
    let mut placement = Placement::default();
    // Only as many cores as matter: every part could have one of its own.
    let listed = [&limits.weight_memory, &limits.neuron_memory, &limits.bias_memory].map(|m| m.len()).into_iter().max();
    let kinds = listed.unwrap_or(0).max(1);
    let fits = |layer: &LayerNeed, outputs: u64, core: usize| {
        let below = |need: u64, memory: &[u64]| at(memory, core).is_none_or(|m| need <= m);
        below(weight_words(limits, layer, outputs), &limits.weight_memory)
            && below(neuron_words(layer, outputs), &limits.neuron_memory)
            && below(bias_words(outputs), &limits.bias_memory)
    };
    let mut parts = Vec::new();
    let mut cut = vec![1; demand.layers.len()];
    for (i, layer) in demand.layers.iter().enumerate() {
        let channels = layer.shape.c as u64;
        let most = if limits.split { channels } else { 1 };
        let pieces = (1..=most).find(|p| (0..kinds).any(|core| fits(layer, channels.div_ceil(*p), core)));
        match pieces {
            Some(pieces) => {
                cut[i] = pieces;
                let each = channels.div_ceil(pieces);
                let outputs = (0..pieces).map(|p| each.min(channels - (p * each).min(channels))).filter(|o| *o > 0);
                parts.extend(outputs.map(|outputs| Part { layer: i, outputs }));
            }
            None => {
                let need = format!(
                    "{} words of weight memory, {} of neuron memory and {} of bias memory",
                    weight_words(limits, layer, channels),
                    neuron_words(layer, channels),
                    bias_words(channels)
                );
                let why = format!("{need}: more than any core has at once");
                placement.unplaced.push(Unplaced { layer: layer.name.clone(), why });
            }
        }
    }
    let there = chip.chip.cores.map_or(parts.len(), |c| c as usize);
    // Memories listed one by one are those cores; one entry stands for all.
    let held = matched(parts.len(), there, |part, core| {
        fits(&demand.layers[parts[part].layer], parts[part].outputs, if kinds == 1 { 0 } else { core })
    });
    // a layer that no core holds needs one all the same
    placement.cores = (parts.len() + placement.unplaced.len()) as u64;
    let missed: Vec<usize> = (0..parts.len()).filter(|p| held[*p].is_none()).collect();
    // Too many parts for the chip is the chip's finding; a part without a core that fits, while there are enough cores, is
    // the layer's.
    if parts.len() <= there {
        for part in missed {
            let layer = &demand.layers[parts[part].layer];
            let why = "the cores whose memories are large enough for it are taken by other layers".to_string();
            placement.unplaced.push(Unplaced { layer: layer.name.clone(), why });
        }
    }
    for (i, layer) in demand.layers.iter().enumerate() {
        let own: Vec<usize> = (0..parts.len()).filter(|p| parts[*p].layer == i).collect();
        let Some(&first) = own.first() else { continue };
        let outputs = parts[first].outputs;
        let fitting = || (0..kinds).find(|core| fits(layer, outputs, *core)).unwrap_or(0);
        let core = if kinds == 1 { 0 } else { held[first].unwrap_or_else(fitting) };
        let used = [
            (weight_words(limits, layer, outputs), at(&limits.weight_memory, core), "weight memory"),
            (neuron_words(layer, outputs), at(&limits.neuron_memory, core), "neuron memory"),
            (bias_words(outputs), at(&limits.bias_memory, core), "bias memory"),
        ];
        let (fullest, limit) = super::fullest(&used);
        let words: u64 = own.iter().map(|p| weight_words(limits, layer, parts[*p].outputs)).sum();
        placement.layers.push(Placed {
            layer: layer.name.clone(),
            cores: own.len() as u64,
            fullest,
            limit,
            split: (own.len() > 1).then(|| format!("{} parts of up to {outputs} output channels", own.len())),
            synapses: layer.weights,
            memory_bits: limits.word_bits.map(|bits| words * bits),
            reaches: 0,
        });
    }
    placement
}

/// A core for as many parts as can have one (augmenting paths), lower cores first.
fn matched(parts: usize, cores: usize, fits: impl Fn(usize, usize) -> bool) -> Vec<Option<usize>> {
    fn assign(
        part: usize,
        cores: usize,
        fits: &dyn Fn(usize, usize) -> bool,
        seen: &mut [bool],
        of: &mut [Option<usize>],
    ) -> bool {
        for core in 0..cores {
            if seen[core] || !fits(part, core) {
                continue;
            }
            seen[core] = true;
            let free = match of[core] {
                None => true,
                Some(other) => assign(other, cores, fits, seen, of),
            };
            if free {
                of[core] = Some(part);
                return true;
            }
        }
        false
    }
    let mut of = vec![None; cores];
    let mut held = vec![None; parts];
    for part in 0..parts {
        assign(part, cores, &fits, &mut vec![false; cores], &mut of);
    }
    of.iter().enumerate().for_each(|(core, part)| {
        if let Some(part) = part {
            held[*part] = Some(core);
        }
    });
    held
}
