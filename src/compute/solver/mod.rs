//! The layer solvers' inner loops: batched over the rows of a layer problem, which share H (n x n).
//!
//! Each file is one kernel: the plain Rust twin, generic over f32 and f64 (the f64 form is what the CPU path of `fit`
//! runs), and the dispatch that runs the WGSL shader of the same name on a GPU and the twin in f32 elsewhere.
//! METHOD sections 4 and 5.

pub mod absolute;
pub mod admm;
pub mod box_gradient;
pub mod dense;
pub mod descent;
pub mod feedback;
pub mod kbest;
pub mod pairs;
mod real;
pub mod sample_sweep;
mod steps;

pub use real::Real;
pub use steps::Steps;
