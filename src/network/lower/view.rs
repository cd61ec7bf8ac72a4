//! The values that flow along the edges of an ONNX graph while it is lowered: a constant, or a view of a node's
//! tensor. Rearranging a view costs nothing in the network; only an operator that needs a tensor of a certain shape
//! and order makes a node of it.

use std::rc::Rc;

use super::map::{Mapped, ZERO};
use crate::network::fold::{Draft, Work};
use crate::network::layers::{Head, Shape};
use crate::network::onnx::Tensor;

#[derive(Debug, Clone)]
pub enum Value {
    Constant(Rc<Tensor>),
    Signal(View),
}

impl Value {
    pub fn dims(&self) -> &[usize] {
        match self {
            Value::Constant(t) => &t.dims,
            Value::Signal(v) => &v.dims,
        }
    }

    /// The same elements under other dimensions.
    pub fn with_dims(&self, dims: Vec<usize>) -> Value {
        match self {
            Value::Constant(t) => Value::Constant(Rc::new(Tensor { dims, values: t.values.clone() })),
            Value::Signal(v) => Value::Signal(View { dims, ..v.clone() }),
        }
    }

    pub fn rearranged(&self, mapped: Mapped) -> Result<Value, String> {
        let (dims, map) = mapped?;
        Ok(match self {
            Value::Constant(t) => Value::Constant(Rc::new(t.pick(dims, &map))),
            Value::Signal(v) => Value::Signal(v.rearranged(dims, &map)),
        })
    }
}

/// Elements of a node's tensor (of one image) under ONNX dimensions, of which the first is usually the batch, 1.
#[derive(Debug, Clone)]
pub struct View {
    pub node: usize,
    pub dims: Vec<usize>,
    /// Element i of the view is element `index[i]` of the node (zero for `ZERO`); `None`: all of them in order.
    pub index: Option<Rc<Vec<u32>>>,
    /// Set behind a Softmax and the like, which only the network's output may be.
    pub head: Option<(Head, String)>,
}

impl View {
    pub fn of(draft: &Draft, node: usize, dims: Vec<usize>) -> Self {
        debug_assert_eq!(dims.iter().product::<usize>(), draft.shape(node).len());
        Self { node, dims, index: None, head: None }
    }

    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn rearranged(&self, dims: Vec<usize>, map: &[u32]) -> View {
        let index: Vec<u32> = match &self.index {
            None => map.to_vec(),
            Some(index) => map.iter().map(|&i| if i == ZERO { ZERO } else { index[i as usize] }).collect(),
        };
        View { node: self.node, dims, index: Some(Rc::new(index)), head: self.head.clone() }
    }

    /// Whether the view shows the whole of the node, in order.
    pub fn is_whole(&self, draft: &Draft) -> bool {
        match &self.index {
            None => true,
            Some(index) => {
                index.len() == draft.shape(self.node).len() && index.iter().enumerate().all(|(i, &j)| i == j as usize)
            }
        }
    }

    /// Where each element of the node went, if the view shows every one of them exactly once.
    pub fn inverse(&self, draft: &Draft) -> Option<Vec<u32>> {
        let len = draft.shape(self.node).len();
        let Some(index) = &self.index else { return Some((0..len as u32).collect()) };
        if index.len() != len {
            return None;
        }
        let mut back = vec![ZERO; len];
        for (i, &j) in index.iter().enumerate() {
            match back.get_mut(j as usize) {
                Some(slot) if *slot == ZERO => *slot = i as u32,
                _ => return None,
            }
        }
        Some(back)
    }

    /// The node that holds exactly this view's elements as a tensor of `shape`; made if there is none yet.
    pub fn node_of(&self, draft: &mut Draft, shape: Shape, name: &str) -> usize {
        debug_assert_eq!(shape.len(), self.len());
        let whole = self.is_whole(draft);
        if whole && draft.shape(self.node) == shape {
            return self.node;
        }
        let index = match &self.index {
            Some(index) if !whole => index.to_vec(),
            _ => (0..shape.len() as u32).collect(),
        };
        draft.push(&format!("{name}.in"), shape, Work::Gather { source: self.node, index })
    }
}

/// One image's shape for a tensor of these dimensions (the batch first): channels, height, width.
pub fn image_shape(dims: &[usize]) -> Shape {
    match dims {
        [] => Shape::new(1, 1, 1),
        [n] => Shape::new(*n, 1, 1),
        [b, c] => Shape::new(b * c, 1, 1),
        [b, c, h] => Shape::new(b * c, *h, 1),
        [b, c, h, w @ ..] => Shape::new(b * c, *h, w.iter().product()),
    }
}
