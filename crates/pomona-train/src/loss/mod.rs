//! Losses as sums of terms. A term says which values of student and teacher it reads, what it costs and its gradient; it
//! knows nothing of how they were computed.

mod features;
mod output;
pub(crate) mod resolve;
mod taps;
mod task;

use std::fmt;
use std::str::FromStr;

use pomona_exec::Tensor;
use pomona_graph::ValueId;
use serde::{Deserialize, Serialize};

use crate::data::Batch;
use crate::error::Result;
use crate::parameters::Parameters;
use crate::sums::add;
pub use taps::tap;

/// What a term compares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Cross-entropy of the output with the data's tokens or classes.
    CrossEntropy,
    /// Mean squared difference of the output and the data's.
    Mse,
    /// Mean absolute difference of the output and the data's.
    L1,
    /// Kullback-Leibler divergence of the student's distribution from the teacher's, both at this temperature, times its
    /// square (Hinton et al., 2015).
    Kl {
        /// What logits are divided by.
        temperature: f64,
    },
    /// Mean squared difference of the two outputs.
    OutputMse,
    /// Mean absolute difference of the two outputs.
    OutputL1,
    /// Mean squared difference of inner values, summed over taps; where widths differ the student's go through a learned
    /// linear map first, which no output has.
    Features {
        /// Paths of nodes or modules, `STUDENT~TEACHER` where they differ. Empty: the outputs of the student's blocks.
        taps: Vec<String>,
    },
}

/// What a term is divided by, beside the number of elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// Nothing.
    #[default]
    Mean,
    /// The mean square of what is aimed at, so that taps of different scales count alike, and the number of taps.
    Relative,
}

/// A term with its weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// What is compared.
    pub kind: Kind,
    /// Factor in the sum.
    pub weight: f64,
    /// What it is divided by.
    pub normalise: Normalise,
}

impl Kind {
    /// Its name on the command line and in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::CrossEntropy => "cross-entropy",
            Kind::Mse => "mse",
            Kind::L1 => "l1",
            Kind::Kl { .. } => "kl",
            Kind::OutputMse => "output-mse",
            Kind::OutputL1 => "output-l1",
            Kind::Features { .. } => "features",
        }
    }

    /// Whether it reads a teacher.
    pub fn needs_teacher(&self) -> bool {
        !matches!(self, Kind::CrossEntropy | Kind::Mse | Kind::L1)
    }
}

impl FromStr for Term {
    type Err = String;

    /// `NAME[=WEIGHT][,temperature=T][,taps=A+B][,normalise=mean|relative]`.
    fn from_str(s: &str) -> std::result::Result<Self, String> {
        let mut parts = s.split(',');
        let head = parts.next().unwrap_or_default();
        let (name, weight) = match head.split_once('=') {
            Some((name, weight)) => (name.trim(), number(weight)?),
            None => (head.trim(), 1.0),
        };
        let mut kind = match name {
            "cross-entropy" => Kind::CrossEntropy,
            "mse" => Kind::Mse,
            "l1" => Kind::L1,
            "kl" => Kind::Kl { temperature: 1.0 },
            "output-mse" => Kind::OutputMse,
            "output-l1" => Kind::OutputL1,
            "features" => Kind::Features { taps: Vec::new() },
            _ => {
                return Err(format!(
                    "`{name}`: cross-entropy, mse, l1, kl, output-mse, output-l1 or features was expected"
                ));
            }
        };
        let mut normalise = Normalise::Mean;
        for part in parts {
            let (key, value) =
                part.split_once('=').ok_or_else(|| format!("`{part}`: KEY=VALUE was expected"))?;
            match (key.trim(), &mut kind) {
                ("temperature", Kind::Kl { temperature }) => {
                    *temperature = number(value)?;
                    if *temperature <= 0.0 {
                        return Err(format!("`{part}`: a temperature above 0 was expected"));
                    }
                }
                ("taps", Kind::Features { taps }) => *taps = value.split('+').map(str::to_owned).collect(),
                ("normalise", _) => {
                    normalise = match value {
                        "mean" => Normalise::Mean,
                        "relative" => Normalise::Relative,
                        _ => return Err(format!("`{part}`: mean or relative was expected")),
                    }
                }
                (key, _) => return Err(format!("`{key}` is no setting of {name}")),
            }
        }
        Ok(Term { kind, weight, normalise })
    }
}

fn number(s: &str) -> std::result::Result<f64, String> {
    let found = s.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0);
    found.ok_or_else(|| format!("`{s}`: a number from 0 was expected"))
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind.name(), self.weight)?;
        match &self.kind {
            Kind::Kl { temperature } => write!(f, ",temperature={temperature}")?,
            Kind::Features { taps } if !taps.is_empty() => write!(f, ",taps={}", taps.join("+"))?,
            _ => {}
        }
        match self.normalise {
            Normalise::Mean => Ok(()),
            Normalise::Relative => f.write_str(",normalise=relative"),
        }
    }
}

