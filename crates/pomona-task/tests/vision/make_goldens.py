"""Configs and outputs of small image and text networks, with weights by name (../diffusers/seeded.py).

    python make_goldens.py            # writes NAME/config.json and NAME/expected.json beside itself
    python make_goldens.py --counts   # prints parameters and multiply-accumulates of the published networks

Made with transformers 5.23, timm 1.0, torchvision 0.29, torch 2.15 on the CPU.
"""
import json
import pathlib
import sys
import tempfile

import timm
import torch
import torch.nn.functional as F
import torchvision
import transformers
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "diffusers"))
from seeded import data, fill, weight  # noqa: E402

torch.manual_seed(0)


def listed(t):
    return [float(f"{v:.7g}") for v in t.detach().flatten().tolist()]


def keep(name, config, inputs, outputs):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    out = {k: {"shape": list(v.shape), "values": listed(v)} for k, v in outputs.items()}
    (folder / "expected.json").write_text(json.dumps({"inputs": inputs, "outputs": out}) + "\n")


def by_file_names(cls, config):
    """A transformers model whose weights follow the names in its file, which are not those of its modules."""
    with tempfile.TemporaryDirectory() as folder:
        cls(config).save_pretrained(folder)
        file = pathlib.Path(folder, "model.safetensors")
        state = {k: torch.from_numpy(weight(k, tuple(v.shape))) for k, v in load_file(file).items()}
        save_file(state, file, {"format": "pt"})
        return cls.from_pretrained(folder, attn_implementation="eager").eval().float()


TINY = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20)


def transformers_vision():
    vit = dict(TINY, model_type="vit", image_size=[16, 24], patch_size=[8, 4], num_channels=2, hidden_act="gelu_new")
    deit = dict(TINY, model_type="deit", image_size=16, patch_size=8, qkv_bias=False, layer_norm_eps=1e-6)
    cases = [
        ("vit", vit, "ViTForImageClassification", {"id2label": {str(i): str(i) for i in range(5)}}),
        ("vit_bare", dict(vit, pooler_output_size=7), "ViTModel", {}),
        ("vit_heads", dict(vit, head_dim=5), "ViTForImageClassification", {}),
        ("deit", deit, "DeiTForImageClassification", {}),
        ("deit_distilled", deit, "DeiTForImageClassificationWithTeacher", {}),
    ]
    for name, settings, cls, more in cases:
        config = dict(settings, architectures=[cls], **more)
        own = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
        own = transformers.AutoConfig.for_model(config["model_type"], **own)
        model = by_file_names(getattr(transformers, cls), own)
        sides = config["image_size"] if isinstance(config["image_size"], list) else [config["image_size"]] * 2
        shape = (2, config.get("num_channels", 3), *sides)
        with torch.no_grad():
            out = model(data("pixel_values", shape))
        ports = ["logits"] if "For" in cls else ["last_hidden_state", "pooler_output"]
        keep(name, config, {"pixel_values": {"shape": list(shape)}}, {p: out[p] for p in ports})


def bert():
    settings = dict(TINY, vocab_size=30, max_position_embeddings=16)
    cases = [
        ("bert", "BertModel", {}),
        ("bert_mlm", "BertForMaskedLM", {}),
        ("bert_sequence", "BertForSequenceClassification", {"id2label": {"0": "a", "1": "b", "2": "c"}}),
        ("bert_token", "BertForTokenClassification", {"hidden_act": "relu"}),
    ]
    ids = [[2, 7, 11, 29, 3, 0, 0], [2, 5, 6, 28, 13, 17, 3]]
    mask = [[1, 1, 1, 1, 1, 0, 0], [1] * 7]
    types = [[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0]]
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    for name, cls, more in cases:
        config = dict(settings, model_type="bert", architectures=[cls], **more)
        own = transformers.BertConfig(**{k: v for k, v in config.items() if k not in ("model_type", "architectures")})
        model = by_file_names(getattr(transformers, cls), own)
        with torch.no_grad():
            out = model(**{k: torch.tensor(v) for k, v in given.items()})
        inputs = {k: {"shape": [2, 7], "ints": sum(v, [])} for k, v in given.items()}
        ports = ["logits"] if "For" in cls else ["last_hidden_state", "pooler_output"]
        keep(name, config, inputs, {p: out[p] for p in ports})


def plain(name, config, model, shape):
    fill(model)
    with torch.no_grad():
        out = model(data("pixel_values", shape))
    keep(name, config, {"pixel_values": {"shape": list(shape)}}, {"logits": out})


