//! The networks of diffusers pipelines.

mod autoencoder_kl;
mod autoencoder_tiny;
mod clip_text;
mod parts;
mod unet;
mod unet_config;
mod unet_stock;

use super::{Key, Network};

pub(crate) const NETWORKS: &[Network] = &[
    Network {
        stock: unet_stock::stock,
        other_names: parts::old_attention_names,
        ..Network::new(Key::ClassName, &["UNet2DConditionModel"], unet::conditional)
    },
    Network {
        stock: unet_stock::stock,
        other_names: parts::old_attention_names,
        ..Network::new(Key::ClassName, &["UNet2DModel"], unet::unconditional)
    },
    Network {
        other_names: parts::old_attention_names,
        ..Network::new(Key::ClassName, &["AutoencoderKL"], autoencoder_kl::graph)
    },
    Network::new(Key::ClassName, &["AutoencoderTiny"], autoencoder_tiny::graph),
    Network {
        stock: clip_text::stock,
        other_names: clip_text::other_names,
        ..Network::new(Key::ModelType, &["clip_text_model"], clip_text::graph)
    },
];
