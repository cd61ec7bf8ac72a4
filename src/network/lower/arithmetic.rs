//! Sums of signals, and arithmetic of a signal with constants, as maps of blocks.

use std::rc::Rc;

use super::view::{Value, View, image_shape};
use super::{Args, Lowering, map, push_checked};
use crate::error::Result;
use crate::network::fold::{Work, diagonal};
use crate::network::layers::Activation;
use crate::network::onnx::Tensor;

/// x * scale + shift, both broadcast over the signal.
pub struct Affine {
    pub scale: Option<Rc<Tensor>>,
    pub shift: Option<Rc<Tensor>>,
}

impl Lowering<'_> {
    /// Add, Sub, Mul, Div, Sum, Mean, Neg with at least one signal.
    pub(super) fn arithmetic(&mut self, args: &Args) -> Result<View> {
        let node = args.node;
        match node.op.as_str() {
            "Mul" | "Div" => {
                let constant = |t: &Rc<Tensor>| Rc::new(Tensor::floats(t.dims.clone(), t.to_f32()));
                let (view, scale) = match (args.value(0)?, args.value(1)?) {
                    (Value::Signal(v), Value::Constant(t)) if node.op == "Mul" => (v.clone(), constant(t)),
                    (Value::Constant(t), Value::Signal(v)) if node.op == "Mul" => (v.clone(), constant(t)),
                    (Value::Signal(v), Value::Constant(t)) => {
                        let inverse = t.to_f32().iter().map(|&x| (1.0 / x as f64) as f32).collect();
                        (v.clone(), Rc::new(Tensor::floats(t.dims.clone(), inverse)))
                    }
                    (Value::Constant(_), Value::Signal(_)) => return Err(args.unsupported(" (it divides by a signal)")),
                    _ if node.op == "Mul" => return Err(args.unsupported(" (it multiplies two signals)")),
                    _ => return Err(args.unsupported(" (it divides two signals)")),
                };
                self.affine(args, &view, Affine { scale: Some(scale), shift: None })
            }
            "Neg" => {
                let minus = Rc::new(Tensor::floats(vec![], vec![-1.0]));
                self.affine(args, &args.signal(0)?, Affine { scale: Some(minus), shift: None })
            }
            _ => self.sum(args),
        }
    }

    fn sum(&mut self, args: &Args) -> Result<View> {
        let node = args.node;
        let n = args.inputs.len();
        let mut signals = Vec::new();
        let mut constants = Vec::new();
        for i in 0..n {
            let sign = match node.op.as_str() {
                "Sub" if i == 1 => -1.0,
                "Mean" => 1.0 / n as f32,
                _ => 1.0,
            };
            match args.value(i)? {
                Value::Signal(v) => signals.push((v.clone(), sign)),
                Value::Constant(t) => {
                    let values = t.to_f32().iter().map(|v| v * sign).collect();
                    constants.push(Rc::new(Tensor::floats(t.dims.clone(), values)));
                }
            }
        }
        let mut out = match signals.as_slice() {
            [(only, 1.0)] => only.clone(),
            [(only, sign)] => {
                let scale = Some(Rc::new(Tensor::floats(vec![], vec![*sign])));
                self.affine(args, only, Affine { scale, shift: None })?
            }
            several => self.add(args, several)?,
        };
        for shift in constants {
            out = self.affine(args, &out, Affine { scale: None, shift: Some(shift) })?;
        }
        Ok(out)
    }

    /// Weighted sum of signals: one identity block each, which folding merges with what lies before.
    pub(super) fn add(&mut self, args: &Args, terms: &[(View, f32)]) -> Result<View> {
        let fail = |e: String| args.node.error(e);
        let mut dims = terms[0].0.dims.clone();
        for (view, _) in &terms[1..] {
            dims = map::broadcast_dims(&dims, &view.dims).map_err(fail)?;
        }
        let mut views = Vec::with_capacity(terms.len());
        for (view, factor) in terms {
            let view = if view.dims == dims {
                view.clone()
            } else {
                let (to, moved) = map::expand(&view.dims, &dims).map_err(fail)?;
                view.rearranged(to, &moved)
            };
            views.push((view, *factor));
        }
        // Where all terms show their nodes in one and the same permuted order (a channels-last graph), add the nodes.
        let first = &views[0].0;
        let first_shape = self.draft.shape(first.node);
        let alike = first.inverse(&self.draft).is_some()
            && views.iter().all(|(v, _)| v.index == first.index && self.draft.shape(v.node) == first_shape);
        let (shape, index) = if alike { (first_shape, first.index.clone()) } else { (image_shape(&dims), None) };
        let mut blocks = Vec::with_capacity(views.len());
        for (view, factor) in &views {
            let source = if alike { view.node } else { view.node_of(&mut self.draft, shape, &args.node.name) };
            blocks.push(diagonal(source, vec![*factor; shape.c]));
        }
        let op = Work::Map { blocks, bias: vec![0.0; shape.c], activation: Activation::Linear };
        let node = push_checked(&mut self.draft, args, shape, op)?;
        Ok(View { node, dims, index, head: None })
    }

    /// A signal times a constant plus a constant. Per channel of the node that holds the signal where that is what the
    /// constants come to, else per element (every element then is a channel of its own).
    pub(super) fn affine(&mut self, args: &Args, view: &View, affine: Affine) -> Result<View> {
        let fail = |e: String| args.node.error(e);
        let mut dims = view.dims.clone();
        for t in [&affine.scale, &affine.shift].into_iter().flatten() {
            dims = map::broadcast_dims(&dims, &t.dims).map_err(fail)?;
        }
        let mut view = view.clone();
        if view.dims != dims {
            view = if view.len() == dims.iter().product::<usize>() {
                View { dims: dims.clone(), ..view }
            } else {
                let (to, moved) = map::expand(&view.dims, &dims).map_err(fail)?;
                view.rearranged(to, &moved)
            };
        }
        let spread = |t: &Option<Rc<Tensor>>, default: f32| -> Result<Vec<f32>> {
            match t {
                None => Ok(vec![default; view.len()]),
                Some(t) => {
                    let (to, moved) = map::expand(&t.dims, &dims).map_err(fail)?;
                    let values = t.pick(to, &moved).to_f32();
                    args.finite(&values, "its constant (or its inverse)")?;
                    Ok(values)
                }
            }
        };
        let (scale, shift) = (spread(&affine.scale, 1.0)?, spread(&affine.shift, 0.0)?);
        // In the node's own order, if the view shows all of it.
        if let Some(back) = view.inverse(&self.draft) {
            let shape = self.draft.shape(view.node);
            let own = |v: &[f32]| back.iter().map(|&i| v[i as usize]).collect::<Vec<_>>();
            if let (Some(scale), Some(shift)) = (per_channel(&own(&scale), shape.c), per_channel(&own(&shift), shape.c))
            {
                let id = self.push_diagonal(args, view.node, shape, scale, shift)?;
                return Ok(View { node: id, ..view });
            }
        }
        let shape = image_shape(&dims);
        if let (Some(scale), Some(shift)) = (per_channel(&scale, shape.c), per_channel(&shift, shape.c)) {
            let source = view.node_of(&mut self.draft, shape, &args.node.name);
            let id = self.push_diagonal(args, source, shape, scale, shift)?;
            return Ok(View::of(&self.draft, id, dims));
        }
        let flat = crate::network::layers::Shape::new(view.len(), 1, 1);
        let source = view.node_of(&mut self.draft, flat, &args.node.name);
        let id = self.push_diagonal(args, source, flat, scale, shift)?;
        Ok(View::of(&self.draft, id, dims))
    }

    fn push_diagonal(
        &mut self,
        args: &Args,
        source: usize,
        shape: crate::network::layers::Shape,
        scale: Vec<f32>,
        shift: Vec<f32>,
    ) -> Result<usize> {
        let bias = shift.iter().map(|&b| b as f64).collect();
        let op = Work::Map { blocks: vec![diagonal(source, scale)], bias, activation: Activation::Linear };
        push_checked(&mut self.draft, args, shape, op)
    }
}

/// One value a channel, if the values of each channel are all the same.
fn per_channel(values: &[f32], channels: usize) -> Option<Vec<f32>> {
    let area = values.len().checked_div(channels).filter(|&a| a > 0)?;
    values.chunks(area).map(|c| c.iter().all(|&v| v == c[0]).then_some(c[0])).collect()
}