def timm_vits():
    args = dict(img_size=[16, 24], patch_size=8, embed_dim=12, depth=2, num_heads=3, mlp_ratio=2.5)
    for name, arch, more in [
        ("timm_vit", "vit_tiny_patch16_224", {}),
        ("timm_vit_average", "vit_small_patch16_224", {"global_pool": "avg", "qkv_bias": False}),
        ("timm_deit_distilled", "deit_tiny_distilled_patch16_224", {}),
    ]:
        options = dict(args, **more)
        config = {"architecture": arch, "num_classes": 5, "model_args": options}
        plain(name, config, timm.create_model(arch, num_classes=5, **options), (2, 3, 16, 24))


def convolutional():
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    for name, arch, block in [("resnet_basic", "resnet18", BasicBlock), ("resnet_bottleneck", "resnet50", Bottleneck)]:
        config = {"architecture": arch, "num_classes": 5, "layers": [1, 2, 1, 1]}
        plain(name, config, ResNet(block, [1, 2, 1, 1], num_classes=5), (2, 3, 37, 48))
    config = {"architecture": "mobilenet_v2", "num_classes": 5, "width_mult": 0.35}
    plain("mobilenet_v2", config, torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.35), (2, 3, 33, 40))
    for arch in ["mobilenetv1_100", "mobilenetv2_035", "mobilenetv2_110d", "efficientnet_lite1", "tf_efficientnet_lite0"]:
        config = {"architecture": arch, "num_classes": 5, "input_size": [3, 33, 40]}
        plain(arch, config, timm.create_model(arch, num_classes=5), (2, 3, 33, 40))
    for shortcut in "AB":
        config = {"architecture": "resnet20", "shortcut": shortcut, "layers": [1, 1, 2], "width": 4}
        plain(f"resnet_cifar_{shortcut.lower()}", config, Cifar([1, 1, 2], 4, shortcut), (2, 3, 15, 16))


class CifarBlock(nn.Module):
    def __init__(self, before, width, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.more = stride, width - before
        if shortcut == "B" and (stride != 1 or before != width):
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        else:
            self.shortcut = None

    def forward(self, x):
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.shortcut is not None:
            short = self.shortcut(x)
        else:
            half = self.more // 2
            short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.more - half))
        return F.relu(h + short)


class Cifar(nn.Module):
    """The form of the CIFAR networks in arXiv:1512.03385, section 4.2, with the usual module names."""

    def __init__(self, layers, width, shortcut, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        before = width
        for stage, count in enumerate(layers):
            blocks = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(CifarBlock(before, width << stage, stride, shortcut))
                before = width << stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(layers)
        self.linear = nn.Linear(before, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.linear(x.mean((2, 3)))


def counts():
    """Parameters, MACs of convolutions and linear layers (`thop`), and with the products of attention (`full`)."""
    names = [
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenetv1_100", "mobilenetv1_100h",
        "mobilenetv1_125", "mobilenetv2_035", "mobilenetv2_050", "mobilenetv2_075", "mobilenetv2_100",
        "mobilenetv2_110d", "mobilenetv2_120d", "mobilenetv2_140", "efficientnet_lite0", "efficientnet_lite1",
        "efficientnet_lite2", "efficientnet_lite3", "efficientnet_lite4", "vit_tiny_patch16_224",
        "vit_small_patch32_224", "vit_base_patch16_224", "vit_base_patch8_224", "vit_large_patch16_384",
        "deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224", "deit_base_patch16_384",
        "deit_tiny_distilled_patch16_224", "deit_base_distilled_patch16_224",
    ]
    models = [(n, timm.create_model(n)) for n in names] + [("mobilenet_v2", torchvision.models.mobilenet_v2())]
    models += [(f"resnet{n}", Cifar([(n - 2) // 6] * 3, 16, "A")) for n in (20, 32, 44, 56, 110, 1202)]
    for name, model in models:
        side = model.default_cfg["input_size"][1] if hasattr(model, "default_cfg") else 224
        side = 32 if isinstance(model, Cifar) else side
        total = [0, 0]

        def count(module, inputs, out):
            if isinstance(module, nn.Conv2d):
                total[0] += out.numel() * module.weight[0].numel()
            else:
                total[0] += out.numel() * module.in_features

        for m in model.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                m.register_forward_hook(count)
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, side, side))
        if isinstance(model, VisionTransformer):
            n = model.pos_embed.shape[1]
            total[1] = len(model.blocks) * 2 * n * n * model.embed_dim
        params = sum(p.numel() for p in model.parameters())
        print(f'("{name}", {params:_}, {sum(total):_}, {total[0]:_}),')


if "--counts" in sys.argv:
    counts()
else:
    transformers_vision()
    bert()
    timm_vits()
    convolutional()