/// Where a term finds its values.
#[derive(Clone, Debug)]
struct Place {
    /// Number among the student's values.
    student: usize,
    /// Number among the teacher's, where it reads one.
    teacher: Option<usize>,
    /// The projection's number among the parameters.
    projection: Option<usize>,
}

/// Terms whose values are found.
#[derive(Clone, Debug)]
pub struct Losses {
    terms: Vec<(Term, Vec<Place>)>,
    student: Vec<ValueId>,
    teacher: Vec<ValueId>,
}

/// What the terms say of a micro-batch.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Of each term without its weight, as its part of the step's mean.
    pub losses: Vec<f64>,
    /// Of the weighted sum, for each of the student's values.
    pub gradients: Vec<Tensor>,
    /// Gradients of projections, by their number among the parameters.
    pub projections: Vec<(usize, Tensor)>,
}

impl Losses {
    /// Values of the student that the terms read.
    pub fn student_values(&self) -> &[ValueId] {
        &self.student
    }

    /// Values of the teacher that the terms read.
    pub fn teacher_values(&self) -> &[ValueId] {
        &self.teacher
    }

    /// The terms.
    pub fn terms(&self) -> impl Iterator<Item = &Term> {
        self.terms.iter().map(|(t, _)| t)
    }

    /// Whether any term reads a teacher.
    pub fn needs_teacher(&self) -> bool {
        self.terms().any(|t| t.kind.needs_teacher())
    }

    /// Losses and gradients of a micro-batch that is `share` of its step.
    pub(crate) fn measure(
        &self,
        student: &[Tensor],
        teacher: &[Tensor],
        batch: &Batch,
        share: f64,
        parameters: &Parameters,
    ) -> Result<Outcome> {
        let mut sums: Vec<Option<Vec<f32>>> = vec![None; student.len()];
        let mut losses = Vec::with_capacity(self.terms.len());
        let mut projections = Vec::new();
        for (term, places) in &self.terms {
            let mut loss = 0.0;
            for place in places {
                let s = &student[place.student];
                let t = place.teacher.map(|i| &teacher[i]);
                let scale = term.weight * share;
                let found = match (&term.kind, t) {
                    (Kind::CrossEntropy | Kind::Mse | Kind::L1, _) => task::measure(term, s, batch, scale)?,
                    (Kind::Kl { temperature }, Some(t)) => output::kl(s, t, batch, *temperature, scale)?,
                    (_, Some(t)) => {
                        let projection = place.projection.map(|i| (i, &parameters.list[i].value));
                        let count = if term.normalise == Normalise::Relative { places.len() } else { 1 };
                        let scale = scale / count as f64;
                        let measured = features::difference(term, s, t, projection, batch, scale)?;
                        projections.extend(measured.projection);
                        (measured.loss / count as f64, measured.gradient)
                    }
                    (kind, None) => return Err(task::unfit(format!("{} needs a teacher", kind.name()))),
                };
                loss += share * found.0;
                let sum = &mut sums[place.student];
                match sum {
                    None => *sum = Some(found.1),
                    Some(sum) => add(sum, &found.1),
                }
            }
            losses.push(loss);
        }
        let gradient = |(s, sum): (&Tensor, Option<Vec<f32>>)| -> Result<Tensor> {
            let sum = sum.unwrap_or_else(|| vec![0.0; s.elements()]);
            Ok(Tensor::from_f32(sum, s.shape(), s.device())?)
        };
        let gradients = student.iter().zip(sums).map(gradient).collect::<Result<_>>()?;
        Ok(Outcome { losses, gradients, projections })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn terms_are_read_and_written() {
        for text in [
            "cross-entropy=1",
            "kl=0.5,temperature=2",
            "features=2,taps=a.b+c~d,normalise=relative",
            "output-l1=0",
            "output-mse=1",
        ] {
            assert_eq!(text.parse::<Term>().unwrap().to_string(), text);
        }
        assert_eq!("kl".parse::<Term>().unwrap().to_string(), "kl=1,temperature=1");
        for (text, part) in [
            ("kll", "was expected"),
            ("kl=x", "number"),
            ("kl,temperature=0", "above 0"),
            ("mse,temperature=2", "no setting of mse"),
            ("kl,normalise=both", "mean or relative"),
            ("kl=-1", "number"),
        ] {
            assert!(text.parse::<Term>().unwrap_err().contains(part), "{text}");
        }
    }
}
