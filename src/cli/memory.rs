//! `--memory`: what a conversion may hold, in the host's memory and in a device's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::compute::Team;
use crate::error::{Error, Result};

const MIB: u64 = 1 << 20;
/// Bytes of a batch: those that make sense, and the usual.
const BATCH: (u64, u64) = (16 * MIB, 1 << 40);
pub const USUAL_BATCH: u64 = 160 * MIB;
/// The usual on discrete GPUs, which small batches leave idle: an estimate from transfers and dispatches, not measured.
const LARGE_BATCH: u64 = 1024 * MIB;
/// A budget below this holds nothing.
const LEAST: u64 = 64 * MIB;

/// Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Activations and spikes of a batch, in the memory of the device that it is on; `None` leaves it to the device.
    pub batch: Option<u64>,
    /// The whole process, in the host's memory.
    pub host: Option<u64>,
    /// All buffers on a GPU; on each, of several.
    pub device: Option<u64>,
}

impl Memory {
    /// Bytes of a batch on `team`.
    pub fn batch_on(&self, team: &Team) -> u64 {
        let discrete = team.devices().all(|dev| dev.info().kind == "discrete");
        self.batch.unwrap_or(if discrete { LARGE_BATCH } else { USUAL_BATCH })
    }
}

/// A size in bytes: a number of MiB, or one with its unit.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit = match &text[digits..] {
        "" | "M" | "MiB" => MIB as f64,
        "G" | "GiB" => (MIB << 10) as f64,
        _ => return None,
    };
    let bytes = text[..digits].parse::<f64>().ok()? * unit;
    (bytes > 0.0 && bytes < (1u64 << 50) as f64).then_some(bytes as u64)
}

impl FromStr for Memory {
    type Err = Error;

    /// `auto`, `160` or `2G` (the batch), or `batch=`, `host=` and `device=` with sizes, as many as wanted, with commas.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: String| Error::input("memory", why);
        let of = |text: &str| {
            let form = "write a number of MiB, or one with M, MiB, G or GiB";
            size(text).ok_or_else(|| wrong(format!("{:?} is no size: {form}", text.trim())))
        };
        let mut memory = Memory::default();
        let batch = |bytes: u64| Some(bytes.clamp(BATCH.0, BATCH.1));
        if text.trim() == "auto" {
            return Ok(memory);
        }
        if !text.contains(['=', ',']) {
            return Ok(Memory { batch: batch(of(text)?), ..memory });
        }
        let mut named = Vec::new();
        for item in text.split(',') {
            let form = || wrong(format!("{:?} is none of batch=SIZE, host=SIZE and device=SIZE", item.trim()));
            let (name, bytes) = item.split_once('=').ok_or_else(form)?;
            let name = name.trim();
            if named.contains(&name) {
                return Err(wrong(format!("{name} is given twice")));
            }
            named.push(name);
            let bytes = of(bytes)?;
            match name {
                "batch" => memory.batch = batch(bytes),
                "host" | "device" if bytes < LEAST => {
                    return Err(wrong(format!("{name}: less than {} MiB hold no conversion", LEAST / MIB)));
                }
                "host" => memory.host = Some(bytes),
                "device" => memory.device = Some(bytes),
                _ => return Err(form()),
            }
        }
        Ok(memory)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        if (self.host, self.device) == (None, None) {
            return match self.batch {
                None => f.write_str("auto"),
                Some(batch) => write!(f, "{}", mib(batch)),
            };
        }
        let mut before = "";
        for (name, bytes) in [("batch", self.batch), ("host", self.host), ("device", self.device)] {
            if let Some(bytes) = bytes {
                write!(f, "{before}{name}={}", mib(bytes))?;
                before = ",";
            }
        }
        Ok(())
    }
}

impl Serialize for Memory {
    /// Whole MiB of a batch alone are a number, as ever.
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match self.batch {
            Some(batch) if batch.is_multiple_of(MIB) && (self.host, self.device) == (None, None) => {
                to.serialize_u64(batch / MIB)
            }
            _ => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Word(String),
        }
        let word = match Written::deserialize(from)? {
            Written::Number(mib) => mib.to_string(),
            Written::Word(word) => word,
        };
        word.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_nonsense_is_refused() {
        let memory = |text: &str| text.parse::<Memory>();
        let usual = Memory::default();
        assert_eq!(memory("auto").unwrap(), usual);
        assert_eq!(usual.batch_on(&(&crate::compute::Device::cpu()).into()), USUAL_BATCH);
        assert_eq!(memory("2G").unwrap(), Memory { batch: Some(2048 * MIB), ..usual });
        // a batch is never so small or so large that it makes no sense
        assert_eq!(memory("1").unwrap().batch, Some(16 * MIB));
        let both = Memory { host: Some(2048 * MIB), device: Some(512 * MIB), ..usual };
        assert_eq!(memory("host=2G,device=512").unwrap(), both);
        assert_eq!(memory("device=0.5GiB, host=2048MiB").unwrap(), both);
        assert_eq!(
            memory("batch=32M,host=1G").unwrap(),
            Memory { batch: Some(32 * MIB), host: Some(1024 * MIB), device: None }
        );
        for (text, word) in [
            ("", "no size"),
            ("much", "no size"),
            ("-1", "no size"),
            ("0", "no size"),
            ("1e9", "no size"),
            ("2T", "no size"),
            ("nan", "no size"),
            ("host=", "no size"),
            ("host=2G,", "none of"),
            ("ram=2G", "none of"),
            ("2G,device=1G", "none of"),
            ("host=1G,host=2G", "twice"),
            ("device=1", "hold no conversion"),
        ] {
            let error = memory(text).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(word), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_job_says_it_as_it_was_said() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Job {
            memory: Memory,
        }
        for (text, written) in [
            ("auto", "memory = \"auto\""),
            ("160", "memory = 160"),
            ("host=2G,device=100.5", "memory = \"host=2048,device=100.5\""),
            ("batch=160,host=2G", "memory = \"batch=160,host=2048\""),
            ("16.5", "memory = \"16.5\""),
        ] {
            let job = Job { memory: text.parse().unwrap() };
            let toml = toml::to_string(&job).unwrap();
            assert_eq!(toml.trim(), written);
            assert_eq!(toml::from_str::<Job>(&toml).unwrap(), job);
        }
    }
}
