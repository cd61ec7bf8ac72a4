//! What a kernel has to do, counted by formula.
//!
//! Operations are additions, multiplications, divisions, comparisons and roundings of the plain method, one each (so a
//! multiply-add is two); what a kernel saves by tricks (screening, table lookup but for its own count) or wastes (padding
//! to tiles) does not count. Bytes are those that must move at least: every input read once, every output written once,
//! 4 bytes a number. A kernel that reads them again from memory reaches less of the peak by that.

use std::ops::Add;

use crate::compute::conv::Conv;
use crate::compute::pool::Pool;
use crate::network::{Shape, Window};

/// Amounts of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    pub operations: f64,
    pub bytes: f64,
}

impl Add for Work {
    type Output = Work;

    fn add(self, other: Work) -> Work {
        Work { operations: self.operations + other.operations, bytes: self.bytes + other.bytes }
    }
}

impl Work {
    /// Operations, and numbers of 4 bytes that move.
    fn of(operations: usize, words: usize) -> Work {
        Work { operations: operations as f64, bytes: 4.0 * words as f64 }
    }
}

/// A convolution: a multiply-add for every tap of every output, taps in the padding too.
pub fn conv(conv: &Conv, images: usize) -> Work {
    let outputs = images * conv.output.len();
    Work::of(2 * outputs * conv.depth(), images * conv.input.len() + outputs + conv.output.c * conv.depth())
}

/// Moments of `samples` samples with n inputs and m targets: the lower half of H, B, the sums of x, z and z^2. `input`
/// numbers are read (patches share them), f64 sums are written. Without `gram`, H is left out.
pub fn moments(samples: usize, n: usize, m: usize, input: usize, gram: bool) -> Work {
    let h = if gram { n * (n + 1) / 2 } else { 0 };
    let sums = 2 * (h + m * n);
    Work::of(samples * (sums + n + 3 * m), input + samples * m + sums)
}

/// Costs of `groups` candidates of p inputs, of n, in a fit of m rows: a factor each, then a forward solve and a square sum a
/// row.
pub fn removal_costs((n, m): (usize, usize), groups: usize, p: usize) -> Work {
    let each = p * p * p / 3 + m * (p * p + 2 * p);
    Work::of(groups * each, (groups * p * (p + m)).min(n * (n + m)) + groups)
}

/// One elimination of p of n inputs in a fit of m rows: the forward solves, then a rank-p update in place.
pub fn removal((n, m): (usize, usize), p: usize) -> Work {
    Work::of((n + m) * p * p + 2 * n * (n + m) * p, 2 * n * (n + m))
}

/// Integrate-and-fire: add bias and current, bound from both sides, compare, reset.
pub fn step(neurons: usize, steps: usize) -> Work {
    Work::of(6 * neurons * steps, 2 * neurons * steps + neurons)
}

/// A layer of spikes by table: an addition for each four input channels, tap inside the image, output channel and step;
/// then `step`'s six. Bits in, bits out, and 16 patterns of 2 bytes for every four synapses.
pub fn lookup(conv: &Conv, images: usize, steps: usize) -> Work {
    let inside = inside(conv.input, conv.output, &conv.window);
    let fours = 2 * conv.input.c.div_ceil(8);
    let additions = images * steps * inside * fours * conv.output.c;
    let bits = |s: Shape| images * steps * s.area() * s.c.div_ceil(8);
    let table = 32 * conv.window.taps() * fours * conv.output.c;
    Work {
        operations: (additions + 6 * images * steps * conv.output.len()) as f64,
        bytes: (bits(conv.input) + bits(conv.output) + table) as f64,
    }
}

/// Pairs of output position and tap whose tap lies inside the input.
pub fn inside(input: Shape, output: Shape, window: &Window) -> usize {
    let along = |axis: usize, size: usize, outputs: usize| -> usize {
        let reads = |o: usize| {
            let at = |k: usize| (o * window.stride[axis] + k * window.dilation[axis]) as isize - window.pad[axis];
            (0..window.kernel[axis]).filter(|&k| (0..size as isize).contains(&at(k))).count()
        };
        (0..outputs).map(reads).sum()
    };
    along(0, input.h, output.h) * along(1, input.w, output.w)
}

