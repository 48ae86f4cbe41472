"""Torch networks of ``nn.ReLU`` modules, each used once (Captum's rules see nothing else), and what they export to."""

from __future__ import annotations

import logging
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import onnxviz as ov
from onnxviz.runtime.model import Model

SIDE = {"chain": 32, "residual": 40, "branches": 33, "squeezenet": 64}
CLASSES = 10


def torch_net(name: str) -> Any:
    """Networks of nn.ReLU modules, each used once: Captum's rules see nothing else."""
    import torch
    from torch import nn

    if name == "squeezenet":
        from exported_networks import network

        module = network("squeezenet").module
        for layer in module.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        return module

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 12, 5, 2, 2), nn.BatchNorm2d(12), nn.ReLU())
            self.branch = nn.Sequential(
                nn.Conv2d(12, 12, 3, padding=1, groups=3),
                nn.BatchNorm2d(12),
                nn.ReLU(),
                nn.Conv2d(12, 12, 3, padding=1),
            )
            self.joined, self.pool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
            self.last = nn.Sequential(nn.Conv2d(12, 20, 3), nn.ReLU())
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, CLASSES))

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            return self.head(self.last(self.pool(self.joined(x + self.branch(x)))))

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Dropout())
            self.wide = nn.Sequential(nn.Conv2d(8, 8, 5, padding=4, dilation=2), nn.ReLU())
            self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(8, 6, 1), nn.ReLU())
            self.head = nn.Sequential(nn.Conv2d(14, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            return self.head(torch.cat([self.wide(x), self.pooled(x)], 1))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        if name == "branches":
            module = Branches()
            nn.init.uniform_(module.head[0].bias, 0.2, 0.6)  # else its last ReLU would stop some classes' gradients
        elif name == "residual":
            module = Residual()
            for layer in module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.running_mean.uniform_(-0.3, 0.3)
                    layer.running_var.uniform_(0.5, 1.5)
        else:
            module = nn.Sequential(
                nn.Conv2d(3, 10, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(10, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(), nn.Linear(16 * 49, 24), nn.ReLU(), nn.Linear(24, CLASSES),
            )  # fmt: skip
    return module.eval().requires_grad_(False)


@cache
def exported(name: str, folder: Path) -> tuple[Any, Model]:
    """A network in float64, and the model that its float32 twin was exported to."""
    import torch

    if name == "squeezenet":
        from exported_networks import Export, export

        path = export(Export("squeezenet", 18, "torchscript"))
        module = torch_net(name)
    else:
        module, path = torch_net(name), folder / f"{name}.onnx"
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    module, (torch.zeros(2, 3, SIDE[name], SIDE[name]),), str(path), dynamo=False, opset_version=17,
                    input_names=["image"], output_names=["logits"],
                    dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
                )  # fmt: skip
        finally:
            logging.disable(before)
    contract = {"preset": "imagenet", "fit": "stretch", "size": [SIDE[name]] * 2}
    output = {"output": "logits", "kind": "logits"}
    return module.double(), ov.load(path, preprocess=contract, output=output, device="cpu")
