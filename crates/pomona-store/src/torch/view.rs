//! Where a tensor's elements are: a contiguous range of the file, or a strided look that is gathered when it is read.

use std::path::Path;
use std::sync::OnceLock;

use super::value::View;
use crate::checkpoint::TensorInfo;

/// A range of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub offset: u64,
    pub len: u64,
}

/// Bytes that all gathered tensors of a file may take together.
pub(super) struct Budget(u64);

impl Budget {
    /// Strides of zero make a large tensor of a small storage; more than some times the file is no checkpoint.
    pub(super) fn of_file(len: usize) -> Budget {
        Budget((len as u64).saturating_mul(4).saturating_add(64 << 20))
    }
}

/// A tensor that is not one contiguous range. Gathered once, when it is first read.
#[derive(Debug)]
pub(crate) struct Strided {
    shape: Vec<usize>,
    /// In bytes.
    strides: Vec<usize>,
    element: usize,
    gathered: OnceLock<Vec<u8>>,
}

impl View<'_> {
    /// The tensor in the file.
    ///
    /// # Errors
    /// The reason, where its storage is missing or too small.
    pub(super) fn locate(
        &self,
        path: &Path,
        name: &str,
        storage: &dyn Fn(&str) -> Option<Region>,
        budget: &mut Budget,
    ) -> Result<(TensorInfo, Option<Strided>), String> {
        let key = self.storage.key;
        let element = self.encoding.block_bytes() as u64;
        let unit = self.storage.encoding.map_or(1, |e| e.block_bytes() as u64);
        let region =
            storage(key).ok_or_else(|| format!("lies in storage `{key}`, which the file does not hold"))?;
        let overflow = || "its storage overflows".to_owned();
        let start = self.storage.start.checked_mul(unit).ok_or_else(overflow)?;
        let held = self.storage.len.checked_mul(unit).ok_or_else(overflow)?;
        if start.checked_add(held).is_none_or(|end| end > region.len) {
            return Err(format!(
                "lies in storage `{key}`, which should have {held} bytes from byte {start} on; the file has {} of it: \
                 fetch it again",
                region.len
            ));
        }
        let len = self.encoding.bytes_for(&self.shape)?;
        let first = self.offset.checked_mul(element).ok_or_else(overflow)?;
        let end = if len == 0 { Some(first) } else { self.end().and_then(|e| e.checked_mul(element)) };
        if end.is_none_or(|e| e > held) {
            return Err(format!(
                "reaches beyond its storage `{key}` of {} elements: offset {}, shape {:?}, strides {:?}",
                held / element.max(1),
                self.offset,
                self.shape,
                self.strides
            ));
        }
        let offset = region.offset + start + first;
        let info = TensorInfo {
            name: name.to_owned(),
            shape: self.shape.clone(),
            encoding: self.encoding,
            file: path.to_owned(),
            offset,
            len,
        };
        if len == 0 || self.is_contiguous() {
            return Ok((info, None));
        }
        budget.0 = budget.0.checked_sub(len).ok_or_else(|| {
            format!(
                "shape {:?} with strides {:?} repeats elements: too large for its file",
                self.shape, self.strides
            )
        })?;
        // Strides of axes of one element are never walked and may be anything.
        let walked = |(d, s): (&usize, &u64)| if *d > 1 { (s * element) as usize } else { 0 };
        let strides = self.shape.iter().zip(&self.strides).map(walked).collect();
        let (shape, element) = (self.shape.clone(), element as usize);
        Ok((info, Some(Strided { shape, strides, element, gathered: OnceLock::new() })))
    }

    /// One beyond the last element, in elements of the storage.
    fn end(&self) -> Option<u64> {
        let reach = |sum: u64, (d, s): (&usize, &u64)| sum.checked_add((*d as u64 - 1).checked_mul(*s)?);
        self.shape.iter().zip(&self.strides).try_fold(self.offset, reach)?.checked_add(1)
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(d, s)| {
            let fits = *d == 1 || *s == expected;
            // The size of the whole shape was computed without overflow.
            expected *= *d as u64;
            fits
        })
    }
}

impl Strided {
    /// The elements, row-major; `from` begins at the first of them and has every element that the strides reach.
    pub(crate) fn bytes(&self, from: &[u8]) -> &[u8] {
        self.gathered.get_or_init(|| {
            let elements: usize = self.shape.iter().product();
            let mut out = Vec::with_capacity(elements * self.element);
            gather(from, 0, &self.shape, &self.strides, self.element, &mut out);
            out
        })
    }
}

/// Recursion is as deep as the tensor has axes.
fn gather(from: &[u8], at: usize, shape: &[usize], strides: &[usize], element: usize, out: &mut Vec<u8>) {
    match (shape, strides) {
        ([d], [s]) if *s == element => out.extend_from_slice(&from[at..at + d * element]),
        ([d, shape @ ..], [s, strides @ ..]) => {
            (0..*d).for_each(|i| gather(from, at + i * s, shape, strides, element, out));
        }
        _ => out.extend_from_slice(&from[at..at + element]),
    }
}
