//! The whole state of a run on disk: a directory a checkpoint, there when it is complete.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use pomona_exec::{Device, Moving, Tensor};
use pomona_store::{
    Checkpoint, Encoding, OutputDir, OutputOptions, SafetensorsWriter, TensorSink, TensorSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Result, TrainError, file_error};
use crate::optimiser::State;
use crate::parameters::Parameters;

/// What goes before the names of values, of averages, and of what the update rule keeps.
pub const WEIGHT: &str = "weight/";
/// See [`WEIGHT`].
pub const AVERAGE: &str = "average/";
/// Before the names of running statistics.
pub const RUNNING: &str = "running/";
const FIRST: &str = "first/";
const SECOND: &str = "second/";
/// The tensors of a checkpoint.
pub const TENSORS: &str = "model.safetensors";
const STATE: &str = "state.json";
/// Locked while a run is at work in the folder.
const LOCK: &str = ".lock";
const VERSION: u32 = 1;
/// Checkpoints that stay.
const KEPT: usize = 2;

/// Beside the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    version: u32,
    /// Steps done.
    pub step: u64,
    /// Steps of the update rule, the same for all parameters.
    updates: u32,
    /// Seconds of training.
    pub seconds: f64,
    /// Predicted tokens, or samples.
    pub units: u64,
    /// Whether the run came to its limit: then no update follows, and what the rule keeps is not written.
    #[serde(default)]
    pub complete: bool,
    /// Settings, data and models that the run must have to go on.
    pub identity: Value,
}

impl Progress {
    /// Before the first step.
    pub fn start(identity: Value) -> Self {
        Self { version: VERSION, step: 0, updates: 0, seconds: 0.0, units: 0, complete: false, identity }
    }
}

/// Makes a run's folder and holds it: no other run gets it until what is returned is dropped, or this process ends, however it
/// does.
///
/// # Errors
/// Where the folder cannot be made, or another run holds it.
pub fn hold(folder: &Path) -> Result<File> {
    let fail = |e: std::io::Error| file_error(folder, format!("cannot be written: {e}"));
    std::fs::create_dir_all(folder).map_err(fail)?;
    let file = File::create(folder.join(LOCK)).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = "another run is training here: wait for it, or choose another folder (--run-dir)";
            Err(file_error(folder, message))
        }
        Err(TryLockError::Error(e)) => Err(fail(e)),
    }
}

fn directory(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("step-{step:08}"))
}

/// Writes a checkpoint, then removes all but the last two.
///
/// # Errors
/// Where the disk refuses; the checkpoints before stay.
pub fn save(folder: &Path, progress: &Progress, parameters: &Parameters) -> Result<PathBuf> {
    let mut specs = Vec::new();
    let mut values: Vec<Source<'_>> = Vec::new();
    let mut progress = progress.clone();
    let mut put_as = |group: &str, (name, shape): (&str, &[usize]), value| {
        let name = format!("{group}{name}");
        specs.push(TensorSpec { name, encoding: Encoding::F32, shape: shape.to_vec() });
        values.push(value);
    };
    for p in &parameters.list {
        let mut put = |group, value| put_as(group, (&p.name, p.value.shape()), value);
        put(WEIGHT, Source::Tensor(&p.value));
        match &p.state {
            _ if progress.complete => {}
            State::Moments(moving) => {
                let (mean, square, steps) = moving.parts();
                progress.updates = progress.updates.max(steps);
                put(FIRST, Source::Slice(mean));
                put(SECOND, Source::Slice(square));
            }
            State::Momentum { update, steps } => {
                progress.updates = progress.updates.max(*steps);
                put(FIRST, Source::Slice(update));
            }
        }
        if let Some(average) = &p.average {
            put(AVERAGE, Source::Slice(average));
        }
    }
    for s in parameters.running.values.values() {
        let mut put = |group, value| put_as(group, (&s.name, s.value.shape()), value);
        put(RUNNING, Source::Tensor(&s.value));
        if let Some(average) = &s.average {
            put(AVERAGE, Source::Slice(average));
        }
    }
    let needed = specs.iter().map(|s| 4 * s.shape.iter().product::<usize>() as u64).sum::<u64>() + (1 << 20);
    let target = directory(folder, progress.step);
    let options = OutputOptions { force: true, needed, ..OutputOptions::default() };
    let mut dir = OutputDir::create(&target, &options)?;
    let mut sink = SafetensorsWriter::new(&mut dir, "model", specs, u64::MAX, &BTreeMap::new())?;
    for (i, value) in values.iter().enumerate() {
        if sink.begin(i)? {
            match value {
                Source::Tensor(t) => t.with_f32(|v| sink.write(bytemuck::cast_slice(v)))??,
                Source::Slice(v) => sink.write(bytemuck::cast_slice(v))?,
            }
            sink.end()?;
        }
    }
    sink.finish()?;
    drop(sink);
    let text = serde_json::to_string_pretty(&progress).map_err(|e| file_error(&target, e.to_string()))?;
    dir.write(STATE, text.as_bytes())?;
    let path = dir.commit()?;
    let all = list(folder)?;
    for (step, old) in all.iter().rev().skip(KEPT).filter(|(s, _)| *s < progress.step) {
        // One that cannot be removed is only in the way.
        let _ = (step, std::fs::remove_dir_all(old));
    }
    Ok(path)
}

