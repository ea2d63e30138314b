//! Pictures for a denoising network, with what the rest of its pipeline makes of them: latents, encoded captions, a noise
//! schedule.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use pomona_graph::{Graph, ValueType};
use pomona_models::tokenizer::Tokenizer;
use pomona_models::{Component, Model};
use pomona_task::images::{Filter, Preprocessing, Sizing};
use pomona_task::{CaptionSet, LabelledFiles, Media, ModelWeights, NoiseSchedule, Residence, widened_bytes};
use pomona_train::data::{Beside, Frozen, Latents, Noised};
use serde_json::Value;

use super::media::labelled;
use super::{Read, Seen, Use};
use crate::train_args::TrainOptions;

const SCHEDULE: &str = "scheduler_config.json";
/// What Stable Diffusion's latents are multiplied by, and diffusers' auto-encoders that do not say otherwise.
const SCALE: f64 = 0.18215;

/// Whether a network tells noise.
pub fn is_denoiser(graph: &Graph) -> bool {
    graph.input("sample").is_some() && graph.input("timestep").is_some()
}

/// A folder of pictures: with captions where the network reads text, with a folder a class where it takes classes.
pub fn read<'a>(
    model: &'a Model,
    component: &'a Component,
    path: &Path,
    (o, purpose): (&TrainOptions, Use<'_>),
) -> Result<Read<'a>> {
    let graph = &component.graph;
    let schedule = schedule(model, component)?;
    let latents = match part(model, "vae") {
        Some(vae) => Some(latents(vae)?),
        None => None,
    };
    let scale = part(model, "vae").map_or(1, reduction);
    let (files, beside, identity, source, seen) = pictures(model, component, path, purpose)?;
    let preprocessing = preprocessing(graph, latents.as_ref(), scale)?;
    let drawn = purpose.drawn(o);
    let encoders = ["vae", "text_encoder"].into_iter().filter_map(|name| part(model, name));
    let mut identity = vec![identity, format!("{schedule:?}")];
    for encoder in encoders {
        identity.push(encoder.fingerprint()?);
    }
    let told = (blake3::hash(identity.join("\n").as_bytes()).to_hex().to_string(), source);
    let source = Noised::new(graph, (files, beside), preprocessing, latents, schedule, drawn, told)?;
    Ok(Read { source: Box::new(source), seen })
}

fn part<'a>(model: &'a Model, name: &str) -> Option<&'a Component> {
    model.components.iter().find(|c| c.name == name)
}

fn frozen(component: &Component) -> Result<Frozen<'_>> {
    component.weights("encoding")?;
    let weights = ModelWeights::new(component, &pomona_exec::Device::cpu(), Residence::Memory);
    Ok(Frozen { graph: &component.graph, weights: Box::new(weights), bytes: widened_bytes(component) })
}

fn schedule(model: &Model, component: &Component) -> Result<NoiseSchedule> {
    let places = [model.path.join("scheduler").join(SCHEDULE), component.path.join(SCHEDULE)];
    let Some(file) = places.iter().find(|p| p.is_file()) else {
        bail!(
            "{}: no noise schedule is known: {} was expected (give the whole pipeline, and --component unet)",
            model.path.display(),
            places[0].display()
        );
    };
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let config: Value = serde_json::from_str(&text).map_err(|e| anyhow!("{}: {e}", file.display()))?;
    NoiseSchedule::from_config(&config).map_err(|e| anyhow!("{}: {e}", file.display()))
}

fn latents(vae: &Component) -> Result<Latents<'_>> {
    if vae.graph.output("moments").is_none() {
        bail!(
            "the pipeline's auto-encoder ({}) gives no means and variances: only AutoencoderKL encodes training pictures",
            vae.architecture
        );
    }
    let number = |key: &str, usual: f64| vae.config.get(key).and_then(Value::as_f64).unwrap_or(usual);
    Ok(Latents {
        encoder: frozen(vae)?,
        scale: number("scaling_factor", SCALE),
        shift: number("shift_factor", 0.0),
    })
}

/// How many pixels a latent stands for along an axis: each level of an auto-encoder but the last halves.
fn reduction(vae: &Component) -> usize {
    let levels = vae.config.get("block_out_channels").and_then(Value::as_array).map_or(1, Vec::len);
    1 << levels.saturating_sub(1).min(16)
}

type Found<'a> = (Vec<PathBuf>, Beside<'a>, String, String, Seen);

