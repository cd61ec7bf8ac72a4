//! weights.safetensors: all numbers of a spiking network as named tensors, its structure as JSON in the metadata key
//! `synfit`. What is written reads back as the same network.
//!
//! For a layer named L: `L.weight.K` (its K-th source; int8, int16, int32 or float32, cout x cin/groups x kh x kw),
//! `L.bias`, `L.threshold`, `L.initial` (int32, or float32 without a threshold), `L.unit` (float64: the value of one
//! integer unit in thresholds), `L.types` (uint8, where axons have types: of the rows' columns). For every node N: `N.gain`, `N.base`, `N.origin` (how its rates decode).

use std::collections::HashMap;
use std::path::Path;

use bytemuck::cast_slice;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::{Head, Shape, Window};
use crate::neuron::Model;
use crate::spiking::{
    Decode, InputCode, Layer, Schedule, SpikingNetwork, SpikingNode, SpikingOp, State, Synapses, Weights,
};

const KEY: &str = "synfit";
/// A file of one node has these keys instead.
const NODE: &str = "synfit-node";
const NOTE: &str = "synfit-note";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Structure {
    version: u32,
    name: String,
    chip: String,
    model: Model,
    steps: u32,
    schedule: Schedule,
    input: InputCode,
    nodes: Vec<NodeStructure>,
    output: usize,
    head: Head,
    potential: (i32, i32),
    #[serde(default)]
    zero_costs: bool,
}

#[derive(Serialize, Deserialize)]
struct NodeStructure {
    name: String,
    shape: Shape,
    op: OpStructure,
    channels: usize,
    peak: u64,
    constant: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OpStructure {
    Input,
    Neurons {
        synapses: Vec<SynapseStructure>,
        fires: bool,
        integer: bool,
        /// Files from before there was one have none.
        #[serde(default)]
        settle: u32,
    },
    SumPool {
        source: usize,
        window: Window,
    },
    MaxPool {
        source: usize,
        window: Window,
    },
    Concat {
        sources: Vec<usize>,
    },
    Gather {
        source: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct SynapseStructure {
    source: usize,
    window: Window,
    groups: usize,
    /// Codes: the current of one input unit is code << shift.
    shift: u32,
}

/// Tensors on their way to the file.
#[derive(Default)]
struct Tensors(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    fn push(&mut self, name: String, dtype: Dtype, shape: Vec<usize>, bytes: &[u8]) {
        self.0.push((name, dtype, shape, bytes.to_vec()));
    }

    /// The narrowest integers that hold all codes.
    fn push_codes(&mut self, name: String, shape: Vec<usize>, codes: &[i32]) {
        let within = |lo: i32, hi: i32| codes.iter().all(|c| (lo..=hi).contains(c));
        if within(-128, 127) {
            let bytes: Vec<i8> = codes.iter().map(|&c| c as i8).collect();
            self.push(name, Dtype::I8, shape, cast_slice(&bytes));
        } else if within(-32768, 32767) {
            let bytes: Vec<i16> = codes.iter().map(|&c| c as i16).collect();
            self.push(name, Dtype::I16, shape, cast_slice(&bytes));
        } else {
            self.push(name, Dtype::I32, shape, cast_slice(codes));
        }
    }

    fn push_flat<T: bytemuck::NoUninit>(&mut self, name: String, dtype: Dtype, values: &[T]) {
        self.push(name, dtype, vec![values.len()], cast_slice(values));
    }

    /// The file.
    fn bytes(&self, metadata: HashMap<String, String>) -> std::result::Result<Vec<u8>, SafeTensorError> {
        let mut views = Vec::new();
        for (name, dtype, shape, bytes) in &self.0 {
            views.push((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?));
        }
        safetensors::serialize(views, Some(metadata))
    }
}

/// Writes `net` to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn write(net: &SpikingNetwork, path: &Path) -> Result<()> {
    let mut tensors = Tensors::default();
    let nodes = net.nodes.iter().map(|node| push_node(net, node, &mut tensors)).collect();
    let structure = Structure {
        version: VERSION,
        name: net.name.clone(),
        chip: net.chip.clone(),
        model: net.model,
        steps: net.steps,
        schedule: net.schedule,
        input: net.input.clone(),
        nodes,
        output: net.output,
        head: net.head,
        potential: net.potential,
        zero_costs: net.zero_costs,
    };
    let failed = |e: &dyn std::fmt::Display| Error::work(path.display().to_string(), e.to_string());
    let json = serde_json::to_string(&structure).map_err(|e| failed(&e))?;
    let bytes = tensors.bytes(HashMap::from([(KEY.to_string(), json)])).map_err(|e| failed(&e))?;
    std::fs::write(path, bytes).map_err(|e| failed(&e))
}

/// The last node of `net` alone, in the same form, with `note` in the metadata.
///
/// # Errors
/// Work: the numbers cannot be put into the form.
pub(super) fn last_node(net: &SpikingNetwork, note: String) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::work("checkpoint", e.to_string());
    let node = net.nodes.last().ok_or_else(|| failed(&"no node"))?;
    let mut tensors = Tensors::default();
    let structure = serde_json::to_string(&push_node(net, node, &mut tensors)).map_err(|e| failed(&e))?;
    let metadata = HashMap::from([(NODE.to_string(), structure), (NOTE.to_string(), note)]);
    tensors.bytes(metadata).map_err(|e| failed(&e))
}

/// The note and the node of what `last_node` wrote.
///
/// # Errors
/// Input: not such a file, damaged; names `path`.
pub(super) fn note_and_node(bytes: &[u8], path: &Path) -> Result<(String, SpikingNode)> {
    let wrong = |e: &dyn std::fmt::Display| Error::input(path.display().to_string(), e.to_string());
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| wrong(&e))?;
    let text = |key: &str| {
        let found = metadata.metadata().as_ref().and_then(|m| m.get(key));
        found.cloned().ok_or_else(|| wrong(&format!("holds no layer (no `{key}` in its metadata)")))
    };
    let structure: NodeStructure = serde_json::from_str(&text(NODE)?).map_err(|e| wrong(&e))?;
    let file = File { tensors: SafeTensors::deserialize(bytes).map_err(|e| wrong(&e))?, path };
    Ok((text(NOTE)?, file.node(&structure)?))
}

