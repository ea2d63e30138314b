use super::models::{llama, unet};
use super::*;

fn keep(group: &str, indices: &[u32]) -> Edit {
    Edit::Keep { group: group.into(), indices: indices.to_vec() }
}

/// The tensors whose shape changed, with their expressions.
fn changed(graph: &Graph, edits: &[Edit]) -> Vec<(String, Vec<usize>)> {
    let (out, recipe) = apply(graph, edits).unwrap();
    assert_eq!(paths(&out), paths(graph));
    assert_eq!(recipe.outputs.len(), graph.tensors.len());
    let differs =
        |o: &&RecipeOutput| graph.tensors[graph.find_tensor(&o.name).unwrap().0 as usize].shape != o.shape;
    recipe.outputs.iter().filter(differs).map(|o| (o.name.clone(), o.shape.clone())).collect()
}

fn shapes(list: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    list.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect()
}

#[test]
fn a_gated_mlp_is_cut_in_all_three_matrices() {
    let graph = llama(2);
    let edits = [keep("model.layers.0.mlp.up_proj.weight:0", &[0, 2, 3, 7])];
    assert_eq!(
        changed(&graph, &edits),
        shapes(&[
            ("model.layers.0.mlp.gate_proj.weight", &[4, 8]),
            ("model.layers.0.mlp.up_proj.weight", &[4, 8]),
            ("model.layers.0.mlp.down_proj.weight", &[8, 4]),
        ])
    );
    let (_, recipe) = apply(&graph, &edits).unwrap();
    let down = &recipe.output("model.layers.0.mlp.down_proj.weight").unwrap().expr;
    assert_eq!(*down, Expr::copy("model.layers.0.mlp.down_proj.weight").gather(1, vec![0, 2, 3, 7]));
}

#[test]
fn a_key_head_takes_its_query_heads_and_values_and_cache_along() {
    let graph = llama(1);
    let edits = [keep("model.layers.0.self_attn.k_proj.weight:0", &[2, 3])];
    assert_eq!(
        changed(&graph, &edits),
        shapes(&[
            ("model.layers.0.self_attn.q_proj.weight", &[4, 8]),
            ("model.layers.0.self_attn.k_proj.weight", &[2, 8]),
            ("model.layers.0.self_attn.v_proj.weight", &[2, 8]),
            ("model.layers.0.self_attn.o_proj.weight", &[8, 4]),
        ])
    );
    let (out, recipe) = apply(&graph, &edits).unwrap();
    for (tensor, axis, start) in [("q_proj", 0, 4), ("k_proj", 0, 2), ("v_proj", 0, 2), ("o_proj", 1, 4)] {
        let name = format!("model.layers.0.self_attn.{tensor}.weight");
        let of = Box::new(Expr::copy(&name));
        let len = if start == 4 { 4 } else { 2 };
        assert_eq!(recipe.output(&name).unwrap().expr, Expr::Split { axis, start, len, of });
    }
    let attention = out.node(out.find_node("model.layers.0.self_attn.attention").unwrap());
    assert!(matches!(&attention.op, Op::Attention(a) if (a.heads, a.kv_heads) == (2, 1) && a.scale == 0.7));
    assert_eq!(show_shape(&out.value(out.states[0].input).shape), "[batch, past, 2]");
}

#[test]
fn values_and_output_are_cut_head_by_head() {
    let graph = llama(1);
    assert_eq!(
        changed(&graph, &[keep("model.layers.0.self_attn.v_proj.weight:0", &[1, 2])]),
        shapes(&[
            ("model.layers.0.self_attn.v_proj.weight", &[2, 8]),
            ("model.layers.0.self_attn.o_proj.weight", &[8, 4]),
        ])
    );
    let message = refusal(&graph, &[keep("model.layers.0.self_attn.v_proj.weight:0", &[0, 1, 2])]);
    assert!(message.contains("edit 0 (keep)") && message.contains("heads would keep 2 and 1"), "{message}");
}

#[test]
fn rotary_channels_stay() {
    let message = refusal(&llama(1), &[keep("model.layers.0.self_attn.q_proj.weight:0", &[0, 2, 4, 6])]);
    assert!(message.contains("turn at frequencies of their own"), "{message}");
}

