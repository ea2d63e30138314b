//! Activations of an unfinished run, in a hidden directory beside its score file: a killed run goes on in the middle of a
//! sweep. They are an aid, not a result: what is missing, damaged or of another run is computed again.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pomona_exec::{Device, Tensor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{PruneError, Result};

/// Saving takes at most one part in this many of a run's time.
const SHARE: u32 = 20;
/// Bytes of the hash at the end of a file.
const HASH: usize = blake3::OUT_LEN;

/// The directory.
pub struct WorkFiles {
    directory: PathBuf,
    identity: String,
    every: Duration,
    last: Cell<Instant>,
    took: Cell<Duration>,
}

#[derive(Serialize, Deserialize)]
struct Header<S> {
    identity: String,
    state: S,
    shapes: Vec<Vec<usize>>,
}

impl WorkFiles {
    /// Beside `scores`, for the run of an identity; saved at most every so often. Nothing is created yet.
    pub fn beside(scores: &Path, identity: String, every: Duration) -> Self {
        let mut name = OsString::from(".");
        name.push(scores.file_name().unwrap_or_default());
        name.push(".work");
        Self {
            directory: scores.with_file_name(name),
            identity,
            every,
            last: Cell::new(Instant::now()),
            took: Cell::new(Duration::ZERO),
        }
    }

    /// Whether it is time to save again.
    pub fn due(&self) -> bool {
        self.last.get().elapsed() >= self.every.max(self.took.get() * SHARE)
    }

    /// Says that everything which was due is saved.
    pub fn saved(&self, began: Instant) {
        self.took.set(began.elapsed());
        self.last.set(Instant::now());
    }

    /// Writes a state with its tensors (f32) under a name; a reader sees the old file or the new.
    ///
    /// # Errors
    /// Where the system refuses, a full disk above all.
    pub fn save(&self, name: &str, state: &impl Serialize, tensors: &[&Tensor]) -> Result<()> {
        let path = self.directory.join(name);
        let fail = |e: &dyn std::fmt::Display| PruneError::Scores {
            path: path.clone(),
            message: format!(
                "the state of the run cannot be kept: {e}; the same command goes on from what was kept before"
            ),
        };
        let shapes = tensors.iter().map(|t| t.shape().to_vec()).collect();
        let header = serde_json::to_vec(&Header { identity: self.identity.clone(), state, shapes });
        let header = header.map_err(|e| fail(&e))?;
        std::fs::create_dir_all(&self.directory).map_err(|e| fail(&e))?;
        // One name: two runs onto one score file would write the same content.
        let temporary = self.directory.join(format!("{name}.tmp"));
        let file = std::fs::File::create(&temporary).map_err(|e| fail(&e))?;
        let mut out = Hashing { out: BufWriter::with_capacity(1 << 20, file), hash: blake3::Hasher::new() };
        out.put(&(header.len() as u64).to_le_bytes()).map_err(|e| fail(&e))?;
        out.put(&header).map_err(|e| fail(&e))?;
        for tensor in tensors {
            tensor.with_f32(|values| out.floats(values))?.map_err(|e| fail(&e))?;
        }
        // Not flushed to the disk: a torn file does not have its hash and is not read.
        let hash = out.hash.finalize();
        out.out.write_all(hash.as_bytes()).and_then(|()| out.out.flush()).map_err(|e| fail(&e))?;
        drop(out);
        std::fs::rename(&temporary, &path).map_err(|e| fail(&e))
    }

    /// A saved state with its tensors; none where there is none of this run, or it is damaged.
    pub fn load<S: DeserializeOwned>(&self, name: &str, device: &Device) -> Option<(S, Vec<Tensor>)> {
        let bytes = std::fs::read(self.directory.join(name)).ok()?;
        let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
        if blake3::hash(content).as_bytes() != hash {
            return None;
        }
        let (size, rest) = content.split_first_chunk::<8>()?;
        let (header, mut data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*size)).ok()?)?;
        let header: Header<S> = serde_json::from_slice(header).ok()?;
        if header.identity != self.identity {
            return None;
        }
        let mut tensors = Vec::with_capacity(header.shapes.len());
        for shape in header.shapes {
            let elements = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))?;
            let (own, others) = data.split_at_checked(elements.checked_mul(4)?)?;
            let values = own.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            tensors.push(Tensor::from_f32(values, &shape, device).ok()?);
            data = others;
        }
        data.is_empty().then_some((header.state, tensors))
    }

    /// Removes one file.
    pub fn remove(&self, name: &str) {
        // What stays takes space until the run is complete, and is never read for another state.
        let _ = std::fs::remove_file(self.directory.join(name));
    }

    /// Removes everything: the run is complete.
    pub fn clear(&self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

struct Hashing<W> {
    out: W,
    hash: blake3::Hasher,
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }

    fn floats(&mut self, values: &[f32]) -> std::io::Result<()> {
        let mut buffer = Vec::with_capacity(1 << 16);
        for part in values.chunks(1 << 14) {
            buffer.clear();
            buffer.extend(part.iter().flat_map(|v| v.to_le_bytes()));
            self.put(&buffer)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_anything_else_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let scores = dir.path().join("scores.json");
        let device = Device::cpu();
        let work = WorkFiles::beside(&scores, "this".to_owned(), Duration::ZERO);
        let values = vec![1.5, f32::MIN_POSITIVE / 2.0, -0.0, 3.0e38, 0.1, -7.0];
        let tensor = Tensor::from_f32(values.clone(), &[2, 3], &device).unwrap();
        assert!(work.due());
        work.save("sweep", &(3_usize, 0.1 + 0.2), &[&tensor, &tensor]).unwrap();
        let (state, found): ((usize, f64), _) = work.load("sweep", &device).unwrap();
        assert_eq!(state, (3, 0.1 + 0.2));
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].shape(), [2, 3]);
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found[1].to_f32().unwrap()), bits(&values));
        let other = WorkFiles::beside(&scores, "other".to_owned(), Duration::ZERO);
        assert!(other.load::<(usize, f64)>("sweep", &device).is_none());
        let file = dir.path().join(".scores.json.work/sweep");
        let whole = std::fs::read(&file).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..7], &[][..], &[255; 64][..]] {
            std::fs::write(&file, damaged).unwrap();
            assert!(work.load::<(usize, f64)>("sweep", &device).is_none());
        }
        work.clear();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let work = WorkFiles::beside(&dir.path().join("no/scores.json"), String::new(), Duration::ZERO);
        std::fs::write(dir.path().join("no"), "a file").unwrap();
        let message = work.save("x", &0, &[]).unwrap_err().to_string();
        assert!(message.contains(".scores.json.work/x: the state of the run cannot be kept"), "{message}");
    }
}
