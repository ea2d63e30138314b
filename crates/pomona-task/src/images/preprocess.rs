//! How a model wants its pictures: preprocessor_config.json of transformers, `pretrained_cfg` of timm, or the same keys
//! beside an `architecture`.

use std::path::Path;

use pomona_exec::{Device, Tensor};
use pomona_graph::Graph;
use pomona_models::Component;
use rayon::prelude::*;
use serde_json::Value;

use super::picture::{MAX_SIDE, Picture};
use super::resample::{Filter, resample};
use crate::error::{Result, TaskError};

/// Means and deviations of ImageNet's channels, which most networks are trained with.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];
/// Share of the resized picture's side that the crop takes, where nothing says so.
const CROP: f64 = 0.875;
/// Pictures up to this side are made for the network and taken whole.
const SMALL: usize = 64;
const MAX_CONFIG: u64 = 1 << 20;

/// What happens to a picture's size in front of the crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizing {
    /// As it is.
    Keep,
    /// Height and width.
    Exact([usize; 2]),
    /// The shorter side.
    Shortest(usize),
}

/// From a picture to a network's input.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessing {
    /// The size.
    pub sizing: Sizing,
    /// The filter that makes it.
    pub filter: Filter,
    /// Height and width of the middle that is taken.
    pub crop: Option<[usize; 2]>,
    /// Factor of the bytes.
    pub rescale: f64,
    /// Subtracted from each channel after that; 1 or 3 channels.
    pub mean: Vec<f64>,
    /// Divides each channel then.
    pub deviation: Vec<f64>,
    /// Where it was read.
    pub source: String,
}

impl Preprocessing {
    /// What the model's files say, else what is usual for its size.
    ///
    /// # Errors
    /// [`TaskError::Unfit`] where the graph has no picture as input or a value of the files is not understood.
    pub fn of(component: &Component) -> Result<Preprocessing> {
        let sides = sides(&component.graph)?;
        let path = component.directory().join("preprocessor_config.json");
        if path.is_file() {
            let fail = |message: String| TaskError::Data { path: path.clone(), message };
            let size = std::fs::metadata(&path).map_err(|e| fail(e.to_string()))?.len();
            if size > MAX_CONFIG {
                return Err(fail(format!("has {size} bytes: a few thousand were expected")));
            }
            let text = std::fs::read_to_string(&path).map_err(|e| fail(e.to_string()))?;
            let value: Value = serde_json::from_str(&text).map_err(|e| fail(format!("is not JSON: {e}")))?;
            return of_transformers(&value, sides).map_err(fail);
        }
        let config = &component.config;
        let section = config.get("pretrained_cfg").filter(|v| v.is_object());
        let (place, source) = section.map_or((config, "config.json"), |s| (s, "pretrained_cfg"));
        of_timm(place, sides, source)
            .map_err(|message| TaskError::Unfit(format!("{}: {message}", component.path.display())))
    }

    /// Channels of the result.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// What black becomes in each channel.
    pub fn black(&self) -> Vec<f32> {
        self.mean.iter().zip(&self.deviation).map(|(m, d)| (-m / d) as f32).collect()
    }

    /// For people, and to tell one from another.
    pub fn describe(&self) -> String {
        let sizing = match self.sizing {
            Sizing::Keep => "as they are".to_owned(),
            Sizing::Exact([h, w]) => format!("{w} x {h}"),
            Sizing::Shortest(n) => format!("shorter side {n}"),
        };
        let crop = self.crop.map_or_else(String::new, |[h, w]| format!(" cropped to {w} x {h}"));
        let (mean, deviation) = (&self.mean, &self.deviation);
        format!(
            "{sizing}{crop} ({:?}), mean {mean:?}, deviation {deviation:?} of bytes times {}",
            self.filter, self.rescale as f32
        )
    }

