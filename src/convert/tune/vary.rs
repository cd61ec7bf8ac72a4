//! Other images from those that there are: shifted by up to an eighth of each side (edges repeated), mirrored left to right,
//! brighter or darker, channels shifted. Inputs without extent stay as they are.

use crate::network::Shape;

/// Share of a side that an image moves by, contrast from 1 - c to 1 + c, and the deviation of a channel's shift in units of
/// the inputs' size.
const MOVE: usize = 8;
const CONTRAST: f32 = 0.2;
const SHIFT: f32 = 0.3;

pub struct Vary {
    shape: Shape,
    size: f32,
}

impl Vary {
    /// `size`: root mean square of the inputs.
    pub fn new(shape: Shape, size: f32) -> Self {
        Self { shape, size }
    }

    /// Appends a variation of `image` (CHW) to `into`.
    pub fn image(&self, image: &[f32], rng: &mut fastrand::Rng, into: &mut Vec<f32>) {
        let Shape { h, w, .. } = self.shape;
        if h * w == 1 {
            into.extend_from_slice(image);
            return;
        }
        let mut by = |side: usize| rng.usize(0..=2 * (side / MOVE)) as isize - (side / MOVE) as isize;
        let (down, right) = (by(h), by(w));
        let mirrored = rng.bool();
        let contrast = 1.0 + CONTRAST * (2.0 * rng.f32() - 1.0);
        let inside = |at: usize, by: isize, side: usize| (at as isize + by).clamp(0, side as isize - 1) as usize;
        for plane in image.chunks_exact(h * w) {
            // nearly normal, of variance 1
            let normal = ((0..4).map(|_| rng.f32()).sum::<f32>() - 2.0) * 3f32.sqrt();
            let shift = SHIFT * self.size * normal;
            for y in 0..h {
                let row = &plane[inside(y, down, h) * w..][..w];
                into.extend((0..w).map(|x| {
                    let x = inside(if mirrored { w - 1 - x } else { x }, right, w);
                    row[x] * contrast + shift
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_stay_and_images_keep_their_values_but_for_contrast_and_shift() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut out = vec![];
        Vary::new(Shape::new(5, 1, 1), 1.0).image(&[1.0, 2.0, 3.0, 4.0, 5.0], &mut rng, &mut out);
        assert_eq!(out, [1.0, 2.0, 3.0, 4.0, 5.0]);
        // of a plane that rises to the right by one a pixel, every step is 0 (edges) or the contrast, in one direction
        let shape = Shape::new(2, 16, 16);
        let image: Vec<f32> = (0..shape.len()).map(|i| (i % 16) as f32).collect();
        let (mut falling, mut contrasts) = (0, vec![]);
        for _ in 0..50 {
            out.clear();
            Vary::new(shape, 1.0).image(&image, &mut rng, &mut out);
            assert_eq!(out.len(), shape.len());
            let steps: Vec<f32> = out.chunks(16).flat_map(|row| row.windows(2).map(|p| p[1] - p[0])).collect();
            let contrast = steps.iter().fold(0f32, |m, s| m.max(s.abs()));
            let sign = steps.iter().sum::<f32>().signum();
            assert!((0.79..=1.21).contains(&contrast));
            assert!(steps.iter().all(|s| s.abs() < 1e-5 || (s * sign - contrast).abs() < 1e-4), "{steps:?}");
            assert!(steps.iter().filter(|s| s.abs() < 1e-5).count() <= 2 * 32);
            falling += usize::from(sign < 0.0);
            contrasts.push(contrast);
        }
        assert!((10..=40).contains(&falling));
        assert!(contrasts.iter().any(|c| *c < 0.95) && contrasts.iter().any(|c| *c > 1.05));
    }
}
