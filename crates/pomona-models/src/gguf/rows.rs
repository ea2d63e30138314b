//! The row order of q and k. Transformers turns channel i with i + d/2; GGUF's `llama` stores the two beside each other.

use pomona_graph::Expr;

/// Whether a graph tensor has rotary rows, and whose: `Some(true)` for q, `Some(false)` for k.
pub(super) fn rotary(name: &str) -> Option<bool> {
    let (module, _) = name.rsplit_once('.')?;
    match module.rsplit('.').next()? {
        "q_proj" => Some(true),
        "k_proj" => Some(false),
        _ => None,
    }
}

/// Row `h*d + s*d/2 + j` of the graph's tensor is row `h*d + 2j + s` of the file's.
pub(crate) fn from_pairs(heads: usize, head_dim: usize, file: Expr) -> Expr {
    let half = head_dim / 2;
    let row = |h: usize, s: usize, j: usize| (h * head_dim + 2 * j + s) as u32;
    let head = |h| (0..2).flat_map(move |s| (0..half).map(move |j| row(h, s, j)));
    file.gather(0, (0..heads).flat_map(head).collect())
}

/// The reverse: row `h*d + 2j + s` of the file is row `h*d + s*d/2 + j` of the graph's tensor.
pub(crate) fn to_pairs(heads: usize, head_dim: usize, graph: Expr) -> Expr {
    let half = head_dim / 2;
    let row = |h: usize, j: usize, s: usize| (h * head_dim + s * half + j) as u32;
    let head = |h| (0..half).flat_map(move |j| (0..2).map(move |s| row(h, j, s)));
    graph.gather(0, (0..heads).flat_map(head).collect())
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
    fn only_q_and_k_turn() {
        assert_eq!(rotary("model.layers.0.self_attn.q_proj.bias"), Some(true));
        assert_eq!(rotary("model.layers.0.self_attn.k_proj.weight"), Some(false));
        assert_eq!(rotary("model.layers.0.self_attn.v_proj.weight"), None);
    }
}
