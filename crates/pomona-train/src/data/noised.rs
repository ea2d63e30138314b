//! Pictures with noise, for networks that tell the noise from the picture: in latent space where a frozen auto-encoder is given,
//! with captions where a frozen text encoder is.

use std::path::PathBuf;

use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Graph, ValueType};
use pomona_task::images::Preprocessing;
use pomona_task::{NoiseSchedule, TaskError, Weights};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::pictures::{Drawn, change};
use super::{Batch, Source, Target, listed};
use crate::error::Result;
use crate::loss::Kind;

/// A network that runs and does not move.
pub struct Frozen<'a> {
    /// Its graph.
    pub graph: &'a Graph,
    /// Its weights.
    pub weights: Box<dyn Weights + 'a>,
    /// Their bytes, widened.
    pub bytes: u64,
}

/// A variational auto-encoder whose latents are trained on.
pub struct Latents<'a> {
    /// Input `sample`, output `moments`: means, and logarithms of variances behind them.
    pub encoder: Frozen<'a>,
    /// `(latent - shift) * scale` is what the network sees.
    pub scale: f64,
    /// See `scale`.
    pub shift: f64,
}

/// What pictures come with.
pub enum Beside<'a> {
    /// Nothing.
    Nothing,
    /// A class each.
    Classes(Vec<u32>),
    /// Token ids of a caption each, all of one length, and what encodes them: input `input_ids`, output `last_hidden_state`.
    Captions(Vec<Vec<u32>>, Frozen<'a>),
}

/// Pictures with noise.
pub struct Noised<'a> {
    files: Vec<PathBuf>,
    beside: Beside<'a>,
    preprocessing: Preprocessing,
    latents: Option<Latents<'a>>,
    schedule: NoiseSchedule,
    drawn: Drawn,
    identity: String,
    source: String,
}

impl<'a> Noised<'a> {
    /// For a U-Net whose inputs are `sample`, `timestep`, and what stands beside. `identity` tells one set of files, captions and
    /// encoders from another, `source` is for people.
    ///
    /// # Errors
    /// Where the network has other inputs.
    pub fn new(
        graph: &Graph,
        (files, beside): (Vec<PathBuf>, Beside<'a>),
        preprocessing: Preprocessing,
        latents: Option<Latents<'a>>,
        schedule: NoiseSchedule,
        drawn: Drawn,
        (identity, source): (String, String),
    ) -> Result<Self> {
        let unfit = |message: String| TaskError::Unfit(format!("graph `{}` {message}", graph.name));
        let more = match &beside {
            Beside::Nothing => None,
            Beside::Classes(_) => Some("class_labels"),
            Beside::Captions(..) => Some("encoder_hidden_states"),
        };
        for port in &graph.inputs {
            if !["sample", "timestep"].contains(&port.name.as_str()) && Some(port.name.as_str()) != more {
                return Err(
                    unfit(format!("has an input `{}`, which nothing in the data is for", port.name)).into()
                );
            }
        }
        if let Some(missing) =
            ["sample", "timestep"].into_iter().chain(more).find(|n| graph.input(n).is_none())
        {
            return Err(unfit(format!("has no input `{missing}`")).into());
        }
        if let (Beside::Classes(labels), Some(value)) = (&beside, graph.input("class_labels"))
            && (graph.value(value).ty != ValueType::Int || labels.len() != files.len())
        {
            return Err(unfit("does not take the numbers of classes".to_owned()).into());
        }
        Ok(Self { files, beside, preprocessing, latents, schedule, drawn, identity, source })
    }

    /// What the network sees without noise.
    fn clean(&self, pictures: Tensor, rng: &mut impl Rng) -> Result<Tensor> {
        let Some(latents) = &self.latents else { return Ok(pictures) };
        let moments = run(&latents.encoder, "sample", "moments", pictures)?;
        let [n, channels, height, width] = *moments.shape() else {
            return Err(TaskError::Unfit(format!("the auto-encoder gives {moments:?}")).into());
        };
        if channels < 2 || height * width == 0 {
            return Err(TaskError::Unfit(format!(
                "the auto-encoder gives {moments:?}: means and variances were expected"
            ))
            .into());
        }
        let half = channels / 2 * height * width;
        let mut values = Vec::with_capacity(n * half);
        let noise = gaussian(rng, n * half);
        moments.with_f32(|all| {
            for (moments, noise) in all.chunks_exact(2 * half).zip(noise.chunks_exact(half)) {
                let (mean, log) = moments.split_at(half);
                values.extend(mean.iter().zip(log).zip(noise).map(|((m, l), e)| {
                    let drawn = f64::from(*m) + (0.5 * f64::from(l.clamp(-30.0, 20.0))).exp() * f64::from(*e);
                    ((drawn - latents.shift) * latents.scale) as f32
                }));
            }
        })?;
        Ok(Tensor::from_f32(values, &[n, channels / 2, height, width], &Device::cpu())?)
    }
}

fn run(network: &Frozen<'_>, input: &str, output: &str, value: Tensor) -> Result<Tensor> {
    let missing =
        |name: &str| TaskError::Unfit(format!("graph `{}` has no port `{name}`", network.graph.name));
    let input = network.graph.input(input).ok_or_else(|| missing(input))?;
    let output = network.graph.output(output).ok_or_else(|| missing(output))?;
    let feeds = Feeds::from([(input, value)]);
    Ok(evaluate(network.graph, network.weights.as_ref(), &feeds, &[output], &Options::default())?.remove(0))
}

/// Numbers from the standard normal distribution (Box and Muller, 1958).
fn gaussian(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(count + 1);
    while out.len() < count {
        let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
        let (far, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * v);
        out.extend([(far * angle.cos()) as f32, (far * angle.sin()) as f32]);
    }
    out.truncate(count);
    out
}

impl Source for Noised<'_> {
    fn samples(&self) -> usize {
        self.files.len()
    }

