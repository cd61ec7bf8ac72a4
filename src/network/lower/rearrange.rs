//! Operators that only move elements, or do nothing to one image: they act on constants and on signals alike.

use std::rc::Rc;

use super::map::{self, Cut};
use super::view::{Value, View, image_shape};
use super::{Args, Lowering, is_zero, push_checked};
use crate::error::Result;
use crate::network::fold::Work;
use crate::network::layers::{Head, Shape};
use crate::network::onnx::{Tensor, Values};

impl Lowering<'_> {
    /// `None` if the operator is not one of these.
    pub(super) fn rearrange(&mut self, args: &Args) -> Result<Option<Vec<Value>>> {
        let node = args.node;
        let one = |value: Value| Ok(Some(vec![value]));
        if let Some(Value::Signal(View { head: Some((head, _)), .. })) = args.optional(0) {
            match node.op.as_str() {
                // The index of the largest output is one number, in whatever shape and type.
                "Identity" | "Cast" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose"
                    if *head == Head::ArgMax =>
                {
                    return one(args.value(0)?.clone());
                }
                "Slice" | "Pad" | "Gather" | "Expand" | "Split" => args.refuse_behind_head()?,
                _ => {}
            }
        }
        let fail = |message: String| node.error(message);
        match node.op.as_str() {
            "Identity" => one(args.value(0)?.clone()),
            "Dropout" => {
                if let Some(training) = args.optional_constant(2)?
                    && !is_zero(&training)
                {
                    return Err(node.error("is in training mode; export the network for inference"));
                }
                one(args.value(0)?.clone())
            }
            "Cast" => one(cast(args)?),
            "Reshape" => {
                let shape = args.ints(1)?.ok_or_else(|| node.error("input 1 (shape) is missing"))?;
                let value = args.value(0)?;
                let dims =
                    map::reshape(value.dims(), &shape, node.int("allowzero", 0)? != 0, self.batch).map_err(fail)?;
                one(value.with_dims(dims))
            }
            "Flatten" => {
                let value = args.value(0)?;
                let rank = value.dims().len();
                let axis = match node.int("axis", 1)? {
                    a if a == rank as i64 => rank,
                    a => args.axis(a, rank)?,
                };
                let (front, back) = value.dims().split_at(axis);
                one(value.with_dims(vec![front.iter().product(), back.iter().product()]))
            }
            "Squeeze" => {
                let value = args.value(0)?;
                let dims = value.dims();
                let axes = match args.ints_of("axes", 1)? {
                    Some(axes) => axes.iter().map(|&a| args.axis(a, dims.len())).collect::<Result<Vec<_>>>()?,
                    // The batch is 1 here only because one image is looked at.
                    None => (0..dims.len()).filter(|&a| dims[a] == 1 && (a > 0 || self.batch == Some(1))).collect(),
                };
                if let Some(a) = axes.iter().find(|&&a| dims[a] != 1) {
                    return Err(node.error(format!("axis {a} has {} entries and cannot be squeezed", dims[*a])));
                }
                one(value.with_dims((0..dims.len()).filter(|a| !axes.contains(a)).map(|a| dims[a]).collect()))
            }
            "Unsqueeze" => {
                let value = args.value(0)?;
                let axes = args.ints_of("axes", 1)?.ok_or_else(|| node.error("has no axes"))?;
                let rank = value.dims().len() + axes.len();
                let axes = axes.iter().map(|&a| args.axis(a, rank)).collect::<Result<Vec<_>>>()?;
                let mut rest = value.dims().iter();
                let dims: Vec<usize> =
                    (0..rank).map(|a| if axes.contains(&a) { 1 } else { rest.next().copied().unwrap_or(1) }).collect();
                if dims.iter().product::<usize>() != value.dims().iter().product::<usize>() {
                    return Err(node.error("names an axis twice"));
                }
                one(value.with_dims(dims))
            }
            "Transpose" => {
                let value = args.value(0)?;
                let rank = value.dims().len();
                let perm = match node.ints("perm") {
                    Some(perm) => perm.iter().map(|&a| args.axis(a, rank)).collect::<Result<Vec<_>>>()?,
                    None => (0..rank).rev().collect(),
                };
                one(value.rearranged(map::transpose(value.dims(), &perm)).map_err(fail)?)
            }
            "Slice" => one(slice(args)?),
            "Pad" => one(pad(args)?),
            "Gather" => {
                let value = args.value(0)?;
                let indices = args.constant(1)?;
                let axis = args.axis(node.int("axis", 0)?, value.dims().len())?;
                one(value
                    .rearranged(map::gather(value.dims(), axis, &indices.to_i64(), &indices.dims))
                    .map_err(fail)?)
            }
            "Expand" => {
                let value = args.value(0)?;
                let shape = args.ints(1)?.ok_or_else(|| node.error("input 1 (shape) is missing"))?;
                let shape: Option<Vec<usize>> = shape.iter().map(|&s| usize::try_from(s).ok()).collect();
                let shape = shape.ok_or_else(|| node.error("has a negative dimension"))?;
                let to = map::broadcast_dims(value.dims(), &shape).map_err(fail)?;
                one(value.rearranged(map::expand(value.dims(), &to)).map_err(fail)?)
            }
            "Split" => Ok(Some(split(args)?)),
            _ => Ok(None),
        }
    }

    /// Concat of signals along any axis: that axis becomes the channels of a Concat node.
    pub(super) fn concat(&mut self, args: &Args) -> Result<View> {
        let node = args.node;
        let rank = args.value(0)?.dims().len();
        let axis = args.axis(node.int("axis", 1)?, rank)?;
        // Zeros beside one signal are padding.
        if let Some(padded) = concat_zeros(args, axis)? {
            return Ok(padded);
        }
        let to_front: Vec<usize> = match axis {
            0 => (0..rank).collect(),
            _ => [0, axis].into_iter().chain((1..rank).filter(|&a| a != axis)).collect(),
        };
        let (mut sources, mut channels, mut rest) = (vec![], 0, None);
        for i in 0..args.inputs.len() {
            let Value::Signal(view) = args.value(i)? else {
                return Err(
                    node.error(format!("joins a constant (\"{}\") that is not zero to a signal", node.inputs[i]))
                );
            };
            if view.dims.len() != rank {
                return Err(node.error("its inputs differ in their number of dimensions"));
            }
            if axis > 0 && view.dims[0] != 1 {
                return Err(node.error("joins along another axis than the first while the first is not 1"));
            }
            let (dims, moved) = map::transpose(&view.dims, &to_front).map_err(|e| node.error(e))?;
            let shape = image_shape(&dims);
            if *rest.get_or_insert((shape.h, shape.w)) != (shape.h, shape.w) {
                return Err(node.error("its inputs differ in more than the joined axis"));
            }
            channels += shape.c;
            sources.push((view.rearranged(dims.clone(), &moved), shape, dims));
        }
        let (h, w) = rest.unwrap_or((1, 1));
        let mut dims = sources.first().map(|s| s.2.clone()).unwrap_or_default();
        let ids = sources.into_iter().map(|(v, shape, _)| v.node_of(&mut self.draft, shape, &node.name)).collect();
        let shape = Shape::new(channels, h, w);
        let id = push_checked(&mut self.draft, args, shape, Work::Concat { sources: ids })?;
        let joined = if axis == 0 { 0 } else { 1.min(rank - 1) };
        dims[joined] = channels
            / dims.iter().enumerate().filter(|&(i, _)| i < 2 && i != joined).map(|(_, d)| d).product::<usize>().max(1);
        let joined = View::of(&self.draft, id, dims);
        // And back: position of each original axis in the moved order.
        let back: Vec<usize> = (0..rank).map(|a| to_front.iter().position(|&t| t == a).unwrap_or(a)).collect();
        let (dims, moved) = map::transpose(&joined.dims, &back).map_err(|e| node.error(e))?;
        Ok(joined.rearranged(dims, &moved))
    }
}

