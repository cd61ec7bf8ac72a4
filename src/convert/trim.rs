//! A layer of the walk with fewer channels than the trained one: its rows, biases and pre-activations.

use super::prune::{Plan, Pruned};
use super::refine::Refined;
use crate::compute::{Buffer, Device, Team, gather};
use crate::error::Result;
use crate::network::{Block, Shape};
use crate::spiking::Decode;

/// What a pruned network changes in a layer.
pub(super) struct Trim {
    pub blocks: Vec<Block>,
    pub bias: Vec<f32>,
    /// Channels of the trained layer that stay, if not all do, and how to pick their values from an image's.
    pub picked: Option<Picked>,
}

pub(super) struct Picked {
    /// Of the trained layer.
    pub shape: Shape,
    pub kept: Vec<usize>,
    /// One a device of the team: what to pick of an image.
    index: Vec<Buffer<u32>>,
    /// Per trained channel: the mean activation.
    mean: Vec<f64>,
    pub told: Pruned,
}

impl Trim {
    /// `None` if the layer stays as it is. `shape`: of the trained layer.
    pub fn of(
        team: &Team,
        plan: &Plan,
        index: usize,
        shape: Shape,
        blocks: &[Block],
        bias: &[f32],
    ) -> Result<Option<Self>> {
        let kept = plan.kept.get(&index);
        let weights = plan.weights.get(&index);
        if kept.is_none() && weights.is_none() {
            return Ok(None);
        }
        let rows = kept.cloned().unwrap_or_else(|| (0..shape.c).collect());
        let n: usize = blocks.iter().map(|b| b.weight.len() / shape.c).sum();
        let mut first = 0;
        let block = |b: &Block| {
            let width = b.weight.len() / shape.c;
            let columns = first..first + width;
            first += width;
            let weight = match weights {
                Some(w) => w.chunks_exact(n).flat_map(|row| row[columns.clone()].iter().map(|v| *v as f32)).collect(),
                None => rows.iter().flat_map(|&r| b.weight[r * width..(r + 1) * width].iter().copied()).collect(),
            };
            // a depthwise layer has as many groups as it has inputs left
            let groups = if b.groups == 1 { 1 } else { rows.len() * b.groups / shape.c };
            Block { weight, groups, ..b.clone() }
        };
        let blocks = blocks.iter().map(block).collect();
        let picked = match kept {
            Some(kept) => {
                let index_of: Vec<u32> =
                    kept.iter().flat_map(|&c| (c * shape.area()..(c + 1) * shape.area()).map(|i| i as u32)).collect();
                Some(Picked {
                    shape,
                    kept: kept.clone(),
                    index: team.devices().map(|dev| dev.upload(&index_of)).collect::<Result<_>>()?,
                    mean: plan.mean[&index].clone(),
                    told: plan.told[&index],
                })
            }
            None => None,
        };
        Ok(Some(Self { blocks, bias: rows.iter().map(|&r| bias[r]).collect(), picked }))
    }

    /// Makes the rows those of `refined`; `trained`: the whole layer's blocks.
    pub fn refine(&mut self, trained: &[Block], refined: &Refined) {
        let Some(picked) = &mut self.picked else { return };
        let n = refined.w.len() / picked.kept.len();
        let mut first = 0;
        for (block, trained) in self.blocks.iter_mut().zip(trained) {
            let width = trained.weight.len() / picked.shape.c;
            let rows = block.weight.chunks_exact_mut(width).zip(refined.w.chunks_exact(n));
            for ((row, refined), &kept) in rows.zip(&picked.kept) {
                // fitted to what stays of its inputs, it changes as the row of all inputs does
                let trained = &trained.weight[kept * width..(kept + 1) * width];
                let change = refined[first..first + width].iter().zip(trained);
                row.iter_mut().zip(change).for_each(|(w, (new, old))| *w += new - old);
            }
            first += width;
        }
        self.bias.clone_from(&refined.bias);
        picked.told.refined = Some([refined.before, refined.after]);
    }
}

impl Picked {
    /// The kept channels of `z`, `[images][trained shape]`, on device `number` of the team.
    pub fn pick(&self, (number, dev): (usize, &Device), images: usize, z: &Buffer<f32>) -> Result<Buffer<f32>> {
        let index = &self.index[number];
        let mut out = dev.scratch(images * index.len())?;
        gather::into(dev, index, images, self.shape.len(), z, 0, index.len(), &mut out)?;
        Ok(out)
    }

    /// `decode` over the kept channels made one over the trained ones; those that are gone stand at their means.
    pub fn decode(&self, decode: Decode) -> Decode {
        let mut base = self.mean.clone();
        self.kept.iter().zip(&decode.base).for_each(|(&c, b)| base[c] = *b);
        let origin = decode.origin.iter().map(|&o| self.kept[o as usize] as u32).collect();
        Decode { channels: self.shape.c, origin, base, ..decode }
    }
}
