//! Whether layers' problems fit the memory of host and devices, and which way they take: what cannot be done is told before
//! any work, which way a layer takes before its pass over the images.

use super::layer::Task;
use super::walk::Walk;
use super::{sampled, views};
use crate::compute::{free_host_bytes, gram};
use crate::error::{Error, Result};
use crate::fit;
use crate::network::Op;

/// What a layer asks for.
#[derive(Debug, Clone, Copy)]
struct Ask {
    /// Inputs, groups, images.
    inputs: usize,
    groups: usize,
    images: usize,
    /// An image is a sample: it is dense.
    dense: bool,
    /// The chip's rules allow a fit from samples.
    allowed: bool,
}

/// n x n matrices in f64 beside one a group: the problem's H, the system's, its scaled form, factor and inverse.
const COPIES: u64 = 5;

impl Ask {
    /// Bytes of the Gram matrix and its factor.
    fn gram(&self) -> u64 {
        let square = (self.inputs as u64).saturating_mul(self.inputs as u64);
        square.saturating_mul(size_of::<f64>() as u64).saturating_mul(self.groups as u64 + COPIES)
    }

    /// The error of a layer whose Gram matrix exceeds `free` bytes.
    fn refusal(&self, free: u64) -> Option<String> {
        let need = self.gram();
        if need <= free {
            return None;
        }
        let (n, images) = (self.inputs, self.images);
        let way = match (self.dense, self.allowed) {
            (true, true) => {
                format!("with fewer images than inputs (there are {images}) it is fitted from them instead")
            }
            (true, false) => {
                "from its samples it could be fitted without, but not under these bounds, signs, palettes or \
                              method"
                    .into()
            }
            (false, _) => "only dense layers can be fitted without".into(),
        };
        Some(format!(
            "the Gram matrix of its {n} inputs and what it is solved with take {} where {} are free; {way}",
            size(need),
            size(free)
        ))
    }
}

pub(super) fn size(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

impl Walk<'_> {
    /// Looks at all layers from `first` (of the layers of neurons) on before any of them is worked at.
    ///
    /// # Errors
    /// `Input`: the parameters of the network do not fit a device's budget. `Work`: the host has no room for the Gram matrix
    /// of a layer that cannot do without.
    pub(super) fn plan_room(&self, first: usize) -> Result<()> {
        let layers: Vec<usize> =
            (0..self.network.nodes.len()).filter(|&i| matches!(self.network.nodes[i].op, Op::Neurons { .. })).collect();
        // trained weights and codes
        let parameters = (2 * self.network.parameters() * size_of::<f32>()) as u64;
        for dev in self.team.devices() {
            if let Some(budget) = dev.budget().filter(|budget| parameters > budget / 2) {
                let (need, budget) = (size(parameters), size(budget));
                let message = format!(
                    "device: the parameters of both networks take {need} of {}, more than half of {budget}; give it more, or \
                     take --device cpu",
                    dev.info().name
                );
                return Err(Error::input("memory", message));
            }
        }
        let allowed = fit::dual_applies(&self.spec());
        let free = free_host_bytes(self.options.host_bytes);
        for &index in &layers[first.min(layers.len())..] {
            let node = &self.network.nodes[index];
            let Op::Neurons { blocks, .. } = &node.op else { continue };
            let inputs = blocks.iter().map(|b| self.channels(b.source) / b.groups * b.window.taps()).sum();
            let groups = blocks.first().map_or(1, |b| b.groups);
            let dense = sampled::dense(blocks, node.shape, |source| self.network.nodes[source].shape);
            let images = self.images.len();
            // one that its samples may do for is looked at when its turn comes
            if dense && allowed && images < inputs {
                continue;
            }
            let ask = Ask { inputs, groups, images, dense, allowed };
            if let Some(message) = free.and_then(|free| ask.refusal(free)) {
                return Err(Error::work(format!("layer {}", node.name), message));
            }
        }
        Ok(())
    }

    /// Channels that the spiking twin of a node will have: those that stay, and so many neurons for each.
    fn channels(&self, index: usize) -> usize {
        let node = &self.network.nodes[index];
        let kept = self.plan.as_ref().and_then(|plan| plan.kept.get(&index));
        match &node.op {
            Op::Input => node.shape.c,
            Op::Neurons { activation, .. } => {
                let kept = kept.map_or(node.shape.c, Vec::len);
                kept * views::population(*activation, self.options.population) as usize
            }
            Op::AveragePool { source, .. } | Op::MaxPool { source, .. } => self.channels(*source),
            Op::Concat { sources } => sources.iter().map(|&s| self.channels(s)).sum(),
            Op::Gather { source, .. } => {
                let of = self.network.nodes[*source].shape.c;
                (node.shape.c * self.channels(*source)).div_ceil(of.max(1))
            }
        }
    }

    fn ask(&self, task: &Task) -> Ask {
        Ask {
            inputs: task.inputs(),
            groups: task.groups,
            images: self.images.len(),
            dense: self.is_dense(task),
            allowed: fit::dual_applies(&self.spec()),
        }
    }

    /// Whether the job leaves the host no room for the layer's Gram matrix, whatever else it holds.
    pub(super) fn beyond_budget(&self, task: &Task) -> bool {
        self.options.host_bytes.is_some_and(|budget| self.ask(task).gram() > budget)
    }

    /// Says which way a large layer takes.
    ///
    /// # Errors
    /// `Work`: the host has no room for its Gram matrix, and it cannot do without.
    pub(super) fn room(&self, task: &Task, by_samples: bool) -> Result<()> {
        let ask = self.ask(task);
        if by_samples {
            let (n, images) = (ask.inputs, ask.images);
            let own = size((n * images * size_of::<f64>() * 3) as u64);
            let gram = size(ask.gram());
            tracing::info!(
                "{}: fitted from its {images} samples in {own}, as the Gram matrix of {n} inputs takes {gram}",
                task.name
            );
            return Ok(());
        }
        for dev in self.team.devices() {
            if !gram::fits(dev, &self.patches(task), task.shape, task.groups) {
                let (name, left) = (&dev.info().name, size(dev.room()));
                tracing::info!(
                    "{}: sums over its {} inputs have no room on {name}, whose budget leaves {left}: added on the host",
                    task.name,
                    ask.inputs
                );
            }
        }
        match free_host_bytes(self.options.host_bytes).and_then(|free| ask.refusal(free)) {
            Some(message) => Err(Error::work(task.name, message)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_told_with_its_size_and_the_other_way() {
        let ask = Ask { inputs: 25_088, groups: 1, images: 30_000, dense: true, allowed: true };
        let need = 25_088u64 * 25_088 * 8 * 6;
        assert_eq!(ask.gram(), need);
        assert_eq!(ask.refusal(need), None);
        let message = ask.refusal(8 << 30).unwrap();
        for part in ["25088 inputs", "28.1 GiB", "8.0 GiB", "there are 30000"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(Ask { allowed: false, ..ask }.refusal(8 << 30).unwrap().contains("not under these bounds"));
        assert!(Ask { dense: false, ..ask }.refusal(8 << 30).unwrap().contains("only dense"));
        // sizes beyond 64 bits are refused, not wrapped
        assert!(Ask { inputs: usize::MAX / 2, ..ask }.refusal(u64::MAX - 1).is_some());
    }
}
