//! The GPU side of every kernel: compiles shaders once, binds buffers, dispatches.
//!
//! Conventions of the shaders: group 0; binding 0 is the uniform `Params`, bindings 1.. are the storage buffers in
//! the order of the dispatch; a line `#import shared/NAME` is replaced by that file; the type `Scalar` of
//! `shared/scalar` is f32 unless the dispatch names another. Workgroups are numbered along x, then y (see `fold`).

use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::batch::{Batch, SLOT};
use super::clock::Clock;
use crate::error::{Error, Result};

/// Workgroups a dispatch may have along one dimension by WebGPU's default limits.
const MOST_GROUPS: u64 = 65_535;
/// Submissions that may be queued before the host waits for one: bounds the memory that dropped buffers still hold.
const MOST_QUEUED: usize = 16;

/// Files that shaders import by name.
const SHARED: &[(&str, &str)] = &[
    ("shared/keep", include_str!("../../shaders/shared/keep.wgsl")),
    ("shared/exponential", include_str!("../../shaders/shared/exponential.wgsl")),
    ("shared/scalar", include_str!("../../shaders/shared/scalar.wgsl")),
    ("shared/index", include_str!("../../shaders/shared/index.wgsl")),
    ("shared/window", include_str!("../../shaders/shared/window.wgsl")),
    ("shared/patches", include_str!("../../shaders/shared/patches.wgsl")),
    ("shared/gram", include_str!("../../shaders/shared/gram.wgsl")),
    ("shared/levels", include_str!("../../shaders/shared/levels.wgsl")),
    ("shared/product", include_str!("../../shaders/shared/product.wgsl")),
];

/// One shader: `name` is its file (for messages), `source` its text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shader {
    pub name: &'static str,
    pub source: &'static str,
}

