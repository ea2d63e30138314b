//! GGUF to a graph: config from the metadata, names, and rows in the graph's order.

use pomona_graph::{Expr, Graph, Recipe, RecipeOutput, RopeScaling};
use pomona_store::{Checkpoint, Encoding, GgufValue};
use serde_json::{Value, json};

use super::layout::Layout;
use super::metadata::Metadata;
use super::names::{block_of, file_name};
use super::rows::RowOrder;
use crate::config::{Fields, MAX_DEPTH};
use crate::decoder::{Decoder, Names, Norm};
use crate::error::{Result, tensor_error};
use crate::families::{self, Family};

/// A tensor that holds rotary divisors instead of weights.
pub(crate) const ROPE_FREQS: &str = "rope_freqs.weight";

/// What a GGUF file means.
pub(crate) struct Imported {
    pub config: Value,
    pub family: &'static Family,
    pub graph: Graph,
    pub import: Recipe,
    pub unused: Vec<String>,
}

/// Reads header and metadata into a graph.
pub(crate) fn import(file: &Checkpoint) -> Result<Imported> {
    let (config, family, decoder) = read(file)?;
    let mut graph = decoder.graph("f32")?;
    let import = recipe(file, family, &decoder, &mut graph)?;
    let unused = unused(file, family.names(), &graph)?;
    Ok(Imported { config, family, graph, import, unused })
}

/// The graph that the file's metadata mean once only these of its blocks are left.
pub(crate) fn cut_graph(file: &Checkpoint, kept: &[usize]) -> Result<Graph> {
    Ok(cut_decoder(file, kept)?.graph("f32")?)
}

/// What the file describes, these of its blocks only.
pub(super) fn cut_decoder(file: &Checkpoint, kept: &[usize]) -> Result<Decoder> {
    let mut decoder = read(file)?.2;
    decoder.layers = kept.iter().filter_map(|i| decoder.layers.get(*i)).cloned().collect();
    Ok(decoder)
}

fn read(file: &Checkpoint) -> Result<(Value, &'static Family, Decoder)> {
    let meta = Metadata::new(file)?;
    let (family, layout) =
        families::by_gguf(meta.architecture()).ok_or_else(|| crate::ModelError::Config {
            path: file.path().to_owned(),
            key: "general.architecture".to_owned(),
            message: format!(
                "is \"{}\"; {} are read from GGUF",
                meta.architecture(),
                families::gguf_names().join(", ")
            ),
        })?;
    let config = config(file, &meta, family, &layout)?;
    let decoder = describe(file, &meta, family, &config)?;
    Ok((config, family, decoder))
}

