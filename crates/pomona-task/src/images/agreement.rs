//! How far a network has moved from another one on the same pictures: what is to be known where there are no labels.

use std::path::Path;

use pomona_exec::{Device, log_sum_exp};
use pomona_graph::Graph;
use pomona_store::Checkpoint;
use serde_json::json;

use super::classify::{Classification, each_batch};
use crate::error::{Result, TaskError};
use crate::objective::{Objective, Weights};

/// Name of the tensor in a file of kept logits, and of the key that says whose they are.
const LOGITS: &str = "logits";
const IDENTITY: &str = "identity";

/// A network's logits, a row a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    /// `[pictures, classes]`, row-major.
    pub values: Vec<f32>,
    /// Numbers of a row.
    pub classes: usize,
}

/// How alike two networks' predictions are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Pictures.
    pub count: usize,
    /// Those for which the likeliest class is the same.
    pub same: usize,
    /// Sum of the KL divergences of the network's distributions from the reference's, nats.
    pub divergence: f64,
}

impl Agreement {
    /// Share of the pictures with the same likeliest class.
    pub fn share(&self) -> f64 {
        self.same as f64 / self.count.max(1) as f64
    }

    /// Mean of KL(reference || network), nats.
    pub fn kl(&self) -> f64 {
        self.divergence / self.count.max(1) as f64
    }
}

