//! A device to compute on: a GPU through wgpu, or the CPU's cores in plain Rust. Buffers and kernels are the same
//! to their callers on both.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use super::adapters::{self, Checks, Choice, DeviceInfo, Limits};
use super::buffer::{Buffer, Element, Store};
use super::clock::Clock;
use super::gpu::{Bind, Dispatch, Gpu, Shader};
use super::memory::{Memory, Share};
use super::tiles::{self, Tiles};
use crate::error::{Error, Result};

const FILL: Shader = Shader { name: "fill.wgsl", source: include_str!("../../shaders/fill.wgsl") };

/// Bytes of dropped buffers that a device may still hold, beside a quarter of its room: less is not worth a wait.
const MOST_DROPPED: u64 = 1 << 30;
const LEAST_DROPPED: u64 = 1 << 20;

/// An upload of so many bytes tells that the host was at other work than a row of small kernels: the GPU is to go on, and
/// what uploads and kernels hold is not to pile up.
const LARGE_UPLOAD: usize = 1 << 18;

/// Cheap to clone; all clones are the same device.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    info: DeviceInfo,
    gpu: Option<Arc<Gpu>>,
    memory: Arc<Memory>,
    tiles: RwLock<Tiles>,
    /// Bytes that its buffers may hold together.
    budget: Option<u64>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(self.info()).finish()
    }
}

impl Device {
    /// Opens the chosen device. Errors: no such adapter (input), or the adapter refuses (work).
    pub fn open(choice: Choice) -> Result<Device> {
        Self::open_with(choice, Limits::Own)
    }

    /// As `open`, with other limits than the adapter's own (the CPU has none).
    pub fn open_with(choice: Choice, limits: Limits) -> Result<Device> {
        Self::open_checked(choice, limits, Checks::Auto)
    }

    /// As `open_with`, and `checks` says how shaders are compiled.
    pub fn open_checked(choice: Choice, limits: Limits, checks: Checks) -> Result<Device> {
        Self::of_adapter(adapters::choose(choice)?, limits, checks)
    }

    /// `None` is the CPU. Error: the adapter refuses (work).
    pub(super) fn of_adapter(adapter: Option<wgpu::Adapter>, limits: Limits, checks: Checks) -> Result<Device> {
        let Some(adapter) = adapter else { return Ok(Self::cpu()) };
        let wanted = adapters::limits(&adapter, limits);
        let info = adapters::describe(&adapter, wanted.max_storage_buffer_binding_size);
        let features = match limits {
            Limits::Default => wgpu::Features::empty(),
            _ => Clock::features(&adapter),
        };
        let trusted = !checks.wanted(info.software());
        let gpu = Gpu::open(&adapter, wanted, features, trusted)?;
        let dev = Self::of(info, Some(Arc::new(gpu)), Tiles::default());
        let tiles = tiles::of_adapter(&dev);
        Ok(if tiles == dev.tiles() { dev } else { dev.with_tiles(tiles) })
    }

    /// The plain Rust path on all cores; always there.
    pub fn cpu() -> Device {
        Self::of(DeviceInfo::host(), None, Tiles::default())
    }

    fn of(info: DeviceInfo, gpu: Option<Arc<Gpu>>, tiles: Tiles) -> Device {
        Device { inner: Arc::new(Inner { info, gpu, memory: Arc::default(), tiles: tiles.into(), budget: None }) }
    }

    /// The same device held to a budget: `room` tells what is left of it. The CPU has none of its own: its buffers are the
    /// host's memory. Its buffers are counted apart.
    #[must_use]
    pub fn with_budget(&self, bytes: Option<u64>) -> Device {
        let budget = bytes.filter(|_| self.is_gpu());
        let (info, gpu, tiles) = (self.info().clone(), self.inner.gpu.clone(), self.tiles().into());
        Device { inner: Arc::new(Inner { info, gpu, memory: Arc::default(), tiles, budget }) }
    }

    pub fn is_gpu(&self) -> bool {
        self.inner.gpu.is_some()
    }

    pub fn info(&self) -> &DeviceInfo {
        &self.inner.info
    }

