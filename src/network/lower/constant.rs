//! Operators whose inputs are all constant: exporters compute shapes, and parameters of normalizations, that way.

use std::path::Path;
use std::rc::Rc;

use super::view::Value;
use super::{Args, map};
use crate::error::Result;
use crate::network::onnx::tensor::checked_len;
use crate::network::onnx::{Tensor, Values};

/// Filled constants (ConstantOfShape, Range) are small in real files; a damaged one must not ask for all memory.
const MAX_FILLED: usize = 1 << 24;

pub fn fold(args: &Args, folder: Option<&Path>) -> Result<Vec<Value>> {
    let node = args.node;
    let tensor = match node.op.as_str() {
        "Constant" => constant(args, folder)?,
        "ConstantOfShape" => {
            let shape = args.constant(0)?.to_i64();
            let dims: Option<Vec<usize>> = shape.iter().map(|&d| usize::try_from(d).ok()).collect();
            let dims = dims.ok_or_else(|| node.error("has a negative dimension"))?;
            let len = checked_len(&dims, MAX_FILLED).map_err(|e| node.error(e))?;
            match node.tensor("value", folder)?.map(|t| t.values) {
                Some(Values::Ints(v)) => Tensor::ints(dims, vec![v.first().copied().unwrap_or(0); len]),
                Some(Values::Floats(v)) => Tensor::floats(dims, vec![v.first().copied().unwrap_or(0.0); len]),
                None => Tensor::floats(dims, vec![0.0; len]),
            }
        }
        "Shape" => {
            let dims: Vec<i64> = args.constant(0)?.dims.iter().map(|&d| d as i64).collect();
            Tensor::ints(vec![dims.len()], dims)
        }
        "Size" => Tensor::ints(vec![], vec![args.constant(0)?.len() as i64]),
        "Range" => range(args)?,
        "Concat" => concat(args)?,
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "Sum" | "Equal" | "Greater" | "Less" | "Mod" => {
            let mut out = (*args.constant(0)?).clone();
            for i in 1..args.inputs.len() {
                out = binary(args, &out, &*args.constant(i)?)?;
            }
            out
        }
        "Where" => {
            let (c, x, y) = (args.constant(0)?, args.constant(1)?, args.constant(2)?);
            let fail = |e: String| node.error(e);
            let dims =
                map::broadcast_dims(&c.dims, &map::broadcast_dims(&x.dims, &y.dims).map_err(fail)?).map_err(fail)?;
            let (c, x, y) = (spread(args, &c, &dims)?, spread(args, &x, &dims)?, spread(args, &y, &dims)?);
            let c = c.to_i64();
            match (&x.values, &y.values) {
                (Values::Ints(x), Values::Ints(y)) => Tensor::ints(
                    dims,
                    c.iter().zip(x.iter().zip(y)).map(|(&c, (&x, &y))| if c != 0 { x } else { y }).collect(),
                ),
                _ => {
                    let (x, y) = (x.to_f32(), y.to_f32());
                    Tensor::floats(
                        dims,
                        c.iter().zip(x.iter().zip(&y)).map(|(&c, (&x, &y))| if c != 0 { x } else { y }).collect(),
                    )
                }
            }
        }
        "ReduceProd" => {
            let t = args.constant(0)?;
            if t.dims.len() > 1 {
                return Err(node.error("of constants is computed for vectors only"));
            }
            let dims = if node.int("keepdims", 1)? != 0 { vec![1; t.dims.len()] } else { vec![] };
            match &t.values {
                Values::Ints(v) => Tensor::ints(dims, vec![v.iter().fold(1, |a, &b| a.wrapping_mul(b))]),
                Values::Floats(v) => Tensor::floats(dims, vec![v.iter().product()]),
            }
        }
        "Neg" | "Abs" | "Sqrt" | "Exp" | "Log" | "Reciprocal" | "Floor" | "Ceil" | "Relu" | "Sigmoid" | "Tanh" => {
            unary(args)?
        }
        _ => return Err(node.error("reads constants only, and synfit does not compute this operator on constants")),
    };
    Ok(vec![Value::Constant(Rc::new(tensor))])
}

fn constant(args: &Args, folder: Option<&Path>) -> Result<Tensor> {
    let node = args.node;
    if let Some(t) = node.tensor("value", folder)? {
        return Ok(t);
    }
    if node.has("value_float") {
        return Ok(Tensor::floats(vec![], vec![node.float("value_float", 0.0)?]));
    }
    if node.has("value_int") {
        return Ok(Tensor::ints(vec![], vec![node.int("value_int", 0)?]));
    }
    if let Some(v) = node.ints("value_ints") {
        return Ok(Tensor::ints(vec![v.len()], v.to_vec()));
    }
    if let Some(v) = node.floats("value_floats") {
        return Ok(Tensor::floats(vec![v.len()], v.to_vec()));
    }
    Err(node.error("has no value that synfit reads"))
}

