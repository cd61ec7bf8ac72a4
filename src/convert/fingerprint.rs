//! What determines a conversion's result, in a few numbers: two conversions with the same fingerprint give the same
//! spiking network, so that one may go on where the other stopped.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use super::{Images, Options};
use crate::compute::{Account, Device, Team, Tiles};
use crate::error::Result;
use crate::network::{Network, Op};

/// Calibration images read at a time.
const IMAGES: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub synfit: String,
    /// Name, backend and driver; of several each, with its share; the budget of those that have one.
    pub device: String,
    /// Of each. They were timed and might come out otherwise another time: who goes on takes them over.
    pub tiles: Vec<Tiles>,
    pub network: u64,
    pub images: u64,
    pub options: u64,
}

impl Fingerprint {
    /// Reads every calibration image once.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn of(team: &Team, network: &Network, images: &Images, options: &Options) -> Result<Self> {
        Ok(Self {
            synfit: env!("CARGO_PKG_VERSION").to_string(),
            device: devices(team),
            tiles: team.devices().map(Device::tiles).collect(),
            network: network_hash(network),
            images: images_hash(images)?,
            options: {
                let mut hash = Hash::default();
                let _ = write!(hash, "{options:?}"); // hashing cannot fail
                hash.value()
            },
        })
    }

    /// Sets the devices to the kernels that it was made with.
    pub fn take_over(&self, team: &Team) {
        team.devices().zip(&self.tiles).for_each(|(device, tiles)| device.set_tiles(*tiles));
    }

    /// In what `other` differs that cannot be taken over, in words; `None` where it does not.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        match () {
            () if self.synfit != other.synfit => Some("version of synfit"),
            () if self.network != other.network => Some("network"),
            () if self.images != other.images => Some("set of calibration images"),
            () if self.options != other.options => Some("chip or set of options"),
            () if self.device != other.device => Some("device"),
            () => None,
        }
    }
}

fn devices(team: &Team) -> String {
    let one = |(dev, account): (&Device, Account)| {
        let info = dev.info();
        let share = if team.size() > 1 { format!(" x {}", account.share) } else { String::new() };
        let budget = dev.budget().map_or_else(String::new, |bytes| format!(" within {bytes}"));
        format!("{} {} {}{share}{budget}", info.name, info.backend, info.driver)
    };
    team.devices().zip(team.accounts()).map(one).collect::<Vec<_>>().join(" + ")
}

/// The network as it was read, whatever file it came from.
fn network_hash(network: &Network) -> u64 {
    let mut hash = Hash::default();
    let _ = write!(hash, "{} {:?} {:?} {}", network.output, network.head, network.layout, network.nodes.len());
    hash.floats(&network.input_scale);
    hash.floats(&network.input_shift);
    for node in &network.nodes {
        let _ = write!(hash, "{} {:?}", node.name, node.shape);
        match &node.op {
            // Weights are many: their bytes, not their digits.
            Op::Neurons { blocks, bias, activation } => {
                let _ = write!(hash, "{activation:?} {}", blocks.len());
                hash.floats(bias);
                for block in blocks {
                    let _ = write!(hash, "{} {:?} {}", block.source, block.window, block.groups);
                    hash.floats(&block.weight);
                }
            }
            op => drop(write!(hash, "{op:?}")),
        }
    }
    hash.value()
}

fn images_hash(images: &Images) -> Result<u64> {
    let mut hash = Hash::default();
    let _ = write!(hash, "{} {}", images.len(), images.data.is_u8());
    hash.floats(&images.scale);
    hash.floats(&images.shift);
    for start in (0..images.len()).step_by(IMAGES) {
        hash.floats(&images.data.batch(start..(start + IMAGES).min(images.len()))?);
    }
    Ok(hash.value())
}

/// A 64-bit hash that is the same in every build (SplitMix64's mixer over words of 8 bytes, lengths included). It finds
/// accidents, not forgeries.
#[derive(Debug, Clone)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn word(&mut self, word: u64) {
        // Each bit of the word moves about half the state's bits, so that one flip cannot make up for another. A product
        // carries bits up only, a shift brings them down.
        let mut x = self.0 ^ word;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = (x ^ (x >> 31)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
    }

    fn floats(&mut self, values: &[f32]) {
        self.bytes(bytemuck::cast_slice(values));
    }

    pub fn value(&self) -> u64 {
        self.0
    }
}

impl Write for Hash {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.bytes(s.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Hash;

    #[test]
    fn every_bit_and_the_length_count() {
        let of = |bytes: &[u8]| {
            let mut hash = Hash::default();
            hash.bytes(bytes);
            hash.value()
        };
        let mut seen = std::collections::HashSet::new();
        for len in 0..40 {
            assert!(seen.insert(of(&vec![0; len])), "{len} zeros");
            for bit in 0..8 * len {
                let mut bytes = vec![0; len];
                bytes[bit / 8] |= 1 << (bit % 8);
                assert!(seen.insert(of(&bytes)), "bit {bit} of {len} bytes");
            }
        }
    }
}
