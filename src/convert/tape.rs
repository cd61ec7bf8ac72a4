//! What the walk remembers between layers, on disk: activations of the trained network and spike trains of the
//! converted one, batch by batch. Memory is then bounded by a batch, whatever the number of calibration images.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{Error, Result};

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

    fn record(&mut self, batch: usize) -> Result<Vec<u8>> {
        let end = *self.ends.get(batch).ok_or_else(|| Error::work("intermediate results", "no such batch"))?;
        let start = if batch == 0 { 0 } else { self.ends[batch - 1] };
        let mut bytes = vec![0; (end - start) as usize];
        self.file.seek(SeekFrom::Start(start)).map_err(broken)?;
        self.file.read_exact(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }

    /// Appends the next batch's values.
    pub fn push_values(&mut self, values: &[f32]) -> Result<()> {
        self.push(bytemuck::cast_slice(values))
    }

    pub fn values(&mut self, batch: usize) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.record(batch)?))
    }

    /// Appends the next batch's trains `[steps][..]`, packed to the bits that their largest count needs.
    pub fn push_trains(&mut self, steps: usize, counts: &[i32]) -> Result<()> {
        self.push(&pack(steps, counts))
    }

    /// Steps and counts of a batch.
    pub fn trains(&mut self, batch: usize) -> Result<(usize, Vec<i32>)> {
        Ok(unpack(&self.record(batch)?))
    }
}

/// Words between two parallel pieces of work.
const PIECE: usize = 1 << 12;

/// Header of steps, length and bits per count (1, 8 or 32), then the counts; bits are packed 32 to a word.
fn pack(steps: usize, counts: &[i32]) -> Vec<u8> {
    let largest = counts.par_iter().map(|&c| if c < 0 { i32::MAX } else { c }).max().unwrap_or(0);
    let bits: u32 = match largest {
        0..=1 => 1,
        2..=255 => 8,
        _ => 32,
    };
    let per_word = (32 / bits) as usize;
    let mut words = vec![steps as u32, counts.len() as u32, bits];
    words.par_extend(
        counts.par_chunks(per_word).with_min_len(PIECE).map(|chunk| {
            chunk.iter().enumerate().fold(0u32, |word, (i, &c)| word | (c as u32) << (i as u32 * bits % 32))
        }),
    );
    bytemuck::cast_slice(&words).to_vec()
}

fn unpack(bytes: &[u8]) -> (usize, Vec<i32>) {
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(bytes);
    let (steps, len, bits) = (words[0] as usize, words[1] as usize, words[2]);
    let per_word = (32 / bits) as usize;
    let mask = if bits == 32 { u32::MAX } else { (1 << bits) - 1 };
    let mut counts = vec![0i32; len];
    counts.par_chunks_mut(per_word).with_min_len(PIECE).zip(&words[3..]).for_each(|(chunk, &word)| {
        for (i, c) in chunk.iter_mut().enumerate() {
            *c = (word >> (i as u32 * bits % 32) & mask) as i32;
        }
    });
    (steps, counts)
}

#[cfg(test)]
mod tests {
    use super::{pack, unpack};

    #[test]
    fn trains_come_back_at_every_width() {
        for counts in [vec![], vec![1], vec![0, 1, 1, 0, 1], vec![0, 255, 3], vec![-7, 1 << 20, 5]] {
            assert_eq!(unpack(&pack(3, &counts)), (3, counts));
        }
        let long: Vec<i32> = (0..10_007).map(|i| (i % 3 == 0) as i32).collect();
        let packed = pack(1, &long);
        assert!(packed.len() < 10_007 / 8 + 20);
        assert_eq!(unpack(&packed).1, long);
    }
}
