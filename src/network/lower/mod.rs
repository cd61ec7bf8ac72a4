//! Lowers an ONNX graph to synfit's network: walks the nodes in order, folds what is constant, turns every linear
//! operator into a map of blocks, and hands the draft to `fold`, which merges maps, activations and rearrangements.
//! The graph is read for one image: dimension 0, the batch, is 1 throughout.

mod arithmetic;
mod constant;
mod linear;
mod map;
mod pointwise;
mod pool;
mod rearrange;
mod sliding;
mod view;

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use super::fold::{self, Draft, Work};
use super::layers::{Activation, Head, Layout, Network, Shape};
use super::onnx::tensor::{MAX_ELEMENTS, checked_len};
use super::onnx::{self, Graph, OnnxNode, Tensor, Values};
use crate::error::{Error, Result};
use view::{Value, View, image_shape};

/// Reads a trained network from an ONNX file (external data files are looked for next to it).
///
/// Errors are of kind `Input` and name the file and, where there is one, the node.
///
/// ```
/// let network = synfit::network::read("configs/digits/digits_cnn.onnx".as_ref())?;
/// assert_eq!(network.input_shape().to_string(), "1x8x8");
/// assert_eq!(network.output_shape().len(), 10);
/// # Ok::<(), synfit::Error>(())
/// ```
pub fn read(path: &Path) -> Result<Network> {
    let bytes = std::fs::read(path).map_err(|e| Error::input(path.display().to_string(), e.to_string()))?;
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let folder = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    from_bytes(&file, &bytes, folder)
}

/// As [`read`], from the bytes of a file called `name`; `folder` is where external data files may be.
pub fn from_bytes(name: &str, bytes: &[u8], folder: Option<&Path>) -> Result<Network> {
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let lowered = onnx::parse(bytes, folder).and_then(|graph| {
        let title = if stem.is_empty() { graph.name.clone() } else { stem };
        lower(&title, graph, folder)
    });
    lowered.map_err(|e| e.within(name))
}

/// State of the walk.
pub(super) struct Lowering<'a> {
    opset: i64,
    batch: Option<usize>,
    folder: Option<&'a Path>,
    draft: Draft,
    values: HashMap<String, Value>,
}

fn lower(title: &str, graph: Graph, folder: Option<&Path>) -> Result<Network> {
    let mut walk = Lowering {
        opset: graph.opset,
        batch: graph.input.batch,
        folder,
        draft: Draft::default(),
        values: HashMap::new(),
    };
    let layout = walk.start(&graph)?;
    for (name, tensor) in graph.constants {
        walk.values.insert(name, Value::Constant(Rc::new(tensor)));
    }
    for node in &graph.nodes {
        walk.visit(node)?;
    }
    let (output, head) = walk.finish(&graph.output)?;
    fold::network(walk.draft, output, title, head, layout)
}

