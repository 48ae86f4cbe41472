"""Train the CIFAR-10 network that onnxviz carries, and write it as ``cifar10_7x7_4096.onnx``.

Usage: ``python models/train_cifar10.py TRAIN_FOLDER --out models``

TRAIN_FOLDER holds one folder of 32 x 32 images for each of the ten classes, named as the class (the 50,000 training
images; they are not part of the project). The network has 48 first filters of 7 x 7 colour pixels and a last hidden
layer of 4096 numbers (256 channels of 4 x 4). Nine epochs take about 16 minutes on 2 cores. torch is a tool of this
script alone; the package never imports it.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from describe import describe
from numpy.typing import NDArray
from PIL import Image
from torch import nn

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
"""Per channel, of the training pixels divided by 255."""
PREPROCESS = {
    "size": [32, 32],
    "fit": "stretch",
    "interpolation": "bilinear",
    "channels": "RGB",
    "scale": 1 / 255,
    "mean": list(MEAN),
    "std": list(STD),
    "layout": "NCHW",
    "dtype": "float32",
    "name": "cifar10",
}
BATCH = 256
PEAK_RATE = 0.2
SHIFT = 4
"""Random shift of a training batch in pixels, to each side."""


class Net(nn.Module):
    """Four convolutions with batch normalisation, three of them followed by a halving, and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *self.block(3, 48, 7),
            nn.MaxPool2d(2),
            *self.block(48, 96, 3),
            nn.MaxPool2d(2),
            *self.block(96, 160, 3),
            *self.block(160, 256, 3),
            nn.MaxPool2d(2),
        )
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(0.3)
        self.classifier = nn.Linear(4096, len(LABELS))

    @staticmethod
    def block(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
        """Make a convolution that keeps the size, its normalisation and its ReLU."""
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 10) of normalised images (n, 3, 32, 32)."""
        logits: torch.Tensor = self.classifier(self.drop(self.flatten(self.features(x))))
        return logits


def read_images(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the images (n, 32, 32, 3) and class numbers (n,) of the ten class folders."""
    images, labels = [], []
    for label, name in enumerate(LABELS):
        files = sorted(path for path in (folder / name).iterdir() if not path.name.startswith("."))
        images += [np.asarray(Image.open(path).convert("RGB")) for path in files]
        labels += [label] * len(files)
    return np.stack(images), np.array(labels)


def train(images: NDArray[np.uint8], labels: NDArray[np.int64], *, epochs: int, steps: int | None, seed: int) -> Net:
    """One-cycle SGD with shifts, mirror images and smoothed labels; ``steps`` ends it early (a trial run)."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    targets = torch.from_numpy(labels)
    net = Net().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=PEAK_RATE, momentum=0.9, weight_decay=1e-3, nesterov=True)
    per_epoch = max(1, len(pixels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=epochs * per_epoch, pct_start=0.25)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    mean, std = (255 * torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (MEAN, STD))
    padded = nn.functional.pad(pixels, (SHIFT,) * 4)
    done = 0
    for epoch in range(epochs):
        started = time.monotonic()
        order = torch.randperm(len(pixels), generator=random)
        for step in range(per_epoch):
            rows = order[step * BATCH : (step + 1) * BATCH]
            dy, dx = torch.randint(0, 2 * SHIFT + 1, (2,), generator=random).tolist()
            batch = padded[rows, :, dy : dy + 32, dx : dx + 32].float()
            mirrored = torch.rand(len(rows), generator=random) < 0.5
            batch[mirrored] = batch[mirrored].flip(-1)
            loss = loss_of(net(((batch - mean) / std).contiguous(memory_format=torch.channels_last)), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                return net
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)
    return net


def to_onnx(net: Net) -> onnx.ModelProto:
    """Export through torch's TorchScript exporter, which names the values after the modules."""
    plain = Net()
    plain.load_state_dict(net.state_dict())
    file = io.BytesIO()
    torch.onnx.export(
        plain.eval(),
        (torch.zeros(1, 3, 32, 32),),
        file,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    return onnx.load_from_string(file.getvalue())


def described(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add the input contract, the class names, title, author and licence."""
    return describe(
        model,
        preprocess=PREPROCESS,
        labels=LABELS,
        title="CIFAR-10, colour 7 x 7 first filters, 4096 features",
        author="onnxviz, models/train_cifar10.py",
        licence="Apache-2.0",
    )


def main() -> None:
    """Train and write the model."""
    parser = argparse.ArgumentParser(description="Train the embedded CIFAR-10 network.")
    parser.add_argument("folder", type=Path, help="folder with one folder of training images for each class")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write into")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--steps", type=int, help="stop after so many steps: a trial run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    net = train(*read_images(options.folder), epochs=options.epochs, steps=options.steps, seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    onnx.save(described(to_onnx(net)), options.out / "cifar10_7x7_4096.onnx")


if __name__ == "__main__":
    main()
