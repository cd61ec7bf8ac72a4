//! From raw values to what the network was trained on.

use crate::error::{Error, Result};
use crate::network::layers::Network;

/// (x * scale - mean) / std; mean and std one value, or one per channel in the network's channel order.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    pub scale: f32,
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

impl Default for Preprocess {
    fn default() -> Self {
        Self { scale: 1.0, mean: vec![0.0], std: vec![1.0] }
    }
}

impl Preprocess {
    /// Together with the graph's own arithmetic on its input: the (a, b), one of each per channel, with which node 0
    /// holds a x + b for raw values x.
    pub fn affine(&self, network: &Network) -> Result<(Vec<f32>, Vec<f32>)> {
        let channels = network.input_shape().c;
        let spread = |name: &str, values: &[f32]| -> Result<Vec<f64>> {
            if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
                return Err(Error::input(name, format!("holds {bad}")));
            }
            match values.len() {
                1 => Ok(vec![values[0] as f64; channels]),
                n if n == channels => Ok(values.iter().map(|&v| v as f64).collect()),
                n => Err(Error::input(
                    name,
                    format!("has {n} values; one, or one for each of the {channels} channels, are needed"),
                )),
            }
        };
        let scale = spread("scale", &[self.scale])?;
        let (mean, std) = (spread("mean", &self.mean)?, spread("std", &self.std)?);
        if let Some(bad) = std.iter().find(|s| **s <= 0.0) {
            return Err(Error::input("std", format!("holds {bad}; positive values are needed")));
        }
        let own = network.input_scale.iter().zip(&network.input_shift);
        let joined = own.enumerate().map(|(c, (&s, &t))| {
            let (s, t) = (s as f64, t as f64);
            ((s * scale[c] / std[c]) as f32, (t - s * mean[c] / std[c]) as f32)
        });
        Ok(joined.unzip())
    }
}
