//! network.nir: the spiking network as a NIR graph, which other simulators run.
//!
//! Parameters are in thresholds, one for all neurons, which is what most simulators can read. What the chip stores is
//! beside them as metadata: the codes as integers, their shift, the value of a code in thresholds, integer thresholds,
//! biases and initial potentials; and what NIR has no field for: reset rule, initial potentials, time step (1), number of
//! steps, the input's code and how outputs decode, and when layers run: `schedule`, and of each layer `settle`, the steps
//! of input that it integrates before its first chance to fire. A simulator that reads neither lets all layers fire at
//! once. The output is a current to be added up over the steps. `back` reads it all again.
//!
//! NIR's neurons fire at v > threshold, some simulators at v >= threshold. The chip's potentials are whole numbers, so that
//! an initial potential that is half a unit higher (lower for a chip that itself fires at v > threshold) makes both the
//! same, and leaves room for the rounding of f32; `metadata/v_initial` and the reset potential hold it.

pub mod back;
pub mod file;
pub mod play;

use std::path::Path;

use super::graph::{self, Fields, Graph, GraphNode, Value};
use crate::error::Result;
use crate::network::{Shape, Window};
use crate::neuron::Reset;
use crate::spiking::{Decode, Layer, Schedule, SpikingNetwork, SpikingNode, SpikingOp, State, Synapses, Weights};

/// Writes it; what cannot be said in NIR is the answer.
///
/// # Errors
/// Work: the file cannot be written.
pub fn write(net: &SpikingNetwork, path: &Path) -> Result<Option<String>> {
    match graph(net) {
        Ok(graph) => graph::write(&graph, path).map(|()| None),
        Err(why) => Ok(Some(why)),
    }
}

/// The graph, or what stands in its way.
pub fn graph(net: &SpikingNetwork) -> std::result::Result<Graph, String> {
    let mut builder = Builder { net, graph: Graph::default(), parts: Vec::new() };
    builder.graph.metadata = network_metadata(net);
    for (index, node) in net.nodes.iter().enumerate() {
        builder.node(index, node).map_err(|why| format!("{}: {why}", node.name))?;
    }
    builder.output()?;
    Ok(builder.graph)
}

/// What a simulator that reads no metadata does otherwise than the network, if anything: a sentence for the report.
pub fn unsaid(net: &SpikingNetwork) -> Option<String> {
    let waits = match net.schedule {
        Schedule::Layered => format!("each layer waits {} steps for all its input (metadata `schedule`)", net.steps),
        Schedule::Streaming => {
            let waiting = net.nodes.iter().filter_map(SpikingNode::firing).filter(|layer| layer.settle > 0).count();
            (waiting > 0).then(|| {
                format!("{waiting} layers integrate some steps of input before they may fire (metadata `settle`)")
            })?
        }
    };
    let layered = if net.schedule == Schedule::Layered { "--schedule streaming " } else { "" };
    Some(format!(
        "network.nir: {waits}; NIR has no field for it, and a simulator that does not read the metadata lets them fire at \
         once: `synfit simulate` reads it, {layered}--settle 0 converts for those that do not"
    ))
}

fn network_metadata(net: &SpikingNetwork) -> Fields {
    let reset = if net.model.reset == Reset::Zero { "zero" } else { "subtract" };
    vec![
        ("synfit", Value::Text(env!("CARGO_PKG_VERSION").into())),
        ("name", Value::Text(net.name.clone())),
        ("chip", Value::Text(net.chip.clone())),
        ("dt", Value::Float(1.0)),
        ("steps", Value::Whole(net.steps.into())),
        ("schedule", Value::Text(if net.schedule == Schedule::Layered { "layered" } else { "streaming" }.into())),
        ("reset", Value::Text(reset.into())),
        ("strict", Value::Whole(net.model.strict.into())),
        ("max_spikes", Value::Whole(net.model.max_spikes.into())),
        ("dash", Value::Whole(net.model.dash.into())),
        ("refractory", Value::Whole(net.model.refractory.into())),
        ("decay", Value::Float(net.model.decay.into())),
        ("potential", Value::I64(vec![2], vec![net.potential.0.into(), net.potential.1.into()])),
        ("zero_costs", Value::Whole(net.zero_costs.into())),
    ]
}

