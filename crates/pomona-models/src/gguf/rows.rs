//! The row order of q and k. Transformers turns channel i with i + d/2; GGUF's `llama` stores the two beside each other.

use pomona_graph::Expr;

use crate::families::Family;

/// How the rows of a tensor lie in GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowOrder {
    Same,
    /// Rotary pairs of this many heads of this width beside each other.
    Pairs(usize, usize),
    /// One matrix by parts instead of by head: heads of k, heads of q for each, width.
    Parts(usize, usize, usize),
}

impl RowOrder {
    /// The order for a graph tensor of a block with these heads, key heads and width of a head.
    pub(crate) fn of(family: &Family, tensor: &str, sizes: (usize, usize, usize)) -> RowOrder {
        let (heads, kv_heads, head_dim) = sizes;
        let Some(layout) = family.gguf else { return RowOrder::Same };
        let qkv = family.names().qkv;
        let module = tensor.rsplit_once('.').map_or(tensor, |(module, _)| module);
        if layout.qkv_apart && !qkv.is_empty() && module.ends_with(qkv) {
            return RowOrder::Parts(kv_heads, heads / kv_heads.max(1), head_dim);
        }
        match rotary(tensor).filter(|_| layout.pairs) {
            Some(true) => RowOrder::Pairs(heads, head_dim),
            Some(false) => RowOrder::Pairs(kv_heads, head_dim),
            None => RowOrder::Same,
        }
    }

    /// The graph's tensor from the file's.
    pub(crate) fn to_graph(self, file: Expr) -> Expr {
        match self {
            RowOrder::Same => file,
            RowOrder::Pairs(heads, width) => from_pairs(heads, width, file),
            RowOrder::Parts(groups, queries, width) => by_head(groups, queries, width, file),
        }
    }

    /// The file's tensor from the graph's.
    pub(crate) fn to_file(self, graph: Expr) -> Expr {
        match self {
            RowOrder::Same => graph,
            RowOrder::Pairs(heads, width) => to_pairs(heads, width, graph),
            RowOrder::Parts(groups, queries, width) => to_parts(groups, queries, width, graph),
        }
    }
}

/// Whether a graph tensor has rotary rows, and whose: `Some(true)` for q, `Some(false)` for k.
fn rotary(name: &str) -> Option<bool> {
    let (module, _) = name.rsplit_once('.')?;
    match module.rsplit('.').next()? {
        "q_proj" => Some(true),
        "k_proj" => Some(false),
        _ => None,
    }
}

/// Row `h*d + s*d/2 + j` of the graph's tensor is row `h*d + 2j + s` of the file's.
fn from_pairs(heads: usize, head_dim: usize, file: Expr) -> Expr {
    let half = head_dim / 2;
    let row = |h: usize, s: usize, j: usize| (h * head_dim + 2 * j + s) as u32;
    let head = |h| (0..2).flat_map(move |s| (0..half).map(move |j| row(h, s, j)));
    file.gather(0, (0..heads).flat_map(head).collect())
}

/// The reverse: row `h*d + 2j + s` of the file is row `h*d + s*d/2 + j` of the graph's tensor.
fn to_pairs(heads: usize, head_dim: usize, graph: Expr) -> Expr {
    let half = head_dim / 2;
    let row = |h: usize, j: usize, s: usize| (h * head_dim + s * half + j) as u32;
    let head = |h| (0..half).flat_map(move |j| (0..2).map(move |s| row(h, j, s)));
    graph.gather(0, (0..heads).flat_map(head).collect())
}

/// One matrix of q, k and v: row `g*run + r` of the graph's tensor, head by head, to where it lies by parts.
fn parts_order(groups: usize, queries: usize, head_dim: usize) -> Vec<u32> {
    let run = queries * head_dim + 2 * head_dim;
    let row = |g: usize, r: usize| (g * run + r) as u32;
    let part = |from: usize, to: usize| (0..groups).flat_map(move |g| (from..to).map(move |r| row(g, r)));
    let q = queries * head_dim;
    part(0, q).chain(part(q, q + head_dim)).chain(part(q + head_dim, run)).collect()
}

/// All of q, all of k, all of v, from an order head by head with `queries` heads of q for each of `groups` of k.
fn to_parts(groups: usize, queries: usize, head_dim: usize, graph: Expr) -> Expr {
    graph.gather(0, parts_order(groups, queries, head_dim))
}

/// The reverse of [`to_parts`].
fn by_head(groups: usize, queries: usize, head_dim: usize, file: Expr) -> Expr {
    let order = parts_order(groups, queries, head_dim);
    let mut back = vec![0; order.len()];
    for (at, row) in order.iter().enumerate() {
        back[*row as usize] = at as u32;
    }
    file.gather(0, back)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]
    use super::*;

    fn indices(e: Expr) -> Vec<u32> {
        match e {
            Expr::Gather { indices, .. } => indices,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_two_orders_are_inverse() {
        let from = indices(from_pairs(3, 8, Expr::copy("q")));
        let to = indices(to_pairs(3, 8, Expr::copy("q")));
        assert_eq!(&from[..8], [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(&to[..8], [0, 4, 1, 5, 2, 6, 3, 7]);
        assert!((0..24).all(|i| from[to[i] as usize] == i as u32));
    }

    #[test]
    fn parts_and_heads_are_inverse() {
        let to = indices(to_parts(2, 1, 2, Expr::copy("qkv")));
        assert_eq!(to, [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
        let back = indices(by_head(2, 1, 2, Expr::copy("qkv")));
        assert!((0..12).all(|i| to[back[i] as usize] == i as u32));
        let grouped = indices(to_parts(2, 3, 1, Expr::copy("qkv")));
        assert_eq!(grouped, [0, 1, 2, 5, 6, 7, 3, 8, 4, 9]);
    }

    #[test]
    fn only_q_and_k_turn() {
        assert_eq!(rotary("model.layers.0.self_attn.q_proj.bias"), Some(true));
        assert_eq!(rotary("model.layers.0.self_attn.k_proj.weight"), Some(false));
        assert_eq!(rotary("model.layers.0.self_attn.v_proj.weight"), None);
    }
}
