//! Conv, Gemm, MatMul and BatchNormalization as maps of blocks.

use std::rc::Rc;

use super::arithmetic::Affine;
use super::sliding::sliding;
use super::view::{Value, View, image_shape};
use super::{Args, Lowering, map, push_checked};
use crate::error::Result;
use crate::network::fold::Work;
use crate::network::layers::{Activation, Block, Shape, Window};
use crate::network::onnx::Tensor;
use crate::network::onnx::tensor::show;

impl Lowering<'_> {
    pub(super) fn conv(&mut self, args: &Args) -> Result<View> {
        let node = args.node;
        let view = args.signal(0)?;
        let (dims, weight) = args.weights(1)?;
        let spatial = view.dims.len().wrapping_sub(2);
        if !(1..=2).contains(&spatial) || view.dims[0] != 1 {
            return Err(node
                .error(format!("its input is {}; convolutions over one or two axes are supported", show(&view.dims))));
        }
        if dims.len() != view.dims.len() {
            return Err(node.error(format!("its weights are {} for an input of {}", show(&dims), show(&view.dims))));
        }
        let shape = image_shape(&view.dims);
        let groups = usize::try_from(node.int("group", 1)?).ok().filter(|&g| g > 0 && dims[0].is_multiple_of(g));
        let groups =
            groups.ok_or_else(|| node.error(format!("has an impossible group count for {} outputs", dims[0])))?;
        if dims[1].checked_mul(groups) != Some(shape.c) {
            return Err(node.error(format!(
                "its weights {} in {groups} groups do not go with the {} channels of its input",
                show(&dims),
                shape.c
            )));
        }
        let place = sliding(args, shape, spatial, Some(&dims[2..]))?;
        let source = view.node_of(&mut self.draft, shape, &node.name);
        let block = Block { source, window: place.window, groups, weight };
        let bias = self.bias(args, 2, dims[0])?;
        let out = Shape::new(dims[0], place.out[0], place.out[1]);
        let id = self.push_map(args, out, block, bias)?;
        let mut out_dims = vec![1, out.c, out.h];
        if spatial == 2 {
            out_dims.push(out.w);
        }
        Ok(View::of(&self.draft, id, out_dims))
    }

    fn bias(&self, args: &Args, input: usize, outputs: usize) -> Result<Vec<f64>> {
        if args.optional(input).is_none() {
            return Ok(vec![0.0; outputs]);
        }
        let (_, values) = args.weights(input)?;
        if values.len() != outputs {
            return Err(args.node.error(format!("has {} biases for {outputs} outputs", values.len())));
        }
        Ok(values.iter().map(|&b| b as f64).collect())
    }

    fn push_map(&mut self, args: &Args, shape: Shape, block: Block, bias: Vec<f64>) -> Result<usize> {
        let rank = block.weight.len();
        let op = Work::Map { blocks: vec![block], bias, activation: Activation::Linear };
        let id = push_checked(&mut self.draft, args, shape, op)?;
        self.draft.nodes[id].rank = rank;
        Ok(id)
    }

    /// Replaces axis `axis` of `view` (k entries) by `weight` (m x k) times it: a dense layer, or a 1 x 1 convolution
    /// where the other axes have entries too.
    fn contract(&mut self, args: &Args, view: &View, axis: usize, m: usize, weight: Vec<f32>) -> Result<View> {
        let rank = view.dims.len();
        let k = view.dims[axis];
        let order: Vec<usize> = std::iter::once(axis).chain((0..rank).filter(|&a| a != axis)).collect();
        let (dims, moved) = map::transpose(&view.dims, &order).map_err(|e| args.node.error(e))?;
        let rest: usize = dims[1..].iter().product();
        let shape = Shape::new(k, rest, 1);
        let source = view.rearranged(dims.clone(), &moved).node_of(&mut self.draft, shape, &args.node.name);
        let block = Block { source, window: Window::POINT, groups: 1, weight };
        let id = self.push_map(args, Shape::new(m, rest, 1), block, vec![0.0; m])?;
        let out = View::of(&self.draft, id, [&[m], &dims[1..]].concat());
        let back: Vec<usize> = (0..rank).map(|a| order.iter().position(|&o| o == a).unwrap_or(a)).collect();
        let (dims, moved) = map::transpose(&out.dims, &back).map_err(|e| args.node.error(e))?;
        Ok(out.rearranged(dims, &moved))
    }

    pub(super) fn matmul(&mut self, args: &Args) -> Result<View> {
        let node = args.node;
        let (constant, signal, signal_left) = match (args.value(0)?, args.value(1)?) {
            (Value::Signal(v), Value::Constant(_)) => (1, v.clone(), true),
            (Value::Constant(_), Value::Signal(v)) => (0, v.clone(), false),
            _ => return Err(args.unsupported(" (it multiplies two signals)")),
        };
        let (mut dims, weight) = args.weights(constant)?;
        // Leading axes of one entry mean nothing.
        while dims.len() > 2 && dims[0] == 1 {
            dims.remove(0);
        }
        let rank = signal.dims.len();
        if dims.len() > 2 || dims.is_empty() || rank == 0 {
            return Err(node.error(format!("a stack of matrices {} is not supported", show(&dims))));
        }
        let vector = dims.len() == 1;
        // The signal's contracted axis, and the constant as (outputs, contracted).
        let (axis, rows, columns) = match (signal_left, vector) {
            (true, true) => (rank - 1, 1, dims[0]),
            (true, false) => (rank - 1, dims[1], dims[0]),
            (false, true) => (rank.saturating_sub(2), 1, dims[0]),
            (false, false) => (rank.saturating_sub(2), dims[0], dims[1]),
        };
        if signal.dims[axis] != columns {
            return Err(node.error(format!("{} does not go with {}", show(&signal.dims), show(&dims))));
        }
        let weight = if signal_left && !vector { transposed(&weight, columns, rows) } else { weight };
        let mut out = self.contract(args, &signal, axis, rows, weight)?;
        if vector {
            out.dims.remove(axis);
        }
        Ok(out)
    }

    pub(super) fn gemm(&mut self, args: &Args) -> Result<View> {
        let node = args.node;
        let (alpha, beta) = (node.float("alpha", 1.0)?, node.float("beta", 1.0)?);
        let trans = [node.int("transA", 0)? != 0, node.int("transB", 0)? != 0];
        let (constant, view) = match (args.value(0)?, args.value(1)?) {
            (Value::Signal(v), Value::Constant(_)) => (1, v.clone()),
            (Value::Constant(_), Value::Signal(v)) => (0, v.clone()),
            _ => return Err(args.unsupported(" (it multiplies two signals)")),
        };
        let (dims, mut weight) = args.weights(constant)?;
        if dims.len() != 2 || view.dims.len() != 2 {
            return Err(node.error(format!(
                "multiplies {} and {}; two matrices are needed",
                show(&view.dims),
                show(&dims)
            )));
        }
        weight.iter_mut().for_each(|w| *w *= alpha);
        args.finite(&weight, "alpha times its weights")?;
        // As (outputs, contracted): op(B) is k x n, op(A) is m x k.
        let stored_as_outputs = if constant == 1 { trans[1] } else { !trans[0] };
        let (m, k, weight) = if stored_as_outputs {
            (dims[0], dims[1], weight)
        } else {
            (dims[1], dims[0], transposed(&weight, dims[0], dims[1]))
        };
        // The signal's contracted axis.
        let axis = if constant == 1 { 1 - trans[0] as usize } else { trans[1] as usize };
        if view.dims[axis] != k {
            return Err(node.error(format!("{} does not go with weights {}", show(&view.dims), show(&dims))));
        }
        let mut out = self.contract(args, &view, axis, m, weight)?;
        // The result is (rows of A) x (columns of B); a transposed signal has its axes the other way round.
        if (constant == 1 && trans[0]) || (constant == 0 && trans[1]) {
            let (dims, moved) = map::transpose(&out.dims, &[1, 0]).map_err(|e| node.error(e))?;
            out = out.rearranged(dims, &moved);
        }
        match args.optional(2) {
            None => Ok(out),
            Some(Value::Constant(_)) => {
                let (dims, mut values) = args.weights(2)?;
                values.iter_mut().for_each(|v| *v *= beta);
                let shift = Tensor::floats(dims, values);
                self.affine(args, &out, Affine { scale: None, shift: Some(Rc::new(shift)) })
            }
            Some(Value::Signal(c)) => self.add(args, &[(out, 1.0), (c.clone(), beta)]),
        }
    }

    pub(super) fn batch_norm(&mut self, args: &Args) -> Result<View> {
        let node = args.node;
        if node.int("training_mode", 0)? != 0 || node.int("spatial", 1)? == 0 {
            return Err(node.error("is in training mode or not per channel; export the network for inference"));
        }
        let view = args.signal(0)?;
        let epsilon = node.float("epsilon", 1e-5)? as f64;
        let channels = view.dims.get(1).copied().unwrap_or(1);
        let mut p = Vec::new();
        for i in 1..5 {
            let (_, values) = args.weights(i)?;
            if values.len() != channels {
                return Err(node.error(format!(
                    "\"{}\" has {} values for {channels} channels",
                    node.inputs[i],
                    values.len()
                )));
            }
            p.push(values);
        }
        let mut scale = Vec::with_capacity(channels);
        let mut shift = Vec::with_capacity(channels);
        let [gamma, beta, mean, variance] = &p[..] else { return Err(node.error("needs four parameters")) };
        for (((&gamma, &beta), &mean), &variance) in gamma.iter().zip(beta).zip(mean).zip(variance) {
            let s = gamma as f64 / (variance as f64 + epsilon).sqrt();
            scale.push(s as f32);
            shift.push((beta as f64 - mean as f64 * s) as f32);
        }
        args.finite(&scale, "scale / sqrt(variance + epsilon)")?;
        args.finite(&shift, "its shift")?;
        let mut dims = vec![1; view.dims.len()];
        if let Some(d) = dims.get_mut(1) {
            *d = channels;
        }
        let affine = Affine {
            scale: Some(Rc::new(Tensor::floats(dims.clone(), scale))),
            shift: Some(Rc::new(Tensor::floats(dims, shift))),
        };
        self.affine(args, &view, affine)
    }
}

/// Row-major `rows x columns` to `columns x rows`.
fn transposed(weight: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(weight.len());
    for c in 0..columns {
        out.extend((0..rows).map(|r| weight[r * columns + c]));
    }
    out
}
