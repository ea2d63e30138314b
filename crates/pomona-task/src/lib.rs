//! What a model is run for: data, decoding, perplexity.