fn range(args: &Args) -> Result<Tensor> {
    let node = args.node;
    let mut p = [0i64; 3];
    for (i, slot) in p.iter_mut().enumerate() {
        let t = args.constant(i)?;
        let Values::Ints(v) = &t.values else { return Err(node.error("a range of floats is not supported")) };
        *slot = v.first().copied().ok_or_else(|| node.error(format!("input {i} is empty")))?;
    }
    let [start, limit, step] = p;
    let n =
        if step == 0 { None } else { limit.checked_sub(start).map(|span| (span as f64 / step as f64).ceil().max(0.0)) };
    match n {
        Some(n) if n <= MAX_FILLED as f64 => {
            let values: Vec<i64> = (0..n as i64).map(|i| start.wrapping_add(i.wrapping_mul(step))).collect();
            Ok(Tensor::ints(vec![values.len()], values))
        }
        _ => Err(node.error(format!("from {start} to {limit} by {step} is no range"))),
    }
}

fn concat(args: &Args) -> Result<Tensor> {
    let node = args.node;
    let first = args.constant(0)?;
    let axis = args.axis(node.int("axis", 0)?, first.dims.len())?;
    let mut parts = Vec::new();
    for i in 0..args.inputs.len() {
        let t = args.constant(i)?;
        if t.dims.len() != first.dims.len() || (0..t.dims.len()).any(|a| a != axis && t.dims[a] != first.dims[a]) {
            return Err(node.error("its inputs differ in more than the joined axis"));
        }
        parts.push(t);
    }
    let outer: usize = first.dims[..axis].iter().product();
    let mut dims = first.dims.clone();
    dims[axis] = parts.iter().map(|p| p.dims[axis]).sum();
    let float = parts.iter().any(|p| matches!(p.values, Values::Floats(_)));
    let (mut floats, mut ints) = (vec![], vec![]);
    for o in 0..outer {
        for part in &parts {
            let size = part.len() / outer.max(1);
            match &part.values {
                Values::Floats(v) => floats.extend_from_slice(&v[o * size..(o + 1) * size]),
                Values::Ints(v) if float => floats.extend(v[o * size..(o + 1) * size].iter().map(|&x| x as f32)),
                Values::Ints(v) => ints.extend_from_slice(&v[o * size..(o + 1) * size]),
            }
        }
    }
    Ok(if float { Tensor::floats(dims, floats) } else { Tensor::ints(dims, ints) })
}

fn spread(args: &Args, t: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let (to, moved) = map::expand(&t.dims, dims).map_err(|e| args.node.error(e))?;
    Ok(t.pick(to, &moved))
}

fn binary(args: &Args, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let op = args.node.op.as_str();
    let dims = map::broadcast_dims(&a.dims, &b.dims).map_err(|e| args.node.error(e))?;
    let (a, b) = (spread(args, a, &dims)?, spread(args, b, &dims)?);
    if let (Values::Ints(x), Values::Ints(y)) = (&a.values, &b.values) {
        let mut out = Vec::with_capacity(x.len());
        for (&x, &y) in x.iter().zip(y) {
            out.push(match op {
                "Add" | "Sum" => x.wrapping_add(y),
                "Sub" => x.wrapping_sub(y),
                "Mul" => x.wrapping_mul(y),
                "Div" => x.checked_div(y).ok_or_else(|| args.node.error("divides by zero"))?,
                "Mod" => x.checked_rem_euclid(y).ok_or_else(|| args.node.error("divides by zero"))?,
                "Min" => x.min(y),
                "Max" => x.max(y),
                "Equal" => (x == y) as i64,
                "Greater" => (x > y) as i64,
                "Less" => (x < y) as i64,
                _ => (x as f64).powf(y as f64) as i64,
            });
        }
        return Ok(Tensor::ints(dims, out));
    }
    let (x, y) = (a.to_f32(), b.to_f32());
    let pairs = x.iter().zip(&y).map(|(&x, &y)| (x as f64, y as f64));
    if matches!(op, "Equal" | "Greater" | "Less") {
        let test = |(x, y): (f64, f64)| {
            (if op == "Equal" {
                x == y
            } else if op == "Less" {
                x < y
            } else {
                x > y
            }) as i64
        };
        return Ok(Tensor::ints(dims, pairs.map(test).collect()));
    }
    let compute = |(x, y): (f64, f64)| -> f32 {
        (match op {
            "Add" | "Sum" => x + y,
            "Sub" => x - y,
            "Mul" => x * y,
            "Div" => x / y,
            "Mod" => x % y,
            "Min" => x.min(y),
            "Max" => x.max(y),
            _ => x.powf(y),
        }) as f32
    };
    Ok(Tensor::floats(dims, pairs.map(compute).collect()))
}

fn unary(args: &Args) -> Result<Tensor> {
    let t = args.constant(0)?;
    let op = args.node.op.as_str();
    if let Values::Ints(v) = &t.values
        && matches!(op, "Neg" | "Abs")
    {
        let out = v.iter().map(|&x| if op == "Neg" || x < 0 { x.wrapping_neg() } else { x }).collect();
        return Ok(Tensor::ints(t.dims.clone(), out));
    }
    let compute = |&x: &f32| -> f32 {
        let x = x as f64;
        (match op {
            "Neg" => -x,
            "Abs" => x.abs(),
            "Sqrt" => x.sqrt(),
            "Exp" => x.exp(),
            "Log" => x.ln(),
            "Reciprocal" => 1.0 / x,
            "Floor" => x.floor(),
            "Ceil" => x.ceil(),
            "Relu" => x.max(0.0),
            "Sigmoid" => 1.0 / (1.0 + (-x).exp()),
            _ => x.tanh(),
        }) as f32
    };
    Ok(Tensor::floats(t.dims.clone(), t.to_f32().iter().map(compute).collect()))
}
