//! Gradients taken back through a network's nodes, a batch at a time.

use rayon::prelude::*;

use super::back::Back;
use crate::compute::gram::PatchSpec;
use crate::compute::{Buffer, Device};
use crate::error::{Error, Result};
use crate::forward::Forward;
use crate::network::{Activation, Block, Network, Node, Op, Shape, Window};

/// Per node: the gradient of its values, images x its shape, as far as there is any.
pub(super) type Gradients = Vec<Option<Vec<f32>>>;

pub(super) struct Backward<'a> {
    pub dev: &'a Device,
    pub network: &'a Network,
    /// Per node: whether its gradient is wanted.
    pub wanted: &'a [bool],
}

impl Backward<'_> {
    /// From what is known of values `of` to all nodes before them, whose values (of wanted ones) are `values`. `layer` hears
    /// the gradient of each wanted layer's pre-activations, from the last to the first.
    pub fn run(
        &self,
        images: usize,
        values: &[Option<Buffer<f32>>],
        mut of: Gradients,
        mut layer: impl FnMut(usize, &Buffer<f32>) -> Result<()>,
    ) -> Result<()> {
        let (dev, nodes) = (self.dev, &self.network.nodes);
        for i in (0..nodes.len()).rev().filter(|&i| self.wanted[i]) {
            let node = &nodes[i];
            let Op::Neurons { blocks, activation, .. } = &node.op else {
                if let Some(given) = of[i].take() {
                    self.handed_back(node, images, values, &given, &mut of)?;
                }
                continue;
            };
            // what nobody reads has none
            let mut given = of[i].take().unwrap_or_else(|| vec![0.0; images * node.shape.len()]);
            let own = dev.view(value(self.network, values, i)?)?;
            given.par_iter_mut().zip(own.par_iter()).for_each(|(g, y)| *g *= slope(*activation, *y));
            let given = dev.upload(&given)?;
            layer(i, &given)?;
            for block in blocks.iter().filter(|b| self.wanted[b.source]) {
                let back = Back::new(dev, &patch(self.network, block), node.shape, &block.weight)?;
                let part = back.run(dev, images, &given)?;
                add(dev, &part, of[block.source].get_or_insert_default())?;
            }
        }
        Ok(())
    }

    /// Adds the gradient `given` of a node without parameters to those of its sources.
    fn handed_back(
        &self,
        node: &Node,
        images: usize,
        values: &[Option<Buffer<f32>>],
        given: &[f32],
        of: &mut [Option<Vec<f32>>],
    ) -> Result<()> {
        let shape = |source: usize| self.network.nodes[source].shape;
        let len = node.shape.len();
        let mut source_of = |source: usize, fill: &mut dyn FnMut(&mut Vec<f32>) -> Result<()>| {
            if !self.wanted[source] {
                return Ok(());
            }
            fill(of[source].get_or_insert_with(|| vec![0.0; images * shape(source).len()]))
        };
        match &node.op {
            Op::AveragePool { source, window, divisor } => source_of(*source, &mut |all| {
                averaged(shape(*source), node.shape, window, divisor, given, all);
                Ok(())
            }),
            Op::MaxPool { source, window } => source_of(*source, &mut |all| {
                let x = self.dev.view(value(self.network, values, *source)?)?;
                largest(shape(*source), node.shape, window, &x, given, all);
                Ok(())
            }),
            Op::Concat { sources } => {
                let mut first = 0;
                for &source in sources {
                    let own = shape(source).len();
                    source_of(source, &mut |all| {
                        for (all, given) in all.chunks_exact_mut(own).zip(given.chunks_exact(len)) {
                            all.iter_mut().zip(&given[first..first + own]).for_each(|(all, g)| *all += g);
                        }
                        Ok(())
                    })?;
                    first += own;
                }
                Ok(())
            }
            Op::Gather { source, index } => source_of(*source, &mut |all| {
                for (all, given) in all.chunks_exact_mut(shape(*source).len()).zip(given.chunks_exact(len)) {
                    let taken = index.iter().zip(given).filter(|(at, _)| **at != u32::MAX);
                    taken.for_each(|(at, g)| all[*at as usize] += g);
                }
                Ok(())
            }),
            Op::Input | Op::Neurons { .. } => Ok(()),
        }
    }
}

/// The trained network's values of the nodes that are to be kept, of one batch; `also` sees all nodes' but the input's.
///
/// # Errors
/// A broken device.
pub(super) fn kept_values(
    dev: &Device,
    forward: &Forward<'_>,
    images: usize,
    input: &[f32],
    kept: &[bool],
    mut also: impl FnMut(usize, &Buffer<f32>) -> Result<()>,
) -> Result<Vec<Option<Buffer<f32>>>> {
    let mut values: Vec<Option<Buffer<f32>>> = kept.iter().map(|_| None).collect();
    if kept[0] {
        values[0] = Some(dev.upload(input)?);
    }
    forward.visit(dev, images, input, |i, _, value| {
        if kept[i] {
            values[i] = Some(dev.upload(&dev.view(value)?)?);
        }
        also(i, value)
    })?;
    Ok(values)
}

