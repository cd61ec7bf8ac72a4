//! Other images from those that there are: shifted by up to an eighth of each side (edges repeated), mirrored left to right,
//! brighter or darker, channels shifted, and every other one laid over the next (mixup: Zhang et al., ICLR 2018; here the
//! trained network says what is wanted of the mixture). Inputs that are no images only move towards each other, or apart:
//! 2000 vectors as they are were learned by heart. Random inputs are drawn anew instead.

use crate::network::{Network, Op, Shape, Window};

/// Share of a side that an image moves by, contrast from 1 - c to 1 + c, and the deviation of a channel's shift in units of
/// the inputs' size.
const MOVE: usize = 8;
const CONTRAST: f32 = 0.2;
const SHIFT: f32 = 0.3;
/// Share of the images that are mixed.
const MIXED: f32 = 0.5;
/// How far a vector moves towards another, or away from it, at most: both, so that together they do not draw closer (their
/// variance grows by a sixth).
const TOWARDS: f32 = 0.5;

pub struct Vary {
    shape: Shape,
    size: f32,
    inputs: Inputs,
}

#[derive(Debug, PartialEq)]
enum Inputs {
    Images,
    Vectors,
    /// Never the same twice: no variation of them is needed.
    Random,
}

impl Vary {
    /// `size`: root mean square of the inputs. They are images if they have two sides and a layer reads them through a window.
    pub fn new(network: &Network, size: f32, random: bool) -> Self {
        let shape = network.input_shape();
        let whole = |op: &Op| match op {
            Op::Neurons { blocks, .. } => blocks.iter().all(|b| b.source != 0 || b.window == Window::whole(shape)),
            _ => false,
        };
        let mut readers = network.nodes.iter().skip(1).filter(|n| n.sources().contains(&0));
        let inputs = match shape.h > 1 && shape.w > 1 && readers.any(|n| !whole(&n.op)) {
            _ if random => Inputs::Random,
            true => Inputs::Images,
            false => Inputs::Vectors,
        };
        Self { shape, size, inputs }
    }