    fn batch(&self, picks: &[usize], draw: u64) -> Result<Batch> {
        let n = picks.len();
        let files: Vec<_> = picks.iter().filter_map(|p| self.files.get(*p)).collect();
        let mut pictures = self.preprocessing.read(&files, &Device::cpu())?;
        let changes = self.drawn.augment.draw(self.drawn.seed, draw, n);
        change(&mut pictures, &changes, &self.preprocessing)?;
        // Another stream than that of the changes.
        let mut rng = ChaCha8Rng::seed_from_u64(self.drawn.seed ^ 0x6E6F_6973_6564);
        rng.set_stream(draw);
        let steps: Vec<usize> = (0..n).map(|_| rng.random_range(0..self.schedule.steps())).collect();
        let clean = self.clean(pictures, &mut rng)?;
        let noise = gaussian(&mut rng, clean.elements());
        let each = (clean.elements() / n.max(1)).max(1);
        let (mut seen, mut told) = (Vec::new(), Vec::new());
        clean.with_f32(|values| {
            for ((x, noise), step) in values.chunks_exact(each).zip(noise.chunks_exact(each)).zip(&steps) {
                let (s, t) = self.schedule.noised(x, noise, *step);
                seen.extend(s);
                told.extend(t);
            }
        })?;
        let cpu = Device::cpu();
        let times = steps.iter().map(|s| *s as f32).collect();
        let mut inputs = vec![
            ("sample".to_owned(), Tensor::from_f32(seen, clean.shape(), &cpu)?),
            ("timestep".to_owned(), Tensor::from_f32(times, &[n], &cpu)?),
        ];
        match &self.beside {
            Beside::Nothing => {}
            Beside::Classes(labels) => {
                let picked = picks.iter().filter_map(|p| labels.get(*p)).map(|l| i64::from(*l)).collect();
                inputs.push(("class_labels".to_owned(), Tensor::from_i64(picked, &[n], &cpu)?));
            }
            Beside::Captions(tokens, encoder) => {
                let rows: Vec<&Vec<u32>> = picks.iter().filter_map(|p| tokens.get(*p)).collect();
                let length = rows.first().map_or(0, |r| r.len());
                let ids = rows.iter().flat_map(|r| r.iter().map(|t| i64::from(*t))).collect();
                let ids = Tensor::from_i64(ids, &[n, length], &cpu)?;
                let text = run(encoder, "input_ids", "last_hidden_state", ids)?;
                inputs.push(("encoder_hidden_states".to_owned(), text));
            }
        }
        Ok(Batch {
            inputs,
            target: Target::Values(Box::new(Tensor::from_f32(told, clean.shape(), &cpu)?)),
            samples: n,
            units: n,
            from: format!("{}, numbers {}", self.source, listed(picks)),
        })
    }

    fn fingerprint(&self) -> String {
        format!("{} {} {}", self.identity, self.drawn.augment, self.preprocessing.describe())
    }

    fn describe(&self) -> String {
        let steps = self.schedule.steps();
        format!("{}: {}, noise of {steps} steps", self.source, self.preprocessing.describe())
    }

    fn loss(&self) -> Option<Kind> {
        Some(Kind::Mse)
    }

    fn holds(&self) -> u64 {
        let text = match &self.beside {
            Beside::Captions(_, encoder) => encoder.bytes,
            _ => 0,
        };
        text + self.latents.as_ref().map_or(0, |l| l.encoder.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_normal() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let drawn = gaussian(&mut rng, 100_001);
        let n = drawn.len() as f64;
        let moment = |p: i32| drawn.iter().map(|v| f64::from(*v).powi(p)).sum::<f64>() / n;
        // Four standard errors of each.
        for (power, want, error) in [(1, 0.0, 1.0), (2, 1.0, 2.0_f64), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            assert!((moment(power) - want).abs() < 4.0 * (error / n).sqrt(), "{power}: {}", moment(power));
        }
    }
}