enum Source<'a> {
    Tensor(&'a Tensor),
    Slice(&'a [f32]),
}

/// Complete checkpoints by step.
///
/// # Errors
/// Where the folder cannot be listed.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut out = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(out),
        Err(e) => return Err(file_error(folder, format!("cannot be listed: {e}"))),
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let step = name.strip_prefix("step-").and_then(|n| n.parse().ok());
        if let Some(step) = step.filter(|_| entry.path().join(STATE).is_file()) {
            out.push((step, entry.path()));
        }
    }
    out.sort();
    Ok(out)
}

/// Reads a checkpoint into parameters that were made as for a new run.
///
/// # Errors
/// Where the run was another one (the first differing setting is named), or the files are damaged.
pub fn load(path: &Path, identity: &Value, parameters: &mut Parameters) -> Result<Progress> {
    let state = path.join(STATE);
    let text =
        std::fs::read_to_string(&state).map_err(|e| file_error(&state, format!("cannot be read: {e}")))?;
    let progress: Progress =
        serde_json::from_str(&text).map_err(|e| file_error(&state, format!("is no state of a run: {e}")))?;
    if progress.version != VERSION {
        let message = format!("has version {}; this program reads version {VERSION}", progress.version);
        return Err(file_error(&state, message));
    }
    if let Some(difference) = difference(&progress.identity, identity, "") {
        let message = format!(
            "was another run: {difference}; resume with the same settings, or begin anew with --force"
        );
        return Err(file_error(&state, message));
    }
    let file = Checkpoint::open(path.join(TENSORS))?;
    let cpu = Device::cpu();
    let read = |name: &str, shape: &[usize]| -> Result<Vec<f32>> {
        let info = file.info(name)?;
        if info.shape != shape {
            let message =
                format!("tensor \"{}\" has shape {:?}; {shape:?} was expected", info.name, info.shape);
            return Err(file_error(path, message));
        }
        let all = 0..info.shape.first().copied().unwrap_or(1);
        Ok(file.decode_rows(info, all)?)
    };
    for s in parameters.running.values.values_mut() {
        let shape = s.value.shape().to_vec();
        let average =
            s.average.is_some().then(|| read(&format!("{AVERAGE}{}", s.name), &shape)).transpose()?;
        s.value = Tensor::from_f32(read(&format!("{RUNNING}{}", s.name), &shape)?, &shape, &cpu)?;
        s.average = average;
    }
    for p in &mut parameters.list {
        let read = |group: &str| read(&format!("{group}{}", p.name), p.value.shape());
        let value = Tensor::from_f32(read(WEIGHT)?, p.value.shape(), &cpu)?;
        let damaged = || TrainError::Unfit(format!("the state of `{}` is damaged", p.name));
        let state = match &p.state {
            state if progress.complete => state.clone(),
            State::Moments(_) => {
                let moving = Moving::from_parts(read(FIRST)?, read(SECOND)?, progress.updates);
                State::Moments(moving.ok_or_else(damaged)?)
            }
            State::Momentum { .. } => State::Momentum { update: read(FIRST)?, steps: progress.updates },
        };
        let average = p.average.is_some().then(|| read(AVERAGE)).transpose()?;
        (p.value, p.state, p.average) = (value, state, average);
    }
    Ok(progress)
}

