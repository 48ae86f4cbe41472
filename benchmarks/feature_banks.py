"""Banks of 4096-d float32 features and queries from outside them: real, simulated and noise, kept as .npy files.

``ONNXVIZ_BENCHMARK_CACHE`` names their folder (default ``~/.cache/onnxviz-benchmarks``), ``ONNXVIZ_ZOO`` the photos and
the network of the real ones. A row depends on its number only, so a smaller bank is the beginning of a larger one.
``python benchmarks/feature_banks.py 100000`` makes all three and prints what they are.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FEATURES = 4096

Kind = Literal["real", "simulated", "gaussian"]
Role = Literal["bank", "queries"]
VERSIONS: dict[Kind, int] = {"real": 2, "simulated": 1, "gaussian": 1}
"""Part of a file's name: to be raised whenever the same name would hold other numbers."""
KINDS: tuple[Kind, ...] = tuple(VERSIONS)

_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_SEEDS = {"bank": 1, "queries": 2}


def bank(kind: Kind, rows: int) -> Path:
    """The file of a bank, made if it is not there yet."""
    return _cached(kind, "bank", rows)


def queries(kind: Kind, count: int) -> Path:
    """The file of queries drawn as the bank's rows are, but from other photos or other random numbers."""
    return _cached(kind, "queries", count)


def zoo() -> Path | None:
    """Folder of the network and the photos, where there is one."""
    folder = os.environ.get("ONNXVIZ_ZOO")
    return Path(folder) if folder and Path(folder).is_dir() else None


@dataclass(frozen=True)
class Contrast:
    """How much nearer the tenth neighbour is than the middle one, and how dense the rows are."""

    tenth: float
    median: float
    nonzero: float

    @property
    def ratio(self) -> float:
        """Near 1 for noise, where no bound can leave a row out; small where neighbours are alike."""
        return self.tenth / self.median

    def __str__(self) -> str:
        return f"d10 / median {self.tenth:.1f} / {self.median:.1f} = {self.ratio:.2f}, {self.nonzero:.1%} not zero"


def contrast(rows: NDArray[np.float32], wanted: NDArray[np.float32], count: int = 32) -> Contrast:
    """Medians over some of the queries."""
    some = wanted[np.linspace(0, len(wanted) - 1, min(count, len(wanted))).astype(np.int64)].astype(np.float64)
    squares = np.empty((len(some), len(rows)))
    nonzero = 0
    for start in range(0, len(rows), 4096):
        block = rows[start : start + 4096].astype(np.float64)
        squares[:, start : start + len(block)] = np.einsum("ij,ij->i", block, block) - 2 * some @ block.T
        nonzero += np.count_nonzero(block)
    distances = np.sqrt(np.maximum(squares + np.einsum("ij,ij->i", some, some)[:, np.newaxis], 0))
    tenth = np.partition(distances, 9, axis=1)[:, 9]
    ratio = np.median(tenth / np.median(distances, axis=1))
    median = float(np.median(distances))
    return Contrast(float(ratio) * median, median, nonzero / rows.size)


