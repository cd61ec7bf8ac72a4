//! A result folder: filled under a temporary name beside its place, renamed into place when all is there.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::{Error, Result};

/// A file that only a result folder of synfit holds; a folder with it may be replaced.
const MARK: &str = "report.json";
/// Ends the stem of a temporary folder's name; random letters follow.
const TEMPORARY: &str = ".tmp-";

pub struct OutputFolder {
    place: PathBuf,
    temporary: TempDir,
}

impl OutputFolder {
    /// Checks the place and makes the temporary folder.
    ///
    /// # Errors
    /// Input: the place is a file, or a folder that holds something else than a result of synfit; the folder above it
    /// cannot be made or written.
    pub fn new(place: &Path) -> Result<Self> {
        let name = place.display().to_string();
        if place.is_dir() {
            let mut entries = place.read_dir().map_err(|e| Error::input(&name, e.to_string()))?;
            if entries.next().is_some() && !place.join(MARK).exists() {
                return Err(Error::input(name, "holds other files; give an empty or a new folder as --out"));
            }
        } else if place.exists() {
            return Err(Error::input(name, "is a file; give a folder as --out"));
        }
        let above = match place.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        std::fs::create_dir_all(&above).map_err(|e| Error::input(above.display().to_string(), e.to_string()))?;
        let stem = place.file_name().map_or_else(|| "out".into(), |n| n.to_string_lossy().into_owned());
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{stem}{TEMPORARY}"))
            .tempdir_in(&above)
            .map_err(|e| Error::input(above.display().to_string(), e.to_string()))?;
        Ok(Self { place: place.to_path_buf(), temporary })
    }

    /// Removes what processes that were killed left beside `temporary`, the folder of a process that alone may write to
    /// its place.
    pub fn sweep(temporary: &Path) {
        let Some((above, own)) = temporary.parent().zip(temporary.file_name()) else { return };
        let own = own.to_string_lossy();
        let Some(mark) = own.rfind(TEMPORARY) else { return };
        let prefix = &own[..mark + TEMPORARY.len()];
        for entry in std::fs::read_dir(above).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(prefix) && name != own {
                // Only litter: a failure here does no harm to the work.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Where to write, until `finish`.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Writes a text file into it.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path().join(name);
        std::fs::write(&path, text).map_err(|e| Error::work(path.display().to_string(), e.to_string()))
    }

    /// Moves the folder to its place; a former result there goes.
    pub fn finish(self) -> Result<()> {
        let failed = |e: std::io::Error| Error::work(self.place.display().to_string(), e.to_string());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o755); // temporary folders are made private
            std::fs::set_permissions(self.temporary.path(), mode).map_err(failed)?;
        }
        let aside = self.temporary.path().with_extension("old");
        let replaces = self.place.exists();
        if replaces {
            std::fs::rename(&self.place, &aside).map_err(failed)?;
        }
        std::fs::rename(self.temporary.path(), &self.place).map_err(failed)?;
        if replaces {
            std::fs::remove_dir_all(&aside).map_err(failed)?;
        }
        let _ = self.temporary.keep(); // it has moved: nothing is left to remove
        Ok(())
    }
}
