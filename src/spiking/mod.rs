//! The result: the spiking network, its simulation, its metrics.

mod activity;
mod network;
mod respond;
pub mod simulate;

pub use respond::Responder;

pub use network::{
    Decode, InputCode, Layer, Schedule, SpikingNetwork, SpikingNode, SpikingOp, State, Synapses, Weights,
};
