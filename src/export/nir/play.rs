//! Other tools' NIR graphs, simulated as NIR defines them, in f64: neurons by the forward Euler rule with a time step,
//! v > threshold fires, spikes reach the next layer in the same step. An edge that closes a cycle carries what its node
//! gave the step before. Synapses are walked from the inputs that are not zero.

mod build;

use rayon::prelude::*;

use super::file::NirFile;
use crate::error::Result;
use crate::network::Window;

/// What NIR leaves open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Seconds a step; graphs without time constants need none.
    pub dt: Option<f64>,
    /// v <- v - threshold instead of v <- v_reset.
    pub subtract: bool,
}

/// A graph that can be run.
pub struct Graph {
    /// In an order in which each comes after its sources, but for those that are a step late.
    nodes: Vec<Node>,
    input: usize,
    output: usize,
}

struct Node {
    name: String,
    dims: Vec<usize>,
    kind: Kind,
    /// Places in `nodes`; a node that comes later gives its value of the step before.
    sources: Vec<usize>,
}

enum Kind {
    Input,
    /// The sum of its sources as it is: outputs, flattening.
    Same,
    /// inputs x outputs, and a bias.
    Linear {
        weight: Vec<f64>,
        bias: Vec<f64>,
    },
    Conv(Conv),
    /// Sum over windows, times a factor.
    Pool {
        from: [usize; 3],
        window: Window,
        factor: f64,
    },
    Scale(Vec<f64>),
    /// 1 where above.
    Threshold(Vec<f64>),
    Neurons(Neurons),
}

struct Conv {
    from: [usize; 3],
    window: Window,
    groups: usize,
    /// cout x cin / groups x kernel.
    weight: Vec<f64>,
    bias: Vec<f64>,
}

/// Neurons or integrators, one value each.
struct Neurons {
    /// i <- i + a (w x - i), with a = dt / tau: (a, w). None: the current is the input.
    synapse: Option<(Vec<f64>, Vec<f64>)>,
    /// v <- v + k (leak - v + r i), k = dt / tau. None: v <- v + r i, r times dt.
    leak: Option<(Vec<f64>, Vec<f64>)>,
    r: Vec<f64>,
    /// Threshold and reset potential; None: the value is the potential.
    fires: Option<(Vec<f64>, Vec<f64>)>,
    subtract: bool,
}

/// What an image gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// Mean over the steps of what reached the output.
    pub output: Vec<f64>,
    /// Spikes of each layer of neurons, in the order of `Graph::neurons`.
    pub spikes: Vec<u64>,
}

impl Graph {
    /// # Errors
    /// Input, by file, node and field: a type that is not simulated, sizes that do not fit, a cycle without neurons, a
    /// time constant that has no time step or one longer than itself.
    pub fn of(file: &NirFile, rules: Rules) -> Result<Self> {
        build::graph(file, rules)
    }

    /// Dimensions of an image.
    pub fn input_dims(&self) -> &[usize] {
        &self.nodes[self.input].dims
    }

    pub fn output_len(&self) -> usize {
        self.nodes[self.output].len()
    }

    /// Names of the layers of neurons that fire, and their sizes.
    pub fn neurons(&self) -> impl Iterator<Item = (&str, usize)> {
        self.nodes.iter().filter(|n| n.fires()).map(|n| (n.name.as_str(), n.len()))
    }

    /// Runs images for `steps`. `images`: one after the other, each the input of every step, or of all steps one after
    /// the other (`trains`).
    pub fn run(&self, images: &[f32], steps: usize, trains: bool) -> Vec<Run> {
        let len: usize = self.input_dims().iter().product();
        images.par_chunks_exact(len * if trains { steps } else { 1 }).map(|image| self.image(image, steps)).collect()
    }

    fn image(&self, image: &[f32], steps: usize) -> Run {
        let mut values: Vec<Vec<f64>> = self.nodes.iter().map(|n| vec![0.0; n.len()]).collect();
        let mut states: Vec<(Vec<f64>, Vec<f64>)> = values.iter().map(|v| (v.clone(), v.clone())).collect();
        let len = self.nodes[self.input].len();
        let fires: Vec<usize> = (0..self.nodes.len()).filter(|&i| self.nodes[i].fires()).collect();
        let mut run = Run { output: vec![0.0; self.output_len()], spikes: vec![0; fires.len()] };
        for t in 0..steps {
            for (i, node) in self.nodes.iter().enumerate() {
                let value = match node.kind {
                    Kind::Input => {
                        let at = if image.len() > len { t * len } else { 0 };
                        image[at..at + len].iter().map(|v| f64::from(*v)).collect()
                    }
                    _ => node.value(&node.gathered(&values), &mut states[i]),
                };
                values[i] = value;
            }
            run.output.iter_mut().zip(&values[self.output]).for_each(|(sum, v)| *sum += v / steps as f64);
            run.spikes.iter_mut().zip(&fires).for_each(|(sum, &i)| *sum += values[i].iter().sum::<f64>() as u64);
        }
        run
    }
}

