//! Writes safetensors files one tensor at a time: a single file, or shards with an index.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::encoding::Encoding;
use crate::error::{Result, tensor_error};
use crate::output::{FileWriter, OutputDir, TensorSink};

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the file.
    pub name: String,
    /// How elements are stored.
    pub encoding: Encoding,
    /// Shape, slowest axis first.
    pub shape: Vec<usize>,
}

struct Shard {
    file: String,
    header: Vec<u8>,
    /// Positions in the list of specs.
    tensors: std::ops::Range<usize>,
    bytes: u64,
}

/// Streams tensors in the order of the list into `BASE.safetensors`, or `BASE-00001-of-0000N.safetensors` and
/// `BASE.safetensors.index.json`.
pub struct SafetensorsWriter<'a> {
    out: &'a mut OutputDir,
    base: String,
    specs: Vec<TensorSpec>,
    sizes: Vec<u64>,
    shards: Vec<Shard>,
    current: Option<(usize, FileWriter)>,
    tensor: Option<(usize, u64)>,
}

impl<'a> SafetensorsWriter<'a> {
    /// Lays out the files. Shards begin a new file before they would pass `shard_size` bytes.
    pub fn new(
        out: &'a mut OutputDir,
        base: &str,
        specs: Vec<TensorSpec>,
        shard_size: u64,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let path = out.path().to_owned();
        let mut sizes = Vec::with_capacity(specs.len());
        for s in &specs {
            if s.encoding.safetensors_name().is_none() {
                let message = format!("is {}, which safetensors does not have: decode it", s.encoding);
                return Err(tensor_error(&path, &s.name, message));
            }
            sizes.push(s.encoding.bytes_for(&s.shape).map_err(|m| tensor_error(&path, &s.name, m))?);
        }
        let mut cuts = vec![0];
        let mut filled = 0_u64;
        for (i, size) in sizes.iter().enumerate() {
            if filled > 0 && filled.saturating_add(*size) > shard_size {
                cuts.push(i);
                filled = 0;
            }
            filled += size;
        }
        cuts.push(specs.len());
        let count = cuts.len() - 1;
        let shards = cuts.windows(2).enumerate().map(|(k, cut)| {
            let file = match count {
                1 => format!("{base}.safetensors"),
                _ => format!("{base}-{:05}-of-{count:05}.safetensors", k + 1),
            };
            let tensors = cut[0]..cut[1];
            let header = header(&specs[tensors.clone()], &sizes[tensors.clone()], metadata);
            let bytes = header.len() as u64 + sizes[tensors.clone()].iter().sum::<u64>();
            Shard { file, header, tensors, bytes }
        });
        let shards = shards.collect();
        Ok(Self { out, base: base.to_owned(), specs, sizes, shards, current: None, tensor: None })
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.bytes).sum()
    }

    fn close_shard(&mut self) -> Result<()> {
        if let Some((k, file)) = self.current.take() {
            file.finish()?;
            let (name, bytes) = (self.shards[k].file.clone(), self.shards[k].bytes);
            self.out.finished(&name, bytes)?;
        }
        Ok(())
    }
}

fn header(specs: &[TensorSpec], sizes: &[u64], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut map = Map::new();
    if !metadata.is_empty() {
        map.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut at = 0;
    for (s, size) in specs.iter().zip(sizes) {
        let dtype = s.encoding.safetensors_name().unwrap_or_default();
        map.insert(s.name.clone(), json!({"dtype": dtype, "shape": s.shape, "data_offsets": [at, at + size]}));
        at += size;
    }
    let mut json = Value::Object(map).to_string().into_bytes();
    // Data begins at a multiple of 64, so that every f32 and f64 tensor is aligned in a map and pages copy whole.
    while (json.len() + 8) % 64 != 0 {
        json.push(b' ');
    }
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend(json);
    out
}

impl TensorSink for SafetensorsWriter<'_> {
    fn begin(&mut self, index: usize) -> Result<bool> {
        let Some(k) = self.shards.iter().position(|s| s.tensors.contains(&index)) else { return Ok(false) };
        let (name, bytes) = (self.shards[k].file.clone(), self.shards[k].bytes);
        if self.current.as_ref().is_none_or(|(c, _)| *c != k) {
            self.close_shard()?;
            if self.out.has(&name, bytes) {
                return Ok(false);
            }
            let mut file = self.out.file(&name)?;
            file.write(&self.shards[k].header)?;
            self.current = Some((k, file));
        }
        let at = self.current.as_ref().map_or(0, |(_, f)| f.position());
        self.tensor = Some((index, at));
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.current {
            Some((_, file)) => file.write(bytes),
            None => Ok(()),
        }
    }

    fn copy(&mut self, source: &Path, offset: u64, len: u64) -> Result<()> {
        match &mut self.current {
            Some((_, file)) => file.copy(source, offset, len),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        let (Some((index, begin)), Some((_, file))) = (self.tensor.take(), &self.current) else { return Ok(()) };
        let got = file.position() - begin;
        if got != self.sizes[index] {
            let message = format!("got {got} bytes and its shape takes {}", self.sizes[index]);
            return Err(tensor_error(self.out.path(), &self.specs[index].name, message));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if self.specs.is_empty() {
            let (name, header) = (self.shards[0].file.clone(), self.shards[0].header.clone());
            return self.out.write(&name, &header);
        }
        self.close_shard()?;
        if self.shards.len() > 1 {
            let mut map = BTreeMap::new();
            for shard in &self.shards {
                for s in &self.specs[shard.tensors.clone()] {
                    map.insert(&s.name, &shard.file);
                }
            }
            let total: u64 = self.sizes.iter().sum();
            let index = json!({"metadata": {"total_size": total}, "weight_map": map});
            let text = format!("{index:#}\n");
            self.out.write(&format!("{}.safetensors.index.json", self.base), text.as_bytes())?;
        }
        Ok(())
    }
}
