//! What the solvers give a GPU: from which size of problem on, and how much at a time.

use crate::compute::Device;

/// Whether `dev` is a GPU of its own, not a rasterizer on the CPU.
pub(super) fn is_real(dev: &Device) -> bool {
    dev.is_gpu() && !dev.info().software()
}

/// Multiplications of one product of all rows with H below which `dev`'s latency costs more than it brings.
///
/// A real GPU spends hundreds of short launches and downloads on a solve however small it is, while the cores share its
/// multiplications: its bound, by core, is an estimate from counts of both, not measured. A software GPU's is low, so that
/// tests go its way.
pub(super) fn least_work(dev: &Device) -> usize {
    if is_real(dev) { (1 << 25) * rayon::current_num_threads() } else { 1 << 19 }
}

/// Most bytes of a buffer of rows or lanes under way: on a real GPU so many that workgroups of K-best, which take half a
/// MiB each in layers of thousands of inputs, fill its cores several times over; else few, so that several fit any device.
pub(super) fn batch_bytes(dev: &Device) -> u64 {
    let most = if is_real(dev) { 512 << 20 } else { 64 << 20 };
    most.min(dev.max_buffer_bytes())
}
