//! What a model is run for: calibration and evaluation data, losses, perplexity, decoding.
//!
//! Criteria and training know a model only through its graph, its [`Weights`] and an [`Objective`].

mod captions;
pub mod choice;
mod data;
mod edited;
mod error;
mod generate;
pub mod image_metrics;
pub mod images;
mod labelled;
mod language;
mod likelihood;
mod limited;
mod loss;
mod noise;
mod objective;
mod parts;
mod probe;
mod protocol;
mod repetition;
mod sounds;
mod tensor_data;
mod token_file;
mod weights;

pub use captions::CaptionSet;
pub use data::{TextRange, Windows, even_windows, sample_windows};
pub use edited::EditedWeights;
pub use error::{Result, TaskError};
pub use generate::{Choice, Decoding, Generated, SelfText, generate, self_generated};
pub use labelled::{LabelledFiles, Media};
pub use language::{NextToken, empty_states, token_feeds};
pub use likelihood::{
    Language, PASS_TOKENS, Request, Stretch, cache_bytes, log_likelihoods, passes_beside, stretch_losses,
};
pub use loss::{nll_gradient, nll_rows};
pub use noise::{NoiseSchedule, Prediction};
pub use objective::{Objective, SampleLoss, Weights, rows_at_once};
pub use parts::evaluate_in_parts;
pub use probe::{run_through, smallest_feeds};
pub use protocol::{Cut, Protocol, perplexity};
pub use repetition::{Loop, Repetition, repetition};
pub use sounds::Sound;
pub use tensor_data::TensorData;
pub use token_file::{holds_windows, is_token_file, token_windows};
pub use weights::{ModelWeights, Residence, widened_bytes};
