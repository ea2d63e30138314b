//! The zip archive since PyTorch 1.6: `NAME/data.pkl` and a stored (never compressed) entry `NAME/data/KEY` a storage.
//!
//! Only the central directory says what is in the archive; each entry's own header is compared with it. Entries must lie
//! before the directory and may not overlap.

use std::collections::HashMap;
use std::path::Path;

use super::pickle;
use super::value::{Heap, Value};
use super::view::Region;
use crate::error::{Result, format_error};

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";
/// Length of the end record without its comment.
const END_LEN: usize = 22;
const LOCATOR_LEN: usize = 20;
/// A pickle describes tensors, it does not hold them.
const MAX_PICKLE: u64 = 256 << 20;

pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(LOCAL) || bytes.starts_with(END)
}

/// An archive: its entries by name.
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    entries: HashMap<&'a str, Region>,
    /// Name of the folder that everything is in, with its slash.
    folder: &'a str,
}

impl<'a> Archive<'a> {
    pub(super) fn open(path: &Path, bytes: &'a [u8]) -> Result<Archive<'a>> {
        let entries = entries(bytes).map_err(|m| format_error(path, m))?;
        let mut pickles = entries.keys().filter_map(|n| n.strip_suffix("data.pkl"));
        let folder = match (pickles.next(), pickles.next()) {
            (Some(folder), None) if folder.is_empty() || folder.ends_with('/') => folder,
            (Some(_), Some(_)) => return Err(format_error(path, "has more than one data.pkl")),
            _ => {
                let message =
                    "is a zip archive without data.pkl: give a file that torch.save made of a state dict";
                return Err(format_error(path, message));
            }
        };
        let archive = Archive { bytes, entries, folder };
        let order = archive.entries.get(format!("{folder}byteorder").as_str());
        if order.is_some_and(|r| archive.slice(r) == b"big") {
            return Err(format_error(path, "was saved on a big-endian machine: save it again on another"));
        }
        Ok(archive)
    }

    /// The object that `data.pkl` describes.
    pub(super) fn unpickle(&self, path: &Path) -> Result<(Heap<'a>, Value<'a>)> {
        let name = format!("{}data.pkl", self.folder);
        let region = self.entries.get(name.as_str()).cloned().unwrap_or(Region { offset: 0, len: 0 });
        let wrong = |m: String| format_error(path, format!("{name}: {m}"));
        if region.len > MAX_PICKLE {
            return Err(wrong(format!("has {} bytes; at most {MAX_PICKLE} are read", region.len)));
        }
        let mut heap = Heap::default();
        let (root, _) = pickle::run(self.slice(&region), &mut heap).map_err(wrong)?;
        Ok((heap, root))
    }

    /// Where the data of a storage is.
    pub(super) fn storage(&self, key: &str) -> Option<Region> {
        self.entries.get(format!("{}data/{key}", self.folder).as_str()).cloned()
    }

    /// Regions were checked when the archive was opened.
    fn slice(&self, region: &Region) -> &'a [u8] {
        &self.bytes[region.offset as usize..(region.offset + region.len) as usize]
    }
}

type Step<T> = std::result::Result<T, String>;