/// The config that transformers would have for this file.
fn config(file: &Checkpoint, meta: &Metadata<'_>, family: &Family, layout: &Layout) -> Result<Value> {
    if let Some(n) = meta.get_experts() {
        return Err(meta.fault("expert_count", format!("is {n}; mixtures of experts are not read")));
    }
    let depth = meta.size("block_count")?;
    if depth > MAX_DEPTH {
        return Err(meta.fault("block_count", format!("is {depth}; at most {MAX_DEPTH} blocks are built")));
    }
    let width = meta.size("embedding_length")?;
    let heads = first(meta.sizes("attention.head_count", depth)?)
        .ok_or_else(|| meta.fault("attention.head_count", "is missing"))?;
    let kv_heads = first(meta.sizes("attention.head_count_kv", depth)?).unwrap_or(heads);
    let rotary = meta.maybe_size("rope.dimension_count")?;
    let head_dim = match meta.maybe_size("attention.key_length")? {
        Some(n) => n,
        None if width % heads == 0 => width / heads,
        None => rotary.ok_or_else(|| meta.fault("attention.key_length", "is missing"))?,
    };
    let values = meta.maybe_size("attention.value_length")?;
    let partial = family.keys.rope.is_none_or(|r| r.partial.is_some());
    for (key, n) in
        [("rope.dimension_count", rotary.filter(|_| !partial)), ("attention.value_length", values)]
    {
        if n.is_some_and(|n| n != head_dim) {
            return Err(meta.fault(
                key,
                format!("is {}; the width of a head ({head_dim}) was expected", n.unwrap_or(0)),
            ));
        }
    }
    let vocab = file.info("token_embd.weight")?;
    let &[vocab_size, _] = vocab.shape.as_slice() else {
        let message = format!("has shape {:?}; [vocabulary, width] was expected", vocab.shape);
        return Err(tensor_error(file.path(), &vocab.name, message));
    };
    let feed_forward = first(meta.sizes("feed_forward_length", depth)?)
        .ok_or_else(|| meta.fault("feed_forward_length", "is missing"))?;
    let dtype = match vocab.encoding {
        Encoding::F16 => "float16",
        Encoding::Bf16 => "bfloat16",
        _ => "float32",
    };
    let keys = family.keys;
    let mut out = json!({
        "architectures": [family.class],
        "model_type": family.model_type,
        "vocab_size": vocab_size,
        "max_position_embeddings": meta.maybe_size("context_length")?.unwrap_or(2048),
        "tie_word_embeddings": file.get("output.weight").is_none(),
        "torch_dtype": dtype,
    });
    for (key, n) in [
        (keys.width, width),
        (keys.feed_forward, feed_forward),
        (keys.depth, depth),
        (keys.heads, heads),
        (keys.kv_heads, kv_heads),
    ] {
        if !key.is_empty() {
            out[key] = json!(n);
        }
    }
    if !keys.kv_heads.is_empty() {
        out["head_dim"] = json!(head_dim);
    }
    out[keys.activation.0] = json!(keys.activation.1);
    let eps = if keys.norm == Norm::Layer { "layer_norm_epsilon" } else { "layer_norm_rms_epsilon" };
    out[keys.eps.0] = json!(tidy(meta.positive_or(&format!("attention.{eps}"), keys.eps.1)?));
    if let Some(rope) = &keys.rope {
        out[rope.theta] = json!(tidy(meta.positive_or("rope.freq_base", rope.theta_default)?));
        if let (Some((key, _)), Some(turning)) = (rope.partial, rotary) {
            out[key] = json!(turning as f64 / head_dim as f64);
        }
    }
    if !keys.names.positions.is_empty() {
        out["n_positions"] = json!(file.info("position_embd.weight")?.shape.first());
    }
    settings(file, meta, layout, &mut out, (width, heads, head_dim, depth))?;
    if family.model_type == "llama" {
        out["mlp_bias"] = json!(file.get("blk.0.ffn_up.bias").is_some());
    }
    for (key, ours) in [
        ("bos_token_id", "bos_token_id"),
        ("eos_token_id", "eos_token_id"),
        ("padding_token_id", "pad_token_id"),
    ] {
        if let Some(id) = file.gguf(&format!("tokenizer.ggml.{key}")).and_then(GgufValue::as_u64) {
            out[ours] = json!(id);
        }
    }
    let factor = linear_factor(meta)?;
    if let Some(factor) = factor {
        out["rope_scaling"] = json!({"rope_type": "linear", "factor": tidy(factor)});
    } else if let Some(divisors) = divisors(file, head_dim)?
        && let Some(scaling) = as_llama3(&divisors, out["rope_theta"].as_f64().unwrap_or(1e4))
    {
        out["rope_scaling"] = scaling;
    }
    Ok(out)
}