pub(super) fn value<'a>(network: &Network, values: &'a [Option<Buffer<f32>>], node: usize) -> Result<&'a Buffer<f32>> {
    values[node].as_ref().ok_or_else(|| Error::work(&network.nodes[node].name, "its values are gone"))
}

pub(super) fn patch(network: &Network, block: &Block) -> PatchSpec {
    PatchSpec { input: network.nodes[block.source].shape, window: block.window, groups: block.groups }
}

/// Adds a device's values; nothing yet is zero.
fn add(dev: &Device, part: &Buffer<f32>, all: &mut Vec<f32>) -> Result<()> {
    let part = dev.view(part)?;
    all.resize(part.len(), 0.0);
    all.par_iter_mut().zip(part.par_iter()).for_each(|(all, part)| *all += part);
    Ok(())
}

/// The activation's slope where its value is `y`.
fn slope(activation: Activation, y: f32) -> f32 {
    let inside = |inside: bool, slope: f32| if inside { slope } else { 0.0 };
    match activation {
        Activation::Linear => 1.0,
        Activation::Relu => inside(y > 0.0, 1.0),
        Activation::Clip { lo, hi } => inside(y > lo && y < hi, 1.0),
        Activation::LeakyRelu { alpha } => {
            if y < 0.0 {
                alpha
            } else {
                1.0
            }
        }
        Activation::Elu { alpha } => {
            if y < 0.0 {
                y + alpha
            } else {
                1.0
            }
        }
        Activation::Sigmoid => y * (1.0 - y),
        Activation::HardSigmoid { alpha, .. } => inside(y > 0.0 && y < 1.0, alpha),
        Activation::Tanh => 1.0 - y * y,
        Activation::Softplus => -(-y).exp_m1(),
        Activation::Remainder => 0.0,
    }
}

/// Elements of a source's plane under the window at an output's position.
fn taps(input: Shape, window: &Window, y: usize, x: usize) -> impl Iterator<Item = usize> {
    let Window { kernel, stride, dilation, pad } = *window;
    let place = move |at: usize, k: usize, a: usize, side: usize| {
        let place = (at * stride[a] + k * dilation[a]) as isize - pad[a];
        (0..side as isize).contains(&place).then_some(place as usize)
    };
    let rows = (0..kernel[0]).filter_map(move |k| place(y, k, 0, input.h));
    rows.flat_map(move |row| {
        (0..kernel[1]).filter_map(move |k| place(x, k, 1, input.w)).map(move |x| row * input.w + x)
    })
}

/// Back through an average.
fn averaged(input: Shape, output: Shape, window: &Window, divisor: &[u32], given: &[f32], all: &mut [f32]) {
    let planes = all.par_chunks_exact_mut(input.area()).zip(given.par_chunks_exact(output.area()));
    planes.for_each(|(all, given)| {
        for (i, (g, divisor)) in given.iter().zip(divisor).enumerate() {
            let g = g / *divisor as f32;
            taps(input, window, i / output.w, i % output.w).for_each(|at| all[at] += g);
        }
    });
}

/// Back through a maximum: to the first that has it.
fn largest(input: Shape, output: Shape, window: &Window, x: &[f32], given: &[f32], all: &mut [f32]) {
    let planes = all.par_chunks_exact_mut(input.area()).zip(x.par_chunks_exact(input.area()));
    planes.zip(given.par_chunks_exact(output.area())).for_each(|((all, x), given)| {
        for (i, g) in given.iter().enumerate() {
            let first = taps(input, window, i / output.w, i % output.w).reduce(|a, b| if x[b] > x[a] { b } else { a });
            first.into_iter().for_each(|at| all[at] += g);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_activations() {
        for activation in [
            Activation::Linear,
            Activation::Relu,
            Activation::Clip { lo: -0.5, hi: 0.8 },
            Activation::LeakyRelu { alpha: 0.2 },
            Activation::Elu { alpha: 1.3 },
            Activation::Sigmoid,
            Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
            Activation::Tanh,
            Activation::Softplus,
        ] {
            for z in [-3.1, -1.2, -0.3, 0.2, 0.7, 1.9, 4.0f64] {
                let (h, y) = (1e-5, activation.apply(z));
                let expected = (activation.apply(z + h) - activation.apply(z - h)) / (2.0 * h);
                let found = f64::from(slope(activation, y as f32));
                assert!((found - expected).abs() < 1e-4, "{activation:?} at {z}: {found}, {expected}");
            }
        }
    }
}
