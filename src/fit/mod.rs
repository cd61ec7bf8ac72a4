//! One layer problem: build, targets, solve (box, grid), certify.
//!
//! min over W in C: sum_s ||W x_s - t_s||^2 + ridge, with C what the chip can hold (METHOD sections 2, 4, 5).
//! `problem` builds it from sums over samples; `solve` is the door to the solvers.

mod absolute;
mod bounds;
mod branch;
mod continuous;
mod dual;
mod exact;
mod factorize;
mod noisy;
mod offload;
mod palette;
mod polish;
mod problem;
pub mod prune;
mod quantize;
mod repeats;
mod ridge;
mod rounding;
mod signs;
mod snap;
mod solve;
mod spread;
mod stepper;
mod system;
mod types;

pub use crate::compute::solver::absolute::Measure;
pub use absolute::{AbsoluteFit, Samples, solve_absolute};
pub use bounds::Bounds;
pub use dual::{applies as dual_applies, pays as dual_pays, solve_dual};
pub use noisy::{Noise, solve_noisy};
pub use problem::{Problem, Sums};
pub use repeats::solve_repeats;
pub use ridge::{Fold, cross_validated};
pub use signs::Signs;
pub use snap::snapped;
pub use solve::{Method, Objectives, Solution, Spec, Status, solve, solve_with};