/// How a shader uses a storage buffer.
#[derive(Clone, Copy)]
pub(crate) enum Bind<'a> {
    /// `var<storage, read>`
    In(&'a wgpu::Buffer),
    /// `var<storage, read_write>`
    Out(&'a wgpu::Buffer),
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct Key {
    shader: &'static str,
    entry: &'static str,
    scalar: &'static str,
    constants: Vec<(&'static str, u64)>,
}

#[derive(Clone)]
struct Pipeline {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// One dispatch, apart from its buffers.
pub(crate) struct Dispatch<'a, P> {
    pub shader: Shader,
    pub entry: &'static str,
    /// What `Scalar` stands for: `T::WGSL`.
    pub scalar: &'static str,
    /// Override constants.
    pub constants: &'a [(&'static str, f64)],
    pub params: P,
    /// Workgroups; the shader numbers them with `workgroup_number` of `shared/index` and ignores numbers beyond its
    /// own count.
    pub groups: u64,
}

pub(crate) struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub limits: wgpu::Limits,
    /// None where the adapter has no timestamps.
    pub clock: Option<Clock>,
    /// Shaders are compiled without naga's runtime checks.
    trusted: bool,
    pipelines: Mutex<HashMap<Key, Pipeline>>,
    /// What is recorded and not submitted yet.
    batch: Mutex<Option<Batch>>,
    /// Its parameters.
    uniforms: wgpu::Buffer,
    queued: Mutex<Vec<wgpu::SubmissionIndex>>,
    fault: Arc<Mutex<Option<String>>>,
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(crate) fn open(
        adapter: &wgpu::Adapter,
        limits: wgpu::Limits,
        features: wgpu::Features,
        trusted: bool,
    ) -> Result<Self> {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("synfit"),
            required_limits: limits.clone(),
            required_features: features,
            ..Default::default()
        }))
        .map_err(|e| Error::work("device", format!("the adapter {:?} gave no device: {e}", adapter.get_info().name)))?;
        let fault: Arc<Mutex<Option<String>>> = Arc::default();
        let slot = fault.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            locked(&slot).get_or_insert(e.to_string());
        }));
        let slot = fault.clone();
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the device at the end is reported as a loss too; nobody looks at the slot then.
            locked(&slot).get_or_insert(format!("device lost ({reason:?}): {message}"));
        });
        let clock = Clock::new(&device, &queue);
        let uniforms = Batch::uniforms(&device);
        let (pipelines, batch, queued) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { device, queue, limits, clock, trusted, pipelines, batch, uniforms, queued, fault })
    }

    /// The first error that the driver reported since the last check.
    pub(crate) fn check(&self, doing: &str) -> Result<()> {
        match locked(&self.fault).take() {
            Some(message) => Err(Error::work(doing, message)),
            None => Ok(()),
        }
    }

    /// A storage buffer of `bytes` (a multiple of 4), at least 4 as a binding cannot be empty; zeros.
    pub(crate) fn storage(&self, bytes: u64) -> Result<wgpu::Buffer> {
        let most = self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size);
        if bytes > most {
            return Err(Error::work("buffer", format!("{bytes} bytes asked, the device binds at most {most}")));
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes.max(4),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.check("buffer")?;
        Ok(buffer)
    }

    /// Reads `bytes` from `offset` of a buffer back to the host, after all work queued before.
    pub(crate) fn read(&self, source: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("download"),
            size: bytes,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        self.record(|encoder| encoder.copy_buffer_to_buffer(source, offset, &staging, 0, bytes))?;
        self.flush()?;
        let (sender, answer) = mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |r| drop(sender.send(r)));
        // The answer may come through another thread's wait, and then a little after our own has ended.
        let mut tries = 0;
        let answer = loop {
            self.wait()?;
            match answer.recv_timeout(Duration::from_millis(100)) {
                Err(RecvTimeoutError::Timeout) if tries < 100 => tries += 1,
                other => break other,
            }
        };
        self.check("download")?;
        match answer {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(Error::work("download", e.to_string())),
            Err(_) => return Err(Error::work("download", "the device did not answer")),
        }
        let view = staging.get_mapped_range(..).map_err(|e| Error::work("download", e.to_string()))?;
        Ok(view.to_vec())
    }

    /// Waits for all work.
    pub(crate) fn wait(&self) -> Result<()> {
        self.flush()?;
        locked(&self.queued).clear();
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map(|_| ())
            .map_err(|e| Error::work("device", e.to_string()))
    }

    /// Adds a command to those that are not submitted yet.
    pub(crate) fn record(&self, command: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<()> {
        self.add(0, |batch| command(&mut batch.encoder))
    }

    /// The same for one of so many workgroups.
    fn add(&self, groups: u64, command: impl FnOnce(&mut Batch)) -> Result<()> {
        let mut open = locked(&self.batch);
        let batch = open.get_or_insert_with(|| Batch::new(&self.device));
        command(batch);
        if batch.count(groups) { self.send(open) } else { Ok(()) }
    }

    /// Submits what is recorded: before the host waits for it, and before it writes to a buffer, as that does not wait its
    /// turn among recorded commands.
    pub(crate) fn flush(&self) -> Result<()> {
        self.send(locked(&self.batch))
    }

    fn send(&self, mut open: MutexGuard<'_, Option<Batch>>) -> Result<()> {
        let Some(batch) = open.take() else { return Ok(()) };
        let index = batch.submit(&self.queue, &self.uniforms);
        // Only now may others write their parameters.
        drop(open);
        let mut queued = locked(&self.queued);
        queued.push(index);
        if queued.len() >= MOST_QUEUED {
            let done = queued.swap_remove(MOST_QUEUED / 2);
            queued.drain(..MOST_QUEUED / 2);
            self.device
                .poll(wgpu::PollType::Wait { submission_index: Some(done), timeout: None })
                .map_err(|e| Error::work("device", e.to_string()))?;
        }
        Ok(())
    }

    /// Records one kernel: compiles it if this is its first time, binds `params` and `buffers`. What the driver finds wrong
    /// with it may show at a later check.
    pub(crate) fn run<P: bytemuck::Pod>(&self, dispatch: &Dispatch<'_, P>, buffers: &[Bind<'_>]) -> Result<()> {
        let (x, y) = fold(dispatch.groups)
            .ok_or_else(|| Error::work(dispatch.shader.name, format!("{} workgroups are too many", dispatch.groups)))?;
        if dispatch.groups == 0 {
            return Ok(());
        }
        let Pipeline { pipeline, layout } = self.pipeline(dispatch, buffers)?;
        let params = bytemuck::bytes_of(&dispatch.params);
        const { assert!(size_of::<P>() > 0 && size_of::<P>() <= SLOT) };
        // Uniform bindings are read in units of 16 bytes by some backends.
        let size = wgpu::BufferSize::new(params.len().next_multiple_of(16) as u64);
        let uniform = wgpu::BufferBinding { buffer: &self.uniforms, offset: 0, size };
        let buffers = buffers.iter().map(|b| match b {
            Bind::In(b) | Bind::Out(b) => b.as_entire_binding(),
        });
        let entries: Vec<_> = std::iter::once(wgpu::BindingResource::Buffer(uniform))
            .chain(buffers)
            .enumerate()
            .map(|(i, resource)| wgpu::BindGroupEntry { binding: i as u32, resource })
            .collect();
        let bound = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(dispatch.shader.name),
            layout: &layout,
            entries: &entries,
        });
        self.add(dispatch.groups, |batch| {
            let at = batch.push(params);
            // A pass for each, so that the clock tells kernels apart.
            let timestamp_writes = self.clock.as_ref().and_then(Clock::next);
            let descriptor = wgpu::ComputePassDescriptor { timestamp_writes, ..Default::default() };
            let mut pass = batch.encoder.begin_compute_pass(&descriptor);
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bound, &[at]);
            pass.dispatch_workgroups(x, y, 1);
        })?;
        self.check(dispatch.shader.name)
    }

    fn pipeline<P>(&self, d: &Dispatch<'_, P>, buffers: &[Bind<'_>]) -> Result<Pipeline> {
        let key = Key {
            shader: d.shader.name,
            entry: d.entry,
            scalar: d.scalar,
            constants: d.constants.iter().map(|&(n, v)| (n, v.to_bits())).collect(),
        };
        if let Some(found) = locked(&self.pipelines).get(&key) {
            return Ok(found.clone());
        }
        let built = self.build(d, buffers)?;
        locked(&self.pipelines).insert(key, built.clone());
        Ok(built)
    }

    fn build<P>(&self, d: &Dispatch<'_, P>, buffers: &[Bind<'_>]) -> Result<Pipeline> {
        let text = wgpu::ShaderModuleDescriptor {
            label: Some(d.shader.name),
            source: wgpu::ShaderSource::Wgsl(resolve(d.shader.source, d.scalar).into()),
        };
        let module = match self.trusted {
            false => self.device.create_shader_module(text),
            // SAFETY: the shaders are this crate's own, and their hosts check lengths at the door. None of them indexes
            // beyond an array, divides by zero or loops without end: every index is below its array's length or guarded,
            // divisors are sizes of what was dispatched for, and loops run over ranges. The kernels' tests run this way
            // too.
            true => unsafe { self.device.create_shader_module_trusted(text, wgpu::ShaderRuntimeChecks::unchecked()) },
        };
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: binding == 0, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
        for (i, b) in buffers.iter().enumerate() {
            let read_only = matches!(b, Bind::In(_));
            entries.push(entry(i as u32 + 1, wgpu::BufferBindingType::Storage { read_only }));
        }
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(d.shader.name),
            entries: &entries,
        });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(d.shader.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(d.shader.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(d.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: d.constants,
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        self.check(d.shader.name)?;
        Ok(Pipeline { pipeline, layout })
    }
}

/// Replaces the imports and sets the scalar type.
fn resolve(source: &str, scalar: &str) -> String {
    let mut text = source.to_string();
    for (name, body) in SHARED {
        text = text.replace(&format!("#import {name}\n"), body);
    }
    text.replace("alias Scalar = f32;", &format!("alias Scalar = {scalar};"))
}

/// `groups` workgroups as x by y with both within the default limits; the last row may overshoot.
fn fold(groups: u64) -> Option<(u32, u32)> {
    let y = groups.div_ceil(MOST_GROUPS).max(1);
    let x = groups.div_ceil(y);
    (y <= MOST_GROUPS).then_some((x as u32, y as u32))
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn folding_covers_and_stays_within_limits() {
        for n in [1, 65_535, 65_536, 65_537, 1 << 24, 65_535 * 65_535] {
            let (x, y) = fold(n).unwrap();
            assert!(x <= 65_535 && y <= 65_535 && x as u64 * y as u64 >= n, "{n}: {x} x {y}");
        }
        assert_eq!(fold(65_535 * 65_535 + 1), None);
    }
}
