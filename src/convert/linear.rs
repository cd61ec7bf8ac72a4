//! A linear layer on a device: W x + b over the patches of its inputs.

use crate::compute::conv::{self, Conv, Start};
use crate::compute::gram::PatchSpec;
use crate::compute::{Buffer, Device};
use crate::error::Result;
use crate::network::Shape;

pub(super) struct Linear {
    convs: Vec<Conv>,
    weights: Vec<Buffer<f32>>,
    bias: Buffer<f32>,
}

impl Linear {
    /// `w`: output.c x n over the blocks' patch entries in order; `bias`: output.c.
    pub fn new(dev: &Device, blocks: &[PatchSpec], output: Shape, w: &[f32], bias: &[f32]) -> Result<Self> {
        let n: usize = blocks.iter().map(PatchSpec::entries).sum();
        let mut first = 0;
        let mut weights = Vec::with_capacity(blocks.len());
        for block in blocks {
            let columns = first..first + block.entries();
            let part: Vec<f32> = w.chunks_exact(n).flat_map(|row| &row[columns.clone()]).copied().collect();
            weights.push(dev.upload(&part)?);
            first = columns.end;
        }
        let conv = |b: &PatchSpec| Conv { input: b.input, output, window: b.window, groups: b.groups };
        Ok(Self { convs: blocks.iter().map(conv).collect(), weights, bias: dev.upload(bias)? })
    }

    /// W x + b. `xs`: for each block images x input.len().
    pub fn run(&self, dev: &Device, images: usize, xs: &[&Buffer<f32>]) -> Result<Buffer<f32>> {
        let mut y = dev.scratch(images * self.convs.first().map_or(0, |conv| conv.output.len()))?;
        for (k, conv) in self.convs.iter().enumerate() {
            let start = if k == 0 { Start::Bias(&self.bias) } else { Start::Keep };
            conv::real(dev, conv, images, xs[k], &self.weights[k], start, &mut y)?;
        }
        Ok(y)
    }
}
