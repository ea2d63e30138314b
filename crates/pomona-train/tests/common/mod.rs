//! What comparisons with PyTorch share: goldens, and samples in their order.
#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use pomona_exec::{Device, Tensor};
use pomona_store::Checkpoint;
use pomona_train::{Batch, Result, Source};

/// From which the runs draw their order.
pub const SEED: u64 = 3;

/// Where the goldens are.
pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// A tensor of a golden file.
pub fn read(file: &Checkpoint, name: &str, shape: &[usize]) -> Tensor {
    Tensor::from_f32(file.decode(file.info(name).unwrap()).unwrap(), shape, &Device::cpu()).unwrap()
}

/// Samples in the order of a golden: the one that the run asks for first is sample 0.
pub struct InOrder<S> {
    pub data: S,
    pub place: Vec<usize>,
}

impl<S: Source> Source for InOrder<S> {
    fn samples(&self) -> usize {
        self.data.samples()
    }

    fn batch(&self, picks: &[usize], draw: u64) -> Result<Batch> {
        self.data.batch(&picks.iter().map(|p| self.place[*p]).collect::<Vec<_>>(), draw)
    }

    fn fingerprint(&self) -> String {
        self.data.fingerprint()
    }

    fn describe(&self) -> String {
        self.data.describe()
    }
}
