//! From the protobuf messages to a graph that can be walked: names resolved, order established, dead nodes gone.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use prost::Message;

use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};
use super::tensor::{self, Tensor};
use crate::error::{Error, Result};

/// The network's one input.
#[derive(Debug)]
pub struct Input {
    pub name: String,
    /// With the batch as dimension 0 (1 here, whatever the file says) where there are two dimensions or more.
    pub dims: Vec<usize>,
    /// The batch size that the file declares, where it is a number.
    pub batch: Option<usize>,
}

#[derive(Debug)]
pub struct OnnxNode {
    /// Its name, or that of its first output where it has none.
    pub name: String,
    pub op: String,
    /// An optional input that is left out is the empty string.
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    attributes: HashMap<String, AttributeProto>,
}

/// An ONNX graph with one input and one output.
#[derive(Debug)]
pub struct Graph {
    pub name: String,
    /// Version of the default operator set.
    pub opset: i64,
    pub input: Input,
    pub output: String,
    pub constants: HashMap<String, Tensor>,
    /// In topological order, only what the output needs.
    pub nodes: Vec<OnnxNode>,
}

impl OnnxNode {
    /// An error in one line: which node, which operator, what is wrong.
    pub fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::input("", format!("node \"{}\" ({}): {message}", self.name, self.op))
    }

    pub fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(a) => a.i.ok_or_else(|| self.error(format!("attribute {name} is not an integer"))),
        }
    }

    pub fn float(&self, name: &str, default: f32) -> Result<f32> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(a) => a.f.ok_or_else(|| self.error(format!("attribute {name} is not a number"))),
        }
    }

    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attributes.get(name).map(|a| a.ints.as_slice())
    }

    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        self.attributes.get(name).map(|a| a.floats.as_slice())
    }

    pub fn text(&self, name: &str, default: &str) -> Result<String> {
        match self.attributes.get(name) {
            None => Ok(default.to_string()),
            Some(a) => {
                a.s.as_ref()
                    .and_then(|s| String::from_utf8(s.clone()).ok())
                    .ok_or_else(|| self.error(format!("attribute {name} is not a text")))
            }
        }
    }

    pub fn tensor(&self, name: &str, folder: Option<&Path>) -> Result<Option<Tensor>> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(AttributeProto { t: Some(t), .. }) => {
                tensor::decode(t, folder).map(Some).map_err(|e| self.error(format!("attribute {name} {e}")))
            }
            Some(_) => Err(self.error(format!("attribute {name} is not a tensor"))),
        }
    }
}

/// Decodes a model. `folder` is where external data files are looked for.
pub fn parse(bytes: &[u8], folder: Option<&Path>) -> Result<Graph> {
    let model = ModelProto::decode(bytes)
        .map_err(|e| Error::input("", format!("is not an ONNX model, or is damaged ({e})")))?;
    let proto = model
        .graph
        .filter(|g| !g.node.is_empty())
        .ok_or_else(|| Error::input("", "is not an ONNX model: it holds no graph"))?;
    // Files before IR version 3 have no opset; they mean opset 1.
    let opset = model.opset_import.iter().filter(|o| o.domain.is_empty() || o.domain == "ai.onnx").map(|o| o.version);
    let opset = opset.max().unwrap_or(1);
    if opset < 7 {
        return Err(Error::input(
            "",
            format!("uses ONNX opset {opset}; opset 7 or later is needed (convert it with onnx.version_converter)"),
        ));
    }
    build(proto, opset, folder)
}

fn build(proto: GraphProto, opset: i64, folder: Option<&Path>) -> Result<Graph> {
    let output = match proto.output.as_slice() {
        [one] => one.name.clone(),
        several => {
            let names = several.iter().map(|o| o.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::input("", format!("has {} outputs ({names}); one is needed", several.len())));
        }
    };
    let nodes = order(proto.node, &output)?;
    let read: HashSet<&str> = nodes.iter().flat_map(|n| &n.inputs).map(String::as_str).collect();
    let used = |name: &str| name == output || read.contains(name);
    let mut constants = HashMap::new();
    for t in &proto.initializer {
        if used(&t.name) {
            let tensor =
                tensor::decode(t, folder).map_err(|e| Error::input("", format!("initializer \"{}\" {e}", t.name)))?;
            constants.insert(t.name.clone(), tensor);
        }
    }
    // Until IR version 3 initializers were listed among the inputs too.
    let inputs: Vec<&ValueInfoProto> =
        proto.input.iter().filter(|i| used(&i.name) && !constants.contains_key(&i.name)).collect();
    let input = match inputs.as_slice() {
        [one] => read_input(one)?,
        [] => return Err(Error::input("", format!("output \"{output}\" does not depend on any input"))),
        several => {
            let names = several.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::input("", format!("has {} inputs ({names}); one is needed", several.len())));
        }
    };
    Ok(Graph { name: proto.name, opset, input, output, constants, nodes })
}

