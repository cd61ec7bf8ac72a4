//! The GPU side of the moments: which pairs of views are multiplied when and by which kernel, and how their partial sums
//! reach f64.

use rayon::prelude::*;

use super::{EXACT, Layer, PatchSpec, Sums};
use crate::compute::buffer::Buffer;
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Shader};
use crate::compute::patch::WindowParams;
use crate::compute::tiles::WIDE;
use crate::error::{Error, Result};
use crate::network::{Shape, Window};

const REALS: Shader = Shader { name: "gram.wgsl", source: include_str!("../../../shaders/gram.wgsl") };
const COUNTS: Shader = Shader { name: "gram_counts.wgsl", source: include_str!("../../../shaders/gram_counts.wgsl") };
/// Samples whose products are added up in f32 registers.
const CHUNK: usize = 1024;
/// Most samples that a partial sum in f32 takes before it is added to f64.
pub(super) const BLOCK: usize = 16 * CHUNK;
/// Most samples of a split of counts in one dispatch: the loops of an invocation stay far below the 65,535 iterations
/// that lavapipe runs.
const LONGEST: usize = 1 << 15;
/// Splits begin at multiples of so many samples.
const STRIDE: usize = 64;
/// Workgroups that keep a software rasterizer busy, or any GPU; small layers get there by splitting the samples. Twelve
/// waves of a large GPU's workgroups: the last one hardly counts.
const BUSY: [usize; 2] = [512, 2048];
/// Bytes of one part's partial sums when split for the sake of parallelism, and the share of a device's room that they may
/// take.
const MOST_SPLIT_BYTES: [u64; 2] = [32 << 20, 256 << 20];
const SPLIT_SHARE: u64 = 16;
const MOST_SPLITS: usize = 64;

const SMALL: usize = 16;

/// What the inputs are known to be.
#[derive(Debug, Clone, Copy)]
enum Values {
    Real,
    /// Integers up to this size.
    Integer(u64),
    /// Integers from 0 up to this, which a byte holds.
    Count(u64),
}

/// One block of inputs, or the targets as point-wise patches of themselves.
struct View {
    spec: PatchSpec,
    rows: usize,
    /// First row in x (or in z).
    offset: usize,
}

/// A band of rows of view `a` times view `b` (`None`: the sums of `a` and its squares).
struct Part {
    a: usize,
    b: Option<usize>,
    first_row: usize,
    rows: usize,
    columns: usize,
    /// Side of a tile.
    side: usize,
    /// By the kernel of counts, in u32; else f32.
    counts: bool,
    splits: usize,
    /// Most samples that a partial sum may take.
    block: usize,
    /// Samples that the partial sums have taken since the last transfer, at most, and the splits that have taken any.
    held: usize,
    used: usize,
    /// splits x groups x rows x columns of f32 or u32.
    sums: Buffer<u32>,
}

pub(super) struct Accumulator {
    dev: Device,
    /// The blocks in order, then the targets.
    views: Vec<View>,
    output: Shape,
    values: Values,
    symmetric: bool,
    /// Made for the first samples.
    parts: Vec<Part>,
    total: Sums,
}

/// `Params` of shaders/shared/gram.wgsl.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    a: WindowParams,
    b: WindowParams,
    rows_a: u32,
    rows_b: u32,
    first_row: u32,
    rows: u32,
    splits: u32,
    chunks: u32,
    length: u32,
    first_sample: u32,
    samples: u32,
    symmetric: u32,
    step: [u32; 3],
    wide: [u32; 3],
}

impl Part {
    /// Splits that have any of `samples` when each takes so many.
    fn splits_of(&self, samples: usize, each: usize) -> usize {
        self.splits.min(samples.div_ceil(each))
    }
}

/// Tiles of a side that cover a product, a symmetric one's lower half.
pub(in crate::compute) fn tiles(side: usize, rows: usize, columns: usize, symmetric: bool) -> usize {
    let [high, wide] = [rows, columns].map(|len| len.div_ceil(side));
    if symmetric { high * (high + 1) / 2 } else { high * wide }
}

impl Accumulator {
    pub(super) fn new(dev: &Device, layer: &Layer) -> Self {
        let mut views = Vec::new();
        let mut offset = 0;
        for spec in &layer.blocks {
            views.push(View { spec: *spec, rows: spec.entries(), offset });
            offset += spec.entries();
        }
        let targets = PatchSpec { input: layer.output, window: Window::POINT, groups: layer.groups };
        views.push(View { spec: targets, rows: layer.m(), offset: 0 });
        Accumulator {
            dev: dev.clone(),
            views,
            output: layer.output,
            values: Values::Real,
            symmetric: true,
            parts: vec![],
            total: Sums::new(layer),
        }
    }

