//! Flat arrays of 4-byte scalars that live where their device computes.

use std::fmt::Debug;

use super::memory::Share;
use crate::error::{Error, Result};

/// What a buffer may hold: the three scalar types that every shader knows.
pub trait Element: bytemuck::Pod + Send + Sync + PartialEq + PartialOrd + Debug + Default + 'static {
    /// The type's name in WGSL.
    const WGSL: &'static str;
    /// What `Device::poisoned` fills with: a NaN in f32, a large number in the integers.
    fn poison() -> Self {
        bytemuck::cast(0x7fc0_dead_u32)
    }
}

impl Element for f32 {
    const WGSL: &'static str = "f32";
}
impl Element for i32 {
    const WGSL: &'static str = "i32";
}
impl Element for u32 {
    const WGSL: &'static str = "u32";
}

#[derive(Debug)]
pub(crate) enum Store<T> {
    Host(Vec<T>),
    Gpu(wgpu::Buffer),
}

/// A flat array on a device: a host vector on the CPU, a storage buffer on a GPU.
#[derive(Debug)]
pub struct Buffer<T: Element> {
    store: Store<T>,
    len: usize,
    share: Share,
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Store::Host(data) = &mut self.store {
            self.share.leave(std::mem::take(data));
        }
    }
}

impl<T: Element> Buffer<T> {
    pub(crate) fn new(store: Store<T>, len: usize, share: Share) -> Self {
        Self { store, len, share }
    }

    /// Elements, not bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements of a CPU buffer. Error: the buffer lives on a GPU.
    pub(crate) fn host(&self) -> Result<&[T]> {
        match &self.store {
            Store::Host(data) => Ok(data),
            Store::Gpu(_) => Err(elsewhere()),
        }
    }

    pub(crate) fn host_mut(&mut self) -> Result<&mut [T]> {
        match &mut self.store {
            Store::Host(data) => Ok(data),
            Store::Gpu(_) => Err(elsewhere()),
        }
    }

    /// The storage buffer of a GPU buffer. Error: the buffer lives on the CPU.
    pub(crate) fn gpu(&self) -> Result<&wgpu::Buffer> {
        match &self.store {
            Store::Gpu(buffer) => Ok(buffer),
            Store::Host(_) => Err(elsewhere()),
        }
    }
}

fn elsewhere() -> Error {
    Error::work("buffer", "belongs to another device than the kernel runs on")
}

/// A kernel's length check: `what` must hold exactly `want` elements.
pub(crate) fn expect_len<T: Element>(what: &str, buffer: &Buffer<T>, want: usize) -> Result<()> {
    if buffer.len() == want {
        Ok(())
    } else {
        Err(Error::work(what, format!("holds {} elements where {want} are needed", buffer.len())))
    }
}
