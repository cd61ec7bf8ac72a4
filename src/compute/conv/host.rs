//! The plain Rust twin of shaders/conv.wgsl on all cores: tiles of the patch matrix in cache, one matrix product each.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::{Conv, Start};
use crate::compute::buffer::Element;
use crate::compute::patch::{View, copied};
use crate::error::Result;

/// `Start` with its bias on the host.
#[derive(Clone, Copy)]
pub(super) enum From<'a, T> {
    Zero,
    Keep,
    Bias(&'a [T]),
}

impl<'a, T: Element> Start<'a, T> {
    pub(super) fn host(self) -> Result<From<'a, T>> {
        Ok(match self {
            Start::Zero => From::Zero,
            Start::Keep => From::Keep,
            Start::Bias(b) => From::Bias(b.host()?),
        })
    }
}

impl<T: Element + Sum> From<'_, T> {
    fn at(self, channel: usize, old: T) -> T {
        match self {
            From::Zero => T::default(),
            From::Keep => old,
            From::Bias(b) => b[channel],
        }
    }
}

/// Stored numbers that can be multiplied and added as they are.
pub(super) trait Sum: Copy + std::ops::Add<Output = Self> + std::ops::Mul<Output = Self> {}
impl Sum for f32 {}
impl Sum for i32 {}

/// The arithmetic `A` in which the matrix product of stored numbers `S` is done.
pub(super) trait Arithmetic<S>: faer::traits::ComplexField + Copy + Send + Sync {
    const NIL: Self;
    const ONE: Self;
    fn of(s: S) -> Self;
    fn to(self) -> S;
}

macro_rules! arithmetic {
    ($s:ty, $a:ty, $of:expr) => {
        impl Arithmetic<$s> for $a {
            const NIL: $a = 0.0;
            const ONE: $a = 1.0;
            fn of(s: $s) -> $a {
                $of(s)
            }
            fn to(self) -> $s {
                self as $s
            }
        }
    };
}
arithmetic!(f32, f32, copied);
arithmetic!(i32, f32, |v| v as f32);
arithmetic!(i32, f64, f64::from);

/// The plain Rust convolution on all cores.
pub(super) fn run<S: Element + Sum, A: Arithmetic<S>>(
    conv: &Conv,
    images: usize,
    x: &[S],
    w: &[S],
    start: From<'_, S>,
    y: &mut [S],
) -> Result<()> {
    if images == 0 {
        return Ok(());
    }
    if conv.depthwise() {
        depthwise(conv, x, w, start, y);
        return Ok(());
    }
    if conv.dense() {
        let weights: Vec<A> = w.iter().map(|&v| A::of(v)).collect();
        dense(conv, images, x, &weights, start, y);
    } else {
        patches::<S, A>(conv, images, x, w, start, y);
    }
    Ok(())
}

/// Tap by tap along the rows of the output.
fn depthwise<S: Element + Sum>(conv: &Conv, x: &[S], w: &[S], start: From<'_, S>, y: &mut [S]) {
    let view = View::new(conv.input, conv.output, conv.window);
    let (each, taps) = (conv.output.c / conv.groups, conv.window.taps());
    y.par_chunks_mut(conv.output.area()).enumerate().for_each(|(plane, y)| {
        let (image, o) = (plane / conv.output.c, plane % conv.output.c);
        let source = &x[(image * conv.input.c + o / each) * conv.input.area()..][..conv.input.area()];
        y.iter_mut().for_each(|v| *v = start.at(o, *v));
        for (t, &weight) in w[o * taps..][..taps].iter().enumerate() {
            let (i, j) = (t / conv.window.kernel[1], t % conv.window.kernel[1]);
            let (lo, hi, first) = view.columns_of(j);
            for (row, line) in y.chunks_mut(conv.output.w).enumerate() {
                let Some(from) = view.row_of(row, i) else { continue };
                let reads = source[from * view.width..][..view.width].get(first..).unwrap_or(&[]);
                match conv.window.stride[1] {
                    1 => line[lo..hi].iter_mut().zip(reads).for_each(|(y, &x)| *y = *y + weight * x),
                    s => line[lo..hi].iter_mut().zip(reads.iter().step_by(s)).for_each(|(y, &x)| *y = *y + weight * x),
                }
            }
        }
    });
}

