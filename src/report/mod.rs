//! The account of a conversion: report.json is the record, report.html the pictures.

mod html;
mod memory;

use serde::{Deserialize, Serialize};

use crate::compare::TestRecord;
use crate::compute::{Device, DeviceInfo};
use crate::convert::LayerRecord;

pub use html::html;
pub use memory::host_peak_bytes;

/// report.json, version 1: keys may be added, these stay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub version: u32,
    pub synfit: String,
    pub device: DeviceRecord,
    pub network: String,
    pub chip: String,
    pub steps: u32,
    pub seed: u64,
    pub neurons: usize,
    pub synapses: usize,
    pub layers: Vec<LayerRecord>,
    pub test: TestRecord,
    pub seconds: Seconds,
    pub peak_memory: PeakMemory,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceRecord {
    pub name: String,
    pub backend: String,
}

impl From<&DeviceInfo> for DeviceRecord {
    fn from(info: &DeviceInfo) -> Self {
        Self { name: info.name.clone(), backend: info.backend.clone() }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Seconds {
    pub total: f64,
    /// Reading and checking model and data.
    pub read: f64,
    pub convert: f64,
    pub test: f64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct PeakMemory {
    /// Most resident memory of the process; null where the system does not tell.
    pub host_bytes: Option<u64>,
    /// Most bytes in device buffers; 0 on the CPU, whose buffers are host memory.
    pub device_bytes: u64,
}

impl PeakMemory {
    pub fn measure(dev: &Device) -> Self {
        Self { host_bytes: host_peak_bytes(), device_bytes: if dev.is_gpu() { dev.peak_bytes() } else { 0 } }
    }
}