    /// Before the first sample: the inputs are integers up to `largest` in size, none negative if `counts`.
    pub(super) fn integers(&mut self, largest: u64, counts: bool) {
        self.values = if counts && largest <= 255 { Values::Count(largest) } else { Values::Integer(largest) };
    }

    /// Before the first sample: no H.
    pub(super) fn targets_only(&mut self) {
        self.symmetric = false;
        self.total.h = vec![];
    }

    /// `samples`: of the first call, others will be like it.
    fn plan(&mut self, samples: usize) -> Result<()> {
        let z = self.views.len() - 1;
        for a in 0..=z {
            self.part(a, None, samples)?;
            if self.symmetric || a == z {
                for b in 0..=a.min(z - 1) {
                    self.part(a, Some(b), samples)?;
                }
            }
        }
        Ok(())
    }

    /// The kernel of one product: tile side, whether that of counts.
    fn kernel(&self, a: usize, b: Option<usize>, rows: usize, columns: usize) -> (usize, bool) {
        let inputs = a + 1 < self.views.len();
        let counts = inputs && matches!(self.values, Values::Count(_));
        let choice = self.dev.tiles();
        let Some(b) = b else { return (1, counts) };
        // counts by the kernel of reals where its partial sums need not be fetched more often for them
        let counts = counts && (choice.dots || self.block(true, true, false) < BLOCK);
        let wide = if counts { choice.counts } else { choice.gram };
        match rows.min(columns) {
            ..=SMALL => (SMALL, false),
            narrow => (wide.side(narrow, |side| tiles(side, rows, columns, a == b)), counts),
        }
    }

    /// Most samples that a partial sum may take.
    fn block(&self, inputs: bool, product: bool, counts: bool) -> usize {
        match self.values {
            _ if !inputs => BLOCK,
            Values::Real => BLOCK,
            Values::Integer(largest) | Values::Count(largest) => {
                let term = if product { largest.saturating_mul(largest) } else { largest }.max(1);
                let most = if counts { u64::from(u32::MAX) } else { EXACT } / term;
                let block = usize::try_from(most).unwrap_or(usize::MAX) / STRIDE * STRIDE;
                match block {
                    0 => BLOCK,
                    _ if counts => block.min(1 << 30),
                    _ => block.min(BLOCK),
                }
            }
        }
    }

    /// Cuts one product into bands of rows whose sums fit a buffer, and its samples into enough splits.
    fn part(&mut self, a: usize, b: Option<usize>, samples: usize) -> Result<()> {
        let (rows, groups) = (self.views[a].rows, self.total.groups);
        let inputs = a + 1 < self.views.len();
        let (side, counts) = self.kernel(a, b, rows, b.map_or(1, |b| self.views[b].rows));
        let columns = b.map_or(if counts { 1 } else { 2 }, |b| self.views[b].rows);
        let row_bytes = groups * columns * size_of::<f32>();
        let fit = self.dev.max_buffer_bytes() as usize / row_bytes;
        if fit < rows && (groups > 1 || fit < 128) {
            return Err(Error::work("moments", format!("{groups} groups of {rows} x {columns} sums exceed a buffer")));
        }
        let real = usize::from(!self.dev.info().software());
        let most_bytes = MOST_SPLIT_BYTES[real].min(self.dev.room() / SPLIT_SHARE).min(self.dev.max_buffer_bytes());
        // A split is fetched and added up by the host: on a real GPU that takes longer than to do few samples in turn.
        let most_splits = if real == 1 { samples.div_ceil(CHUNK).min(MOST_SPLITS) } else { MOST_SPLITS };
        let band = if fit < rows { fit / 128 * 128 } else { rows };
        for first_row in (0..rows).step_by(band) {
            let here = band.min(rows - first_row);
            let tiles = match b {
                Some(b) if a == b => here.div_ceil(side) * (first_row + here).div_ceil(side).div_ceil(2),
                Some(_) => here.div_ceil(side) * columns.div_ceil(side),
                None => here.div_ceil(8),
            };
            let fit = most_bytes as usize / (here * row_bytes);
            let splits = BUSY[real].div_ceil(groups * tiles).min(most_splits).min(fit).max(1);
            let sums = self.dev.zeros(splits * here * groups * columns)?;
            let block = self.block(inputs, b.is_some(), counts);
            let part =
                Part { a, b, first_row, rows: here, columns, side, counts, splits, block, held: 0, used: 0, sums };
            self.parts.push(part);
        }
        Ok(())
    }

