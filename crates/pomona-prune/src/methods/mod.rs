//! Methods: one file a paper.

pub mod bk_sdm;
pub mod depth;
pub mod filters;
pub mod inner_layers;
pub mod snp;
pub mod wav2lip_compact;
