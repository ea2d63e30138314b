//! The networks of diffusers pipelines.

use super::Network;

pub(crate) const NETWORKS: &[Network] = &[];