fn concat_zeros(args: &Args, axis: usize) -> Result<Option<View>> {
    let (mut before, mut after, mut signal) = (0i64, 0i64, None);
    for value in args.inputs.iter().flatten() {
        match value {
            Value::Signal(view) if signal.is_none() => signal = Some(view),
            Value::Constant(t) if is_zero(t) && t.dims.len() > axis => {
                *(if signal.is_none() { &mut before } else { &mut after }) += t.dims[axis] as i64;
            }
            _ => return Ok(None),
        }
    }
    let Some(view) = signal else { return Ok(None) };
    let mut begin = vec![0; view.dims.len()];
    let mut end = begin.clone();
    (begin[axis], end[axis]) = (before, after);
    let (dims, moved) = map::pad(&view.dims, &begin, &end).map_err(|e| args.node.error(e))?;
    Ok(Some(view.rearranged(dims, &moved)))
}

/// Float to float changes nothing here; a signal cannot become an integer.
fn cast(args: &Args) -> Result<Value> {
    let to = args.node.int("to", 0)?;
    let float = matches!(to, 1 | 10 | 11 | 16);
    match args.value(0)? {
        Value::Signal(_) if !float => {
            Err(args.node.error("makes integers of a signal; no spiking chip rounds inside a network"))
        }
        Value::Signal(v) => Ok(Value::Signal(v.clone())),
        Value::Constant(t) => {
            let values = match (&t.values, to) {
                (_, _) if float => Values::Floats(t.to_f32()),
                (Values::Floats(v), 9) => Values::Ints(v.iter().map(|&x| (x != 0.0) as i64).collect()),
                (Values::Ints(v), 9) => Values::Ints(v.iter().map(|&x| (x != 0) as i64).collect()),
                _ => Values::Ints(t.to_i64()),
            };
            Ok(Value::Constant(Rc::new(Tensor { dims: t.dims.clone(), values })))
        }
    }
}

