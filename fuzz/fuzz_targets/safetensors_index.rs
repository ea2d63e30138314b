//! Indices of sharded safetensors, beside one shard with the tensor `a`.
#![no_main]

const HEADER: &str = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let shard = [&(HEADER.len() as u64).to_le_bytes()[..], HEADER.as_bytes(), &[7]].concat();
    pomona_fuzz::file("s.safetensors", &shard);
    pomona_fuzz::checkpoint(&pomona_fuzz::file("model.safetensors.index.json", data));
});
