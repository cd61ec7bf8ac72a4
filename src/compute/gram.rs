//! Streamed least-squares moments of a layer: H = sum x x^T, b = sum z x^T and the sums that centre them, over all
//! images and output positions, for patches x that are never stored as a matrix. METHOD section 2.
//!
//! f32 products in short blocks, f64 between blocks: relative errors near 1e-7 at a million samples, and integers come
//! out exact while a block's sum stays below 2^24 (samples in a block: 4096 on the CPU, 16,384 on a GPU; fewer for large
//! integers, see `Moments::integers`). Spike counts are multiplied as bytes, see `Moments::counts`.

mod bytes;
mod host;
mod shader;

pub(super) use shader::tiles;

use super::buffer::{Buffer, expect_len};
use super::device::Device;
use super::patch::check_window;
use crate::error::{Error, Result};
use crate::network::{Shape, Window};

/// One block of a layer's inputs: what its window sees of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchSpec {
    pub input: Shape,
    pub window: Window,
    /// The same for all blocks of a layer.
    pub groups: usize,
}

impl PatchSpec {
    /// Patch entries of one group: channels of the group x taps.
    pub fn entries(&self) -> usize {
        self.input.c / self.groups * self.window.taps()
    }
}

/// The moments of one layer, group by group. Entries are ordered by block, channel, tap row, tap column.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums {
    pub groups: usize,
    /// Patch entries of one group, all blocks together.
    pub n: usize,
    /// Outputs of one group.
    pub m: usize,
    /// Samples: images x output positions.
    pub count: u64,
    /// groups x n x n: sum x x^T, both halves; nothing after `Moments::targets_only`.
    pub h: Vec<f64>,
    /// groups x m x n: sum z x^T.
    pub b: Vec<f64>,
    /// groups x n.
    pub x_sum: Vec<f64>,
    /// groups x m.
    pub z_sum: Vec<f64>,
    /// groups x m: sum z^2.
    pub zz: Vec<f64>,
}

impl Sums {
    fn new(layer: &Layer) -> Self {
        let (groups, n, m) = (layer.groups, layer.n(), layer.m());
        Sums {
            groups,
            n,
            m,
            count: 0,
            h: vec![0.0; groups * n * n],
            b: vec![0.0; groups * m * n],
            x_sum: vec![0.0; groups * n],
            z_sum: vec![0.0; groups * m],
            zz: vec![0.0; groups * m],
        }
    }

    /// Adds sums over other samples of the same layer.
    pub fn add(&mut self, other: &Sums) {
        let pairs = [
            (&mut self.h, &other.h),
            (&mut self.b, &other.b),
            (&mut self.x_sum, &other.x_sum),
            (&mut self.z_sum, &other.z_sum),
            (&mut self.zz, &other.zz),
        ];
        for (all, part) in pairs {
            all.iter_mut().zip(part).for_each(|(a, p)| *a += p);
        }
        self.count += other.count;
    }

    /// Copies the lower halves of `h` to the upper ones.
    fn mirror(&mut self) {
        for h in self.h.chunks_mut((self.n * self.n).max(1)) {
            for r in 0..self.n {
                for c in 0..r {
                    h[c * self.n + r] = h[r * self.n + c];
                }
            }
        }
    }
}

/// What is summed over.
#[derive(Debug, Clone)]
struct Layer {
    blocks: Vec<PatchSpec>,
    output: Shape,
    groups: usize,
}

impl Layer {
    fn n(&self) -> usize {
        self.blocks.iter().map(PatchSpec::entries).sum()
    }

    fn m(&self) -> usize {
        self.output.c / self.groups
    }
}

/// f32 holds all integers up to this.
const EXACT: u64 = 1 << 24;

/// Whether a device has room for the sums of a layer with these input blocks: half of what is left to it at most. Where it
/// has not, `Moments` fetches what is to be added and adds it on the host.
pub fn fits(dev: &Device, blocks: &[PatchSpec], output: Shape, groups: usize) -> bool {
    !dev.is_gpu() || device_bytes(&Layer { blocks: blocks.to_vec(), output, groups }) <= dev.room() / 2
}

/// Bytes of the sums on a device, undivided.
fn device_bytes(layer: &Layer) -> u64 {
    let (n, m) = (layer.n() as u64, layer.m() as u64);
    let entries = n.saturating_mul(n).saturating_add(m.saturating_mul(n)).saturating_add(2 * (n + m));
    entries.saturating_mul(layer.groups as u64 * size_of::<f32>() as u64)
}

