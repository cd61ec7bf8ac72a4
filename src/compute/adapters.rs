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

/// The user's choice of one or more devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choices {
    /// Every adapter that is a real GPU; the CPU where there is none.
    All,
    /// These, each with its share of the work.
    These(Vec<(Choice, u32)>),
}

impl Choices {
    /// Largest share that a device may be given.
    const MOST_SHARE: u32 = 1000;

    /// The devices one by one, each a choice of its own.
    pub fn each(&self) -> Vec<Choice> {
        match self {
            Choices::All => (0..devices().len()).map(Choice::Index).collect(),
            Choices::These(list) => list.iter().map(|(choice, _)| *choice).collect(),
        }
    }
}

impl FromStr for Choices {
    type Err = Error;

    /// `all`, a device, or several with commas; a device among several may have a share of the work: `0:3,1`.
    fn from_str(text: &str) -> Result<Self> {
        if text.trim() == "all" {
            return Ok(Choices::All);
        }
        let wrong = |why: String| Error::input("device", why);
        let item = |item: &str| {
            let (name, share) = item.split_once(':').unwrap_or((item, "1"));
            let share = share.trim().parse().ok().filter(|s| (1..=Self::MOST_SHARE).contains(s));
            let share = share.ok_or_else(|| {
                wrong(format!("the share in {item:?} is no whole number from 1 to {}", Self::MOST_SHARE)) //
            })?;
            match name.trim() {
                "" => Err(wrong(format!("{text:?} leaves a place of its list empty"))),
                "all" => Err(wrong(format!("in {text:?} all stands beside others: it is for itself"))),
                name => Ok((name.parse()?, share)),
            }
        };
        Ok(Choices::These(text.split(',').map(item).collect::<Result<_>>()?))
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

/// Whether shaders are compiled with runtime checks of indices, divisors and loops, which are a quarter of some inner loops'
/// instructions (counted, not timed) and find what only a wrong shader does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checks {
    /// As `SYNFIT_CHECKS` says, `on` or `off`; else not in release builds on real GPUs.
    #[default]
    Auto,
    On,
    Off,
}

impl Checks {
    pub(crate) fn wanted(self, software: bool) -> bool {
        match (self, std::env::var("SYNFIT_CHECKS").as_deref()) {
            (Checks::On, _) | (Checks::Auto, Ok("on")) => true,
            (Checks::Off, _) | (Checks::Auto, Ok("off")) => false,
            (Checks::Auto, _) => software || cfg!(debug_assertions),
        }
    }
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
    /// A rasterizer on the CPU.
    pub(crate) fn software(&self) -> bool {
        self.kind == "software"
    }

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

/// Where a choice leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// One of `adapters()`.
    Adapter(usize),
    /// The best of OpenGL's, beside `adapters()`.
    OpenGl,
    Cpu,
}

/// The place of a choice among the adapters `found`. Error: no such adapter.
fn place(choice: Choice, found: &[wgpu::Adapter]) -> Result<Place> {
    match choice {
        Choice::Cpu => Ok(Place::Cpu),
        Choice::OpenGl => {
            let listed = found.iter().position(|a| a.get_info().backend == wgpu::Backend::Gl);
            Ok(listed.map_or(Place::OpenGl, Place::Adapter))
        }
        Choice::Index(i) if i < found.len() => Ok(Place::Adapter(i)),
        Choice::Index(i) if i == found.len() => Ok(Place::Cpu),
        Choice::Index(i) => {
            Err(Error::input("device", format!("there is no device {i}: `synfit devices` lists 0 to {}", found.len())))
        }
        Choice::Gpu if found.is_empty() => Err(Error::input("device", "no GPU adapter was found")),
        Choice::Gpu => Ok(Place::Adapter(0)),
        Choice::Auto => {
            let real = found.iter().position(|a| !software(&a.get_info()));
            Ok(real.map_or(Place::Cpu, Place::Adapter))
        }
    }
}

/// The adapters of some choices in their order; `None` is the CPU. Errors: no such adapter, the same one twice.
fn choose_these(choices: &[Choice]) -> Result<Vec<Option<wgpu::Adapter>>> {
    // looking for adapters takes its time: not for what needs none
    let listed = choices.iter().any(|c| !matches!(c, Choice::Cpu | Choice::OpenGl));
    let found = if listed { adapters() } else { Vec::new() };
    let mut places = Vec::with_capacity(choices.len());
    let mut chosen = Vec::with_capacity(choices.len());
    for choice in choices {
        let place = place(*choice, &found)?;
        if places.contains(&place) {
            return Err(Error::input("device", format!("{choice} is a device that the list has already")));
        }
        places.push(place);
        chosen.push(match place {
            Place::Cpu => None,
            Place::Adapter(i) => Some(found[i].clone()),
            Place::OpenGl => {
                let best = adapters_of(wgpu::Backends::GL).into_iter().next();
                Some(best.ok_or_else(|| Error::input("device", "no OpenGL adapter was found"))?)
            }
        });
    }
    Ok(chosen)
}

/// The adapter of a choice; `None` is the CPU. Error: no such adapter.
pub(crate) fn choose(choice: Choice) -> Result<Option<wgpu::Adapter>> {
    Ok(choose_these(&[choice])?.pop().flatten())
}

/// The adapters of a list, each with its share; `None` is the CPU. Errors: no such adapter, the same one twice.
pub(crate) fn choose_all(choices: &Choices) -> Result<Vec<(Option<wgpu::Adapter>, u32)>> {
    match choices {
        Choices::These(list) => {
            let (choices, shares): (Vec<_>, Vec<_>) = list.iter().copied().unzip();
            Ok(choose_these(&choices)?.into_iter().zip(shares).collect())
        }
        Choices::All => {
            let mut real = adapters();
            real.retain(|a| !software(&a.get_info()));
            // where a GPU answers through two interfaces it is there twice
            let best = real.first().map(|a| a.get_info().backend);
            real.retain(|a| Some(a.get_info().backend) == best);
            let all = real.into_iter().map(|a| (Some(a), 1)).collect::<Vec<_>>();
            Ok(if all.is_empty() { vec![(None, 1)] } else { all })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_devices_are_read_or_refused_by_their_fault() {
        let these = |list: &[(Choice, u32)]| Choices::These(list.to_vec());
        assert_eq!("all".parse::<Choices>().unwrap(), Choices::All);
        assert_eq!("gpu".parse::<Choices>().unwrap(), these(&[(Choice::Gpu, 1)]));
        let list = these(&[(Choice::Index(0), 3), (Choice::Index(1), 1), (Choice::Cpu, 2)]);
        assert_eq!("0:3, 1,cpu:2".parse::<Choices>().unwrap(), list);
        assert_eq!(list.each(), [Choice::Index(0), Choice::Index(1), Choice::Cpu]);
        for (text, word) in [
            ("", "empty"),
            ("0,,1", "empty"),
            ("0,", "empty"),
            (":2", "empty"),
            ("0,all", "for itself"),
            ("0:0,1", "share"),
            ("0:1001,1", "share"),
            ("0:-1,1", "share"),
            ("0:,1", "share"),
            ("0,fast", "none of"),
        ] {
            let error = text.parse::<Choices>().unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(word), "{text}: {error}");
        }
    }
}
