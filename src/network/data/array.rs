//! One array in a file: .npy (read in place, by seeking), a member of an .npz, idx and idx.gz (in memory, in their own
//! element type). What the file is, its first bytes tell, not its name.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::element::{Element, Kind};
use super::zip;
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub struct Array {
    pub dims: Vec<usize>,
    pub element: Element,
    bytes: Bytes,
}

#[derive(Debug, Clone)]
enum Bytes {
    Memory(Arc<Vec<u8>>),
    File { path: PathBuf, offset: u64 },
}

impl Array {
    /// Opens the array in a file; of an .npz the first member that is called one of `names`, else the first of all.
    pub fn open(path: &Path, names: &[&str]) -> Result<Array> {
        let mut file = BufReader::new(File::open(path).map_err(|e| bad(path, e))?);
        let mut magic = [0u8; 6];
        let got = read_some(&mut file, &mut magic).map_err(|e| bad(path, e))?;
        file.seek(SeekFrom::Start(0)).map_err(|e| bad(path, e))?;
        match &magic[..got] {
            b"\x93NUMPY" => npy_in_place(path, file),
            [b'P', b'K', ..] => {
                let member = zip::find(path, names)?;
                npy_in_memory(path, &member)
            }
            [0x1f, 0x8b, ..] => idx(path, flate2::read::GzDecoder::new(file)),
            [0, 0, _, _, ..] => idx(path, file),
            _ => Err(bad(
                path,
                "is no data set that synfit reads (.npy, .npz, idx, idx.gz, or a folder of PNG and JPEG pictures)",
            )),
        }
    }

    /// Whether an .npz holds a member of that name.
    pub fn has_member(path: &Path, name: &str) -> bool {
        let zipped = File::open(path).is_ok_and(|mut f| {
            let mut magic = [0u8; 2];
            read_some(&mut f, &mut magic).is_ok_and(|n| n == 2) && magic == *b"PK"
        });
        zipped && zip::names(path).is_ok_and(|names| names.iter().any(|n| n.trim_end_matches(".npy") == name))
    }

    pub fn rows(&self) -> usize {
        self.dims.first().copied().unwrap_or(0)
    }

    /// Elements of one row (everything after dimension 0).
    pub fn row_len(&self) -> usize {
        self.dims.iter().skip(1).product()
    }

    /// The bytes of the named rows, one after the other.
    pub fn read(&self, rows: &[usize]) -> Result<Vec<u8>> {
        let size = self.row_len() * self.element.bytes;
        match &self.bytes {
            Bytes::Memory(all) => Ok(rows.iter().flat_map(|&r| &all[r * size..(r + 1) * size]).copied().collect()),
            Bytes::File { path, offset } => {
                let mut file = File::open(path).map_err(|e| bad(path, e))?;
                let mut out = vec![0; rows.len() * size];
                // Neighbours are read together.
                let mut first = 0;
                while first < rows.len() {
                    let run = 1 + rows[first..].windows(2).take_while(|w| w[1] == w[0] + 1).count();
                    file.seek(SeekFrom::Start(offset + (rows[first] * size) as u64))
                        .and_then(|_| file.read_exact(&mut out[first * size..(first + run) * size]))
                        .map_err(|e| bad(path, format!("cannot be read at row {}: {e}", rows[first])))?;
                    first += run;
                }
                Ok(out)
            }
        }
    }
}