    /// The same adapter with these choices of its kernels; its buffers are counted apart.
    pub fn with_tiles(&self, tiles: Tiles) -> Device {
        Self::of(self.info().clone(), self.inner.gpu.clone(), tiles)
    }

    /// The choices of its matrix kernels.
    pub fn tiles(&self) -> Tiles {
        *self.inner.tiles.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the choices of this device and all its clones: work that was begun with others goes on the same.
    pub fn set_tiles(&self, tiles: Tiles) {
        *self.inner.tiles.write().unwrap_or_else(PoisonError::into_inner) = tiles;
    }

    /// The GPU, for the kernels; `None` sends them to their twin.
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        self.inner.gpu.as_deref()
    }

    /// What one buffer may hold in bytes: callers cut their batches by it.
    pub fn max_buffer_bytes(&self) -> u64 {
        self.inner.info.max_buffer_bytes
    }

    /// Bytes that its buffers may hold together, if it is held to any.
    pub fn budget(&self) -> Option<u64> {
        self.inner.budget
    }

    /// Bytes that this device's buffers may hold beside those they hold now, by its budget; no bound without one. What is
    /// larger than that is done on the host.
    pub fn room(&self) -> u64 {
        self.inner.budget.map_or(u64::MAX, |budget| budget.saturating_sub(self.inner.memory.now()))
    }

    /// Most bytes that this device's buffers held at one time.
    pub fn peak_bytes(&self) -> u64 {
        self.inner.memory.peak()
    }

    fn share<T>(&self, len: usize) -> Share {
        Share::new(&self.inner.memory, (len * size_of::<T>()) as u64)
    }

