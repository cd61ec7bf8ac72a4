//! What sizes the user wants: `fc1=64`, `0.5`, `conv2=75%`, `neurons=20000`, `cores=12`.

use super::structure::Structure;
use crate::error::{Error, Result};
use crate::fit::prune::Size;
use crate::network::{Activation, Network, Op};

/// Of all layers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    /// Of the whole network.
    Neurons(usize),
    /// Of the chip.
    Cores(u64),
}

/// Sizes as they were asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Keep {
    /// Of layers by name, in order: a later one wins.
    pub named: Vec<(String, Size)>,
    /// Of every other layer that can be pruned.
    pub others: Option<Size>,
    pub total: Option<Total>,
}

impl Keep {
    pub fn is_all(&self) -> bool {
        *self == Keep::default()
    }

    /// # Errors
    /// Input: names the item that cannot be read.
    pub fn parse(items: &[String]) -> Result<Self> {
        let mut keep = Keep::default();
        for item in items.iter().map(|i| i.trim()) {
            match item.rsplit_once('=') {
                Some((name @ ("neurons" | "cores"), number)) => {
                    let number = number.trim().parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(|| {
                        Error::input("keep", format!("`{item}`: {name}=N takes a whole number")) //
                    })?;
                    let total = if name == "cores" { Total::Cores(number as u64) } else { Total::Neurons(number) };
                    if keep.total.replace(total).is_some() {
                        return Err(Error::input("keep", "neurons=N or cores=N, one of them and once"));
                    }
                }
                Some((layer, size)) => keep.named.push((layer.trim().to_string(), size.trim().parse()?)),
                None => keep.others = Some(item.parse()?),
            }
        }
        if keep.others.is_some() && keep.total.is_some() {
            return Err(Error::input(
                "keep",
                "a size for all layers and neurons=N or cores=N say the same twice: give one of them",
            ));
        }
        Ok(keep)
    }

    /// Per node: channels to keep, where fewer than all are wanted by name or by the size of all layers. With a total, the
    /// layers that are not named are open (`None`).
    ///
    /// # Errors
    /// Input: a name that no layer has, a layer that cannot be pruned, more channels than there are.
    pub fn sizes(&self, network: &Network, structure: &Structure) -> Result<Vec<Option<usize>>> {
        let mut sizes = vec![None; network.nodes.len()];
        let leaders = structure.leaders();
        if leaders.is_empty() {
            return Err(Error::input("keep", format!("{} has no layer that can be pruned", network.name)));
        }
        if let Some(size) = self.others {
            for &l in &leaders {
                let all = network.nodes[l].shape.c;
                sizes[l] = Some(match size {
                    Size::Nodes(n) => n.min(all),
                    share => share.of(all)?,
                });
            }
        }
        for (name, size) in &self.named {
            let layer = leader(network, structure, name)?;
            let subject = || format!("keep: layer {}", network.nodes[layer].name);
            sizes[layer] = Some(size.of(network.nodes[layer].shape.c).map_err(|e| e.within(subject()))?);
        }
        Ok(sizes)
    }
}

/// A layer whose channels can go, by its name.
///
/// # Errors
/// Input: there is none of that name, or it cannot be pruned (and why).
pub(super) fn leader(network: &Network, structure: &Structure, name: &str) -> Result<usize> {
    let layer = find(network, name, "keep")?;
    match &structure.blocked[layer] {
        None => Ok(layer),
        Some(why) => {
            let subject = format!("keep: layer {}", network.nodes[layer].name);
            Err(Error::input(subject, format!("cannot be pruned: it {why}")))
        }
    }
}

/// A layer by its name, or by its place: `conv2` is the second convolution, `fc1` the first dense layer. `key`: what asks.
///
/// # Errors
/// Input: there is none.
pub fn find(network: &Network, name: &str, key: &str) -> Result<usize> {
    let layers = || (0..network.nodes.len()).filter(|&i| matches!(network.nodes[i].op, Op::Neurons { .. }));
    if let Some(found) = layers().find(|&i| network.nodes[i].name == name) {
        return Ok(found);
    }
    let place = |prefix: &str, dense: bool| {
        let number: usize = name.strip_prefix(prefix)?.parse().ok()?;
        // of the trained network, which has no remainders
        let own = |i: &usize| !matches!(network.nodes[*i].op, Op::Neurons { activation: Activation::Remainder, .. });
        layers().filter(own).filter(|&i| (network.nodes[i].shape.area() == 1) == dense).nth(number.checked_sub(1)?)
    };
    place("conv", false).or_else(|| place("fc", true)).ok_or_else(|| {
        let known: Vec<&str> = layers().map(|i| network.nodes[i].name.as_str()).collect();
        let also = "or their places: conv1, conv2, .., fc1, fc2, ..";
        Error::input(key, format!("no layer is called `{name}`; there are {} {also}", known.join(", ")))
    })
}
