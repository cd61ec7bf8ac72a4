//! How large the kernels' work is: enough to fill a device, and to finish soon on it.

use std::str::FromStr;

use serde::Serialize;

use crate::compute::Device;
use crate::error::{Error, Result};

/// What the user may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// Nothing but a check that all runs.
    Tiny,
    /// A few cores, in plain Rust or as a software GPU.
    Small,
    /// A GPU.
    Large,
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "tiny" => Ok(Size::Tiny),
            "small" => Ok(Size::Small),
            "large" => Ok(Size::Large),
            _ => Err(Error::input("size", format!("`{s}` is none of tiny, small, large"))),
        }
    }
}

impl Size {
    /// What fits a device: large for real GPUs, small for cores.
    pub fn of(dev: &Device) -> Size {
        if matches!(dev.info().kind.as_str(), "host" | "software") { Size::Small } else { Size::Large }
    }

    pub fn sizes(self) -> Sizes {
        match self {
            Size::Tiny => Sizes {
                channels: 8,
                side: 8,
                images: 2,
                spike_images: 2,
                steps: 4,
                n: 40,
                rows: 4,
                samples: 96,
                elements: 1 << 12,
                fma: (1 << 12, 512),
                copy: 1 << 14,
            },
            Size::Small => Sizes {
                channels: 64,
                side: 16,
                images: 16,
                spike_images: 16,
                steps: 16,
                n: 512,
                rows: 32,
                samples: 1024,
                elements: 1 << 24,
                fma: (1 << 17, 8192),
                copy: 1 << 24,
            },
            Size::Large => Sizes {
                channels: 256,
                side: 32,
                images: 64,
                spike_images: 8,
                steps: 16,
                n: 2048,
                rows: 512,
                samples: 8192,
                elements: 1 << 25,
                fma: (1 << 22, 16_384),
                // 128 MiB: what WebGPU lets every device bind
                copy: 1 << 25,
            },
        }
    }
}

/// The kernels' shapes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of a layer's input and output, `side` x `side` positions each, windows of 3 x 3.
    pub channels: usize,
    pub side: usize,
    pub images: usize,
    /// Images of spike trains, `steps` steps each.
    pub spike_images: usize,
    pub steps: usize,
    /// Inputs of a layer problem, its rows, and samples where it keeps them.
    pub n: usize,
    pub rows: usize,
    pub samples: usize,
    /// Of elementwise maps.
    pub elements: usize,
    /// Elements and rounds of the multiply-add peak, elements of the copy peak.
    pub fma: (usize, usize),
    pub copy: usize,
}