fn slice(args: &Args) -> Result<Value> {
    let node = args.node;
    let value = args.value(0)?;
    let rank = value.dims().len();
    let starts = args.ints_of("starts", 1)?.ok_or_else(|| node.error("has no starts"))?;
    let ends = args.ints_of("ends", 2)?.ok_or_else(|| node.error("has no ends"))?;
    let axes = args.ints_of("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = args.ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(node.error("its starts, ends, axes and steps differ in length"));
    }
    let mut cuts = Vec::with_capacity(starts.len());
    for (i, &axis) in axes.iter().enumerate() {
        let cut = args.axis(axis, rank)?;
        if cuts.iter().any(|c: &Cut| c.axis == cut) {
            return Err(node.error(format!("names axis {axis} twice")));
        }
        cuts.push(Cut { axis: cut, start: starts[i], end: ends[i], step: steps[i] });
    }
    value.rearranged(map::slice(value.dims(), &cuts)).map_err(|e| node.error(e))
}

fn pad(args: &Args) -> Result<Value> {
    let node = args.node;
    let value = args.value(0)?;
    let rank = value.dims().len();
    let mode = node.text("mode", "constant")?;
    let pads = args.ints_of("pads", 1)?.ok_or_else(|| node.error("has no pads"))?;
    let axes = match args.ints(3)? {
        Some(axes) => axes.iter().map(|&a| args.axis(a, rank)).collect::<Result<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(node.error(format!("has {} pads for {} axes", pads.len(), axes.len())));
    }
    let (mut begin, mut end) = (vec![0; rank], vec![0; rank]);
    for (i, &a) in axes.iter().enumerate() {
        (begin[a], end[a]) = (pads[i], pads[i + axes.len()]);
    }
    let fill = match args.optional_constant(2)? {
        Some(t) => t.to_f32().first().copied().unwrap_or(0.0),
        None => node.float("value", 0.0)?,
    };
    if pads.iter().any(|&p| p > 0) && (mode != "constant" || fill != 0.0) {
        let how = if mode == "constant" { format!("the value {fill}") } else { format!("mode \"{mode}\"") };
        return Err(node.error(format!("pads with {how}; only padding with zeros can be mapped")));
    }
    value.rearranged(map::pad(value.dims(), &begin, &end)).map_err(|e| node.error(e))
}

fn split(args: &Args) -> Result<Vec<Value>> {
    let node = args.node;
    let value = args.value(0)?;
    let axis = args.axis(node.int("axis", 0)?, value.dims().len())?;
    let n = value.dims()[axis] as i64;
    let parts = match args.ints_of("split", 1)? {
        Some(parts) => parts,
        None => {
            let count = node.outputs.len().max(1) as i64;
            let size = (n + count - 1) / count;
            (0..count).map(|i| size.min(n - i * size)).collect()
        }
    };
    if parts.iter().any(|&p| p <= 0) || parts.iter().try_fold(0i64, |a, &p| a.checked_add(p)) != Some(n) {
        return Err(node.error(format!("its parts do not add up to the {n} entries of axis {axis}")));
    }
    let mut start = 0;
    let mut out = Vec::with_capacity(parts.len());
    for part in parts {
        let cut = Cut { axis, start, end: start + part, step: 1 };
        out.push(value.rearranged(map::slice(value.dims(), &[cut])).map_err(|e| node.error(e))?);
        start += part;
    }
    Ok(out)
}
