//! What the walk remembers between layers, on disk: activations of the trained network and spike trains of the
//! converted one, batch by batch. Memory is then bounded by a batch, whatever the number of calibration images.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::compute::spikes::Spikes;
use crate::compute::{Buffer, Device, vectorized};
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

    /// Appends the next batch's trains: bits as they are, counts packed to the bits that the largest of them needs.
    pub fn push_trains(&mut self, dev: &Device, trains: &Trains) -> Result<()> {
        match trains.bits() {
            Some(spikes) => {
                let header = [trains.steps as u32, 0, SPIKES];
                self.push(&[bytemuck::cast_slice(&header), spikes.bytes()].concat())
            }
            None => self.push(bytemuck::cast_slice(&pack(trains.steps, &dev.view(&*trains.counts(dev)?)?))),
        }
    }

    /// Trains of a batch: `images` images of a node of `shape`.
    pub fn trains(&mut self, dev: &Device, batch: usize, images: usize, shape: Shape) -> Result<Trains> {
        let bytes = self.seek(batch)?;
        let mut header = [0u32; HEADER];
        self.file.read_exact(bytemuck::cast_slice_mut(&mut header)).map_err(broken)?;
        let rest = bytes - size_of_val(&header);
        if header[2] == SPIKES {
            let mut bits = vec![0; rest];
            self.file.read_exact(&mut bits).map_err(broken)?;
            return Ok(Spikes::from_bytes(images, shape, header[0] as usize, bits)?.into());
        }
        let mut words = vec![0u32; rest / size_of::<u32>()];
        self.file.read_exact(bytemuck::cast_slice_mut(&mut words)).map_err(broken)?;
        let counts = dev.upload_with(header[1] as usize, |counts| {
            unpack(header[2], &words, counts);
            Ok(())
        })?;
        Ok(Trains::new(header[0] as usize, images, counts))
    }
}

/// Words before a record of trains: steps, number of counts, bits of a count (1, 8, 32), or `SPIKES` for bits in the
/// order of `Spikes`.
const HEADER: usize = 3;
const SPIKES: u32 = 0;

/// Words in one parallel piece of work.
const PIECE: usize = 1 << 12;

/// Header of steps, length and bits per count (1, 8 or 32), then the counts; bits are packed 32 to a word.
fn pack(steps: usize, counts: &[i32]) -> Vec<u32> {
    // A negative count is a large one here: it takes all 32 bits.
    let used = counts.par_chunks(32 * PIECE).map(|c| vectorized(|| c.iter().fold(0, |all, &c| all | c as u32)));
    let bits: u32 = match used.reduce(|| 0, |a, b| a | b) {
        0..=1 => 1,
        2..=255 => 8,
        _ => 32,
    };
    let per_word = (32 / bits) as usize;
    let mut words = vec![0; HEADER + counts.len().div_ceil(per_word)];
    words[..HEADER].copy_from_slice(&[steps as u32, counts.len() as u32, bits]);
    words[HEADER..].par_chunks_mut(PIECE).zip(counts.par_chunks(PIECE * per_word)).for_each(|(words, counts)| {
        vectorized(|| {
            for (word, counts) in words.iter_mut().zip(counts.chunks(per_word)) {
                for (i, &c) in counts.iter().enumerate() {
                    *word |= (c as u32) << (i as u32 * bits);
                }
            }
        });
    });
    words
}

/// The counts of `pack`.
fn unpack(bits: u32, words: &[u32], counts: &mut [i32]) {
    let per_word = (32 / bits) as usize;
    let mask = if bits == 32 { u32::MAX } else { (1 << bits) - 1 };
    counts.par_chunks_mut(PIECE * per_word).zip(words.par_chunks(PIECE)).for_each(|(counts, words)| {
        vectorized(|| {
            for (counts, word) in counts.chunks_mut(per_word).zip(words) {
                for (i, c) in counts.iter_mut().enumerate() {
                    *c = (word >> (i as u32 * bits) & mask) as i32;
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::{HEADER, pack, unpack};

    fn unpacked(words: &[u32]) -> Vec<i32> {
        let mut counts = vec![-1; words[1] as usize];
        unpack(words[2], &words[HEADER..], &mut counts);
        counts
    }

    #[test]
    fn trains_come_back_at_every_width() {
        for counts in [vec![], vec![1], vec![0, 1, 1, 0, 1], vec![0, 255, 3], vec![-7, 1 << 20, 5]] {
            let packed = pack(3, &counts);
            assert_eq!((packed[0], unpacked(&packed)), (3, counts));
        }
        let long: Vec<i32> = (0..300_007).map(|i| (i % 3 == 0) as i32).collect();
        let packed = pack(1, &long);
        assert!(packed.len() < 300_007 / 32 + 5);
        assert_eq!(unpacked(&packed), long);
    }
}
