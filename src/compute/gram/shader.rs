//! The GPU side of the moments: which pairs of views are multiplied when, and how their partial sums reach f64.

use super::{Layer, PatchSpec, Sums};
use crate::compute::buffer::Buffer;
use crate::compute::device::Device;
use crate::compute::gpu::{Bind, Dispatch, Shader};
use crate::compute::patch::WindowParams;
use crate::error::{Error, Result};
use crate::network::{Shape, Window};

const SHADER: Shader = Shader { name: "gram.wgsl", source: include_str!("../../../shaders/gram.wgsl") };
/// Most samples of a split.
const SPLIT: usize = 1024;
/// The shader takes samples by so many: a split is a multiple of it.
const STRIDE: usize = 16;
/// Most samples that one partial sum takes before it is added to f64.
pub(super) const BLOCK: usize = 16 * SPLIT;
/// Workgroups that keep any GPU busy; small layers get there by splitting the samples.
const BUSY: usize = 512;
/// Bytes of one part's partial sums when split for the sake of parallelism.
const MOST_SPLIT_BYTES: usize = 32 << 20;

const SMALL: usize = 16;

/// The side of the tiles that a product of `rows` x `columns` is cut into.
fn tile(rows: usize, columns: usize) -> usize {
    if rows.min(columns) <= SMALL { SMALL } else { 64 }
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
    splits: usize,
    /// Dispatches since the last transfer.
    pending: usize,
    /// splits x groups x rows x columns.
    sums: Buffer<f32>,
}

pub(super) struct Accumulator {
    dev: Device,
    /// The blocks in order, then the targets.
    views: Vec<View>,
    output: Shape,
    parts: Vec<Part>,
    total: Sums,
    /// Samples of a split, and dispatches between two transfers of the partial sums to f64.
    length: usize,
    most_pending: usize,
}

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
    length: u32,
    first_sample: u32,
    samples: u32,
    symmetric: u32,
}

impl Accumulator {
    pub(super) fn new(dev: &Device, layer: &Layer) -> Result<Self> {
        let mut views = Vec::new();
        let mut offset = 0;
        for spec in &layer.blocks {
            views.push(View { spec: *spec, rows: spec.entries(), offset });
            offset += spec.entries();
        }
        let targets = PatchSpec { input: layer.output, window: Window::POINT, groups: layer.groups };
        views.push(View { spec: targets, rows: layer.m(), offset: 0 });
        let mut it = Accumulator {
            dev: dev.clone(),
            views,
            output: layer.output,
            parts: vec![],
            total: Sums::new(layer),
            length: SPLIT,
            most_pending: BLOCK / SPLIT,
        };
        let z = layer.blocks.len();
        for a in 0..=z {
            it.plan(a, None)?;
            for b in 0..=a.min(z - 1) {
                it.plan(a, Some(b))?;
            }
        }
        Ok(it)
    }

    /// From now on (before the first sample) no partial sum takes more than `block` samples.
    pub(super) fn set_block(&mut self, block: usize) {
        self.length = (block / STRIDE * STRIDE).clamp(STRIDE, SPLIT);
        self.most_pending = (block / self.length).max(1);
    }

    /// No H from now on.
    pub(super) fn targets_only(&mut self) {
        let targets = self.views.len() - 1;
        self.parts.retain(|p| p.b.is_none() || p.a == targets);
    }