def _cached(kind: Kind, role: Role, rows: int) -> Path:
    folder = Path(os.environ.get("ONNXVIZ_BENCHMARK_CACHE") or Path.home() / ".cache" / "onnxviz-benchmarks")
    target = folder / f"{kind}-{role}-{rows}-v{VERSIONS[kind]}.npy"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    try:
        array = np.lib.format.open_memmap(part, "w+", np.float32, (rows, FEATURES))
        make, size = _maker(kind, role)

        def fill(start: int) -> None:
            block = array[start : start + size]
            block[:] = make(start // size)[: len(block)]

        with ThreadPoolExecutor(_CORES if kind == "real" else 1) as workers:
            for _ in workers.map(fill, range(0, rows, size)):
                pass
        array.flush()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _maker(kind: Kind, role: Role) -> tuple[Callable[[int], NDArray[np.float32]], int]:
    """What makes the block of a number, and the rows of a block."""
    if kind == "real":
        folder = zoo()
        if folder is None:
            raise FileNotFoundError("ONNXVIZ_ZOO does not name the folder of real models and photos")
        return _RealFeatures(folder, role).block, _RealFeatures.ROWS
    if kind == "simulated":
        return functools.partial(_simulated_network().block, role), _SimulatedNetwork.ROWS
    return (
        lambda number: np.random.default_rng((3, _SEEDS[role], number)).standard_normal((1000, FEATURES), np.float32)
    ), 1000


class _RealFeatures:
    """EfficientNet-Lite0's head convolution of random crops, half of them of photos and half of CIFAR-10 images.

    The map after the ReLU6 and before the average is 4 × 4 at 128 pixels: its first 1,024 channels, maxima of 2 × 2.
    Every tenth photo is left to the queries, which are crops of such photos only.
    """

    ROWS = 64
    SIDE = 128
    HELD_OUT = 10

    def __init__(self, folder: Path, role: Role) -> None:
        self.seed = _SEEDS[role]
        photos = sorted((folder / "images" / "imagenet").glob("*.jpg"))
        tiny = sorted((folder / "images" / "cifar10").glob("*/*"))
        held_out = photos[:: self.HELD_OUT]
        self.sources = [held_out] if role == "queries" else [sorted(set(photos) - set(held_out)), tiny]
        self.smallest_area = (0.1, 0.4)
        self.session, self.source, self.value = _head_convolution(folder, self.SIDE)
        self.image = functools.cache(_decode)

    def block(self, number: int) -> NDArray[np.float32]:
        random = np.random.default_rng((1, self.seed, number))
        crops = np.stack([self._crop(random) for _ in range(self.ROWS)]).astype(np.float32)
        tensor = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
        maps = self.session.run([self.value], {self.source: (tensor - 127) / 128})[0][:, : FEATURES // 4]
        maps = np.maximum(maps[:, :, 0::2], maps[:, :, 1::2])
        return np.maximum(maps[..., 0::2], maps[..., 1::2]).reshape(self.ROWS, FEATURES)

    def _crop(self, random: np.random.Generator) -> NDArray[np.uint8]:
        """A random rectangle of a random image, perhaps mirrored."""
        from PIL import Image

        which = int(random.integers(len(self.sources)))
        image = self.image(self.sources[which][random.integers(len(self.sources[which]))])
        area = random.uniform(self.smallest_area[which], 1) * image.width * image.height
        shape = math.exp(random.uniform(-1, 1) * math.log(4 / 3))
        width, height = min(math.sqrt(area * shape), image.width), min(math.sqrt(area / shape), image.height)
        left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
        box = (left, top, left + width, top + height)
        pixels = np.asarray(image.resize((self.SIDE, self.SIDE), Image.Resampling.BILINEAR, box))
        return pixels[:, ::-1] if random.integers(2) else pixels


def _decode(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def _head_convolution(folder: Path, side: int) -> tuple[Any, str, str]:
    """A session of the network up to its last ReLU6, its input and its output."""
    import onnx
    import onnxruntime

    from onnxviz.graph.taps import expose

    proto = onnx.load(folder / "models" / "efficientnet-lite0-torchscript-op13.onnx")
    pool = next(node for node in proto.graph.node if node.op_type == "GlobalAveragePool")
    headless = expose(proto, [pool.input[0]])
    for place in (2, 3):
        headless.graph.input[0].type.tensor_type.shape.dim[place].dim_value = side
    # Shapes that the exporter wrote down are those of 224 pixels.
    headless.graph.ClearField("value_info")
    options = onnxruntime.SessionOptions()
    # Blocks run side by side, one on each core.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(headless.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, headless.graph.input[0].name, pool.input[0]


class _SimulatedNetwork:
    """Features like those of AlexNet's fc7: a random ReLU network of 1,000 classes with units of very unequal gain."""

    ROWS = 2000
    CLASSES, LATENT, HIDDEN = 1000, 96, 1024

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.classes = random.standard_normal((self.CLASSES, self.LATENT), np.float32)
        self.first = random.standard_normal((self.LATENT, self.HIDDEN), np.float32) / np.float32(self.LATENT**0.5)
        self.second = random.standard_normal((self.HIDDEN, FEATURES), np.float32) * np.float32((2 / self.HIDDEN) ** 0.5)
        self.gain = np.exp(0.5 * random.standard_normal(FEATURES, np.float32))
        self.decay = np.arange(1, self.LATENT + 1, dtype=np.float32) ** np.float32(-0.35)
        sample = self._potentials(random)
        self.spread = sample.std(axis=0)
        offset = np.float32(0.68) + np.float32(0.5) * random.standard_normal(FEATURES, np.float32)
        self.threshold = sample.mean(axis=0) + offset * self.spread

    def block(self, role: Role, number: int) -> NDArray[np.float32]:
        random = np.random.default_rng((2, _SEEDS[role], number))
        potentials = self._potentials(random)
        # 15 % of independent noise.
        potentials += np.float32(0.15) * self.spread * random.standard_normal(potentials.shape, np.float32)
        return np.maximum((potentials - self.threshold) / self.spread, 0) * self.gain

    def _potentials(self, random: np.random.Generator) -> NDArray[np.float32]:
        latent = self.classes[random.integers(0, self.CLASSES, self.ROWS)]
        latent = latent + np.float32(0.7) * random.standard_normal(latent.shape, np.float32)
        return np.asarray(np.maximum(latent * self.decay @ self.first, 0) @ self.second)


_simulated_network = functools.cache(_SimulatedNetwork)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: all")
    chosen = parser.parse_args()
    for kind in chosen.kind or KINDS:
        files = bank(kind, chosen.rows), queries(kind, chosen.queries)
        described = contrast(*(np.load(file, mmap_mode="r") for file in files))
        print(f"{kind}: {described}", *files, sep="\n  ", flush=True)


if __name__ == "__main__":
    _main()
