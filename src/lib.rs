//! synfit fits a trained network to a spiking chip, layer by layer (Mern, Gupta and Kochenderfer 2017).
//!
//! Data runs through the rooms once, from file to result; a room uses the ones below it in this list:
//! `cli`, `report`, `export`, `convert`, `verify`, `spiking`, `fit`, `compute`, `chip`, `neuron`, `network`.

pub mod chip;
pub mod cli;
pub mod compute;
pub mod error;
pub mod fit;
pub mod network;
pub mod neuron;
pub mod spiking;

pub use error::{Error, Result};
