//! Where the windows of a convolution or pooling lie: kernel, strides, dilations, pads (explicit or automatic) and the
//! size of the result, for one or two spatial axes, after the ONNX operator specification.

use super::Args;
use crate::error::Result;
use crate::network::layers::{Shape, Window};

/// Sizes beyond this are errors; it keeps all sums far from overflow.
const MAX_SIZE: i64 = 1 << 24;

#[derive(Debug)]
pub struct Sliding {
    pub window: Window,
    /// Bottom and right.
    pub end_pad: [isize; 2],
    /// Height and width of the result.
    pub out: [usize; 2],
}

/// `spatial`: number of spatial axes, 1 or 2 (a 1-D signal has width 1); `kernel`: from the weights of a convolution.
pub fn sliding(args: &Args, shape: Shape, spatial: usize, kernel: Option<&[usize]>) -> Result<Sliding> {
    let node = args.node;
    let list = |name: &str, low: i64, default: i64, per_axis: usize| -> Result<Vec<i64>> {
        let values = match node.ints(name) {
            Some(ints) if !ints.is_empty() => ints.to_vec(),
            _ => vec![default; spatial * per_axis],
        };
        if values.len() != spatial * per_axis {
            return Err(node.error(format!("{name} has {} entries for {spatial} spatial axes", values.len())));
        }
        if let Some(bad) = values.iter().find(|v| !(low..=MAX_SIZE).contains(*v)) {
            return Err(node.error(format!("{name} holds {bad}")));
        }
        Ok(values)
    };
    let kernel = match (kernel, node.has("kernel_shape")) {
        (Some(k), given) => {
            let k: Vec<i64> = k.iter().map(|&k| k as i64).collect();
            if given && list("kernel_shape", 1, 1, 1)? != k {
                return Err(node.error("kernel_shape differs from the shape of its weights"));
            }
            if k.iter().any(|&k| k == 0 || k > MAX_SIZE) {
                return Err(node.error("has an empty kernel"));
            }
            k
        }
        (None, true) => list("kernel_shape", 1, 1, 1)?,
        (None, false) => return Err(node.error("attribute kernel_shape is missing")),
    };
    let strides = list("strides", 1, 1, 1)?;
    let dilations = list("dilations", 1, 1, 1)?;
    let auto = node.text("auto_pad", "NOTSET")?;
    let explicit = list("pads", 0, 0, 2)?;
    let ceil = node.int("ceil_mode", 0)? != 0;
    let mut found = Sliding { window: Window::POINT, end_pad: [0, 0], out: [shape.h, shape.w] };
    for axis in 0..spatial {
        let size = [shape.h, shape.w][axis] as i64;
        let (stride, dilation) = (strides[axis], dilations[axis]);
        let span = (kernel[axis] - 1) * dilation + 1;
        let (begin, end, out) = match auto.as_str() {
            "NOTSET" | "" => {
                let (begin, end) = (explicit[axis], explicit[axis + spatial]);
                let room = size + begin + end - span;
                if room < 0 {
                    return Err(node.error(format!(
                        "its window of {span} is larger than its padded input of {}",
                        size + begin + end
                    )));
                }
                let mut out = if ceil { (room + stride - 1) / stride } else { room / stride } + 1;
                // A window that would start behind the input and its left padding is dropped.
                if ceil && (out - 1) * stride >= size + begin {
                    out -= 1;
                }
                (begin, end, out)
            }
            "SAME_UPPER" | "SAME_LOWER" => {
                let out = (size + stride - 1) / stride;
                let total = ((out - 1) * stride + span - size).max(0);
                let small = total / 2;
                if auto == "SAME_UPPER" { (small, total - small, out) } else { (total - small, small, out) }
            }
            "VALID" => {
                if size < span {
                    return Err(node.error(format!("its window of {span} is larger than its input of {size}")));
                }
                (0, 0, (size - span) / stride + 1)
            }
            other => return Err(node.error(format!("auto_pad \"{other}\" is unknown"))),
        };
        if out.saturating_mul(kernel[axis]) > MAX_SIZE * 256 {
            return Err(node.error(format!("its window of {span} over {size} is too large")));
        }
        let w = &mut found.window;
        w.kernel[axis] = kernel[axis] as usize;
        w.stride[axis] = stride as usize;
        w.dilation[axis] = dilation as usize;
        w.pad[axis] = begin as isize;
        found.end_pad[axis] = end as isize;
        found.out[axis] = out as usize;
    }
    Ok(found)
}
