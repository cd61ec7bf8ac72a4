//! What the walk remembers between layers, on disk: activations of the trained network and spike trains of the
//! converted one, batch by batch. Memory is then bounded by a batch, whatever the number of calibration images.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::compute::spikes::Spikes;
use crate::compute::words::Packing;
use crate::compute::{Buffer, Device};
use crate::error::{Error, Result};
use crate::network::Shape;
use crate::spiking::simulate::Trains;

/// One node's records, one a batch, in an unnamed temporary file that goes with the tape.
pub struct Tape {
    file: File,
    ends: Vec<u64>,
}

/// Makes tapes in one folder, so that a full disk is reported with its place.
pub struct Tapes {
    folder: PathBuf,
}

impl Tapes {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    pub fn tape(&self) -> Result<Tape> {
        let file = tempfile::tempfile_in(&self.folder).map_err(|e| self.error(&e))?;
        Ok(Tape { file, ends: vec![] })
    }

    fn error(&self, e: &std::io::Error) -> Error {
        Error::work(self.folder.display().to_string(), format!("cannot keep intermediate results here: {e}"))
    }
}

fn broken(e: std::io::Error) -> Error {
    Error::work("intermediate results", e.to_string())
}

impl Tape {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let start = self.ends.last().copied().unwrap_or(0);
        self.file.seek(SeekFrom::Start(start)).map_err(broken)?;
        self.file.write_all(bytes).map_err(broken)?;
        self.ends.push(start + bytes.len() as u64);
        Ok(())
    }

    /// Goes to the start of a batch's record; gives its length in bytes.
    fn seek(&mut self, batch: usize) -> Result<usize> {
        let end = *self.ends.get(batch).ok_or_else(|| Error::work("intermediate results", "no such batch"))?;
        let start = if batch == 0 { 0 } else { self.ends[batch - 1] };
        self.file.seek(SeekFrom::Start(start)).map_err(broken)?;
        Ok((end - start) as usize)
    }

    /// Appends the next batch's values.
    pub fn push_values(&mut self, values: &[f32]) -> Result<()> {
        self.push(bytemuck::cast_slice(values))
    }

    pub fn values(&mut self, dev: &Device, batch: usize) -> Result<Buffer<f32>> {
        let bytes = self.seek(batch)?;
        dev.upload_with(bytes / size_of::<f32>(), |values| {
            self.file.read_exact(bytemuck::cast_slice_mut(values)).map_err(broken)
        })
    }

    /// Appends the next batch's trains, of which no count is above `peak`: packed.
    pub fn push_trains(&mut self, dev: &Device, trains: &Trains, peak: u64) -> Result<()> {
        if let Some(spikes) = trains.bits() {
            let header = [trains.steps as u32, SPIKES];
            return self.push(&[bytemuck::cast_slice(&header), spikes.bytes()].concat());
        }
        let (packing, words) = trains.words(dev, peak)?;
        let header = [packing.steps() as u32, packing.bits()];
        self.push(&[bytemuck::cast_slice(&header), bytemuck::cast_slice(&dev.view(&words)?)].concat())
    }

    /// Trains of a batch: `images` images of a node of `shape`.
    pub fn trains(&mut self, dev: &Device, batch: usize, images: usize, shape: Shape) -> Result<Trains> {
        let bytes = self.seek(batch)?;
        let mut header = [0u32; HEADER];
        self.file.read_exact(bytemuck::cast_slice_mut(&mut header)).map_err(broken)?;
        let [steps, bits] = header;
        if bits == SPIKES {
            let mut bits = vec![0; bytes - size_of_val(&header)];
            self.file.read_exact(&mut bits).map_err(broken)?;
            return Ok(Spikes::from_bytes(images, shape, steps as usize, bits)?.into());
        }
        let packing = Packing::of_width(steps as usize, images * shape.len(), bits)?;
        let words = dev.upload_with(packing.words(), |words| {
            self.file.read_exact(bytemuck::cast_slice_mut(words)).map_err(broken)
        })?;
        Ok(Trains::of_words(packing, images, words))
    }
}

/// Words before a record of trains: steps, and bits of a count, or `SPIKES` for bits in the order of `Spikes`.
const HEADER: usize = 2;
const SPIKES: u32 = 0;