struct Builder<'a> {
    net: &'a SpikingNetwork,
    graph: Graph,
    /// By node of the network: what its channels come from, one part after the other. One part, but for concatenations and
    /// what is computed from them.
    parts: Vec<Vec<Part>>,
}

/// Some channels of a node: a tensor of the graph.
#[derive(Clone)]
struct Part {
    /// The graph's nodes whose sum it is.
    ends: Vec<String>,
    shape: Shape,
    /// Whether the tensor has three dimensions or one.
    spatial: bool,
}

impl Builder<'_> {
    /// A name that is one step of a path, and a module's in Python. Files list nodes by name, and some readers want sources
    /// first: names are numbered in that order, between `input` and `output`.
    fn name(&self, wanted: &str) -> String {
        let plain: String = wanted.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        format!("n{:04}_{}", self.graph.nodes.len(), plain.trim_matches('_'))
    }

    fn push(&mut self, name: &str, kind: &'static str, fields: Fields, metadata: Fields, sources: &[String]) {
        self.graph.nodes.push(GraphNode { name: name.into(), kind, fields, metadata });
        self.graph.edges.extend(sources.iter().map(|source| (source.clone(), name.to_string())));
    }

    fn node(&mut self, index: usize, node: &SpikingNode) -> std::result::Result<(), String> {
        let whole = |ends: Vec<String>, spatial: bool| vec![Part { ends, shape: node.shape, spatial }];
        let parts = match &node.op {
            SpikingOp::Input => {
                let input = &self.net.input;
                let channels = vec![input.scale.len()];
                let metadata = vec![
                    ("scale", Value::F32(channels.clone(), input.scale.clone())),
                    ("shift", Value::F32(channels, input.shift.clone())),
                    ("lowest", Value::Whole(input.lo.into())),
                    ("highest", Value::Whole(input.hi.into())),
                ];
                let spatial = node.shape.area() > 1;
                let name = "input".to_string();
                self.push(&name, "Input", vec![("shape", Value::sizes(&dims(node.shape, spatial)))], metadata, &[]);
                whole(vec![name], spatial)
            }
            SpikingOp::Neurons(layer) => {
                let (ends, spatial) = self.layer(node, layer)?;
                whole(ends, spatial)
            }
            SpikingOp::SumPool { source, window, weight } => {
                if weight.iter().any(|w| *w != 1) {
                    return Err("its pooling windows weigh their inputs differently".into());
                }
                let from = self.net.nodes[*source].shape;
                let exact = |axis: usize, size: usize, out: usize| {
                    let span = size as isize + 2 * window.pad[axis] - window.kernel[axis] as isize;
                    window.dilation[axis] == 1
                        && window.pad[axis] >= 0
                        && span >= 0
                        && span as usize / window.stride[axis] + 1 == out
                };
                if !exact(0, from.h, node.shape.h) || !exact(1, from.w, node.shape.w) {
                    return Err("its pooling windows are padded on one side".into());
                }
                let mut pooled = Vec::new();
                for part in self.parts[*source].clone() {
                    let name = self.name(&node.name);
                    let fields = vec![
                        ("kernel_size", Value::sizes(&window.kernel)),
                        ("stride", Value::sizes(&window.stride)),
                        ("padding", Value::sizes(&window.pad.map(|p| p as usize))),
                    ];
                    self.push(&name, "SumPool2d", fields, vec![], &part.ends);
                    let shape = Shape { c: part.shape.c, ..node.shape };
                    pooled.push(Part { ends: vec![name], shape, spatial: true });
                }
                pooled
            }
            SpikingOp::Gather { source, index } => {
                let straight = index.iter().enumerate().all(|(i, from)| *from as usize == i);
                let from = self.net.nodes[*source].shape;
                if !(straight && index.len() == from.len() && node.shape.area() == 1) {
                    return Err("a rearrangement of neurons other than flattening has no node in NIR".into());
                }
                self.parts[*source].clone().iter().map(|part| self.flat(*source, part)).collect()
            }
            SpikingOp::MaxPool { .. } => return Err("max pooling has no node in NIR".into()),
            // No node of NIR's joins channels: whoever reads it has a block of synapses for each part.
            SpikingOp::Concat { sources } => sources.iter().flat_map(|s| self.parts[*s].clone()).collect(),
        };
        debug_assert_eq!(self.parts.len(), index);
        self.parts.push(parts);
        Ok(())
    }

    /// A part of `source` with one dimension.
    fn flat(&mut self, source: usize, part: &Part) -> Part {
        if !part.spatial {
            return part.clone();
        }
        let shape = part.shape;
        let name = self.name(&format!("{}_flat", self.net.nodes[source].name));
        let fields = vec![
            ("start_dim", Value::Whole(0)),
            ("end_dim", Value::Whole(-1)),
            ("input_type", Value::sizes(&dims(shape, true))),
        ];
        self.push(&name, "Flatten", fields, vec![], &part.ends);
        Part { ends: vec![name], shape: Shape::new(shape.len(), 1, 1), spatial: false }
    }

    fn layer(&mut self, node: &SpikingNode, layer: &Layer) -> std::result::Result<(Vec<String>, bool), String> {
        let net = self.net;
        let dense = layer.synapses.iter().all(|s| is_dense(s, net.nodes[s.source].shape, node.shape));
        let mut blocks = Vec::new();
        for s in &layer.synapses {
            blocks.extend(split(s, net.nodes[s.source].shape, &self.parts[s.source], layer.unit.len())?);
        }
        let mut ends = Vec::new();
        for (k, (s, part)) in blocks.iter().enumerate() {
            let name =
                self.name(&format!("{}_weights{}", node.name, if k > 0 { k.to_string() } else { String::new() }));
            let weights = Numbers::of(s, layer);
            // the bias comes once, with the first source
            let bias = if k == 0 { biases(layer) } else { vec![0.0; node.shape.c] };
            let mut metadata = weights.metadata(if k == 0 { Some(layer) } else { None });
            metadata.push(("name", Value::Text(node.name.clone())));
            if dense {
                let flat = self.flat(s.source, part);
                let fields = vec![
                    ("weight", Value::F32(vec![node.shape.c, flat.shape.len()], weights.real)),
                    ("bias", Value::F32(vec![node.shape.c], bias)),
                ];
                self.push(&name, "Affine", fields, metadata, &flat.ends);
            } else {
                if !part.spatial {
                    return Err("a convolution over a vector has no node in NIR".into());
                }
                let mut fields = convolution(s, part.shape, node.shape, &weights.real)?;
                fields.push(("bias", Value::F32(vec![node.shape.c], bias)));
                // of the codes, whose kernel has no zeros around it
                let pad = s.window.pad.map(|p| p as i64).to_vec();
                metadata.push(("pad", Value::I64(vec![2], pad)));
                self.push(&name, "Conv2d", fields, metadata, &part.ends);
            }
            ends.push(name);
        }
        if !layer.fires {
            return Ok((ends, !dense));
        }
        let name = self.name(&node.name);
        let (kind, fields, metadata) = neurons(net, node, layer, !dense);
        self.push(&name, kind, fields, metadata, &ends);
        Ok((vec![name], !dense))
    }

    fn output(&mut self) -> std::result::Result<(), String> {
        let node = &self.net.nodes[self.net.output];
        let decode = &node.decode;
        let origin = decode.origin.iter().map(|o| if *o == Decode::ALL { -1 } else { i64::from(*o) }).collect();
        let spikes = node.firing().is_some();
        let metadata = vec![
            ("output", Value::Text(if spikes { "spikes" } else { "current, to be added up over the steps" }.into())),
            ("decode_gain", Value::F64(vec![decode.gain.len()], decode.gain.clone())),
            ("decode_origin", Value::I64(vec![decode.origin.len()], origin)),
            ("decode_base", Value::F64(vec![decode.base.len()], decode.base.clone())),
        ];
        let [part] = &self.parts[self.net.output][..] else {
            return Err(format!("{}: a concatenation that nobody reads has no node in NIR", node.name));
        };
        let (shape, ends) = (Value::sizes(&dims(node.shape, part.spatial)), part.ends.clone());
        self.push("output", "Output", vec![("shape", shape)], metadata, &ends);
        Ok(())
    }
}

