//! The levels of a grid as the kernels see them: numbers, without codes.

use std::borrow::Cow;
use std::ops::Range;

use super::Real;
use crate::chip::Grid;

/// The levels a stored value may take, in units of its scale.
#[derive(Debug, Clone, PartialEq)]
pub enum Steps<T> {
    /// low, low + step, .., high; low and high are multiples of step.
    Regular { low: T, high: T, step: T },
    /// Rising, not empty.
    List(Vec<T>),
    /// rows x count: a list for every row. Levels are looked up in `of_row`; on all of them, in the first row's.
    Rows { lists: Vec<T>, count: usize },
}

impl<T: Real> Steps<T> {
    pub fn of(grid: &Grid) -> Self {
        match grid.regular() {
            Some((low, high, step)) => Steps::Regular { low: T::of(low), high: T::of(high), step: T::of(step) },
            None => Steps::List(grid.levels().into_iter().map(T::of).collect()),
        }
    }

    /// The levels of one row.
    pub fn of_row(&self, row: usize) -> Cow<'_, Self> {
        match self {
            Steps::Rows { lists, count } => Cow::Owned(Steps::List(lists[row * count..(row + 1) * count].to_vec())),
            all => Cow::Borrowed(all),
        }
    }

    /// The levels of some rows, which are numbered from 0 then.
    pub fn of_rows(&self, rows: Range<usize>) -> Cow<'_, Self> {
        match self {
            Steps::Rows { lists, count } => {
                Cow::Owned(Steps::Rows { lists: lists[rows.start * count..rows.end * count].to_vec(), count: *count })
            }
            all => Cow::Borrowed(all),
        }
    }

    /// Whether rows have levels of their own.
    pub fn by_row(&self) -> bool {
        matches!(self, Steps::Rows { .. })
    }

    /// What the shared lookups search; empty for a regular grid.
    #[inline(always)]
    fn searched(&self) -> &[T] {
        match self {
            Steps::Regular { .. } => &[],
            Steps::List(list) => list,
            Steps::Rows { lists, count } => &lists[..*count],
        }
    }

    /// The level nearest to `x`.
    #[inline(always)]
    pub fn nearest(&self, x: T) -> T {
        match self {
            Steps::Regular { low, high, step } => ((x / *step).rounded() * *step).most(*low).least(*high),
            _ => {
                let list = self.searched();
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

    /// The levels nearest to `x` among those in `within` (lower, upper), nearest first: fills `found`, returns how many
    /// there are.
    #[inline(always)]
    pub fn nearest_few(&self, x: T, within: Option<(T, T)>, found: &mut [T]) -> usize {
        match self {
            Steps::Regular { low, high, step } => {
                let (low, high) = match within {
                    None => (*low, *high),
                    Some((lower, upper)) => (
                        low.most(-((-lower / *step + T::HAIR).floored()) * *step),
                        high.least((upper / *step + T::HAIR).floored() * *step),
                    ),
                };
                if low > high || found.is_empty() {
                    return 0;
                }
                let middle = ((x / *step).rounded() * *step).most(low).least(high);
                found[0] = middle;
                let (mut left, mut right) = (middle - *step, middle + *step);
                for (count, slot) in found.iter_mut().enumerate().skip(1) {
                    let (may_left, may_right) = (left >= low, right <= high);
                    if may_left && (!may_right || x - left <= right - x) {
                        *slot = left;
                        left -= *step;
                    } else if may_right {
                        *slot = right;
                        right += *step;
                    } else {
                        return count;
                    }
                }
            }
            _ => {
                let list = self.searched();
                let (start, end) = match within {
                    None => (0, list.len()),
                    Some((lower, upper)) => (
                        list.partition_point(|v| *v < lower - T::HAIR),
                        list.partition_point(|v| *v <= upper + T::HAIR), //
                    ),
                };
                let end = end.max(start);
                let mut right = list.partition_point(|v| *v < x).clamp(start, end);
                let mut left = right;
                for (count, slot) in found.iter_mut().enumerate() {
                    let (may_left, may_right) = (left > start, right < end);
                    if may_left && (!may_right || x - list[left - 1] <= list[right] - x) {
                        left -= 1;
                        *slot = list[left];
                    } else if may_right {
                        *slot = list[right];
                        right += 1;
                    } else {
                        return count;
                    }
                }
            }
        }
        found.len()
    }

    /// The steps from `level` to the next one below and above (down, up) in `within` (lower, upper); 0 where there is
    /// none.
    #[inline]
    pub fn neighbours(&self, level: T, within: Option<(T, T)>) -> (T, T) {
        let (low, high, down, up) = match self {
            Steps::Regular { low, high, step } => (*low, *high, level - *step, level + *step),
            _ => {
                let list = self.searched();
                let last = list.len() - 1;
                let below = list.partition_point(|v| *v < level).max(1) - 1;
                let above = list.partition_point(|v| *v <= level).min(last);
                (list[0], list[last], list[below], list[above])
            }
        };
        let (low, high) = match within {
            None => (low, high),
            Some((lower, upper)) => (low.most(lower - T::HAIR), high.least(upper + T::HAIR)),
        };
        let step = |to: T, may: bool| if may { to - level } else { T::default() };
        (step(down, down < level && down >= low), step(up, up > level && up <= high))
    }

    /// The highest level <= x (a hair of rounding allowed), the lowest of all if there is none.
    fn at_most(&self, x: T) -> T {
        match self {
            Steps::Regular { low, high, step } => ((x / *step + T::HAIR).floored() * *step).most(*low).least(*high),
            _ => {
                let list = self.searched();
                list[list.partition_point(|v| *v <= x).saturating_sub(1)]
            }
        }
    }

    /// The lowest level >= x (a hair of rounding allowed), the highest of all if there is none.
    fn at_least(&self, x: T) -> T {
        match self {
            Steps::Regular { low, high, step } => {
                (-((-x / *step + T::HAIR).floored()) * *step).most(*low).least(*high) //
            }
            _ => {
                let list = self.searched();
                list[list.partition_point(|v| *v < x).min(list.len() - 1)]
            }
        }
    }
}

impl Steps<f32> {
    /// The longest step between neighbouring levels, of all rows.
    pub(super) fn longest(&self) -> f32 {
        let of = |list: &[f32]| list.windows(2).fold(0.0f32, |most, pair| most.max(pair[1] - pair[0]));
        match self {
            Steps::Regular { step, .. } => *step,
            Steps::List(list) => of(list),
            Steps::Rows { lists, count } => lists.chunks_exact(*count).map(of).fold(0.0, f32::max),
        }
    }

    /// `Grid` of shaders/shared/levels.wgsl, as bits.
    pub(super) fn params(&self) -> [u32; 4] {
        match self {
            Steps::Regular { low, high, step } => [low.to_bits(), high.to_bits(), step.to_bits(), 0],
            Steps::List(list) => [0, 0, 0, list.len() as u32],
            Steps::Rows { count, .. } => [0, 0, (*count as f32).to_bits(), *count as u32],
        }
    }

    /// The list that the shader searches; one unread entry for a regular grid, as a binding cannot be empty.
    pub(super) fn list(&self) -> &[f32] {
        match self {
            Steps::Regular { .. } => &[0.0],
            Steps::List(list) | Steps::Rows { lists: list, .. } => list,
        }
    }
}

impl Steps<f64> {
    /// The same in f32.
    pub fn single(&self) -> Steps<f32> {
        let list = |list: &[f64]| list.iter().map(|v| *v as f32).collect();
        match self {
            Steps::Regular { low, high, step } => {
                Steps::Regular { low: *low as f32, high: *high as f32, step: *step as f32 } //
            }
            Steps::List(all) => Steps::List(list(all)),
            Steps::Rows { lists, count } => Steps::Rows { lists: list(lists), count: *count },
        }
    }
}

/// Columns that one dispatch may go through when each costs an invocation of 64 a pass over n entries and a search:
/// some drivers end loops after 65,535 iterations without a word.
pub(super) fn columns_a_dispatch(n: usize) -> usize {
    const MOST_ITERATIONS: usize = 30_000;
    (MOST_ITERATIONS / (n.div_ceil(64) + 52)).max(1)
}
