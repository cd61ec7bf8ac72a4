//! Kernels of a layer's forward pass and of its moments: 3 x 3 windows on square images.

use super::super::sizes::Sizes;
use super::super::work;
use super::{Case, integers, reals};
use crate::compute::conv::{self, Conv, Start};
use crate::compute::gram::{Moments, PatchSpec};
use crate::compute::pool::{self, Pool};
use crate::compute::{Device, gather as rearrange};
use crate::error::Result;
use crate::network::{Shape, Window};

const WINDOW: Window = Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };
const HALVED: Window = Window { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], pad: [0, 0] };

fn shape(s: &Sizes) -> Shape {
    Shape::new(s.channels, s.side, s.side)
}

fn layer(s: &Sizes) -> Conv {
    Conv { input: shape(s), output: shape(s), window: WINDOW, groups: 1 }
}

pub fn conv_real(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, layer, images) = (dev.clone(), layer(s), s.images);
    let x = dev.upload(&reals(1, images * layer.input.len()))?;
    let w = dev.upload(&reals(2, layer.output.c * layer.depth()))?;
    let mut y = dev.zeros(images * layer.output.len())?;
    Ok(Some(Case {
        shape: format!("{images} x {}, 3x3 to {}", layer.input, layer.output.c),
        once: Box::new(move || {
            let elapsed = dev.timed(|| conv::real(&dev, &layer, images, &x, &w, Start::Zero, &mut y))?;
            Ok((elapsed, work::conv(&layer, images)))
        }),
    }))
}

/// 8-bit weights on spikes.
pub fn conv_integer(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, layer, images) = (dev.clone(), layer(s), s.images);
    let x = dev.upload(&integers(1, images * layer.input.len(), 0, 1))?;
    let w = dev.upload(&integers(2, layer.output.c * layer.depth(), -127, 127))?;
    let mut y = dev.zeros(images * layer.output.len())?;
    let bound = 127 * layer.depth() as u64;
    Ok(Some(Case {
        shape: format!("{images} x {}, 3x3 to {}", layer.input, layer.output.c),
        once: Box::new(move || {
            let elapsed = dev.timed(|| conv::integer(&dev, &layer, images, &x, &w, Start::Zero, bound, &mut y))?;
            Ok((elapsed, work::conv(&layer, images)))
        }),
    }))
}

/// What is summed over a layer.
struct Summed {
    /// Largest count, if the inputs are counts.
    largest: Option<u64>,
    targets: usize,
    gram: bool,
}

fn moments(dev: &Device, s: &Sizes, x: &[f32], summed: Summed) -> Result<Option<Case>> {
    let (dev, images, input) = (dev.clone(), s.images, shape(s));
    let output = Shape { c: summed.targets, ..input };
    let spec = PatchSpec { input, window: WINDOW, groups: 1 };
    let x = dev.upload(x)?;
    let z = dev.upload(&reals(3, images * output.len()))?;
    let n = spec.entries();
    let work = work::moments(images * input.area(), n, summed.targets, images * input.len(), summed.gram);
    Ok(Some(Case {
        shape: format!("{images} x {input}, n = {n}, m = {}", summed.targets),
        once: Box::new(move || {
            let elapsed = dev.timed(|| {
                let mut moments = Moments::new(&dev, &[spec], output, 1)?;
                if let Some(largest) = summed.largest {
                    moments = moments.counts(largest);
                }
                if !summed.gram {
                    moments = moments.targets_only();
                }
                moments.add(images, &[&x], &z)?;
                moments.finish().map(drop)
            })?;
            Ok((elapsed, work))
        }),
    }))
}

/// H of reals, with a single target.
pub fn gram(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let x = reals(1, s.images * shape(s).len());
    moments(dev, s, &x, Summed { largest: None, targets: 1, gram: true })
}

/// H of spike counts, exact.
pub fn gram_counts(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let most = s.steps as i32;
    let x: Vec<f32> = integers(1, s.images * shape(s).len(), 0, most).iter().map(|v| *v as f32).collect();
    moments(dev, s, &x, Summed { largest: Some(most as u64), targets: 1, gram: true })
}

/// B alone: targets against inputs.
pub fn moments_targets(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let x = reals(1, s.images * shape(s).len());
    moments(dev, s, &x, Summed { largest: None, targets: s.channels, gram: false })
}

fn halving(s: &Sizes) -> Pool {
    Pool { input: shape(s), output: Shape::new(s.channels, s.side / 2, s.side / 2), window: HALVED }
}

pub fn pool_average(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, pool, images) = (dev.clone(), halving(s), s.images);
    let x = dev.upload(&reals(1, images * pool.input.len()))?;
    let divisor = dev.upload(&vec![pool.window.taps() as u32; pool.output.area()])?;
    let mut y = dev.zeros(images * pool.output.len())?;
    Ok(Some(Case {
        shape: format!("{images} x {}, 2x2", pool.input),
        once: Box::new(move || {
            let elapsed = dev.timed(|| pool::average(&dev, &pool, &divisor, &x, &mut y))?;
            Ok((elapsed, work::average(&pool, images)))
        }),
    }))
}

pub fn pool_winner(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, pool, images, steps) = (dev.clone(), halving(s), s.spike_images, s.steps);
    let x = dev.upload(&integers(1, steps * images * pool.input.len(), 0, 1))?;
    let mut y = dev.zeros(steps * images * pool.output.len())?;
    Ok(Some(Case {
        shape: format!("{images} x {}, 2x2, {steps} steps", pool.input),
        once: Box::new(move || {
            let elapsed = dev.timed(|| pool::winner(&dev, &pool, steps, &x, &mut y))?;
            Ok((elapsed, work::winner(&pool, images, steps)))
        }),
    }))
}

/// A transpose from channels first to channels last.
pub fn gather(dev: &Device, s: &Sizes) -> Result<Option<Case>> {
    let (dev, images, shape) = (dev.clone(), s.images, shape(s));
    let index: Vec<u32> = (0..shape.len()).map(|i| (i % shape.c * shape.area() + i / shape.c) as u32).collect();
    let index = dev.upload(&index)?;
    let x = dev.upload(&reals(1, images * shape.len()))?;
    let mut y = dev.zeros(images * shape.len())?;
    Ok(Some(Case {
        shape: format!("{images} x {shape} to channels last"),
        once: Box::new(move || {
            let len = shape.len();
            let elapsed = dev.timed(|| rearrange::into(&dev, &index, images, len, &x, 0, len, &mut y))?;
            Ok((elapsed, work::gather(len, images)))
        }),
    }))
}