/// A block of synapses for each part of what it reads (`from`): the weights of its channels. `rows`: neurons with weights of
/// their own.
fn split(s: &Synapses, from: Shape, parts: &[Part], rows: usize) -> std::result::Result<Vec<(Synapses, Part)>, String> {
    if let [part] = parts {
        return Ok(vec![(s.clone(), part.clone())]);
    }
    if s.groups > 1 {
        return Err("a grouped convolution over a concatenation has no form in NIR".into());
    }
    let (taps, mut first) = (s.window.taps(), 0);
    let mut blocks = Vec::with_capacity(parts.len());
    for part in parts {
        // flattened parts have a channel for each of their values
        let channels = first..first + part.shape.c;
        first = channels.end;
        let columns = channels.start * taps..channels.end * taps;
        let weight = match &s.weight {
            Weights::Codes { codes, shift } => {
                Weights::Codes { codes: of_columns(codes, rows, columns), shift: *shift }
            }
            Weights::Real(w) => Weights::Real(of_columns(w, rows, columns)),
        };
        blocks.push((Synapses { weight, ..s.clone() }, part.clone()));
    }
    if first == from.c { Ok(blocks) } else { Err("its parts are not the channels that it reads".into()) }
}

fn of_columns<T: Copy>(weights: &[T], rows: usize, columns: std::ops::Range<usize>) -> Vec<T> {
    weights.chunks(weights.len() / rows.max(1)).flat_map(|row| row[columns.clone()].iter().copied()).collect()
}

