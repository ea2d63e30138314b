use super::models::{llama, unet};
use super::*;

#[test]
fn a_decoder_layer_goes_with_its_tensors_states_and_classes() {
    let graph = llama(3);
    let edit = bypass("model.layers.0.mlp_residual", "model.layers.1.mlp_residual");
    assert_eq!(region_at(&graph, "model.layers.1").unwrap().edits(), std::slice::from_ref(&edit));
    let (out, recipe) = apply(&graph, &[edit]).unwrap();
    out.validate().unwrap();
    assert_copies(&recipe);
    let kept = |list: Vec<&str>| -> Vec<String> {
        list.into_iter().filter(|n| !n.starts_with("model.layers.1.")).map(str::to_owned).collect()
    };
    assert_eq!(names(&out), kept(names(&graph)));
    assert_eq!(paths(&out), kept(paths(&graph)));
    assert_eq!(recipe.outputs.iter().map(|o| o.name.clone()).collect::<Vec<_>>(), kept(names(&graph)));
    let states: Vec<&str> = out.states.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        states,
        [
            "0.self_attn.key_cache",
            "0.self_attn.value_cache",
            "2.self_attn.key_cache",
            "2.self_attn.value_cache"
        ]
        .map(|s| format!("model.layers.{s}"))
    );
    assert!(!out.modules.contains_key("model.layers.1") && out.modules.contains_key("model.layers.2"));
    // 8 (norm) x 2 + q, o 8x8 + k, v 4x8 + gate, up, down 12x8.
    assert_eq!(graph.parameters() - out.parameters(), 16 + 128 + 64 + 288);
}

#[test]
fn neighbours_go_in_any_order() {
    let graph = llama(4);
    let cut = |i: usize| {
        bypass(&format!("model.layers.{}.mlp_residual", i - 1), &format!("model.layers.{i}.mlp_residual"))
    };
    let (a, ra) = apply(&graph, &[cut(1), cut(2)]).unwrap();
    let (b, rb) = apply(&graph, &[cut(2), cut(1)]).unwrap();
    let (c, rc) =
        apply(&graph, &[bypass("model.layers.0.mlp_residual", "model.layers.2.mlp_residual")]).unwrap();
    assert_eq!((&a, &ra), (&b, &rb));
    assert_eq!((&a, &ra), (&c, &rc));
}

#[test]
fn a_decoder_without_attention_needs_no_positions() {
    let graph = llama(2);
    let edits: Vec<Edit> =
        sublayers(&graph).iter().filter(|r| r.path.ends_with("self_attn")).flat_map(Region::edits).collect();
    let (out, recipe) = apply(&graph, &edits).unwrap();
    assert!(out.input("positions").is_none() && out.states.is_empty());
    assert!(out.input("input_ids").is_some());
    assert!(names(&out).iter().all(|n| !n.contains("self_attn") && !n.contains("input_layernorm")));
    recipe
        .check(&|n| {
            graph.tensors.iter().find(|t| t.name == n).map(|t| SourceTensor::new(t.shape.clone(), &t.dtype))
        })
        .unwrap();
}

#[test]
fn the_tied_weight_stays_while_one_use_does() {
    let graph = llama(1);
    let (out, _) = apply(&graph, &[bypass("model.embed_tokens", "model.norm")]).unwrap();
    assert_eq!(names(&out), ["model.embed_tokens.weight"]);
    assert_eq!(out.tensors[0].aliases, ["lm_head.weight"]);
}

#[test]
fn refusals_say_which_edit_and_what_would_work() {
    let graph = llama(2);
    let check = |edits: &[Edit], words: &str| {
        let message = refusal(&graph, edits);
        assert!(message.contains(words), "{message}");
    };
    let cut = bypass("model.layers.0.mlp_residual", "model.layers.1.mlp_residual");
    check(&[cut.clone(), cut], "edit 1 (bypass): `model.layers.1.mlp_residual` is no longer used");
    check(
        &[
            bypass("model.embed_tokens", "model.layers.0.mlp_residual"),
            bypass("@positions", "model.layers.0.self_attn.q_proj"),
        ],
        "`model.layers.0.self_attn.q_proj` is gone: edit 0 removed it",
    );
    check(&[bypass("model.norm", "model.layers.9")], "no value `model.layers.9` in `model`");
    check(
        &[bypass("model.norm", "lm_head")],
        "[batch, tokens, 8] and `lm_head` is Float [batch, tokens, 20]",
    );
    check(
        &[bypass("model.layers.1.mlp_residual", "model.layers.0.mlp_residual")],
        "would need its own result",
    );
    check(&[bypass("model.norm", "model.norm")], "would read itself");
}