fn push_node(net: &SpikingNetwork, node: &SpikingNode, tensors: &mut Tensors) -> NodeStructure {
    let named = |suffix: &str| format!("{}.{suffix}", node.name);
    tensors.push_flat(named("gain"), Dtype::F64, &node.decode.gain);
    tensors.push_flat(named("base"), Dtype::F64, &node.decode.base);
    tensors.push_flat(named("origin"), Dtype::U32, &node.decode.origin);
    let op = match &node.op {
        SpikingOp::Input => OpStructure::Input,
        SpikingOp::Neurons(layer) => push_layer(net, node, layer, tensors),
        SpikingOp::SumPool { source, window, weight } => {
            tensors.push_flat(named("pool"), Dtype::U32, weight);
            OpStructure::SumPool { source: *source, window: *window }
        }
        SpikingOp::MaxPool { source, window } => OpStructure::MaxPool { source: *source, window: *window },
        SpikingOp::Concat { sources } => OpStructure::Concat { sources: sources.clone() },
        SpikingOp::Gather { source, index } => {
            tensors.push_flat(named("index"), Dtype::U32, index);
            OpStructure::Gather { source: *source }
        }
    };
    NodeStructure {
        name: node.name.clone(),
        shape: node.shape,
        op,
        channels: node.decode.channels,
        peak: node.peak,
        constant: node.constant,
    }
}

fn push_layer(net: &SpikingNetwork, node: &SpikingNode, layer: &Layer, tensors: &mut Tensors) -> OpStructure {
    let named = |suffix: &str| format!("{}.{suffix}", node.name);
    let mut synapses = Vec::new();
    for (k, s) in layer.synapses.iter().enumerate() {
        let cin = net.nodes[s.source].shape.c / s.groups;
        let shape = vec![node.shape.c, cin, s.window.kernel[0], s.window.kernel[1]];
        let shift = match &s.weight {
            Weights::Codes { codes, shift } => {
                tensors.push_codes(named(&format!("weight.{k}")), shape, codes);
                *shift
            }
            Weights::Real(w) => {
                tensors.push(named(&format!("weight.{k}")), Dtype::F32, shape, cast_slice(w));
                0
            }
        };
        synapses.push(SynapseStructure { source: s.source, window: s.window, groups: s.groups, shift });
    }
    tensors.push_flat(named("unit"), Dtype::F64, &layer.unit);
    if !layer.types.is_empty() {
        tensors.push_flat(named("types"), Dtype::U8, &layer.types);
    }
    let integer = match &layer.state {
        State::Integer { bias, threshold, initial } => {
            tensors.push_flat(named("bias"), Dtype::I32, bias);
            tensors.push_flat(named("threshold"), Dtype::I32, threshold);
            tensors.push_flat(named("initial"), Dtype::I32, initial);
            true
        }
        State::Real { bias, initial } => {
            tensors.push_flat(named("bias"), Dtype::F32, bias);
            tensors.push_flat(named("initial"), Dtype::F32, initial);
            false
        }
    };
    OpStructure::Neurons { synapses, fires: layer.fires, integer, settle: layer.settle }
}