impl Lowering<'_> {
    /// Makes node 0. A graph that begins by moving the channels of its input forward takes channels-last images;
    /// node 0 holds them channels first all the same, and that Transpose becomes the identity.
    fn start(&mut self, graph: &Graph) -> Result<Layout> {
        let dims = graph.input.dims.clone();
        let rank = dims.len();
        let channels_last = (3..=4).contains(&rank) && leads_to_transpose(graph, rank);
        let (layout, view) = if channels_last {
            let shape = image_shape(&[&[1, dims[rank - 1]], &dims[1..rank - 1]].concat());
            self.draft.push(&graph.input.name, shape, Work::Input);
            let whole = View::of(&self.draft, 0, vec![1, shape.c, shape.area()]);
            let (_, map) = map::transpose(&whole.dims, &[0, 2, 1]).map_err(|e| Error::input("", e))?;
            (Layout::Nhwc, whole.rearranged(dims, &map))
        } else {
            self.draft.push(&graph.input.name, image_shape(&dims), Work::Input);
            (Layout::Nchw, View::of(&self.draft, 0, dims))
        };
        if view.len() == 0 {
            return Err(Error::input("", format!("input \"{}\" is empty", graph.input.name)));
        }
        self.values.insert(graph.input.name.clone(), Value::Signal(view));
        Ok(layout)
    }

    /// The output node, in the order of the ONNX output, and what stands behind it.
    fn finish(&mut self, output: &str) -> Result<(usize, Head)> {
        let view = match self.values.get(output) {
            Some(Value::Signal(view)) => view.clone(),
            Some(Value::Constant(_)) => {
                return Err(Error::input("", format!("output \"{output}\" does not depend on the input")));
            }
            None => return Err(Error::input("", format!("no node writes the output \"{output}\""))),
        };
        if let Some((head, _)) = view.head {
            return Ok((self.output_node(&view), head));
        }
        if let Work::Activate { source, activation: Activation::Sigmoid } = self.draft.nodes[view.node].op {
            let before = View { node: source, ..view };
            return Ok((self.output_node(&before), Head::Sigmoid));
        }
        Ok((self.output_node(&view), Head::None))
    }

    fn output_node(&mut self, view: &View) -> usize {
        if view.is_whole(&self.draft) {
            return view.node;
        }
        let shape = image_shape(&view.dims);
        view.node_of(&mut self.draft, shape, "output")
    }

    fn visit(&mut self, node: &OnnxNode) -> Result<()> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(if name.is_empty() {
                None
            } else {
                Some(
                    self.values
                        .get(name)
                        .cloned()
                        .ok_or_else(|| node.error(format!("reads \"{name}\", which nothing writes")))?,
                )
            });
        }
        let args = Args { node, inputs };
        let outputs = self.apply(&args)?;
        if outputs.len() < node.outputs.iter().filter(|o| !o.is_empty()).count() && !node.outputs.is_empty() {
            // Only the first output of Dropout, BatchNormalization and MaxPool means anything here.
            let extra = node.outputs.iter().skip(outputs.len()).find(|o| !o.is_empty());
            tracing::debug!("node {}: output {extra:?} is left out", node.name);
        }
        for (name, value) in node.outputs.iter().zip(outputs) {
            if let Value::Signal(view) = &value {
                let len = checked_len(&view.dims, MAX_ELEMENTS).map_err(|e| node.error(e))?;
                if len == 0 {
                    return Err(node.error("its output is empty"));
                }
            }
            self.values.insert(name.clone(), value);
        }
        Ok(())
    }

    fn apply(&mut self, args: &Args) -> Result<Vec<Value>> {
        let node = args.node;
        if let Some(rearranged) = self.rearrange(args)? {
            return Ok(rearranged);
        }
        if args.inputs.iter().flatten().all(|v| matches!(v, Value::Constant(_))) {
            return constant::fold(args, self.folder);
        }
        if node.op == "Shape" || node.op == "Size" {
            return self.shape_of(args);
        }
        args.refuse_behind_head()?;
        let view = match node.op.as_str() {
            "Conv" => self.conv(args)?,
            "Gemm" => self.gemm(args)?,
            "MatMul" => self.matmul(args)?,
            "BatchNormalization" => self.batch_norm(args)?,
            "Add" | "Sub" | "Mul" | "Div" | "Sum" | "Mean" | "Neg" => self.arithmetic(args)?,
            "Relu" | "LeakyRelu" | "PRelu" | "Clip" | "Sigmoid" | "Tanh" | "Softplus" | "Elu" | "HardSigmoid"
            | "Max" | "Min" => self.activation(args)?,
            "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" | "ReduceMax" => {
                self.pool(args)?
            }
            "Concat" => self.concat(args)?,
            "Softmax" | "LogSoftmax" | "ArgMax" => self.head(args)?,
            _ => return Err(args.unsupported("")),
        };
        Ok(vec![Value::Signal(view)])
    }

    fn shape_of(&self, args: &Args) -> Result<Vec<Value>> {
        let dims: Vec<i64> = args.value(0)?.dims().iter().map(|&d| d as i64).collect();
        if args.node.op == "Size" {
            return Ok(vec![Value::Constant(Rc::new(Tensor::ints(vec![], vec![dims.iter().product()])))]);
        }
        let rank = dims.len() as i64;
        let bound = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
        let (start, end) = (bound(args.node.int("start", 0)?), bound(args.node.int("end", rank)?));
        let part = dims.get(start..end.max(start)).unwrap_or_default().to_vec();
        Ok(vec![Value::Constant(Rc::new(Tensor::ints(vec![part.len()], part)))])
    }

    /// Softmax, LogSoftmax, ArgMax: only over the whole output (checked here) and only at the very end (checked where
    /// the result is used).
    fn head(&mut self, args: &Args) -> Result<View> {
        let view = args.signal(0)?;
        let head = match args.node.op.as_str() {
            "Softmax" => Head::Softmax,
            "LogSoftmax" => Head::LogSoftmax,
            _ => Head::ArgMax,
        };
        let default = if head == Head::ArgMax {
            0
        } else if self.opset < 13 {
            1
        } else {
            -1
        };
        let axis = args.axis(args.node.int("axis", default)?, view.dims.len())?;
        // Before opset 13 Softmax ran over all the axes from `axis` on.
        let over: usize =
            if head == Head::ArgMax || self.opset >= 13 { view.dims[axis] } else { view.dims[axis..].iter().product() };
        if over != view.len() {
            return Err(args
                .node
                .error("runs over a part of its input only; as the network's output it must run over all of it"));
        }
        if head == Head::ArgMax && args.node.int("select_last_index", 0)? != 0 {
            return Err(args.node.error("select_last_index is not supported"));
        }
        Ok(View { head: Some((head, args.node.name.clone())), ..view })
    }
}

