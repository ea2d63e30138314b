//! Generators and small auto-encoders that come as state dicts.

mod dcgan;
mod parts;
mod pix2pix;
mod taesd;
mod wav2lip;

use super::{Key, Network};

pub(crate) const NETWORKS: &[Network] = &[
    Network::new(Key::Architecture, pix2pix::NAMES, pix2pix::graph),
    Network {
        other_names: super::wrapped,
        ..Network::new(Key::Architecture, dcgan::GENERATOR, dcgan::generator)
    },
    Network {
        other_names: super::wrapped,
        ..Network::new(Key::Architecture, dcgan::DISCRIMINATOR, dcgan::discriminator)
    },
    Network {
        other_names: super::wrapped,
        stock: wav2lip::stock,
        ..Network::new(Key::Architecture, wav2lip::NAMES, wav2lip::graph)
    },
    Network {
        other_names: taesd::encoder_names,
        ..Network::new(Key::Architecture, taesd::ENCODERS, taesd::encoder)
    },
    Network {
        other_names: taesd::decoder_names,
        ..Network::new(Key::Architecture, taesd::DECODERS, taesd::decoder)
    },
];
