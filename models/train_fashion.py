"""Train the small Fashion-MNIST network that onnxviz carries, and write it with 2,000 of the test images.

Usage: ``python models/train_fashion.py /usr/share/datasets/fashion-mnist --out models``

The folder is what Debian's package ``dataset-fashion-mnist`` installs: four gzipped IDX files. The network has 48 first
filters of 7 x 7 pixels and a last hidden layer of 4096 numbers (64 channels of 8 x 8), the shape of the networks in the
lecture that onnxviz follows. torch is a tool of this script alone; the package never imports it.
"""

from __future__ import annotations

import argparse
import gzip
import io
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from describe import describe
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

LABELS = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
MEAN, STD = 0.2860, 0.3530
"""Mean and standard deviation of the training pixels divided by 255."""
PREPROCESS = {
    "size": [28, 28],
    "fit": "stretch",
    "interpolation": "bilinear",
    "channels": "GRAY",
    "scale": 1 / 255,
    "mean": [MEAN],
    "std": [STD],
    "layout": "NCHW",
    "dtype": "float32",
    "name": "fashion-mnist",
}
BATCH = 256
PEAK_RATE = 0.2
SHIFT = 2
"""Random shift of a training batch in pixels, to each side."""


class Net(nn.Module):
    """Four convolutions; the first pads by 5, so that 28 x 28 pixels become a 32 x 32 map and later 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 48, 7, padding=5, bias=False)
        self.norm1 = nn.BatchNorm2d(48)
        self.conv2 = nn.Conv2d(48, 96, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(96)
        self.conv3 = nn.Conv2d(96, 96, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(96)
        self.conv4 = nn.Conv2d(96, 64, 3, padding=1, bias=False)
        self.norm4 = nn.BatchNorm2d(64)
        self.dropout = nn.Dropout(0.4)
        self.classifier = nn.Linear(4096, len(LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 10) of normalised images (n, 1, 28, 28)."""
        x = nn.functional.max_pool2d(torch.relu(self.norm1(self.conv1(x))), 2)
        x = nn.functional.max_pool2d(torch.relu(self.norm2(self.conv2(x))), 2)
        x = torch.relu(self.norm3(self.conv3(x)))
        x = torch.relu(self.norm4(self.conv4(x)))
        logits: torch.Tensor = self.classifier(self.dropout(x.flatten(1)))
        return logits


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read the array of a gzipped IDX file of bytes."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path}: not an IDX file of bytes")
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def read_split(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read images (n, 28, 28) and labels (n,) of ``"train"`` or ``"t10k"``."""
    return read_idx(folder / f"{split}-images-idx3-ubyte.gz"), read_idx(folder / f"{split}-labels-idx1-ubyte.gz")


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Turn bytes into the numbers that the network takes."""
    return (images.float() / 255 - MEAN) / STD


def train(images: NDArray[np.uint8], labels: NDArray[np.uint8], *, epochs: int, steps: int | None, seed: int) -> Net:
    """One-cycle SGD with shifts, mirror images and smoothed labels; ``steps`` ends it early (a trial run)."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    net = Net().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=PEAK_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    total = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=total, pct_start=0.25)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    padded = nn.functional.pad(torch.from_numpy(images.copy())[:, None], (SHIFT, SHIFT, SHIFT, SHIFT))
    targets = torch.from_numpy(labels.astype(np.int64))
    done = 0
    for epoch in range(epochs):
        started = time.monotonic()
        order = torch.randperm(len(images), generator=random)
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            dy, dx = torch.randint(0, 2 * SHIFT + 1, (2,), generator=random).tolist()
            batch = padded[rows, :, dy : dy + 28, dx : dx + 28]
            mirrored = torch.rand(len(rows), generator=random) < 0.5
            batch[mirrored] = batch[mirrored].flip(-1)
            loss = loss_of(net(normalise(batch).contiguous(memory_format=torch.channels_last)), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                return net.eval()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)
    return net.eval()


def to_onnx(net: Net) -> onnx.ModelProto:
    """Make a graph with readable value names; batch normalisation is folded into the convolutions."""
    nodes, weights = [], []
    previous = "image"
    pairs = (
        (net.conv1, net.norm1, 5),
        (net.conv2, net.norm2, 1),
        (net.conv3, net.norm3, 1),
        (net.conv4, net.norm4, 1),
    )
    for number, (convolution, norm, padding) in enumerate(pairs, start=1):
        fused = fuse_conv_bn_eval(convolution, norm)
        name = f"conv{number}"
        for part, tensor in (("weight", fused.weight), ("bias", fused.bias)):
            weights.append(numpy_helper.from_array(np.ascontiguousarray(tensor.detach().numpy()), f"{name}.{part}"))
        nodes.append(
            helper.make_node(
                "Conv",
                [previous, f"{name}.weight", f"{name}.bias"],
                [name],
                name,
                kernel_shape=list(fused.kernel_size),
                pads=[padding] * 4,
            )
        )
        previous = f"relu{number}"
        nodes.append(helper.make_node("Relu", [name], [previous], previous))
        if number <= 2:
            previous = f"pool{number}"
            window = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [f"relu{number}"], [previous], previous, **window))
    for part, tensor in (("weight", net.classifier.weight), ("bias", net.classifier.bias)):
        weights.append(numpy_helper.from_array(tensor.detach().numpy(), f"classifier.{part}"))
    nodes.append(helper.make_node("Flatten", [previous], ["features"], "features", axis=1))
    nodes.append(
        helper.make_node(
            "Gemm", ["features", "classifier.weight", "classifier.bias"], ["logits"], "classifier", transB=1
        )
    )
    graph = helper.make_graph(
        nodes,
        "fashion_7x7_4096",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])],
        weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="onnxviz train_fashion.py"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def choose_test_images(labels: NDArray[np.uint8], per_class: int) -> NDArray[np.int64]:
    """Return the rows of the first ``per_class`` test images of every class, in file order: no picking."""
    rows = [np.flatnonzero(labels == label)[:per_class] for label in range(len(LABELS))]
    return np.sort(np.concatenate(rows)).astype(np.int64)


def write_images(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` whose bytes depend on the arrays alone (numpy's own writer stores the time of day)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED, 9)


def main() -> None:
    """Train, measure on the test images, write the model and its images."""
    parser = argparse.ArgumentParser(description="Train the embedded Fashion-MNIST network.")
    parser.add_argument("folder", type=Path, help="folder of the four gzipped IDX files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write into")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--steps", type=int, help="stop after so many steps: a trial run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    net = train(*read_split(options.folder, "train"), epochs=options.epochs, steps=options.steps, seed=options.seed)
    images, labels = read_split(options.folder, "t10k")
    with torch.inference_mode():
        parts = torch.from_numpy(images.copy())[:, None].split(500)
        answers = torch.cat([net(normalise(part)).argmax(1) for part in parts])
    print(f"top-1 on the {len(images)} test images: {float((answers.numpy() == labels).mean()):.4f}")

    options.out.mkdir(parents=True, exist_ok=True)
    model = describe(
        to_onnx(net),
        preprocess=PREPROCESS,
        labels=LABELS,
        title="Fashion-MNIST, 7 x 7 first filters, 4096 features",
        author="onnxviz, models/train_fashion.py",
        licence="Apache-2.0",
    )
    onnx.save(model, options.out / "fashion_7x7_4096.onnx")
    rows = choose_test_images(labels, 200)
    write_images(
        options.out / "fashion_test_2000.npz",
        {"images": images[rows], "labels": labels[rows], "class_names": np.array(LABELS)},
    )


if __name__ == "__main__":
    main()
