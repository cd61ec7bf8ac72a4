//! Layers that an interrupted conversion had finished: taken as they are. What later layers read of them (trained
//! activations, spike trains) is worked out again, which gives the same numbers.

use super::LayerRecord;
use super::walk::Walk;
use crate::error::{Error, Result};
use crate::network::Op;
use crate::spiking::{SpikingNode, SpikingOp};

/// A fitted layer and its line of the report.
#[derive(Debug, Clone)]
pub struct Finished {
    pub node: SpikingNode,
    pub record: LayerRecord,
}

impl Walk<'_> {
    /// Appends a finished layer as node `index`, and runs it on the calibration images if somebody reads it (`keep`).
    pub(super) fn restore(&mut self, index: usize, keep: bool, finished: Finished) -> Result<LayerRecord> {
        let Finished { node, record } = finished;
        let wanted = &self.network.nodes[index];
        let Op::Neurons { .. } = wanted.op else { return Err(Error::work(&wanted.name, "not a layer of neurons")) };
        let place = (wanted.name.as_str(), wanted.shape.h, wanted.shape.w);
        if (node.name.as_str(), node.shape.h, node.shape.w) != place || !matches!(node.op, SpikingOp::Neurons(_)) {
            return Err(Error::input("", format!("the checkpoint has {} {:?} in its place", node.name, node.shape)));
        }
        if let SpikingOp::Neurons(layer) = &node.op {
            self.windows[index] = layer.settle;
        }
        self.spiking.nodes.push(node);
        self.spiking.check_last()?;
        self.upload(index)?;
        self.keep_signs(index);
        if keep {
            self.train(index)?;
            let mut again = record.clone();
            self.fire(index, &mut again)?;
            let told = |r: &LayerRecord| (r.rate, r.dead, r.saturated);
            if told(&again) != told(&record) {
                return Err(Error::input("", "the checkpoint's layer does not give the spikes that it gave before"));
            }
        }
        Ok(record)
    }

    /// Keeps the trained network's activations of layer `index`.
    fn train(&mut self, index: usize) -> Result<()> {
        let stage = format!("resume {}", self.network.nodes[index].name);
        let tapes = self.each_batch(
            &stage,
            |walk, _, _| walk.tapes.tape(),
            |at, tape| {
                let mut z = at.pre_activations(index)?;
                at.activate(index, &mut z)?;
                tape.push_values(&at.dev.view(&z)?)
            },
        )?;
        self.workers.iter_mut().zip(tapes).for_each(|(worker, tape)| worker.ann[index] = Some(tape));
        Ok(())
    }
}
