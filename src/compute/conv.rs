//! Convolution and, as its special case, the dense layer: an implicit-im2col matrix product (shaders/conv.wgsl); the
//! patch matrix never exists as a whole. Reals in f32; integers exact on both devices.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::buffer::{Buffer, Element, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Gpu, Shader};
use super::patch::{View, WindowParams, check_window};
use crate::error::{Error, Result};
use crate::network::{Shape, Window};

const SHADER: Shader = Shader { name: "conv.wgsl", source: include_str!("../../shaders/conv.wgsl") };
/// Values of k in one dispatch: the loops of an invocation stay far below the 65,535 iterations that lavapipe runs.
const MOST_DEPTH: usize = 16_384;
/// Groups with at most this many output channels and one input channel are computed element by element.
const FEW: usize = 4;

/// A convolution without bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    pub input: Shape,
    pub output: Shape,
    pub window: Window,
    /// Divides `input.c` and `output.c`.
    pub groups: usize,
}

/// What the sum over the patch is added to.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a, T> {
    Zero,
    /// What `y` holds.
    Keep,
    /// One value per output channel.
    Bias(&'a Buffer<T>),
}

impl Conv {
    /// Patch entries of one output: cin / groups x taps.
    pub fn depth(&self) -> usize {
        self.input.c / self.groups * self.window.taps()
    }

    fn check(&self) -> Result<()> {
        if self.groups == 0 || !self.input.c.is_multiple_of(self.groups) || !self.output.c.is_multiple_of(self.groups) {
            return Err(Error::work("convolution", format!("{} groups do not divide {self:?}", self.groups)));
        }
        check_window("convolution", self.input, self.output, &self.window)
    }

    /// One window that covers the input exactly: patches are the images themselves.
    fn dense(&self) -> bool {
        let w = &self.window;
        self.output.area() == 1 && w.kernel == [self.input.h, self.input.w] && w.pad == [0, 0] && w.dilation == [1, 1]
    }

    fn depthwise(&self) -> bool {
        self.input.c == self.groups && self.output.c / self.groups <= FEW
    }
}

/// y = start + conv(x, w). `x`: images x input.len(), `w`: cout x depth, `y`: images x output.len().
/// Errors: lengths that do not fit.
pub fn real(
    dev: &Device,
    conv: &Conv,
    images: usize,
    x: &Buffer<f32>,
    w: &Buffer<f32>,
    start: Start<'_, f32>,
    y: &mut Buffer<f32>,
) -> Result<()> {
    check(conv, images, x, w, &start, y)?;
    match dev.gpu() {
        Some(gpu) => dispatch(gpu, conv, images, x, w, start, y),
        None => twin::<f32, f32>(conv, images, x.host()?, w.host()?, host(start)?, y.host_mut()?),
    }
}

/// The same on integers, exact. `bound` is a proven bound of the sum of |w| |x| over the patch of any output; it must
/// fit an i32, and so must start + sum. Errors: lengths that do not fit, or a bound beyond i32.
#[expect(clippy::too_many_arguments, reason = "a kernel's inputs and outputs")]
pub fn integer(
    dev: &Device,
    conv: &Conv,
    images: usize,
    x: &Buffer<i32>,
    w: &Buffer<i32>,
    start: Start<'_, i32>,
    bound: u64,
    y: &mut Buffer<i32>,
) -> Result<()> {
    check(conv, images, x, w, &start, y)?;
    if bound > i32::MAX as u64 {
        return Err(Error::work("convolution", format!("sums up to {bound} do not fit 32-bit integers")));
    }
    match dev.gpu() {
        Some(gpu) => dispatch(gpu, conv, images, x, w, start, y),
        // Every partial sum is an integer below 2^24: f32 holds it exactly.
        None if bound < 1 << 24 => twin::<i32, f32>(conv, images, x.host()?, w.host()?, host(start)?, y.host_mut()?),
        None => twin::<i32, f64>(conv, images, x.host()?, w.host()?, host(start)?, y.host_mut()?),
    }
}

