//! The values that a stored synapse may take, in units of its scale, and who owns a scale. METHOD section 5.
//!
//! A stored synapse is `scale * value`, where `value` is one of the grid's levels. What the chip holds is the level's
//! *code*: the integer itself for the integer grids, the position in the list for `Levels`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The levels of a stored synapse in units of its scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grid {
    /// Two's complement integers -2^(bits-1) ..= 2^(bits-1) - 1: -128 to 127 at 8 bits.
    Uniform { bits: u32 },
    /// Sign and magnitude: integers -(2^(bits-1) - 1) ..= 2^(bits-1) - 1, +-127 at 8 bits.
    Symmetric { bits: u32 },
    /// -1, 0, 1 ("1.58 bits").
    Ternary,
    /// Integers 0 ..= 2^bits - 1.
    Unsigned { bits: u32 },
    /// Even integers -(2^bits - 2) ..= 2^bits - 2: +-254 at 8 bits (Loihi's signed 8-bit mode stores every second integer).
    Even { bits: u32 },
    /// An arbitrary list, rising and without repeats (conductances, a palette).
    Levels(Vec<f64>),
}

/// Most bits of an integer grid: codes stay exact in f32 and products of codes in i32.
const MAX_BITS: u32 = 16;

/// Who shares one scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ScaleOwner {
    /// One scale for all rows of the layer.
    Layer,
    /// One scale an output channel: a row of the layer problem.
    #[default]
    Channel,
    /// One scale a neuron. A row of the layer problem too: inside a convolution all positions share it.
    Neuron,
}

impl Grid {
    /// A list of levels in any order; sorted and freed of repeats here.
    ///
    /// # Errors
    /// `Input` if the list is empty or holds NaN or infinity.
    pub fn from_levels(mut levels: Vec<f64>) -> Result<Self> {
        if levels.is_empty() {
            return Err(Error::input("levels", "the list is empty"));
        }
        if let Some(bad) = levels.iter().find(|v| !v.is_finite()) {
            return Err(Error::input("levels", format!("{bad} is not a finite number")));
        }
        levels.sort_by(f64::total_cmp);
        levels.dedup();
        Ok(Grid::Levels(levels))
    }

    /// Checks what a deserialized grid may hold.
    ///
    /// # Errors
    /// `Input` for a bit width outside 1..=16 (2..=16 if signed) or a list that is empty, unsorted or not finite.
    pub fn check(&self) -> Result<()> {
        let (bits, least) = match self {
            Grid::Uniform { bits } | Grid::Symmetric { bits } | Grid::Even { bits } => (*bits, 2),
            Grid::Unsigned { bits } => (*bits, 1),
            Grid::Ternary => return Ok(()),
            Grid::Levels(list) if list.is_empty() => return Err(Error::input("levels", "the list is empty")),
            Grid::Levels(list) => {
                let rising = list.windows(2).all(|p| p[0] < p[1]);
                return if rising && list.iter().all(|v| v.is_finite()) {
                    Ok(())
                } else {
                    Err(Error::input("levels", "the list must be finite, rising and without repeats"))
                };
            }
        };
        if (least..=MAX_BITS).contains(&bits) {
            Ok(())
        } else {
            Err(Error::input("bits", format!("{bits} is outside {least}..={MAX_BITS}")))
        }
    }

    /// The integer grids as (lowest, highest, step); `None` for a list.
    pub fn regular(&self) -> Option<(f64, f64, f64)> {
        let top = |bits: u32| (1u64 << bits) as f64;
        match self {
            Grid::Uniform { bits } => Some((-top(bits - 1), top(bits - 1) - 1.0, 1.0)),
            Grid::Symmetric { bits } => Some((1.0 - top(bits - 1), top(bits - 1) - 1.0, 1.0)),
            Grid::Ternary => Some((-1.0, 1.0, 1.0)),
            Grid::Unsigned { bits } => Some((0.0, top(*bits) - 1.0, 1.0)),
            Grid::Even { bits } => Some((2.0 - top(*bits), top(*bits) - 2.0, 2.0)),
            Grid::Levels(_) => None,
        }
    }