    pub(super) fn add(&mut self, layer: &Layer, images: usize, xs: &[&Buffer<f32>], z: &Buffer<f32>) -> Result<()> {
        let samples = images * layer.output.area();
        if self.parts.is_empty() {
            self.plan(samples)?;
        }
        for n in 0..self.parts.len() {
            let mut first = 0;
            while first < samples {
                let part = &self.parts[n];
                let share = (samples - first).div_ceil(part.splits).next_multiple_of(STRIDE);
                // chunks of a length, in one dispatch
                let length = share.min(part.block).min(if part.counts { LONGEST } else { CHUNK });
                let chunks = if part.counts { 1 } else { share.min(part.block) / length };
                if part.held + length * chunks > part.block {
                    self.flush(n)?;
                }
                self.dispatch(n, images, (first, samples), (chunks, length), |v| xs.get(v).copied().unwrap_or(z))?;
                let part = &mut self.parts[n];
                part.held += length * chunks;
                part.used = part.used.max(part.splits_of(samples - first, length * chunks));
                first += part.splits * length * chunks;
            }
        }
        Ok(())
    }

    fn dispatch<'a>(
        &self,
        n: usize,
        images: usize,
        (first_sample, samples): (usize, usize),
        (chunks, length): (usize, usize),
        source: impl Fn(usize) -> &'a Buffer<f32>,
    ) -> Result<()> {
        let Some(gpu) = self.dev.gpu() else { return Ok(()) };
        let part = &self.parts[n];
        let groups = self.total.groups;
        let b = part.b.unwrap_or(part.a);
        let window = |v: usize| {
            let spec = &self.views[v].spec;
            WindowParams::new(images, groups, spec.input, self.output, &spec.window)
        };
        let (area, wide) = (self.output.area(), self.output.w);
        let step = |samples: usize| [samples / area, samples % area / wide, samples % wide].map(|v| v as u32);
        // samples of a word
        let each = if part.counts { 4 } else { 1 };
        let params = Params {
            a: window(part.a),
            b: window(b),
            rows_a: self.views[part.a].rows as u32,
            rows_b: self.views[b].rows as u32,
            first_row: part.first_row as u32,
            rows: part.rows as u32,
            splits: part.splits as u32,
            chunks: chunks as u32,
            length: length as u32,
            first_sample: first_sample as u32,
            samples: samples as u32,
            symmetric: (part.b == Some(part.a)) as u32,
            step: step(16 * each),
            wide: step(8 * each),
        };
        let entry = match (part.b, part.side) {
            (None, _) => "sums",
            (_, SMALL) => "pair_small",
            (_, WIDE) => "pair_wide",
            _ => "pair",
        };
        let tiles = match part.b {
            Some(_) => part.rows.div_ceil(part.side) * part.columns.div_ceil(part.side),
            None => part.rows,
        };
        let shader = if part.counts { COUNTS } else { REALS };
        let splits = part.splits_of(samples - first_sample, chunks * length);
        let groups = (splits * groups * tiles) as u64;
        gpu.run(
            &Dispatch { shader, entry, scalar: "f32", constants: &[], params, groups },
            &[Bind::In(source(part.a).gpu()?), Bind::In(source(b).gpu()?), Bind::Out(part.sums.gpu()?)],
        )
    }

    /// Takes a part's partial sums over to f64.
    fn flush(&mut self, n: usize) -> Result<()> {
        let part = &mut self.parts[n];
        if part.held == 0 {
            return Ok(());
        }
        let slot = part.rows * part.columns;
        let sums = self.dev.download_range(&part.sums, 0, part.used * self.total.groups * slot)?;
        self.dev.fill(&mut part.sums, 0)?;
        (part.held, part.used) = (0, 0);
        let total = &mut self.total;
        let targets = part.a + 1 == self.views.len();
        let value = |bits: u32| if part.counts { f64::from(bits) } else { f64::from(f32::from_bits(bits)) };
        let first = self.views[part.a].offset + part.first_row;
        let Some(b) = part.b else {
            for (slot, sums) in sums.chunks(slot).enumerate() {
                let group = slot % total.groups;
                for (r, sums) in sums.chunks(part.columns).enumerate() {
                    if targets {
                        total.z_sum[group * total.m + first + r] += value(sums[0]);
                        total.zz[group * total.m + first + r] += value(sums[1]);
                    } else {
                        total.x_sum[group * total.n + first + r] += value(sums[0]);
                    }
                }
            }
            return Ok(());
        };
        let (matrix, height) = if targets { (&mut total.b, total.m) } else { (&mut total.h, total.n) };
        let (groups, column) = (total.groups, self.views[b].offset);
        // Every line takes its splits in their order.
        matrix.par_chunks_mut(total.n.max(1)).enumerate().for_each(|(line, to)| {
            let (group, row) = (line / height, line % height);
            let Some(r) = row.checked_sub(first).filter(|r| *r < part.rows) else { return };
            let to = &mut to[column..][..part.columns];
            for sums in sums.chunks(slot).skip(group).step_by(groups) {
                let sums = &sums[r * part.columns..][..part.columns];
                to.iter_mut().zip(sums).for_each(|(t, &s)| *t += value(s));
            }
        });
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Sums> {
        for n in 0..self.parts.len() {
            self.flush(n)?;
        }
        Ok(self.total)
    }
}
