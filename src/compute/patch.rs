//! What a sliding window reads: the rows of the patch (im2col) matrix, made one at a time, and the window as shaders
//! see it.

use crate::error::{Error, Result};
use crate::network::{Shape, Window};

/// `struct Window` of shaders/shared/window.wgsl.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct WindowParams {
    images: u32,
    groups: u32,
    input: [u32; 3],
    output: [u32; 3],
    kernel: [u32; 2],
    stride: [u32; 2],
    dilation: [u32; 2],
    pad: [i32; 2],
}

impl WindowParams {
    pub(crate) fn new(images: usize, groups: usize, input: Shape, output: Shape, w: &Window) -> Self {
        let two = |a: [usize; 2]| a.map(|v| v as u32);
        let three = |s: Shape| [s.c as u32, s.h as u32, s.w as u32];
        Self {
            images: images as u32,
            groups: groups as u32,
            input: three(input),
            output: three(output),
            kernel: two(w.kernel),
            stride: two(w.stride),
            dilation: two(w.dilation),
            pad: w.pad.map(|v| v as i32),
        }
    }
}

/// Errors: an empty kernel, stride or dilation, or sizes that do not fit the shaders' 32-bit arithmetic.
pub(crate) fn check_window(what: &str, input: Shape, output: Shape, w: &Window) -> Result<()> {
    let bad = |message: &str| Err(Error::work(what, format!("{message}: {w:?}, {input} -> {output}")));
    if input.is_empty() || output.is_empty() {
        return bad("empty shape");
    }
    if w.kernel.contains(&0) || w.stride.contains(&0) || w.dilation.contains(&0) {
        return bad("kernel, stride and dilation must be positive");
    }
    let reach = |out: usize, a: usize| -> Option<usize> {
        let end = (out - 1).checked_mul(w.stride[a])?.checked_add((w.kernel[a] - 1).checked_mul(w.dilation[a])?)?;
        end.checked_add(w.pad[a].unsigned_abs())
    };
    let small = |n: Option<usize>| n.is_some_and(|n| n < 1 << 30);
    if !small(reach(output.h, 0)) || !small(reach(output.w, 1)) {
        return bad("window too large");
    }
    if !small(input.c.checked_mul(input.area())) || !small(output.c.checked_mul(output.area())) {
        return bad("image too large");
    }
    Ok(())
}

/// The identity on f32 for `View::fill`, but for the sign of a zero. A plain copy would be compiled to a call of memcpy
/// for every row, which on short rows takes several times as long as this addition.
pub(crate) fn copied(v: f32) -> f32 {
    v + 0.0
}

/// A window sliding over planes of `height` x `width` to `out` = rows x columns of output positions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub height: usize,
    pub width: usize,
    pub out: [usize; 2],
    pub window: Window,
}

impl View {
    pub(crate) fn new(input: Shape, output: Shape, window: Window) -> Self {
        Self { height: input.h, width: input.w, out: [output.h, output.w], window }
    }

    /// The input row that output row `y` reads at tap row `i`; none in the padding.
    pub(crate) fn row_of(&self, y: usize, i: usize) -> Option<usize> {
        let w = &self.window;
        let at = (y * w.stride[0] + i * w.dilation[0]) as isize - w.pad[0];
        (at >= 0 && (at as usize) < self.height).then_some(at as usize)
    }

    /// The output columns `lo..hi` whose tap column `j` lies inside the input, and the input column of `lo`.
    pub(crate) fn columns_of(&self, j: usize) -> (usize, usize, usize) {
        let w = &self.window;
        let stride = w.stride[1] as isize;
        let shift = (j * w.dilation[1]) as isize - w.pad[1];
        // Smallest and past-largest x with 0 <= x * stride + shift < width; rounding up a quotient of any sign.
        let up = |a: isize| (a + stride - 1).div_euclid(stride).clamp(0, self.out[1] as isize);
        let (lo, hi) = (up(-shift), up(self.width as isize - shift));
        let hi = hi.max(lo);
        let first = if hi > lo { (lo * stride + shift) as usize } else { 0 };
        (lo as usize, hi as usize, first)
    }

    /// One row of the patch matrix: `dst[n]` = what tap (i, j) reads from `plane` at output position `start + n`
    /// (zero in the padding), converted by `cast`.
    pub(crate) fn fill<S: Copy, A: Copy>(
        &self,
        plane: &[S],
        tap: [usize; 2],
        start: usize,
        dst: &mut [A],
        zero: A,
        cast: impl Fn(S) -> A,
    ) {
        let columns = self.out[1];
        let stride = self.window.stride[1];
        let (lo, hi, first) = self.columns_of(tap[1]);
        let (mut y, mut x) = (start / columns, start % columns);
        let mut rest = dst;
        while !rest.is_empty() {
            let take = (columns - x).min(rest.len());
            let (line, more) = rest.split_at_mut(take);
            let (from, to) = (lo.clamp(x, x + take), hi.clamp(x, x + take));
            match self.row_of(y, tap[0]) {
                Some(row) if from < to => {
                    line[..from - x].fill(zero);
                    line[to - x..].fill(zero);
                    let source = &plane[row * self.width + first + (from - lo) * stride..];
                    let inner = &mut line[from - x..to - x];
                    if stride == 1 {
                        inner.iter_mut().zip(source).for_each(|(d, &s)| *d = cast(s));
                    } else {
                        inner.iter_mut().zip(source.iter().step_by(stride)).for_each(|(d, &s)| *d = cast(s));
                    }
                }
                _ => line.fill(zero),
            }
            rest = more;
            (y, x) = (y + 1, 0);
        }
    }
}
