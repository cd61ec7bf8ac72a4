//! A fitted layer as the chip stores it: codes, thresholds and biases in integers of a common unit, or real synapses.

use super::encode::Code;
use super::layer::{Solved, Task};
use super::walk::Walk;
use super::{contrast, quantize};
use crate::chip::{Grid, ScaleOwner};
use crate::error::Result;
use crate::fit::Solution;
use crate::network::Shape;
use crate::spiking::{Decode, Layer, SpikingNode, SpikingOp, State, Synapses, Weights};

impl Walk<'_> {
    /// Codes, thresholds and biases in the chip's integers, or real synapses where the chip has no integer grid.
    pub(super) fn store(&self, task: &Task, solved: &Solved) -> Result<Layer> {
        let n = task.inputs();
        let limits = self.limits(task);
        let initial = self.spiking.model.initial_potential();
        let integer = solved.solutions.iter().all(|s| s.codes.is_some())
            && !self.spiking.model.is_leaky()
            && self.rules.grid.as_ref().is_some_and(|g| g.regular().is_some());
        let rows = solved.bias.len();
        let settle = self.windows[task.index];
        if !integer {
            let w: Vec<f64> = solved.solutions.iter().flat_map(|s| s.w.iter().copied()).collect();
            let state = State::Real {
                bias: solved.bias.iter().map(|&b| b as f32).collect(),
                initial: vec![if task.fires { initial as f32 } else { 0.0 }; rows],
            };
            let synapses =
                self.synapses(task, rows, |row, column, shift| (w[row * n + column] * f64::from(1u32 << shift)) as f32);
            let synapses = synapses.into_iter().map(|(s, w)| with(s, Weights::Real(w))).collect();
            return Ok(Layer { synapses, state, fires: task.fires, settle, unit: vec![1.0; rows], types: vec![] });
        }
        let mut codes: Vec<i32> = solved.solutions.iter().flat_map(signed_codes).collect();
        let mut scale: Vec<f64> = solved.solutions.iter().flat_map(|s| s.scale.iter().copied()).collect();
        if task.fires {
            quantize::coarsen(&mut scale, &mut codes, &limits);
        }
        let sources: Vec<usize> = task.blocks.iter().map(|b| b.source).collect();
        // steps that are added up before anything fires
        let (steps, at_once) = match self.spiking.settles(&sources) {
            false => (self.spiking.steps, 1),
            true => (1, u64::from(self.spiking.steps)),
        };
        let peaks: Vec<u64> = task
            .blocks
            .iter()
            .zip(&task.columns)
            .flat_map(|(b, c)| std::iter::repeat_n(self.spiking.nodes[b.source].peak << c.shift, c.channels * c.taps))
            .collect();
        let peaks: Vec<u64> = peaks.iter().map(|p| p * at_once).collect();
        let added = quantize::Added { at_once, steps: if task.fires { 1 } else { u64::from(steps) } };
        quantize::shrink(&mut scale, &mut codes, &peaks, &solved.bias, &added, &limits);
        let bounds: Vec<u64> = codes.chunks_exact(n).map(|row| quantize::bound(row, &peaks)).collect();
        let units = quantize::units(&scale, &solved.bias, &bounds, &added, task.fires, &limits);
        // The threshold's rounding changes the weights a little: the bias keeps the mean current where it was.
        let state = quantize::state(task.name, &units, &solved.bias, initial, task.fires, limits.state)?;
        let synapses = self
            .synapses(task, rows, |row, column, _| codes[row * n + column])
            .into_iter()
            .zip(&task.columns)
            .map(|((s, codes), c)| with(s, Weights::Codes { codes, shift: c.shift + units.fraction }))
            .collect();
        let types = solved.solutions.iter().filter_map(|s| s.types.as_deref()).flatten().copied().collect();
        Ok(Layer { synapses, state, fires: task.fires, settle, unit: units.unit, types })
    }

    /// What the chip allows the layer's integers.
    pub(super) fn limits(&self, task: &Task) -> quantize::Limits<'_> {
        let [least, most] = self.rules.shifts.unwrap_or([0, u32::MAX]);
        let shifted = task.columns.iter().map(|c| c.shift).max().unwrap_or(0);
        quantize::Limits {
            state: &self.options.chip.state,
            grid: self.rules.grid.as_ref().map_or(Grid::Ternary, Grid::with_signs),
            fraction: (least, most.saturating_sub(shifted).max(least)),
            one_scale: self.rules.owner == ScaleOwner::Layer,
            power_of_two: self.rules.power_of_two,
        }
    }

    /// Splits rows of n columns into blocks; `value(row, column, shift)`.
    fn synapses<T>(
        &self,
        task: &Task,
        rows: usize,
        value: impl Fn(usize, usize, u32) -> T,
    ) -> Vec<((usize, crate::network::Window, usize), Vec<T>)> {
        let mut offset = 0;
        task.blocks
            .iter()
            .zip(&task.columns)
            .map(|(b, c)| {
                let width = c.channels * c.taps;
                let first = offset;
                offset += width;
                let w = (0..rows)
                    .flat_map(|row| (first..first + width).map(move |column| (row, column)))
                    .map(|(row, column)| value(row, column, c.shift))
                    .collect();
                ((b.source, b.window, b.groups), w)
            })
            .collect()
    }

    pub(super) fn append(&self, task: &Task, layer: Layer, code: Option<Code>) -> SpikingNode {
        let decode = match code {
            Some(code) => {
                let decode = Decode {
                    channels: task.shape.c,
                    origin: (0..task.shape.c as u32).flat_map(|c| std::iter::repeat_n(c, code.population())).collect(),
                    gain: code.ramps.iter().flatten().map(|r| r.value).collect(),
                    base: code.base,
                };
                match task.picked {
                    Some(picked) => picked.decode(decode),
                    None => decode,
                }
            }
            None if task.contrast.is_some() => contrast::decode(task.shape.c - 1),
            None => Decode::plain(vec![1.0; task.shape.c]),
        };
        SpikingNode {
            name: task.name.to_string(),
            shape: Shape { c: decode.origin.len(), ..task.shape },
            op: SpikingOp::Neurons(layer),
            decode,
            peak: u64::from(self.spiking.model.max_spikes),
            constant: false,
        }
    }
}

/// Codes with the signs of their inputs, where those have any.
fn signed_codes(solution: &Solution) -> Vec<i32> {
    let mut codes = solution.codes.clone().unwrap_or_default();
    if let Some(signs) = &solution.signs {
        codes.chunks_mut(signs.len()).for_each(|row| row.iter_mut().zip(signs).for_each(|(q, s)| *q *= i32::from(*s)));
    }
    codes
}

fn with((source, window, groups): (usize, crate::network::Window, usize), weight: Weights) -> Synapses {
    Synapses { source, window, groups, weight }
}