/// What only some architectures have.
fn settings(
    file: &Checkpoint,
    meta: &Metadata<'_>,
    layout: &Layout,
    out: &mut Value,
    (width, heads, head_dim, depth): (usize, usize, usize, usize),
) -> Result<()> {
    if layout.softcap {
        out["attn_logit_softcapping"] = json!(tidy(meta.positive_or("attn_logit_softcapping", 50.0)?));
    }
    if layout.logit_softcap {
        out["final_logit_softcapping"] = json!(tidy(meta.positive_or("final_logit_softcapping", 30.0)?));
    }
    if layout.window_every.is_some() {
        let window = meta.window("attention.sliding_window")?;
        if window.is_none() && layout.window_base {
            let message =
                "is missing; without a window llama.cpp turns every block with one base, which is not read";
            return Err(meta.fault("attention.sliding_window", message));
        }
        out["sliding_window"] = json!(window.unwrap_or(4096));
        let by_width = layout.scale_depth == Some(depth);
        out["query_pre_attn_scalar"] = json!(if by_width { width / heads } else { head_dim });
    } else if layout.architecture == "phi3" {
        // llama.cpp does not use it: the file says what the model was made with.
        out["sliding_window"] = json!(meta.window("attention.sliding_window")?);
    }
    if layout.window_base {
        out["rope_theta"] = json!(tidy(meta.positive_or("rope.freq_base", 1e6)?));
        out["rope_local_base_freq"] = json!(tidy(meta.positive_or("rope.freq_base_swa", 1e4)?));
    }
    if layout.parallel_key {
        let shared = file.get("blk.0.ffn_norm.weight").is_none();
        let parallel =
            if layout.parallel_by_norm { shared } else { meta.flag_or("use_parallel_residual", true)? };
        out["use_parallel_residual"] = json!(parallel);
    }
    if layout.architecture == "falcon" {
        // What is not the first model's one key head is the later architecture, with a norm or two.
        let norms = if file.get("blk.0.attn_norm_2.weight").is_some() { 2 } else { 1 };
        let groups = first(meta.sizes("attention.head_count_kv", depth)?).unwrap_or(heads);
        let new = groups > 1 || norms == 2;
        out["new_decoder_architecture"] = json!(new);
        if new {
            out["num_kv_heads"] = json!(groups);
            out["num_ln_in_parallel_attn"] = json!(norms);
        }
    }
    // GPT-2, Qwen2, Phi-3 and Falcon have no choice.
    let key = match layout.architecture {
        "llama" | "gptneox" | "qwen3" | "olmo2" | "gemma" | "gemma2" | "gemma3" => "attention_bias",
        "stablelm" => "use_qkv_bias",
        _ => return Ok(()),
    };
    out[key] = json!(has_qkv_bias(file));
    Ok(())
}

fn has_qkv_bias(file: &Checkpoint) -> bool {
    file.get("blk.0.attn_q.bias").is_some() || file.get("blk.0.attn_qkv.bias").is_some()
}

impl Metadata<'_> {
    fn get_experts(&self) -> Option<usize> {
        self.maybe_size("expert_count").ok().flatten()
    }
}

/// The factor by which positions are divided; none for 1. As in llama.cpp, a factor without a type means `linear`, and files
/// from before `rope.scaling` say `rope.scale_linear`.
fn linear_factor(meta: &Metadata<'_>) -> Result<Option<f64>> {
    match meta.text_or("rope.scaling.type", "linear")? {
        "none" => return Ok(None),
        "linear" => {}
        other => {
            return Err(meta.fault("rope.scaling.type", format!("is \"{other}\"; none and linear are read")));
        }
    }
    let old = meta.positive_or("rope.scale_linear", 1.0)?;
    let factor = meta.positive_or("rope.scaling.factor", old)?;
    Ok((factor != 1.0).then_some(factor))
}

fn first(sizes: Option<Vec<usize>>) -> Option<usize> {
    sizes?.first().copied()
}

/// The shortest decimal number that is the same f32: metadata holds f32, configs hold decimals.
fn tidy(v: f64) -> f64 {
    format!("{}", v as f32).parse().unwrap_or(v)
}