fn pictures<'a>(model: &'a Model, component: &Component, path: &Path, purpose: Use<'_>) -> Result<Found<'a>> {
    let graph = &component.graph;
    if graph.input("encoder_hidden_states").is_some() {
        let set = CaptionSet::open(path)?;
        let Some(text) = part(model, "text_encoder") else {
            bail!(
                "`{}` reads text and the model has no text_encoder: give the whole pipeline, and --component unet",
                component.architecture
            );
        };
        let tokenizer = Tokenizer::from_dir(model.path.join("tokenizer"))?;
        let tokens =
            set.captions.iter().map(|c| padded(&tokenizer, c, &text.graph)).collect::<Result<_>>()?;
        let identity = set.fingerprint();
        return Ok((
            set.files,
            Beside::Captions(tokens, frozen(text)?),
            identity,
            set.source,
            Seen::default(),
        ));
    }
    let classes = graph.input("class_labels").is_some_and(|v| graph.value(v).ty == ValueType::Int);
    let set = match classes {
        true => labelled(component, path, Media::Pictures, purpose)?,
        false => LabelledFiles::unlabelled(path, Media::Pictures)?,
    };
    if classes {
        set.check(component.config.get("num_class_embeds").and_then(Value::as_i64))?;
    }
    let (identity, source) = (set.fingerprint(), format!("{}, {} pictures", set.source, set.len()));
    let beside = if classes { Beside::Classes(set.labels) } else { Beside::Nothing };
    Ok((set.files, beside, identity, source, Seen { classes: set.classes, rate: None }))
}

/// A caption's tokens as the text encoder was trained with: cut or filled up to its positions, ending with the end token.
fn padded(tokenizer: &Tokenizer, caption: &str, graph: &Graph) -> Result<Vec<u32>> {
    let positions = graph.defaults.get("tokens").and_then(|n| usize::try_from(*n).ok()).unwrap_or(77);
    let most = tokenizer.model_max_length().and_then(|n| usize::try_from(n).ok()).unwrap_or(positions);
    let length = positions.min(most).max(2);
    let mut ids = tokenizer.encode(caption, true)?;
    let special = tokenizer.special();
    let end = special.eos.first().copied();
    if ids.len() > length {
        ids.truncate(length);
        if let (Some(last), Some(end)) = (ids.last_mut(), end.filter(|_| special.add_eos)) {
            *last = end;
        }
    }
    let Some(fill) = special.padding.or(end) else {
        bail!("the pipeline's tokenizer has neither a padding nor an end token");
    };
    ids.resize(length, fill);
    Ok(ids)
}

/// Pictures between -1 and 1 of the size that the network was made for: the shorter side resized, the middle taken.
fn preprocessing(graph: &Graph, latents: Option<&Latents<'_>>, scale: usize) -> Result<Preprocessing> {
    let axes = |graph: &Graph| -> Option<[usize; 3]> {
        let shape = &graph.value(graph.input("sample")?).shape;
        let size = |axis: usize| usize::try_from(shape.get(axis)?.bind(&graph.defaults).ok()?.as_int()?).ok();
        Some([size(1)?, size(2)?, size(3)?])
    };
    let unknown =
        || anyhow!("`{}` has no known size of pictures: sample_size was expected in its config", graph.name);
    let [own, height, width] = axes(graph).ok_or_else(unknown)?;
    let channels = match latents {
        None => own,
        Some(l) => {
            let value = |name| l.encoder.graph.output(name).map(|v| &l.encoder.graph.value(v).shape);
            let moments = value("moments").and_then(|s| s.get(1)?.as_int()).unwrap_or(0);
            if moments != 2 * own as i64 {
                bail!("`{}` takes {own} channels and the auto-encoder gives {}", graph.name, moments / 2);
            }
            axes(l.encoder.graph).map_or(3, |a| a[0])
        }
    };
    if !matches!(channels, 1 | 3) {
        bail!("`{}` takes pictures of {channels} channels; 1 or 3 were expected", graph.name);
    }
    let sides = [height * scale, width * scale];
    let sizing = if sides[0] == sides[1] { Sizing::Shortest(sides[0]) } else { Sizing::Exact(sides) };
    Ok(Preprocessing {
        sizing,
        filter: Filter::Bilinear,
        crop: Some(sides),
        rescale: 1.0 / 255.0,
        mean: vec![0.5; channels],
        deviation: vec![0.5; channels],
        source: "the network's size".to_owned(),
    })
}
