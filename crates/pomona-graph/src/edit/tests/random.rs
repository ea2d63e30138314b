//! Random edits give valid graphs, and recipes that make exactly their tensors.

use proptest::prelude::*;

use super::models::{llama, unet};
use super::*;

/// A convolutional chain with random widths, residual blocks, joins and norms.
fn generated(seed: &[u8]) -> Graph {
    let mut b = GraphBuilder::new("net", "f16");
    let mut x = b.input("x", vec![1.into(), 4.into(), 8.into(), 8.into()], ValueType::Float);
    let mut kept = Vec::new();
    for (i, s) in seed.iter().enumerate() {
        let width = b.shape(x)[1].size("width").unwrap();
        let p = format!("blocks.{i}");
        let conv = ConvAttrs::square(1, 1);
        x = match s % 6 {
            0 => b.conv(&format!("{p}.conv"), x, 4 + (*s as usize / 8) % 3 * 4, &[3, 3], conv).unwrap(),
            1 | 2 => {
                let h = b.group_norm(&format!("{p}.norm"), x, 2, 1e-5).unwrap();
                let h = b.conv(&format!("{p}.conv1"), h, 8, &[3, 3], conv.clone()).unwrap();
                let h = b.activation(&format!("{p}.act"), Activation::Relu, h).unwrap();
                let h = b.conv(&format!("{p}.conv2"), h, width, &[3, 3], conv).unwrap();
                b.add(&format!("{p}.residual"), &[x, h]).unwrap()
            }
            3 => match kept.pop() {
                Some(skip) => {
                    b.node(&format!("{p}.concat"), Op::Concat { axis: 1 }, &[x, skip], &[]).unwrap()
                }
                None => x,
            },
            4 => b.conv(&format!("{p}.dw"), x, width, &[3, 3], ConvAttrs { groups: width, ..conv }).unwrap(),
            _ => b.activation(&format!("{p}.act"), Activation::Silu, x).unwrap(),
        };
        if s % 3 == 0 {
            kept.push(x);
        }
    }
    let y = b.conv("head", x, 3, &[1, 1], ConvAttrs::square(1, 0)).unwrap();
    b.output("y", y);
    b.finish().unwrap()
}

fn pick(graph: &Graph, choice: [u8; 4]) -> Vec<Edit> {
    let at = |n: usize, k: usize| (choice[k] as usize * 7 + choice[3] as usize) % n.max(1);
    match choice[0] % 4 {
        0 => {
            let all = regions(graph);
            if all.is_empty() { Vec::new() } else { all[at(all.len(), 1)].edits() }
        }
        1 => {
            let joins: Vec<&Node> =
                graph.nodes.iter().filter(|n| matches!(n.op, Op::Add {} | Op::Concat { .. })).collect();
            match joins.get(at(joins.len(), 1)) {
                Some(n) => vec![Edit::DropOperand { node: n.path.clone(), index: at(n.inputs.len(), 2) }],
                None => Vec::new(),
            }
        }
        _ => {
            let groups = axis_groups(graph).unwrap();
            let open: Vec<&AxisGroup> = groups.iter().filter(|g| g.locked.is_none() && g.len > 1).collect();
            match open.get(at(open.len(), 1)) {
                Some(g) => {
                    // Halves, or every second index: what heads and norm groups may allow.
                    let indices = (0..g.len as u32).filter(|i| {
                        if choice[2].is_multiple_of(2) { *i < g.len as u32 / 2 } else { i % 2 == 0 }
                    });
                    vec![Edit::Keep { group: g.name.clone(), indices: indices.collect() }]
                }
                None => Vec::new(),
            }
        }
    }
}

fn check(graph: &Graph, choices: &[[u8; 4]]) -> std::result::Result<usize, TestCaseError> {
    let sources = |n: &str| {
        graph.tensors.iter().find(|t| t.name == n).map(|t| SourceTensor::new(t.shape.clone(), &t.dtype))
    };
    let identity = Recipe::identity(graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
    let (mut current, mut recipe) = (graph.clone(), identity);
    let mut done = 0;
    for choice in choices {
        let edits = pick(&current, *choice);
        let (next, step) = match apply(&current, &edits) {
            Ok(found) => found,
            Err(GraphError::Edit { .. }) => continue,
            Err(other) => return Err(TestCaseError::fail(format!("{edits:?}: {other}"))),
        };
        next.validate().map_err(|e| TestCaseError::fail(format!("{edits:?}: {e}")))?;
        prop_assert!(paths(&next).iter().all(|p| current.find_node(p).is_some()));
        recipe = compose(&step, &recipe).unwrap().simplified(&sources);
        prop_assert_eq!(recipe.check(&sources).unwrap().len(), next.tensors.len());
        for (o, t) in recipe.outputs.iter().zip(&next.tensors) {
            prop_assert_eq!((&o.name, &o.shape), (&t.name, &t.shape));
        }
        let json = serde_json::to_string(&next).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Graph>(&json).unwrap(), &next);
        current = next;
        done += edits.len();
    }
    Ok(done)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn edits_of_generated_nets(
        seed in prop::collection::vec(any::<u8>(), 1..9),
        choices in prop::collection::vec(any::<[u8; 4]>(), 1..5),
    ) {
        check(&generated(&seed), &choices)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn edits_of_a_decoder_and_a_unet(choices in prop::collection::vec(any::<[u8; 4]>(), 1..7)) {
        check(&llama(3), &choices)?;
        check(&unet(), &choices)?;
    }
}

#[test]
fn every_region_can_be_removed_or_says_why() {
    for graph in [llama(3), unet()] {
        let mut refused = 0;
        let all = regions(&graph);
        for region in &all {
            match apply(&graph, &region.edits()) {
                Ok((out, _)) if region.side_outputs.is_empty() => {
                    assert_eq!(graph.parameters() - out.parameters(), region.parameters, "{}", region.path);
                    assert_eq!(graph.nodes.len() - out.nodes.len(), region.nodes.len(), "{}", region.path);
                }
                Ok(_) => {}
                Err(e) => {
                    assert!(e.to_string().contains("only whole groups"), "{}: {e}", region.path);
                    refused += 1;
                }
            }
        }
        assert!(all.len() > 20 && refused <= 2, "{} regions, {refused} refused", all.len());
    }
}
