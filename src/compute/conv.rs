//! Convolution and, as its special case, the dense layer: an implicit-im2col matrix product (shaders/conv.wgsl); the
//! patch matrix never exists as a whole. Reals in f32; integers exact on both devices.

mod host;

use super::buffer::{Buffer, Element, expect_len};
use super::device::Device;
use super::gpu::{Bind, Dispatch, Shader};
use super::patch::{WindowParams, check_window};
use super::tiles::{PLAIN, WIDE};
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
pub enum Start<'a, T: Element> {
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
        Some(_) => dispatch(dev, conv, images, x, w, start, y),
        None => host::run::<f32, f32>(conv, images, x.host()?, w.host()?, start.host()?, y.host_mut()?),
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
        Some(_) => dispatch(dev, conv, images, x, w, start, y),
        // Every partial sum is an integer below 2^24: f32 holds it exactly.
        None if bound < 1 << 24 => {
            host::run::<i32, f32>(conv, images, x.host()?, w.host()?, start.host()?, y.host_mut()?)
        }
        None => host::run::<i32, f64>(conv, images, x.host()?, w.host()?, start.host()?, y.host_mut()?),
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

/// Tiles of a side that cover the product.
pub(super) fn tiles(conv: &Conv, images: usize, side: usize) -> usize {
    let rows = conv.output.c / conv.groups;
    conv.groups * rows.div_ceil(side) * (images * conv.output.area()).div_ceil(side)
}

fn dispatch<T: Element>(
    dev: &Device,
    conv: &Conv,
    images: usize,
    x: &Buffer<T>,
    w: &Buffer<T>,
    start: Start<'_, T>,
    y: &mut Buffer<T>,
) -> Result<()> {
    let Some(gpu) = dev.gpu() else { return Ok(()) };
    let rows = conv.output.c / conv.groups;
    let (entry, groups) = match dev.tiles().conv.side(rows, |side| tiles(conv, images, side)) {
        _ if rows <= FEW => ("direct", y.len().div_ceil(256)),
        WIDE => ("tiled_wide", tiles(conv, images, WIDE)),
        _ => ("tiled", tiles(conv, images, PLAIN)),
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
