"""Whole methods with onnxruntime's CUDA provider: occlusion maps beside plain batches, features straight into a search.

Networks have seeded random weights (``networks.py``), which change no time; torch writes them, and serves for nothing
else. Every answer is compared: maps with those of whole runs through a bare session, neighbours with the CPU's. Medians
of several runs, wall clock. Prints a table in Markdown; exit code 1 where an answer differs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnxruntime
from plain_loop import PlainLoop

import onnxviz as ov
from onnxviz import backend
from onnxviz.methods.patches import grid_patches

PHOTO = Path(__file__).parents[1] / "models" / "photos" / "chelsea.jpg"
TARGET = 281
WINDOW, STRIDE = 32, 8
NEIGHBORS = 10


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median after a first run, which may choose algorithms and take memory."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def open_session(serialized: bytes, device: str) -> onnxruntime.InferenceSession:
    provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    # As exact as ours: the default rounds factors to 11 bits.
    options = {} if device == "cpu" else {"use_tf32": "0"}
    session = onnxruntime.InferenceSession(serialized, providers=[(provider, options)])
    assert session.get_providers()[0] == provider
    return session


def measure_occlusion(name: str, folder: Path, device: str, repeats: int, *, incremental: bool) -> bool:
    """Lines of the table; whether the maps agree."""
    path = networks.export(name, folder)
    model = ov.load(path, preprocess="imagenet", device=device)
    output = model.loaded.proto.graph.output[0].name

    def ours(method: str) -> Any:
        return ov.occlusion(
            model, PHOTO, target=(output, TARGET), window=WINDOW, stride=STRIDE, baseline="dataset", method=method
        )

    found = ours("auto")
    image = next(iter(ov.load_images([PHOTO], model).batches(1))).tensor[0]
    fill = np.zeros_like(image)  # the data set's mean, normalised
    boxes = grid_patches((224, 224), (WINDOW, WINDOW), (STRIDE, STRIDE), "clip").flat
    loop = PlainLoop(model, output, image, fill, lambda serialized, _: open_session(serialized, device))
    loop.tune(lambda: seconds(lambda: loop.run(boxes[:512]), 3), (16, 32, 64, 128, 256))
    wanted = loop.run(boxes)[:, TARGET]
    error = float(np.abs(found.probability.ravel() - wanted).max() / np.abs(wanted).max())
    auto, bare = seconds(lambda: ours("auto"), repeats), seconds(lambda: loop.run(boxes), repeats)
    print(
        f"| occlusion, {name}, {len(boxes)} positions | {found.provenance.parameters['method']} {auto:.3f} s | "
        f"bare session, batch {loop.batch}: {bare:.3f} s, {bare / auto:.2f} × | largest difference {error:.1e} |",
        flush=True,
    )
    if incremental:
        other = seconds(lambda: ours("incremental"), 1)
        print(f"| the same, {name} | incremental {other:.3f} s, {auto / other:.2f} × | | |", flush=True)
    return error < 1e-3


def measure_features(name: str, folder: Path, device: str, count: int, repeats: int) -> bool:
    """Features of many pictures and everybody's neighbours, on the device and through the host."""
    model = ov.load(networks.export(name, folder), preprocess="imagenet", device=device)
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (count, 8, 8, 3), np.uint8)
    pictures = [np.kron(block, np.ones((28, 28, 1), np.uint8)) for block in blocks]
    images = ov.load_images(pictures, model)
    features = ov.features(model, images)
    k = NEIGHBORS

    def search(where: str) -> Any:
        return ov.NearestNeighbors(k, device=where).fit(features.array).kneighbors()

    there, here = search(device), search("cpu")
    same = bool(np.array_equal(there[0], here[0]) and np.array_equal(there[1], here[1]))
    times = [seconds(lambda: ov.features(model, images), repeats)]
    times += [seconds(lambda where=where: search(where), repeats) for where in (device, "cpu")]
    print(
        f"| features, {name}, {count:,} pictures, {features.array.shape[1]} wide | {times[0]:.2f} s "
        f"({count / times[0]:,.0f} pictures/s) | search on the device {times[1]:.3f} s | on the CPU {times[2]:.3f} s | "
        f"{'the same' if same else 'DIFFERENT'} neighbours |",
        flush=True,
    )
    return same


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cpu: to try this program")
    parser.add_argument("--networks", nargs="+", default=["resnet50", "vgg16"])
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--incremental", action="store_true", help="the incremental way, too, which takes minutes")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, {', '.join(backend.cuda_status().devices) or 'no CUDA device'}")
    with tempfile.TemporaryDirectory() as folder:
        right = [
            measure_occlusion(name, Path(folder), chosen.device, chosen.repeats, incremental=chosen.incremental)
            for name in chosen.networks
        ]
        last = chosen.networks[-1]
        right.append(measure_features(last, Path(folder), chosen.device, chosen.pictures, min(3, chosen.repeats)))
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(_main())
