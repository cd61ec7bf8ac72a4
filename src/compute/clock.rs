//! How long work takes on a device: by the wall, and by the GPU's own clock where its adapter has timestamps.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::device::Device;
use super::gpu::Gpu;
use crate::error::{Error, Result};

/// Passes of one measurement; WebGPU's limit is 4096 timestamps a set, two a pass.
const MOST_PASSES: u32 = 2048;

/// Seconds that some work took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elapsed {
    /// From the call until the device had done all of it: transfers, waits and the host's own part included.
    pub wall: f64,
    /// The GPU's own: the sum over the kernels' passes, each from its first to its last instruction. None on the CPU,
    /// on adapters without timestamps, and beyond `MOST_PASSES` passes.
    pub gpu: Option<f64>,
}

/// Timestamps around every compute pass while a measurement runs.
pub(crate) struct Clock {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Seconds a tick.
    tick: f64,
    /// Passes so far of a measurement that runs.
    passes: Mutex<Option<u32>>,
}

impl Clock {
    /// The features that a device of `adapter` must be asked for to have a clock.
    pub(super) fn features(adapter: &wgpu::Adapter) -> wgpu::Features {
        adapter.features() & wgpu::Features::TIMESTAMP_QUERY
    }

    pub(super) fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Option<Self> {
        let bytes = u64::from(2 * MOST_PASSES * wgpu::QUERY_SIZE);
        if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY) || device.limits().max_buffer_size < bytes {
            return None;
        }
        let set = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("clock"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * MOST_PASSES,
        });
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("clock"),
            size: bytes,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let tick = f64::from(queue.get_timestamp_period()) * 1e-9;
        Some(Self { set, resolved, tick, passes: Mutex::default() })
    }

    fn passes(&self) -> MutexGuard<'_, Option<u32>> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next pass is to write; nothing unless a measurement runs.
    pub(super) fn next(&self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let mut passes = self.passes();
        let n = (*passes)?;
        *passes = Some(n.saturating_add(1));
        (n < MOST_PASSES).then_some(wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(2 * n),
            end_of_pass_write_index: Some(2 * n + 1),
        })
    }

    /// Ends the measurement: the sum of its passes.
    fn stop(&self, gpu: &Gpu) -> Result<Option<f64>> {
        let n = self.passes().take().unwrap_or(0);
        if n == 0 || n > MOST_PASSES {
            return Ok(None);
        }
        gpu.record(|encoder| encoder.resolve_query_set(&self.set, 0..2 * n, &self.resolved, 0))?;
        gpu.check("clock")?;
        let bytes = gpu.read(&self.resolved, 0, u64::from(2 * n * wgpu::QUERY_SIZE))?;
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        let ticks: u64 = stamps.as_chunks::<2>().0.iter().map(|[begin, end]| end.saturating_sub(*begin)).sum();
        // A driver that answers zeros has no clock.
        Ok((ticks > 0).then_some(ticks as f64 * self.tick))
    }
}

impl Device {
    /// Whether `timed` can tell the GPU's own seconds.
    pub fn has_clock(&self) -> bool {
        self.gpu().is_some_and(|gpu| gpu.clock.is_some())
    }

    /// Runs `work`, waits until the device has done all of it, and says how long that took. Work that other threads give
    /// to the same device meanwhile is measured along.
    ///
    /// # Errors
    /// Those of `work`, and a lost device.
    pub fn timed(&self, work: impl FnOnce() -> Result<()>) -> Result<Elapsed> {
        let Some(gpu) = self.gpu() else {
            let start = Instant::now();
            work()?;
            return Ok(Elapsed { wall: start.elapsed().as_secs_f64(), gpu: None });
        };
        // Recorded commands and uploads wait for a submission: they belong to what came before.
        gpu.flush()?;
        gpu.queue.submit([]);
        gpu.wait()?;
        if let Some(clock) = &gpu.clock {
            *clock.passes() = Some(0);
        }
        let start = Instant::now();
        let done = work().and_then(|()| gpu.wait());
        let wall = start.elapsed().as_secs_f64();
        let own = gpu.clock.as_ref().map_or(Ok(None), |clock| clock.stop(gpu));
        done?;
        gpu.check("device")?;
        Ok(Elapsed { wall, gpu: own.map_err(|e: Error| e.within("clock"))? })
    }
}
