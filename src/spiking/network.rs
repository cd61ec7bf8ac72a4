//! The spiking network that a chip holds: integer (or real) synapses, thresholds, biases, and how to read rates back
//! as values of the trained network.
//!
//! A spike train is a tensor of counts, `[step][image][channel][row][column]`. Node i of the spiking network stands for
//! node i of the trained one; a unit that one neuron cannot follow is a population of several neurons (channels).

use serde::{Deserialize, Serialize};

use crate::compute::simd::vectorized;
use crate::network::{Head, Layout, Shape, Window};
use crate::neuron::Model;

/// When layers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    #[default]
    /// All layers run at once; a spike reaches the next layer in the same step.
    Streaming,
    /// A layer integrates its settled input for T steps, then fires for T steps: latency T per layer, even spikes.
    Layered,
}

/// How raw input values become the integer current of the first layer, constant over all steps.
/// x = clamp(round(raw * scale_c + shift_c), lo, hi).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputCode {
    pub layout: Layout,
    /// Per channel.
    pub scale: Vec<f32>,
    /// Per channel.
    pub shift: Vec<f32>,
    pub lo: i32,
    pub hi: i32,
}

impl InputCode {
    /// Codes images in CHW order; `area` is the number of positions of a channel.
    pub fn encode(&self, raw: &[f32], area: usize) -> Vec<i32> {
        let channels = self.scale.len();
        raw.chunks_exact(area)
            .enumerate()
            .flat_map(|(i, plane)| {
                let (scale, shift) = (self.scale[i % channels], self.shift[i % channels]);
                plane.iter().map(move |&v| ((v * scale + shift).round() as i32).clamp(self.lo, self.hi))
            })
            .collect()
    }

    /// Largest magnitude of a coded input.
    pub fn max_abs(&self) -> u64 {
        u64::from(self.lo.unsigned_abs().max(self.hi.unsigned_abs()))
    }
}

/// What a node's rates mean: value of ANN channel c = base_c + sum over its spiking channels of gain * rate, where a
/// rate is the node's counts per step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decode {
    /// Channels of the trained network's node.
    pub channels: usize,
    /// Per spiking channel: the ANN channel that it stands for, or `ALL`.
    pub origin: Vec<u32>,
    /// Per spiking channel.
    pub gain: Vec<f64>,
    /// Per ANN channel.
    pub base: Vec<f64>,
}

impl Decode {
    /// The origin of a channel that adds to every ANN channel.
    pub const ALL: u32 = u32::MAX;

    /// One spiking channel per ANN channel, no offset.
    pub fn plain(gain: Vec<f64>) -> Self {
        let channels = gain.len();
        Self { channels, origin: (0..channels as u32).collect(), gain, base: vec![0.0; channels] }
    }

    /// Per ANN channel, whether some neuron stands for it: none does for one that was pruned.
    pub fn answered(&self) -> Vec<bool> {
        let mut answered = vec![self.origin.contains(&Decode::ALL); self.channels];
        for &origin in &self.origin {
            if let Some(answered) = answered.get_mut(origin as usize) {
                *answered = true;
            }
        }
        answered
    }

    /// Values of one image, `channels x area`, from rates, `origin.len() x area`.
    pub fn values(&self, rates: &[f32], area: usize) -> Vec<f32> {
        let plain = self.origin.iter().enumerate().all(|(i, &origin)| origin as usize == i);
        if plain && self.origin.len() == self.channels {
            let mut out = vec![0.0; rates.len()];
            let planes = out.chunks_exact_mut(area).zip(rates.chunks_exact(area));
            vectorized(|| {
                for ((out, rates), (g, b)) in planes.zip(self.gain.iter().zip(&self.base)) {
                    out.iter_mut().zip(rates).for_each(|(v, &r)| *v = (b + g * f64::from(r)) as f32);
                }
            });
            return out;
        }
        let mut out: Vec<f64> = self.base.iter().flat_map(|&b| std::iter::repeat_n(b, area)).collect();
        for (i, plane) in rates.chunks_exact(area).enumerate() {
            let onto = match self.origin[i] {
                Decode::ALL => 0..self.channels,
                c => c as usize..c as usize + 1,
            };
            for c in onto {
                for (o, &r) in out[c * area..(c + 1) * area].iter_mut().zip(plane) {
                    *o += self.gain[i] * f64::from(r);
                }
            }
        }
        out.into_iter().map(|v| v as f32).collect()
    }
}

/// Synapses from one source node.
#[derive(Debug, Clone, PartialEq)]
pub struct Synapses {
    pub source: usize,
    pub window: Window,
    pub groups: usize,
    pub weight: Weights,
}

/// cout x (cin / groups) x kernel[0] x kernel[1], row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    /// Stored integers; the current of one input unit is `code << shift` in the neuron's integer units.
    Codes { codes: Vec<i32>, shift: u32 },
    /// Thresholds per input unit (readout: ANN units).
    Real(Vec<f32>),
}