fn dims(shape: Shape, spatial: bool) -> Vec<usize> {
    if spatial { vec![shape.c, shape.h, shape.w] } else { vec![shape.c] }
}

/// One position, whose weights read the whole source in its order.
fn is_dense(s: &Synapses, from: Shape, to: Shape) -> bool {
    s.groups == 1 && to.area() == 1 && s.window == Window::whole(from)
}

/// A block's weights in thresholds (of a readout: in units of its output), and what they are made of.
struct Numbers {
    real: Vec<f32>,
    codes: Option<(Value, u32)>,
}

impl Numbers {
    fn of(s: &Synapses, layer: &Layer) -> Self {
        match &s.weight {
            Weights::Real(w) => Self { real: w.clone(), codes: None },
            Weights::Codes { codes, shift } => {
                let rows = layer.unit.len();
                let row = codes.len() / rows;
                let shape = vec![rows, row / s.window.taps(), s.window.kernel[0], s.window.kernel[1]];
                let value =
                    |(at, q): (usize, &i32)| (f64::from(*q) * f64::from(1u32 << shift) * layer.unit[at / row]) as f32;
                let real = codes.iter().enumerate().map(value).collect();
                Self { real, codes: Some((Value::integers(shape, codes), *shift)) }
            }
        }
    }

    /// `scale` is the value of a code in thresholds (of a readout: in units of its output).
    fn metadata(&self, with_bias: Option<&Layer>) -> Fields {
        let mut fields = Fields::new();
        if let Some((codes, shift)) = &self.codes {
            fields.push(("codes", codes.clone()));
            fields.push(("shift", Value::Whole((*shift).into())));
        }
        if let Some(layer) = with_bias {
            let shift = self.codes.as_ref().map_or(0, |(_, shift)| *shift);
            let scale = layer.unit.iter().map(|u| u * f64::from(1u32 << shift)).collect();
            fields.push(("scale", Value::F64(vec![layer.unit.len()], scale)));
            if !layer.types.is_empty() {
                let types: Vec<i32> = layer.types.iter().map(|t| i32::from(*t)).collect();
                fields.push(("axon_types", Value::integers(vec![types.len()], &types)));
            }
            if let State::Integer { bias, .. } = &layer.state {
                fields.push(("bias_codes", Value::integers(vec![bias.len()], bias)));
            }
        }
        fields
    }
}

fn biases(layer: &Layer) -> Vec<f32> {
    match &layer.state {
        State::Integer { bias, .. } => {
            bias.iter().zip(&layer.unit).map(|(b, unit)| (f64::from(*b) * unit) as f32).collect()
        }
        State::Real { bias, .. } => bias.clone(),
    }
}

