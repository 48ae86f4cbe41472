"""Gradients by the input, batch 8, 224 × 224: ours beside torch's with frozen parameters; every answer is compared.

``--benchmark-enable -s`` times five networks in interleaved pairs, measures peak memory in processes of their own, and
what Integrated Gradients and SmoothGrad keep of the raw throughput (some six minutes on two cores); without it small
batches are compared as a test. Figures and what they mean: ``docs/decisions/0007-gradients.md``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from numpy.typing import NDArray

import onnxviz as ov
from onnxviz.methods.gradient import derive

BATCH, SIDE, CLASS = 8, 224, 281
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
NETWORKS = ("resnet50", "mobilenet_v2", "vit_small", "densenet121", "vgg16")
PAIRS = 7
STEPS = 48
"""Steps of the averaged methods: whole batches, so that the last one is as full as the others."""


@dataclass(frozen=True)
class Seconds:
    """One run."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> tuple[Any, Seconds]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def images(rows: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((rows, 3, SIDE, SIDE), np.float32)


def open_model(name: str, folder: Path) -> ov.Model:
    return ov.load(networks.export(name, folder), preprocess="imagenet", device="cpu", threads=CORES)


def ours(model: ov.Model, x: NDArray[np.float32]) -> NDArray[Any]:
    """Derivative of one logit of each image."""
    (found,) = derive(model, x, [CLASS] * len(x)).gradients.values()
    return found


def theirs(torch: Any, module: Any, x: NDArray[np.float32]) -> NDArray[Any]:
    """The same by autograd."""
    given = torch.from_numpy(x).requires_grad_(True)
    (found,) = torch.autograd.grad(module(given)[:, CLASS].sum(), given)
    return np.asarray(found.numpy())


def difference(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


@pytest.mark.oracles
@pytest.mark.parametrize("name", NETWORKS)
def test_gradient(
    name: str, request: pytest.FixtureRequest, torch: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    enabled = request.config.getoption("benchmark_enable", default=False)
    torch.set_num_threads(CORES)
    model, module = open_model(name, folder), networks.module(name)
    x = images(BATCH if enabled else 1)
    found, first = timed(lambda: ours(model, x))
    # Units of a deep ReLU network fall on the other side of their kink when sums are added in another order; torch
    # differs as much from itself in float64 (tests/test_gradient_exports.py).
    error = difference(found, theirs(torch, module, x))
    assert error < (1e-5 if name == "vit_small" else 3e-2)
    if not enabled:
        return
    runs: dict[str, list[Seconds]] = {"ours": [], "torch": []}
    works = {"ours": lambda: ours(model, x), "torch": lambda: theirs(torch, module, x)}
    for number in range(PAIRS):
        for side in sorted(works, reverse=bool(number % 2)):
            runs[side].append(timed(works[side])[1])
    cpu = [mine.cpu / peer.cpu for mine, peer in zip(runs["ours"], runs["torch"], strict=True)]
    wall = [mine.wall / peer.wall for mine, peer in zip(runs["ours"], runs["torch"], strict=True)]
    print(
        f"\n{name}: ours {statistics.median(run.cpu for run in runs['ours']):.2f} CPU s, torch "
        f"{statistics.median(run.cpu for run in runs['torch']):.2f}: × torch {statistics.median(cpu):.2f} CPU "
        f"({min(cpu):.2f} to {max(cpu):.2f}), {statistics.median(wall):.2f} wall; first call {first.wall:.1f} s; "
        f"relative L2 difference {error:.0e}"
    )
    assert statistics.median(cpu) <= 1.0


@pytest.mark.oracles
@pytest.mark.usefixtures("torch")
def test_backward_graph_of_vgg16_is_built_quickly(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from onnxviz.graph.gradient.backward import build_gradient_graph
    from onnxviz.graph.gradient.normalize import normalize

    model = open_model("vgg16", tmp_path_factory.getbasetemp())
    shapes = {model.only_input: (BATCH, 3, SIDE, SIDE)}
    facts = model.gradients.facts(shapes)
    _, normalizing = timed(lambda: normalize(model.loaded.proto, where=model.name, weights=model.loaded.weights))
    graph, building = timed(
        lambda: build_gradient_graph(
            model.gradients.normalized.proto, facts, targets=["logits"], wrt=[model.only_input],
            tensors=model.gradients.normalized.weights,
        )
    )  # fmt: skip
    assert sum(len(tensor.raw_data) for tensor in graph.proto.graph.initializer) < 1 << 20, "weights were copied"
    if request.config.getoption("benchmark_enable", default=False):
        print(f"\nVGG16: normalised in {normalizing.wall:.2f} s, backward graph built in {building.wall:.2f} s")
        assert normalizing.wall + building.wall < 2


@pytest.mark.oracles
@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("network", ["resnet50", "mobilenet_v2"])
def test_averaged_methods_keep_the_raw_throughput(
    network: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = open_model(network, tmp_path_factory.getbasetemp())
    enabled = request.config.getoption("benchmark_enable", default=False)
    steps = STEPS if enabled else 8
    view = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    x = images(steps)
    works = {
        "raw": lambda: ours(model, x),
        "integrated gradients": lambda: ov.integrated_gradients(model, view, CLASS, steps=steps),
        "smoothgrad": lambda: ov.smoothgrad(model, view, CLASS, samples=steps),
    }
    runs: dict[str, list[Seconds]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(5 if enabled else 1):
        for name, work in works.items():
            runs[name].append(timed(work)[1])
    if not enabled:
        return
    for name in ("integrated gradients", "smoothgrad"):
        kept = [raw.wall / run.wall for raw, run in zip(runs["raw"], runs[name], strict=True)]
        print(f"\n{network}, {name}, {steps} steps: {statistics.median(kept):.2f} of the raw throughput")
        assert statistics.median(kept) >= 0.9


@pytest.mark.oracles
@pytest.mark.usefixtures("torch")
def test_peak_memory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    enabled = request.config.getoption("benchmark_enable", default=False)
    name, rows = ("vgg16", BATCH) if enabled else ("mobilenet_v2", 2)
    networks.export(name, folder)
    peaks = {side: _peak_of_a_process(side, name, folder, rows) for side in ("ours", "torch")}
    assert peaks["ours"] > 0
    if enabled:
        ratio = peaks["ours"] / peaks["torch"]
        mine, peer = (f"{peaks[side] / 2**20:.0f} MiB" for side in ("ours", "torch"))
        print(f"\n{name}, batch {rows}: {mine}, torch {peer}: × {ratio:.2f}")
        assert ratio <= 1.2


def _peak_of_a_process(side: str, name: str, folder: Path, rows: int) -> int:
    """Growth of the peak resident size from after the imports to after one gradient, in bytes."""
    command = [sys.executable, __file__, side, name, str(folder), str(rows)]
    # Stated, since an interpreter in safe-path mode does not look beside the script.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(json.loads(done.stdout.splitlines()[-1]))


def _child(side: str, name: str, folder: Path, rows: int) -> None:
    x = images(rows)
    if side == "ours":
        before = _resident("VmRSS")
        # Not open_model, which imports torch.
        ours(ov.load(folder / f"{name}.onnx", preprocess="imagenet", device="cpu", threads=CORES), x)
    else:
        import torch

        torch.set_num_threads(CORES)
        before = _resident("VmRSS")
        theirs(torch, networks.module(name), x)
    print(json.dumps(_resident("VmHWM") - before))


def _resident(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
