//! Random cuts of every architecture: the cut network is valid and gives what the masked one gives.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod masks;
mod seeded;

use std::path::Path;

use masks::{gap, held, outputs, random_cut, run_cut, run_masked};
use pomona_exec::{Device, Feeds, Tensor};
use pomona_graph::{Graph, GraphError, apply, channel_groups, toys};
use pomona_models::open;
use pomona_task::{empty_states, token_feeds};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Cuts of each network; more with `POMONA_CUTS`.
fn count() -> u64 {
    std::env::var("POMONA_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

/// `count` random cuts of a graph; how many were made.
fn check(name: &str, graph: &Graph, feeds: &Feeds, count: u64) {
    let weights = held(graph, seeded::weight);
    let groups = channel_groups(graph).unwrap();
    assert!(!groups.is_empty(), "{name}");
    let dense = outputs(graph, &weights, feeds);
    let (mut made, mut moved) = (0, 0);
    for seed in 0..count {
        let edits = random_cut(graph, &groups, &mut ChaCha8Rng::seed_from_u64(seed));
        let (edited, recipe) = match apply(graph, &edits) {
            Ok(found) => found,
            Err(GraphError::Edit { .. }) => continue,
            Err(e) => panic!("{name}, cut {seed}: {e}"),
        };
        edited.validate().unwrap_or_else(|e| panic!("{name}, cut {seed}: {e}"));
        let cut = run_cut(graph, &weights, (&edited, &recipe), feeds);
        let masked = run_masked(graph, &weights, (&edited, &recipe), feeds);
        let apart = gap(&masked, &cut);
        assert!(apart < 1.0, "{name}, cut {seed}: {apart} times what may differ");
        made += usize::from(!edits.is_empty());
        moved +=
            usize::from(dense.iter().zip(&cut).any(|(a, b)| {
                a.len() == b.len() && gap(std::slice::from_ref(a), std::slice::from_ref(b)) > 1.0
            }));
    }
    assert!(made * 3 > count as usize && moved * 2 > made, "{name}: {made} made, {moved} moved");
}

fn golden(folder: &str, names: &[&str], count: u64) {
    for name in names {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder).join(name);
        let model = open(folder.join("config.json")).unwrap();
        let graph = model.graph().unwrap();
        let feeds = seeded::feeds(graph, &seeded::golden(&folder), &Device::cpu());
        check(name, graph, &feeds, count);
    }
}

#[test]
fn residual_networks() {
    golden("vision", &["resnet_basic", "resnet_bottleneck", "resnet_cifar_a", "resnet_cifar_b"], count());
}

#[test]
fn separable_networks() {
    let names = ["mobilenetv1_100", "mobilenetv2_035", "mobilenet_v2", "efficientnet_lite1"];
    golden("vision", &names, count());
}

#[test]
fn vision_transformers() {
    let names = ["vit", "vit_bare", "vit_heads", "deit", "deit_distilled", "timm_vit", "timm_vit_average"];
    golden("vision", &names, count());
}

#[test]
fn text_encoders() {
    golden("vision", &["bert", "bert_mlm", "bert_sequence", "bert_token"], count());
    golden("diffusers", &["clip", "clip_projection"], count());
}

#[test]
fn conditional_unets() {
    golden("diffusers", &["unet_sd1", "unet_sd2", "unet_small", "unet_sdxl", "unet_mixed"], count());
}

#[test]
fn unconditional_unets_and_auto_encoders() {
    golden("diffusers", &["unet2d", "unet2d_plain", "vae", "vae_bare", "taesd"], count());
}

#[test]
fn generators() {
    golden("gan", &["pix2pix", "pix2pix_keras"], count());
    let names = ["dcgan_generator", "dcgan_generator_64", "dcgan_discriminator", "dcgan_discriminator_64"];
    golden("gan", &names, count());
}

#[test]
fn talking_face_generators() {
    golden("gan", &["wav2lip", "nota_wav2lip"], count());
}

#[test]
fn tiny_auto_encoders() {
    golden("gan", &["taesd_encoder", "taesd_decoder", "taef2_encoder", "taef2_decoder"], count());
}

#[test]
fn decoders() {
    let graph = toys::llama(2).unwrap();
    let device = Device::cpu();
    let mut feeds = token_feeds(&graph, &[&[3, 1, 4, 1, 5, 9, 2, 6]], 0, &device).unwrap();
    feeds.extend(empty_states(&graph, 1, &device).unwrap());
    check("llama", &graph, &feeds, count() * 4);
    let weights = held(&graph, seeded::weight);
    let mut heads = 0;
    // Heads turn as a whole: rows of the queries and keys go with those of the values.
    for head in 0..2_u32 {
        let keep = pomona_graph::Edit::Keep {
            group: "model.layers.0.self_attn.k_proj.weight:0".to_owned(),
            indices: (0..4).filter(|i| i / 2 != head).collect(),
        };
        let (edited, recipe) = apply(&graph, &[keep]).unwrap();
        let shape = |name: &str| edited.tensor(edited.find_tensor(name).unwrap()).shape.clone();
        assert_eq!(shape("model.layers.0.self_attn.q_proj.weight"), [4, 8]);
        assert_eq!(shape("model.layers.0.self_attn.v_proj.weight"), [2, 8]);
        assert_eq!(shape("model.layers.0.self_attn.o_proj.weight"), [8, 4]);
        let cut = run_cut(&graph, &weights, (&edited, &recipe), &feeds);
        assert!(gap(&run_masked(&graph, &weights, (&edited, &recipe), &feeds), &cut) < 1.0);
        heads += 1;
    }
    assert_eq!(heads, 2);
}

#[test]
fn toy_unet() {
    let graph = toys::unet(&toys::UnetSizes::default()).unwrap();
    let graph = graph.bind(&graph.defaults.clone()).unwrap();
    let mut feeds = Feeds::default();
    for port in &graph.inputs {
        let shape: Vec<usize> =
            graph.value(port.value).shape.iter().map(|d| d.size(&port.name).unwrap()).collect();
        let values = seeded::uniform(&format!("input:{}", port.name), shape.iter().product());
        feeds.insert(port.value, Tensor::from_f32(values, &shape, &Device::cpu()).unwrap());
    }
    check("unet", &graph, &feeds, count() * 2);
}
