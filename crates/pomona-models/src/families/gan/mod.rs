//! Generators and small auto-encoders that come as state dicts.

mod pix2pix;

use super::{Key, Network};

pub(crate) const NETWORKS: &[Network] = &[Network::new(Key::Architecture, pix2pix::NAMES, pix2pix::graph)];
