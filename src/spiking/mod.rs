//! The result: the spiking network, its simulation, its metrics.

mod activity;
mod bits;
mod check;
mod layer;
mod network;
mod noise;
mod respond;
pub mod simulate;
mod trains;

pub use check::STEPS;
pub use noise::programmed;
pub use respond::Responder;

pub use network::{
    Decode, InputCode, Layer, Schedule, SpikingNetwork, SpikingNode, SpikingOp, State, Synapses, Weights,
};