pub fn bad(path: &Path, message: impl std::fmt::Display) -> Error {
    Error::input(path.display().to_string(), message.to_string())
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match reader.read(&mut buffer[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

fn byte_len(path: &Path, dims: &[usize], element: Element) -> Result<usize> {
    let len = dims.iter().try_fold(element.bytes, |n, &d| n.checked_mul(d)).filter(|&n| n < usize::MAX >> 1);
    len.ok_or_else(|| bad(path, format!("has the impossible dimensions {dims:?}")))
}

fn npy_in_place(path: &Path, mut file: BufReader<File>) -> Result<Array> {
    let (dims, element) = npy_header(path, &mut file)?;
    let offset = file.stream_position().map_err(|e| bad(path, e))?;
    let size = file.get_ref().metadata().map_err(|e| bad(path, e))?.len();
    let need = byte_len(path, &dims, element)? as u64;
    if size - offset.min(size) < need {
        return Err(bad(
            path,
            format!("is cut short: {need} bytes of data are due, {} are there", size - offset.min(size)),
        ));
    }
    Ok(Array { dims, element, bytes: Bytes::File { path: path.to_path_buf(), offset } })
}

fn npy_in_memory(path: &Path, member: &[u8]) -> Result<Array> {
    let mut reader = member;
    let (dims, element) = npy_header(path, &mut reader)?;
    let need = byte_len(path, &dims, element)?;
    if reader.len() < need {
        return Err(bad(path, format!("is cut short: {need} bytes of data are due, {} are there", reader.len())));
    }
    Ok(Array { dims, element, bytes: Bytes::Memory(Arc::new(reader[..need].to_vec())) })
}

/// The header of an .npy file: magic, version, length, a Python dictionary.
fn npy_header(path: &Path, reader: &mut impl Read) -> Result<(Vec<usize>, Element)> {
    let damaged = || bad(path, "has a damaged .npy header");
    let mut start = [0u8; 8];
    reader.read_exact(&mut start).map_err(|_| damaged())?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(damaged());
    }
    let mut len = [0u8; 4];
    let width = if start[6] == 1 { 2 } else { 4 };
    reader.read_exact(&mut len[..width]).map_err(|_| damaged())?;
    let len = u32::from_le_bytes(len) as usize;
    if len > 1 << 20 {
        return Err(damaged());
    }
    let mut header = vec![0; len];
    reader.read_exact(&mut header).map_err(|_| damaged())?;
    let header = String::from_utf8_lossy(&header).into_owned();
    let after = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    let descr = after("descr").ok_or_else(damaged)?;
    let descr = descr.strip_prefix('\'').and_then(|d| d.split_once('\'')).map(|d| d.0);
    let descr = descr.ok_or_else(|| bad(path, "holds records; an array of numbers is needed"))?;
    let element = npy_element(descr).ok_or_else(|| {
        bad(path, format!("has element type \"{descr}\"; numbers (u8, f32, f64, integers) are needed"))
    })?;
    let shape = after("shape").and_then(|s| s.strip_prefix('(')).and_then(|s| s.split_once(')')).ok_or_else(damaged)?.0;
    let mut dims = Vec::new();
    for word in shape.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        dims.push(word.parse::<usize>().map_err(|_| damaged())?);
    }
    if after("fortran_order").is_some_and(|v| v.starts_with("True")) && dims.iter().filter(|&&d| d > 1).count() > 1 {
        return Err(bad(path, "is stored column by column; save it with numpy.ascontiguousarray"));
    }
    Ok((dims, element))
}

fn npy_element(descr: &str) -> Option<Element> {
    let (order, rest) = descr.split_at_checked(1)?;
    let (kind, width) = rest.split_at_checked(1)?;
    let bytes: usize = width.parse().ok()?;
    let kind = match (kind, bytes) {
        ("u", 1 | 2 | 4 | 8) | ("b", 1) => Kind::Unsigned,
        ("i", 1 | 2 | 4 | 8) => Kind::Signed,
        ("f", 2 | 4 | 8) => Kind::Float,
        _ => return None,
    };
    Some(Element { kind, bytes, big_endian: order == ">" })
}

/// The idx format of MNIST: two zero bytes, type, number of dimensions, dimensions, data; all big-endian.
fn idx(path: &Path, mut reader: impl Read) -> Result<Array> {
    let mut magic = [0u8; 4];
    reader.read_exact(&mut magic).map_err(|e| bad(path, format!("is no idx file ({e})")))?;
    let (kind, bytes) = match magic[2] {
        0x08 => (Kind::Unsigned, 1),
        0x09 => (Kind::Signed, 1),
        0x0B => (Kind::Signed, 2),
        0x0C => (Kind::Signed, 4),
        0x0D => (Kind::Float, 4),
        0x0E => (Kind::Float, 8),
        _ => return Err(bad(path, "is neither an idx file nor another data set that synfit reads")),
    };
    if magic[..2] != [0, 0] {
        return Err(bad(path, "is neither an idx file nor another data set that synfit reads"));
    }
    let mut dims = Vec::new();
    for _ in 0..magic[3] {
        let mut d = [0u8; 4];
        reader.read_exact(&mut d).map_err(|e| bad(path, format!("has a damaged idx header ({e})")))?;
        dims.push(u32::from_be_bytes(d) as usize);
    }
    let element = Element { kind, bytes, big_endian: true };
    let need = byte_len(path, &dims, element)?;
    // Grows with what is really there: a damaged header must not ask for all memory.
    let mut data = Vec::new();
    let read = reader.take(need as u64).read_to_end(&mut data);
    if let Err(e) = read {
        return Err(bad(path, format!("is damaged or cut short after {} of {need} bytes ({e})", data.len())));
    }
    if data.len() < need {
        return Err(bad(path, format!("is cut short: {need} bytes of data are due, {} are there", data.len())));
    }
    Ok(Array { dims, element, bytes: Bytes::Memory(Arc::new(data)) })
}
