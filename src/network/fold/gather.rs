//! Rearrangements that are convolutions in disguise: channels picked, rows and columns taken with a step, zeros
//! around. A residual network's shortcut by slicing and padding is one.

use crate::network::layers::{Block, Shape, Window};

/// A rearrangement whose output (c, y, x) is source (channel(c), y * step + start, ...), or zero outside.
#[derive(Debug, PartialEq)]
pub struct Regular {
    /// Source channel of each output channel; `None`: all zero.
    pub channel: Vec<Option<usize>>,
    pub stride: [usize; 2],
    pub pad: [isize; 2],
}

impl Regular {
    pub fn keeps_channels(&self, source: Shape) -> bool {
        self.channel.len() == source.c && self.channel.iter().enumerate().all(|(i, c)| *c == Some(i))
    }

    /// As a 1 x 1 convolution with weights 0 and 1.
    pub fn block(&self, node: usize, source: Shape) -> Option<Block> {
        let window = Window { stride: self.stride, pad: self.pad, ..Window::POINT };
        if self.keeps_channels(source) {
            return Some(Block { source: node, window, groups: source.c, weight: vec![1.0; source.c] });
        }
        let mut weight = vec![0.0; self.channel.len().checked_mul(source.c).filter(|&n| n <= 1 << 26)?];
        for (row, channel) in weight.chunks_mut(source.c).zip(&self.channel) {
            if let Some(c) = channel {
                row[*c] = 1.0;
            }
        }
        Some(Block { source: node, window, groups: 1, weight })
    }
}

/// `None` if the rearrangement is not of that kind.
pub fn regular(index: &[u32], source: Shape, shape: Shape) -> Option<Regular> {
    let area = source.area();
    // Channel by its first element that is not zero; the pattern by one channel that has any.
    let channel: Vec<Option<usize>> =
        index.chunks(shape.area()).map(|c| c.iter().find(|&&i| i != u32::MAX).map(|&i| i as usize / area)).collect();
    let pattern = channel.iter().position(Option::is_some)?;
    let plane = &index[pattern * shape.area()..][..shape.area()];
    let place = |p: usize| -> Option<[isize; 2]> {
        (plane[p] != u32::MAX).then(|| {
            let at = plane[p] as usize % area;
            [(at / source.w) as isize, (at % source.w) as isize]
        })
    };
    let first = (0..plane.len()).find(|&p| plane[p] != u32::MAX)?;
    let origin = place(first)?;
    let (y, x) = (first / shape.w, first % shape.w);
    // The step from the next row and the next column that hold values.
    let below = if y + 1 < shape.h { place(first + shape.w).map(|p| p[0] - origin[0]) } else { None };
    let right = if x + 1 < shape.w { place(first + 1).map(|p| p[1] - origin[1]) } else { None };
    let step = |s: Option<isize>| usize::try_from(s.unwrap_or(1)).ok().filter(|&s| s > 0);
    let stride = [step(below)?, step(right)?];
    let pad = [y as isize * stride[0] as isize - origin[0], x as isize * stride[1] as isize - origin[1]];
    let found = Regular { channel, stride, pad };
    let exact = index.iter().enumerate().all(|(i, &got)| {
        let (c, p) = (i / shape.area(), i % shape.area());
        let Some(channel) = found.channel[c] else { return true };
        let y = ((p / shape.w) * stride[0]) as isize - pad[0];
        let x = ((p % shape.w) * stride[1]) as isize - pad[1];
        let inside = (0..source.h as isize).contains(&y) && (0..source.w as isize).contains(&x);
        let want = if inside { (channel * area + y as usize * source.w + x as usize) as u32 } else { u32::MAX };
        got == want
    });
    exact.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strided_slice_with_channel_padding_is_a_convolution() {
        let (source, shape) = (Shape::new(1, 4, 4), Shape::new(2, 2, 2));
        let index = [u32::MAX, u32::MAX, u32::MAX, u32::MAX, 0, 2, 8, 10];
        let found = regular(&index, source, shape).expect("regular");
        assert_eq!(found, Regular { channel: vec![None, Some(0)], stride: [2, 2], pad: [0, 0] });
        assert_eq!(regular(&[0, 4, 1, 5], Shape::new(2, 2, 1), Shape::new(1, 2, 2)), None);
    }

    #[test]
    fn padding_and_cropping_are_pads() {
        let (source, shape) = (Shape::new(1, 1, 3), Shape::new(1, 1, 5));
        let z = u32::MAX;
        assert_eq!(regular(&[z, 0, 1, 2, z], source, shape).map(|r| r.pad), Some([0, 1]));
        assert_eq!(regular(&[1, 2], source, Shape::new(1, 1, 2)).map(|r| r.pad), Some([0, -1]));
        // Reversal is no convolution of this kind.
        assert_eq!(regular(&[2, 1, 0], source, source), None);
    }
}
