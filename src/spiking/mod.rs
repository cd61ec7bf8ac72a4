//! The result: the spiking network, its simulation, its metrics.

mod network;
pub mod simulate;

pub use network::{
    Decode, InputCode, Layer, Schedule, SpikingNetwork, SpikingNode, SpikingOp, State, Synapses, Weights,
};
