//! Default sizes of symbols.

use pomona_graph::{Bindings, Graph};

/// Tokens of a language model's default input.
const TOKENS: i64 = 128;

/// Batch 1, 128 tokens, an empty cache, and the graph's own defaults (an image's sides), which win. Other symbols have no
/// default: their importer binds them or the user does.
pub fn default_bindings(graph: &Graph) -> Bindings {
    let mut sizes = general(1, TOKENS, 0);
    sizes.extend(graph.defaults.clone());
    fed(graph, sizes)
}

/// One further token behind `past` tokens in the cache, batch 1: a step of decoding.
pub fn decode_bindings(graph: &Graph, past: usize) -> Bindings {
    let mut sizes = graph.defaults.clone();
    sizes.extend(general(1, 1, i64::try_from(past).unwrap_or(i64::MAX)));
    fed(graph, sizes)
}

fn general(batch: i64, tokens: i64, past: i64) -> Bindings {
    [("batch", batch), ("tokens", tokens), ("past", past)].map(|(n, v)| (n.to_owned(), v)).into()
}

/// Those of the sizes whose symbol the graph's inputs and states have.
fn fed(graph: &Graph, sizes: Bindings) -> Bindings {
    let fed = graph.inputs.iter().map(|p| p.value).chain(graph.states.iter().map(|s| s.input));
    let symbols: Vec<String> = fed.flat_map(|v| &graph.value(v).shape).flat_map(|d| d.symbols()).collect();
    sizes.into_iter().filter(|(name, _)| symbols.contains(name)).collect()
}
