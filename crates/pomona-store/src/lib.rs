//! Checkpoint files of neural networks: lazy reading, streaming and atomic writing.
