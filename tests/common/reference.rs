//! A naive forward pass over the network in f64: the oracle for the kernels. One loop for each index of the formula;
//! only the loop over channels is spread over the cores.

use rayon::prelude::*;
use synfit::network::{Block, Network, Op, Shape, Window};

/// What node 0 holds for what the ONNX graph gets as input (CHW): the graph's own leading arithmetic.
pub fn node_zero(network: &Network, input: &[f64]) -> Vec<f64> {
    let area = network.input_shape().area();
    let affine =
        |(i, x): (usize, &f64)| x * network.input_scale[i / area] as f64 + network.input_shift[i / area] as f64;
    input.iter().enumerate().map(affine).collect()
}

/// The tensors of all nodes for one image; `input` is what node 0 holds (preprocessed, CHW).
pub fn forward(network: &Network, input: &[f64]) -> Vec<Vec<f64>> {
    assert_eq!(input.len(), network.input_shape().len(), "input size");
    let mut values: Vec<Vec<f64>> = Vec::with_capacity(network.nodes.len());
    for node in &network.nodes {
        let shape = node.shape;
        let source_shape = |s: usize| network.nodes[s].shape;
        let value: Vec<f64> = match &node.op {
            Op::Input => input.to_vec(),
            Op::Neurons { blocks, bias, activation } => {
                let channel = |c: usize| -> Vec<f64> {
                    let mut sums = vec![bias[c] as f64; shape.area()];
                    for block in blocks {
                        convolve(block, source_shape(block.source), &values[block.source], shape, c, &mut sums);
                    }
                    sums.into_iter().map(|z| activation.apply(z)).collect()
                };
                (0..shape.c).into_par_iter().flat_map_iter(channel).collect()
            }
            Op::AveragePool { source, window, divisor } => {
                let sum = |c: usize, p: usize| {
                    let taps = taps(window, source_shape(*source), p / shape.w, p % shape.w);
                    taps.map(|(_, at)| values[*source][c * source_shape(*source).area() + at]).sum::<f64>()
                        / divisor[p] as f64
                };
                (0..shape.len()).map(|i| sum(i / shape.area(), i % shape.area())).collect()
            }
            Op::MaxPool { source, window } => {
                let max = |c: usize, p: usize| {
                    let taps = taps(window, source_shape(*source), p / shape.w, p % shape.w);
                    taps.map(|(_, at)| values[*source][c * source_shape(*source).area() + at])
                        .fold(f64::NEG_INFINITY, f64::max)
                };
                (0..shape.len()).map(|i| max(i / shape.area(), i % shape.area())).collect()
            }
            Op::Concat { sources } => sources.iter().flat_map(|&s| values[s].iter().copied()).collect(),
            Op::Gather { source, index } => {
                index.iter().map(|&i| if i == u32::MAX { 0.0 } else { values[*source][i as usize] }).collect()
            }
        };
        assert_eq!(value.len(), shape.len(), "node {} has another size than its shape {shape}", node.name);
        values.push(value);
    }
    values
}

/// Adds output channel `c` of a block to `sums` (one value a position).
fn convolve(block: &Block, from: Shape, x: &[f64], to: Shape, c: usize, sums: &mut [f64]) {
    let width = from.c / block.groups;
    let count = block.window.taps();
    assert_eq!(block.weight.len(), to.c * width * count, "weights of a block");
    let first = c / (to.c / block.groups) * width;
    for (p, sum) in sums.iter_mut().enumerate() {
        for (tap, at) in taps(&block.window, from, p / to.w, p % to.w) {
            for k in 0..width {
                *sum += block.weight[(c * width + k) * count + tap] as f64 * x[(first + k) * from.area() + at];
            }
        }
    }
}

/// The taps of the window at output (y, x) that lie inside the source: (number of the tap, position in its channel).
fn taps(w: &Window, from: Shape, y: usize, x: usize) -> impl Iterator<Item = (usize, usize)> {
    let w = *w;
    (0..w.kernel[0]).flat_map(move |i| {
        (0..w.kernel[1]).filter_map(move |j| {
            let row = (y * w.stride[0] + i * w.dilation[0]) as isize - w.pad[0];
            let column = (x * w.stride[1] + j * w.dilation[1]) as isize - w.pad[1];
            let inside = (0..from.h as isize).contains(&row) && (0..from.w as isize).contains(&column);
            inside.then(|| (i * w.kernel[1] + j, row as usize * from.w + column as usize))
        })
    })
}

/// The output node's tensor for what the ONNX graph gets as input (CHW).
pub fn output(network: &Network, input: &[f64]) -> Vec<f64> {
    forward(network, &node_zero(network, input)).swap_remove(network.output)
}
