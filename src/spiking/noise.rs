//! A spiking network as a chip with programming noise would hold it: one draw.

use super::{Layer, SpikingNetwork, SpikingOp, State, Weights};
use crate::chip::PairNoise;

/// The network with every stored synapse programmed once, and all else as it is, in real numbers. A convolution's kernel is
/// stored once, and has the same noise at all its positions.
pub fn programmed(net: &SpikingNetwork, noise: &PairNoise, seed: u64) -> SpikingNetwork {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut net = net.clone();
    for node in &mut net.nodes {
        if let SpikingOp::Neurons(layer) = &mut node.op {
            program(layer, noise, &mut rng);
        }
    }
    net
}

/// Leaves layers of real synapses alone.
fn program(layer: &mut Layer, noise: &PairNoise, rng: &mut fastrand::Rng) {
    if !matches!(layer.state, State::Integer { .. }) {
        return;
    }
    let rows = layer.unit.len().max(1);
    for synapses in &mut layer.synapses {
        let Weights::Codes { codes, shift } = &synapses.weight else { continue };
        let row = (codes.len() / rows).max(1);
        let unit = |at: usize| layer.unit[at / row] * f64::from(1u32 << shift);
        let real = codes.iter().enumerate().map(|(at, q)| (noise.draw(*q, rng) * unit(at)) as f32).collect();
        synapses.weight = Weights::Real(real);
    }
    let (bias, initial) = layer.state.real(&layer.unit);
    layer.state = State::Real { bias, initial };
    layer.unit = vec![1.0; layer.unit.len()];
}
