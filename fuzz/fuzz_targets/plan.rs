//! Plans, applied to a Llama.
#![no_main]

use pomona_graph::{Plan, apply};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(plan) = Plan::from_json(text)
        && let Ok((edited, recipe)) = apply(pomona_fuzz::llama(), &plan.edits)
    {
        edited.validate().expect("an edited graph is valid");
        assert_eq!(edited.tensors.len(), recipe.outputs.len());
    }
});
