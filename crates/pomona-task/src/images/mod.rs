//! Pictures: files, pairs, how a model wants them, and classification.

mod agreement;
mod classify;
mod pairs;
mod picture;
mod preprocess;
mod resample;

pub use agreement::{Agreement, Logits, agreement, logits};
pub use classify::{Accuracy, Classification, accuracy, picture_port};
pub use pairs::PairSet;
pub use picture::Picture;
pub use preprocess::{Preprocessing, Sizing};
pub use resample::{Filter, resample};
