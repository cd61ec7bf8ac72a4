//! What there is to compute on: the adapters that wgpu finds, best first, and the CPU last.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::error::{Error, Result};

/// The user's choice of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A real GPU if there is one, else the CPU; never a software rasterizer.
    Auto,
    /// The best adapter there is, software rasterizers included.
    Gpu,
    Cpu,
    /// The best adapter of OpenGL, which the others prefer to do without: its loaders are slow and talk to the terminal.
    OpenGl,
    /// A line of `devices()`.
    Index(usize),
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Choice::Auto),
            "gpu" => Ok(Choice::Gpu),
            "cpu" => Ok(Choice::Cpu),
            "opengl" => Ok(Choice::OpenGl),
            _ => s
                .parse()
                .map(Choice::Index)
                .map_err(|_| Error::input("device", format!("{s:?} is none of auto, gpu, cpu, opengl or a number"))),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str("auto"),
            Choice::Gpu => f.write_str("gpu"),
            Choice::Cpu => f.write_str("cpu"),
            Choice::OpenGl => f.write_str("opengl"),
            Choice::Index(i) => write!(f, "{i}"),
        }
    }
}

/// What a GPU is asked for when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limits {
    /// The adapter's own buffer sizes and the optional features that something makes use of.
    #[default]
    Own,
    /// Exactly WebGPU's default limits and no optional feature: what every adapter has.
    Default,
    /// As `Own`, but a kernel's buffer holds at most so many bytes.
    Buffer(u64),
}

/// One device, as `synfit devices` and the report show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    pub name: String,
    /// vulkan, metal, dx12, gl, or cpu for the plain Rust path.
    pub backend: String,
    /// discrete, integrated, virtual, other, software (a rasterizer on the CPU) or host (the plain Rust path).
    pub kind: String,
    /// The driver and its version; empty where unknown.
    pub driver: String,
    /// What one storage binding may hold.
    pub max_buffer_bytes: u64,
}

impl DeviceInfo {
    pub(crate) fn host() -> Self {
        let threads = rayon::current_num_threads();
        DeviceInfo {
            name: format!("CPU ({threads} threads)"),
            backend: "cpu".into(),
            kind: "host".into(),
            driver: String::new(),
            max_buffer_bytes: HOST_BUFFER_BYTES,
        }
    }
}

/// The CPU has no binding limit; this keeps batches of the same order as a GPU's.
const HOST_BUFFER_BYTES: u64 = 1 << 30;
/// Shaders index with u32 and some drivers with i32: no buffer beyond 2 GiB.
const MOST_BUFFER_BYTES: u64 = (1 << 31) - 4;

/// The limits a kernel may count on: WebGPU's defaults, with the adapter's own buffer sizes where those are larger
/// (and wanted).
pub(crate) fn limits(adapter: &wgpu::Adapter, wanted: Limits) -> wgpu::Limits {
    let own = adapter.limits();
    let base = wgpu::Limits::default();
    let most = match wanted {
        Limits::Default => return base,
        Limits::Own => MOST_BUFFER_BYTES,
        Limits::Buffer(bytes) => bytes.min(MOST_BUFFER_BYTES),
    };
    let binding = own.max_storage_buffer_binding_size.max(base.max_storage_buffer_binding_size);
    wgpu::Limits {
        max_buffer_size: own.max_buffer_size.min(MOST_BUFFER_BYTES).max(base.max_buffer_size),
        max_storage_buffer_binding_size: binding.min(most),
        ..base
    }
}

/// Where an adapter stands among others: lower is better.
fn rank(info: &wgpu::AdapterInfo) -> (u8, u8) {
    use wgpu::{Backend, DeviceType};
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    };
    let backend = match info.backend {
        Backend::Vulkan | Backend::Metal | Backend::Dx12 => 0,
        _ => 1,
    };
    (kind, backend)
}

/// A rasterizer on the CPU; some call themselves `Other`.
fn software(info: &wgpu::AdapterInfo) -> bool {
    let name = info.name.to_lowercase();
    info.device_type == wgpu::DeviceType::Cpu
        || ["llvmpipe", "softpipe", "swiftshader", "basic render"].iter().any(|s| name.contains(s))
}

/// `most`: what one storage binding may hold.
pub(crate) fn describe(adapter: &wgpu::Adapter, most: u64) -> DeviceInfo {
    use wgpu::DeviceType;
    let info = adapter.get_info();
    let kind = match info.device_type {
        _ if software(&info) => "software",
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        _ => "other",
    };
    DeviceInfo {
        name: info.name.clone(),
        backend: info.backend.to_string(),
        kind: kind.into(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        max_buffer_bytes: most,
    }
}

/// The adapters that can run the kernels, best first. The `noop` backend (which executes nothing) is never asked;
/// OpenGL is asked only where nothing else answers.
pub(crate) fn adapters() -> Vec<wgpu::Adapter> {
    use wgpu::Backends;
    let first = adapters_of(Backends::VULKAN | Backends::METAL | Backends::DX12);
    if first.is_empty() { adapters_of(Backends::GL) } else { first }
}

fn adapters_of(backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    let descriptor = wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    let instance = wgpu::Instance::new(descriptor);
    let mut found: Vec<_> = pollster::block_on(instance.enumerate_adapters(backends))
        .into_iter()
        .filter(|a| a.get_info().backend != wgpu::Backend::Noop)
        .filter(|a| limits(a, Limits::Own).check_limits(&a.limits()))
        .collect();
    found.sort_by_key(|a| (software(&a.get_info()), rank(&a.get_info())));
    found
}

/// Every device that `Choice::Index` can name: the adapters, best first, and the CPU last.
pub fn devices() -> Vec<DeviceInfo> {
    let own = |a: &wgpu::Adapter| describe(a, limits(a, Limits::Own).max_storage_buffer_binding_size);
    adapters().iter().map(own).chain([DeviceInfo::host()]).collect()
}

/// The adapter of a choice; `None` is the CPU. Error: no such adapter.
pub(crate) fn choose(choice: Choice) -> Result<Option<wgpu::Adapter>> {
    if choice == Choice::Cpu {
        return Ok(None);
    }
    let mut found = if choice == Choice::OpenGl { adapters_of(wgpu::Backends::GL) } else { adapters() };
    match choice {
        Choice::OpenGl if found.is_empty() => Err(Error::input("device", "no OpenGL adapter was found")),
        Choice::OpenGl => Ok(Some(found.swap_remove(0))),
        Choice::Index(i) if i < found.len() => Ok(Some(found.swap_remove(i))),
        Choice::Index(i) if i == found.len() => Ok(None),
        Choice::Index(i) => {
            Err(Error::input("device", format!("there is no device {i}: `synfit devices` lists 0 to {}", found.len())))
        }
        Choice::Gpu if found.is_empty() => Err(Error::input("device", "no GPU adapter was found")),
        Choice::Gpu => Ok(Some(found.swap_remove(0))),
        _ => Ok(found.into_iter().find(|a| !software(&a.get_info()))),
    }
}
