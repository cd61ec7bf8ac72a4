//! The plain twin of shaders/gram.wgsl and gram_counts.wgsl: tiles of patches, a triangular matrix product each, f32
//! within a block of samples and f64 between blocks; H of spike counts in bytes where `bytes` can. Which shard adds which
//! tile depends on the number of threads alone.

use faer::linalg::matmul::{matmul, triangular};
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::bytes::{MOST, Products};
use super::{Layer, Sums};
use crate::compute::patch::{View, copied};
use crate::compute::simd::vectorized;

/// Most samples whose products are summed in f32.
pub(super) const BLOCK: usize = 4096;
/// Bytes that all shards together may hold.
const MOST_SHARED: usize = 256 << 20;

pub(super) struct Accumulator {
    shards: Vec<Shard>,
    tile: usize,
    block: usize,
    par: Par,
    /// False: no H.
    symmetric: bool,
}

/// One thread's share of the sums.
struct Shard {
    /// groups x n x n, lower half, and groups x (m + 1) x n: the rows of b and then x_sum.
    h: Vec<f32>,
    b: Vec<f32>,
    /// Of spike counts: their products and, as `h`, the sums of these.
    counts: Option<(Products, Vec<i32>)>,
    /// Samples in `h` and `b`.
    pending: usize,
    total: Sums,
    /// Patches and targets (with a row of ones) of one tile.
    x: Vec<f32>,
    z: Vec<f32>,
}

impl Shard {
    fn new(layer: &Layer, tile: usize) -> Self {
        let total = Sums::new(layer);
        let (groups, n, m) = (layer.groups, total.n, total.m);
        Shard {
            h: vec![0.0; groups * n * n],
            b: vec![0.0; groups * (m + 1) * n],
            counts: None,
            pending: 0,
            total,
            x: vec![0.0; n * tile],
            z: vec![0.0; (m + 1) * tile],
        }
    }

    /// Takes the sums of the block over to f64.
    fn fold(&mut self) {
        fn onto<T: Copy + Default + Into<f64>>(sum: &mut [f64], part: &mut [T]) {
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += std::mem::take(p).into());
        }
        const PART: usize = 1 << 16;
        let (n, m) = (self.total.n, self.total.m);
        let h = self.total.h.par_chunks_mut(PART);
        match &mut self.counts {
            None => h.zip(self.h.par_chunks_mut(PART)).for_each(|(s, p)| onto(s, p)),
            Some((_, counts)) => h.zip(counts.par_chunks_mut(PART)).for_each(|(s, p)| onto(s, p)),
        }
        for g in 0..self.total.groups {
            let (b, ones) = self.b[g * (m + 1) * n..][..(m + 1) * n].split_at_mut(m * n);
            onto(&mut self.total.b[g * m * n..][..m * n], b);
            onto(&mut self.total.x_sum[g * n..][..n], ones);
        }
        self.pending = 0;
    }
}

/// Some samples of a batch.
struct Tile<'a> {
    layer: &'a Layer,
    xs: &'a [&'a [f32]],
    z: &'a [f32],
    /// first..last of images x positions.
    first: usize,
    last: usize,
}

impl Accumulator {
    pub(super) fn new(layer: &Layer) -> Self {
        let (n, m, threads) = (layer.n(), layer.m(), rayon::current_num_threads());
        let tile = (524_288 / (n + m + 1)).clamp(128, 1024);
        let bytes = layer.groups * (n + m + 1) * n * (size_of::<f32>() + size_of::<f64>());
        // Where every thread cannot have its own sums, all of them work inside one product.
        let (shards, par) = if bytes * threads <= MOST_SHARED { (threads, Par::Seq) } else { (1, Par::rayon(0)) };
        Accumulator {
            shards: (0..shards).map(|_| Shard::new(layer, tile)).collect(),
            tile,
            block: BLOCK,
            par,
            symmetric: true,
        }
    }

    /// From now on no f32 sum takes more than `block` samples.
    pub(super) fn set_block(&mut self, block: usize) {
        self.block = block;
        self.tile = self.tile.min(block);
    }