/// The first place where two documents differ, with both sides.
fn difference(then: &Value, now: &Value, at: &str) -> Option<String> {
    if let (Value::Object(a), Value::Object(b)) = (then, now) {
        let keys = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)));
        return keys.into_iter().find_map(|k| {
            let at = if at.is_empty() { k.clone() } else { format!("{at}.{k}") };
            difference(a.get(k).unwrap_or(&Value::Null), b.get(k).unwrap_or(&Value::Null), &at)
        });
    }
    (then != now).then(|| format!("its {at} was {then}, and is {now} now"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::optimiser::Rule;
    use serde_json::json;

    fn parameters(rule: &Rule) -> Parameters {
        let mut p = Parameters::default();
        let value = Tensor::from_f32(vec![1.0, 2.0, 3.0], &[3], &Device::cpu()).unwrap();
        p.add("norm".to_owned(), value, rule, true).unwrap();
        p
    }

    #[test]
    fn a_folder_is_one_runs() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        let held = hold(&folder).unwrap();
        let message = hold(&folder).unwrap_err().to_string();
        assert!(message.contains("run: another run is training here"), "{message}");
        drop(held);
        drop(hold(&folder).unwrap());
    }

    #[test]
    fn a_state_comes_back_whole_and_only_for_its_run() {
        let dir = tempfile::tempdir().unwrap();
        for rule in [Rule::AdamW { betas: [0.9, 0.99], eps: 1e-8 }, Rule::Sgd { momentum: 0.9 }] {
            let identity = json!({"course": {"rate": 1e-3}, "data": "abc"});
            let mut p = parameters(&rule);
            let step = |p: &mut Parameters| {
                let g = Tensor::from_f32(vec![0.1, -0.2, 0.3], &[3], &Device::cpu()).unwrap();
                let one = &mut p.list[0];
                rule.step(&mut one.value, &g, &mut one.state, 0.1, 0.0).unwrap();
                p.average(0.9, 3).unwrap();
                p.list[0].value.to_f32().unwrap()
            };
            step(&mut p);
            let progress = Progress { step: 3, seconds: 1.5, ..Progress::start(identity.clone()) };
            for s in 1..=3 {
                save(dir.path(), &Progress { step: s, ..progress.clone() }, &p).unwrap();
            }
            let all = list(dir.path()).unwrap();
            assert_eq!(all.iter().map(|a| a.0).collect::<Vec<_>>(), [2, 3]);
            let mut q = parameters(&rule);
            let back = load(&all[1].1, &identity, &mut q).unwrap();
            assert_eq!((back.step, back.seconds, back.updates), (3, 1.5, 1));
            assert_eq!(step(&mut p), step(&mut q));
            assert_eq!(p.list[0].average, q.list[0].average);
            let other = json!({"course": {"rate": 2e-3}, "data": "abc"});
            let message = load(&all[1].1, &other, &mut q).unwrap_err().to_string();
            assert!(message.contains("its course.rate was 0.001, and is 0.002 now"), "{message}");
            for (_, path) in all {
                std::fs::remove_dir_all(path).unwrap();
            }
        }
    }
}
