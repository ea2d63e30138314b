use super::models::llama;
use super::*;

/// `down(up(x))` of inner width 2 in the place of a gated feed-forward.
fn template(layer: usize) -> (Graph, Recipe) {
    let p = format!("model.layers.{layer}");
    let mut b = GraphBuilder::new("model", "bf16");
    let shape = vec!["batch".into(), "tokens".into(), 8.into()];
    let x = b.input(&format!("{p}.post_attention_layernorm"), shape, ValueType::Float);
    let h = b.linear(&format!("{p}.mlp.up_proj"), x, 2, false).unwrap();
    let h = b.linear(&format!("{p}.mlp.down_proj"), h, 8, false).unwrap();
    b.output(&format!("{p}.mlp.down_proj"), h);
    let output = |name: &str, shape: &[usize], expr: Expr| RecipeOutput {
        name: format!("{p}.mlp.{name}.weight"),
        shape: shape.to_vec(),
        expr,
    };
    let copy = |name: &str| Expr::copy(format!("{p}.mlp.{name}.weight"));
    let recipe = Recipe {
        outputs: vec![
            output("up_proj", &[2, 8], copy("up_proj").gather(0, vec![3, 1])),
            output("down_proj", &[8, 2], copy("down_proj").gather(1, vec![3, 1])),
        ],
    };
    (b.finish().unwrap(), recipe)
}

#[test]
fn a_feed_forward_is_replaced_by_a_smaller_one() {
    let graph = llama(2);
    let (template, recipe) = template(1);
    let edit = Edit::Replace { module: "model.layers.1.mlp".into(), template: Box::new(template), recipe };
    // The expressions of the replacement are over tensors as earlier edits left them.
    let keep = Edit::Keep { group: "model.layers.1.mlp.up_proj.weight:0".into(), indices: vec![2, 4, 6, 8] };
    let (out, recipe) = apply(&graph, &[keep, edit.clone()]).unwrap();
    let up = "model.layers.1.mlp.up_proj.weight";
    assert_eq!(recipe.output(up).unwrap().expr, Expr::copy(up).gather(0, vec![8, 4]));
    assert!(out.find_node("model.layers.1.mlp.gated").is_none());
    assert!(out.find_tensor("model.layers.1.mlp.gate_proj.weight").is_none());
    assert_eq!(out.tensor(out.find_tensor(up).unwrap()).shape, [2, 8]);
    assert!(names(&out).iter().all(|n| !n.contains("replaced")));
    // The sublayer around it can still be removed.
    let (out, _) =
        apply(&graph, &[vec![edit], region_at(&graph, "model.layers.1.mlp").unwrap().edits()].concat())
            .unwrap();
    assert!(out.find_tensor(up).is_none());
}

#[test]
fn a_template_that_does_not_fit_is_refused() {
    let graph = llama(2);
    let (good, recipe) = template(0);
    let edit = |module: &str, template: &Graph, recipe: &Recipe| {
        [Edit::Replace {
            module: module.into(),
            template: Box::new(template.clone()),
            recipe: recipe.clone(),
        }]
    };
    let mlp = "model.layers.0.mlp";
    assert!(
        refusal(&graph, &edit("model.layers.7.mlp", &good, &recipe))
            .contains("no module `model.layers.7.mlp`")
    );
    assert!(refusal(&graph, &edit(mlp, &good, &Recipe::default())).contains("the recipe does not make"));
    assert!(
        refusal(&graph, &edit("model.layers.0.mlp.up_proj", &good, &recipe)).contains("also has outside")
    );
    let mut narrow = good.clone();
    narrow.outputs.clear();
    assert!(
        refusal(&graph, &edit(mlp, &narrow, &recipe))
            .contains("has no output `model.layers.0.mlp.down_proj`")
    );
    let mut port = good;
    port.inputs[0].name = "@input_ids".into();
    assert!(refusal(&graph, &edit(mlp, &port, &recipe)).contains("port `@input_ids` is Int"));
}

#[test]
fn annotations_go_with_their_node_and_forbid_a_later_cut() {
    let graph = llama(2);
    let node = "model.layers.1.mlp.up_proj";
    let rank = |rank| Edit::Annotate {
        node: node.into(),
        annotation: Annotation::Adapter { rank, alpha: 8.0, dropout: 0.0 },
    };
    let (out, recipe) = apply(&graph, &[rank(4), rank(8)]).unwrap();
    assert_copies(&recipe);
    assert_eq!(out.annotations[node], [Annotation::Adapter { rank: 8, alpha: 8.0, dropout: 0.0 }]);
    let (out, _) =
        apply(&graph, &[vec![rank(4)], region_at(&graph, "model.layers.1").unwrap().edits()].concat())
            .unwrap();
    assert!(out.annotations.is_empty());
    let keep = Edit::Keep { group: format!("{node}.weight:0"), indices: vec![0] };
    assert!(refusal(&graph, &[rank(4), keep]).contains("cut first, then annotate"));
    assert!(
        refusal(
            &graph,
            &[Edit::Annotate { node: "x".into(), annotation: Annotation::Precision { dtype: "f16".into() } }]
        )
        .contains("no node `x`")
    );
}
