//! The document that `synfit bench --json` prints, version 1: keys may be added, these stay.

use serde::Serialize;

use super::networks::Shape;
use super::sizes::Size;
use super::timing::Timing;
use crate::compute::DeviceInfo;

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Document {
    pub version: u32,
    pub synfit: String,
    /// Cores that plain Rust may use.
    pub cores: usize,
    pub seed: u64,
    pub devices: Vec<Measured>,
}

/// One device: name, backend, kind, driver and binding limit, then its figures.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    #[serde(flatten)]
    pub info: DeviceInfo,
    /// Whether its adapter tells GPU seconds.
    pub timestamps: bool,
    /// Of the kernels' work.
    pub size: Size,
    pub peaks: Peaks,
    pub kernels: Vec<Kernel>,
    pub conversions: Vec<Conversion>,
}

/// The best runs of the two peak kernels.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Peaks {
    /// Multiply-adds in f32, two operations each.
    pub gflops: f64,
    /// A copy, bytes read and written.
    pub gbps: f64,
    pub fma: Timing,
    pub copy: Timing,
}

/// Which peak a kernel could reach first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// `peaks.gflops`
    Arithmetic,
    /// `peaks.gbps`
    Memory,
}

/// One kernel.
#[derive(Debug, Clone, Serialize)]
pub struct Kernel {
    pub name: &'static str,
    pub shape: String,
    /// Counted, of one run: arithmetic operations (a multiply-add is two), and bytes that must move at least (every input
    /// read once, every output written once).
    pub operations: f64,
    pub bytes: f64,
    #[serde(flatten)]
    pub timing: Timing,
    pub gflops: f64,
    pub gbps: f64,
    pub limit: Limit,
    /// Of the limit's peak; beyond 100 where caches serve what the copy fetches from memory, and for maps in place.
    pub percent_of_peak: f64,
}

/// One whole conversion. Opening the device and making network and images are not counted; compiling shaders is.
#[derive(Debug, Clone, Serialize)]
pub struct Conversion {
    pub network: Shape,
    pub input: String,
    pub outputs: usize,
    /// Trained ones, batch normalization folded: weights and biases, without identity shortcuts.
    pub parameters: usize,
    /// Multiply-accumulates of an image in the trained network.
    pub macs: u64,
    pub images: usize,
    pub chip: String,
    /// Time steps.
    pub steps: u32,
    /// Levels of a synapse; null for real-valued ones.
    pub bits: Option<String>,
    pub layers: usize,
    pub neurons: usize,
    pub synapses: usize,
    pub seconds: Phases,
    pub images_per_second: f64,
    pub mean_error: MeanErrors,
    pub peak_memory: Memory,
}

/// Seconds by phase, all layers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Phases {
    pub total: f64,
    /// Passes that run both networks up to a layer and sum its moments.
    pub moments: f64,
    /// Passes that sum moments over targets made to the neurons' response.
    pub targets: f64,
    /// Passes that simulate a fitted layer.
    pub simulate: f64,
    /// The rest: solving, storing, initial potentials.
    pub solve: f64,
}

/// Means over the layers of their relative squared errors.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MeanErrors {
    pub round: f64,
    pub fit: f64,
    pub grid: f64,
    /// Of the decoded rates; null if no layer has any.
    pub response: Option<f64>,
}

/// Most memory during the conversion.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Resident memory of the process, with what it held before; null where the system does not tell.
    pub host_bytes: Option<u64>,
    /// Device buffers; 0 on the CPU, whose buffers are host memory.
    pub device_bytes: u64,
}
