//! Commands that are recorded and go to the GPU together: a submission costs the host more than a small kernel costs the GPU.
//!
//! The dispatches' `Params` lie side by side in one uniform buffer, `SLOT` bytes each, written once for all of them. The
//! next batch may write over them: the queue does one after the other.

/// Bytes between the parameters of two dispatches: the alignment that WebGPU's default limits ask for.
pub(super) const SLOT: usize = 256;
/// Commands of a batch. Some systems reset a GPU that is at one submission for seconds, and a solver's kernel may take a
/// hundredth of that.
const MOST: usize = 16;
/// Workgroups that are worth a submission of their own: the GPU is to have them while the host goes on.
const LARGE: u64 = 256;

/// Commands that the GPU has not got yet.
pub(super) struct Batch {
    pub encoder: wgpu::CommandEncoder,
    params: Vec<u8>,
    commands: usize,
    groups: u64,
}

impl Batch {
    pub fn new(device: &wgpu::Device) -> Self {
        let encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        Self { encoder, params: Vec::new(), commands: 0, groups: 0 }
    }

    /// The buffer that the parameters of a batch go to.
    pub fn uniforms(device: &wgpu::Device) -> wgpu::Buffer {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: (MOST * SLOT) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Takes a dispatch's parameters; gives their place.
    pub fn push(&mut self, params: &[u8]) -> u32 {
        let at = self.params.len();
        self.params.extend_from_slice(params);
        self.params.resize(at + SLOT, 0);
        at as u32
    }

    /// Counts a command of so many workgroups. Whether the batch is to go.
    pub fn count(&mut self, groups: u64) -> bool {
        self.commands += 1;
        self.groups += groups;
        self.commands >= MOST || self.groups >= LARGE
    }

    /// Gives it to the GPU, its parameters in `uniforms`.
    pub fn submit(self, queue: &wgpu::Queue, uniforms: &wgpu::Buffer) -> wgpu::SubmissionIndex {
        if !self.params.is_empty() {
            queue.write_buffer(uniforms, 0, &self.params);
        }
        queue.submit([self.encoder.finish()])
    }
}
