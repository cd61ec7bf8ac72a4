//! Back from a NIR graph that synfit wrote to the spiking network, integers and waiting included: the same spikes, bit
//! for bit. Names of nodes are the network's; what only a conversion needs (how inner layers decode) is not in the file.

use super::file::{Fields, NirFile};
use crate::error::{Error, Result};
use crate::network::{Head, Layout, Shape, Window};
use crate::neuron::{Model, Reset};
use crate::spiking::{
    Decode, InputCode, Layer, Schedule, SpikingNetwork, SpikingNode, SpikingOp, State, Synapses, Weights,
};

/// Whether synfit wrote the graph.
pub fn is_own(file: &NirFile) -> bool {
    file.metadata().is_some_and(|m| m.has("synfit"))
}

/// What a node of the graph became.
#[derive(Clone, Copy)]
enum Place {
    /// A node of the network.
    Node(usize),
    /// Synapses, which belong to the neurons that they lead to.
    Synapses,
}

/// The network of a graph that `is_own`.
///
/// # Errors
/// Input: metadata that are missing or do not fit, by file, node and field.
pub fn network(file: &NirFile) -> Result<SpikingNetwork> {
    let metadata = file.metadata().ok_or_else(|| file.wrong("was not written by synfit"))?;
    if !metadata.has("schedule") {
        return Err(file.wrong("was written by a synfit that could not read it back; convert again"));
    }
    let count = |m: &Fields, field: &str| -> Result<u32> {
        u32::try_from(m.one_whole(field)?).map_err(|_| m.wrong_field(field, "is out of range"))
    };
    let model = Model {
        decay: metadata.one_real("decay")? as f32,
        reset: if metadata.text("reset")? == "zero" { Reset::Zero } else { Reset::Subtract },
        refractory: count(&metadata, "refractory")?,
        max_spikes: count(&metadata, "max_spikes")?,
        strict: metadata.one_whole("strict")? != 0,
        dash: count(&metadata, "dash")?,
    };
    let schedule = match metadata.text("schedule")?.as_str() {
        "layered" => Schedule::Layered,
        _ => Schedule::Streaming,
    };
    let potential = integers(&metadata, "potential")?;
    let [low, high] = potential[..] else { return Err(metadata.wrong_field("potential", "must be two numbers")) };
    let mut back = Back { file, model, nodes: Vec::new(), places: vec![None; file.nodes.len()], input: None };
    let mut output = None;
    for (at, node) in file.nodes.iter().enumerate() {
        back.places[at] = Some(match node.kind.as_str() {
            "Input" => back.input(at)?,
            "Affine" | "Conv2d" => Place::Synapses,
            "Flatten" => back.flatten(at)?,
            "SumPool2d" => back.pool(at)?,
            "IF" | "LIF" => back.neurons(at)?,
            "Output" => {
                output = Some(back.output(at)?);
                continue;
            }
            kind => return Err(node.fields.wrong(format!("is of type {kind}, which synfit does not write"))),
        });
    }
    let (Some(input), Some(output)) = (back.input.take(), output) else {
        return Err(file.wrong("has no input or no output"));
    };
    let net = SpikingNetwork {
        name: metadata.text("name")?,
        chip: metadata.text("chip")?,
        model,
        steps: count(&metadata, "steps")?,
        schedule,
        input,
        nodes: back.nodes,
        output,
        head: Head::None,
        potential: (low, high),
        // older files lack it
        zero_costs: metadata.has("zero_costs") && metadata.one_whole("zero_costs")? != 0,
    };
    net.check().map_err(|e| file.wrong(e.to_string()))?;
    Ok(net)
}

struct Back<'a> {
    file: &'a NirFile,
    model: Model,
    nodes: Vec<SpikingNode>,
    /// By node of the graph.
    places: Vec<Option<Place>>,
    input: Option<InputCode>,
}

