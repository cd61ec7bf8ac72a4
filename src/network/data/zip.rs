//! The little of the zip format that .npz files use: members stored or deflated, zip64 sizes.
//! Source: PKWARE APPNOTE.TXT, sections 4.3 and 4.5.3.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::array::bad;
use crate::error::Result;

struct Member {
    name: String,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    /// Of the local header.
    offset: u64,
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    Some(bytes.get(at..at + width)?.iter().rev().fold(0, |n, &b| n << 8 | b as u64))
}

pub fn names(path: &Path) -> Result<Vec<String>> {
    let mut file = File::open(path).map_err(|e| bad(path, e))?;
    Ok(members(path, &mut file)?.into_iter().map(|m| m.name).collect())
}

/// The bytes of the first member that is called one of `wanted` (with or without ".npy"), else of the first one.
pub fn find(path: &Path, wanted: &[&str]) -> Result<Vec<u8>> {
    let mut file = File::open(path).map_err(|e| bad(path, e))?;
    let members = members(path, &mut file)?;
    let named = |w: &&str| members.iter().find(|m| m.name.trim_end_matches(".npy") == *w);
    let member = wanted.iter().find_map(named).or(members.first()).ok_or_else(|| bad(path, "is an empty .npz"))?;
    let damaged = |e: &dyn std::fmt::Display| bad(path, format!("member \"{}\" is damaged ({e})", member.name));
    let mut local = [0u8; 30];
    file.seek(SeekFrom::Start(member.offset)).and_then(|_| file.read_exact(&mut local)).map_err(|e| damaged(&e))?;
    let skip = number(&local, 26, 2).unwrap_or(0) + number(&local, 28, 2).unwrap_or(0);
    file.seek(SeekFrom::Current(skip as i64)).map_err(|e| damaged(&e))?;
    let packed = file.take(member.packed);
    let mut bytes = Vec::new();
    let read = match member.method {
        0 => { packed }.read_to_end(&mut bytes),
        8 => flate2::read::DeflateDecoder::new(packed).take(member.size.saturating_add(1)).read_to_end(&mut bytes),
        other => {
            return Err(bad(
                path,
                format!("member \"{}\" is packed by method {other}, which .npz files do not use", member.name),
            ));
        }
    };
    read.map_err(|e| damaged(&e))?;
    let mut crc = flate2::Crc::new();
    crc.update(&bytes);
    if bytes.len() as u64 != member.size || crc.sum() != member.crc {
        return Err(damaged(&"its checksum is wrong"));
    }
    Ok(bytes)
}

fn members(path: &Path, file: &mut File) -> Result<Vec<Member>> {
    directory(file)
        .map_err(|e| bad(path, format!("cannot be read as .npz: {e}")))?
        .ok_or_else(|| bad(path, "is a damaged .npz"))
}

/// Reads the central directory at the end of the file; `None` where it makes no sense.
fn directory(file: &mut File) -> std::io::Result<Option<Vec<Member>>> {
    let size = file.seek(SeekFrom::End(0))?;
    let tail_len = size.min(65_557 + 20);
    file.seek(SeekFrom::Start(size - tail_len))?;
    let mut tail = Vec::new();
    file.take(tail_len).read_to_end(&mut tail)?;
    let Some(end) = tail.windows(4).rposition(|w| w == b"PK\x05\x06") else { return Ok(None) };
    let mut start = number(&tail, end + 16, 4);
    let mut length = number(&tail, end + 12, 4);
    if start == Some(0xffff_ffff) || length == Some(0xffff_ffff) {
        let Some(locator) = end.checked_sub(20).and_then(|at| number(&tail, at + 8, 8)) else { return Ok(None) };
        let mut record = [0u8; 56];
        file.seek(SeekFrom::Start(locator))?;
        file.read_exact(&mut record)?;
        (length, start) = (number(&record, 40, 8), number(&record, 48, 8));
    }
    let (Some(start), Some(length)) = (start, length) else { return Ok(None) };
    if start.checked_add(length).is_none_or(|e| e > size) {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(start))?;
    let mut entries = Vec::new();
    file.take(length).read_to_end(&mut entries)?;
    let mut members = Vec::new();
    let mut at = 0;
    while at + 46 <= entries.len() && entries[at..].starts_with(b"PK\x01\x02") {
        match member(&entries[at..]) {
            Some((member, used)) => {
                members.push(member);
                at += used;
            }
            None => return Ok(None),
        }
    }
    Ok(Some(members))
}

/// One entry of the central directory and its length.
fn member(e: &[u8]) -> Option<(Member, usize)> {
    let field = |at, width| number(e, at, width);
    let (name_len, extra_len, comment_len) = (field(28, 2)? as usize, field(30, 2)? as usize, field(32, 2)? as usize);
    let name = String::from_utf8_lossy(e.get(46..46 + name_len)?).into_owned();
    let mut sizes = [field(24, 4)?, field(20, 4)?, field(42, 4)?];
    // A zip64 extra field holds, in this order, those of size, packed size and offset that did not fit.
    let extra = e.get(46 + name_len..46 + name_len + extra_len)?;
    let mut at = 0;
    while let (Some(id), Some(len)) = (number(extra, at, 2), number(extra, at + 2, 2)) {
        if id == 1 {
            let mut from = at + 4;
            for size in sizes.iter_mut().filter(|s| **s == 0xffff_ffff) {
                *size = number(extra, from, 8)?;
                from += 8;
            }
        }
        at += 4 + len as usize;
    }
    let [size, packed, offset] = sizes;
    let member = Member { name, method: field(10, 2)? as u16, crc: field(16, 4)? as u32, packed, size, offset };
    Some((member, 46 + name_len + extra_len + comment_len))
}
