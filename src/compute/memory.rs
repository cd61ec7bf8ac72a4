//! How much the buffers of one device hold, and the host memory that dropped ones leave to the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::buffer::Element;

/// Bytes of the host's memory that this process may still take: what is free, and what is left of `budget`, which bounds
/// the whole of it.
pub fn free_host_bytes(budget: Option<u64>) -> Option<u64> {
    let left = budget.map(|budget| budget.saturating_sub(resident().unwrap_or(0)));
    [free(), left].into_iter().flatten().min()
}

/// Resident bytes of this process. Linux only.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What the system has left, or this process's control group. Linux only.
fn free() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(file).ok();
    let info = read("/proc/meminfo")?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let system = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let group = |file: &str| read(&format!("/sys/fs/cgroup/memory.{file}"));
    let number = |file: &str| group(file)?.trim().parse::<u64>().ok();
    let group = match (number("max"), number("current")) {
        (Some(most), Some(now)) => {
            // cached files give way
            let stat = group("stat").unwrap_or_default();
            let of =
                |key: &str| stat.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok()).unwrap_or(0);
            most.saturating_sub(now.saturating_sub(of("active_file ") + of("inactive_file ")))
        }
        _ => u64::MAX,
    };
    Some(system.min(group))
}

/// Below this a fresh vector costs nothing worth saving.
const LEAST: usize = 1 << 14;

/// Bytes held by the buffers of one device, now and at most; vectors to be used again.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now: u64,
    peak: u64,
    /// Vectors of dropped buffers, oldest first. Fresh memory comes page by page from the system, which costs more
    /// than most kernels that fill it.
    spare: Vec<Vec<u32>>,
    spare_bytes: u64,
    /// Bytes of a GPU's dropped buffers that it may not have let go of.
    dropped: u64,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn peak(&self) -> u64 {
        self.state().peak
    }

    pub(crate) fn now(&self) -> u64 {
        self.state().now
    }

    /// Bytes of buffers that were dropped since the GPU had last done all of its work.
    pub(crate) fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// The GPU has done all of its work.
    pub(crate) fn freed(&self) {
        self.state().dropped = 0;
    }

    /// A vector of `len` elements: zeros if it is fresh (then true), else whatever it held before.
    pub(crate) fn vector<T: Element>(&self, len: usize) -> (Vec<T>, bool) {
        let spare = if len < LEAST { None } else { self.state().take(len) };
        match spare {
            Some(mut words) => {
                words.resize(len, 0);
                (bytemuck::cast_vec(words), false)
            }
            None => (vec![T::default(); len], true),
        }
    }

    /// Leaves a vector to a later `vector`.
    pub(crate) fn recycle<T: Element>(&self, data: Vec<T>) {
        if data.capacity() >= LEAST {
            let dropped = self.state().give(bytemuck::cast_vec(data));
            drop(dropped);
        }
    }
}

fn bytes(words: &Vec<u32>) -> u64 {
    (words.capacity() * size_of::<u32>()) as u64
}

impl State {
    /// The smallest spare vector that holds `len` and is not much larger.
    fn take(&mut self, len: usize) -> Option<Vec<u32>> {
        let fits = self.spare.iter().enumerate().filter(|(_, v)| (len..=2 * len).contains(&v.capacity()));
        let (best, _) = fits.min_by_key(|(_, v)| v.capacity())?;
        let found = self.spare.remove(best);
        self.spare_bytes -= bytes(&found);
        Some(found)
    }

    /// Keeps `data`; gives back the oldest vectors that are too much: buffers and spare vectors together never hold more
    /// than the buffers once did.
    fn give(&mut self, data: Vec<u32>) -> Vec<Vec<u32>> {
        self.spare_bytes += bytes(&data);
        self.spare.push(data);
        let mut dropped = vec![];
        while self.now + self.spare_bytes > self.peak && !self.spare.is_empty() {
            let oldest = self.spare.remove(0);
            self.spare_bytes -= bytes(&oldest);
            dropped.push(oldest);
        }
        dropped
    }
}

/// A buffer's part of the memory, given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Share {
    pub(crate) fn new(memory: &Arc<Memory>, bytes: u64) -> Self {
        let mut state = memory.state();
        state.now += bytes;
        state.peak = state.peak.max(state.now);
        drop(state);
        Self { memory: memory.clone(), bytes }
    }

    /// Gives the share back together with the vector that it stood for.
    pub(crate) fn leave<T: Element>(&mut self, data: Vec<T>) {
        self.release();
        self.memory.recycle(data);
    }

    fn release(&mut self) {
        self.memory.state().now -= std::mem::take(&mut self.bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Nothing after `leave`.
        self.memory.state().dropped += self.bytes;
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_bounds_what_is_free() {
        assert_eq!(free_host_bytes(Some(0)), Some(0));
        let (all, some) = (free_host_bytes(None), free_host_bytes(Some(1 << 40)).unwrap());
        assert!(all.is_none_or(|all| some <= all.max(1 << 40)));
        // this process is larger than a byte and smaller than a GiB
        if resident().is_some() && all.is_some_and(|all| all > 2 << 30) {
            let left = free_host_bytes(Some(1 << 30)).unwrap();
            assert!(0 < left && left < 1 << 30, "{left}");
        }
    }

    #[test]
    fn what_a_gpu_may_still_hold_is_counted() {
        let memory = Arc::new(Memory::default());
        let [mut host, gpu] = [10, 200].map(|bytes| Share::new(&memory, bytes));
        host.leave(vec![0u32; 2]);
        drop((host, gpu));
        assert_eq!((memory.now(), memory.dropped()), (0, 200));
        memory.freed();
        assert_eq!(memory.dropped(), 0);
    }

    #[test]
    fn a_dropped_buffers_memory_is_used_again_and_bounded_by_the_peak() {
        let memory = Arc::new(Memory::default());
        let len = LEAST + 5;
        let mut share = Share::new(&memory, (4 * len) as u64);
        let (data, fresh) = memory.vector::<f32>(len);
        assert!(fresh && data.iter().all(|&v| v == 0.0));
        let at = data.as_ptr() as usize;
        share.leave(data);
        let (again, fresh) = memory.vector::<i32>(len - 3);
        assert!(!fresh && again.as_ptr() as usize == at && again.len() == len - 3);
        memory.recycle(again);
        // A second vector beside the first would be more than the peak: the older one goes.
        memory.recycle(vec![0u32; len]);
        assert_eq!(memory.state().spare.len(), 1);
        assert_ne!(memory.vector::<u32>(len).0.as_ptr() as usize, at);
        assert_eq!(memory.peak(), (4 * len) as u64);
    }
}
