//! A layer that reads the pruned one: what it lacks of its trained pre-activations, and what it asks of its input.

use super::super::back::Back;
use super::super::linear::Linear;
use super::super::remainder;
use super::super::residual::Baseline;
use super::super::worker::At;
use crate::compute::gram::PatchSpec;
use crate::compute::{Buffer, Device, activate, gather};
use crate::error::Result;
use crate::forward::NodeRunner;
use crate::network::{Activation, Network, Op, Shape};

/// A reader of layer `of`, as it is fitted now.
pub struct Reader {
    node: usize,
    of: usize,
    /// Channels that stay, and how many there were.
    rows: Vec<usize>,
    /// Per block: the node that it reads, and its patches; those of `of` over the channels that stay.
    sources: Vec<usize>,
    pub blocks: Vec<PatchSpec>,
    pub output: Shape,
    /// Where it is silent, any current that keeps it so will do.
    rectified: bool,
    /// output.c x n, and output.c: the trained weights from what stays, and as fitted now.
    pub trained: Vec<f64>,
    pub w: Vec<f64>,
    pub bias: Vec<f64>,
    /// What its squared errors count.
    pub unit: f64,
}

impl Reader {
    /// Node `node` as a reader of layer `of` with only the channels `kept`; `rows` of its own stay. `None` if it is none that
    /// errors can be followed through: it reads the layer past other nodes, or later layers, or by groups, or is no rectified
    /// or linear layer.
    pub fn new(network: &Network, node: usize, rows: Vec<usize>, of: usize, kept: &[usize]) -> Option<Self> {
        let Op::Neurons { blocks, bias, activation } = &network.nodes[node].op else { return None };
        let rectified = match activation {
            Activation::Relu => true,
            Activation::Linear => false,
            _ => return None,
        };
        let of_trained = network.nodes[node].shape;
        // the trained network has no remainders
        let real = |source: usize| remainder::of(network, source).is_none();
        let read: Vec<_> = blocks.iter().filter(|b| real(b.source)).collect();
        if read.iter().any(|b| b.groups != 1 || b.source > of) {
            return None;
        }
        let whole = |source: usize| network.nodes[source].shape;
        let shape = |source: usize| if source == of { Shape { c: kept.len(), ..whole(of) } } else { whole(source) };
        let mut trained = Vec::new();
        for &row in &rows {
            for block in &read {
                let (width, taps) = (block.weight.len() / of_trained.c, block.window.taps());
                let weights = block.weight[row * width..(row + 1) * width].chunks_exact(taps).enumerate();
                let stays = |c: usize| block.source != of || kept.binary_search(&c).is_ok();
                trained.extend(weights.filter(|(c, _)| stays(*c)).flat_map(|(_, w)| w).map(|w| f64::from(*w)));
            }
        }
        let patches = read.iter().map(|b| PatchSpec { input: shape(b.source), window: b.window, groups: 1 });
        Some(Self {
            node,
            of,
            sources: read.iter().map(|b| b.source).collect(),
            blocks: patches.collect(),
            output: Shape { c: rows.len(), ..of_trained },
            rectified,
            w: trained.clone(),
            bias: rows.iter().map(|&r| f64::from(bias[r])).collect(),
            trained,
            rows,
            unit: 1.0,
        })
    }

    pub fn inputs(&self) -> usize {
        self.blocks.iter().map(PatchSpec::entries).sum()
    }

    /// First input of every block that reads the pruned layer, and the block.
    fn own(&self) -> impl Iterator<Item = (usize, &PatchSpec)> {
        let firsts = self.blocks.iter().scan(0, |next, b| Some(std::mem::replace(next, *next + b.entries())));
        let blocks = firsts.zip(&self.blocks).zip(&self.sources);
        blocks.filter(|(_, source)| **source == self.of).map(|(block, _)| block)
    }

    /// output.c x entries: the weights of the block whose inputs begin at `first`.
    fn part(&self, first: usize, block: &PatchSpec) -> Vec<f32> {
        let row = |row: &[f64]| row[first..first + block.entries()].iter().map(|w| *w as f32).collect::<Vec<_>>();
        self.w.chunks_exact(self.inputs()).flat_map(row).collect()
    }
}

/// A reader on a device.
pub struct Placed<'a> {
    reader: &'a Reader,
    aware: bool,
    /// The trained layer, and which of its values stay, if not all.
    whole: NodeRunner,
    picked: Option<Buffer<u32>>,
    pub now: Baseline,
    /// Per block that reads the pruned layer: forth without a bias, and back.
    forth: Linear,
    back: Vec<Back>,
}