/// An average over a window: an addition a tap and a division.
pub fn average(pool: &Pool, images: usize) -> Work {
    let outputs = images * pool.output.len();
    Work::of(outputs * (pool.window.taps() + 1), images * pool.input.len() + outputs)
}

/// The rate winner of spike trains: running sums, a comparison a tap and step, a difference.
pub fn winner(pool: &Pool, images: usize, steps: usize) -> Work {
    let (inputs, outputs) = (images * steps * pool.input.len(), images * steps * pool.output.len());
    Work::of(inputs + outputs * (pool.window.taps() + 1), inputs + outputs)
}

/// An elementwise map in place.
pub fn map(len: usize, operations: usize) -> Work {
    Work::of(len * operations, 2 * len)
}

/// Spike counts in closed form: a multiply-add, a floor, two bounds.
pub fn response(len: usize) -> Work {
    Work::of(5 * len, 2 * len)
}

/// A rearrangement: index and source in, result out.
pub fn gather(len: usize, images: usize) -> Work {
    Work::of(0, len + 2 * len * images)
}

/// Sums over the steps of spike trains.
pub fn total(len: usize, steps: usize) -> Work {
    Work::of(len * steps, len * steps + len)
}

/// The factor of an n x n matrix: n roots, a division an entry below the diagonal, and the updates. One half in and out.
pub fn cholesky(n: usize) -> Work {
    Work::of(n + n * (n - 1) / 2 + (n - 1) * n * (n + 1) / 3, n * (n + 1))
}

/// A triangular solve with m right-hand sides: a division and a row of multiply-adds an entry.
pub fn triangular(n: usize, m: usize) -> Work {
    Work::of(m * n * n, n * (n + 1) / 2 + 2 * m * n)
}

/// Error feedback, a multiply-add for every pair of columns of every lane, and ten operations to round a column.
pub fn feedback(n: usize, lanes: usize) -> Work {
    Work::of(lanes * (n * (n - 1) + 10 * n), n * (n + 1) / 2 + 2 * lanes * n + lanes)
}

/// The same for each of K paths, with five operations for each of a path's branches.
pub fn kbest(n: usize, lanes: usize, paths: usize, branches: usize) -> Work {
    Work::of(lanes * paths * (n * (n - 1) + 5 * branches * n), n * (n + 1) / 2 + 2 * lanes * n + lanes)
}

/// One sweep of descent over m rows: eight operations a column, and a column of H for each of the `moves`.
pub fn descent(n: usize, m: usize, moves: usize) -> Work {
    Work::of(8 * m * n + 2 * n * moves, n * n + 5 * m * n)
}

/// One sweep of pair moves over m rows: seven operations for each partner and direction, and for each of the `moves` two
/// columns of H, added to two rows. The search counts in full, though the twin rules most of it out beforehand by bounds:
/// its figures may lie beyond the peak.
pub fn pairs(n: usize, m: usize, moves: usize) -> Work {
    Work::of(m * 7 * n * (n - 1) + 8 * n * moves, n * n + 5 * m * n)
}

/// Descent in the space of S samples: a product and eight operations a column and row, and a column for each move.
pub fn sample_sweep(n: usize, m: usize, samples: usize, moves: usize) -> Work {
    Work::of(m * n * (2 * samples + 8) + 2 * samples * moves, 2 * n * samples + 3 * m * n + 2 * m * samples)
}

/// Projected gradient: a product with H and twelve operations a weight and iteration. H and bounds once an iteration.
pub fn box_gradient(n: usize, m: usize, iterations: usize) -> Work {
    Work::of(iterations * (2 * m * n * n + 12 * m * n), iterations * (n * n + 7 * m * n))
}

/// ADMM in a box: a product with K and ten operations a weight and iteration.
pub fn admm(n: usize, m: usize, iterations: usize) -> Work {
    Work::of(iterations * (2 * m * n * n + 10 * m * n), iterations * (n * n + 10 * m * n))
}

/// ADMM for magnitudes: two products over k weights and `rows` residuals, and twelve operations a residual.
pub fn absolute(k: usize, m: usize, rows: usize, iterations: usize) -> Work {
    Work::of(iterations * (4 * m * k * rows + 12 * m * rows), iterations * (2 * k * rows + 5 * m * rows + 2 * m * k))
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