/// Y (images x cout) = X (images x cin) W^T, a group of columns at a time.
fn dense<S: Element + Sum, A: Arithmetic<S>>(
    conv: &Conv,
    images: usize,
    x: &[S],
    weights: &[A],
    start: From<'_, S>,
    y: &mut [S],
) {
    let (depth, rows, outputs) = (conv.depth(), conv.output.c / conv.groups, conv.output.c);
    // Enough images to keep the product compute-bound, few enough that every core has some.
    let chunk = images.div_ceil(rayon::current_num_threads()).clamp(1, 512);
    y.par_chunks_mut(chunk * outputs).zip(x.par_chunks(chunk * conv.input.len())).for_each(|(y, x)| {
        let here = y.len() / outputs;
        let x: Vec<A> = x.iter().map(|&v| A::of(v)).collect();
        let x = MatRef::from_row_major_slice(&x, here, conv.input.len());
        let mut sums = vec![A::NIL; here * outputs];
        for g in 0..conv.groups {
            let w = MatRef::from_row_major_slice(&weights[g * rows * depth..][..rows * depth], rows, depth);
            matmul(
                MatMut::from_row_major_slice_mut(&mut sums, here, outputs).subcols_mut(g * rows, rows),
                Accum::Replace,
                x.subcols(g * depth, depth),
                w.transpose(),
                A::ONE,
                Par::Seq,
            );
        }
        for (y, sums) in y.chunks_mut(outputs).zip(sums.chunks(outputs)) {
            y.iter_mut().zip(sums).enumerate().for_each(|(o, (y, s))| *y = start.at(o, *y) + s.to());
        }
    });
}

/// A tile of the patch matrix at a time: some images (small outputs) or some positions of one image (large ones).
fn patches<S: Element + Sum, A: Arithmetic<S>>(
    conv: &Conv,
    images: usize,
    x: &[S],
    w: &[S],
    start: From<'_, S>,
    y: &mut [S],
) {
    // A few jobs a thread, so that its scratch memory is made a few times only.
    let job = images.div_ceil(4 * rayon::current_num_threads());
    let tiles = Tiles::<S, A>::new(conv, w, start, job);
    y.par_chunks_mut(job * conv.output.len()).zip(x.par_chunks(job * conv.input.len())).for_each(|(y, x)| {
        let columns = tiles.together * (tiles.tile + tiles.extra);
        let mut patch = vec![A::NIL; tiles.lines * columns];
        let mut sums = vec![A::NIL; conv.output.c / conv.groups * columns];
        let step = tiles.together;
        for (y, x) in y.chunks_mut(step * conv.output.len()).zip(x.chunks(step * conv.input.len())) {
            tiles.run(x, y, &mut patch, &mut sums);
        }
    });
}

/// How `patches` works on a few images.
///
/// Where the window moves down one row at a time, the patch entries of tap (i, j) are those of tap (0, j) some rows
/// further down: only the first row of taps is filled in, with `extra` positions more at the end of each image, and
/// every row of taps is a product of its own with another part of the same lines ("passes"). The sums over the
/// positions between two images are computed and not used.
struct Tiles<'a, S, A> {
    conv: &'a Conv,
    start: From<'a, S>,
    /// groups x passes x rows of a group x lines.
    weights: Vec<A>,
    passes: usize,
    /// Lines of the patch matrix in one pass.
    lines: usize,
    /// Positions of an image in one tile, the positions added to them, and images in one tile.
    tile: usize,
    extra: usize,
    together: usize,
}

