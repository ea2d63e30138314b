"""Four steps of a small residual network with BatchNorm as PyTorch makes them, two micro-batches a step.

python make_batch_norm_goldens.py    (torch, safetensors) writes batch_norm.safetensors and batch_norm.json.
"""
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent


class Block(nn.Module):
    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = None
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(h + (x if self.shortcut is None else self.shortcut(x)))


class Net(nn.Module):
    """Two blocks of a residual network for CIFAR (arXiv:1512.03385, section 4.2) under the usual names."""

    def __init__(self, width, classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Block(width, width, 1))
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2))
        self.linear = nn.Linear(2 * width, classes)

    def forward(self, x):
        return self.linear(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))).mean((2, 3)))


STEPS, BATCH, ACCUMULATE, RATE, SIDE, CLASSES = 4, 3, 2, 0.1, 9, 5
torch.manual_seed(11)
torch.set_num_threads(1)
net = Net(4, CLASSES).train()
for name, b in net.named_buffers():
    if b.dtype.is_floating_point:
        torch.nn.init.uniform_(b, 0.5, 1.5)
pictures = torch.randn(STEPS * ACCUMULATE * BATCH, 3, SIDE, SIDE) * 2 + 0.3
labels = torch.randint(0, CLASSES, (len(pictures),))
# Tensors of checkpoints, which no trainer moves, stay out.
kept = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
tensors = {f"start/{k}": v.clone() for k, v in kept.items()}
rule = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
losses = []
for step in range(STEPS):
    rule.zero_grad()
    total = 0.0
    for micro in range(ACCUMULATE):
        at = (step * ACCUMULATE + micro) * BATCH
        loss = F.cross_entropy(net(pictures[at:at + BATCH]), labels[at:at + BATCH]) / ACCUMULATE
        loss.backward()
        total += loss.item()
    rule.step()
    losses.append(total)
tensors |= {f"end/{k}": v.clone() for k, v in net.state_dict().items() if "num_batches" not in k}
net.eval()
with torch.no_grad():
    tensors["outputs"] = net(pictures)
save_file(tensors, HERE / "batch_norm.safetensors")
save_file({"pixel_values": pictures, "target": labels.float()}, HERE / "batch_norm_data.safetensors")
(HERE / "batch_norm.json").write_text(json.dumps({
    "config": {"architecture": "resnet_cifar", "shortcut": "B", "layers": [1, 1], "width": 4, "num_classes": CLASSES, "image_size": SIDE},
    "batch": BATCH, "accumulate": ACCUMULATE, "rate": RATE, "losses": losses}, indent=1) + "\n")
