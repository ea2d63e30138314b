//! The table of known devices, and device files.

use std::io::Write;
use std::path::Path;

use crate::device::Device;
use crate::error::{CostError, Result};

/// Name of the device that `pomona devices --measure` writes.
pub const THIS_MACHINE: &str = "this-machine";

const TABLE: &str = include_str!("devices.json");

/// The rows that come with the program, in the order of the file.
pub fn builtin_devices() -> Result<Vec<Device>> {
    parse_list(TABLE, Path::new("devices.json"))
}

/// A device by name, from the given further rows (a measured machine) before those of the program.
pub fn find_device(name: &str, further: &[Device]) -> Result<Device> {
    let builtin = builtin_devices()?;
    let mut all = further.iter().chain(&builtin);
    all.clone().find(|d| d.name.eq_ignore_ascii_case(name)).cloned().ok_or_else(|| CostError::UnknownDevice {
        name: name.to_owned(),
        known: all.by_ref().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}

/// Reads a device file: one JSON object with the fields of [`Device`].
pub fn load_device(path: &Path) -> Result<Device> {
    let text =
        std::fs::read_to_string(path).map_err(|source| CostError::Io { path: path.to_owned(), source })?;
    let device: Device = serde_json::from_str(&text).map_err(|e| parse_error(path, &e))?;
    device.check()?;
    Ok(device)
}

/// Writes a device file; the directory is made where it is missing. The old file stays until the new one is whole.
pub fn save_device(path: &Path, device: &Device) -> Result<()> {
    device.check()?;
    let io = |source| CostError::Io { path: path.to_owned(), source };
    let text = serde_json::to_string_pretty(device).map_err(|e| parse_error(path, &e))? + "\n";
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(io)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&name);
    let written = (|| {
        let mut file = std::fs::File::create(temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(temporary, path)
    })();
    if written.is_err() {
        // The first error is the one to tell; what is left over is only this file.
        let _ = std::fs::remove_file(temporary);
    }
    written.map_err(io)
}

fn parse_list(text: &str, path: &Path) -> Result<Vec<Device>> {
    let devices: Vec<Device> = serde_json::from_str(text).map_err(|e| parse_error(path, &e))?;
    devices.iter().try_for_each(Device::check)?;
    Ok(devices)
}

fn parse_error(path: &Path, e: &serde_json::Error) -> CostError {
    CostError::Parse { path: path.to_owned(), message: e.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn every_row_is_sound_has_a_source_and_a_name_of_its_own() {
        let devices = builtin_devices().unwrap();
        assert!(devices.len() >= 8);
        for (i, d) in devices.iter().enumerate() {
            assert!(d.source.len() > 20, "{}: {:?}", d.name, d.source);
            assert!(devices[..i].iter().all(|o| o.name != d.name), "{} twice", d.name);
            assert!(d.name != THIS_MACHINE);
        }
    }

    #[test]
    fn a_device_file_comes_back_and_wrong_ones_are_refused() {
        let dir = std::env::temp_dir().join(format!("pomona-cost-{}", std::process::id()));
        let path = dir.join("cache").join("this-machine.json");
        let mut device = find_device("raspberry-pi-4", &[]).unwrap();
        device.name = THIS_MACHINE.to_owned();
        save_device(&path, &device).unwrap();
        assert_eq!(load_device(&path).unwrap(), device);
        assert_eq!(find_device("This-Machine", std::slice::from_ref(&device)).unwrap(), device);
        device.memory_bandwidth = 0.0;
        let refused = save_device(&path, &device).unwrap_err().to_string();
        assert_eq!(
            refused,
            "device `this-machine`: memory_bandwidth is 0; expected bytes per second above 0"
        );
        std::fs::write(&path, "[]").unwrap();
        assert!(matches!(load_device(&path), Err(CostError::Parse { .. })));
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(load_device(&path), Err(CostError::Io { .. })));
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let message = find_device("abacus", &[]).unwrap_err().to_string();
        assert!(message.starts_with("no device `abacus`: known are h100-sxm, "), "{message}");
    }
}
