use super::models::llama;
use super::*;

#[test]
fn gaps_close_and_names_follow() {
    let graph = llama(5);
    let cut = |i: usize| {
        bypass(&format!("model.layers.{}.mlp_residual", i - 1), &format!("model.layers.{i}.mlp_residual"))
    };
    let (out, _) = apply(&graph, &[cut(1), cut(3)]).unwrap();
    let map = renumber(&out, &|_| true);
    let list: Vec<(&str, &str)> = map.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(list, [("model.layers.2", "model.layers.1"), ("model.layers.4", "model.layers.2")]);
    assert_eq!(renamed("model.layers.4.mlp.up_proj.weight", &map), "model.layers.2.mlp.up_proj.weight");
    assert_eq!(renamed("model.layers.0.mlp", &map), "model.layers.0.mlp");
    assert_eq!(renamed("model.layers.40", &map), "model.layers.40");
    assert!(renumber(&out, &|l| l == "other").is_empty());
    assert!(renumber(&graph, &|_| true).is_empty());
}

#[test]
fn lists_inside_lists_follow_both() {
    let mut graph = Graph::new("model");
    for name in ["a.0.b.0.w", "a.2.b.1.w", "a.2.b.3.w"] {
        graph.tensors.push(TensorDef {
            name: name.into(),
            shape: vec![1],
            dtype: "f32".into(),
            role: Role::Parameter,
            aliases: vec![],
        });
    }
    let map = renumber(&graph, &|_| true);
    let names = ["a.0.b.0.w", "a.2.b.1.w", "a.2.b.3.w", "a.2.c"].map(|n| renamed(n, &map));
    assert_eq!(names, ["a.0.b.0.w", "a.1.b.0.w", "a.1.b.1.w", "a.1.c"]);
}
