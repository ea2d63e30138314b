//! Writes the seeds of the fuzz targets: every attack of the tests and every golden file that is small, a folder a target.
//!
//! Usage: fuzz_seeds DIR
#![allow(clippy::print_stdout, reason = "an example's output")]

#[path = "../../pomona-store/tests/hostile/mod.rs"]
mod hostile;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use hostile::{Attack, gguf, onnx, safetensors, torch};

/// Larger seeds make every run slow.
const MOST: u64 = 128 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::args().nth(1).ok_or("usage: fuzz_seeds DIR")?);
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let attacks = |target: &str, attacks: Vec<Attack>| -> Result<(), Box<dyn Error>> {
        for (i, a) in attacks.iter().enumerate().filter(|(_, a)| a.bytes.len() as u64 <= MOST) {
            write(&out, target, &format!("attack-{i:03}"), &a.bytes)?;
        }
        Ok(())
    };
    attacks("safetensors", [safetensors::headers(), safetensors::tensors()].concat())?;
    attacks("gguf", [gguf::headers(), gguf::metadata(), gguf::tensors()].concat())?;
    attacks("torch_zip", [torch::broken(), torch::tensors(), torch::archives()].concat())?;
    attacks("torch_legacy", torch::legacies())?;
    attacks("onnx", [onnx::wires(), onnx::tensors(), onnx::nodes()].concat())?;
    write(&out, "safetensors", "good", &safetensors::good())?;
    write(&out, "gguf", "good", &gguf::good())?;
    write(&out, "onnx", "good", &onnx::good())?;
    for (i, (_, index, _)) in safetensors::indices().iter().enumerate() {
        write(&out, "safetensors_index", &format!("attack-{i:03}"), index.as_bytes())?;
    }
    write(&out, "safetensors_index", "good", br#"{"metadata":{},"weight_map":{"a":"s.safetensors"}}"#)?;
    for (i, (_, object, _)) in torch::forbidden().iter().enumerate() {
        write(&out, "pickle", &format!("attack-{i:03}"), object)?;
    }
    write(&out, "pickle", "good", &torch::one("0", 6, 0, &[2, 3], &[3, 1]))?;
    for (target, folder, end) in [
        ("gguf", "pomona-models/tests/goldens", ".gguf"),
        ("torch_zip", "pomona-store/tests/torch", "_zip.pth"),
        ("torch_legacy", "pomona-store/tests/torch", "_legacy.pth"),
        ("onnx", "pomona-task/tests/goldens/onnx", ".onnx"),
        ("config", "pomona-models/tests/goldens", "config.json"),
        ("config", "pomona-task/tests/diffusers", "config.json"),
        ("config", "pomona-task/tests/vision", "config.json"),
        ("config", "pomona-task/tests/gan", "config.json"),
        ("tokenizer", "pomona-models/tests/goldens/tokenizer", "tokenizer.json"),
    ] {
        goldens(&crates.join(folder), end, &mut |name, bytes| write(&out, target, name, bytes))?;
    }
    println!("seeds in {}", out.display());
    Ok(())
}

fn write(out: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out.join(target))?;
    Ok(fs::write(out.join(target).join(name), bytes)?)
}

type Write<'a> = &'a mut dyn FnMut(&str, &[u8]) -> Result<(), Box<dyn Error>>;

/// Files of this ending in a folder and in the folders inside, by the name of the folder and their own.
fn goldens(folder: &Path, end: &str, write: Write<'_>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            goldens(&path, end, write)?;
        } else if name.ends_with(end) && path.metadata()?.len() <= MOST {
            let inside = folder.file_name().unwrap_or_default().to_string_lossy();
            write(&format!("{inside}-{name}"), &fs::read(&path)?)?;
        }
    }
    Ok(())
}