    /// Before the first sample: x counts from 0 to `largest`.
    pub(super) fn set_counts(&mut self, layer: &Layer, largest: u64) {
        // With one position an image, samples are rows: the wrong way round for products along them, and few.
        if largest > MOST || layer.output.area() == 1 {
            return;
        }
        for shard in &mut self.shards {
            let Some(products) = Products::new(shard.total.n, largest, self.tile) else { return };
            shard.counts = Some((products, vec![0; std::mem::take(&mut shard.h).len()]));
        }
    }

    /// No H from now on.
    pub(super) fn targets_only(&mut self) {
        self.symmetric = false;
        for shard in &mut self.shards {
            (shard.h, shard.total.h) = (vec![], vec![]);
        }
    }

    pub(super) fn add(&mut self, layer: &Layer, images: usize, xs: &[&[f32]], z: &[f32]) {
        let samples = images * layer.output.area();
        let (step, block, wide) = (self.tile, self.block, self.shards.len());
        let (par, symmetric) = (self.par, self.symmetric);
        self.shards.par_iter_mut().enumerate().for_each(|(s, shard)| {
            for first in (s * step..samples).step_by(wide * step) {
                let last = (first + step).min(samples);
                shard.add(&Tile { layer, xs, z, first, last }, block, par, symmetric);
            }
        });
    }

    pub(super) fn finish(self, layer: &Layer) -> Sums {
        let mut totals = self.shards.into_iter().map(|mut shard| {
            shard.fold();
            shard.total
        });
        let first = totals.next().unwrap_or_else(|| Sums::new(layer));
        totals.fold(first, |mut sums, total| {
            sums.add(&total);
            sums
        })
    }
}

impl Shard {
    fn add(&mut self, tile: &Tile<'_>, block: usize, par: Par, symmetric: bool) {
        let wide = tile.last - tile.first;
        let (n, m) = (self.total.n, self.total.m);
        if self.pending + wide > block {
            self.fold();
        }
        self.pending += wide;
        // With one position an image, a sample is a contiguous row: sample-major; else entry-major, along the rows.
        let by_sample = tile.layer.output.area() == 1;
        for g in 0..tile.layer.groups {
            let (x, z) = (&mut self.x[..n * wide], &mut self.z[..(m + 1) * wide]);
            vectorized(|| if by_sample { tile.samples(g, x, z) } else { tile.entries(g, x, z) });
            let (sums, squares) = (&mut self.total.z_sum[g * m..][..m], &mut self.total.zz[g * m..][..m]);
            if by_sample {
                for z in z.chunks(m + 1) {
                    sums.iter_mut().zip(z).for_each(|(s, &z)| *s += z as f64);
                    squares.iter_mut().zip(z).for_each(|(s, &z)| *s += z as f64 * z as f64);
                }
            } else {
                for ((z, sum), square) in z.chunks(wide).zip(sums).zip(squares) {
                    let [s, q] = sum_and_squares(z);
                    *sum += s;
                    *square += q;
                }
            }
            let view = |data, rows| match by_sample {
                true => MatRef::<f32>::from_column_major_slice(data, rows, wide).as_dyn_stride(),
                false => MatRef::<f32>::from_row_major_slice(data, rows, wide).as_dyn_stride(),
            };
            let entries = &*x;
            let (x, z) = (view(entries, n), view(&*z, m + 1));
            if symmetric && let Some((products, h)) = &mut self.counts {
                products.add(entries, wide, &mut h[g * n * n..][..n * n], par != Par::Seq);
            } else if symmetric {
                triangular::matmul(
                    MatMut::from_row_major_slice_mut(&mut self.h[g * n * n..][..n * n], n, n),
                    triangular::BlockStructure::TriangularLower,
                    Accum::Add,
                    x,
                    triangular::BlockStructure::Rectangular,
                    x.transpose(),
                    triangular::BlockStructure::Rectangular,
                    1.0,
                    par,
                );
            }
            matmul(
                MatMut::from_row_major_slice_mut(&mut self.b[g * (m + 1) * n..][..(m + 1) * n], m + 1, n),
                Accum::Add,
                z,
                x.transpose(),
                1.0,
                par,
            );
        }
    }
}