    /// Appends a variation of `image` (CHW) to `into`.
    pub fn image(&self, image: &[f32], rng: &mut fastrand::Rng, into: &mut Vec<f32>) {
        let Shape { h, w, .. } = self.shape;
        if self.inputs != Inputs::Images {
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

    /// Mixes some images of a batch, `[images][shape]`, or all of its vectors, each with the one after it, in random shares.
    pub fn mix(&self, batch: &mut [f32], rng: &mut fastrand::Rng) {
        let len = self.shape.len();
        let first = batch[..len].to_vec();
        let images = batch.len() / len;
        for k in 0..images {
            let share = match self.inputs {
                Inputs::Images if rng.f32() < MIXED => rng.f32(),
                Inputs::Vectors => TOWARDS * (2.0 * rng.f32() - 1.0),
                Inputs::Images | Inputs::Random => continue,
            };
            let (done, rest) = batch.split_at_mut((k + 1) * len);
            let other = if k + 1 < images { &rest[..len] } else { &first };
            let own = &mut done[k * len..];
            own.iter_mut().zip(other).for_each(|(own, other)| *own += share * (other - *own));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Activation, Block, Head, Layout, Node};

    #[test]
    fn images_have_two_sides_and_are_read_through_windows() {
        let k3 = Window { kernel: [3, 3], pad: [1, 1], ..Window::POINT };
        let is = |shape: Shape, window: Window| {
            let weight = vec![0.0; shape.c * window.taps()];
            let block = Block { source: 0, window, groups: 1, weight };
            let out = Shape::new(1, if window.pad == [1, 1] { shape.h } else { 1 }, 1);
            let op = Op::Neurons { blocks: vec![block], bias: vec![0.0], activation: Activation::Relu };
            let nodes = vec![
                Node { name: "input".into(), shape, op: Op::Input },
                Node { name: "layer".into(), shape: out, op },
            ];
            let (input_scale, input_shift) = (vec![1.0; shape.c], vec![0.0; shape.c]);
            let (name, head, layout) = ("one".into(), Head::None, Layout::Nchw);
            let network = Network { name, nodes, output: 1, head, layout, input_scale, input_shift };
            assert_eq!(Vary::new(&network, 1.0, true).inputs, Inputs::Random);
            Vary::new(&network, 1.0, false).inputs == Inputs::Images
        };
        let (image, row, vector) = (Shape::new(2, 6, 6), Shape::new(1, 1, 5), Shape::new(5, 1, 1));
        assert!(is(image, k3));
        assert!(!is(image, Window::whole(image)));
        assert!(!is(row, Window::whole(row)) && !is(row, k3) && !is(vector, Window::POINT));
    }

    #[test]
    fn vectors_wait_and_images_keep_their_values_but_for_contrast_and_shift() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut out = vec![];
        let vectors = Vary { shape: Shape::new(5, 1, 1), size: 1.0, inputs: Inputs::Vectors };
        vectors.image(&[1.0, 2.0, 3.0, 4.0, 5.0], &mut rng, &mut out);
        assert_eq!(out, [1.0, 2.0, 3.0, 4.0, 5.0]);
        // of a plane that rises to the right by one a pixel, every step is 0 (edges) or the contrast, in one direction
        let shape = Shape::new(2, 16, 16);
        let image: Vec<f32> = (0..shape.len()).map(|i| (i % 16) as f32).collect();
        let (mut falling, mut contrasts) = (0, vec![]);
        for _ in 0..50 {
            out.clear();
            Vary { shape, size: 1.0, inputs: Inputs::Images }.image(&image, &mut rng, &mut out);
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

    #[test]
    fn half_of_a_batch_of_images_and_all_vectors_are_mixed_with_their_neighbours() {
        let mut rng = fastrand::Rng::with_seed(2);
        let vary = Vary { shape: Shape::new(3, 1, 1), size: 1.0, inputs: Inputs::Images };
        // image k holds k, 10 + k and 20 + k
        let images = 400;
        let whole: Vec<f32> = (0..images * 3).map(|i| (i / 3 + 10 * (i % 3)) as f32).collect();
        let mut batch = whole.clone();
        vary.mix(&mut batch, &mut rng);
        let mut mixed = 0;
        for (k, (image, was)) in batch.chunks(3).zip(whole.chunks(3)).enumerate() {
            let by = image[0] - was[0];
            assert!(
                image.iter().zip(was).all(|(a, b)| (a - b - by).abs() < 1e-3),
                "image {k}: one share for all values"
            );
            let towards = if k + 1 < images { 1.0 } else { 1.0 - images as f32 };
            assert!((0.0..=1.0).contains(&(by / towards)), "image {k}: {by}");
            mixed += usize::from(by != 0.0);
        }
        assert!((150..=250).contains(&mixed), "{mixed}");
        // vectors move both ways, half the distance at most
        let mut batch = whole.clone();
        Vary { shape: Shape::new(3, 1, 1), size: 1.0, inputs: Inputs::Vectors }.mix(&mut batch, &mut rng);
        let by: Vec<f32> = batch.chunks(3).zip(whole.chunks(3)).take(images - 1).map(|(a, b)| a[0] - b[0]).collect();
        assert!(by.iter().all(|by| by.abs() <= 0.5) && by.iter().any(|by| *by > 0.3) && by.iter().any(|by| *by < -0.3));
        let mut random = whole.clone();
        Vary { shape: Shape::new(3, 1, 1), size: 1.0, inputs: Inputs::Random }.mix(&mut random, &mut rng);
        assert_eq!(random, whole);
        let mut alone = vec![1.0, 2.0, 3.0];
        vary.mix(&mut alone, &mut rng);
        assert!(alone.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
