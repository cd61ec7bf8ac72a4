//! Measurements of this machine: what its devices can do at most (`peaks`), what every kernel of `compute` reaches of
//! that (`kernels`), and what whole conversions of well-known architectures take (`conversions`).
//!
//! A kernel's operations and bytes are counted by a formula (`work`), never guessed from its time.

pub mod conversions;
pub mod kernels;
pub mod networks;
pub mod peaks;
mod record;
mod sizes;
mod timing;
pub mod work;

pub use record::{Conversion, Document, Kernel, Limit, MeanErrors, Measured, Memory, Peaks, Phases};
pub use sizes::{Size, Sizes};
pub use timing::{ClockKind, Plan, Timing};
