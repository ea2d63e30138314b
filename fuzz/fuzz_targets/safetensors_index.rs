//! Indices of sharded safetensors, beside one shard with the tensor `a`.
#![no_main]

const SHARD: &[u8] =
    b"\x3b\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}     \x07";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pomona_fuzz::file("s.safetensors", SHARD);
    pomona_fuzz::checkpoint(&pomona_fuzz::file("model.safetensors.index.json", data));
});
