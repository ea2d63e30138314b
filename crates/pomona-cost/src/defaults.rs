//! Default sizes of symbols.

use pomona_graph::{Bindings, Graph};

/// Tokens of a language model's default input.
const TOKENS: i64 = 128;

/// Batch 1, 128 tokens, an empty cache. Symbols of other names have no default: their importer binds them or the user does.
pub fn default_bindings(graph: &Graph) -> Bindings {
    pick(graph, &[("batch", 1), ("tokens", TOKENS), ("past", 0)])
}

/// One further token behind `past` tokens in the cache, batch 1: a step of decoding.
pub fn decode_bindings(graph: &Graph, past: usize) -> Bindings {
    pick(graph, &[("batch", 1), ("tokens", 1), ("past", i64::try_from(past).unwrap_or(i64::MAX))])
}

/// Those of the sizes whose symbol the graph's inputs and states have.
fn pick(graph: &Graph, sizes: &[(&str, i64)]) -> Bindings {
    let fed = graph.inputs.iter().map(|p| p.value).chain(graph.states.iter().map(|s| s.input));
    let symbols: Vec<String> = fed.flat_map(|v| &graph.value(v).shape).flat_map(|d| d.symbols()).collect();
    sizes
        .iter()
        .filter(|(name, _)| symbols.iter().any(|s| s == name))
        .map(|(n, v)| ((*n).to_owned(), *v))
        .collect()
}