    /// Files as one tensor `[files, channels, height, width]`, decoded side by side.
    ///
    /// # Errors
    /// [`TaskError::Data`] where a file is no picture, is smaller than the crop, or differs in size from the others.
    pub fn read<P: AsRef<Path> + Sync>(&self, files: &[P], device: &Device) -> Result<Tensor> {
        let read = |file: &P| {
            let path = file.as_ref();
            let fail = |message| TaskError::Data { path: path.to_owned(), message };
            self.apply(&Picture::read(path)?).map_err(fail)
        };
        let pictures: Vec<(Vec<f32>, [usize; 2])> = files.par_iter().map(read).collect::<Result<_>>()?;
        let sides = pictures.first().map_or([0, 0], |p| p.1);
        if let Some(i) = pictures.iter().position(|p| p.1 != sides) {
            let [h, w] = pictures[i].1;
            return Err(TaskError::Data {
                path: files[i].as_ref().to_owned(),
                message: format!(
                    "is {w} x {h} pixels and others of the batch {} x {}: use --batch 1",
                    sides[1], sides[0]
                ),
            });
        }
        let shape = [files.len(), self.channels(), sides[0], sides[1]];
        Ok(Tensor::from_f32(pictures.into_iter().flat_map(|p| p.0).collect(), &shape, device)?)
    }

    /// A picture as `[channels, height, width]`, row-major, with its height and width.
    pub fn apply(&self, picture: &Picture) -> std::result::Result<(Vec<f32>, [usize; 2]), String> {
        let sized = match self.sizing {
            Sizing::Keep => picture.clone(),
            Sizing::Exact([h, w]) => resample(picture, w, h, self.filter),
            Sizing::Shortest(n) => {
                // The longer side is rounded down.
                let (w, h) = (picture.width, picture.height);
                let (w, h) = if w <= h { (n, n * h / w) } else { (n * w / h, n) };
                if w.max(h) > MAX_SIDE {
                    return Err(format!(
                        "is {} x {} pixels: with the shorter side resized to {n} the longer would be {}, above {MAX_SIDE}",
                        picture.width,
                        picture.height,
                        w.max(h)
                    ));
                }
                resample(picture, w, h, self.filter)
            }
        };
        let [height, width] = self.crop.unwrap_or([sized.height, sized.width]);
        if height > sized.height || width > sized.width {
            return Err(format!(
                "is {} x {} pixels after resizing; {width} x {height} are cropped from it",
                sized.width, sized.height
            ));
        }
        // A half is rounded to even, as Python does.
        let middle = |whole: usize, part: usize| ((whole - part) as f64 / 2.0).round_ties_even() as usize;
        let (top, left) = (middle(sized.height, height), middle(sized.width, width));
        let channels = self.channels();
        let mut out = Vec::with_capacity(channels * height * width);
        for c in 0..channels {
            let (mean, deviation) = (self.mean[c], self.deviation[c]);
            for y in top..top + height {
                let row = &sized.pixels[(y * sized.width + left) * 3..(y * sized.width + left + width) * 3];
                let value = |p: &[u8]| {
                    let byte = if channels == 1 { grey(p) } else { f64::from(p[c]) };
                    ((byte * self.rescale - mean) / deviation) as f32
                };
                out.extend(row.chunks_exact(3).map(value));
            }
        }
        Ok((out, [height, width]))
    }
}

/// Luma as Pillow weighs it.
fn grey(p: &[u8]) -> f64 {
    ((u32::from(p[0]) * 19_595 + u32::from(p[1]) * 38_470 + u32::from(p[2]) * 7_471 + 0x8000) >> 16).into()
}

/// Height and width of the network's own picture.
fn sides(graph: &Graph) -> Result<[usize; 2]> {
    let port = super::classify::picture_port(graph)?;
    let sizes = pomona_graph::Bindings::clone(&graph.defaults);
    let side = |axis: usize| {
        let dim = graph.value(port).shape[axis].bind(&sizes)?;
        dim.size("a side of the picture")
    };
    Ok([side(2)?, side(3)?])
}

type Read<T> = std::result::Result<T, String>;

