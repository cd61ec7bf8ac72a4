//! The result: the spiking network, its simulation, its metrics.
