//! Writes safetensors files one tensor at a time: a single file, or shards with an index.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::layout;
use crate::error::Result;
use crate::output::{OutputDir, Stream, TensorSink, TensorSpec};

/// Streams tensors in the order of the list into `BASE.safetensors`, or `BASE-00001-of-0000N.safetensors` and
/// `BASE.safetensors.index.json`. `BASE` may begin with folders of the output.
///
/// Tensors lie in the files in the order of the list, except in a shard where that would leave numbers unaligned: there
/// wider types come first.
pub struct SafetensorsWriter<'a> {
    base: String,
    stream: Stream<'a>,
}

impl<'a> SafetensorsWriter<'a> {
    /// Lays out the files. Shards begin a new file before they would pass `shard_size` bytes of tensor data.
    ///
    /// # Errors
    /// Where a tensor's encoding, shape or name cannot stand in the format, or stands twice.
    pub fn new(
        out: &'a mut OutputDir,
        base: &str,
        specs: Vec<TensorSpec>,
        shard_size: u64,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let sizes = layout::sizes(out.path(), &specs)?;
        let files = layout::shards(out.path(), base, &specs, &sizes, shard_size, metadata)?;
        Ok(Self { base: base.to_owned(), stream: Stream::new(out, specs, sizes, files) })
    }

    /// Bytes of all files, without the index.
    pub fn total_bytes(&self) -> u64 {
        self.stream.total_bytes()
    }

    fn index(&self) -> String {
        let mut map = BTreeMap::new();
        for shard in self.stream.files() {
            for s in &self.stream.specs()[shard.tensors.clone()] {
                // Names in an index are those of its own folder.
                map.insert(&s.name, shard.name.rsplit('/').next().unwrap_or(&shard.name));
            }
        }
        let total: u64 = self.stream.sizes().iter().sum();
        format!("{:#}\n", json!({"metadata": {"total_size": total}, "weight_map": map}))
    }
}

impl TensorSink for SafetensorsWriter<'_> {
    fn begin(&mut self, index: usize) -> Result<bool> {
        self.stream.begin(index)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write(bytes)
    }

    fn copy(&mut self, source: &Path, offset: u64, len: u64) -> Result<()> {
        self.stream.copy(source, offset, len)
    }

    fn end(&mut self) -> Result<()> {
        self.stream.end()
    }

    fn finish(&mut self) -> Result<()> {
        self.stream.finish()?;
        if self.stream.files().len() > 1 {
            let (name, text) = (format!("{}.safetensors.index.json", self.base), self.index());
            self.stream.out().write(&name, text.as_bytes())?;
        }
        Ok(())
    }
}