impl Weights {
    pub fn len(&self) -> usize {
        match self {
            Weights::Codes { codes, .. } => codes.len(),
            Weights::Real(w) => w.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether weight `at` is not zero: a synapse that does something.
    pub fn is_there(&self, at: usize) -> bool {
        match self {
            Weights::Codes { codes, .. } => codes[at] != 0,
            Weights::Real(w) => w[at] != 0.0,
        }
    }
}

/// State parameters of a layer's neurons, per output channel.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// All in the layer's integer units.
    Integer { bias: Vec<i32>, threshold: Vec<i32>, initial: Vec<i32> },
    /// In thresholds (readout: ANN units); the threshold is 1.
    Real { bias: Vec<f32>, initial: Vec<f32> },
}

impl State {
    /// Biases and initial potentials in thresholds (readout: ANN units); `unit` as in `Layer`.
    pub fn real(&self, unit: &[f64]) -> (Vec<f32>, Vec<f32>) {
        let real = |v: &[i32]| v.iter().zip(unit).map(|(&v, u)| (f64::from(v) * u) as f32).collect();
        match self {
            State::Integer { bias, initial, .. } => (real(bias), real(initial)),
            State::Real { bias, initial } => (bias.clone(), initial.clone()),
        }
    }
}

/// A layer of neurons.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    pub synapses: Vec<Synapses>,
    pub state: State,
    /// False for the output accumulators: they integrate and never fire; their value is the potential over T.
    pub fires: bool,
    /// Steps of input that its neurons integrate before their first chance to fire (streaming only): input that comes
    /// unevenly has settled a little by then. All spikes of the layer are so much later.
    pub settle: u32,
    /// Of the rows' columns, group after group: the types of the axons that they come in by, where a row has one level for
    /// each type; else empty.
    pub types: Vec<u8>,
    /// Per output channel: the real value of one integer unit, in thresholds (readout: ANN units); 1 when real.
    pub unit: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SpikingOp {
    Input,
    Neurons(Layer),
    /// Spike sums: sum over the window times `weight[y * w + x]` (average pooling; the divisor is in the decode gain).
    SumPool {
        source: usize,
        window: Window,
        weight: Vec<u32>,
    },
    /// The train of the window's rate winner.
    MaxPool {
        source: usize,
        window: Window,
    },
    Concat {
        sources: Vec<usize>,
    },
    /// As `network::Op::Gather`, over the spiking channels.
    Gather {
        source: usize,
        index: Vec<u32>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct SpikingNode {
    pub name: String,
    /// With spiking channels.
    pub shape: Shape,
    pub op: SpikingOp,
    pub decode: Decode,
    /// Largest magnitude of one count in one step (input: of its code).
    pub peak: u64,
    /// The same count in every step: the input and what is computed from it without neurons.
    pub constant: bool,
}

impl SpikingNode {
    pub fn sources(&self) -> Vec<usize> {
        match &self.op {
            SpikingOp::Input => vec![],
            SpikingOp::Neurons(layer) => layer.synapses.iter().map(|s| s.source).collect(),
            SpikingOp::SumPool { source, .. }
            | SpikingOp::MaxPool { source, .. }
            | SpikingOp::Gather { source, .. } => {
                vec![*source]
            }
            SpikingOp::Concat { sources } => sources.clone(),
        }
    }

    /// The layer, if the node is one and fires.
    pub fn firing(&self) -> Option<&Layer> {
        match &self.op {
            SpikingOp::Neurons(layer) if layer.fires => Some(layer),
            _ => None,
        }
    }
}

/// Everything a simulation needs.
#[derive(Debug, Clone, PartialEq)]
pub struct SpikingNetwork {
    pub name: String,
    pub chip: String,
    pub model: Model,
    pub steps: u32,
    pub schedule: Schedule,
    pub input: InputCode,
    pub nodes: Vec<SpikingNode>,
    pub output: usize,
    pub head: Head,
    /// Lowest and highest potential a neuron can hold, in integer units.
    pub potential: (i32, i32),
    /// A synapse of weight zero is an operation, too (a chip's weights.zero_costs).
    pub zero_costs: bool,
}

impl SpikingNetwork {
    /// Steps from the first input to the result. Every step of a train is later by what the layers before it wait:
    /// streaming, their settling steps; layered, T steps each. A spike on a short path waits for the long ones: on a
    /// chip, axonal delays.
    pub fn latency(&self) -> u64 {
        self.latency_at(self.steps)
    }

    /// The same where it runs for `steps` steps.
    pub fn latency_at(&self, steps: u32) -> u64 {
        let mut late = vec![0u64; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            let before = node.sources().iter().map(|&s| late[s]).max().unwrap_or(0);
            // The first layer's constant input needs no waiting for.
            let own = match (node.firing(), self.schedule) {
                (None, _) => 0,
                (Some(layer), Schedule::Streaming) => u64::from(layer.settle),
                (Some(_), Schedule::Layered) if !self.settles(&node.sources()) => 0,
                (Some(_), Schedule::Layered) => u64::from(steps),
            };
            late[i] = before + own;
        }
        u64::from(steps) + late.get(self.output).copied().unwrap_or(0)
    }

    /// Whether what reads these nodes works on totals over T: in the layered schedule, unless all of them are constant.
    /// Layers of constant input fire while it comes.
    pub(crate) fn settles(&self, sources: &[usize]) -> bool {
        self.schedule == Schedule::Layered && sources.iter().any(|&s| !self.nodes[s].constant)
    }

    /// How often what reads these nodes hears one step of each: constant ones T times where it works on totals.
    pub(super) fn times(&self, sources: &[usize]) -> Vec<i32> {
        let settles = self.settles(sources);
        sources.iter().map(|&s| if settles && self.nodes[s].constant { self.steps as i32 } else { 1 }).collect()
    }

    pub fn neurons(&self) -> usize {
        self.nodes.iter().filter(|n| n.firing().is_some()).map(|n| n.shape.len()).sum()
    }

    pub fn synapses(&self) -> usize {
        self.nodes
            .iter()
            .map(|n| match &n.op {
                SpikingOp::Neurons(layer) => layer.synapses.iter().map(|s| s.weight.len()).sum(),
                _ => 0,
            })
            .sum()
    }
}
