//! The result: the spiking network, its simulation, its metrics.

mod activity;
mod check;
mod network;
mod respond;
pub mod simulate;

pub use check::STEPS;
pub use respond::Responder;

pub use network::{
    Decode, InputCode, Layer, Schedule, SpikingNetwork, SpikingNode, SpikingOp, State, Synapses, Weights,
};
