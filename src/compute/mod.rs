//! Device, buffers and kernels: each kernel a WGSL shader with a plain Rust twin.