fn of_transformers(value: &Value, sides: [usize; 2]) -> Read<Preprocessing> {
    let flag = |key: &str, default: bool| value.get(key).and_then(Value::as_bool).unwrap_or(default);
    let sizing = match value.get("size").filter(|v| !v.is_null() && flag("do_resize", true)) {
        Some(size) => sizing(size)?,
        None if flag("do_resize", true) => Sizing::Exact(sides),
        None => Sizing::Keep,
    };
    let crop = value.get("crop_size").filter(|v| !v.is_null() && flag("do_center_crop", true));
    let crop = match crop.map(self::sizing).transpose()? {
        Some(Sizing::Exact(sides)) => Some(sides),
        Some(_) => return Err("`crop_size` is not a height and a width".to_owned()),
        None => None,
    };
    let filter = match value.get("resample").and_then(Value::as_u64) {
        Some(0) => Filter::Nearest,
        Some(1) => Filter::Lanczos,
        Some(2) | None => Filter::Bilinear,
        Some(3) => Filter::Bicubic,
        Some(n) => return Err(format!("`resample` is {n}; 0 to 3 was expected")),
    };
    let normalised = flag("do_normalize", true);
    let pick = |key: &str, usual: f64| {
        if normalised { numbers(value, key, &[0.5; 3]) } else { Ok(vec![usual; 3]) }
    };
    let rescale = value.get("rescale_factor").and_then(Value::as_f64).unwrap_or(1.0 / 255.0);
    checked(Preprocessing {
        sizing,
        filter,
        crop,
        rescale: if flag("do_rescale", true) { rescale } else { 1.0 },
        mean: pick("image_mean", 0.0)?,
        deviation: pick("image_std", 1.0)?,
        source: "preprocessor_config.json".to_owned(),
    })
}

/// A number for both sides, `{height, width}` or `{shortest_edge}`.
fn sizing(size: &Value) -> Read<Sizing> {
    let side = |v: Option<&Value>| {
        let n = v.and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        n.filter(|n| (1..=1 << 14).contains(n))
    };
    if let Some(n) = side(Some(size)) {
        return Ok(Sizing::Exact([n; 2]));
    }
    match (side(size.get("height")), side(size.get("width")), side(size.get("shortest_edge"))) {
        (Some(h), Some(w), _) => Ok(Sizing::Exact([h, w])),
        (_, _, Some(n)) => Ok(Sizing::Shortest(n)),
        _ => Err(format!("`size` is {size}; a height and width or a shortest_edge was expected")),
    }
}

fn of_timm(value: &Value, sides: [usize; 2], source: &str) -> Read<Preprocessing> {
    let small = sides.iter().all(|s| *s <= SMALL);
    let share = match value.get("crop_pct").filter(|v| !v.is_null()) {
        Some(v) => v.as_f64().filter(|s| (0.05..=1.0).contains(s)).ok_or(format!("`crop_pct` is {v}"))?,
        None if small => 1.0,
        None => CROP,
    };
    let filter = match value.get("interpolation").and_then(Value::as_str) {
        Some("bilinear") | None => Filter::Bilinear,
        Some("bicubic") => Filter::Bicubic,
        Some("nearest") => Filter::Nearest,
        Some("lanczos") => Filter::Lanczos,
        Some(other) => {
            return Err(format!("`interpolation` is \"{other}\"; bilinear or bicubic was expected"));
        }
    };
    let whole = |side: usize| (side as f64 / share).floor() as usize;
    let squash = value.get("crop_mode").and_then(Value::as_str) == Some("squash");
    let sizing = match share == 1.0 && small {
        true => Sizing::Exact(sides),
        false if squash || sides[0] != sides[1] => Sizing::Exact(sides.map(whole)),
        false => Sizing::Shortest(whole(sides[0])),
    };
    checked(Preprocessing {
        sizing,
        filter,
        crop: Some(sides),
        rescale: 1.0 / 255.0,
        mean: numbers(value, "mean", &MEAN)?,
        deviation: numbers(value, "std", &DEVIATION)?,
        source: source.to_owned(),
    })
}

fn numbers(value: &Value, key: &str, default: &[f64]) -> Read<Vec<f64>> {
    let Some(list) = value.get(key).filter(|v| !v.is_null()) else { return Ok(default.to_vec()) };
    let list: Option<Vec<f64>> = match list {
        Value::Array(items) => items.iter().map(Value::as_f64).collect(),
        one => one.as_f64().map(|n| vec![n; default.len()]),
    };
    let fits = |l: &Vec<f64>| matches!(l.len(), 1 | 3) && l.iter().all(|n| n.is_finite());
    list.filter(fits)
        .ok_or_else(|| format!("`{key}` is {}; a number for each channel was expected", value[key]))
}

fn checked(p: Preprocessing) -> Read<Preprocessing> {
    if p.mean.len() != p.deviation.len() || p.deviation.contains(&0.0) {
        return Err(format!("means {:?} and deviations {:?} do not fit together", p.mean, p.deviation));
    }
    Ok(p)
}
