//! An open checkpoint: tensors by name over memory-mapped files. Opening reads headers only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::decode::{can_decode, decode};
use crate::encoding::Encoding;
use crate::error::{Result, StoreError, format_error, io_error, tensor_error};
use crate::gguf::{self, GgufValue};
use crate::onnx::{self, OnnxModel, OnnxTensor};
use crate::safetensors;
use crate::torch::{self, Strided};

/// Where a tensor is and what it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the file.
    pub name: String,
    /// Shape, slowest axis first (GGUF's order is turned around).
    pub shape: Vec<usize>,
    /// How elements are stored.
    pub encoding: Encoding,
    /// The file.
    pub file: PathBuf,
    /// First byte, from the beginning of the file.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of one slice of the first axis, where slices are whole blocks of a known size.
    pub fn row_bytes(&self) -> Option<usize> {
        let rows = *self.shape.first()? as u64;
        let last_is_row = self.shape.len() > 1 || self.encoding.block_len() == 1;
        let known = !matches!(self.encoding, Encoding::Ggml(_));
        let whole = rows > 0 && last_is_row && known && self.len.is_multiple_of(rows);
        whole.then(|| (self.len / rows) as usize)
    }
}

/// File format of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One or more safetensors files.
    Safetensors,
    /// A GGUF file.
    Gguf,
    /// An ONNX file, with the files beside it that hold its external data.
    Onnx,
    /// One or more PyTorch files (`.pth`, `.pt`, `.bin`), of the zip or the legacy format.
    Torch,
}

/// Tensors of one or more files, mapped into memory; data is read when it is used.
#[derive(Debug)]
pub struct Checkpoint {
    format: Format,
    path: PathBuf,
    maps: BTreeMap<PathBuf, Mmap>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    gguf: Vec<(String, GgufValue)>,
    metadata: BTreeMap<String, String>,
    onnx: Option<Box<OnnxModel>>,
    /// Tensors that no file holds as they are in memory.
    decoded: HashMap<String, Vec<u8>>,
    /// Tensors that are no contiguous range of their file.
    strided: HashMap<String, Strided>,
    /// Tensors of further files, see [`Checkpoint::add`].
    added: HashMap<String, TensorInfo>,
}

