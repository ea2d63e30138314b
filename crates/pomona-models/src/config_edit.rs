//! A config with fewer blocks.

use serde_json::{Map, Value, json};

/// Keys under which configs count their blocks.
pub(crate) const DEPTH_KEYS: &[&str] = &[
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "depth",
    "decoder_layers",
    "encoder_layers",
    "num_decoder_layers",
    "num_encoder_layers",
];

/// Keys whose arrays are lists of something else, however long they are.
fn is_other_list(key: &str) -> bool {
    let sides = ["image_size", "img_size", "patch_size", "input_size", "mean", "std"];
    key.ends_with("_token_id")
        || key.ends_with("_token_ids")
        || matches!(key, "architectures" | "auto_map" | "mlp_only_layers")
        // One entry a rotary frequency.
        || matches!(key, "short_factor" | "long_factor")
        || sides.contains(&key)
}

/// The known depth keys that have this value.
pub(crate) fn depth_keys(config: &Value, depth: usize) -> Vec<&'static str> {
    let here = |key: &&&str| config.get(**key).and_then(Value::as_u64) == Some(depth as u64);
    DEPTH_KEYS.iter().filter(here).copied().collect()
}

/// The config with `keys` set to the number of blocks that are left, every list with an entry a block cut to match, and
/// the count of the first blocks without a window moved along.
pub(crate) fn cut_config(config: &Value, keys: &[&str], depth: usize, kept: &[usize]) -> Value {
    let mut out = config.clone();
    let Some(map) = out.as_object_mut() else { return out };
    if kept.len() != depth {
        renumber_dense(map, depth, kept);
        cut_lists(map, depth, kept);
        if let Some(first) = map.get("max_window_layers").and_then(Value::as_u64) {
            let before = kept.iter().filter(|k| (**k as u64) < first).count() as u64;
            // Beyond the old depth it only says "never": that stays true.
            let new = if first >= depth as u64 { first } else { before };
            map.insert("max_window_layers".to_owned(), json!(new));
        }
    }
    for key in keys {
        map.insert((*key).to_owned(), json!(kept.len()));
    }
    out
}

/// Blocks without experts are listed by number, or every n-th block has experts: both become a list of the new numbers.
fn renumber_dense(map: &mut Map<String, Value>, depth: usize, kept: &[usize]) {
    let step = map.get("decoder_sparse_step").and_then(Value::as_u64).unwrap_or(1).max(1);
    let listed = map.get("mlp_only_layers").and_then(Value::as_array);
    if step == 1 && listed.is_none() {
        return;
    }
    let listed: Vec<u64> = listed.into_iter().flatten().filter_map(Value::as_u64).collect();
    let dense = |i: &usize| !(*i as u64 + 1).is_multiple_of(step) || listed.contains(&(*i as u64));
    let left: Vec<usize> = kept.iter().filter(|i| **i < depth).copied().collect();
    let new: Vec<usize> = (0..left.len()).filter(|n| dense(&left[*n])).collect();
    map.insert("mlp_only_layers".to_owned(), json!(new));
    if step != 1 {
        map.insert("decoder_sparse_step".to_owned(), json!(1));
    }
}

fn cut_lists(map: &mut Map<String, Value>, depth: usize, kept: &[usize]) {
    for (key, value) in map.iter_mut() {
        match value {
            Value::Array(items) if items.len() == depth && !is_other_list(key) => {
                *value = kept.iter().filter_map(|i| items.get(*i)).cloned().collect();
            }
            Value::Object(inner) if !inner.keys().any(|k| k.parse::<usize>().is_ok()) => {
                cut_lists(inner, depth, kept);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_by_block_is_cut() {
        let config = json!({
            "num_hidden_layers": 4,
            "layer_types": ["a", "b", "c", "d"],
            "rope_parameters": {"factors": [1, 2, 3, 4]},
            "eos_token_id": [1, 2, 3, 4],
            "other": [1, 2, 3],
            "max_window_layers": 2,
            "hidden_size": 4,
        });
        let cut = cut_config(&config, &["num_hidden_layers"], 4, &[0, 2, 3]);
        assert_eq!(
            cut,
            json!({
                "num_hidden_layers": 3,
                "layer_types": ["a", "c", "d"],
                "rope_parameters": {"factors": [1, 3, 4]},
                "eos_token_id": [1, 2, 3, 4],
                "other": [1, 2, 3],
                "max_window_layers": 1,
                "hidden_size": 4,
            })
        );
        assert_eq!(cut_config(&config, &["num_hidden_layers"], 4, &[0, 1, 2, 3]), config);
        let experts = json!({"num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3]});
        let cut = cut_config(&experts, &["num_hidden_layers"], 4, &[1, 2, 3]);
        assert_eq!(cut, json!({"num_hidden_layers": 3, "decoder_sparse_step": 1, "mlp_only_layers": [1, 2]}));
        let beyond = json!({"num_hidden_layers": 2, "max_window_layers": 28});
        assert_eq!(cut_config(&beyond, &["num_hidden_layers"], 2, &[1])["max_window_layers"], 28);
        assert_eq!(depth_keys(&json!({"n_layer": 3, "num_layers": 2}), 3), ["n_layer"]);
    }
}