fn read_input(info: &ValueInfoProto) -> Result<Input> {
    let error = |message: String| Error::input("", format!("input \"{}\" {message}", info.name));
    let shape = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let dim = &shape.ok_or_else(|| error("has no shape".into()))?.dim;
    let batched = dim.len() >= 2;
    let mut dims = Vec::with_capacity(dim.len());
    let mut batch = None;
    for (axis, d) in dim.iter().enumerate() {
        let value = d.dim_value.filter(|&v| v != 0);
        if axis == 0 && batched {
            batch = value.and_then(|v| usize::try_from(v).ok());
            dims.push(1);
            continue;
        }
        match (value, &d.dim_param) {
            (Some(v), _) => {
                dims.push(usize::try_from(v).map_err(|_| error(format!("has the negative dimension {v}")))?)
            }
            (None, Some(p)) if !p.is_empty() => {
                return Err(error(format!(
                    "has a dimension that is not fixed (\"{p}\", axis {axis}); only the batch, axis 0, may be"
                )));
            }
            _ => return Err(error(format!("has an unknown dimension (axis {axis}); only the batch, axis 0, may be"))),
        }
    }
    tensor::checked_len(&dims, tensor::MAX_ELEMENTS)
        .map_err(|_| error(format!("is too large: {}", tensor::show(&dims))))?;
    if dims.is_empty() {
        return Err(error("is a single number; a tensor is needed".into()));
    }
    Ok(Input { name: info.name.clone(), dims, batch })
}

/// Nodes that `output` needs, each after all it reads from.
fn order(protos: Vec<NodeProto>, output: &str) -> Result<Vec<OnnxNode>> {
    let mut producer: HashMap<&str, usize> = HashMap::new();
    for (i, n) in protos.iter().enumerate() {
        for o in n.output.iter().filter(|o| !o.is_empty()) {
            if producer.insert(o, i).is_some() {
                return Err(Error::input("", format!("two nodes write \"{o}\"")));
            }
        }
    }
    // Depth first without recursion (graphs can be thousands deep): a node is `Open` while its inputs are visited.
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut mark = vec![Mark::New; protos.len()];
    let mut sorted = Vec::new();
    let mut stack: Vec<(usize, usize)> = producer.get(output).map(|&i| (i, 0)).into_iter().collect();
    while let Some((node, next)) = stack.pop() {
        mark[node] = Mark::Open;
        match protos[node].input.get(next) {
            None => {
                mark[node] = Mark::Done;
                sorted.push(node);
            }
            Some(input) => {
                stack.push((node, next + 1));
                if let Some(&p) = producer.get(input.as_str()) {
                    match mark[p] {
                        Mark::New => stack.push((p, 0)),
                        Mark::Open => {
                            return Err(Error::input("", format!("the graph has a cycle through \"{input}\"")));
                        }
                        Mark::Done => {}
                    }
                }
            }
        }
    }
    // Of the valid orders the file's own is the one to keep, where it is valid: names in errors then come first first.
    let mut position = vec![usize::MAX; protos.len()];
    sorted.iter().enumerate().for_each(|(at, &n)| position[n] = at);
    let in_file_order = (0..protos.len()).filter(|&n| position[n] != usize::MAX).collect::<Vec<_>>();
    let valid =
        in_file_order.iter().all(|&n| protos[n].input.iter().filter_map(|i| producer.get(i.as_str())).all(|&p| p < n));
    let chosen = if valid { in_file_order } else { sorted };
    let mut taken: Vec<Option<NodeProto>> = protos.into_iter().map(Some).collect();
    Ok(chosen.into_iter().filter_map(|n| taken[n].take()).map(node).collect())
}

fn node(proto: NodeProto) -> OnnxNode {
    let name = if proto.name.is_empty() { proto.output.first().cloned().unwrap_or_default() } else { proto.name };
    // Operators of other domains get their full name, so that none is mistaken for an ONNX one.
    let op = match proto.domain.as_str() {
        "" | "ai.onnx" => proto.op_type,
        domain => format!("{domain}.{}", proto.op_type),
    };
    let attributes = proto.attribute.into_iter().map(|a| (a.name.clone(), a)).collect();
    OnnxNode { name, op, inputs: proto.input, outputs: proto.output, attributes }
}
