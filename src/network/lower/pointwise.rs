//! Activation functions.

use super::view::{Value, View, image_shape};
use super::{Args, Lowering, push_checked};
use crate::error::Result;
use crate::network::fold::Work;
use crate::network::layers::Activation;

impl Lowering<'_> {
    pub(super) fn activation(&mut self, args: &Args) -> Result<View> {
        let node = args.node;
        let parameter = |name: &str, default: f32| -> Result<f32> {
            let value = node.float(name, default)?;
            args.finite(&[value], name)?;
            Ok(value)
        };
        let mut input = 0;
        let activation = match node.op.as_str() {
            "Relu" => Activation::Relu,
            "LeakyRelu" => Activation::LeakyRelu { alpha: parameter("alpha", 0.01)? },
            "PRelu" => {
                let (_, slope) = args.weights(1)?;
                match slope.split_first() {
                    Some((&alpha, rest)) if rest.iter().all(|&s| s == alpha) => Activation::LeakyRelu { alpha },
                    _ => return Err(node.error("has a slope per channel; one slope a layer is supported")),
                }
            }
            "Sigmoid" => Activation::Sigmoid,
            "Tanh" => Activation::Tanh,
            "Softplus" => Activation::Softplus,
            "Elu" => Activation::Elu { alpha: parameter("alpha", 1.0)? },
            "HardSigmoid" => Activation::HardSigmoid { alpha: parameter("alpha", 0.2)?, beta: parameter("beta", 0.5)? },
            "Clip" => {
                let bound = |name: &str, i: usize, default: f32| -> Result<f32> {
                    match args.optional_constant(i)? {
                        Some(t) => Ok(t.to_f32().first().copied().unwrap_or(default)),
                        None => node.float(name, default),
                    }
                };
                clip(args, bound("min", 1, f32::MIN)?, bound("max", 2, f32::MAX)?)?
            }
            // Max and Min with one constant number are clips.
            _ => {
                let (mut signal, mut bound) = (None, None);
                for (i, value) in args.inputs.iter().flatten().enumerate() {
                    match value {
                        Value::Signal(_) if signal.is_none() => signal = Some(i),
                        Value::Constant(t) if bound.is_none() && t.len() == 1 => bound = t.to_f32().first().copied(),
                        _ => return Err(args.unsupported(" on several signals")),
                    }
                }
                let (Some(signal), Some(bound)) = (signal, bound) else {
                    return Err(args.unsupported(" on several signals"));
                };
                input = signal;
                if node.op == "Max" { clip(args, bound, f32::MAX)? } else { clip(args, f32::MIN, bound)? }
            }
        };
        let view = args.signal(input)?;
        if let Activation::LeakyRelu { alpha } | Activation::Elu { alpha } = activation
            && alpha < 0.0
        {
            return Err(node.error(format!("alpha is {alpha}; it must not be negative")));
        }
        match activation.simplest() {
            Activation::Linear => Ok(view),
            activation => self.activate(args, &view, activation),
        }
    }

    /// The activation of every element. Applied to the node behind the view, if that shows the same for it.
    fn activate(&mut self, args: &Args, view: &View, activation: Activation) -> Result<View> {
        let (source, shape) = match view.inverse(&self.draft) {
            Some(_) => (view.node, self.draft.shape(view.node)),
            None => {
                let shape = image_shape(&view.dims);
                (view.node_of(&mut self.draft, shape, &args.node.name), shape)
            }
        };
        let node = push_checked(&mut self.draft, args, shape, Work::Activate { source, activation })?;
        let index = if source == view.node { view.index.clone() } else { None };
        Ok(View { node, index, ..view.clone() })
    }
}

/// min(max(x, lo), hi).
fn clip(args: &Args, lo: f32, hi: f32) -> Result<Activation> {
    if lo.is_nan() || hi.is_nan() {
        return Err(args.node.error("has a bound that is not a number"));
    }
    Ok(Activation::Clip { lo: lo.clamp(f32::MIN, f32::MAX), hi: hi.clamp(f32::MIN, f32::MAX) })
}
