//! The levels of a grid as the kernels see them: numbers, without codes.

use super::Real;
use crate::chip::Grid;

/// The levels a stored value may take, in units of its scale.
#[derive(Debug, Clone, PartialEq)]
pub enum Steps<T> {
    /// low, low + step, .., high; low and high are multiples of step.
    Regular { low: T, high: T, step: T },
    /// Rising, not empty.
    List(Vec<T>),
}

impl<T: Real> Steps<T> {
    pub fn of(grid: &Grid) -> Self {
        match grid.regular() {
            Some((low, high, step)) => Steps::Regular { low: T::of(low), high: T::of(high), step: T::of(step) },
            None => Steps::List(grid.levels().into_iter().map(T::of).collect()),
        }
    }

    /// The level nearest to `x`.
    #[inline(always)]
    pub fn nearest(&self, x: T) -> T {
        match self {
            Steps::Regular { low, high, step } => ((x / *step).rounded() * *step).most(*low).least(*high),
            Steps::List(list) => {
                let above = list.partition_point(|v| *v < x);
                match above {
                    0 => list[0],
                    i if i == list.len() => list[i - 1],
                    i if x - list[i - 1] <= list[i] - x => list[i - 1],
                    i => list[i],
                }
            }
        }
    }

    /// The level nearest to `x` among those in `lower ..= upper`; the level nearest to `x` of
    /// all if that interval holds none.
    #[inline]
    pub fn nearest_within(&self, x: T, lower: T, upper: T) -> T {
        let level = self.nearest(x);
        if level > upper {
            let inside = self.at_most(upper);
            if inside >= lower - T::HAIR { inside } else { level }
        } else if level < lower {
            let inside = self.at_least(lower);
            if inside <= upper + T::HAIR { inside } else { level }
        } else {
            level
        }
    }

    /// The highest level <= x (a hair of rounding allowed), the lowest of all if there is none.
    fn at_most(&self, x: T) -> T {
        match self {
            Steps::Regular { low, high, step } => ((x / *step + T::HAIR).floored() * *step).most(*low).least(*high),
            Steps::List(list) => list[list.partition_point(|v| *v <= x).saturating_sub(1)],
        }
    }

    /// The lowest level >= x (a hair of rounding allowed), the highest of all if there is none.
    fn at_least(&self, x: T) -> T {
        match self {
            Steps::Regular { low, high, step } => {
                (-((-x / *step + T::HAIR).floored()) * *step).most(*low).least(*high) //
            }
            Steps::List(list) => list[list.partition_point(|v| *v < x).min(list.len() - 1)],
        }
    }
}

impl Steps<f32> {
    /// `Grid` of shaders/shared/levels.wgsl, as bits.
    pub(super) fn params(&self) -> [u32; 4] {
        match self {
            Steps::Regular { low, high, step } => [low.to_bits(), high.to_bits(), step.to_bits(), 0],
            Steps::List(list) => [0, 0, 1.0f32.to_bits(), list.len() as u32],
        }
    }

    /// The list that the shader searches; one unread entry for a regular grid, as a binding cannot be empty.
    pub(super) fn list(&self) -> &[f32] {
        match self {
            Steps::Regular { .. } => &[0.0],
            Steps::List(list) => list,
        }
    }
}

/// Columns that one dispatch may go through when each costs an invocation of 64 a pass over n entries and a search:
/// some drivers end loops after 65,535 iterations without a word.
pub(super) fn columns_a_dispatch(n: usize) -> usize {
    const MOST_ITERATIONS: usize = 30_000;
    (MOST_ITERATIONS / (n.div_ceil(64) + 52)).max(1)
}