impl Back<'_> {
    fn fields(&self, at: usize) -> &Fields {
        &self.file.nodes[at].fields
    }

    fn metadata(&self, at: usize) -> Result<Fields> {
        self.fields(at).metadata().ok_or_else(|| self.fields(at).wrong("has no metadata"))
    }

    /// The network's node that graph node `at` reads.
    fn source(&self, at: usize) -> Result<usize> {
        let mut sources = self.file.sources(at);
        match (sources.next().and_then(|s| self.places[s]), sources.next()) {
            (Some(Place::Node(source)), None) => Ok(source),
            _ => Err(self.fields(at).wrong("must read one node that comes before it")),
        }
    }

    fn push(&mut self, node: SpikingNode) -> Place {
        self.nodes.push(node);
        Place::Node(self.nodes.len() - 1)
    }

    fn input(&mut self, at: usize) -> Result<Place> {
        let metadata = self.metadata(at)?;
        let reals = |field: &str| -> Result<Vec<f32>> {
            Ok(metadata.reals(field)?.values.into_iter().map(|v| v as f32).collect())
        };
        let one = |field: &str| -> Result<i32> {
            i32::try_from(metadata.one_whole(field)?).map_err(|_| metadata.wrong_field(field, "is out of range"))
        };
        let code = InputCode {
            layout: Layout::Nchw,
            scale: reals("scale")?,
            shift: reals("shift")?,
            lo: one("lowest")?,
            hi: one("highest")?,
        };
        let shape = shape(self.fields(at), "shape")?;
        let node = SpikingNode {
            name: self.file.nodes[at].name.clone(),
            shape,
            op: SpikingOp::Input,
            decode: Decode::plain(vec![1.0; shape.c]),
            peak: code.max_abs(),
            constant: true,
        };
        self.input = Some(code);
        Ok(self.push(node))
    }

    /// A node without neurons.
    fn view(&mut self, at: usize, source: usize, shape: Shape, op: SpikingOp, gathered: u64) -> Place {
        let from = &self.nodes[source];
        let node = SpikingNode {
            name: self.file.nodes[at].name.clone(),
            shape,
            op,
            decode: Decode::plain(vec![1.0; shape.c]),
            peak: from.peak.saturating_mul(gathered),
            constant: from.constant,
        };
        self.push(node)
    }

    fn flatten(&mut self, at: usize) -> Result<Place> {
        let source = self.source(at)?;
        let len = self.nodes[source].shape.len();
        let op = SpikingOp::Gather { source, index: (0..len as u32).collect() };
        Ok(self.view(at, source, Shape::new(len, 1, 1), op, 1))
    }

    fn pool(&mut self, at: usize) -> Result<Place> {
        let source = self.source(at)?;
        let from = self.nodes[source].shape;
        let kernel = self.fields(at).pair("kernel_size", 1)?.map(|k| k as usize);
        let window = window(self.fields(at), kernel)?;
        let out = |axis: usize, size: usize| positions(&window, axis, size);
        let (Some(h), Some(w)) = (out(0, from.h), out(1, from.w)) else {
            return Err(self.fields(at).wrong(format!("its windows do not fit {from}")));
        };
        let shape = Shape::new(from.c, h, w);
        let op = SpikingOp::SumPool { source, window, weight: vec![1; shape.area()] };
        Ok(self.view(at, source, shape, op, window.taps() as u64))
    }

    fn neurons(&mut self, at: usize) -> Result<Place> {
        let metadata = self.metadata(at)?;
        let dims = self.fields(at).reals("v_threshold")?.dims;
        let shape = of_dims(&dims).ok_or_else(|| self.fields(at).wrong("its thresholds have no shape of a layer"))?;
        let settle = u32::try_from(metadata.one_whole("settle")?).unwrap_or(u32::MAX);
        let mut layer = self.layer(at, shape)?;
        layer.fires = true;
        layer.settle = settle;
        let per_channel: Vec<f32> = metadata
            .reals("v_initial")?
            .values
            .chunks(shape.area())
            .filter_map(|c| c.first())
            .map(|v| *v as f32)
            .collect();
        match &mut layer.state {
            State::Integer { threshold, initial, .. } => {
                *threshold = integers(&metadata, "threshold")?;
                *initial = integers(&metadata, "initial")?;
            }
            State::Real { initial, .. } => *initial = per_channel,
        }
        let node = SpikingNode {
            name: metadata.text("name")?,
            shape,
            op: SpikingOp::Neurons(layer),
            decode: Decode::plain(vec![1.0; shape.c]),
            peak: u64::from(self.model.max_spikes),
            constant: false,
        };
        Ok(self.push(node))
    }

    /// The output's node: neurons, or a readout whose synapses lead to the output itself.
    fn output(&mut self, at: usize) -> Result<usize> {
        let metadata = self.metadata(at)?;
        let origin = metadata.whole("decode_origin")?.values;
        let base = metadata.reals("decode_base")?.values;
        let decode = Decode {
            channels: base.len(),
            origin: origin.iter().map(|o| u32::try_from(*o).unwrap_or(Decode::ALL)).collect(),
            gain: metadata.reals("decode_gain")?.values,
            base,
        };
        let first = self.file.sources(at).next().and_then(|s| self.places[s]);
        let index = match first {
            Some(Place::Node(index)) => index,
            Some(Place::Synapses) => {
                let shape = shape(self.fields(at), "shape")?;
                let layer = self.layer(at, shape)?;
                let linear = self.file.sources(at).next().unwrap_or(at);
                let name = self.metadata(linear)?.text("name")?;
                let op = SpikingOp::Neurons(layer);
                let peak = u64::from(self.model.max_spikes);
                self.nodes.push(SpikingNode { name, shape, op, decode: decode.clone(), peak, constant: false });
                self.nodes.len() - 1
            }
            None => return Err(self.fields(at).wrong("nothing leads to it")),
        };
        self.nodes[index].decode = decode;
        Ok(index)
    }

    /// The synapses that lead to graph node `at`, with biases and, but for thresholds and initial potentials, state.
    fn layer(&self, at: usize, shape: Shape) -> Result<Layer> {
        let mut linear: Vec<usize> = self.file.sources(at).collect();
        linear.sort_unstable();
        let mut layer = Layer {
            synapses: Vec::new(),
            state: State::Real { bias: vec![0.0; shape.c], initial: vec![0.0; shape.c] },
            fires: false,
            settle: 0,
            types: Vec::new(),
            unit: vec![1.0; shape.c],
        };
        for (k, &one) in linear.iter().enumerate() {
            if !matches!(self.places[one], Some(Place::Synapses)) {
                return Err(self.fields(one).wrong("leads to neurons and holds no synapses"));
            }
            let (fields, metadata) = (self.fields(one), self.metadata(one)?);
            let source = self.source(one)?;
            let dense = self.file.nodes[one].kind == "Affine";
            let groups = if dense { 1 } else { usize::try_from(fields.one_whole("groups")?).unwrap_or(0) };
            let (weight, kernel) = self.weights(fields, &metadata)?;
            let window = match dense {
                true => Window::POINT,
                false => {
                    let padded = window(fields, kernel)?;
                    match weight {
                        Weights::Codes { .. } => {
                            Window { pad: metadata.pair("pad", i64::from(i16::MIN))?.map(|p| p as isize), ..padded }
                        }
                        Weights::Real(_) => padded,
                    }
                }
            };
            if k == 0 && metadata.has("axon_types") {
                let types = metadata.whole("axon_types")?.values;
                layer.types = types.into_iter().map(|t| u8::try_from(t).unwrap_or(u8::MAX)).collect();
            }
            if k == 0 {
                self.biases(&mut layer, fields, &metadata, &weight)?;
            }
            layer.synapses.push(Synapses { source, window, groups, weight });
        }
        Ok(layer)
    }

    /// Codes where there are any, else the reals; and the kernel.
    fn weights(&self, fields: &Fields, metadata: &Fields) -> Result<(Weights, [usize; 2])> {
        let kernel = |dims: &[usize]| match dims {
            [_, _, h, w] => [*h, *w],
            _ => [1, 1],
        };
        if !metadata.has("codes") {
            let found = fields.reals("weight")?;
            let real = found.values.iter().map(|v| *v as f32).collect();
            return Ok((Weights::Real(real), kernel(&found.dims)));
        }
        let codes = metadata.whole("codes")?;
        let shift = u32::try_from(metadata.one_whole("shift")?).ok().filter(|s| *s < 31);
        let shift = shift.ok_or_else(|| metadata.wrong_field("shift", "is out of range"))?;
        Ok((Weights::Codes { codes: integers(metadata, "codes")?, shift }, kernel(&codes.dims)))
    }

    fn biases(&self, layer: &mut Layer, fields: &Fields, metadata: &Fields, weight: &Weights) -> Result<()> {
        let channels = layer.unit.len();
        match weight {
            Weights::Codes { shift, .. } => {
                let code = f64::from(1u32 << shift);
                layer.unit = metadata.reals("scale")?.values.iter().map(|s| s / code).collect();
                layer.state = State::Integer {
                    bias: integers(metadata, "bias_codes")?,
                    threshold: vec![1; channels],
                    initial: vec![0; channels],
                };
            }
            Weights::Real(_) => {
                let bias = fields.reals("bias")?.values.into_iter().map(|v| v as f32).collect();
                layer.state = State::Real { bias, initial: vec![0.0; channels] };
            }
        }
        Ok(())
    }
}