#[test]
fn the_residual_stream_is_one_group_with_its_tied_embedding() {
    let graph = llama(2);
    let list = changed(&graph, &[keep("model.norm.weight:0", &[0, 1, 2, 3, 4, 6])]);
    assert_eq!(list.len(), graph.tensors.len());
    assert_eq!(list[0], ("model.embed_tokens.weight".to_owned(), vec![20, 6]));
    let message = refusal(&graph, &[keep("lm_head.weight:0", &[0, 1])]);
    assert!(message.contains("cannot go"), "{message}");
}

#[test]
fn cuts_of_one_group_count_what_is_left() {
    let graph = llama(1);
    let up = "model.layers.0.mlp.up_proj.weight";
    let edits = [
        keep(&format!("{up}:0"), &[1, 3, 5, 7]),
        keep("model.layers.0.self_attn.v_proj.weight:0", &[0, 3]),
        keep("model.layers.0.mlp.down_proj.weight:1", &[0, 3]),
    ];
    let (out, recipe) = apply(&graph, &edits).unwrap();
    assert_eq!(recipe.output(up).unwrap().expr, Expr::copy(up).gather(0, vec![1, 7]));
    let (first, r1) = apply(&graph, &edits[..1]).unwrap();
    let (second, r2) = apply(&first, &edits[1..]).unwrap();
    let sources = |n: &str| {
        graph.tensors.iter().find(|t| t.name == n).map(|t| SourceTensor::new(t.shape.clone(), &t.dtype))
    };
    assert_eq!(second, out);
    assert_eq!(compose(&r2, &r1).unwrap().simplified(&sources), recipe);
    let message = refusal(&graph, &[edits[0].clone(), keep("model.layers.0.mlp.down_proj.weight:1", &[4])]);
    assert!(message.contains("edit 1 (keep)") && message.contains("has 4 indices"), "{message}");
}