#[test]
fn a_block_and_a_sublayer_of_another_go_together() {
    let graph = llama(3);
    let edits = [
        region_at(&graph, "model.layers.0").unwrap().edits(),
        region_at(&graph, "model.layers.1.self_attn").unwrap().edits(),
        region_at(&graph, "model.layers.1.mlp").unwrap().edits(),
    ]
    .concat();
    let (out, _) = apply(&graph, &edits).unwrap();
    let left: Vec<&str> = paths(&out).into_iter().filter(|p| p.contains(".layers.")).collect();
    assert!(left.iter().all(|p| p.starts_with("model.layers.2.")), "{left:?}");
}

#[test]
fn a_resnet_an_attention_and_the_inner_level_of_a_unet_go() {
    let graph = unet();
    for (path, parts) in [
        ("down_blocks.0.resnets.1", vec!["down_blocks.0.resnets.1."]),
        ("down_blocks.1.attentions.0", vec!["down_blocks.1.attentions.0."]),
        ("mid_block", vec!["mid_block."]),
        (
            "down_blocks.0.downsamplers.0.conv..up_blocks.0.attentions.2.residual",
            vec!["down_blocks.1.", "mid_block.", "up_blocks.0.resnets.", "up_blocks.0.attentions."],
        ),
    ] {
        let region = region_at(&graph, path).unwrap_or_else(|| panic!("{:?}", why_not(&graph, path)));
        let (out, recipe) = apply(&graph, &region.edits()).unwrap();
        out.validate().unwrap();
        assert_copies(&recipe);
        let gone = |p: &&str| parts.iter().any(|part| p.starts_with(part));
        let kept: Vec<&str> = paths(&graph).into_iter().filter(|p| !gone(p)).collect();
        assert_eq!(paths(&out), kept, "{path}");
        assert_eq!(graph.parameters() - out.parameters(), region.parameters, "{path}");
        assert!(names(&out).iter().all(|n| !gone(n)), "{path}");
    }
}

#[test]
fn an_opaque_model_loses_blocks_by_name() {
    let mut graph = Graph::new("model");
    let mut tensor = |name: String, shape: &[usize]| {
        graph.tensors.push(TensorDef {
            name,
            shape: shape.to_vec(),
            dtype: "q4_1".into(),
            role: Role::Parameter,
            aliases: vec![],
        });
    };
    tensor("embed.weight".into(), &[10, 4]);
    for i in 0..12 {
        tensor(format!("h.{i}.attn.weight"), &[4, 4]);
        tensor(format!("h.{i}.experts.0.weight"), &[4, 4]);
        tensor(format!("h.{i}.experts.1.weight"), &[4, 4]);
        if i == 0 {
            tensor("h.0.bias_table".into(), &[3]);
        }
    }
    let blocks = blocks(&graph);
    let found: Vec<&str> = blocks.iter().map(|b| b.path.as_str()).collect();
    assert_eq!(found, (1..12).map(|i| format!("h.{i}")).collect::<Vec<_>>());
    assert_eq!(blocks[0].parameters, 48);
    assert_eq!(blocks[0].edits(), [bypass("h.0", "h.1")]);
    assert!(why_not(&graph, "h.0").unwrap().contains("no other block of its list"));
    let edits = [blocks[2].edits(), blocks[1].edits(), vec![bypass("h.8", "h.11")]].concat();
    let (out, recipe) = apply(&graph, &edits).unwrap();
    assert_copies(&recipe);
    let gone = ["h.2.", "h.3.", "h.9.", "h.10.", "h.11."];
    let kept: Vec<&str> =
        names(&graph).into_iter().filter(|n| !gone.iter().any(|g| n.starts_with(g))).collect();
    assert_eq!(names(&out), kept);
    let message = refusal(&graph, &[blocks[2].edits(), blocks[2].edits()].concat());
    assert!(message.contains("`h.3` is gone: edit 0 removed it"), "{message}");
    assert!(refusal(&graph, &[bypass("@h", "h.11")]).contains("no block of `h` would be left"));
    assert!(refusal(&graph, &[bypass("g.1", "h.2")]).contains("does not come before"));
    assert!(refusal(&graph, &[bypass("h.1", "h")]).contains("`h` is no block"));
}
