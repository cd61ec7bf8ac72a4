//! Two linear maps in sequence as one: the algebra of blocks. Everything here is exact; where a composition would
//! not be (a window that reads the zeros around the tensor in between), the answer is `None`.

use rayon::prelude::*;

use crate::network::layers::{Block, Shape, Window};

/// A composition may not hold more weights than this.
const MAX_WEIGHTS: usize = 1 << 26;

/// Where the taps of one axis of a window fall.
#[derive(Clone, Copy)]
struct Axis {
    kernel: usize,
    stride: usize,
    dilation: usize,
    pad: isize,
}

fn axis(w: &Window, a: usize) -> Axis {
    Axis { kernel: w.kernel[a], stride: w.stride[a], dilation: w.dilation[a], pad: w.pad[a] }
}

impl Axis {
    fn at(&self, position: isize, tap: usize) -> isize {
        position * self.stride as isize + (tap * self.dilation) as isize - self.pad
    }
}

/// How a window over the middle tensor and one over the source combine along one axis.
struct Joint {
    window: Axis,
    /// Tap of the joint window for (outer tap, inner tap); `None`: always outside the source.
    taps: Vec<Option<usize>>,
    /// Some outer tap reads beyond the middle tensor.
    overhangs: bool,
}

/// `None` if the outer window reads beyond the middle tensor where the inner one still finds source values: those are
/// zeros in the sequence, but would not be in the composition.
fn join(inner: Axis, outer: Axis, source: usize, middle: usize, out: usize, dense: bool) -> Option<Joint> {
    let mut overhangs = false;
    for y in 0..out as isize {
        for j in 0..outer.kernel {
            let u = outer.at(y, j);
            if u < 0 || u >= middle as isize {
                overhangs = true;
                if (0..inner.kernel).any(|i| (0..source as isize).contains(&inner.at(u, i))) {
                    return None;
                }
            }
        }
    }
    let offset = |j: usize, i: usize| j * outer.dilation * inner.stride + i * inner.dilation;
    let pad = outer.pad * inner.stride as isize + inner.pad;
    let pairs = || (0..outer.kernel).flat_map(|j| (0..inner.kernel).map(move |i| (j, i)));
    if dense && out == 1 {
        // A dense layer stays one: its window is the whole source, whatever lay in between.
        let window = Axis { kernel: source, stride: 1, dilation: 1, pad: 0 };
        let tap = |(j, i)| usize::try_from(offset(j, i) as isize - pad).ok().filter(|&v| v < source);
        return Some(Joint { window, taps: pairs().map(tap).collect(), overhangs });
    }
    let (kernel, dilation) = match (inner.kernel, outer.kernel) {
        (1, 1) => (1, 1),
        (1, k) => (k, outer.dilation * inner.stride),
        (k, 1) => (k, inner.dilation),
        (a, b) => {
            let d = gcd(outer.dilation * inner.stride, inner.dilation);
            (offset(b - 1, a - 1) / d + 1, d)
        }
    };
    let window = Axis { kernel, stride: outer.stride * inner.stride, dilation, pad };
    let taps = pairs().map(|(j, i)| Some(offset(j, i) / dilation)).collect();
    Some(Joint { window, taps, overhangs })
}

pub fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The shapes along a composition: source -> middle -> out.
#[derive(Clone, Copy)]
pub struct Path {
    pub source: Shape,
    pub middle: Shape,
    pub out: Shape,
}