/// Sum z and sum z^2, in eight lanes so that the additions need not wait for one another.
fn sum_and_squares(z: &[f32]) -> [f64; 2] {
    let (mut sum, mut square) = ([0.0f64; 8], [0.0f64; 8]);
    for z in z.chunks(8) {
        for ((s, q), &z) in sum.iter_mut().zip(&mut square).zip(z) {
            *s += z as f64;
            *q += z as f64 * z as f64;
        }
    }
    [sum.iter().sum(), square.iter().sum()]
}

impl Tile<'_> {
    /// One position an image: `x` samples x n, `z` samples x (m + 1).
    #[inline(always)]
    fn samples(&self, group: usize, x: &mut [f32], z: &mut [f32]) {
        let (n, m) = (self.layer.n(), self.layer.m());
        let mut offset = 0;
        for (block, source) in self.layer.blocks.iter().zip(self.xs) {
            let view = View::new(block.input, self.layer.output, block.window);
            let each = block.input.c / block.groups;
            let reads: Vec<Option<usize>> = (0..block.entries())
                .map(|k| {
                    let (c, t) = (group * each + k / block.window.taps(), k % block.window.taps());
                    let row = view.row_of(0, t / block.window.kernel[1])?;
                    let (lo, hi, column) = view.columns_of(t % block.window.kernel[1]);
                    (hi > lo).then_some(c * block.input.area() + row * block.input.w + column)
                })
                .collect();
            for (s, x) in x.chunks_mut(n).enumerate() {
                let image = &source[(self.first + s) * block.input.len()..][..block.input.len()];
                let x = &mut x[offset..][..reads.len()];
                x.iter_mut().zip(&reads).for_each(|(x, at)| *x = at.map_or(0.0, |i| image[i]));
            }
            offset += reads.len();
        }
        for (s, z) in z.chunks_mut(m + 1).enumerate() {
            z[..m].copy_from_slice(&self.z[(self.first + s) * self.layer.output.c + group * m..][..m]);
            z[m] = 1.0;
        }
    }

    /// Any other layer: `x` n x samples, `z` (m + 1) x samples.
    #[inline(always)]
    fn entries(&self, group: usize, x: &mut [f32], z: &mut [f32]) {
        let (m, area, wide) = (self.layer.m(), self.layer.output.area(), self.last - self.first);
        let mut lines = x.chunks_mut(wide);
        for (block, source) in self.layer.blocks.iter().zip(self.xs) {
            let view = View::new(block.input, self.layer.output, block.window);
            let (each, taps, input) = (block.input.c / block.groups, block.window.taps(), block.input);
            for (k, line) in lines.by_ref().take(block.entries()).enumerate() {
                let c = group * each + k / taps;
                let tap = [k % taps / block.window.kernel[1], k % taps % block.window.kernel[1]];
                self.by_image(line, |image, start, part| {
                    let plane = &source[(image * input.c + c) * input.area()..][..input.area()];
                    view.fill(plane, tap, start, part, 0.0, copied);
                });
            }
        }
        let (targets, ones) = z.split_at_mut(m * wide);
        ones.fill(1.0);
        for (o, line) in targets.chunks_mut(wide).enumerate() {
            let c = group * m + o;
            self.by_image(line, |image, start, part| {
                part.copy_from_slice(&self.z[(image * self.layer.output.c + c) * area + start..][..part.len()]);
            });
        }
    }

    /// Cuts a row of the tile at the borders of images: `f(image, first position, part of the row)`.
    #[inline(always)]
    fn by_image(&self, mut line: &mut [f32], f: impl Fn(usize, usize, &mut [f32])) {
        let area = self.layer.output.area();
        let mut at = self.first;
        while !line.is_empty() {
            let take = (area - at % area).min(line.len());
            let (part, rest) = line.split_at_mut(take);
            f(at / area, at % area, part);
            line = rest;
            at += take;
        }
    }
}
