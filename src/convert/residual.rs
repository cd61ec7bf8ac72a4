//! The part of a layer's targets that its trained weights do not already give from the measured rates.
//!
//! B sums products in f32, and W* = B H^-1 magnifies their rounding by H's condition number. Of targets
//! t = W0 x + b0 + r only the small rest r has to be summed that way; W0 H is added in f64. So the rounding is relative to
//! what the fit corrects and not to what it keeps, and all devices arrive at the same W* but for a few bits.

use super::linear::Linear;
use crate::compute::gram::{PatchSpec, Sums};
use crate::compute::solver::dense;
use crate::compute::{Buffer, Device, activate};
use crate::error::Result;
use crate::network::Shape;

/// W0 and b0 of a layer, ready to be taken off its targets.
pub struct Baseline {
    /// -W0 x - b0.
    negative: Linear,
    /// groups x m x n, and groups x m: W0 and b0 as the device has them.
    w: Vec<f64>,
    b: Vec<f64>,
}

impl Baseline {
    /// `w`: output.c x n over the blocks' patch entries in order; `bias`: output.c.
    pub fn new(dev: &Device, blocks: &[PatchSpec], output: Shape, w: &[f64], bias: &[f32]) -> Result<Self> {
        let negative: Vec<f32> = w.iter().map(|w| -*w as f32).collect();
        let less: Vec<f32> = bias.iter().map(|b| -b).collect();
        Ok(Self {
            negative: Linear::new(dev, blocks, output, &negative, &less)?,
            w: negative.iter().map(|w| -f64::from(*w)).collect(),
            b: bias.iter().map(|b| f64::from(*b)).collect(),
        })
    }

    /// t - W0 x - b0. `xs`: for each block images x input.len(); `t`: images x output.len().
    pub fn subtract(&self, dev: &Device, images: usize, xs: &[&Buffer<f32>], t: &Buffer<f32>) -> Result<Buffer<f32>> {
        let mut rest = self.negative.run(dev, images, xs)?;
        activate::add(dev, t, &mut rest)?;
        Ok(rest)
    }

    /// Sums over t from `sums` over the rest.
    pub fn restore(&self, mut sums: Sums) -> Sums {
        let (n, m, count) = (sums.n, sums.m, sums.count as f64);
        if n == 0 || m == 0 {
            return sums;
        }
        for g in 0..sums.groups {
            let x_sum = &sums.x_sum[g * n..(g + 1) * n];
            let w = &self.w[g * m * n..(g + 1) * m * n];
            let mut wh = vec![0.0; m * n];
            let par = dense::par(m * n * n);
            dense::product(&mut wh, false, w, &sums.h[g * n * n..(g + 1) * n * n], (m, n, n), par);
            for o in 0..m {
                let (row, w, wh) = (g * m + o, &w[o * n..(o + 1) * n], &wh[o * n..(o + 1) * n]);
                let (b, b0) = (&mut sums.b[row * n..(row + 1) * n], self.b[row]);
                let given = dense::dot(w, x_sum);
                // sum r (W0 x + b0) and sum (W0 x + b0)^2
                let cross = dense::dot(w, b) + b0 * sums.z_sum[row];
                let square = dense::dot(wh, w) + 2.0 * b0 * given + b0 * b0 * count;
                sums.zz[row] += 2.0 * cross + square;
                sums.z_sum[row] += given + b0 * count;
                b.iter_mut().zip(wh.iter().zip(x_sum)).for_each(|(b, (wh, x))| *b += wh + b0 * x);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::gram::Moments;
    use crate::network::Window;

    #[test]
    fn sums_over_the_rest_become_sums_over_the_targets() {
        let dev = Device::cpu();
        let mut rng = fastrand::Rng::with_seed(5);
        let (output, images, groups) = (Shape::new(6, 4, 3), 7, 2);
        let window = Window { kernel: [3, 2], stride: [1, 1], dilation: [1, 1], pad: [1, 0] };
        let blocks = [
            PatchSpec { input: Shape::new(4, 4, 4), window, groups },
            PatchSpec { input: Shape::new(2, 4, 3), window: Window::POINT, groups },
        ];
        let n: usize = blocks.iter().map(PatchSpec::entries).sum();
        let mut real = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.f32() - 0.3).collect() };
        let w: Vec<f64> = real(output.c * n).into_iter().map(f64::from).collect();
        let bias = real(output.c);
        let xs = blocks.map(|b| dev.upload(&real(images * b.input.len())).unwrap());
        let xs: Vec<_> = xs.iter().collect();
        let t = dev.upload(&real(images * output.len())).unwrap();
        let baseline = Baseline::new(&dev, &blocks, output, &w, &bias).unwrap();
        let rest = baseline.subtract(&dev, images, &xs, &t).unwrap();
        let [direct, restored] = [&t, &rest].map(|t| {
            let mut moments = Moments::new(&dev, &blocks, output, groups).unwrap();
            moments.add(images, &xs, t).unwrap();
            moments.finish().unwrap()
        });
        assert_ne!(direct.b, restored.b);
        let restored = baseline.restore(restored);
        for (a, b) in [(&direct.b, &restored.b), (&direct.z_sum, &restored.z_sum), (&direct.zz, &restored.zz)] {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} and {b:?}");
        }
    }
}
