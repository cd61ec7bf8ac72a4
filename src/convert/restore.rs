//! Layers that an interrupted conversion had finished: taken as they are. What later layers read of them (trained
//! activations, spike trains) is worked out again, which gives the same numbers.

use super::LayerRecord;
use super::walk::{Walk, runner};
use crate::error::{Error, Result};
use crate::network::Op;
use crate::spiking::simulate::Runner;
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
        self.spiking.nodes.push(node);
        self.spiking.check_last()?;
        self.runners.push(Some(Runner::new(self.dev, &self.spiking, index)?));
        self.keep_signs(index);
        if keep {
            self.ann[index] = Some(self.trained(index)?);
            let mut again = record.clone();
            self.fire(index, &mut again)?;
            let told = |r: &LayerRecord| (r.rate, r.dead, r.saturated);
            if told(&again) != told(&record) {
                return Err(Error::input("", "the checkpoint's layer does not give the spikes that it gave before"));
            }
        }
        Ok(record)
    }

    /// The trained network's activations of layer `index`.
    fn trained(&mut self, index: usize) -> Result<super::tape::Tape> {
        let mut tape = self.tapes.tape()?;
        let sources = self.network.nodes[index].sources();
        self.each_batch(&format!("resume {}", self.network.nodes[index].name), |walk, batch| {
            let images = walk.batches[batch].len();
            let inputs = sources.iter().map(|&s| walk.activations(s, batch)).collect::<Result<Vec<_>>>()?;
            let inputs: Vec<_> = inputs.iter().collect();
            let mut z = runner(&walk.forward, index)?.linear(walk.dev, images, &inputs)?;
            runner(&walk.forward, index)?.activate(walk.dev, &mut z)?;
            tape.push_values(&walk.dev.view(&z)?)
        })?;
        Ok(tape)
    }
}
