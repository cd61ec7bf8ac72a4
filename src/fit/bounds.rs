//! Bounds on stored synapses, in the shapes that chips and users state them.

use crate::error::{Error, Result};

/// One side of the box.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Bounds {
    /// No bound on this side.
    #[default]
    None,
    /// The same bound for every synapse.
    Scalar(f64),
    /// m: one bound a row (output).
    Row(Vec<f64>),
    /// m x n: one bound a synapse.
    Element(Vec<f64>),
}

impl Bounds {
    /// The bound of synapse (o, i) among `n` inputs; `open` (minus or plus infinity) where there is none.
    pub fn at(&self, o: usize, i: usize, n: usize, open: f64) -> f64 {
        match self {
            Bounds::None => open,
            Bounds::Scalar(v) => *v,
            Bounds::Row(rows) => rows[o],
            Bounds::Element(all) => all[o * n + i],
        }
    }

    pub fn is_none(&self) -> bool {
        matches!(self, Bounds::None)
    }

    fn values(&self) -> &[f64] {
        match self {
            Bounds::None => &[],
            Bounds::Scalar(v) => std::slice::from_ref(v),
            Bounds::Row(all) | Bounds::Element(all) => all,
        }
    }

    /// Checks shape and order of a box for an m x n problem.
    ///
    /// # Errors
    /// `Input`: a wrong number of bounds, NaN, or a lower bound above its upper one (says where).
    pub fn check(lower: &Bounds, upper: &Bounds, m: usize, n: usize) -> Result<()> {
        for (name, side) in [("lower", lower), ("upper", upper)] {
            let want = match side {
                Bounds::None | Bounds::Scalar(_) => side.values().len(),
                Bounds::Row(_) => m,
                Bounds::Element(_) => m * n,
            };
            if side.values().len() != want {
                return Err(Error::input(
                    name,
                    format!("holds {} bounds where {want} are needed", side.values().len()),
                ));
            }
            if side.values().iter().any(|v| v.is_nan()) {
                return Err(Error::input(name, "holds NaN"));
            }
        }
        for o in 0..m {
            for i in 0..n {
                let (l, u) = (lower.at(o, i, n, f64::NEG_INFINITY), upper.at(o, i, n, f64::INFINITY));
                if l > u || l == f64::INFINITY || u == f64::NEG_INFINITY {
                    return Err(Error::input(
                        "lower",
                        format!("{l} is above the upper bound {u} at output {o}, input {i}"),
                    ));
                }
            }
        }
        Ok(())
    }
}
