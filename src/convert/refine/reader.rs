//! A layer that reads the pruned one: what it lacks of its trained pre-activations, and what it asks of its input.

use super::super::aware::needed;
use super::super::linear::Linear;
use super::super::remainder;
use super::super::residual::Baseline;
use super::super::worker::At;
use crate::compute::conv::{self, Conv, Start};
use crate::compute::gram::PatchSpec;
use crate::compute::{Buffer, Device, gather};
use crate::error::Result;
use crate::forward::NodeRunner;
use crate::network::{Activation, Network, Op, Shape, Window};

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
        let rest = self.now.subtract(dev, images, xs, &t)?;
        if !self.aware {
            return Ok(rest);
        }
        let (t, rest) = (dev.view(&t)?, dev.view(&rest)?);
        let lacking = |(t, rest): (&f32, &f32)| needed(*t, *rest, f32::INFINITY);
        dev.upload(&t.iter().zip(rest.iter()).map(lacking).collect::<Vec<_>>())
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

/// The transpose of a convolution, as a convolution of its outputs.
struct Back {
    /// Outputs set apart as far as the window's stride, where it has one: per value what it is of an image's.
    apart: Option<(Buffer<u32>, usize)>,
    conv: Conv,
    weights: Buffer<f32>,
}

impl Back {
    /// `w`: output.c x block.entries().
    fn new(dev: &Device, block: &PatchSpec, output: Shape, w: &[f32]) -> Result<Self> {
        let (input, window) = (block.input, block.window);
        if output.area() == 1 && window == Window::whole(input) {
            // dense: every input by itself
            let all = Shape::new(input.len(), 1, 1);
            let weights: Vec<f32> = (0..all.c).flat_map(|i| w.chunks_exact(all.c).map(move |row| row[i])).collect();
            let conv = Conv { input: Shape::new(output.c, 1, 1), output: all, window: Window::POINT, groups: 1 };
            return Ok(Self { apart: None, conv, weights: dev.upload(&weights)? });
        }
        let [sy, sx] = window.stride;
        let spread = Shape { c: output.c, h: (output.h - 1) * sy + 1, w: (output.w - 1) * sx + 1 };
        let place = |i: usize| {
            let (c, y, x) = (i / spread.area(), i / spread.w % spread.h, i % spread.w);
            match y % sy == 0 && x % sx == 0 {
                true => ((c * output.h + y / sy) * output.w + x / sx) as u32,
                false => u32::MAX,
            }
        };
        let apart = match window.stride {
            [1, 1] => None,
            _ => Some((dev.upload(&(0..spread.len()).map(place).collect::<Vec<_>>())?, output.len())),
        };
        let pad = |a: usize| ((window.kernel[a] - 1) * window.dilation[a]) as isize - window.pad[a];
        let turned = Window { stride: [1, 1], pad: [pad(0), pad(1)], ..window };
        let (taps, entries) = (window.taps(), block.entries());
        // per input channel the outputs' taps, last one first
        let weights: Vec<f32> = (0..input.c)
            .flat_map(|c| w.chunks_exact(entries).flat_map(move |row| row[c * taps..(c + 1) * taps].iter().rev()))
            .copied()
            .collect();
        let conv = Conv { input: spread, output: input, window: turned, groups: 1 };
        Ok(Self { apart, conv, weights: dev.upload(&weights)? })
    }

    fn run(&self, dev: &Device, images: usize, rest: &Buffer<f32>) -> Result<Buffer<f32>> {
        let mut asked = dev.scratch(images * self.conv.output.len())?;
        match &self.apart {
            Some((index, len)) => {
                let mut apart = dev.scratch(images * index.len())?;
                gather::into(dev, index, images, *len, rest, 0, index.len(), &mut apart)?;
                conv::real(dev, &self.conv, images, &apart, &self.weights, Start::Zero, &mut asked)?;
            }
            None => conv::real(dev, &self.conv, images, rest, &self.weights, Start::Zero, &mut asked)?,
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <forth(x), r> = <x, back(r)>.
    #[test]
    fn back_is_the_transpose_of_forth() {
        let dev = Device::cpu();
        let mut rng = fastrand::Rng::with_seed(3);
        let images = 2;
        for (input, output, window) in [
            (Shape::new(3, 7, 6), Shape::new(4, 7, 6), Window { kernel: [3, 3], pad: [1, 1], ..Window::POINT }),
            (
                Shape::new(2, 8, 9),
                Shape::new(5, 4, 3),
                Window { kernel: [2, 3], stride: [2, 3], dilation: [1, 1], pad: [0, 1] },
            ),
            (
                Shape::new(2, 8, 8),
                Shape::new(3, 3, 4),
                Window { kernel: [3, 2], stride: [2, 2], dilation: [2, 1], pad: [1, 0] },
            ),
            (Shape::new(3, 4, 4), Shape::new(6, 2, 2), Window { stride: [1, 1], pad: [-1, -1], ..Window::POINT }),
            (Shape::new(3, 4, 2), Shape::new(6, 1, 1), Window::whole(Shape::new(3, 4, 2))),
        ] {
            let mut real = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.f32() - 0.5).collect() };
            let block = PatchSpec { input, window, groups: 1 };
            let w = real(output.c * block.entries());
            let (x, r) = (real(images * input.len()), real(images * output.len()));
            let (on, rest) = (dev.upload(&x).unwrap(), dev.upload(&r).unwrap());
            let forth = Linear::new(&dev, &[block], output, &w, &vec![0.0; output.c]).unwrap();
            let y = dev.download(&forth.run(&dev, images, &[&on]).unwrap()).unwrap();
            let back = Back::new(&dev, &block, output, &w).unwrap();
            let asked = dev.download(&back.run(&dev, images, &rest).unwrap()).unwrap();
            let product = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum() };
            let (left, right) = (product(&y, &r), product(&x, &asked));
            assert!((left - right).abs() < 1e-4 * (1.0 + left.abs()), "{window:?}: {left} {right}");
        }
    }
}
