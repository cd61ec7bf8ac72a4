//! Finished layers of a conversion that goes on, one file a layer: what an interrupted conversion resumes from.
//!
//! `layer-0000`, `layer-0001`, ...: a safetensors file of one node, whose metadata has the report's line and the
//! conversion's fingerprint, and then 8 bytes, the hash of all before them. A file is whole or not there.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::safetensors;
use crate::compute::{Team, Tiles};
use crate::convert::{Fingerprint, Finished, Hash, LayerRecord};
use crate::error::{Error, Result};
use crate::spiking::SpikingNetwork;

const LOCK: &str = "lock";
const PREFIX: &str = "layer-";

/// A folder of finished layers, held by this process. It goes with the value while it has no layer.
pub struct Checkpoint {
    folder: PathBuf,
    fingerprint: Fingerprint,
    layers: AtomicUsize,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Note {
    fingerprint: Fingerprint,
    record: LayerRecord,
}

impl Checkpoint {
    /// Makes or finds the folder; other processes stay out of it until the value is gone.
    ///
    /// # Errors
    /// Input: another process holds it, it cannot be made, or it holds other files.
    pub fn open(folder: &Path, fingerprint: Fingerprint) -> Result<Self> {
        let wrong = |why: &dyn std::fmt::Display| Error::input(folder.display().to_string(), why.to_string());
        if folder.exists() && !folder.join(LOCK).exists() {
            return Err(wrong(&"is in the way: it is no checkpoint of synfit"));
        }
        fs::create_dir_all(folder).map_err(|e| wrong(&e))?;
        let lock = File::create(folder.join(LOCK)).map_err(|e| wrong(&e))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(wrong(&"another synfit is converting to the same place"));
            }
            // A file system without locks: nothing keeps two conversions apart there.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let checkpoint = Self { folder: folder.to_path_buf(), fingerprint, layers: 0.into(), _lock: lock };
        let found = checkpoint.names()?.len();
        checkpoint.layers.store(found, Ordering::Relaxed);
        Ok(checkpoint)
    }

    /// Layers that it holds.
    pub fn layers(&self) -> usize {
        self.layers.load(Ordering::Relaxed)
    }

    /// The finished layers in their order. The layers to come are made with the same kernels: `team` is set to them.
    ///
    /// # Errors
    /// Input: a file is missing, damaged, or from a conversion of something else.
    pub fn read(&mut self, team: &Team) -> Result<Vec<Finished>> {
        let mut layers = Vec::new();
        for layer in 0..self.layers() {
            let (finished, tiles) = self.read_layer(layer)?;
            self.fingerprint.tiles = tiles;
            layers.push(finished);
        }
        self.fingerprint.take_over(team);
        Ok(layers)
    }

    fn read_layer(&self, layer: usize) -> Result<(Finished, Vec<Tiles>)> {
        let path = self.path(layer);
        let wrong = |why: String| Error::input(path.display().to_string(), format!("{why}; convert without --resume"));
        let file = fs::read(&path).map_err(|e| wrong(e.to_string()))?;
        let (bytes, sum) = file.split_last_chunk::<8>().ok_or_else(|| wrong("is damaged".into()))?;
        if hash(bytes) != *sum {
            return Err(wrong("is damaged".into()));
        }
        let (note, node) = safetensors::note_and_node(bytes, &path)?;
        let note: Note = serde_json::from_str(&note).map_err(|e| wrong(e.to_string()))?;
        if let Some(what) = note.fingerprint.difference(&self.fingerprint) {
            return Err(wrong(format!("was made with another {what}")));
        }
        Ok((Finished { node, record: note.record }, note.fingerprint.tiles))
    }

    /// Adds the last node of `net`.
    ///
    /// # Errors
    /// Work: the file cannot be written.
    pub fn add(&self, net: &SpikingNetwork, record: &LayerRecord) -> Result<()> {
        let path = self.path(self.layers());
        let failed = |e: &dyn std::fmt::Display| Error::work(path.display().to_string(), e.to_string());
        let note = Note { fingerprint: self.fingerprint.clone(), record: record.clone() };
        let note = serde_json::to_string(&note).map_err(|e| failed(&e))?;
        let mut bytes = safetensors::last_node(net, note)?;
        bytes.extend(hash(&bytes));
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).map_err(|e| failed(&e))?;
        file.write_all(&bytes).map_err(|e| failed(&e))?;
        // On the disk before it has its name: a power cut leaves the whole file or none.
        file.as_file().sync_all().map_err(|e| failed(&e))?;
        file.persist(&path).map_err(|e| failed(&e))?;
        #[cfg(unix)]
        File::open(&self.folder).and_then(|f| f.sync_all()).map_err(|e| failed(&e))?;
        self.layers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes all layers away.
    ///
    /// # Errors
    /// Work: a file cannot be removed.
    pub fn clear(&self) -> Result<()> {
        for name in self.names()? {
            let path = self.folder.join(name);
            fs::remove_file(&path).map_err(|e| Error::work(path.display().to_string(), e.to_string()))?;
        }
        self.layers.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the folder: the conversion is done.
    ///
    /// # Errors
    /// As `clear`.
    pub fn remove(self) -> Result<()> {
        self.clear()
    }

    fn path(&self, layer: usize) -> PathBuf {
        self.folder.join(format!("{PREFIX}{layer:04}"))
    }

    fn names(&self) -> Result<Vec<std::ffi::OsString>> {
        let wrong = |e: std::io::Error| Error::input(self.folder.display().to_string(), e.to_string());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(wrong)? {
            let name = entry.map_err(wrong)?.file_name();
            if name.to_string_lossy().starts_with(PREFIX) {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        if self.layers() == 0 {
            // With what a killed process left half-written. There is nobody to tell of a failure.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn hash(bytes: &[u8]) -> [u8; 8] {
    let mut hash = Hash::default();
    hash.bytes(bytes);
    hash.value().to_le_bytes()
}
