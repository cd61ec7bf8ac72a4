//! Device, buffers and kernels: each kernel a WGSL shader with a plain Rust twin.
//!
//! A kernel is a free function `kernel(dev, &params, inputs.., outputs..)` that checks lengths at its door and gives
//! the same result on every device; the device chooses between shader and twin.

pub mod activate;
mod adapters;
mod batch;
mod buffer;
mod clock;
pub mod conv;
mod device;
pub mod factor;
pub mod gather;
mod gpu;
pub mod gram;
pub mod lookup;
mod memory;
mod patch;
pub mod peak;
pub mod pool;
pub mod removal;
pub mod response;
pub(crate) mod simd;
pub mod solver;
pub mod spikes;
pub mod step;
mod team;
mod tiles;
pub mod time;
pub mod words;

pub use adapters::{Checks, Choice, Choices, DeviceInfo, Limits, devices};
pub use buffer::{Buffer, Element};
pub use clock::Elapsed;
pub use device::Device;
pub use memory::free_host_bytes;
pub(crate) use patch::check_window;
pub use team::{Account, Stop, Team};
pub use tiles::{Tiles, Wide, calibrated};
