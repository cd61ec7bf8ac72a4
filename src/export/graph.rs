//! A NIR graph as it lies in a file: nodes with parameters, edges, and metadata. NIR is the exchange format of spiking
//! simulators (github.com/neuromorphs/NIR); its file is HDF5: /version, /node/type, /node/edges, /node/nodes/<name>/...

use std::path::Path;

use hdf5_pure::{DatasetBuilder, FileBuilder};

use crate::error::{Error, Result};

/// The version of the reference library whose form this is.
const VERSION: &str = "1.0.8";

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Float(f64),
    Whole(i64),
    F32(Vec<usize>, Vec<f32>),
    F64(Vec<usize>, Vec<f64>),
    I8(Vec<usize>, Vec<i8>),
    I16(Vec<usize>, Vec<i16>),
    I32(Vec<usize>, Vec<i32>),
    I64(Vec<usize>, Vec<i64>),
}

impl Value {
    /// A shape, or a pair.
    pub fn sizes(values: &[usize]) -> Value {
        Value::I64(vec![values.len()], values.iter().map(|v| *v as i64).collect())
    }

    /// The narrowest integers that hold all of `values`.
    pub fn integers(shape: Vec<usize>, values: &[i32]) -> Value {
        let within = |lo: i32, hi: i32| values.iter().all(|v| (lo..=hi).contains(v));
        if within(i8::MIN.into(), i8::MAX.into()) {
            Value::I8(shape, values.iter().map(|v| *v as i8).collect())
        } else if within(i16::MIN.into(), i16::MAX.into()) {
            Value::I16(shape, values.iter().map(|v| *v as i16).collect())
        } else {
            Value::I32(shape, values.to_vec())
        }
    }

    fn put(&self, data: &mut DatasetBuilder) {
        let dims = |shape: &[usize]| -> Vec<u64> { shape.iter().map(|s| *s as u64).collect() };
        match self {
            Value::Text(text) => data.with_vlen_strings(&[text]).with_shape(&[]),
            Value::Float(v) => data.with_f64_data(&[*v]).with_shape(&[]),
            Value::Whole(v) => data.with_i64_data(&[*v]).with_shape(&[]),
            Value::F32(shape, v) => data.with_f32_data(v).with_shape(&dims(shape)),
            Value::F64(shape, v) => data.with_f64_data(v).with_shape(&dims(shape)),
            Value::I8(shape, v) => data.with_i8_data(v).with_shape(&dims(shape)),
            Value::I16(shape, v) => data.with_i16_data(v).with_shape(&dims(shape)),
            Value::I32(shape, v) => data.with_i32_data(v).with_shape(&dims(shape)),
            Value::I64(shape, v) => data.with_i64_data(v).with_shape(&dims(shape)),
        };
    }
}

pub type Fields = Vec<(&'static str, Value)>;

#[derive(Debug, Clone, PartialEq)]
pub struct GraphNode {
    pub name: String,
    /// NIR's name of the type: Conv2d, Affine, IF, ...
    pub kind: &'static str,
    pub fields: Fields,
    pub metadata: Fields,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    pub nodes: Vec<GraphNode>,
    pub edges: Vec<(String, String)>,
    pub metadata: Fields,
}

/// Writes `graph` to `path`.
///
/// # Errors
/// Work: the file cannot be written.
pub fn write(graph: &Graph, path: &Path) -> Result<()> {
    let mut file = FileBuilder::new();
    file.create_dataset("version").with_vlen_strings(&[VERSION]).with_shape(&[]);
    let mut root = file.create_group("node");
    root.create_dataset("type").with_vlen_strings(&["NIRGraph"]).with_shape(&[]);
    let ends: Vec<&str> = graph.edges.iter().flat_map(|(from, to)| [from.as_str(), to.as_str()]).collect();
    root.create_dataset("edges").with_vlen_strings(&ends).with_shape(&[graph.edges.len() as u64, 2]);
    if !graph.metadata.is_empty() {
        let mut metadata = root.create_group("metadata");
        graph.metadata.iter().for_each(|(key, value)| value.put(metadata.create_dataset(key)));
        root.add_group(metadata.finish());
    }
    let mut nodes = root.create_group("nodes");
    for node in &graph.nodes {
        let mut group = nodes.create_group(&node.name);
        group.create_dataset("type").with_vlen_strings(&[node.kind]).with_shape(&[]);
        node.fields.iter().for_each(|(key, value)| value.put(group.create_dataset(key)));
        if !node.metadata.is_empty() {
            let mut metadata = group.create_group("metadata");
            node.metadata.iter().for_each(|(key, value)| value.put(metadata.create_dataset(key)));
            group.add_group(metadata.finish());
        }
        nodes.add_group(group.finish());
    }
    root.add_group(nodes.finish());
    file.add_group(root.finish());
    file.write(path).map_err(|e| Error::work(path.display().to_string(), e.to_string()))
}
