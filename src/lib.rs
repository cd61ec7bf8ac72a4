//! synfit fits a trained network to a spiking chip, layer by layer (Mern, Gupta and Kochenderfer 2017).
//!
//! Data runs through the rooms once, from file to result; a room uses the ones below it in this list:
//! `cli`, `bench`, `report`, `export`, `compare`, `convert`, `verify`, `spiking`, `forward`, `fit`, `compute`, `chip`, `neuron`,
//! `network`.

pub mod bench;
pub mod chip;
pub mod cli;
pub mod compare;
pub mod compute;
pub mod convert;
pub mod error;
pub mod export;
pub mod fit;
pub mod forward;
pub mod network;
pub mod neuron;
pub mod report;
pub mod spiking;
pub mod verify;

pub use error::{Error, Result};