/// NIR pads a convolution alike on both sides: zero weights at the ends of the kernel make up for where ours is not.
fn convolution(s: &Synapses, from: Shape, to: Shape, weight: &[f32]) -> std::result::Result<Fields, String> {
    let w = &s.window;
    let axis = |axis: usize, size: usize, out: usize| -> Option<(usize, usize, usize)> {
        // (leading zeros, trailing zeros, padding)
        let (k, d, p) = (w.kernel[axis] as isize, w.dilation[axis] as isize, w.pad[axis]);
        (0..=k + size as isize).flat_map(|sum| (0..=sum).map(move |lead| (lead, sum - lead))).find_map(
            |(lead, trail)| {
                let (pad, taps) = (p + lead * d, k + lead + trail);
                let span = size as isize + 2 * pad - d * (taps - 1) - 1;
                let positions = (span >= 0).then(|| span as usize / w.stride[axis] + 1);
                (pad >= 0 && positions == Some(out)).then_some((lead as usize, trail as usize, pad as usize))
            },
        )
    };
    let rows = axis(0, from.h, to.h).ok_or("its padding has no form in NIR")?;
    let columns = axis(1, from.w, to.w).ok_or("its padding has no form in NIR")?;
    let kernel = [w.kernel[0] + rows.0 + rows.1, w.kernel[1] + columns.0 + columns.1];
    let mut padded = Vec::with_capacity(weight.len() / w.taps() * kernel[0] * kernel[1]);
    for plane in weight.chunks_exact(w.taps()) {
        for y in 0..kernel[0] {
            for x in 0..kernel[1] {
                let inside =
                    (rows.0..rows.0 + w.kernel[0]).contains(&y) && (columns.0..columns.0 + w.kernel[1]).contains(&x);
                padded.push(if inside { plane[(y - rows.0) * w.kernel[1] + x - columns.0] } else { 0.0 });
            }
        }
    }
    Ok(vec![
        ("input_shape", Value::sizes(&[from.h, from.w])),
        ("weight", Value::F32(vec![to.c, from.c / s.groups, kernel[0], kernel[1]], padded)),
        ("stride", Value::sizes(&w.stride)),
        ("padding", Value::sizes(&[rows.2, columns.2])),
        ("dilation", Value::sizes(&w.dilation)),
        ("groups", Value::Whole(s.groups as i64)),
    ])
}

/// Type, parameters and metadata of a layer's neurons.
fn neurons(net: &SpikingNetwork, node: &SpikingNode, layer: &Layer, spatial: bool) -> (&'static str, Fields, Fields) {
    let shape = dims(node.shape, spatial);
    let each = |of: &dyn Fn(usize) -> f32| {
        let values = (0..node.shape.len()).map(|i| of(i / node.shape.area())).collect();
        Value::F32(shape.clone(), values)
    };
    // Half a unit: see the head of this file.
    let half = if net.model.strict { -0.5 } else { 0.5 };
    let (initial, half): (Vec<f32>, Vec<f32>) = match &layer.state {
        State::Integer { initial, .. } => {
            let in_thresholds = |(v, unit): (&i32, &f64)| (f64::from(*v) * unit) as f32;
            let half = layer.unit.iter().map(|unit| half * *unit as f32);
            (initial.iter().zip(&layer.unit).map(in_thresholds).collect(), half.collect())
        }
        State::Real { initial, .. } => (initial.clone(), vec![0.0; node.shape.c]),
    };
    let to_zero = net.model.reset == Reset::Zero;
    let mut fields = vec![("r", each(&|_| 1.0)), ("v_threshold", each(&|_| 1.0))];
    if to_zero {
        // only where it means something: readers before 1.0.5 do not know the field
        fields.push(("v_reset", each(&|c| half[c])));
    }
    let mut metadata = vec![
        ("name", Value::Text(node.name.clone())),
        ("v_initial", each(&|c| initial[c] + half[c])),
        ("settle", Value::Whole(layer.settle.into())),
    ];
    if let State::Integer { threshold, initial, .. } = &layer.state {
        metadata.push(("threshold", Value::integers(vec![threshold.len()], threshold)));
        metadata.push(("initial", Value::integers(vec![initial.len()], initial)));
    }
    if !net.model.is_leaky() {
        return ("IF", fields, metadata);
    }
    // decay = exp(-dt / tau) with dt = 1
    let tau = -1.0 / net.model.decay.ln();
    fields.push(("tau", each(&|_| tau)));
    fields.push(("v_leak", each(&|_| 0.0)));
    ("LIF", fields, metadata)
}