/// Sums under way.
pub struct Moments {
    dev: Device,
    layer: Layer,
    count: u64,
    side: Side,
}

enum Side {
    Host(host::Accumulator),
    Gpu(shader::Accumulator),
}

impl Moments {
    /// Starts the sums of a layer with these input blocks (at least one). Errors: groups that do not divide the
    /// channels or differ between blocks.
    pub fn new(dev: &Device, blocks: &[PatchSpec], output: Shape, groups: usize) -> Result<Moments> {
        let layer = Layer { blocks: blocks.to_vec(), output, groups };
        if blocks.is_empty() || groups == 0 || !output.c.is_multiple_of(groups) {
            return Err(Error::work("moments", format!("{} blocks, {groups} groups, output {output}", blocks.len())));
        }
        for b in blocks {
            if b.groups != groups || !b.input.c.is_multiple_of(groups) {
                return Err(Error::work("moments", format!("{b:?} in a layer of {groups} groups")));
            }
            check_window("moments", b.input, output, &b.window)?;
        }
        let side = match dev.is_gpu() && fits(dev, blocks, output, groups) {
            false => Side::Host(host::Accumulator::new(&layer)),
            true => Side::Gpu(shader::Accumulator::new(dev, &layer)),
        };
        Ok(Moments { dev: dev.clone(), layer, count: 0, side })
    }

    /// Before the first sample: the inputs are integers up to `largest` in size, and H is to be exact. Blocks become short
    /// enough for that, unless they would hold less than 64 samples.
    pub fn integers(self, largest: u64) -> Moments {
        self.whole(largest, false)
    }

    /// As `integers`, and none is negative: up to 255, a GPU multiplies them by packed 8-bit dot products; up to 127, so
    /// does a CPU where it can.
    pub fn counts(self, largest: u64) -> Moments {
        self.whole(largest, true)
    }

    fn whole(mut self, largest: u64, counts: bool) -> Moments {
        match &mut self.side {
            Side::Host(sums) => {
                let most = EXACT / largest.saturating_mul(largest).max(1);
                if most >= 64 {
                    sums.set_block(host::BLOCK.min(most as usize));
                }
                if counts {
                    sums.set_counts(&self.layer, largest);
                }
            }
            Side::Gpu(sums) => sums.integers(largest, counts),
        }
        self
    }

    /// Before the first sample: H is known from elsewhere and not summed: `Sums::h` stays empty.
    pub fn targets_only(mut self) -> Moments {
        match &mut self.side {
            Side::Host(sums) => sums.targets_only(),
            Side::Gpu(sums) => sums.targets_only(),
        }
        self
    }

    /// Adds the samples of `images` images. `xs`: for each block images x input.len(); `z`: images x output.len().
    /// Errors: lengths that do not fit, sizes beyond the device.
    pub fn add(&mut self, images: usize, xs: &[&Buffer<f32>], z: &Buffer<f32>) -> Result<()> {
        if xs.len() != self.layer.blocks.len() {
            return Err(Error::work("moments", format!("{} inputs for {} blocks", xs.len(), self.layer.blocks.len())));
        }
        for (x, block) in xs.iter().zip(&self.layer.blocks) {
            expect_len("moments: input", x, images * block.input.len())?;
        }
        expect_len("moments: targets", z, images * self.layer.output.len())?;
        if images == 0 {
            return Ok(());
        }
        self.count += (images * self.layer.output.area()) as u64;
        match &mut self.side {
            Side::Host(sums) => {
                let xs = xs.iter().map(|x| self.dev.view(x)).collect::<Result<Vec<_>>>()?;
                let xs: Vec<&[f32]> = xs.iter().map(|x| &**x).collect();
                sums.add(&self.layer, images, &xs, &self.dev.view(z)?);
                Ok(())
            }
            Side::Gpu(sums) => sums.add(&self.layer, images, xs, z),
        }
    }

    /// The sums over all that was added to any of them, one after the other (at least one).
    pub fn finish_all(parts: impl IntoIterator<Item = Moments>) -> Result<Sums> {
        let mut parts = parts.into_iter();
        let first = parts.next().ok_or_else(|| Error::work("moments", "of nothing"))?;
        let mut all = first.finish()?;
        for part in parts {
            all.add(&part.finish()?);
        }
        Ok(all)
    }

    /// The sums over all that was added.
    pub fn finish(self) -> Result<Sums> {
        let mut sums = match self.side {
            Side::Host(sums) => sums.finish(&self.layer),
            Side::Gpu(sums) => sums.finish()?,
        };
        sums.count = self.count;
        sums.mirror();
        Ok(sums)
    }
}
