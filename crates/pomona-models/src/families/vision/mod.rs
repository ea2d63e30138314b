//! Image and text encoders, classifiers.

mod bert;
mod mobilenet_v2;
mod parts;
mod resnet;
mod resnet_cifar;
mod separable;
mod stock;
mod timm_vit;
mod vit;

use super::{Key, Network, wrapped};
use crate::config::Fields;
use crate::error::Result;

pub(crate) const NETWORKS: &[Network] = &[
    Network {
        other_names: vit::other_names,
        stock: stock::stock,
        ..Network::new(Key::ModelType, &["vit"], vit::vit)
    },
    Network {
        other_names: vit::other_names,
        stock: stock::stock,
        ..Network::new(Key::ModelType, &["deit"], vit::deit)
    },
    Network {
        other_names: bert::other_names,
        stock: stock::stock,
        ..Network::new(Key::ModelType, &["bert"], bert::graph)
    },
    Network {
        other_names: wrapped,
        stock: timm_vit::stock,
        ..Network::new(Key::Architecture, timm_vit::NAMES, timm_vit::graph)
    },
    Network { other_names: wrapped, ..Network::new(Key::Architecture, resnet::NAMES, resnet::graph) },
    Network {
        other_names: wrapped,
        ..Network::new(Key::Architecture, resnet_cifar::NAMES, resnet_cifar::graph)
    },
    Network {
        other_names: wrapped,
        ..Network::new(Key::Architecture, mobilenet_v2::NAMES, mobilenet_v2::graph)
    },
    Network { other_names: wrapped, ..Network::new(Key::Architecture, separable::NAMES, separable::graph) },
];

/// Labels of a transformers classifier: as many as its table of names has, 2 without one.
fn labels(c: &Fields<'_>) -> Result<usize> {
    match c.maybe_size("num_labels")? {
        Some(n) => Ok(n),
        None => Ok(c.section("id2label")?.map_or(2, |names| names.len())),
    }
}

/// A share from 0 to below 1.
fn rate(c: &Fields<'_>, key: &str, default: f64) -> Result<f64> {
    let rate = c.number_or(key, default)?;
    if !(0.0..1.0).contains(&rate) {
        return Err(c.fault(key, format!("is {rate}; a share from 0 to below 1 was expected")));
    }
    Ok(rate)
}