/// Logits of all pictures, in batches; `advance` is told of each with its size.
///
/// # Errors
/// Where a picture cannot be read, the graph is no image classifier, or it cannot be run.
pub fn logits(
    graph: &Graph,
    weights: &dyn Weights,
    on: &Classification,
    batch: usize,
    device: &Device,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Logits> {
    let mut found = Logits { values: Vec::new(), classes: 0 };
    each_batch(graph, weights, on, (batch, device), &mut |samples, out, classes| {
        out.with_f32(|v| found.values.extend_from_slice(v))?;
        found.classes = classes;
        advance(samples.len())
    })?;
    Ok(found)
}

/// Compares a network with the logits that another gave for the same pictures; `advance` is told of each batch with its
/// size.
///
/// # Errors
/// As [`logits`], and where the two do not tell the same number of classes apart.
pub fn agreement(
    reference: &Logits,
    graph: &Graph,
    weights: &dyn Weights,
    on: &Classification,
    batch: usize,
    device: &Device,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Agreement> {
    let mut found = Agreement::default();
    each_batch(graph, weights, on, (batch, device), &mut |samples, out, classes| {
        let rows = reference.values.get(samples.start * classes..samples.end * classes);
        let rows = rows.filter(|_| classes == reference.classes).ok_or_else(|| {
            TaskError::Unfit(format!(
                "the model tells {classes} classes apart and the one that it is compared with {}: was one made from the other?",
                reference.classes
            ))
        })?;
        out.with_f32(|v| {
            let sums = log_sum_exp(rows, classes).into_iter().zip(log_sum_exp(v, classes));
            for ((p, q), sums) in rows.chunks(classes).zip(v.chunks(classes)).zip(sums) {
                found.same += usize::from(likeliest(p) == likeliest(q));
                found.divergence += kl(p, q, sums);
            }
        })?;
        found.count += samples.len();
        advance(samples.len())
    })?;
    Ok(found)
}

/// The class with the largest logit, the first of equal ones; none where a logit is no number.
fn likeliest(row: &[f32]) -> Option<usize> {
    let first = |best: Option<usize>, (i, v): (usize, &f32)| match best {
        Some(b) if row[b] >= *v => Some(b),
        _ => Some(i),
    };
    row.iter().enumerate().fold(None, first).filter(|_| !row.iter().any(|v| v.is_nan()))
}

/// KL(p || q) in nats of the distributions that two rows of logits stand for, with the ln of each one's sum of exp.
fn kl(p: &[f32], q: &[f32], (lp, lq): (f64, f64)) -> f64 {
    let one = |(a, b): (&f32, &f32)| {
        let log = f64::from(*a) - lp;
        log.exp() * (log - (f64::from(*b) - lq))
    };
    p.iter().zip(q).map(one).sum()
}

impl Logits {
    /// What makes kept logits those of this run: the model, the pictures, and how they are prepared.
    pub fn identity(model: &str, on: &Classification) -> String {
        let mut hash = blake3::Hasher::new();
        for part in [model, &on.fingerprint(), &format!("{:?}", on.preprocessing())] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().to_hex().to_string()
    }

    /// Keeps the logits as a safetensors file that names whose they are.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path, identity: &str) -> Result<()> {
        let rows = self.values.len() / self.classes.max(1);
        let header = json!({"__metadata__": {IDENTITY: identity},
            LOGITS: {"dtype": "F32", "shape": [rows, self.classes], "data_offsets": [0, self.values.len() * 4]}});
        let mut header = header.to_string();
        header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend(self.values.iter().flat_map(|v| v.to_le_bytes()));
        let fail = |e: pomona_store::StoreError| data(path, e.to_string());
        pomona_store::write_atomic(path, &file).map_err(fail)
    }

    /// Kept logits.
    ///
    /// # Errors
    /// Where the file holds something else, or the logits of another model, of other pictures, or otherwise prepared.
    pub fn read(path: &Path, identity: &str) -> Result<Logits> {
        let fail = |e: pomona_store::StoreError| data(path, e.to_string());
        let file = Checkpoint::open(path).map_err(fail)?;
        if file.metadata().get(IDENTITY).is_none_or(|found| found != identity) {
            let message = "holds no logits of this model on these pictures, prepared in this way: give another name, or \
                           delete it";
            return Err(data(path, message.to_owned()));
        }
        let info = file.info(LOGITS).map_err(fail)?;
        let &[_, classes] = info.shape.as_slice() else {
            return Err(data(path, format!("`{LOGITS}` has shape {:?}; two axes were expected", info.shape)));
        };
        Ok(Logits { values: file.decode(info).map_err(fail)?, classes })
    }
}

fn data(path: &Path, message: String) -> TaskError {
    TaskError::Data { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn divergence_is_that_of_the_softmaxes() {
        let (p, q) = ([0.5_f32, -1.0, 2.0], [1.5_f32, 0.0, -0.5]);
        let softmax = |row: &[f32]| {
            let sum: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
            row.iter().map(|v| f64::from(*v).exp() / sum).collect::<Vec<_>>()
        };
        let wanted: f64 = softmax(&p).iter().zip(softmax(&q)).map(|(a, b)| a * (a / b).ln()).sum();
        let log = |row: &[f32]| log_sum_exp(row, row.len())[0];
        let kl = |p: &[f32], q: &[f32]| kl(p, q, (log(p), log(q)));
        assert!((kl(&p, &q) - wanted).abs() < 1e-6, "{} {wanted}", kl(&p, &q));
        assert_eq!(kl(&p, &p), 0.0);
        // Adding a number to a row changes nothing.
        let moved = q.map(|v| v + 40.0);
        assert!((kl(&p, &moved) - wanted).abs() < 1e-5);
    }

    #[test]
    fn the_first_of_equal_logits_counts_and_nan_never_agrees() {
        assert_eq!(likeliest(&[0.0, 3.0, 3.0]), Some(1));
        assert_eq!(likeliest(&[-4.0, -9.0]), Some(0));
        assert_eq!(likeliest(&[0.0, f32::NAN]), None);
    }

    #[test]
    fn kept_logits_are_read_for_the_same_run_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dense.safetensors");
        let logits = Logits { values: vec![0.5, -1.0, 3.0, 1e-20, 2.0, 7.0], classes: 3 };
        logits.write(&path, "this").unwrap();
        assert_eq!(Logits::read(&path, "this").unwrap(), logits);
        let message = Logits::read(&path, "other").unwrap_err().to_string();
        assert!(message.contains("dense.safetensors: holds no logits of this model"), "{message}");
    }
}
