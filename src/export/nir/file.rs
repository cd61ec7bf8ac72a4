//! A NIR file as it lies on disk, whoever wrote it: nodes by name with their fields, edges, metadata. What the reference
//! reader (Python package nir) refuses of a graph's structure is refused here too.

use std::collections::BTreeSet;
use std::path::Path;

use hdf5_pure::{File, Group};

use crate::error::{Error, Result};

pub struct NirFile {
    path: String,
    /// By name.
    pub nodes: Vec<NirNode>,
    /// Places in `nodes`, from and to, in the file's order.
    pub edges: Vec<(usize, usize)>,
    root: Fields,
}

pub struct NirNode {
    pub name: String,
    /// NIR's name of the type.
    pub kind: String,
    pub fields: Fields,
}

/// The fields of a node, or of its metadata.
pub struct Fields {
    /// For messages: file and node.
    subject: String,
    group: Group,
}

/// Numbers with their dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers<T> {
    pub dims: Vec<usize>,
    pub values: Vec<T>,
}

impl NirFile {
    /// # Errors
    /// Input: not an HDF5 file, no graph in it, a graph within the graph, edges that lead nowhere or twice the same way;
    /// names the file and the node.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let wrong = |why: String| Error::input(&name, why);
        let file = File::open(path).map_err(|e| wrong(format!("is no NIR file that synfit can open ({e})")))?;
        let group = file.group("node").map_err(|_| wrong("is no NIR file: it holds no `node`".into()))?;
        let root = Fields { subject: name.clone(), group };
        if root.text("type")? != "NIRGraph" {
            return Err(wrong("holds a node and no graph".into()));
        }
        let all = root.group.group("nodes").map_err(|_| wrong("holds a graph without nodes".into()))?;
        let mut names = all.groups().map_err(|e| wrong(e.to_string()))?;
        names.sort();
        let mut nodes = Vec::with_capacity(names.len());
        for node in names {
            let group = all.group(&node).map_err(|e| wrong(format!("node {node}: {e}")))?;
            let fields = Fields { subject: format!("{name}: node {node}"), group };
            let kind = fields.text("type")?;
            if kind == "NIRGraph" {
                return Err(fields.wrong("is a graph within the graph, which synfit does not read"));
            }
            nodes.push(NirNode { name: node, kind, fields });
        }
        let ends = root.strings("edges")?;
        let mut edges = Vec::with_capacity(ends.len() / 2);
        let mut seen = BTreeSet::new();
        for pair in ends.chunks_exact(2) {
            let place = |end: &String| {
                let found = nodes.iter().position(|n| n.name == *end);
                found.ok_or_else(|| wrong(format!("an edge names {end}, which is no node of the graph")))
            };
            let edge = (place(&pair[0])?, place(&pair[1])?);
            if !seen.insert(edge) {
                return Err(wrong(format!("the edge from {} to {} is there twice", pair[0], pair[1])));
            }
            edges.push(edge);
        }
        Ok(Self { path: name, nodes, edges, root })
    }

    /// Of the whole graph.
    pub fn metadata(&self) -> Option<Fields> {
        self.root.metadata()
    }

    /// Nodes that lead to `node`.
    pub fn sources(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.edges.iter().filter(move |e| e.1 == node).map(|e| e.0)
    }

    /// An error about the file.
    pub fn wrong(&self, why: impl Into<String>) -> Error {
        Error::input(&self.path, why)
    }
}

impl Fields {
    pub fn metadata(&self) -> Option<Fields> {
        let group = self.group.group("metadata").ok()?;
        Some(Fields { subject: format!("{}: metadata", self.subject), group })
    }

    pub fn wrong(&self, why: impl Into<String>) -> Error {
        Error::input(&self.subject, why)
    }

    pub fn wrong_field(&self, field: &str, why: impl std::fmt::Display) -> Error {
        Error::input(format!("{}: {field}", self.subject), why.to_string())
    }

    pub fn has(&self, field: &str) -> bool {
        self.group.dataset(field).is_ok()
    }

    fn strings(&self, field: &str) -> Result<Vec<String>> {
        let data = self.group.dataset(field).map_err(|_| self.wrong_field(field, "is not there"))?;
        data.read_string().map_err(|e| self.wrong_field(field, e))
    }

    pub fn text(&self, field: &str) -> Result<String> {
        self.strings(field)?.pop().ok_or_else(|| self.wrong_field(field, "is empty"))
    }

    fn read<T>(
        &self,
        field: &str,
        read: impl Fn(&hdf5_pure::Dataset) -> std::result::Result<Vec<T>, hdf5_pure::Error>,
    ) -> Result<Numbers<T>> {
        let data = self.group.dataset(field).map_err(|_| self.wrong_field(field, "is not there"))?;
        let failed = |e: hdf5_pure::Error| self.wrong_field(field, format!("holds no numbers ({e})"));
        let dims: Vec<usize> = data.shape().map_err(failed)?.into_iter().map(|d| d as usize).collect();
        let values = read(&data).map_err(failed)?;
        if dims.iter().product::<usize>() != values.len() {
            return Err(self.wrong_field(field, format!("holds {} numbers of {dims:?}", values.len())));
        }
        Ok(Numbers { dims, values })
    }

    /// # Errors
    /// Input: the field is missing, holds no numbers, or NaN or infinity.
    pub fn reals(&self, field: &str) -> Result<Numbers<f64>> {
        let found = self.read(field, hdf5_pure::Dataset::read_f64)?;
        match found.values.iter().all(|v| v.is_finite()) {
            true => Ok(found),
            false => Err(self.wrong_field(field, "holds NaN or infinity")),
        }
    }

    /// # Errors
    /// Input: the field is missing or holds no numbers.
    pub fn whole(&self, field: &str) -> Result<Numbers<i64>> {
        self.read(field, hdf5_pure::Dataset::read_i64)
    }

    /// # Errors
    /// As `whole`; not one number.
    pub fn one_whole(&self, field: &str) -> Result<i64> {
        match self.whole(field)?.values[..] {
            [one] => Ok(one),
            _ => Err(self.wrong_field(field, "must be one number")),
        }
    }

    /// # Errors
    /// As `reals`; not one number.
    pub fn one_real(&self, field: &str) -> Result<f64> {
        match self.reals(field)?.values[..] {
            [one] => Ok(one),
            _ => Err(self.wrong_field(field, "must be one number")),
        }
    }

    /// Dimensions: none zero, the product within reason.
    ///
    /// # Errors
    /// As `whole`; not such dimensions.
    pub fn sizes(&self, field: &str) -> Result<Vec<usize>> {
        let found: Vec<usize> = self.whole(field)?.values.iter().map(|v| usize::try_from(*v).unwrap_or(0)).collect();
        let len = found.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        match len.is_some_and(|n| (1..1 << 30).contains(&n)) {
            true => Ok(found),
            false => Err(self.wrong_field(field, "is no size that synfit can hold")),
        }
    }

    /// Rows and columns; one number for both counts twice.
    ///
    /// # Errors
    /// As `whole`; not two numbers of `least` or more.
    pub fn pair(&self, field: &str, least: i64) -> Result<[i64; 2]> {
        let found = self.whole(field)?.values;
        let pair = match found[..] {
            [a] => [a, a],
            [a, b] => [a, b],
            _ => return Err(self.wrong_field(field, "must be two numbers")),
        };
        match pair.iter().all(|v| (least..1 << 20).contains(v)) {
            true => Ok(pair),
            false => Err(self.wrong_field(field, format!("{pair:?} is out of range"))),
        }
    }
}