/// Reads what `write` wrote.
///
/// # Errors
/// The file is missing, damaged, or from another program or version: names the file and the tensor or node.
pub fn read(path: &Path) -> Result<SpikingNetwork> {
    let wrong = |e: &dyn std::fmt::Display| Error::input(path.display().to_string(), e.to_string());
    let bytes = std::fs::read(path).map_err(|e| wrong(&e))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(&e))?;
    let json = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let json = json.ok_or_else(|| wrong(&"holds no spiking network (no `synfit` in its metadata)"))?;
    let structure: Structure = serde_json::from_str(json).map_err(|e| wrong(&e))?;
    if structure.version != VERSION {
        return Err(wrong(&format!("version {} of the format; this synfit reads {VERSION}", structure.version)));
    }
    let file = File { tensors: SafeTensors::deserialize(&bytes).map_err(|e| wrong(&e))?, path };
    let nodes = structure.nodes.iter().map(|n| file.node(n)).collect::<Result<Vec<_>>>()?;
    let net = SpikingNetwork {
        name: structure.name,
        chip: structure.chip,
        model: structure.model,
        steps: structure.steps,
        schedule: structure.schedule,
        input: structure.input,
        nodes,
        output: structure.output,
        head: structure.head,
        potential: structure.potential,
        zero_costs: structure.zero_costs,
    };
    net.check().map_err(|e| e.within(path.display()))?;
    Ok(net)
}

struct File<'a> {
    tensors: SafeTensors<'a>,
    path: &'a Path,
}

impl File<'_> {
    fn wrong(&self, tensor: &str, why: &str) -> Error {
        Error::input(format!("{}: {tensor}", self.path.display()), why)
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        self.tensors.tensor(name).map_err(|_| self.wrong(name, "no such tensor"))
    }

    fn flat<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self, name: &str, dtype: Dtype) -> Result<Vec<T>> {
        let view = self.tensor(name)?;
        if view.dtype() != dtype {
            return Err(self.wrong(name, &format!("is {:?}, not {dtype:?}", view.dtype())));
        }
        Ok(bytemuck::pod_collect_to_vec(view.data()))
    }

    fn codes(&self, name: &str) -> Result<Vec<i32>> {
        let view = self.tensor(name)?;
        Ok(match view.dtype() {
            Dtype::I8 => view.data().iter().map(|&b| i32::from(b as i8)).collect(),
            Dtype::I16 => self.flat::<i16>(name, Dtype::I16)?.into_iter().map(i32::from).collect(),
            _ => self.flat(name, Dtype::I32)?,
        })
    }

    fn node(&self, n: &NodeStructure) -> Result<SpikingNode> {
        let named = |suffix: &str| format!("{}.{suffix}", n.name);
        let op = match &n.op {
            OpStructure::Input => SpikingOp::Input,
            OpStructure::Neurons { synapses, fires, integer, settle } => {
                SpikingOp::Neurons(Layer { settle: *settle, ..self.layer(n, synapses, *fires, *integer)? })
            }
            OpStructure::SumPool { source, window } => {
                let weight = self.flat(&named("pool"), Dtype::U32)?;
                SpikingOp::SumPool { source: *source, window: *window, weight }
            }
            OpStructure::MaxPool { source, window } => SpikingOp::MaxPool { source: *source, window: *window },
            OpStructure::Concat { sources } => SpikingOp::Concat { sources: sources.clone() },
            OpStructure::Gather { source } => {
                SpikingOp::Gather { source: *source, index: self.flat(&named("index"), Dtype::U32)? }
            }
        };
        let decode = Decode {
            channels: n.channels,
            origin: self.flat(&named("origin"), Dtype::U32)?,
            gain: self.flat(&named("gain"), Dtype::F64)?,
            base: self.flat(&named("base"), Dtype::F64)?,
        };
        Ok(SpikingNode { name: n.name.clone(), shape: n.shape, op, decode, peak: n.peak, constant: n.constant })
    }

    fn layer(&self, n: &NodeStructure, structure: &[SynapseStructure], fires: bool, integer: bool) -> Result<Layer> {
        let named = |suffix: &str| format!("{}.{suffix}", n.name);
        let mut synapses = Vec::new();
        for (k, s) in structure.iter().enumerate() {
            let name = named(&format!("weight.{k}"));
            let shape = self.tensor(&name)?.shape().to_vec();
            if shape.len() != 4 || shape[0] != n.shape.c || shape[2..] != s.window.kernel {
                return Err(self.wrong(&name, "does not fit the layer"));
            }
            let weight = match integer {
                true => Weights::Codes { codes: self.codes(&name)?, shift: s.shift },
                false => Weights::Real(self.flat(&name, Dtype::F32)?),
            };
            synapses.push(Synapses { source: s.source, window: s.window, groups: s.groups, weight });
        }
        let state = match integer {
            true => State::Integer {
                bias: self.flat(&named("bias"), Dtype::I32)?,
                threshold: self.flat(&named("threshold"), Dtype::I32)?,
                initial: self.flat(&named("initial"), Dtype::I32)?,
            },
            false => State::Real {
                bias: self.flat(&named("bias"), Dtype::F32)?,
                initial: self.flat(&named("initial"), Dtype::F32)?,
            },
        };
        let types = named("types");
        let types = if self.tensors.tensor(&types).is_ok() { self.flat(&types, Dtype::U8)? } else { Vec::new() };
        Ok(Layer { synapses, state, fires, settle: 0, unit: self.flat(&named("unit"), Dtype::F64)?, types })
    }
}