    /// The level nearest to `x` (in units of the scale): its code and its value. Ties go to the level farther from
    /// zero for the integer grids, to the lower one for a list.
    pub fn nearest(&self, x: f64) -> (i32, f64) {
        match (self, self.regular()) {
            (Grid::Levels(list), _) => {
                let above = list.partition_point(|&v| v < x);
                let at = match above {
                    0 => 0,
                    i if i == list.len() => i - 1,
                    i if x - list[i - 1] <= list[i] - x => i - 1,
                    i => i,
                };
                (at as i32, list[at])
            }
            (_, Some((low, high, step))) => {
                // f64::max and min also send NaN to the lowest level instead of an arbitrary code
                let value = ((x / step).round() * step).max(low).min(high);
                (value as i32, value)
            }
            (_, None) => (0, 0.0),
        }
    }

    /// The value that a code stands for; the nearest end of the grid for a code that it does not hold.
    pub fn value(&self, code: i32) -> f64 {
        match self {
            Grid::Levels(list) => {
                list.get(code.max(0) as usize).or(list.last()).copied().unwrap_or(0.0) //
            }
            _ => self.nearest(f64::from(code)).1,
        }
    }

    /// The grid of its levels and their negatives. Where the sign makes 17 bits, the highest magnitude bit goes.
    pub fn with_signs(&self) -> Grid {
        match self {
            Grid::Unsigned { bits } => Grid::Symmetric { bits: (bits + 1).min(MAX_BITS) },
            Grid::Levels(list) => {
                let mut both: Vec<f64> = list.iter().flat_map(|v| [-v + 0.0, *v]).collect();
                both.sort_by(f64::total_cmp);
                both.dedup();
                Grid::Levels(both)
            }
            signed => signed.clone(),
        }
    }

    /// Whether it has no level below zero.
    pub fn is_unsigned(&self) -> bool {
        match (self, self.regular()) {
            (Grid::Levels(list), _) => list.iter().all(|v| *v >= 0.0),
            (_, regular) => regular.is_some_and(|(low, _, _)| low >= 0.0),
        }
    }

    /// Whether a synapse can be left out.
    pub fn has_zero(&self) -> bool {
        match (self, self.regular()) {
            (Grid::Levels(list), _) => list.contains(&0.0),
            (_, regular) => regular.is_some_and(|(low, high, _)| low <= 0.0 && high >= 0.0),
        }
    }

    /// The largest |level|.
    pub fn max_abs(&self) -> f64 {
        match (self, self.regular()) {
            (Grid::Levels(list), _) => list.iter().fold(0.0, |most, v| most.max(v.abs())),
            (_, Some((low, high, _))) => high.max(-low),
            (_, None) => 0.0,
        }
    }

    /// What a max-abs scale divides the largest |w| by, so that it is stored unclipped whichever its sign (if the grid
    /// has both): 127 for both signed grids of 8 bits, although one also holds -128.
    pub fn reach(&self) -> f64 {
        match self {
            Grid::Uniform { .. } => self.max_abs() - 1.0,
            _ => self.max_abs(),
        }
    }

    /// All levels, rising.
    pub fn levels(&self) -> Vec<f64> {
        match (self, self.regular()) {
            (Grid::Levels(list), _) => list.clone(),
            (_, Some((low, high, step))) => {
                let count = ((high - low) / step).round() as usize + 1;
                (0..count).map(|i| low + step * i as f64).collect()
            }
            (_, None) => Vec::new(),
        }
    }
}