/// The network, with what a config cannot say: sizes by block, single biases, rotary divisors.
fn describe(file: &Checkpoint, meta: &Metadata<'_>, family: &Family, config: &Value) -> Result<Decoder> {
    let mut d = family.describe(&Fields::new(file.path(), config)?)?;
    let depth = d.layers.len();
    let heads = meta.sizes("attention.head_count", depth)?;
    let kv_heads = meta.sizes("attention.head_count_kv", depth)?;
    let feed_forward = meta.sizes("feed_forward_length", depth)?;
    for (i, layer) in d.layers.iter_mut().enumerate() {
        let at = |list: &Option<Vec<usize>>, old| list.as_ref().map_or(old, |l| l[i]);
        layer.heads = at(&heads, layer.heads);
        layer.kv_heads = if kv_heads.is_some() { at(&kv_heads, layer.kv_heads) } else { layer.heads };
        layer.feed_forward = at(&feed_forward, layer.feed_forward);
        if layer.heads % layer.kv_heads != 0 {
            let message =
                format!("is {} in block {i}; a divisor of {} was expected", layer.kv_heads, layer.heads);
            return Err(meta.fault("attention.head_count_kv", message));
        }
    }
    // GGUF holds the weights of norms as they are multiplied.
    if let Norm::Rms { offset } = &mut d.norm {
        *offset = 0.0;
    }
    d.qkv_bias = has_qkv_bias(file);
    d.out_bias = file.get("blk.0.attn_output.bias").is_some();
    d.mlp_bias = file.get("blk.0.ffn_up.bias").is_some();
    if let Some(divisors) = divisors(file, d.head_dim)? {
        // Both hold where a file has both: positions are divided by the factor and by each divisor.
        let factor = linear_factor(meta)?.unwrap_or(1.0);
        let divisors: Vec<f64> = divisors.into_iter().map(|d| f64::from(d) * factor).collect();
        for rope in d.layers.iter_mut().filter_map(|l| l.rope.as_mut()) {
            rope.scaling = RopeScaling::Divisors { divisors: divisors.clone() };
        }
    }
    Ok(d)
}

fn divisors(file: &Checkpoint, head_dim: usize) -> Result<Option<Vec<f32>>> {
    let Some(info) = file.get(ROPE_FREQS) else { return Ok(None) };
    if info.shape != [head_dim / 2] {
        let message = format!("has shape {:?}; [{}] was expected", info.shape, head_dim / 2);
        return Err(tensor_error(file.path(), ROPE_FREQS, message));
    }
    Ok(Some(file.decode(info)?))
}

/// The `rope_scaling` of Llama 3.1 and later that gives these divisors; none where another rule made them.
fn as_llama3(divisors: &[f32], theta: f64) -> Option<Value> {
    let factor = f64::from(divisors.iter().copied().fold(0.0, f32::max));
    let wanted =
        RopeScaling::Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 };
    let ours = super::export::llama3_divisors(&wanted, theta, divisors.len())?;
    let close = ours.iter().zip(divisors).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs());
    if close { super::export::llama3_config(&wanted) } else { None }
}

/// Copies, with the rows of q and k put into the graph's order where the file has them in pairs.
fn recipe(file: &Checkpoint, family: &Family, decoder: &Decoder, graph: &mut Graph) -> Result<Recipe> {
    let name_of = |n: &str| file_name(family.names(), n).into_iter().collect();
    let mut out = crate::model::import_by_name(file.path(), graph, file, &name_of, &|_| false)?;
    let names = family.names();
    let block = |name: &str| file_name(names, name).and_then(|n| block_of(&n).map(|(i, _)| i));
    for o in &mut out.outputs {
        let Some(layer) = block(&o.name).and_then(|i| decoder.layers.get(i)) else { continue };
        let RecipeOutput { name, expr, .. } = o;
        let order = RowOrder::of(family, name, (layer.heads, layer.kv_heads, decoder.head_dim));
        let copy = std::mem::replace(expr, Expr::copy(""));
        *expr = order.to_graph(copy);
    }
    Ok(out)
}

/// Tensors beside the graph's: rotary divisors are in its attributes; any other would change the result.
fn unused(file: &Checkpoint, names: &Names, graph: &Graph) -> Result<Vec<String>> {
    let used: std::collections::HashSet<String> =
        graph.tensors.iter().filter_map(|t| file_name(names, &t.name)).collect();
    let mut out = Vec::new();
    for t in file.tensors() {
        if used.contains(&t.name) {
            continue;
        }
        if t.name != ROPE_FREQS {
            let message = "is not one that this architecture has: the file is of a variant that is not read";
            return Err(tensor_error(file.path(), &t.name, message));
        }
        out.push(t.name.clone());
    }
    Ok(out)
}
