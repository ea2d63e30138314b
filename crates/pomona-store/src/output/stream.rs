//! Tensors in a fixed order into files of a fixed layout: what the writers of all formats share.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::directory::OutputDir;
use super::file::FileWriter;
use super::sink::{TensorSink, TensorSpec};
use crate::error::{Result, StoreError, tensor_error};

/// A file whose every byte position is known before its data.
pub(crate) struct PlannedFile {
    pub name: String,
    pub header: Vec<u8>,
    /// Positions in the list of specs.
    pub tensors: Range<usize>,
    /// First byte of each tensor of `tensors`.
    pub places: Vec<u64>,
    /// Bytes right before each tensor, where the format has some there; empty where it has none.
    pub leads: Vec<Vec<u8>>,
    /// Bytes of the whole file.
    pub total: u64,
}

struct Open {
    writer: FileWriter,
    /// Tensors of this file that the journal has as being on the disk.
    recorded: u64,
}

/// Begun files and tensors of a writer.
pub(crate) struct Stream<'a> {
    out: &'a mut OutputDir,
    specs: Vec<TensorSpec>,
    sizes: Vec<u64>,
    files: Vec<PlannedFile>,
    /// The file that holds `next`, or the last one.
    file: usize,
    open: Option<Open>,
    /// The tensor that is due.
    next: usize,
    /// Tensors before this one are on the disk since an interrupted run.
    have: usize,
    /// The begun tensor and its first byte.
    tensor: Option<(usize, u64)>,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(
        out: &'a mut OutputDir,
        specs: Vec<TensorSpec>,
        sizes: Vec<u64>,
        files: Vec<PlannedFile>,
    ) -> Stream<'a> {
        Stream { out, specs, sizes, files, file: 0, open: None, next: 0, have: 0, tensor: None }
    }

    pub(crate) fn out(&mut self) -> &mut OutputDir {
        self.out
    }

    pub(crate) fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    pub(crate) fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    pub(crate) fn files(&self) -> &[PlannedFile] {
        &self.files
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.files.iter().fold(0, |n, f| n.saturating_add(f.total))
    }

    fn path(&self) -> PathBuf {
        self.files
            .get(self.file)
            .map_or_else(|| self.out.path().to_owned(), |f| self.out.path().join(&f.name))
    }

    fn misuse(&self, message: String) -> StoreError {
        StoreError::Output { path: self.path(), message }
    }

    fn name(&self, index: usize) -> &str {
        self.specs.get(index).map_or("no more tensors", |s| &s.name)
    }

    /// Opens the file of the due tensor, or takes over what an interrupted run left of it.
    fn open_file(&mut self) -> Result<()> {
        let plan = &self.files[self.file];
        if self.out.has(&plan.name, plan.total) {
            self.have = plan.tensors.end;
            return Ok(());
        }
        let done = self.out.partial(&plan.name).min(plan.tensors.len() as u64) as usize;
        let first = plan.tensors.start;
        let end = (0..done).map(|i| plan.places[i] + self.sizes[first + i]).max().unwrap_or(0);
        if done > 0 && self.out.size(&plan.name) >= end {
            let writer = FileWriter::resume(&self.out.path().join(&plan.name))?;
            self.have = first + done;
            self.open = Some(Open { writer, recorded: done as u64 });
            return Ok(());
        }
        let mut writer = self.out.file(&plan.name)?;
        writer.write(&plan.header)?;
        self.open = Some(Open { writer, recorded: 0 });
        Ok(())
    }

    fn close_file(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            let plan = &self.files[self.file];
            open.writer.finish(plan.total)?;
            self.out.finished(&plan.name, plan.total)?;
        }
        Ok(())
    }

    /// Room that is left in the begun tensor, and its writer.
    fn room(&mut self, len: u64) -> Result<&mut FileWriter> {
        let (Some((index, begin)), Some(at)) = (self.tensor, self.open.as_ref().map(|o| o.writer.position()))
        else {
            return Err(self.misuse("bytes were given although no tensor is begun".to_owned()));
        };
        let got = (at - begin).saturating_add(len);
        if got > self.sizes[index] {
            let message = format!("got {got} bytes and its shape takes {}", self.sizes[index]);
            return Err(tensor_error(&self.path(), self.name(index), message));
        }
        match &mut self.open {
            Some(open) => Ok(&mut open.writer),
            None => Err(StoreError::Output { path: PathBuf::new(), message: "no file is open".to_owned() }),
        }
    }
}

impl TensorSink for Stream<'_> {
    fn begin(&mut self, index: usize) -> Result<bool> {
        if let Some((open, _)) = self.tensor {
            let message = format!("`{}` was begun before `{}` was ended", self.name(index), self.name(open));
            return Err(self.misuse(message));
        }
        if index != self.next || index >= self.specs.len() {
            let message =
                format!("tensor {index} was begun; {} (`{}`) is due", self.next, self.name(self.next));
            return Err(self.misuse(message));
        }
        if index >= self.files[self.file].tensors.end {
            self.close_file()?;
            self.file += 1;
        }
        if index == self.files[self.file].tensors.start {
            self.open_file()?;
        }
        self.next += 1;
        if index < self.have {
            return Ok(false);
        }
        let plan = &self.files[self.file];
        let place = plan.places[index - plan.tensors.start];
        if let Some(open) = &mut self.open {
            match plan.leads.get(index - plan.tensors.start) {
                Some(lead) => {
                    open.writer.go_to(place - lead.len() as u64)?;
                    open.writer.write(lead)?;
                }
                None => open.writer.go_to(place)?,
            }
        }
        self.tensor = Some((index, place));
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.room(bytes.len() as u64)?.write(bytes)
    }

    fn copy(&mut self, source: &Path, offset: u64, len: u64) -> Result<()> {
        self.room(len)?.copy(source, offset, len)
    }

    fn end(&mut self) -> Result<()> {
        let at = self.open.as_ref().map(|o| o.writer.position());
        let (Some((index, begin)), Some(at)) = (self.tensor, at) else {
            return Err(self.misuse("a tensor was ended that is not begun".to_owned()));
        };
        let got = at - begin;
        if got != self.sizes[index] {
            let message = format!("got {got} bytes and its shape takes {}", self.sizes[index]);
            return Err(tensor_error(&self.path(), self.name(index), message));
        }
        self.tensor = None;
        let plan = &self.files[self.file];
        if let Some(open) = &mut self.open {
            open.writer.mark((index + 1 - plan.tensors.start) as u64)?;
            let durable = open.writer.durable();
            if durable > open.recorded {
                self.out.record_partial(&plan.name, durable)?;
                open.recorded = durable;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if self.next != self.specs.len() || self.tensor.is_some() {
            let due = self.tensor.map_or(self.next, |(open, _)| open);
            return Err(self.misuse(format!("was finished before `{}` was written", self.name(due))));
        }
        // A list without tensors makes one file of a header.
        if self.specs.is_empty() && !self.files.is_empty() {
            self.open_file()?;
        }
        self.close_file()
    }
}
