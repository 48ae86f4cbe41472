"""Well-known torch networks, narrow and with seeded random weights, and what each of torch's exporters makes of them."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

# Otherwise inside the functions: tests are collected where there is no torch, too.
if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

CACHE = "ONNXVIZ_TEST_CACHE"
# Part of every file's name: raise it with any change of a network, of its weights, or of the way it is exported.
DEFINITION = 3

CLASSES = 10
# torchvision's widths are divided by this: the gradient rules are the same, and a sweep's files stay small.
NARROWER = 4
HIDDEN = {4096: 256}
VOCABULARY = 97
TOKENS = 16
STEPS = 12
# Every image's side is a multiple of this.
SQUARES = 8
# The scale of ConvNeXt's residual branches.
RESIDUAL = 0.5
# The bias of batch normalisations.
SHIFT = 0.5

# The older exporter refuses 21 and above; the newer one converts to 24 and above, and at 26 leaves some networks at 18.
OPSETS = {"torchscript": (9, 10, 11, 12, 13, 14, 16, 18, 20), "dynamo": (18, 20, 22, 23, 25)}


@dataclass(frozen=True)
class Export:
    """One way to make a file of one network."""

    family: str
    opset: int
    exporter: str
    """``"torchscript"`` or ``"dynamo"``."""

    @property
    def id(self) -> str:
        return f"{self.family}-{self.exporter}-{self.opset}"


@dataclass(frozen=True)
class Network:
    """A torch network, ready for inference and frozen, whose output, named ``logits``, is before any softmax."""

    family: str
    module: nn.Module
    smooth: bool
    """Whether its derivative is continuous; otherwise rounding alone may move a unit across a kink."""
    wrt: Callable[[onnx.ModelProto], str] | None
    """Finds in an export the value to differentiate by; None where it is the graph's input."""
    embedding: str | None
    """The submodule whose output that value is; None where it is the input."""
    sample: Callable[[np.random.Generator, int], np.ndarray]
    """Draws a batch."""
    input_name: str

    def inputs(self, n: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Draw a batch of n by input name: float32 images or sequences of scale 1, or int64 token ids."""
        return {self.input_name: self.sample(np.random.default_rng(seed), n)}


def network(family: str) -> Network:
    """Build a network with the same weights at every call; the module is the caller's own.

    Parameters
    ----------
    family
        One of ``FAMILIES``.

    Raises
    ------
    ImportError
        Without torch, or, for a family that is torchvision's, without torchvision.
    """
    return copy.deepcopy(_built(family))


def export(wanted: Export) -> Path:
    """Write the ONNX file, once for all runs, and return its path.

    Parameters
    ----------
    wanted
        One of ``EXPORTS``, or of ``UNFAITHFUL``; torch raises for those in ``REFUSED``.

    Returns
    -------
    Path
        A file in the folder that ``ONNXVIZ_TEST_CACHE`` names, or else in the user's cache. Batch is dynamic, the
        output is named ``logits``.
    """
    import torch

    folder = cache_folder()
    target = folder / f"{wanted.id}-torch{torch.__version__}-v{DEFINITION}.onnx"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as scratch:
        part = Path(scratch) / "model.onnx"
        with _quiet():
            _write(wanted, part)
            _check_opset(wanted, part)
        part.replace(target)
    return target


def cache_folder() -> Path:
    """Where exports are kept from one test run to the next."""
    if named := os.environ.get(CACHE):
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    else:
        base = os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "onnxviz-tests" / "exports"


def _write(wanted: Export, path: Path) -> None:
    import torch

    built = _built(wanted.family)
    fast = torch.backends.mha.get_fastpath_enabled()
    # Frozen attention runs as one fused operator, which has no ONNX form; a user's network, not frozen, does not.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        _call_exporter(wanted, built, path)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _call_exporter(wanted: Export, built: Network, path: Path) -> None:
    import torch

    # Two examples: torch.export takes a batch of one for a constant.
    arguments = tuple(torch.from_numpy(array) for array in built.inputs(2).values())
    names = {"input_names": [built.input_name], "output_names": ["logits"]}
    if wanted.exporter == "torchscript":
        torch.onnx.export(
            built.module, arguments, str(path), dynamo=False, opset_version=wanted.opset, **names,
            dynamic_axes={built.input_name: {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
    else:
        torch.onnx.export(
            built.module, arguments, str(path), dynamo=True, opset_version=wanted.opset, **names,
            dynamic_shapes=({0: "batch"},), external_data=False, verbose=False,
        )  # fmt: skip


def _check_opset(wanted: Export, path: Path) -> None:
    """Where the newer exporter fails to convert to an opset, it keeps 18 and only logs so."""
    import onnx

    (found,) = [entry.version for entry in onnx.load(path).opset_import if entry.domain in ("", "ai.onnx")]
    if found != wanted.opset:
        raise ValueError(f"{wanted.id}: torch wrote opset {found}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings and no log: the exporters announce their successors and every operator they convert."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# -- Families -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Family:
    build: Callable[[], nn.Module]
    sample: Callable[[np.random.Generator, int], np.ndarray]
    smooth: bool = False
    input_name: str = "image"
    wrt: Callable[[onnx.ModelProto], str] | None = None
    embedding: str | None = None


@functools.lru_cache(maxsize=2)
def _built(family: str) -> Network:
    import torch

    entry = _FAMILIES[family]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = entry.build()
    random = np.random.default_rng(list(family.encode()))
    _draw_weights(module, random)
    if family == "squeezenet":
        module.classifier[1].bias.data += 2  # its logits pass a ReLU, which would stop some classes' gradients
    module.eval().requires_grad_(False)
    _calibrate(module, entry.sample, random)
    return Network(family, module, entry.smooth, entry.wrt, entry.embedding, entry.sample, entry.input_name)


def _draw_weights(module: nn.Module, random: np.random.Generator) -> None:
    """Draw what keeps activations of scale 1: He et al. (2015) for convolutions, LeCun et al. (1998) for other layers.

    numpy's generator gives the same numbers on every machine; torchvision's own initialisation has heads and layer
    scales of zero, through which no gradient flows.
    """
    import torch
    from torch import nn

    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    for layer in module.modules():
        for name, tensor in layer.named_parameters(recurse=False):
            shape = tuple(tensor.shape)
            if isinstance(layer, norms):
                # With biases of 0 before a ReLU, gradients explode with the depth (Yang et al. 2019).
                centre = 1.0 if name == "weight" else SHIFT if isinstance(layer, nn.BatchNorm2d) else 0.0
                values = centre + 0.1 * random.uniform(-1, 1, shape)
            elif name == "layer_scale":
                values = RESIDUAL * (1 + 0.1 * random.uniform(-1, 1, shape))
            elif isinstance(layer, nn.Embedding):
                values = random.standard_normal(shape)
            elif "weight" not in name:
                # Biases; the vision transformer's class token and positions, Swin's table of relative positions.
                values = (0.1 if tensor.ndim == 1 else 0.5) * random.standard_normal(shape)
            else:
                fan_in = math.prod(shape[1:])
                if isinstance(layer, nn.ConvTranspose2d):
                    fan_in = shape[0] * math.prod(shape[2:]) / math.prod(layer.stride)
                gain = 2.0 if isinstance(layer, nn.Conv2d) else 1.0
                values = random.standard_normal(shape) * math.sqrt(gain / fan_in)
            tensor.data.copy_(torch.from_numpy(np.asarray(values)))


def _calibrate(module: nn.Module, sample: Callable[..., np.ndarray], random: np.random.Generator) -> None:
    """Give batch normalisations the statistics of random inputs: with 0 and 1, activations grow with the depth.

    The pass is in float64, so that the float32 numbers kept are the same on every machine.
    """
    import torch
    from torch import nn

    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    module.double()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches seen
    with torch.no_grad():
        module(torch.from_numpy(sample(random, 32)).double())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval().float()


def _images(side: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Noise over coarse squares: of fine noise alone, all pooled features are alike, and networks ill-conditioned."""

    def sample(random: np.random.Generator, n: int) -> np.ndarray:
        coarse = random.standard_normal((n, 3, SQUARES, SQUARES), np.float32)
        fine = random.standard_normal((n, 3, side, side), np.float32)
        return 0.8 * coarse.repeat(side // SQUARES, axis=2).repeat(side // SQUARES, axis=3) + 0.6 * fine

    return sample


def _sequences(random: np.random.Generator, n: int) -> np.ndarray:
    return random.standard_normal((n, STEPS, 8), np.float32)


def _ids(random: np.random.Generator, n: int) -> np.ndarray:
    """Token ids; every second row ends with padding, 0."""
    ids = random.integers(1, VOCABULARY, (n, TOKENS))
    ids[1::2, -TOKENS // 3 :] = 0
    return ids


def _embedding_value(model: onnx.ModelProto) -> str:
    """What a Gather takes from the table that has a row for every word."""
    tables = {tensor.name for tensor in model.graph.initializer if list(tensor.dims)[:1] == [VOCABULARY]}
    (found,) = [node.output[0] for node in model.graph.node if node.op_type == "Gather" and node.input[0] in tables]
    return found


# -- torchvision's networks -----------------------------------------------------------------------------------------

_kept: list[object] = []


def _torchvision() -> Any:
    """``torchvision.models``, beside a torch without CUDA as well."""
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        # The wheel's compiled part is for torch with CUDA and does not load; its import then trips over these two.
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        import torchvision
    return torchvision.models


def _from_torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(_torchvision(), name)(num_classes=CLASSES, **options)


def _narrowed(name: str, **options: Any) -> Callable[[], nn.Module]:
    """The architecture as torchvision has it, with every width divided."""

    def build() -> nn.Module:
        import torch
        from torch import nn

        models = _torchvision()
        # On the meta device nothing is allocated: VGG-16 alone would be half a gigabyte.
        with torch.device("meta"):
            module = getattr(models, name)(num_classes=CLASSES, **options)
        for path, layer in list(module.named_modules()):
            if isinstance(layer, nn.Conv2d):
                assert layer.groups == 1
                new: nn.Module = nn.Conv2d(
                    _width(layer.in_channels), _width(layer.out_channels), layer.kernel_size, layer.stride,
                    layer.padding, layer.dilation, bias=layer.bias is not None,
                )  # fmt: skip
            elif isinstance(layer, nn.Linear):
                new = nn.Linear(_width(layer.in_features), _width(layer.out_features))
            elif isinstance(layer, nn.BatchNorm2d):
                new = nn.BatchNorm2d(_width(layer.num_features), layer.eps, layer.momentum)
            else:
                continue
            module.set_submodule(path, new)
        assert not any(tensor.is_meta for tensor in module.state_dict().values())
        return module

    return build


def _width(channels: int) -> int:
    if channels in (3, CLASSES):
        return channels
    assert channels % NARROWER == 0
    return HIDDEN.get(channels, channels // NARROWER)


def _efficientnet() -> nn.Module:
    models = _torchvision()
    settings, last = models.efficientnet._efficientnet_conf("efficientnet_b0", width_mult=0.5, depth_mult=1.0)
    return models.EfficientNet(settings, dropout=0.2, last_channel=last, num_classes=CLASSES)


def _convnext() -> nn.Module:
    models = _torchvision()
    widths = (24, 48, 96, 192, None)
    settings = [models.convnext.CNBlockConfig(widths[i], widths[i + 1], depth) for i, depth in enumerate((3, 3, 9, 3))]
    return models.ConvNeXt(settings, num_classes=CLASSES)


def _vit() -> nn.Module:
    return _torchvision().VisionTransformer(
        image_size=64, patch_size=16, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=CLASSES
    )


def _swin() -> nn.Module:
    # 24, 12, 6 and 3 tokens a side: the last two are padded to the window; every second block is shifted.
    return _torchvision().SwinTransformer(
        patch_size=[4, 4], embed_dim=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8], window_size=[4, 4],
        num_classes=CLASSES,
    )  # fmt: skip


# -- Own networks ---------------------------------------------------------------------------------------------------


def _smooth_cnn() -> nn.Module:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.GELU(), nn.AvgPool2d(3, 2, 1),
        nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=4), nn.GELU(approximate="tanh"),
        nn.Conv2d(24, 32, 3, dilation=2, padding=2), nn.Softplus(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
    )  # fmt: skip


def _unet() -> nn.Module:
    """After Ronneberger et al. (2015), with the layers that later ones have; logits per pixel."""
    import torch
    from torch import nn

    def block(inputs: int, outputs: int, norm: nn.Module, stride: int = 1) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, padding_mode="reflect"), norm, nn.SiLU())

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = block(3, 16, nn.GroupNorm(4, 16))
            self.pool = nn.AvgPool2d(2)
            self.second = block(16, 32, nn.InstanceNorm2d(32, affine=True))
            self.third = block(32, 64, nn.GroupNorm(8, 64), 2)
            self.fourth = block(64, 64, nn.InstanceNorm2d(64))
            self.grow = nn.ConvTranspose2d(64, 32, 4, 2, 1)
            self.fifth = block(64, 32, nn.GroupNorm(4, 32))
            self.resize = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            self.sixth = block(48, 16, nn.GroupNorm(1, 16))
            self.head = nn.Conv2d(16, CLASSES, 1)

        def forward(self, image: Tensor) -> Tensor:
            first = self.first(image)
            second = self.second(self.pool(first))
            fourth = self.fourth(self.third(second))
            fifth = self.fifth(torch.cat([self.grow(fourth), second], 1))
            return self.head(self.sixth(torch.cat([self.resize(fifth), first], 1)))

    return UNet()


