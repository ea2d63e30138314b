//! Generators and small auto-encoders that come as state dicts.

use super::Network;

pub(crate) const NETWORKS: &[Network] = &[];
