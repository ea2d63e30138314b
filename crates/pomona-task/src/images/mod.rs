//! Pictures: files with labels, how a model wants them, and classification.

mod agreement;
mod classify;
mod picture;
mod preprocess;
mod resample;
mod set;

pub use agreement::{Agreement, Logits, agreement, logits};
pub use classify::{Accuracy, Classification, accuracy};
pub use picture::Picture;
pub use preprocess::{Preprocessing, Sizing};
pub use resample::{Filter, resample};
pub use set::ImageSet;
