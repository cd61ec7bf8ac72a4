//! Errors of a layer's outputs taken back to its inputs: the transpose of a block of synapses.

use crate::compute::conv::{self, Conv, Start};
use crate::compute::gram::PatchSpec;
use crate::compute::{Buffer, Device, gather};
use crate::error::Result;
use crate::network::{Shape, Window};

/// The transpose of a convolution, as a convolution of its outputs.
pub(super) struct Back {
    /// Outputs set apart as far as the window's stride, where it has one: per value what it is of an image's.
    apart: Option<(Buffer<u32>, usize)>,
    conv: Conv,
    weights: Buffer<f32>,
}

impl Back {
    /// `w`: output.c x block.entries().
    pub fn new(dev: &Device, block: &PatchSpec, output: Shape, w: &[f32]) -> Result<Self> {
        let (input, window) = (block.input, block.window);
        let groups = block.groups;
        if output.area() == 1 && window == Window::whole(input) && groups == 1 {
            // dense: every input by itself
            let all = Shape::new(input.len(), 1, 1);
            let weights: Vec<f32> = (0..all.c).flat_map(|i| w.chunks_exact(all.c).map(move |row| row[i])).collect();
            let conv = Conv { input: Shape::new(output.c, 1, 1), output: all, window: Window::POINT, groups: 1 };
            return Ok(Self { apart: None, conv, weights: dev.upload(&weights)? });
        }
        let [sy, sx] = window.stride;
        let spread = Shape { c: output.c, h: (output.h - 1) * sy + 1, w: (output.w - 1) * sx + 1 };
        let place = |i: usize| {
            let (c, y, x) = (i / spread.area(), i / spread.w % spread.h, i % spread.w);
            match y % sy == 0 && x % sx == 0 {
                true => ((c * output.h + y / sy) * output.w + x / sx) as u32,
                false => u32::MAX,
            }
        };
        let apart = match window.stride {
            [1, 1] => None,
            _ => Some((dev.upload(&(0..spread.len()).map(place).collect::<Vec<_>>())?, output.len())),
        };
        let pad = |a: usize| ((window.kernel[a] - 1) * window.dilation[a]) as isize - window.pad[a];
        let turned = Window { stride: [1, 1], pad: [pad(0), pad(1)], ..window };
        let (taps, entries) = (window.taps(), block.entries());
        // per input channel the taps of its group's outputs, last one first
        let (ins, outs) = (input.c / groups, output.c / groups);
        let of_channel = |c: usize| {
            let rows = w[c / ins * outs * entries..][..outs * entries].chunks_exact(entries);
            rows.flat_map(move |row| row[c % ins * taps..][..taps].iter().rev())
        };
        let weights: Vec<f32> = (0..input.c).flat_map(of_channel).copied().collect();
        let conv = Conv { input: spread, output: input, window: turned, groups };
        Ok(Self { apart, conv, weights: dev.upload(&weights)? })
    }

    /// `rest`: images x output.len(); gives images x input.len().
    pub fn run(&self, dev: &Device, images: usize, rest: &Buffer<f32>) -> Result<Buffer<f32>> {
        let mut asked = dev.scratch(images * self.conv.output.len())?;
        match &self.apart {
            Some((index, len)) => {
                let mut apart = dev.scratch(images * index.len())?;
                gather::into(dev, index, images, *len, rest, 0, index.len(), &mut apart)?;
                conv::real(dev, &self.conv, images, &apart, &self.weights, Start::Zero, &mut asked)?;
            }
            None => conv::real(dev, &self.conv, images, rest, &self.weights, Start::Zero, &mut asked)?,
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::super::linear::Linear;
    use super::*;

    /// <forth(x), r> = <x, back(r)>.
    #[test]
    fn back_is_the_transpose_of_forth() {
        let dev = Device::cpu();
        let mut rng = fastrand::Rng::with_seed(3);
        let images = 2;
        for (input, output, window, groups) in [
            (Shape::new(3, 7, 6), Shape::new(4, 7, 6), Window { kernel: [3, 3], pad: [1, 1], ..Window::POINT }, 1),
            (Shape::new(4, 7, 6), Shape::new(6, 7, 6), Window { kernel: [3, 3], pad: [1, 1], ..Window::POINT }, 2),
            (Shape::new(3, 5, 6), Shape::new(3, 5, 6), Window { kernel: [3, 3], pad: [1, 1], ..Window::POINT }, 3),
            (
                Shape::new(2, 8, 9),
                Shape::new(5, 4, 3),
                Window { kernel: [2, 3], stride: [2, 3], dilation: [1, 1], pad: [0, 1] },
                1,
            ),
            (
                Shape::new(2, 8, 8),
                Shape::new(3, 3, 4),
                Window { kernel: [3, 2], stride: [2, 2], dilation: [2, 1], pad: [1, 0] },
                1,
            ),
            (Shape::new(3, 4, 4), Shape::new(6, 2, 2), Window { stride: [1, 1], pad: [-1, -1], ..Window::POINT }, 1),
            (Shape::new(3, 4, 2), Shape::new(6, 1, 1), Window::whole(Shape::new(3, 4, 2)), 1),
        ] {
            let mut real = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.f32() - 0.5).collect() };
            let block = PatchSpec { input, window, groups };
            let w = real(output.c * block.entries());
            let (x, r) = (real(images * input.len()), real(images * output.len()));
            let (on, rest) = (dev.upload(&x).unwrap(), dev.upload(&r).unwrap());
            let forth = Linear::new(&dev, &[block], output, &w, &vec![0.0; output.c]).unwrap();
            let y = dev.download(&forth.run(&dev, images, &[&on]).unwrap()).unwrap();
            let back = Back::new(&dev, &block, output, &w).unwrap();
            let asked = dev.download(&back.run(&dev, images, &rest).unwrap()).unwrap();
            let product = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum() };
            let (left, right) = (product(&y, &r), product(&x, &asked));
            assert!((left - right).abs() < 1e-4 * (1.0 + left.abs()), "{window:?}: {left} {right}");
        }
    }
}