/// `8` (two's complement), `sym8` (sign and magnitude), `1.58`, `u4` (unsigned), `even8`, `1` (binary: -1, 1).
impl FromStr for Grid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bits = |digits: &str| {
            digits.parse::<u32>().map_err(|_| {
                Error::input(
                    "bits",
                    format!(
                        "`{text}` is none of: 2 to {MAX_BITS}, sym2 to sym{MAX_BITS}, 1.58, 1, u1 to u{MAX_BITS}, \
                         even2 to even{MAX_BITS}"
                    ),
                )
            })
        };
        let grid = match text {
            "1.58" | "ternary" => Grid::Ternary,
            "1" | "binary" => Grid::Levels(vec![-1.0, 1.0]),
            _ => match text.find(|c: char| c.is_ascii_digit()).map_or((text, ""), |at| text.split_at(at)) {
                ("sym", digits) => Grid::Symmetric { bits: bits(digits)? },
                ("even", digits) => Grid::Even { bits: bits(digits)? },
                ("u", digits) => Grid::Unsigned { bits: bits(digits)? },
                _ => Grid::Uniform { bits: bits(text)? },
            },
        };
        grid.check()?;
        Ok(grid)
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grid::Uniform { bits } => write!(f, "{bits}"),
            Grid::Symmetric { bits } => write!(f, "sym{bits}"),
            Grid::Ternary => f.write_str("1.58"),
            Grid::Unsigned { bits } => write!(f, "u{bits}"),
            Grid::Even { bits } => write!(f, "even{bits}"),
            Grid::Levels(list) => write!(f, "{} levels", list.len()),
        }
    }
}

impl FromStr for ScaleOwner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "layer" => Ok(ScaleOwner::Layer),
            "channel" => Ok(ScaleOwner::Channel),
            "neuron" => Ok(ScaleOwner::Neuron),
            _ => Err(Error::input("bits-scale", format!("`{text}` is none of layer, channel, neuron"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_the_chips() {
        assert_eq!("8".parse::<Grid>().unwrap().regular(), Some((-128.0, 127.0, 1.0)));
        assert_eq!("2".parse::<Grid>().unwrap().levels(), vec![-2.0, -1.0, 0.0, 1.0]);
        assert_eq!("sym8".parse::<Grid>().unwrap().regular(), Some((-127.0, 127.0, 1.0)));
        assert_eq!("sym2".parse::<Grid>().unwrap().levels(), vec![-1.0, 0.0, 1.0]);
        assert_eq!("1.58".parse::<Grid>().unwrap().levels(), vec![-1.0, 0.0, 1.0]);
        assert_eq!("u2".parse::<Grid>().unwrap().levels(), vec![0.0, 1.0, 2.0, 3.0]);
        assert_eq!("even3".parse::<Grid>().unwrap().levels(), vec![-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0]);
        for bad in ["0", "1.5", "17", "u0", "even1", "sym1", "sym17", "sym", "x", "-3", "2.5", "8sym", ""] {
            assert!(bad.parse::<Grid>().is_err(), "{bad}");
        }
        for text in ["2", "8", "sym4", "u3", "even5", "1.58"] {
            assert_eq!(text.parse::<Grid>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_max_abs_scale_clips_neither_sign() {
        for text in ["2", "8", "sym2", "sym8", "1.58", "1", "u4", "even3"] {
            let grid: Grid = text.parse().unwrap();
            let ends = grid.levels().into_iter().fold((0.0f64, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
            assert!(grid.reach() <= ends.1 && (ends.0 == 0.0 || grid.reach() <= -ends.0), "{text}");
            assert!(grid.max_abs() - grid.reach() <= 1.0);
        }
        assert_eq!(["8", "sym8", "2"].map(|t| t.parse::<Grid>().unwrap().reach()), [127.0, 127.0, 1.0]);
    }

    #[test]
    fn nearest_is_the_nearest_of_all_levels() {
        let grids = ["2", "4", "sym3", "1.58", "u3", "even3"].map(|t| t.parse::<Grid>().unwrap());
        let list = Grid::from_levels(vec![0.5, -3.0, 0.0, 2.25]).unwrap();
        for grid in grids.iter().chain([&list]) {
            for i in -400..400 {
                let x = f64::from(i) * 0.0371;
                let (code, value) = grid.nearest(x);
                let best = grid.levels().iter().map(|v| (v - x).abs()).fold(f64::INFINITY, f64::min);
                assert!((value - x).abs() <= best + 1e-12, "{grid} {x}");
                assert_eq!(grid.value(code), value);
            }
        }
    }

    #[test]
    fn survives_a_round_trip() {
        for grid in
            [Grid::Uniform { bits: 8 }, Grid::Symmetric { bits: 4 }, Grid::Ternary, Grid::Levels(vec![0.0, 1.5])]
        {
            let text = serde_json::to_string(&grid).unwrap();
            assert_eq!(serde_json::from_str::<Grid>(&text).unwrap(), grid);
        }
    }
}
