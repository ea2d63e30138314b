//! Recordings with labels, as waveforms of one length. Files are decoded while a step runs.

use pomona_exec::{Device, Tensor};
use pomona_graph::{Graph, ValueType};
use pomona_task::{LabelledFiles, Sound, TaskError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{Batch, Source, classes, classified};
use crate::error::Result;

/// Recordings for a network that takes waveforms.
pub struct Sounds {
    set: LabelledFiles,
    /// Of all recordings.
    rate: u32,
    /// Numbers of a waveform.
    length: usize,
    input: String,
    /// Whether the input has an axis of one channel.
    channel: bool,
    /// Where longer recordings begin; without it their middle is taken.
    seed: Option<u64>,
}

impl Sounds {
    /// For a network whose only input is `[batch, length]` or `[batch, 1, length]`; `length` is what it takes where its own
    /// is not fixed. Shorter recordings are filled with silence; of longer ones a stretch is taken that is drawn each time,
    /// or the middle without a seed. All recordings have `rate`, or without it that of the first.
    ///
    /// # Errors
    /// Where the graph takes no waveforms, a label is none of its classes, or the first file cannot be read.
    pub fn new(
        set: LabelledFiles,
        graph: &Graph,
        length: usize,
        (rate, seed): (Option<u32>, Option<u64>),
    ) -> Result<Self> {
        let unfit = |message: String| TaskError::Unfit(format!("graph `{}` {message}", graph.name));
        let [port] = graph.inputs.as_slice() else {
            return Err(unfit("has several inputs; one batch of waveforms was expected".to_owned()).into());
        };
        let value = graph.value(port.value);
        let (channel, last) = match value.shape.as_slice() {
            [_, last] if value.ty == ValueType::Float => (false, last),
            [_, one, last] if value.ty == ValueType::Float && one.as_int() == Some(1) => (true, last),
            other => {
                let shape = pomona_graph::show_shape(other);
                return Err(unfit(format!(
                    "takes {shape}; [batch, numbers] or [batch, 1, numbers] was expected"
                ))
                .into());
            }
        };
        set.check(classes(graph))?;
        let first = || set.files.first().map(|f| Sound::read(f)).transpose().map(|s| s.map_or(0, |s| s.rate));
        let rate = rate.map_or_else(first, Ok)?;
        let length = last.as_int().and_then(|n| usize::try_from(n).ok()).unwrap_or(length);
        Ok(Self { set, rate, length, input: port.name.clone(), channel, seed })
    }

    /// Numbers a second of all recordings.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// A recording of the wanted length; `place` between 0 and 1 says where in a longer one.
    fn read(&self, i: usize, place: f64) -> Result<Vec<f32>> {
        let path =
            self.set.files.get(i).ok_or_else(|| TaskError::Unfit(format!("recording {i} is not there")))?;
        let Sound { rate, values } = Sound::read(path)?;
        if rate != self.rate {
            let message = format!(
                "has {rate} numbers a second, and other recordings {}: bring all to one rate first",
                self.rate
            );
            return Err(TaskError::Data { path: path.clone(), message }.into());
        }
        let spare = values.len().saturating_sub(self.length);
        let from = ((spare + 1) as f64 * place) as usize;
        // A copy of its own: what is left out of a long recording is not held while the batch is made.
        let mut out = Vec::with_capacity(self.length);
        out.extend_from_slice(&values[from.min(spare)..][..self.length.min(values.len())]);
        out.resize(self.length, 0.0);
        Ok(out)
    }
}

impl Source for Sounds {
    fn samples(&self) -> usize {
        self.set.len()
    }

    fn batch(&self, picks: &[usize], draw: u64) -> Result<Batch> {
        let places: Vec<f64> = match self.seed {
            None => vec![0.5; picks.len()],
            Some(seed) => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(draw);
                (0..picks.len()).map(|_| rng.random::<f64>()).collect()
            }
        };
        let read = |(i, place): (&usize, &f64)| self.read(*i, *place);
        let waves: Vec<Vec<f32>> = picks.par_iter().zip(&places).map(read).collect::<Result<_>>()?;
        let shape =
            if self.channel { vec![picks.len(), 1, self.length] } else { vec![picks.len(), self.length] };
        let values = Tensor::from_f32(waves.concat(), &shape, &Device::cpu())?;
        Ok(classified((&self.input, values), &self.set, picks))
    }

    fn fingerprint(&self) -> String {
        format!("{} {} {}", self.set.fingerprint(), self.length, self.seed.is_some())
    }

    fn describe(&self) -> String {
        let (n, length) = (self.set.len(), self.length);
        format!("{}: {n} recordings, {length} numbers of each at {} a second", self.set.source, self.rate)
    }
}
