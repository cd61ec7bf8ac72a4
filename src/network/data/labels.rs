//! Labels: an array of integers (.npy, .npz with `labels`, idx, idx.gz), a text with one number a line, or a text with
//! `name label` lines (comma or white space between) for a folder of pictures.

use std::collections::HashMap;
use std::path::Path;

use super::array::{Array, bad};
use super::element::Kind;
use crate::error::Result;

/// Labels from an array file, or from a text with one integer a line.
pub fn read_labels(path: &Path) -> Result<Vec<i64>> {
    match text(path)? {
        Some(lines) => lines
            .iter()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(i, line)| {
                line.trim().parse().map_err(|_| bad(path, format!("line {}: \"{line}\" is no whole number", i + 1)))
            })
            .collect(),
        None => from_array(path),
    }
}

/// Labels for the pictures of a folder: by name where the file has names, else in order.
pub fn read_named(path: &Path, files: &[std::path::PathBuf]) -> Result<Vec<i64>> {
    let Some(lines) = text(path)? else { return from_array(path) };
    let mut by_name: HashMap<&str, i64> = HashMap::new();
    for (i, line) in lines.iter().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let Some((name, label)) = line.trim().rsplit_once([',', ' ', '\t', ';']) else { return read_labels(path) };
        match label.trim().parse() {
            Ok(label) => {
                by_name.insert(name.trim().trim_end_matches([',', ';']), label);
            }
            // A heading.
            Err(_) if i == 0 => {}
            Err(_) => return Err(bad(path, format!("line {}: \"{label}\" is no whole number", i + 1))),
        }
    }
    let find = |file: &std::path::PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let label = by_name.get(name.as_ref()).or_else(|| by_name.get(stem.as_ref()));
        label.copied().ok_or_else(|| bad(path, format!("has no label for {name}")))
    };
    files.iter().map(find).collect()
}

/// The lines of a text file; `None` if it is one of the binary formats.
fn text(path: &Path) -> Result<Option<Vec<String>>> {
    let bytes = std::fs::read(path).map_err(|e| bad(path, e))?;
    let binary = bytes.starts_with(b"\x93NUMPY")
        || bytes.starts_with(b"PK")
        || bytes.starts_with(&[0x1f, 0x8b])
        || bytes.starts_with(&[0, 0]);
    if binary {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|_| bad(path, "is neither a text nor an array of labels"))?;
    Ok(Some(text.lines().map(str::to_string).collect()))
}

fn from_array(path: &Path) -> Result<Vec<i64>> {
    let array = Array::open(path, &["labels", "y"])?;
    if array.row_len() != 1 || array.dims.is_empty() {
        return Err(bad(path, format!("has shape {:?}; one label an image is needed", array.dims)));
    }
    let rows: Vec<usize> = (0..array.rows()).collect();
    let bytes = array.read(&rows)?;
    let one = |(i, b): (usize, &[u8])| {
        if array.element.kind != Kind::Float {
            return Ok(array.element.integer(b));
        }
        let value = array.element.value(b);
        if value.fract() == 0.0 {
            Ok(value as i64)
        } else {
            Err(bad(path, format!("label {i} is {value}; whole numbers are needed")))
        }
    };
    bytes.chunks(array.element.bytes).enumerate().map(one).collect()
}
