//! What the targets share: a file for the input, and what a user does with a model that opens.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pomona_graph::Graph;
use pomona_models::Model;
use pomona_store::Checkpoint;

/// Most bytes of data that are decoded: what is larger takes its time and finds nothing.
const DECODED: u64 = 1 << 16;

/// A directory of this process in memory where there is such a place.
fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let shared = Path::new("/dev/shm");
        let base = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let own = base.join(format!("pomona-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&own).expect("a directory for inputs");
        own
    })
}

/// The input as a file of this name.
pub fn file(name: &str, data: &[u8]) -> PathBuf {
    let path = directory().join(name);
    std::fs::write(&path, data).expect("the input is written");
    path
}

/// Reads every tensor of a file that opens.
pub fn read_all(file: &Checkpoint) {
    for t in file.tensors() {
        let bytes = file.bytes(t);
        if file.is_mapped(t) {
            assert_eq!(bytes.expect("a range of the file").len() as u64, t.len);
        }
        if t.len <= DECODED && t.elements() as u64 <= DECODED {
            let _ = file.decode(t);
        }
    }
}

/// Opens a checkpoint; the message of a refusal names it.
pub fn checkpoint(path: &Path) {
    match Checkpoint::open(path) {
        Ok(file) => read_all(&file),
        Err(e) => assert_names(&e.to_string(), path),
    }
}

/// Opens a model, and asks what `inspect` asks.
pub fn model(path: &Path) {
    match pomona_models::open(path) {
        Ok(model) => look(&model),
        Err(e) => drop(e.to_string()),
    }
}

fn look(model: &Model) {
    for c in &model.components {
        c.graph.validate().expect("a graph that was built is valid");
        let _ = pomona_graph::blocks(&c.graph);
        c.fingerprint().expect("what opens has a fingerprint");
        if let Some(file) = &c.checkpoint {
            read_all(file);
        }
        for t in c.graph.tensors.iter().filter(|t| t.elements() <= DECODED) {
            if c.checkpoint.is_some() {
                let _ = c.materialise(&t.name);
            }
        }
    }
}

fn assert_names(message: &str, path: &Path) {
    // A damaged shard is named instead of the index beside it.
    let folder = path.parent().unwrap_or(path).display().to_string();
    assert!(message.contains(&folder), "{message}");
}

/// The Llama of the seeds: eight blocks, from its config.
pub fn llama() -> &'static Graph {
    static LLAMA: OnceLock<Graph> = OnceLock::new();
    LLAMA.get_or_init(|| {
        let path = file("llama.json", include_bytes!("llama.json"));
        let mut model = pomona_models::open(path).expect("the config of the seeds");
        model.components.remove(0).graph
    })
}

/// Runs what catches panics of a library inside. The fuzzer's own hook would end the process before they are caught; a panic
/// that comes out ends it.
pub fn caught(f: impl FnOnce()) {
    static QUIET: OnceLock<()> = OnceLock::new();
    QUIET.get_or_init(|| drop(std::panic::take_hook()));
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err() {
        std::process::abort();
    }
}

/// A zip archive of PyTorch's with this pickle.
pub fn archive(pickle: &[u8]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let entries = [("m/data.pkl", pickle), ("m/data/0", &[0; 24])];
    for (name, data) in entries {
        let (at, size) = ((out.len() as u32).to_le_bytes(), (data.len() as u32).to_le_bytes());
        // Flags, method, time, date and checksum are zero.
        let common = [&[0; 12][..], &size, &size, &(name.len() as u16).to_le_bytes()].concat();
        out.extend([b"PK\x03\x04\0\0", &common[..], &[0, 0], name.as_bytes(), data].concat());
        directory.extend([b"PK\x01\x02\0\0\0\0", &common[..], &[0; 12], &at, name.as_bytes()].concat());
    }
    let (at, len) = ((out.len() as u32).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    out.extend(directory);
    out.extend([b"PK\x05\x06\0\0\0\0\x02\0\x02\0", &len[..], &at, &[0, 0]].concat());
    out
}