/// Whether the input goes, through element-wise operators at the most, into Transposes to channels first only.
fn leads_to_transpose(graph: &Graph, rank: usize) -> bool {
    let forward: Vec<i64> = [&[0, rank as i64 - 1][..], &(1..rank as i64 - 1).collect::<Vec<_>>()].concat();
    let mut open = vec![graph.input.name.as_str()];
    let mut seen = 0;
    while let Some(name) = open.pop() {
        for node in graph.nodes.iter().filter(|n| n.inputs.iter().any(|i| i == name)) {
            seen += 1;
            match node.op.as_str() {
                "Transpose" if node.ints("perm") == Some(&forward) => {}
                "Add" | "Sub" | "Mul" | "Div" | "Cast" | "Identity" if seen < 64 => {
                    open.extend(node.outputs.first().map(String::as_str))
                }
                _ => return false,
            }
        }
    }
    seen > 0
}

/// One node with the values of its inputs.
pub(super) struct Args<'a> {
    node: &'a OnnxNode,
    inputs: Vec<Option<Value>>,
}

impl Args<'_> {
    fn optional(&self, i: usize) -> Option<&Value> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    fn value(&self, i: usize) -> Result<&Value> {
        self.optional(i).ok_or_else(|| self.node.error(format!("input {i} is missing")))
    }

    /// Input `i`, which depends on the network's input.
    fn signal(&self, i: usize) -> Result<View> {
        match self.value(i)? {
            Value::Signal(view) => Ok(view.clone()),
            Value::Constant(_) => Err(self.node.error(format!("input {i} must depend on the network's input"))),
        }
    }

    /// Input `i`, which must be known without the network's input.
    fn constant(&self, i: usize) -> Result<Rc<Tensor>> {
        match self.value(i)? {
            Value::Constant(t) => Ok(t.clone()),
            Value::Signal(_) => {
                Err(self.node.error(format!("input {i} (\"{}\") must be constant", self.node.inputs[i])))
            }
        }
    }

    fn optional_constant(&self, i: usize) -> Result<Option<Rc<Tensor>>> {
        self.optional(i).map(|_| self.constant(i)).transpose()
    }

    /// Integers from input `i`, if it is there.
    fn ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        Ok(self.optional_constant(i)?.map(|t| t.to_i64()))
    }

    /// One integer list that was an attribute in older opsets and is an input in newer ones.
    fn ints_of(&self, attribute: &str, input: usize) -> Result<Option<Vec<i64>>> {
        match self.node.ints(attribute) {
            Some(ints) => Ok(Some(ints.to_vec())),
            None => self.ints(input),
        }
    }

    /// Weights: a constant that must be finite.
    fn weights(&self, i: usize) -> Result<(Vec<usize>, Vec<f32>)> {
        let t = self.constant(i)?;
        let values = t.to_f32();
        self.finite(&values, &format!("\"{}\"", self.node.inputs[i]))?;
        Ok((t.dims.clone(), values))
    }

    fn finite(&self, values: &[f32], what: &str) -> Result<()> {
        match values.iter().find(|v| !v.is_finite()) {
            Some(bad) => Err(self.node.error(format!("{what} holds {bad}; all its values must be finite"))),
            None => Ok(()),
        }
    }

    /// An axis counted from the end where negative.
    fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let at = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        usize::try_from(at)
            .ok()
            .filter(|&a| a < rank)
            .ok_or_else(|| self.node.error(format!("axis {axis} is outside its input's {rank} dimensions")))
    }

    fn unsupported(&self, detail: &str) -> Error {
        self.node.error(format!("no spiking chip has this operator{detail}; remove it, or cut the network before it"))
    }

    /// Softmax and the like may stand at the network's output only.
    fn refuse_behind_head(&self) -> Result<()> {
        for value in self.inputs.iter().flatten() {
            if let Value::Signal(View { head: Some((head, name)), .. }) = value {
                // ArgMax of Softmax is ArgMax.
                if self.node.op == "ArgMax" && *head != Head::ArgMax {
                    continue;
                }
                return Err(Error::input(
                    "",
                    format!(
                        "node \"{name}\" ({head:?}): no spiking chip has this operator inside a network, only its output may have it (\"{}\" follows)",
                        self.node.name
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Whether a tensor's values are all zero.
fn is_zero(t: &Tensor) -> bool {
    match &t.values {
        Values::Floats(v) => v.iter().all(|&x| x == 0.0),
        Values::Ints(v) => v.iter().all(|&x| x == 0),
    }
}

/// Adds a node after checking that its tensor is of a size that one can hold.
fn push_checked(draft: &mut Draft, args: &Args, shape: Shape, op: Work) -> Result<usize> {
    checked_len(&[shape.c, shape.h, shape.w], MAX_ELEMENTS).map_err(|e| args.node.error(e))?;
    if shape.is_empty() {
        return Err(args.node.error(format!("its output {shape} is empty")));
    }
    Ok(draft.push(&args.node.name, shape, op))
}
