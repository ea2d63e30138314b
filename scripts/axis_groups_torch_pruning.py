"""The Torch-Pruning side of the race `pomona-bench axis-groups`: the dependency graph of a network and a plan that takes half
of every group, by random scores. Nothing is pruned: the groups are found, ranked and listed.

Usage: axis_groups_torch_pruning.py NAME CONFIG.json [--threads 2]
NAME is a timm or torchvision name, or the kind of the config: unet (diffusers), llama (transformers).
Prints one JSON document: seconds to build the network, to find the groups, to make the plan; groups; peak RSS in bytes.
Runs in an environment with torch, torch-pruning, timm, transformers and diffusers."""

import argparse
import json
import resource
import time

import torch
import torch_pruning as tp


def network(name, config):
    """The network with random weights, an example input, and the arguments of its attention."""
    if name == "unet":
        from diffusers import UNet2DConditionModel

        model = UNet2DConditionModel.from_config(config)
        size = config["sample_size"]
        example = {
            "sample": torch.randn(1, config["in_channels"], size, size),
            "timestep": torch.ones(1, dtype=torch.long),
            "encoder_hidden_states": torch.randn(1, 77, config["cross_attention_dim"]),
        }
        return model, example, {"ignored_layers": [model.conv_out]}
    if name == "llama":
        from transformers import LlamaConfig, LlamaForCausalLM

        model = LlamaForCausalLM(LlamaConfig(**config, attn_implementation="eager"))
        model.config.use_cache = False
        heads = {}
        for layer in model.model.layers:
            heads[layer.self_attn.q_proj] = config["num_attention_heads"]
            heads[layer.self_attn.k_proj] = config["num_key_value_heads"]
            heads[layer.self_attn.v_proj] = config["num_key_value_heads"]
        more = {"ignored_layers": [model.lm_head], "num_heads": heads, "prune_num_heads": True,
                "prune_head_dims": False, "head_pruning_ratio": 0.5}
        return model, torch.arange(64).reshape(1, 64), more
    import timm

    model = timm.create_model(name, pretrained=False)
    heads, last = {}, None
    for module in model.modules():
        if hasattr(module, "qkv") and hasattr(module, "num_heads"):
            module.fused_attn = False
            heads[module.qkv] = module.num_heads
        if isinstance(module, torch.nn.Linear):
            last = module
    return model, torch.randn(1, 3, 224, 224), {"ignored_layers": [last], "num_heads": heads}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("config")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with open(args.config) as file:
        config = json.load(file)
    started = time.perf_counter()
    model, example, more = network(args.name, config)
    model.eval()
    built = time.perf_counter()
    pruner = tp.pruner.BasePruner(
        model, example, importance=tp.importance.RandomImportance(), pruning_ratio=0.5, **more)
    found = time.perf_counter()
    print(json.dumps({"phase": "groups", "seconds": found - built}), flush=True)
    groups = list(pruner.step(interactive=True))
    planned = time.perf_counter()
    print(json.dumps({
        "tool": f"torch-pruning {tp.__version__}, torch {torch.__version__}",
        "threads": args.threads,
        "build_seconds": built - started,
        "groups_seconds": found - built,
        "plan_seconds": planned - found,
        "groups": len(groups),
        "members": sum(len(g) for g in groups),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))


if __name__ == "__main__":
    main()
