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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The convolution, straight from the definition.
    fn apply(block: &Block, from: Shape, to: Shape, x: &[f64], bias: f64) -> Vec<f64> {
        let (w, width) = (&block.window, from.c / block.groups);
        let one = |i: usize| {
            let (o, y, x0) = (i / to.area(), i % to.area() / to.w, i % to.w);
            let first = o / (to.c / block.groups) * width;
            let mut sum = bias;
            for m in 0..width {
                for tap in 0..w.taps() {
                    let row = axis(w, 0).at(y as isize, tap / w.kernel[1]);
                    let column = axis(w, 1).at(x0 as isize, tap % w.kernel[1]);
                    if (0..from.h as isize).contains(&row) && (0..from.w as isize).contains(&column) {
                        let at = (first + m) * from.area() + row as usize * from.w + column as usize;
                        sum += block.weight[(o * width + m) * w.taps() + tap] as f64 * x[at];
                    }
                }
            }
            sum
        };
        (0..to.len()).map(one).collect()
    }

    fn window() -> impl Strategy<Value = Window> {
        let two = |r: std::ops::Range<usize>| (r.clone(), r).prop_map(|(a, b)| [a, b]);
        (two(1..4), two(1..3), two(1..3), (-1isize..3, -1isize..3)).prop_map(|(kernel, stride, dilation, pad)| Window {
            kernel,
            stride,
            dilation,
            pad: [pad.0, pad.1],
        })
    }

    fn block(window: Window, groups: usize, from: usize, to: usize, rng: &mut fastrand::Rng) -> Block {
        // Small integers: every sum is exact, and so must the composition be.
        let weight = (0..to * (from / groups) * window.taps()).map(|_| rng.i32(-3..4) as f32).collect();
        Block { source: 0, window, groups, weight }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// Whenever two blocks compose, the result is the same map; with a bias in between too.
        #[test]
        fn a_composition_is_the_sequence(
            inner in window(), outer in window(), seed in any::<u64>(), biased in any::<bool>(),
            size in (1usize..8, 1usize..8), middle in (1usize..8, 1usize..8), out in (1usize..5, 1usize..5),
            groups in (0usize..3, 0usize..3), dense in any::<bool>(),
        ) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let source = Shape::new(4, size.0, size.1);
            let middle = Shape::new(8, middle.0, middle.1);
            let out = if dense { Shape::new(4, 1, 1) } else { Shape::new(4, out.0, out.1) };
            let outer = if dense { Window::whole(middle) } else { outer };
            let inner = block(inner, [1, 2, 4][groups.0], source.c, middle.c, &mut rng);
            let outer = block(outer, [1, 2, 4][groups.1], middle.c, out.c, &mut rng);
            let path = Path { source, middle, out };
            if let Some(joint) = compose(&inner, &outer, path, biased) {
                let x: Vec<f64> = (0..source.len()).map(|_| rng.i32(-5..6) as f64).collect();
                let bias = if biased { 2.0 } else { 0.0 };
                let sequence = apply(&outer, middle, out, &apply(&inner, source, middle, &x, bias), 0.0);
                let carried = carried_bias(&outer, middle.c, out.c, &[bias; 8]);
                let mut at_once = apply(&joint, source, out, &x, 0.0);
                at_once.chunks_mut(out.area()).zip(&carried).for_each(|(c, b)| c.iter_mut().for_each(|v| *v += b));
                prop_assert_eq!(at_once, sequence);
            }
        }

        /// Fewer groups, the same map.
        #[test]
        fn regrouping_changes_nothing(window in window(), seed in any::<u64>(), groups in 0usize..3) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (source, out) = (Shape::new(4, 5, 4), Shape::new(8, 3, 3));
            let own = block(window, 4, source.c, out.c, &mut rng);
            let x: Vec<f64> = (0..source.len()).map(|_| rng.i32(-5..6) as f64).collect();
            let other = regroup(&own, source, out.c, [1, 2, 4][groups]).expect("small");
            prop_assert_eq!(apply(&other, source, out, &x, 0.0), apply(&own, source, out, &x, 0.0));
        }
    }

    #[test]
    fn what_is_exact_and_what_is_not() {
        let mut rng = fastrand::Rng::with_seed(1);
        let shape = Shape::new(4, 6, 6);
        let path = Path { source: shape, middle: shape, out: shape };
        let same = Window { kernel: [3, 3], pad: [1, 1], ..Window::POINT };
        let padded = block(same, 1, 4, 4, &mut rng);
        let point = block(Window::POINT, 1, 4, 4, &mut rng);
        assert!(compose(&point, &padded, path, false).is_some());
        assert!(compose(&padded, &point, path, true).is_some());
        // The zeros around the middle tensor would have to know of the bias; and those of two paddings differ.
        assert!(compose(&point, &padded, path, true).is_none());
        assert!(compose(&padded, &padded, path, false).is_none());
    }
}
