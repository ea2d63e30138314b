//! Image and text encoders, classifiers.

use super::Network;

pub(crate) const NETWORKS: &[Network] = &[];