fn check<T: Element>(
    conv: &Conv,
    images: usize,
    x: &Buffer<T>,
    w: &Buffer<T>,
    start: &Start<'_, T>,
    y: &Buffer<T>,
) -> Result<()> {
    conv.check()?;
    expect_len("convolution input", x, images * conv.input.len())?;
    expect_len("convolution weights", w, conv.output.c * conv.depth())?;
    expect_len("convolution output", y, images * conv.output.len())?;
    match start {
        Start::Bias(b) => expect_len("convolution bias", b, conv.output.c),
        _ => Ok(()),
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    window: WindowParams,
    first_k: u32,
    last_k: u32,
    start: u32,
}

fn dispatch<T: Element>(
    gpu: &Gpu,
    conv: &Conv,
    images: usize,
    x: &Buffer<T>,
    w: &Buffer<T>,
    start: Start<'_, T>,
    y: &mut Buffer<T>,
) -> Result<()> {
    let rows = conv.output.c / conv.groups;
    let (entry, groups) = if rows <= FEW {
        ("direct", y.len().div_ceil(256))
    } else {
        ("tiled", conv.groups * rows.div_ceil(64) * (images * conv.output.area()).div_ceil(64))
    };
    let (mut mode, bias) = match start {
        Start::Zero => (0, w.gpu()?),
        Start::Keep => (1, w.gpu()?),
        Start::Bias(b) => (2, b.gpu()?),
    };
    for first in (0..conv.depth()).step_by(MOST_DEPTH) {
        let params = Params {
            window: WindowParams::new(images, conv.groups, conv.input, conv.output, &conv.window),
            first_k: first as u32,
            last_k: (first + MOST_DEPTH).min(conv.depth()) as u32,
            start: mode,
        };
        gpu.run(
            &Dispatch { shader: SHADER, entry, scalar: T::WGSL, constants: &[], params, groups: groups as u64 },
            &[Bind::In(x.gpu()?), Bind::In(w.gpu()?), Bind::In(bias), Bind::Out(y.gpu()?)],
        )?;
        mode = 1;
    }
    Ok(())
}

/// `Start` with its bias on the host.
#[derive(Clone, Copy)]
enum From<'a, T> {
    Zero,
    Keep,
    Bias(&'a [T]),
}

fn host<T: Element>(start: Start<'_, T>) -> Result<From<'_, T>> {
    Ok(match start {
        Start::Zero => From::Zero,
        Start::Keep => From::Keep,
        Start::Bias(b) => From::Bias(b.host()?),
    })
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
trait Sum: Copy + std::ops::Add<Output = Self> + std::ops::Mul<Output = Self> {}
impl Sum for f32 {}
impl Sum for i32 {}

/// The arithmetic `A` in which the matrix product of stored numbers `S` is done.
trait Arithmetic<S>: faer::traits::ComplexField + Copy + Send + Sync {
    const NIL: Self;
    const ONE: Self;
    fn of(s: S) -> Self;
    fn to(self) -> S;
}

macro_rules! arithmetic {
    ($s:ty, $a:ty) => {
        impl Arithmetic<$s> for $a {
            const NIL: $a = 0.0;
            const ONE: $a = 1.0;
            fn of(s: $s) -> $a {
                s as $a
            }
            fn to(self) -> $s {
                self as $s
            }
        }
    };
}
arithmetic!(f32, f32);
arithmetic!(i32, f32);
arithmetic!(i32, f64);

/// The plain Rust convolution on all cores.
fn twin<S: Element + Sum, A: Arithmetic<S>>(
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
    let weights: Vec<A> = w.iter().map(|&v| A::of(v)).collect();
    if conv.dense() {
        dense(conv, images, x, &weights, start, y);
    } else {
        patches(conv, images, x, &weights, start, y);
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
    weights: &[A],
    start: From<'_, S>,
    y: &mut [S],
) {
    let view = View::new(conv.input, conv.output, conv.window);
    let (depth, rows, area) = (conv.depth(), conv.output.c / conv.groups, conv.output.area());
    let channels = conv.input.c / conv.groups;
    // About 256 KiB of patches: they stay in the second-level cache between filling and product.
    let tile = (65_536 / depth).clamp(64, 1024);
    let fair = images.div_ceil(rayon::current_num_threads());
    let together = (tile / area).clamp(1, fair);
    let tile = tile.min(area);
    y.par_chunks_mut(together * conv.output.len()).enumerate().for_each_init(
        || (vec![A::NIL; depth * tile * together], vec![A::NIL; rows * tile * together]),
        |(patch, sums), (task, y)| {
            let here = y.len() / conv.output.len();
            let x = &x[task * together * conv.input.len()..][..here * conv.input.len()];
            for first in (0..area).step_by(tile) {
                let wide = tile.min(area - first);
                let columns = here * wide;
                for g in 0..conv.groups {
                    for (k, line) in patch[..depth * columns].chunks_mut(columns).enumerate() {
                        let (c, t) = (g * channels + k / conv.window.taps(), k % conv.window.taps());
                        let tap = [t / conv.window.kernel[1], t % conv.window.kernel[1]];
                        for (image, part) in line.chunks_mut(wide).enumerate() {
                            let plane = &x[(image * conv.input.c + c) * conv.input.area()..][..conv.input.area()];
                            view.fill(plane, tap, first, part, A::NIL, A::of);
                        }
                    }
                    matmul(
                        MatMut::from_row_major_slice_mut(&mut sums[..rows * columns], rows, columns),
                        Accum::Replace,
                        MatRef::from_row_major_slice(&weights[g * rows * depth..][..rows * depth], rows, depth),
                        MatRef::from_row_major_slice(&patch[..depth * columns], depth, columns),
                        A::ONE,
                        Par::Seq,
                    );
                    for (n, part) in sums[..rows * columns].chunks(wide).enumerate() {
                        let (o, image) = (g * rows + n / here, n % here);
                        let y = &mut y[(image * conv.output.c + o) * area + first..][..wide];
                        y.iter_mut().zip(part).for_each(|(y, s)| *y = start.at(o, *y) + s.to());
                    }
                }
            }
        },
    );
}
