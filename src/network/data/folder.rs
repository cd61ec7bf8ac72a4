//! A folder of PNG and JPEG pictures, all of one size, in the order of their names; sub-folders are classes.

use std::path::{Path, PathBuf};

use super::array::bad;
use crate::error::Result;
use crate::network::layers::Shape;

#[derive(Debug, Clone)]
pub struct Folder {
    pub root: PathBuf,
    pub files: Vec<PathBuf>,
    /// By sub-folder, where the pictures are sorted into some.
    pub classes: Option<Vec<i64>>,
}

impl Folder {
    /// Lists the pictures and checks the size of each (from its header).
    pub fn open(root: &Path, want: Shape) -> Result<Folder> {
        if want.c != 1 && want.c != 3 {
            return Err(bad(root, format!("holds pictures, but the network wants {want} ({} channels)", want.c)));
        }
        let mut files = pictures(root)?;
        let mut classes = None;
        if files.is_empty() {
            let mut folders: Vec<PathBuf> = entries(root)?.into_iter().filter(|p| p.is_dir()).collect();
            folders.sort();
            let numbers: Option<Vec<i64>> = folders.iter().map(|f| f.file_name()?.to_str()?.parse().ok()).collect();
            let mut labels = Vec::new();
            for (i, folder) in folders.iter().enumerate() {
                let inside = pictures(folder)?;
                let label = numbers.as_ref().map_or(i as i64, |n| n[i]);
                labels.extend(std::iter::repeat_n(label, inside.len()));
                files.extend(inside);
            }
            classes = Some(labels);
        }
        for file in &files {
            let (w, h) = image::image_dimensions(file).map_err(|e| bad(file, format!("cannot be read ({e})")))?;
            if (h as usize, w as usize) != (want.h, want.w) {
                return Err(bad(
                    file,
                    format!("is {h} high and {w} wide, but the network wants {want} (channels x height x width)"),
                ));
            }
        }
        Ok(Folder { root: root.to_path_buf(), files, classes })
    }

    /// One picture as channels-last bytes.
    pub fn read(&self, i: usize, want: Shape) -> Result<Vec<u8>> {
        let file = &self.files[i];
        let picture = image::open(file).map_err(|e| bad(file, format!("cannot be read ({e})")))?;
        let bytes = if want.c == 1 { picture.to_luma8().into_raw() } else { picture.to_rgb8().into_raw() };
        if bytes.len() != want.len() {
            return Err(bad(file, "changed its size"));
        }
        Ok(bytes)
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = std::fs::read_dir(folder).map_err(|e| bad(folder, e))?;
    list.map(|entry| entry.map(|e| e.path()).map_err(|e| bad(folder, e))).collect()
}

fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_picture = |p: &PathBuf| {
        let extension = p.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        p.is_file() && matches!(extension.as_str(), "png" | "jpg" | "jpeg")
    };
    let mut files: Vec<PathBuf> = entries(folder)?.into_iter().filter(is_picture).collect();
    files.sort();
    Ok(files)
}
