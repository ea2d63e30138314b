//! What a run leaves for people and tools: JSON lines and TensorBoard's event files.

mod events;
mod lines;

pub use events::Events;
pub use lines::{Lines, read_lines};
