//! Pooling: MaxPool, AveragePool, the global ones, and the mean or maximum over some axes.

use super::sliding::{Sliding, sliding};
use super::view::{View, image_shape};
use super::{Args, Lowering, map, push_checked};
use crate::error::Result;
use crate::network::fold::Work;
use crate::network::layers::{Shape, Window};
use crate::network::onnx::tensor::{MAX_ELEMENTS, checked_len, show};

impl Lowering<'_> {
    pub(super) fn pool(&mut self, args: &Args) -> Result<View> {
        match args.node.op.as_str() {
            "MaxPool" | "AveragePool" => self.sliding_pool(args),
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let view = args.signal(0)?;
                let rank = view.dims.len();
                self.reduce(args, &view, (2..rank).collect(), true, args.node.op == "GlobalAveragePool")
            }
            _ => {
                let view = args.signal(0)?;
                let rank = view.dims.len();
                let axes = match args.ints_of("axes", 1)? {
                    Some(axes) if !axes.is_empty() => {
                        axes.iter().map(|&a| args.axis(a, rank)).collect::<Result<Vec<_>>>()?
                    }
                    _ if args.node.int("noop_with_empty_axes", 0)? != 0 => return Ok(view),
                    _ => (0..rank).collect(),
                };
                self.reduce(args, &view, axes, args.node.int("keepdims", 1)? != 0, args.node.op == "ReduceMean")
            }
        }
    }

    fn sliding_pool(&mut self, args: &Args) -> Result<View> {
        let node = args.node;
        let view = args.signal(0)?;
        let spatial = view.dims.len().wrapping_sub(2);
        if !(1..=2).contains(&spatial) || view.dims[0] != 1 {
            return Err(
                node.error(format!("its input is {}; pooling over one or two axes is supported", show(&view.dims)))
            );
        }
        let shape = image_shape(&view.dims);
        let place = sliding(args, shape, spatial, None)?;
        let source = view.node_of(&mut self.draft, shape, &node.name);
        let out = Shape::new(shape.c, place.out[0], place.out[1]);
        let window = place.window;
        checked_len(&[out.c, out.h, out.w], MAX_ELEMENTS).map_err(|e| node.error(e))?;
        let taken = counts(&place, shape, out, false);
        if taken.contains(&0) {
            return Err(node.error("has a window that lies in the padding altogether"));
        }
        let op = if node.op == "MaxPool" {
            Work::MaxPool { source, window }
        } else {
            let include = node.int("count_include_pad", 0)? != 0;
            let divisor = if include { counts(&place, shape, out, true) } else { taken };
            Work::AveragePool { source, window, divisor }
        };
        let id = push_checked(&mut self.draft, args, out, op)?;
        let mut dims = vec![1, out.c, out.h];
        if spatial == 2 {
            dims.push(out.w);
        }
        Ok(View::of(&self.draft, id, dims))
    }

    /// Mean or maximum over some axes: one window over all of them.
    fn reduce(&mut self, args: &Args, view: &View, mut axes: Vec<usize>, keep: bool, mean: bool) -> Result<View> {
        let rank = view.dims.len();
        axes.sort_unstable();
        axes.dedup();
        let kept: Vec<usize> = (0..rank).filter(|a| !axes.contains(a)).collect();
        let order = [kept.as_slice(), axes.as_slice()].concat();
        let (dims, moved) = map::transpose(&view.dims, &order).map_err(|e| args.node.error(e))?;
        let (front, back) = dims.split_at(kept.len());
        let channels = front.iter().product();
        // Two reduced axes stay height and width, so that a node of that shape is used as it is.
        let shape = match back {
            [h, w @ ..] => Shape::new(channels, *h, w.iter().product()),
            [] => Shape::new(channels, 1, 1),
        };
        let source = view.rearranged(dims, &moved).node_of(&mut self.draft, shape, &args.node.name);
        let window = Window::whole(shape);
        let area = u32::try_from(shape.area()).unwrap_or(u32::MAX);
        let op = if mean {
            Work::AveragePool { source, window, divisor: vec![area] }
        } else {
            Work::MaxPool { source, window }
        };
        let id = push_checked(&mut self.draft, args, Shape::new(channels, 1, 1), op)?;
        let dims = (0..rank)
            .filter(|a| keep || kept.contains(a))
            .map(|a| if axes.contains(&a) { 1 } else { view.dims[a] })
            .collect();
        Ok(View::of(&self.draft, id, dims))
    }
}

/// For every output position, how many taps lie inside the input, or inside the input and its padding.
fn counts(place: &Sliding, shape: Shape, out: Shape, padding: bool) -> Vec<u32> {
    let along = |axis: usize, size: usize, positions: usize| -> Vec<u32> {
        let w = &place.window;
        let (low, high) =
            if padding { (-w.pad[axis], size as isize + place.end_pad[axis]) } else { (0, size as isize) };
        (0..positions)
            .map(|p| {
                let start = (p * w.stride[axis]) as isize - w.pad[axis];
                // Taps at start + i * dilation, 0 <= i < kernel, within low..high.
                let d = w.dilation[axis] as isize;
                let first = (low - start + d - 1).div_euclid(d).max(0);
                let last = (high - 1 - start).div_euclid(d).min(w.kernel[axis] as isize - 1);
                (last - first + 1).max(0) as u32
            })
            .collect()
    };
    let (rows, columns) = (along(0, shape.h, out.h), along(1, shape.w, out.w));
    rows.iter().flat_map(|&r| columns.iter().map(move |&c| r * c)).collect()
}