fn integers(fields: &Fields, field: &str) -> Result<Vec<i32>> {
    let wide = |_| -> Error { fields.wrong_field(field, "does not fit 32-bit integers") };
    fields.whole(field)?.values.into_iter().map(|v| i32::try_from(v).map_err(wide)).collect()
}

fn of_dims(dims: &[usize]) -> Option<Shape> {
    match *dims {
        _ if dims.contains(&0) => None,
        [c] => Some(Shape::new(c, 1, 1)),
        [c, h, w] => Some(Shape::new(c, h, w)),
        _ => None,
    }
}

fn shape(fields: &Fields, field: &str) -> Result<Shape> {
    of_dims(&fields.sizes(field)?).ok_or_else(|| fields.wrong_field(field, "must have one or three dimensions"))
}

/// The window of a convolution or a pool.
pub(super) fn window(fields: &Fields, kernel: [usize; 2]) -> Result<Window> {
    let pair = |field: &str, least: i64| fields.pair(field, least);
    Ok(Window {
        kernel,
        stride: pair("stride", 1)?.map(|v| v as usize),
        dilation: if fields.has("dilation") { pair("dilation", 1)?.map(|v| v as usize) } else { [1, 1] },
        pad: pair("padding", 0)?.map(|v| v as isize),
    })
}

/// Output positions along an axis that is padded alike on both sides.
pub(super) fn positions(w: &Window, axis: usize, size: usize) -> Option<usize> {
    let reach = w.dilation[axis].checked_mul(w.kernel[axis] - 1)? + 1;
    let span = (size as isize + 2 * w.pad[axis]).checked_sub_unsigned(reach)?;
    usize::try_from(span).ok().map(|span| span / w.stride[axis] + 1)
}