    /// A buffer with a copy of `data`.
    pub fn upload<T: Element>(&self, data: &[T]) -> Result<Buffer<T>> {
        match self.gpu() {
            None => self.upload_with(data.len(), |into| {
                into.copy_from_slice(data);
                Ok(())
            }),
            Some(gpu) => {
                self.settle(gpu)?;
                if size_of_val(data) >= LARGE_UPLOAD {
                    gpu.flush()?;
                }
                let buffer = gpu.storage(size_of_val(data) as u64)?;
                gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(data));
                gpu.check("upload")?;
                Ok(Buffer::new(Store::Gpu(buffer), data.len(), self.share::<T>(data.len())))
            }
        }
    }

    /// A buffer of `len` elements that `fill` writes; it finds any contents and must write them all.
    pub fn upload_with<T: Element>(&self, len: usize, fill: impl FnOnce(&mut [T]) -> Result<()>) -> Result<Buffer<T>> {
        if self.is_gpu() {
            let mut data = vec![T::default(); len];
            fill(&mut data)?;
            return self.upload(&data);
        }
        let mut buffer = self.scratch(len)?;
        fill(buffer.host_mut()?)?;
        Ok(buffer)
    }

    /// A buffer of `len` zeros.
    pub fn zeros<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        let (mut buffer, zero) = self.any(len)?;
        if !zero {
            self.fill(&mut buffer, T::default())?;
        }
        Ok(buffer)
    }

    /// A buffer for a kernel that writes every element: what it holds before is left open, poison in debug builds.
    pub fn scratch<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        if cfg!(debug_assertions) { self.poisoned(len) } else { Ok(self.any(len)?.0) }
    }

    /// Before a new buffer: waits until the memory of dropped ones is free where commands under way may hold much of it.
    fn settle(&self, gpu: &Gpu) -> Result<()> {
        let most = (self.room() / 4).clamp(LEAST_DROPPED, MOST_DROPPED);
        if self.inner.memory.dropped() > most {
            gpu.wait()?;
            self.inner.memory.freed();
        }
        Ok(())
    }

    /// A buffer of any contents, and whether they are known to be zeros.
    fn any<T: Element>(&self, len: usize) -> Result<(Buffer<T>, bool)> {
        let (store, zero) = match self.gpu() {
            None => {
                let (data, fresh) = self.inner.memory.vector(len);
                (Store::Host(data), fresh)
            }
            Some(gpu) => {
                self.settle(gpu)?;
                (Store::Gpu(gpu.storage((len * size_of::<T>()) as u64)?), true)
            }
        };
        Ok((Buffer::new(store, len, self.share::<T>(len)), zero))
    }

    /// A buffer for a kernel to fill, holding `Element::poison` (a NaN) so that what a kernel leaves out shows.
    pub fn poisoned<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        let (mut buffer, _) = self.any(len)?;
        self.fill(&mut buffer, T::poison())?;
        Ok(buffer)
    }

    /// Sets every element.
    pub fn fill<T: Element>(&self, buffer: &mut Buffer<T>, value: T) -> Result<()> {
        let len = buffer.len();
        match self.gpu() {
            None => buffer.host_mut()?.fill(value),
            Some(gpu) => gpu.run(
                &Dispatch {
                    shader: FILL,
                    entry: "fill",
                    scalar: "u32",
                    constants: &[],
                    params: [len as u32, bytemuck::cast(value)],
                    groups: len.div_ceil(256) as u64,
                },
                &[Bind::Out(buffer.gpu()?)],
            )?,
        }
        Ok(())
    }

    /// The whole buffer, after all work on it.
    pub fn download<T: Element>(&self, b: &Buffer<T>) -> Result<Vec<T>> {
        self.download_range(b, 0, b.len())
    }

    /// The whole buffer to look at: without a copy where it lives on the host.
    pub fn view<'a, T: Element>(&self, b: &'a Buffer<T>) -> Result<Cow<'a, [T]>> {
        if self.is_gpu() { Ok(Cow::Owned(self.download(b)?)) } else { Ok(Cow::Borrowed(b.host()?)) }
    }

    /// `len` elements from `offset`. Error: beyond the end.
    pub fn download_range<T: Element>(&self, b: &Buffer<T>, offset: usize, len: usize) -> Result<Vec<T>> {
        inside("download", b, offset, len)?;
        match self.gpu() {
            None => Ok(b.host()?[offset..offset + len].to_vec()),
            Some(gpu) => {
                let bytes = gpu.read(b.gpu()?, (offset * size_of::<T>()) as u64, (len * size_of::<T>()) as u64)?;
                self.inner.memory.freed();
                Ok(bytemuck::pod_collect_to_vec(&bytes))
            }
        }
    }

    /// Overwrites `data.len()` elements from `offset`. Error: beyond the end.
    pub fn write<T: Element>(&self, b: &mut Buffer<T>, offset: usize, data: &[T]) -> Result<()> {
        inside("write", b, offset, data.len())?;
        match self.gpu() {
            None => b.host_mut()?[offset..offset + data.len()].copy_from_slice(data),
            Some(gpu) if !data.is_empty() => {
                gpu.flush()?;
                gpu.queue.write_buffer(b.gpu()?, (offset * size_of::<T>()) as u64, bytemuck::cast_slice(data));
                gpu.check("write")?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Copies `len` elements between two buffers of this device. Error: beyond an end.
    pub fn copy<T: Element>(
        &self,
        from: &Buffer<T>,
        from_offset: usize,
        to: &mut Buffer<T>,
        to_offset: usize,
        len: usize,
    ) -> Result<()> {
        inside("copy from", from, from_offset, len)?;
        inside("copy to", to, to_offset, len)?;
        match self.gpu() {
            None => {
                to.host_mut()?[to_offset..to_offset + len].copy_from_slice(&from.host()?[from_offset..][..len]);
            }
            Some(gpu) if len > 0 => {
                let (from, to) = (from.gpu()?, to.gpu()?);
                let at = |n: usize| (n * size_of::<T>()) as u64;
                gpu.record(|encoder| {
                    encoder.copy_buffer_to_buffer(from, at(from_offset), to, at(to_offset), at(len));
                })?;
                gpu.check("copy")?;
            }
            Some(_) => {}
        }
        Ok(())
    }
}

fn inside<T: Element>(what: &str, b: &Buffer<T>, offset: usize, len: usize) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= b.len() => Ok(()),
        _ => Err(Error::work(what, format!("{len} elements at {offset} of a buffer of {}", b.len()))),
    }
}