impl<'a> Placed<'a> {
    pub fn new(dev: &Device, network: &Network, reader: &'a Reader, aware: bool) -> Result<Self> {
        let of_trained = network.nodes[reader.node].shape;
        let area = of_trained.area();
        let some = reader.rows.len() < of_trained.c;
        let picked = some
            .then(|| reader.rows.iter().flat_map(|&r| r * area..(r + 1) * area).map(|i| i as u32).collect::<Vec<_>>());
        let bias: Vec<f32> = reader.bias.iter().map(|b| *b as f32).collect();
        let own: Vec<_> = reader.own().collect();
        let parts: Vec<Vec<f32>> = own.iter().map(|(first, block)| reader.part(*first, block)).collect();
        let blocks: Vec<PatchSpec> = own.iter().map(|(_, block)| **block).collect();
        let rows = 0..reader.output.c;
        let widths: Vec<usize> = blocks.iter().map(PatchSpec::entries).collect();
        let w: Vec<f32> = rows
            .flat_map(|r| parts.iter().zip(&widths).flat_map(move |(part, n)| &part[r * n..(r + 1) * n]))
            .copied()
            .collect();
        let back = blocks.iter().zip(&parts).map(|(block, w)| Back::new(dev, block, reader.output, w));
        Ok(Self {
            reader,
            aware: aware && reader.rectified,
            whole: NodeRunner::new(dev, network, reader.node)?,
            picked: picked.map(|p| dev.upload(&p)).transpose()?,
            now: Baseline::new(dev, &reader.blocks, reader.output, &reader.w, &bias)?,
            forth: Linear::new(dev, &blocks, reader.output, &w, &vec![0.0; reader.output.c])?,
            back: back.collect::<Result<_>>()?,
        })
    }

    /// Its inputs where the pruned layer gives `h`.
    pub fn inputs(&self, at: &mut At<'_>) -> Result<Vec<Option<Buffer<f32>>>> {
        let other = |&source: &usize| (source != self.reader.of).then(|| at.activations(source)).transpose();
        self.reader.sources.iter().map(other).collect()
    }

    /// What it lacks of the trained pre-activations of the rows that stay; nothing where it is silent as it should be.
    /// `whole`: the trained layer's activations before it was pruned.
    pub fn lacks(&self, at: &mut At<'_>, whole: &Buffer<f32>, xs: &[&Buffer<f32>]) -> Result<Buffer<f32>> {
        let (dev, images, network) = (at.dev, at.images(), at.walk.network);
        let sources = network.nodes[self.reader.node].sources();
        // of the trained layer's inputs only remainders, which are zero, are not among its own
        let own = |source: usize| self.reader.sources.iter().position(|&s| s == source).map(|k| xs[k]);
        let silent: Vec<Option<Buffer<f32>>> =
            sources.iter().map(|&s| own(s).is_none().then(|| at.activations(s)).transpose()).collect::<Result<_>>()?;
        let input = |(k, &s): (usize, &usize)| match own(s) {
            Some(_) if s == self.reader.of => whole,
            Some(x) => x,
            None => silent[k].as_ref().unwrap_or(whole),
        };
        let inputs: Vec<&Buffer<f32>> = sources.iter().enumerate().map(input).collect();
        let mut t = self.whole.linear(dev, images, &inputs)?;
        if let Some(index) = &self.picked {
            let mut rows = dev.scratch(images * index.len())?;
            gather::into(
                dev,
                index,
                images,
                network.nodes[self.reader.node].shape.len(),
                &t,
                0,
                index.len(),
                &mut rows,
            )?;
            t = rows;
        }
        let mut rest = self.now.subtract(dev, images, xs, &t)?;
        if self.aware {
            activate::lacking(dev, f32::MAX, &t, &mut rest)?;
        }
        Ok(rest)
    }

    /// What a change of the pruned layer's activations changes here.
    pub fn forth(&self, dev: &Device, images: usize, change: &Buffer<f32>) -> Result<Buffer<f32>> {
        self.forth.run(dev, images, &vec![change; self.back.len()])
    }

    /// Adds to `asked` (images x the pruned layer's values) what errors `rest` ask of it.
    pub fn back(&self, dev: &Device, images: usize, rest: &Buffer<f32>, asked: &mut [f32]) -> Result<()> {
        for back in &self.back {
            let part = back.run(dev, images, rest)?;
            let unit = self.reader.unit as f32;
            asked.iter_mut().zip(dev.view(&part)?.iter()).for_each(|(all, part)| *all += unit * part);
        }
        Ok(())
    }
}