/// `outer` after `inner`. `biased`: a bias lies in between, so that the outer window must not read beyond the middle.
pub fn compose(inner: &Block, outer: &Block, path: Path, biased: bool) -> Option<Block> {
    let Path { source, middle, out } = path;
    // The whole of the middle tensor in one window.
    let dense = out.area() == 1 && outer.window.kernel == [middle.h, middle.w] && outer.window.pad == [0, 0];
    let rows = join(axis(&inner.window, 0), axis(&outer.window, 0), source.h, middle.h, out.h, dense)?;
    let columns = join(axis(&inner.window, 1), axis(&outer.window, 1), source.w, middle.w, out.w, dense)?;
    if biased && (rows.overhangs || columns.overhangs) {
        return None;
    }
    let (r, c) = (rows.window, columns.window);
    let window = Window {
        kernel: [r.kernel, c.kernel],
        stride: [r.stride, c.stride],
        dilation: [r.dilation, c.dilation],
        pad: [r.pad, c.pad],
    };
    let groups = gcd(inner.groups, outer.groups);
    let width = (source.c / groups).checked_mul(r.kernel)?.checked_mul(c.kernel)?;
    let count = width.checked_mul(out.c).filter(|&n| n <= MAX_WEIGHTS)?;
    let before = inner.weight.len() + outer.weight.len();
    let pointwise = inner.window.taps() == 1 || outer.window.taps() == 1;
    // Two real windows in sequence may grow a lot; then a layer in between is the lesser evil.
    if !pointwise && count > 4 * before + (1 << 16) {
        return None;
    }
    let columns_inner = inner.window.kernel[1];
    let pairs = |j: [usize; 2], i: [usize; 2]| -> Option<usize> {
        let row = rows.taps[j[0] * inner.window.kernel[0] + i[0]]?;
        let column = columns.taps[j[1] * columns_inner + i[1]]?;
        Some(row * c.kernel + column)
    };
    let (inner_width, outer_width) = (source.c / inner.groups, middle.c / outer.groups);
    let taps = r.kernel * c.kernel;
    let mut weight = vec![0.0f32; count];
    weight.par_chunks_mut(width).enumerate().for_each(|(o, row)| {
        let mut sums = vec![0.0f64; width];
        let first_channel = o / (out.c / groups) * (source.c / groups);
        let first_middle = o / (out.c / outer.groups) * outer_width;
        for m in 0..outer_width {
            let outer_taps = &outer.weight[(o * outer_width + m) * outer.window.taps()..][..outer.window.taps()];
            let first_inner = (first_middle + m) / (middle.c / inner.groups) * inner_width;
            for (j, &a) in outer_taps.iter().enumerate().filter(|(_, a)| **a != 0.0) {
                let at_outer = [j / outer.window.kernel[1], j % outer.window.kernel[1]];
                for ch in 0..inner_width {
                    let start = ((first_middle + m) * inner_width + ch) * inner.window.taps();
                    let inner_taps = &inner.weight[start..start + inner.window.taps()];
                    let base = (first_inner + ch - first_channel) * taps;
                    for (i, &b) in inner_taps.iter().enumerate() {
                        if let Some(tap) = pairs(at_outer, [i / columns_inner, i % columns_inner]) {
                            sums[base + tap] += a as f64 * b as f64;
                        }
                    }
                }
            }
        }
        row.iter_mut().zip(&sums).for_each(|(w, &s)| *w = s as f32);
    });
    Some(Block { source: inner.source, window, groups, weight })
}

/// What `outer` makes of a bias in the middle tensor (all its taps inside).
pub fn carried_bias(outer: &Block, middle: usize, outputs: usize, bias: &[f64]) -> Vec<f64> {
    let (width, taps) = (middle / outer.groups, outer.window.taps());
    (0..outputs)
        .map(|o| {
            let first = o / (outputs / outer.groups) * width;
            (0..width)
                .map(|m| {
                    let w = &outer.weight[(o * width + m) * taps..][..taps];
                    bias[first + m] * w.iter().map(|&w| w as f64).sum::<f64>()
                })
                .sum()
        })
        .collect()
}

/// The same map with fewer groups (`groups` divides the block's own): zeros where the groups kept channels apart.
pub fn regroup(block: &Block, source: Shape, outputs: usize, groups: usize) -> Option<Block> {
    if groups == block.groups {
        return Some(block.clone());
    }
    let taps = block.window.taps();
    let (narrow, wide) = (source.c / block.groups * taps, source.c / groups * taps);
    let count = wide.checked_mul(outputs).filter(|&n| n <= MAX_WEIGHTS)?;
    let mut weight = vec![0.0; count];
    for o in 0..outputs {
        let own = o / (outputs / block.groups) * narrow;
        let new = o / (outputs / groups) * wide;
        let at = o * wide + own - new;
        weight[at..at + narrow].copy_from_slice(&block.weight[o * narrow..(o + 1) * narrow]);
    }
    Some(Block { groups, weight, ..block.clone() })
}

/// A dense block over a tensor that is a rearrangement of `source`, as a dense block over `source` itself.
pub fn through_gather(block: &Block, index: &[u32], node: usize, source: Shape, outputs: usize) -> Option<Block> {
    let (from, to) = (index.len(), source.len());
    let count = to.checked_mul(outputs).filter(|&n| n <= MAX_WEIGHTS)?;
    if block.groups != 1 || block.weight.len() != from * outputs || count > 4 * block.weight.len() + (1 << 16) {
        return None;
    }
    let mut weight = vec![0.0; count];
    for (new, old) in weight.chunks_mut(to).zip(block.weight.chunks(from)) {
        for (&i, &w) in index.iter().zip(old) {
            if let Some(slot) = new.get_mut(i as usize) {
                *slot += w;
            }
        }
    }
    Some(Block { source: node, window: Window::whole(source), groups: 1, weight })
}