/// A number at a byte, least significant first.
fn number(bytes: &[u8], at: usize, len: usize) -> Step<u64> {
    let range = at.checked_add(len).and_then(|end| bytes.get(at..end));
    let range =
        range.ok_or_else(|| format!("a zip record ends beyond the file at byte {at}: fetch it again"))?;
    Ok(range.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

/// The directory: its first byte, length and number of entries.
struct Directory {
    at: u64,
    len: u64,
    count: u64,
}

fn directory(bytes: &[u8]) -> Step<Directory> {
    let last = bytes.len().checked_sub(END_LEN).ok_or("has only a few bytes")?;
    let lowest = last.saturating_sub(usize::from(u16::MAX));
    // The comment behind the record must reach the end of the file exactly, or a record inside a comment would count.
    let ends = |at: &usize| {
        bytes[*at..].starts_with(END)
            && number(bytes, at + 20, 2).is_ok_and(|n| at + END_LEN + n as usize == bytes.len())
    };
    let end = (lowest..=last).rev().find(ends);
    let end = end.ok_or("has no zip directory at its end: the file is truncated, fetch it again")?;
    let (count, len, at) =
        (number(bytes, end + 10, 2)?, number(bytes, end + 12, 4)?, number(bytes, end + 16, 4)?);
    let mut directory = Directory { at, len, count };
    let mut limit = end as u64;
    let locator = end.checked_sub(LOCATOR_LEN).filter(|l| bytes[*l..].starts_with(END_64_LOCATOR));
    if let Some(locator) = locator {
        limit = number(bytes, locator + 8, 8)?;
        let record =
            usize::try_from(limit).ok().filter(|r| bytes.get(*r..).is_some_and(|b| b.starts_with(END_64)));
        let record = record
            .ok_or_else(|| format!("has no 64-bit zip directory at byte {limit}, where it should be"))?;
        let (count, len, at) =
            (number(bytes, record + 32, 8)?, number(bytes, record + 40, 8)?, number(bytes, record + 48, 8)?);
        directory = Directory { at, len, count };
    }
    if directory.at.checked_add(directory.len).is_none_or(|end| end > limit) {
        return Err(format!(
            "its zip directory of {} bytes at byte {} reaches beyond its end at byte {limit}",
            directory.len, directory.at
        ));
    }
    Ok(directory)
}

fn entries(bytes: &[u8]) -> Step<HashMap<&str, Region>> {
    let directory = directory(bytes)?;
    let mut at = directory.at as usize;
    let end = at + directory.len as usize;
    let mut out = HashMap::new();
    let mut ranges = Vec::new();
    for i in 0..directory.count {
        if at >= end || !bytes[at..].starts_with(CENTRAL) {
            return Err(format!("its zip directory has {i} entries and says {}", directory.count));
        }
        let (entry, next) = central(bytes, at)?;
        if next > end {
            return Err(format!("entry `{}` reaches beyond the zip directory", entry.name));
        }
        at = next;
        let region = entry.data(bytes, directory.at)?;
        ranges.push((entry.header, region.offset + region.len, entry.name));
        if out.insert(entry.name, region).is_some() {
            return Err(format!("entry `{}` stands twice in the zip directory", entry.name));
        }
    }
    ranges.sort_unstable();
    if let Some(pair) = ranges.windows(2).find(|p| p[1].0 < p[0].1) {
        return Err(format!("entries `{}` and `{}` overlap", pair[0].2, pair[1].2));
    }
    Ok(out)
}

struct Entry<'a> {
    name: &'a str,
    method: u64,
    flags: u64,
    size: u64,
    /// First byte of the entry's own header.
    header: u64,
}

/// An entry of the directory, and where the next one begins.
fn central(bytes: &[u8], at: usize) -> Step<(Entry<'_>, usize)> {
    let (name_len, extra_len, comment) = (
        number(bytes, at + 28, 2)? as usize,
        number(bytes, at + 30, 2)? as usize,
        number(bytes, at + 32, 2)? as usize,
    );
    let name = bytes.get(at + 46..at + 46 + name_len).and_then(|n| std::str::from_utf8(n).ok());
    let name = name.ok_or_else(|| format!("the zip entry at byte {at} has no readable name"))?;
    let (mut packed, mut size, mut header) =
        (number(bytes, at + 20, 4)?, number(bytes, at + 24, 4)?, number(bytes, at + 42, 4)?);
    let mut extra = at + 46 + name_len;
    let extra_end = extra + extra_len;
    while extra + 4 <= extra_end {
        let (id, len) = (number(bytes, extra, 2)?, number(bytes, extra + 2, 2)? as usize);
        let (mut field, end) = (extra + 4, extra + 4 + len);
        if end > extra_end {
            return Err(format!("entry `{name}`: an extra field of {len} bytes reaches beyond its record"));
        }
        if id == 1 {
            // The 64-bit field has only those numbers that did not fit, in this order.
            for value in [&mut size, &mut packed, &mut header] {
                if *value == u64::from(u32::MAX) {
                    if field + 8 > end {
                        return Err(format!("entry `{name}` lacks a 64-bit size"));
                    }
                    *value = number(bytes, field, 8)?;
                    field += 8;
                }
            }
        }
        extra = end;
    }
    let (flags, method) = (number(bytes, at + 8, 2)?, number(bytes, at + 10, 2)?);
    if method == 0 && packed != size {
        return Err(format!("entry `{name}` is stored and has the sizes {packed} and {size}"));
    }
    Ok((Entry { name, method, flags, size, header }, extra_end + comment))
}

impl Entry<'_> {
    /// The entry's data, by its own header, which must agree with the directory.
    fn data(&self, bytes: &[u8], limit: u64) -> Step<Region> {
        let name = self.name;
        if self.flags & 1 != 0 {
            return Err(format!("entry `{name}` is encrypted"));
        }
        if self.method != 0 {
            return Err(format!(
                "entry `{name}` is compressed (method {}); PyTorch stores its entries: unpack the archive and save it again",
                self.method
            ));
        }
        let at = usize::try_from(self.header)
            .ok()
            .filter(|a| bytes.get(*a..).is_some_and(|b| b.starts_with(LOCAL)));
        let at = at.ok_or_else(|| {
            format!("entry `{name}` has no header at byte {}, where it should be", self.header)
        })?;
        let (name_len, extra_len) =
            (number(bytes, at + 26, 2)? as usize, number(bytes, at + 28, 2)? as usize);
        let method = number(bytes, at + 8, 2)?;
        if bytes.get(at + 30..at + 30 + name_len) != Some(name.as_bytes()) || method != self.method {
            return Err(format!("entry `{name}` is another entry in its own header at byte {at}"));
        }
        let offset = (at + 30 + name_len + extra_len) as u64;
        if offset.checked_add(self.size).is_none_or(|end| end > limit) {
            return Err(format!(
                "entry `{name}` of {} bytes at byte {offset} reaches into the zip directory at byte {limit}",
                self.size
            ));
        }
        Ok(Region { offset, len: self.size })
    }
}
