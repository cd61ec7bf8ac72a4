//! The number types that a twin runs in.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

/// f32 (what the shaders compute in) or f64 (what the CPU path of `fit` computes in).
pub trait Real:
    faer::traits::RealField
    + Copy
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + std::iter::Sum
    + Send
    + Sync
    + 'static
{
    const INFINITY: Self;
    /// Share of a step by which rounding may overstep a bound.
    const HAIR: Self;
    fn of(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn rounded(self) -> Self;
    fn floored(self) -> Self;
    /// The smaller; `other` if self is NaN.
    fn least(self, other: Self) -> Self;
    /// The larger; `other` if self is NaN.
    fn most(self, other: Self) -> Self;
}

macro_rules! real {
    ($t:ty, $hair:expr) => {
        impl Real for $t {
            const INFINITY: Self = <$t>::INFINITY;
            const HAIR: Self = $hair;
            fn of(x: f64) -> Self {
                x as $t
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn rounded(self) -> Self {
                self.round_ties_even()
            }
            #[inline(always)]
            fn floored(self) -> Self {
                self.floor()
            }
            fn least(self, other: Self) -> Self {
                self.min(other)
            }
            fn most(self, other: Self) -> Self {
                self.max(other)
            }
        }
    };
}

real!(f32, 1e-5);
real!(f64, 1e-10);
