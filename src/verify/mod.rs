//! Independent checks in f64: layer problems solved again, row by row, by a code that shares nothing with the solvers
//! of `fit` (Clarabel's interior point), and every figure of a solution computed again from its definition. METHOD 7.

mod interior;
mod magnitudes;
mod rows;

pub use interior::{Least, Norm, Row};
pub use magnitudes::check_absolute;
pub use rows::{RowCheck, Verdict, check, sampled};