#[test]
fn malformed_groups_and_indices_are_refused() {
    let graph = llama(1);
    for (edit, words) in [
        (keep("model.norm.weight", &[0]), "names no axis"),
        (keep("model.norm.weight:x", &[0]), "names no axis"),
        (keep("model.norm.weight:3", &[0]), "has no axis 3"),
        (keep("nothing:0", &[0]), "no tensor `nothing`"),
        (keep("model.norm.weight:0", &[]), "would keep nothing"),
        (keep("model.norm.weight:0", &[1, 1]), "must ascend"),
        (keep("model.norm.weight:0", &[8]), "8 is not one of them"),
    ] {
        let message = refusal(&graph, &[edit]);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn the_inside_of_a_resnet_takes_time_embedding_and_norm_along() {
    let graph = unet();
    let p = "down_blocks.0.resnets.0";
    let tensor = |s: &str| format!("{p}.{s}");
    let list = changed(&graph, &[keep(&tensor("conv1.weight:0"), &[0, 2])]);
    let expect: Vec<(String, Vec<usize>)> = [
        ("conv1.weight", vec![2, 4, 3, 3]),
        ("conv1.bias", vec![2]),
        ("time_emb_proj.weight", vec![2, 6]),
        ("time_emb_proj.bias", vec![2]),
        ("norm2.weight", vec![2]),
        ("norm2.bias", vec![2]),
        ("conv2.weight", vec![4, 2, 3, 3]),
    ]
    .map(|(n, s)| (tensor(n), s))
    .to_vec();
    let mut list = list;
    let mut sorted = expect;
    list.sort();
    sorted.sort();
    assert_eq!(list, sorted);
    // Three of four channels are not the same number in each of two groups.
    let message = refusal(&graph, &[keep(&tensor("conv1.weight:0"), &[0, 1, 2])]);
    assert!(message.contains("norm2") && message.contains("groups would keep 2 and 1"), "{message}");
}

#[test]
fn groups_say_what_belongs_together_and_what_is_locked() {
    let groups = axis_groups(&llama(1)).unwrap();
    let find = |name: &str| groups.iter().find(|g| g.name == name).unwrap();
    let mlp = find("model.layers.0.mlp.gate_proj.weight:0");
    assert_eq!(mlp.len, 12);
    assert_eq!(mlp.members.len(), 3);
    assert_eq!(mlp.locked, None);
    let vocabulary = find("model.embed_tokens.weight:0");
    assert!(
        vocabulary.locked.as_ref().unwrap().contains("logits")
            || vocabulary.locked.as_ref().unwrap().contains("ids")
    );
    assert_eq!(find("model.embed_tokens.weight:1").members.len(), 11);
}

/// A chain with a flatten, a depthwise and a transposed convolution, a fused qkv and a pixel shuffle.
#[test]
fn flatten_depthwise_transposed_and_shuffled_axes_follow() {
    let mut b = GraphBuilder::new("net", "f32");
    let x = b.input("x", vec![1.into(), 3.into(), 8.into(), 8.into()], ValueType::Float);
    let x = b.conv("a", x, 6, &[3, 3], ConvAttrs::square(1, 1)).unwrap();
    let depthwise = ConvAttrs { groups: 6, ..ConvAttrs::square(1, 1) };
    let x = b.conv("depthwise", x, 6, &[3, 3], depthwise).unwrap();
    let weight = b.parameter("up.weight", &[6, 8, 2, 2]).unwrap();
    let up = Op::ConvTranspose { conv: ConvAttrs::square(2, 0), output_padding: vec![0, 0] };
    let x = b.node("up", up, &[x], &[(Slot::Weight, weight)]).unwrap();
    let x = b.node("shuffle", Op::PixelShuffle { factor: 2, inverse: false }, &[x], &[]).unwrap();
    let pool = Op::AdaptivePool { kind: PoolKind::Average, size: vec![2, 2] };
    let x = b.node("pool", pool, &[x], &[]).unwrap();
    let x = b.node("flatten", Op::Reshape { shape: vec![1.into(), 8.into()] }, &[x], &[]).unwrap();
    let x = b.linear("head", x, 5, true).unwrap();
    b.output("y", x);
    let graph = b.finish().unwrap();
    assert_eq!(
        changed(&graph, &[keep("a.weight:0", &[1, 4]), keep("up.weight:1", &[4, 5, 6, 7])]),
        shapes(&[
            ("a.weight", &[2, 3, 3, 3]),
            ("a.bias", &[2]),
            ("depthwise.weight", &[2, 1, 3, 3]),
            ("depthwise.bias", &[2]),
            ("up.weight", &[2, 4, 2, 2]),
            ("head.weight", &[5, 4]),
        ])
    );
    let message = refusal(&graph, &[keep("up.weight:1", &[0, 1, 2, 4, 5, 6, 7])]);
    assert!(message.contains("index 3 of `up.weight:1` goes with index 0"), "{message}");
    assert!(refusal(&graph, &[keep("a.weight:2", &[0])]).contains("axis of the kernel"));
    assert!(refusal(&graph, &[keep("a.weight:1", &[0])]).contains("input `x`"));
}

#[test]
fn a_fused_projection_is_cut_in_its_parts() {
    for interleaved in [false, true] {
        let mut b = GraphBuilder::new("net", "f32");
        let x = b.input("x", vec![1.into(), 5.into(), 4.into()], ValueType::Float);
        let fused = b.linear("qkv", x, 24, false).unwrap();
        let map = if interleaved {
            SplitMap::Interleaved { groups: 2, sizes: vec![4.into(); 3] }
        } else {
            SplitMap::Parts { sizes: vec![8.into(); 3] }
        };
        let parts = b.node_multi("split", Op::Split { axis: 2, map }, &[fused], &[]).unwrap();
        let attention = Op::Attention(AttentionAttrs {
            heads: 2,
            kv_heads: 2,
            scale: 0.5,
            causal: false,
            window: None,
            softcap: None,
        });
        let o = b.node("attention", attention, &parts, &[]).unwrap();
        let o = b.linear("out", o, 4, false).unwrap();
        b.output("y", o);
        let graph = b.finish().unwrap();
        // Head 0 of q, k and v goes by the values' columns of `out` alone.
        let edit = keep("out.weight:1", &[4, 5, 6, 7]);
        let (out, recipe) = apply(&graph, &[edit]).unwrap();
        let qkv = &recipe.output("qkv.weight").unwrap().expr;
        let expect = if interleaved {
            Expr::Split { axis: 0, start: 12, len: 12, of: Box::new(Expr::copy("qkv.weight")) }
        } else {
            Expr::copy("qkv.weight").gather(0, vec![4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23])
        };
        assert_eq!(*qkv, expect);
        assert_eq!(out.tensors[0].shape, [12, 4]);
        // One channel of every head of the values.
        let (out, _) = apply(&graph, &[keep("out.weight:1", &[0, 1, 3, 4, 5, 7])]).unwrap();
        assert_eq!(out.tensors[0].shape, [22, 4]);
    }
}
