"""Configs and outputs of small networks of diffusers and transformers, with weights by name (seeded.py).

    python make_goldens.py        # writes NAME/config.json and NAME/expected.json beside itself

Made with diffusers 0.42, transformers 5, torch 2.15 on the CPU.
"""
import json
import pathlib

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, UNet2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from seeded import data, fill

HERE = pathlib.Path(__file__).parent
torch.manual_seed(0)


def listed(t):
    return [float(f"{v:.7g}") for v in t.detach().flatten().tolist()]


def given(name, shape):
    return {"shape": list(shape)}, data(name, shape)


def keep(name, config, inputs, outputs):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    out = {k: {"shape": list(v.shape), "values": listed(v)} for k, v in outputs.items()}
    (folder / "expected.json").write_text(json.dumps({"inputs": inputs, "outputs": out}) + "\n")


def plain(model, cls, settings):
    """What a user's config.json has: the class, and what differs from the defaults."""
    return {"_class_name": cls.__name__, **settings}


SD1 = dict(
    sample_size=16, block_out_channels=[8, 16, 16], layers_per_block=2, cross_attention_dim=12, attention_head_dim=2,
    norm_num_groups=4,
    down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
)
CONDITIONAL = {
    "unet_sd1": SD1,
    "unet_sd2": {**SD1, "use_linear_projection": True, "attention_head_dim": [2, 4, 8], "cross_attention_dim": 20,
                 "upcast_attention": True},
    "unet_small": {**SD1, "mid_block_type": None, "layers_per_block": [1, 2, 1], "flip_sin_to_cos": False,
                   "freq_shift": 1, "act_fn": "gelu", "norm_eps": 1e-3},
    "unet_sdxl": {**SD1, "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                  "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "transformer_layers_per_block": [1, 2],
                  "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
                  "projection_class_embeddings_input_dim": 32, "attention_head_dim": [1, 2]},
    "unet_mixed": {**SD1, "block_out_channels": [8, 16], "down_block_types": ["AttnDownBlock2D", "CrossAttnDownBlock2D"],
                   "up_block_types": ["CrossAttnUpBlock2D", "AttnUpBlock2D"], "mid_block_type": "UNetMidBlock2D",
                   "resnet_time_scale_shift": "scale_shift", "class_embed_type": "timestep", "conv_in_kernel": 5,
                   "time_embedding_dim": 20, "mid_block_scale_factor": 1.5, "center_input_sample": True},
}
UNCONDITIONAL = {
    "unet2d": dict(sample_size=16, block_out_channels=[8, 16], layers_per_block=1, norm_num_groups=4, in_channels=3,
                   attention_head_dim=4, downsample_padding=0, down_block_types=["DownBlock2D", "AttnDownBlock2D"],
                   up_block_types=["AttnUpBlock2D", "UpBlock2D"], num_class_embeds=5, act_fn="gelu"),
    "unet2d_plain": dict(sample_size=16, block_out_channels=[8, 8], layers_per_block=1, norm_num_groups=4,
                         attention_head_dim=None, add_attention=False, center_input_sample=True,
                         down_block_types=["DownBlock2D", "AttnDownBlock2D"], mid_block_scale_factor=2.0,
                         up_block_types=["AttnUpBlock2D", "UpBlock2D"], resnet_time_scale_shift="scale_shift"),
}


def conditional():
    for name, settings in CONDITIONAL.items():
        model = fill(UNet2DConditionModel(**settings))
        # Sides that the strides do not divide.
        sides = (10, 7) if name == "unet_sd1" else (8, 6)
        inputs, feeds = {}, {}
        for key, shape in [("sample", (2, 4, *sides)), ("encoder_hidden_states", (2, 5, settings["cross_attention_dim"]))]:
            inputs[key], feeds[key] = given(key, shape)
        inputs["timestep"] = {"shape": [2], "values": [981.0, 3.0]}
        feeds["timestep"] = torch.tensor([981, 3])
        if name == "unet_sdxl":
            added = {}
            for key, shape in [("text_embeds", (2, 8)), ("time_ids", (2, 6))]:
                inputs[key], added[key] = given(key, shape)
            feeds["added_cond_kwargs"] = added
        if name == "unet_mixed":
            inputs["class_labels"] = {"shape": [2], "values": [20.0, 350.0]}
            feeds["class_labels"] = torch.tensor([20.0, 350.0])
        keep(name, plain(model, UNet2DConditionModel, settings), inputs, {"sample": model(**feeds).sample})


def unconditional():
    for name, settings in UNCONDITIONAL.items():
        model = fill(UNet2DModel(**settings))
        inputs, feeds = {}, {}
        inputs["sample"], feeds["sample"] = given("sample", (2, 3, 8, 12))
        inputs["timestep"] = {"shape": [2], "values": [500.0, 7.0]}
        feeds["timestep"] = torch.tensor([500, 7])
        if "num_class_embeds" in settings:
            inputs["class_labels"] = {"shape": [2], "ints": [4, 1]}
            feeds["class_labels"] = torch.tensor([4, 1])
        keep(name, plain(model, UNet2DModel, settings), inputs, {"sample": model(**feeds).sample})


def autoencoders():
    base = dict(block_out_channels=[8, 16], layers_per_block=1, norm_num_groups=4, sample_size=16,
                down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
    bare = dict(use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False, latent_channels=3)
    for name, settings in [("vae", base), ("vae_bare", {**base, **bare})]:
        model = fill(AutoencoderKL(**settings))
        inputs, latent = {}, settings.get("latent_channels", 4)
        inputs["sample"], sample = given("sample", (2, 3, 10, 12))
        inputs["latent"], z = given("latent", (2, latent, 4, 3))
        outputs = {"moments": model.encode(sample).latent_dist.parameters, "image": model.decode(z).sample}
        keep(name, plain(model, AutoencoderKL, settings), inputs, outputs)
    settings = dict(encoder_block_out_channels=[8, 8, 8], decoder_block_out_channels=[8, 8, 8],
                    num_encoder_blocks=[1, 2, 1], num_decoder_blocks=[2, 1, 1])
    model = fill(AutoencoderTiny(**settings))
    inputs = {}
    inputs["sample"], sample = given("sample", (2, 3, 12, 8))
    inputs["latent"], z = given("latent", (2, 4, 3, 2))
    outputs = {"latent_out": model.encode(sample).latents, "image": model.decode(z).sample}
    keep("taesd", plain(model, AutoencoderTiny, settings), inputs, outputs)


def text_encoders():
    base = dict(vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=12)
    cases = [
        ("clip", CLIPTextModel, {**base, "eos_token_id": 2}, "text_model."),
        ("clip_projection", CLIPTextModelWithProjection,
         {**base, "hidden_act": "gelu", "projection_dim": 10, "eos_token_id": 57}, ""),
    ]
    ids = torch.tensor([[5, 9, 57, 57, 3, 59, 2], [8, 57, 1, 59, 59, 40, 6]])
    for name, cls, settings, prefix in cases:
        model = fill(cls(CLIPTextConfig(**settings)), prefix)
        out = model(input_ids=ids)
        outputs = {"last_hidden_state": out.last_hidden_state}
        if name == "clip":
            outputs["pooler_output"] = out.pooler_output
        else:
            outputs["text_embeds"] = out.text_embeds
        config = {"architectures": [cls.__name__], "model_type": "clip_text_model", **settings}
        keep(name, config, {"input_ids": {"shape": [2, 7], "ints": ids.flatten().tolist()}}, outputs)


if __name__ == "__main__":
    with torch.no_grad():
        conditional()
        unconditional()
        autoencoders()
        text_encoders()