    /// Cuts one product into bands of rows whose sums fit a buffer, and its samples into enough splits.
    fn plan(&mut self, a: usize, b: Option<usize>) -> Result<()> {
        let (rows, groups) = (self.views[a].rows, self.total.groups);
        let columns = b.map_or(2, |b| self.views[b].rows);
        let row_bytes = groups * columns * size_of::<f32>();
        let fit = self.dev.max_buffer_bytes() as usize / row_bytes;
        if fit < rows && (groups > 1 || fit < 64) {
            return Err(Error::work("moments", format!("{groups} groups of {rows} x {columns} sums exceed a buffer")));
        }
        let band = if fit < rows { fit / 64 * 64 } else { rows };
        for first_row in (0..rows).step_by(band) {
            let here = band.min(rows - first_row);
            let tiles = match b {
                Some(_) => here.div_ceil(tile(here, columns)) * columns.div_ceil(tile(here, columns)),
                None => here.div_ceil(8),
            };
            let splits = BUSY.div_ceil(groups * tiles).min(64).min(MOST_SPLIT_BYTES / (here * row_bytes)).max(1);
            let sums = self.dev.zeros(splits * here * groups * columns)?;
            self.parts.push(Part { a, b, first_row, rows: here, splits, pending: 0, sums });
        }
        Ok(())
    }

    pub(super) fn add(&mut self, layer: &Layer, images: usize, xs: &[&Buffer<f32>], z: &Buffer<f32>) -> Result<()> {
        let samples = images * layer.output.area();
        for n in 0..self.parts.len() {
            let mut first_sample = 0;
            while first_sample < samples {
                if self.parts[n].pending == self.most_pending {
                    self.flush(n)?;
                }
                self.dispatch(n, images, first_sample, samples, |v| xs.get(v).copied().unwrap_or(z))?;
                let part = &mut self.parts[n];
                part.pending += 1;
                first_sample += part.splits * self.length;
            }
        }
        Ok(())
    }

    fn dispatch<'a>(
        &self,
        n: usize,
        images: usize,
        first_sample: usize,
        samples: usize,
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
        let params = Params {
            a: window(part.a),
            b: window(b),
            rows_a: self.views[part.a].rows as u32,
            rows_b: self.views[b].rows as u32,
            first_row: part.first_row as u32,
            rows: part.rows as u32,
            splits: part.splits as u32,
            length: self.length as u32,
            first_sample: first_sample as u32,
            samples: samples as u32,
            symmetric: (part.b == Some(part.a)) as u32,
        };
        let side = tile(part.rows, self.views[b].rows);
        let (entry, count) = match part.b {
            Some(_) => {
                let entry = if side == SMALL { "pair_small" } else { "pair" };
                (entry, part.rows.div_ceil(side) * self.views[b].rows.div_ceil(side))
            }
            None => ("sums", part.rows),
        };
        let groups = (part.splits * groups * count) as u64;
        gpu.run(
            &Dispatch { shader: SHADER, entry, scalar: "f32", constants: &[], params, groups },
            &[Bind::In(source(part.a).gpu()?), Bind::In(source(b).gpu()?), Bind::Out(part.sums.gpu()?)],
        )
    }

    /// Takes a part's partial sums over to f64.
    fn flush(&mut self, n: usize) -> Result<()> {
        let part = &mut self.parts[n];
        if part.pending == 0 {
            return Ok(());
        }
        let sums = self.dev.download(&part.sums)?;
        self.dev.fill(&mut part.sums, 0.0)?;
        part.pending = 0;
        let total = &mut self.total;
        let targets = part.a + 1 == self.views.len();
        let columns = part.b.map_or(2, |b| self.views[b].rows);
        for (slot, sums) in sums.chunks(part.rows * columns).enumerate() {
            let group = slot % total.groups;
            for (r, sums) in sums.chunks(columns).enumerate() {
                let row = self.views[part.a].offset + part.first_row + r;
                let Some(b) = part.b else {
                    if targets {
                        total.z_sum[group * total.m + row] += sums[0] as f64;
                        total.zz[group * total.m + row] += sums[1] as f64;
                    } else {
                        total.x_sum[group * total.n + row] += sums[0] as f64;
                    }
                    continue;
                };
                let (matrix, height) = if targets { (&mut total.b, total.m) } else { (&mut total.h, total.n) };
                let line = &mut matrix[(group * height + row) * total.n + self.views[b].offset..][..columns];
                line.iter_mut().zip(sums).for_each(|(t, &s)| *t += s as f64);
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Sums> {
        for n in 0..self.parts.len() {
            self.flush(n)?;
        }
        Ok(self.total)
    }
}