def _bert() -> nn.Module:
    """After Devlin et al. (2019): post-norm, learned positions, padding masked, logits from the first token."""
    import torch
    from torch import nn

    width, heads, inner = 64, 4, 128

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
            self.mixed, self.fed = nn.LayerNorm(width), nn.LayerNorm(width)
            self.expand, self.contract = nn.Linear(width, inner), nn.Linear(inner, width)

        def split(self, value: Tensor) -> Tensor:
            return value.view(value.shape[0], TOKENS, heads, width // heads).transpose(1, 2)

        def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
            query, key, value = (self.split(part(tokens)) for part in (self.query, self.key, self.value))
            scores = query @ key.transpose(2, 3) / math.sqrt(width // heads) + mask
            heard = (scores.softmax(-1) @ value).transpose(1, 2).reshape(tokens.shape[0], TOKENS, width)
            tokens = self.mixed(tokens + self.mix(heard))
            return self.fed(tokens + self.contract(nn.functional.gelu(self.expand(tokens))))

    class Bert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(TOKENS, width)
            self.norm = nn.LayerNorm(width)
            self.blocks = nn.ModuleList([Block(), Block()])
            self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, CLASSES)

        def forward(self, ids: Tensor) -> Tensor:
            # As large as the scores' own dtype asks: 1e4 is what exp takes for minus infinity.
            mask = (ids == 0)[:, None, None, :].to(self.norm.weight.dtype) * -1e4
            tokens = self.norm(self.words(ids) + self.positions(torch.arange(TOKENS)))
            for block in self.blocks:
                tokens = block(tokens, mask)
            return self.head(torch.tanh(self.pooler(tokens[:, 0])))

    return Bert()


def _recurrent(kind: str) -> Callable[[], nn.Module]:
    """A classifier of sequences: two layers, the LSTM's in both directions."""

    def build() -> nn.Module:
        import torch
        from torch import nn

        class Lstm(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(8, 24, num_layers=2, bidirectional=True, batch_first=True)
                self.head = nn.Linear(2 * 24 + 24, CLASSES)

            def forward(self, sequence: Tensor) -> Tensor:
                steps, (hidden, _) = self.lstm(sequence)
                return self.head(torch.cat([steps.mean(1), hidden[-1]], 1))

        class Gru(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.gru = nn.GRU(8, 32, num_layers=2, batch_first=True)
                self.head = nn.Linear(32, CLASSES)

            def forward(self, sequence: Tensor) -> Tensor:
                return self.head(self.gru(sequence)[0][:, -1])

        return Lstm() if kind == "lstm" else Gru()

    return build


# -- The lists ------------------------------------------------------------------------------------------------------

_FAMILIES = {
    "alexnet": _Family(_narrowed("alexnet"), _images(224)),
    "vgg11": _Family(_narrowed("vgg11", init_weights=False), _images(224)),
    "vgg16": _Family(_narrowed("vgg16", init_weights=False), _images(224)),
    "resnet18": _Family(_narrowed("resnet18"), _images(64)),
    "resnet50": _Family(_narrowed("resnet50"), _images(64)),
    "densenet121": _Family(_narrowed("densenet121"), _images(64)),
    "googlenet": _Family(_narrowed("googlenet", aux_logits=False, init_weights=False), _images(64)),
    "inception_v3": _Family(_narrowed("inception_v3", aux_logits=False, init_weights=False), _images(112)),
    "squeezenet": _Family(_from_torchvision("squeezenet1_1"), _images(64)),
    "shufflenet_v2": _Family(_from_torchvision("shufflenet_v2_x0_5"), _images(64)),
    "mobilenet_v2": _Family(_from_torchvision("mobilenet_v2", width_mult=0.35), _images(64)),
    "mobilenet_v3_small": _Family(_from_torchvision("mobilenet_v3_small", width_mult=0.5), _images(64)),
    "efficientnet_b0": _Family(_efficientnet, _images(64), smooth=True),
    "convnext_tiny": _Family(_convnext, _images(64), smooth=True),
    "vit": _Family(_vit, _images(64), smooth=True),
    "swin": _Family(_swin, _images(96), smooth=True),
    "unet": _Family(_unet, _images(48), smooth=True),
    "bert": _Family(_bert, _ids, smooth=True, input_name="ids", wrt=_embedding_value, embedding="words"),
    "lstm": _Family(_recurrent("lstm"), _sequences, smooth=True, input_name="sequence"),
    "gru": _Family(_recurrent("gru"), _sequences, smooth=True, input_name="sequence"),
    "smooth_cnn": _Family(_smooth_cnn, _images(32), smooth=True),
}
FAMILIES = tuple(_FAMILIES)


def _listed(family: str, exporter: str, opsets: tuple[int, ...], reason: str) -> dict[Export, str]:
    return {Export(family, opset, exporter): reason for opset in opsets}


# What torch cannot make, in torch's own words, and what it makes but wrongly: none of this is a failure of ours.
REFUSED = {
    **_listed(
        "vit", "torchscript", (9, 10, 11, 12, 13),
        "UnsupportedOperatorError: aten::scaled_dot_product_attention: support was added in version 14",
    ),
    **_listed(
        "swin", "torchscript", (9, 10),
        "SymbolicValueError: ONNX export of Pad in opset 9. The sizes of the padding must be constant",
    ),
}  # fmt: skip
UNFAITHFUL = {
    **_listed(
        "unet", "torchscript", (9, 10),
        "ONNX's Upsample/Resize operator did not match Pytorch's Interpolation until opset 11 (torch's warning)",
    ),
}  # fmt: skip
EXPORTS = tuple(
    wanted
    for family in FAMILIES
    for exporter, opsets in OPSETS.items()
    for opset in opsets
    if (wanted := Export(family, opset, exporter)) not in REFUSED | UNFAITHFUL
)


# -- What a test run has time for ------------------------------------------------------------------------------------


def one_per_exporter() -> list[Export]:
    """Each family at one opset of each exporter; together they have every opset."""
    chosen = []
    for exporter in OPSETS:
        for i, family in enumerate(FAMILIES):
            possible = [entry for entry in EXPORTS if (entry.family, entry.exporter) == (family, exporter)]
            chosen.append(possible[i % len(possible)])
    return chosen


CHOSEN = one_per_exporter()
"""One of each family and exporter, all operator sets among them."""

_LIGHT = ("resnet18", "vit", "unet", "bert", "lstm", "gru", "smooth_cnn")
QUICK = tuple(entry for entry in CHOSEN if entry.exporter == "torchscript" or entry.family in _LIGHT)
"""Those that are made in every run: the newer exporter takes ten seconds for a deep network."""