impl Checkpoint {
    /// Opens a `.safetensors`, `.gguf`, `.onnx` or PyTorch file (`.pth`, `.pt`, `.bin`, `.th`, `.ckpt`), a
    /// `*.safetensors.index.json` or `*.bin.index.json`, or a directory that holds one of them.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::open_directory(path);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.ends_with(".safetensors.index.json") || name.ends_with(".bin.index.json") {
            return Self::open_shards(path);
        }
        let map = map_file(path)?;
        if name.ends_with(".gguf") || map.starts_with(b"GGUF") {
            return Self::open_gguf(path, map);
        }
        if name.ends_with(".safetensors") {
            let (tensors, metadata) = safetensors::read::read(path, &map)?;
            let mut out = Self::collect(Format::Safetensors, path, [(path.to_owned(), map)].into(), tensors)?;
            out.metadata = metadata;
            return Ok(out);
        }
        if name.ends_with(".onnx") {
            return Self::open_onnx(path, map);
        }
        if torch::is_torch(&name, &map) {
            let (tensors, strided) = separate(torch::read(path, &map)?);
            let mut out = Self::collect(Format::Torch, path, [(path.to_owned(), map)].into(), tensors)?;
            out.strided = strided;
            return Ok(out);
        }
        Err(StoreError::NotACheckpoint {
            path: path.to_owned(),
            message:
                "not a checkpoint that is read: give a .safetensors, .gguf, .onnx, .pth, .pt or .bin file, or a directory with one"
                    .to_owned(),
        })
    }

    fn open_gguf(path: &Path, map: Mmap) -> Result<Checkpoint> {
        let header = gguf::read::read(path, &map)?;
        let Some(parts) = gguf::split::parts(path, &header.metadata)? else {
            let mut out = Self::collect(Format::Gguf, path, [(path.to_owned(), map)].into(), header.tensors)?;
            out.gguf = header.metadata;
            return Ok(out);
        };
        let (mut maps, mut tensors, mut metadata) = (BTreeMap::new(), Vec::new(), None);
        for part in parts {
            let map = map_file(&part)?;
            let header = gguf::read::read(&part, &map)?;
            tensors.extend(header.tensors);
            // The first part has the model's metadata, the others only their number.
            metadata.get_or_insert(header.metadata);
            maps.insert(part, map);
        }
        let metadata = metadata.unwrap_or_default();
        gguf::split::check_count(path, &metadata, tensors.len())?;
        let mut out = Self::collect(Format::Gguf, path, maps, tensors)?;
        out.gguf = gguf::split::without_split(metadata);
        Ok(out)
    }

    fn open_onnx(path: &Path, map: Mmap) -> Result<Checkpoint> {
        let model = onnx::parse(path, &map)?;
        let mut maps = BTreeMap::from([(path.to_owned(), map)]);
        let mut found = Vec::with_capacity(model.graph.initializers.len());
        for tensor in &model.graph.initializers {
            let one = onnx::find(path, &mut maps, tensor)?;
            check_range(&maps, &one)?;
            found.push(one);
        }
        let mut decoded = HashMap::new();
        let mut tensors = Vec::with_capacity(found.len());
        for one in found {
            if let Some(bytes) = one.bytes {
                decoded.insert(one.info.name.clone(), bytes);
            }
            tensors.push(one.info);
        }
        let mut out = Self::collect(Format::Onnx, path, maps, tensors)?;
        out.decoded = decoded;
        out.onnx = Some(Box::new(model));
        Ok(out)
    }

    /// The computation of an ONNX file.
    pub fn onnx(&self) -> Option<&OnnxModel> {
        self.onnx.as_deref()
    }

    /// The computation of an ONNX file, which the checkpoint does not need any more: only its tensors stay.
    pub fn take_onnx(&mut self) -> Option<OnnxModel> {
        self.onnx.take().map(|m| *m)
    }

    /// Adds a tensor that stands elsewhere in an ONNX file (in an attribute) or was computed from others when it was
    /// read, so that recipes can name it.
    ///
    /// # Errors
    /// Where the name is taken, or the data do not fit the shape.
    pub fn insert(&mut self, tensor: &OnnxTensor) -> Result<()> {
        let found = onnx::find(&self.path, &mut self.maps, tensor)?;
        check_range(&self.maps, &found)?;
        if self.by_name.contains_key(&tensor.name) {
            return Err(tensor_error(&self.path, &tensor.name, "stands twice in the checkpoint"));
        }
        if let Some(bytes) = found.bytes {
            self.decoded.insert(tensor.name.clone(), bytes);
        }
        self.by_name.insert(tensor.name.clone(), self.tensors.len());
        self.tensors.push(found.info);
        Ok(())
    }

    /// Adds the tensors of another safetensors checkpoint under `prefix` and their names, so that recipes can read both (what
    /// was trained, say, beside the source). They are found by name and are in no list of this checkpoint: it stays what it
    /// was read from.
    ///
    /// # Errors
    /// Where a name is taken, or the other checkpoint is of another format.
    pub fn add(&mut self, other: Checkpoint, prefix: &str) -> Result<()> {
        if other.format != Format::Safetensors {
            return Err(format_error(&other.path, "is no safetensors file: only those can be added"));
        }
        for mut info in other.tensors {
            info.name.insert_str(0, prefix);
            if self.get(&info.name).is_some() {
                return Err(tensor_error(&info.file, &info.name, "stands twice in the checkpoint"));
            }
            self.added.insert(info.name.clone(), info);
        }
        self.maps.extend(other.maps);
        Ok(())
    }

    /// Whether the tensor's bytes lie in its file at its offset: true for all but some of ONNX's and
    /// PyTorch's.
    pub fn is_mapped(&self, info: &TensorInfo) -> bool {
        !self.decoded.contains_key(&info.name) && !self.strided.contains_key(&info.name)
    }

    fn open_directory(dir: &Path) -> Result<Checkpoint> {
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(io_error(dir, "cannot be listed"))? {
            let entry = entry.map_err(io_error(dir, "cannot be listed"))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        let usual = ["model", "diffusion_pytorch_model", "pytorch_model"];
        let known = |end: &str| {
            let stem = usual.iter().map(|s| format!("{s}{end}")).find(|n| names.contains(n));
            let mut others = names.iter().filter(|n| n.ends_with(end));
            stem.or_else(|| others.next().cloned())
        };
        if let Some(index) = known(".safetensors.index.json") {
            return Self::open_shards(&dir.join(index));
        }
        let only = |end: &str| {
            let stem = usual.iter().map(|s| format!("{s}{end}")).find(|n| names.contains(n));
            let mut all = names.iter().filter(|n| n.ends_with(end));
            let first = all.next().cloned();
            stem.or(if all.next().is_none() { first } else { None })
        };
        let first_parts: Vec<&String> =
            names.iter().filter(|n| n.contains("-00001-of-") && n.ends_with(".gguf")).collect();
        let split = if let [one] = first_parts[..] { Some(one.clone()) } else { None };
        if let Some(file) = only(".safetensors").or_else(|| only(".gguf")).or(split).or_else(|| only(".onnx"))
        {
            return Self::open(dir.join(file));
        }
        if let Some(index) = known(".bin.index.json") {
            return Self::open_shards(&dir.join(index));
        }
        // What trainers save beside the weights is no model.
        let beside = ["training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scheduler.bin"];
        names.retain(|n| !beside.contains(&n.as_str()) && !n.starts_with("rng_state"));
        let only = |end: &str| {
            let stem = usual.iter().map(|s| format!("{s}{end}")).find(|n| names.contains(n));
            let mut all = names.iter().filter(|n| n.ends_with(end));
            let first = all.next().cloned();
            stem.or(if all.next().is_none() { first } else { None })
        };
        if let Some(file) = [".bin", ".pth", ".pt", ".th", ".ckpt"].iter().find_map(|end| only(end)) {
            return Self::open(dir.join(file));
        }
        Err(StoreError::NotACheckpoint {
            path: dir.to_owned(),
            message: format!(
                "holds no model.safetensors, shard index, .gguf, .onnx, .bin or .pth (or several without an index); it has: {}",
                names.iter().take(12).cloned().collect::<Vec<_>>().join(", ")
            ),
        })
    }

    fn open_shards(index: &Path) -> Result<Checkpoint> {
        let mut maps = BTreeMap::new();
        let mut tensors = Vec::new();
        let mut all_strided = HashMap::new();
        let mut format = Format::Safetensors;
        for (shard, wanted) in safetensors::read_index(index)? {
            let map = map_file(&shard)?;
            let found = if shard.extension().is_some_and(|e| e == "safetensors") {
                safetensors::read::read(&shard, &map)?.0
            } else {
                format = Format::Torch;
                let (found, strided) = separate(torch::read(&shard, &map)?);
                all_strided.extend(strided.into_iter().filter(|(name, _)| wanted.contains(name)));
                found
            };
            let there: HashSet<&str> = found.iter().map(|t| t.name.as_str()).collect();
            if let Some(name) = wanted.iter().find(|w| !there.contains(w.as_str())) {
                return Err(tensor_error(&shard, name, "is missing although the index says that it is here"));
            }
            tensors.extend(found.into_iter().filter(|t| wanted.contains(&t.name)));
            maps.insert(shard, map);
        }
        let mut out = Self::collect(format, index, maps, tensors)?;
        out.strided = all_strided;
        Ok(out)
    }

    fn collect(
        format: Format,
        path: &Path,
        maps: BTreeMap<PathBuf, Mmap>,
        tensors: Vec<TensorInfo>,
    ) -> Result<Checkpoint> {
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (i, t) in tensors.iter().enumerate() {
            if by_name.insert(t.name.clone(), i).is_some() {
                return Err(tensor_error(&t.file, &t.name, "stands twice in the checkpoint"));
            }
        }
        let (gguf, metadata) = (Vec::new(), BTreeMap::new());
        let (path, onnx, decoded, strided) = (path.to_owned(), None, HashMap::new(), HashMap::new());
        let added = HashMap::new();
        Ok(Checkpoint { format, path, maps, tensors, by_name, gguf, metadata, onnx, decoded, strided, added })
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What was opened: the file, or the index of a sharded checkpoint.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.maps.keys().map(PathBuf::as_path)
    }

    /// Tensors, each file's in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Names of the tensors, in the order of [`Checkpoint::tensors`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|t| t.name.as_str())
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&i| &self.tensors[i]).or_else(|| self.added.get(name))
    }

    /// The tensor of a name; the error lists close names.
    pub fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.get(name).ok_or_else(|| {
            let mut near: Vec<(f64, &str)> = self
                .names()
                .map(|n| (strsim::normalized_damerau_levenshtein(n, name), n))
                .filter(|p| p.0 > 0.6)
                .collect();
            near.sort_by(|a, b| b.0.total_cmp(&a.0));
            let near: Vec<String> = near.iter().take(3).map(|p| format!("`{}`", p.1)).collect();
            let hint =
                if near.is_empty() { String::new() } else { format!("; near are {}", near.join(", ")) };
            tensor_error(
                &self.path,
                name,
                format!("is not among the checkpoint's {}{hint}", self.tensors.len()),
            )
        })
    }

    /// Bytes of a tensor as they stand in the file. Those of a strided tensor of PyTorch's are gathered row-major when they
    /// are first read, and kept.
    pub fn bytes(&self, info: &TensorInfo) -> Result<&[u8]> {
        if let Some(bytes) = self.decoded.get(&info.name) {
            return Ok(bytes);
        }
        let map = self
            .maps
            .get(&info.file)
            .ok_or_else(|| tensor_error(&self.path, &info.name, "belongs to another checkpoint"))?;
        if let Some(strided) = self.strided.get(&info.name) {
            let from = usize::try_from(info.offset).ok().and_then(|begin| map.get(begin..));
            return from
                .map(|from| strided.bytes(from))
                .ok_or_else(|| tensor_error(&info.file, &info.name, "lies outside its file"));
        }
        let begin = usize::try_from(info.offset).ok();
        let end = info.offset.checked_add(info.len).and_then(|e| usize::try_from(e).ok());
        let range = begin.zip(end).and_then(|(b, e)| map.get(b..e));
        range.ok_or_else(|| tensor_error(&info.file, &info.name, "lies outside its file"))
    }

    /// Elements `rows` of the first axis as f32 (the whole of a scalar).
    pub fn decode_rows(&self, info: &TensorInfo, rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        let bytes = self.bytes(info)?;
        if !can_decode(info.encoding) {
            let message = format!("is stored as {}, which can be copied but not decoded", info.encoding);
            return Err(tensor_error(&info.file, &info.name, message));
        }
        let Some(&total) = info.shape.first() else {
            let mut out = vec![0.0; 1];
            decode(info.encoding, bytes, &mut out);
            return Ok(out);
        };
        if rows.start > rows.end || rows.end > total {
            return Err(tensor_error(
                &info.file,
                &info.name,
                format!("has {total} rows, {rows:?} were asked for"),
            ));
        }
        let whole = rows == (0..total);
        let row_len = info.shape[1..].iter().product::<usize>();
        let row_bytes = match info.row_bytes() {
            Some(n) => n,
            None if whole => 0,
            None => {
                return Err(tensor_error(
                    &info.file,
                    &info.name,
                    "cannot be cut into rows: its blocks cross them",
                ));
            }
        };
        let part = if whole { bytes } else { &bytes[rows.start * row_bytes..rows.end * row_bytes] };
        let mut out = vec![0.0; rows.len() * row_len];
        decode(info.encoding, part, &mut out);
        Ok(out)
    }

    /// All elements as f32.
    pub fn decode(&self, info: &TensorInfo) -> Result<Vec<f32>> {
        self.decode_rows(info, 0..info.shape.first().copied().unwrap_or(0))
    }

    /// GGUF metadata in file order; empty for safetensors.
    pub fn gguf_metadata(&self) -> &[(String, GgufValue)] {
        &self.gguf
    }

    /// A GGUF metadata value.
    pub fn gguf(&self, key: &str) -> Option<&GgufValue> {
        self.gguf.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// `__metadata__` of a single safetensors file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

/// A range that the file itself gives lies in it: the parser cut it out of the map.
fn check_range(maps: &BTreeMap<PathBuf, Mmap>, found: &onnx::Found) -> Result<()> {
    let size = maps.get(&found.info.file).map_or(0, |m| m.len() as u64);
    let end = found.info.offset.checked_add(found.info.len);
    if found.bytes.is_none() && end.is_none_or(|e| e > size) {
        return Err(tensor_error(&found.info.file, &found.info.name, "lies outside its file"));
    }
    Ok(())
}

pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(io_error(path, "cannot be opened"))?;
    let kind = file.metadata().map_err(io_error(path, "cannot be read"))?;
    if !kind.is_file() {
        return Err(format_error(path, "is not a regular file"));
    }
    if kind.len() == 0 {
        return Err(format_error(path, "is empty: fetch it again"));
    }
    // SAFETY: the map is read-only. A file that another process truncates while it is mapped ends this process with
    // SIGBUS, as in every reader that maps; nothing is written through the map, and outputs replace files by rename.
    let map = unsafe { Mmap::map(&file) };
    map.map_err(io_error(path, "cannot be mapped"))
}

/// Descriptions, and the layouts of those that are strided, by name.
fn separate(found: torch::Found) -> (Vec<TensorInfo>, HashMap<String, Strided>) {
    let mut tensors = Vec::with_capacity(found.len());
    let mut strided = HashMap::new();
    for (info, layout) in found {
        if let Some(layout) = layout {
            strided.insert(info.name.clone(), layout);
        }
        tensors.push(info);
    }
    (tensors, strided)
}