impl<'a, S: Element + Sum, A: Arithmetic<S>> Tiles<'a, S, A> {
    fn new(conv: &'a Conv, w: &[S], start: From<'a, S>, most_together: usize) -> Self {
        let (depth, area, width) = (conv.depth(), conv.output.area(), conv.output.w);
        let ([kh, kw], taps) = (conv.window.kernel, conv.window.taps());
        let further = (kh - 1) * conv.window.dilation[0];
        // About 256 KiB of patches: they stay in the second-level cache between filling and product.
        let wide = |lines: usize| (65_536 / lines).clamp(64, 1024);
        let rows = (wide(depth / kh) / width).min(conv.output.h);
        // Worth it while filling that is saved outweighs positions that are added. Measured: one entry takes as long to
        // fill in as 36 rows of the group take to multiply it.
        let (group, fill) = (conv.output.c / conv.groups, 36);
        let (plain, sharing) = ((fill + group) * rows, (fill / kh + group) * (rows + further));
        let shared = kh > 1 && conv.window.stride[0] == 1 && sharing < plain;
        let (passes, tile) = if shared { (kh, rows * width) } else { (1, wide(depth).min(area)) };
        let lines = depth / passes;
        let mut weights = Vec::with_capacity(w.len());
        for group in w.chunks(conv.output.c / conv.groups * depth) {
            for pass in 0..passes {
                // Of each channel the taps of this pass: one row of them, or all.
                let each = if shared { pass * kw..(pass + 1) * kw } else { 0..taps };
                weights.extend(group.chunks(taps).flat_map(|channel| &channel[each.clone()]).map(|&v| A::of(v)));
            }
        }
        let extra = if shared { further * width } else { 0 };
        let together = (wide(lines) / (tile + extra)).clamp(1, if tile < area { 1 } else { most_together });
        Tiles { conv, start, weights, passes, lines, tile, extra, together }
    }

    /// `patch`: lines x columns, `sums`: rows of a group x columns; columns = images x positions of a tile.
    fn run(&self, x: &[S], y: &mut [S], patch: &mut [A], sums: &mut [A]) {
        let conv = self.conv;
        let view = View::new(conv.input, conv.output, conv.window);
        let (rows, area) = (conv.output.c / conv.groups, conv.output.area());
        let (channels, taps) = (conv.input.c / conv.groups, self.lines * conv.groups / conv.input.c);
        let down = conv.window.dilation[0] * conv.output.w;
        let here = y.len() / conv.output.len();
        for first in (0..area).step_by(self.tile) {
            let wide = self.tile.min(area - first);
            let each = wide + self.extra;
            let (columns, used) = (here * each, here * each - self.extra);
            let (patch, sums) = (&mut patch[..self.lines * columns], &mut sums[..rows * used]);
            for g in 0..conv.groups {
                for (k, line) in patch.chunks_mut(columns).enumerate() {
                    let (c, t) = (g * channels + k / taps, k % taps);
                    let tap = [t / conv.window.kernel[1], t % conv.window.kernel[1]];
                    for (image, part) in line.chunks_mut(each).enumerate() {
                        let plane = &x[(image * conv.input.c + c) * conv.input.area()..][..conv.input.area()];
                        view.fill(plane, tap, first, part, A::NIL, A::of);
                    }
                }
                let patch = MatRef::from_row_major_slice(patch, self.lines, columns);
                for pass in 0..self.passes {
                    let w = &self.weights[(g * self.passes + pass) * rows * self.lines..][..rows * self.lines];
                    matmul(
                        MatMut::from_row_major_slice_mut(sums, rows, used),
                        if pass == 0 { Accum::Replace } else { Accum::Add },
                        MatRef::from_row_major_slice(w, rows, self.lines),
                        patch.subcols(pass * down, used),
                        A::ONE,
                        Par::Seq,
                    );
                }
                for (row, sums) in sums.chunks(used).enumerate() {
                    let o = g * rows + row;
                    for (image, part) in sums.chunks(each).enumerate() {
                        let y = &mut y[(image * conv.output.c + o) * area + first..][..wide];
                        y.iter_mut().zip(part).for_each(|(y, s)| *y = self.start.at(o, *y) + s.to());
                    }
                }
            }
        }
    }
}