impl Node {
    fn len(&self) -> usize {
        self.dims.iter().product()
    }

    fn fires(&self) -> bool {
        matches!(&self.kind, Kind::Neurons(Neurons { fires: Some(_), .. }))
    }

    /// The sum of what the sources give.
    fn gathered(&self, values: &[Vec<f64>]) -> Vec<f64> {
        let mut sum = values[self.sources[0]].clone();
        for &source in &self.sources[1..] {
            sum.iter_mut().zip(&values[source]).for_each(|(a, b)| *a += b);
        }
        sum
    }

    /// `state`: synaptic current and potential.
    fn value(&self, x: &[f64], state: &mut (Vec<f64>, Vec<f64>)) -> Vec<f64> {
        match &self.kind {
            Kind::Input | Kind::Same => x.to_vec(),
            Kind::Linear { weight, bias } => {
                let mut y = bias.clone();
                for (row, x) in weight.chunks_exact(bias.len()).zip(x).filter(|(_, x)| **x != 0.0) {
                    y.iter_mut().zip(row).for_each(|(y, w)| *y += w * x);
                }
                y
            }
            Kind::Conv(conv) => conv.value(x, &self.dims),
            Kind::Pool { from, window, factor } => {
                let mut y = vec![0.0; self.len()];
                let area = (from[1] * from[2], self.dims[1] * self.dims[2]);
                scatter(x, *from, window, &self.dims, |c, _, to, x| y[c * area.1 + to] += factor * x);
                y
            }
            Kind::Scale(factor) => x.iter().zip(factor).map(|(x, f)| x * f).collect(),
            Kind::Threshold(threshold) => x.iter().zip(threshold).map(|(x, t)| f64::from(u8::from(x > t))).collect(),
            Kind::Neurons(neurons) => neurons.step(x, state),
        }
    }
}

impl Conv {
    fn value(&self, x: &[f64], dims: &[usize]) -> Vec<f64> {
        let (area, taps) = (dims[1] * dims[2], self.window.taps());
        let (ins, outs) = (self.from[0] / self.groups, dims[0] / self.groups);
        let mut y: Vec<f64> = self.bias.iter().flat_map(|b| std::iter::repeat_n(*b, area)).collect();
        scatter(x, self.from, &self.window, dims, |c, tap, to, x| {
            for o in c / ins * outs..(c / ins + 1) * outs {
                y[o * area + to] += self.weight[(o * ins + c % ins) * taps + tap] * x;
            }
        });
        y
    }
}

/// Hands every input that is not zero to the positions whose window holds it: (channel, tap, position, input).
fn scatter(x: &[f64], from: [usize; 3], w: &Window, dims: &[usize], mut give: impl FnMut(usize, usize, usize, f64)) {
    let area = from[1] * from[2];
    // (position, tap) of each input place along an axis
    let axis = |axis: usize| -> Vec<Vec<(usize, usize)>> {
        let mut found = vec![Vec::new(); from[1 + axis]];
        for o in 0..dims[1 + axis] {
            for k in 0..w.kernel[axis] {
                let at = (o * w.stride[axis] + k * w.dilation[axis]) as isize - w.pad[axis];
                if let Some(found) = usize::try_from(at).ok().and_then(|at| found.get_mut(at)) {
                    found.push((o, k));
                }
            }
        }
        found
    };
    let (rows, columns) = (axis(0), axis(1));
    for (i, x) in x.iter().enumerate().filter(|(_, x)| **x != 0.0) {
        let (c, at) = (i / area, i % area);
        for &(oy, ky) in &rows[at / from[2]] {
            for &(ox, kx) in &columns[at % from[2]] {
                give(c, ky * w.kernel[1] + kx, oy * dims[2] + ox, *x);
            }
        }
    }
}

impl Neurons {
    fn step(&self, x: &[f64], (current, v): &mut (Vec<f64>, Vec<f64>)) -> Vec<f64> {
        let mut out = vec![0.0; x.len()];
        for i in 0..x.len() {
            let drive = match &self.synapse {
                Some((a, w)) => {
                    current[i] += a[i] * (w[i] * x[i] - current[i]);
                    current[i]
                }
                None => x[i],
            };
            v[i] += match &self.leak {
                Some((k, leak)) => k[i] * (leak[i] - v[i] + self.r[i] * drive),
                None => self.r[i] * drive,
            };
            out[i] = v[i];
            if let Some((threshold, reset)) = &self.fires {
                let fires = v[i] > threshold[i];
                out[i] = f64::from(u8::from(fires));
                if fires {
                    v[i] = if self.subtract { v[i] - threshold[i] } else { reset[i] };
                }
            }
        }
        out
    }
}
