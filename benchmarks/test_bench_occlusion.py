"""Whole occlusion maps: ours beside the best-tuned loop of whole runs and beside Captum; every answer is compared.

``--benchmark-enable -s`` times eight networks and prints a table each (some twenty minutes on two cores); without it
small maps are made as a test. Figures and what they mean: ``docs/decisions/0004-exact-incremental-occlusion.md``.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from plain_loop import PlainLoop

import onnxviz as ov
from onnxviz.methods.patches import grid_patches
from onnxviz.results import Occlusion
from onnxviz.runtime.model import Model

MODELS = Path(__file__).parents[1] / "models"
PHOTO = MODELS / "photos" / "chelsea.jpg"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
TARGET = 281
TUNED_ON = 24
"""Positions on which the plain loop is tuned."""


@dataclass(frozen=True)
class Network:
    """What is measured, and what it must reach at patch 32, stride 16, in CPU seconds on 224 × 224 pixels."""

    name: str
    preprocess: str = "imagenet"
    over_plain: float | None = None
    over_captum: float | None = None
    pairs: int = 5


NETWORKS = (
    # 8 × Captum was asked for and is not reached: the decision page says where the last 3 % go.
    Network("vgg16", over_plain=5.8, over_captum=7.5, pairs=3),
    Network("alexnet", over_plain=2.3, over_captum=3, pairs=9),
    Network("resnet50", over_plain=2.0, over_captum=2.7),
    Network("mobilenet_v2", over_plain=1.85, over_captum=5, pairs=11),
    Network("efficientnet_lite0", "efficientnet-lite", over_plain=1.6, over_captum=7, pairs=11),
    Network("densenet121", over_plain=1.6),
    Network("vit_tiny", pairs=3),
    Network("squeezenet1.1-imagenet", "caffe", pairs=9),
)


@dataclass(frozen=True)
class Seconds:
    """One run."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> tuple[Any, Seconds]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def tune(loop: PlainLoop, boxes: NDArray[np.int64]) -> str:
    """Choose the loop's workers and batch by CPU seconds on a few positions."""
    some = boxes[np.linspace(0, len(boxes) - 1, min(TUNED_ON, len(boxes))).astype(np.int64)]

    def cost() -> float:
        # A batch beyond the sample is judged by a whole batch of repeated positions.
        sample = np.resize(some, (max(len(some), loop.batch * loop.workers), 4))
        loop.run(sample[: loop.batch * loop.workers])
        return timed(lambda: loop.run(sample))[1].cpu / len(sample)

    loop.tune(cost, (1, 2, 4, 8, 16, 32, 64))
    return f"{loop.workers} × {max(loop.sessions) // loop.workers} threads, batch {loop.batch}"


def _session(serialized: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])


class Captum:
    """Captum's occlusion of a torch module on the same image, at its best number of perturbations per call."""

    def __init__(self, captum: Any, torch: Any, module: Any, image: NDArray[Any], fill: NDArray[Any]) -> None:
        torch.set_num_threads(CORES)
        self.occlusion = captum.Occlusion(module)
        self.image, self.fill = (torch.from_numpy(array[np.newaxis].copy()) for array in (image, fill))
        self.per_call = 1

    def run(self, window: int, stride: int) -> NDArray[Any]:
        """Importance of each pixel."""
        return np.asarray(
            self.occlusion.attribute(
                self.image, target=TARGET, sliding_window_shapes=(3, window, window), strides=(3, stride, stride),
                baselines=self.fill, perturbations_per_eval=self.per_call,
            ).numpy()[0, 0]
        )  # fmt: skip

    def tune(self) -> str:
        """Choose the number of perturbations by CPU seconds on a coarse grid."""
        found = {}
        for per_call in (1, 4, 8, 16, 32):
            self.per_call = per_call
            self.run(112, 112)
            found[per_call] = timed(lambda: self.run(64, 32))[1].cpu
        self.per_call = min(found, key=lambda key: found[key])
        return f"{self.per_call} per call"


@dataclass
class Setting:
    """One network, opened, with one photo."""

    network: Network
    model: Model
    output: str
    plain: PlainLoop

    def ours(self, window: int, stride: int) -> Occlusion:
        """The whole map, image file and all."""
        return ov.occlusion(
            self.model, PHOTO, target=(self.output, TARGET), window=window, stride=stride, baseline="dataset"
        )

    def theirs(self, window: int, stride: int) -> NDArray[Any]:
        """The scores at the same positions."""
        boxes = grid_patches((224, 224), (window, window), (stride, stride), "clip").flat
        return self.plain.run(boxes)[:, TARGET]


def open_setting(network: Network, folder: Path, zoo: Path | None, cores: int) -> Setting:
    if network.name.startswith("squeezenet"):
        path = MODELS / f"{network.name}.onnx"
    elif network.name.startswith("efficientnet"):
        assert zoo is not None
        path = zoo / "models" / "efficientnet-lite0-torchscript-op13.onnx"
    else:
        path = networks.export(network.name, folder)
    model = ov.load(path, preprocess=network.preprocess, device="cpu", threads=cores)
    output = model.logits_value or model.outputs[0].name
    contract = model.preprocess
    assert contract is not None
    view = ov.load_images(PHOTO, model).views([0])
    fill = np.zeros(contract.encode(view)[0].shape, np.float32)
    # One session on all cores, or one thread for each core, whichever is faster at its best batch.
    loop = PlainLoop(
        model, output, contract.encode(view)[0], fill,
        lambda serialized, workers: _session(serialized, cores // workers), workers={1, cores}, fill_threads=1,
    )  # fmt: skip
    return Setting(network, model, output, loop)


def check(setting: Setting, window: int, stride: int) -> Occlusion:
    """Our map against the plain loop's scores."""
    got, wanted = setting.ours(window, stride), setting.theirs(window, stride)
    np.testing.assert_array_equal(got.probability.ravel(), wanted)
    assert np.ptp(wanted) > 1e-3 * np.abs(wanted).max()
    return got


@dataclass(frozen=True)
class Pairs:
    """Interleaved runs of ours and of the plain loop."""

    ours: list[Seconds]
    plain: list[Seconds]

    @property
    def ratios(self) -> list[float]:
        """CPU seconds of the plain loop over ours, pair by pair."""
        return [plain.cpu / ours.cpu for ours, plain in zip(self.ours, self.plain, strict=True)]

    @property
    def ratio(self) -> float:
        """Median of the ratios."""
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        median = {
            (side, unit): statistics.median(getattr(run, unit) for run in getattr(self, side))
            for side in ("ours", "plain")
            for unit in ("wall", "cpu")
        }
        wall = statistics.median(plain.wall / ours.wall for ours, plain in zip(self.ours, self.plain, strict=True))
        return (
            f"ours {median['ours', 'wall']:.3f} s ({median['ours', 'cpu']:.3f} CPU), "
            f"plain {median['plain', 'wall']:.3f} s ({median['plain', 'cpu']:.3f} CPU): "
            f"× plain {self.ratio:.2f} CPU ({min(self.ratios):.2f} to {max(self.ratios):.2f}), {wall:.2f} wall"
        )


def side_by_side(setting: Setting, window: int, stride: int, pairs: int) -> Pairs:
    found = Pairs([], [])
    works = (
        (found.ours, lambda: setting.ours(window, stride)),
        (found.plain, lambda: setting.theirs(window, stride)),
    )
    for number in range(pairs):
        for runs, work in works if number % 2 else works[::-1]:
            runs.append(timed(work)[1])
    return found


def plan_text(result: Any, ratio: float | None = None) -> str:
    plan = result.provenance.parameters["plan"]
    if "mac_ratio" not in plan:
        return plan["why"]
    of_ideal = f", {ratio / plan['ideal_mac_ratio']:.2f} of the ideal" if ratio else ""
    return (
        f"multiply-accumulates ÷ {plan['mac_ratio']:.2f}, ideal {plan['ideal_mac_ratio']:.2f}{of_ideal}; "
        f"{plan['memory_bytes'] / 2**20:.0f} MiB"
    )


def parameters() -> list[Any]:
    """Every network; those that torch makes, or is asked about, run where the oracles do."""
    return [
        pytest.param(
            network, id=network.name, marks=() if network.name.startswith("squeezenet") else (pytest.mark.oracles,)
        )
        for network in NETWORKS
    ]


@pytest.mark.parametrize("network", parameters())
def test_occlusion(network: Network, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    enabled = request.config.getoption("benchmark_enable", default=False)
    zoo = request.getfixturevalue("zoo") if network.name.startswith("efficientnet") else None
    torch, captum = None, None
    if not network.name.startswith("squeezenet"):
        torch, captum = request.getfixturevalue("torch"), request.getfixturevalue("captum")
    setting = open_setting(network, tmp_path_factory.getbasetemp(), zoo, CORES)
    if not enabled:
        got = check(setting, 32, 36)
        assert (got.provenance.parameters["method"] == "plain") == (network.name == "vit_tiny")
        return

    _, cold = timed(lambda: setting.ours(32, 16))
    tuned = tune(setting.plain, grid_patches((224, 224), (32, 32), (16, 16), "clip").flat)
    got = check(setting, 32, 16)
    print(f"\n{network.name}: {got.probability.size} positions at stride 16; plain loop: {tuned}")
    pairs = side_by_side(setting, 32, 16, network.pairs)
    ratio, seconds = pairs.ratio, statistics.median(run.cpu for run in pairs.ours)
    print(f"  patch 32, stride 16   {pairs}")
    print(f"    {plan_text(got, ratio)}; first call, plan and sessions made {cold.wall:.2f} s")
    steps = iter(ov.occlusion_steps(
        setting.model, PHOTO, target=(setting.output, TARGET), window=32, stride=16, baseline="dataset"
    ))  # fmt: skip
    _, first = timed(lambda: next(steps))
    _, rest = timed(lambda: list(steps))
    share = first.wall / (first.wall + rest.wall)
    print(f"    first step after {1000 * first.wall:.0f} ms, {100 * share:.1f} % of {first.wall + rest.wall:.2f} s")
    if captum is not None and (module := _module(network)) is not None:
        peer = Captum(captum, torch, module, setting.plain.image, setting.plain.fill)
        best = peer.tune()
        runs = [timed(lambda: peer.run(32, 16)) for _ in range(1 if network.name in ("vgg16", "densenet121") else 3)]
        importance = runs[0][0]
        assert np.abs(importance - got.importance).max() <= 1e-3 * np.abs(importance).max()
        theirs = statistics.median(run.cpu for _, run in runs)
        wall = statistics.median(run.wall for _, run in runs)
        print(f"    Captum ({best}) {wall:.2f} s ({theirs:.2f} CPU): × Captum {theirs / seconds:.2f} CPU")
        if network.over_captum is not None:
            assert theirs / seconds >= network.over_captum
    else:
        print("    Captum: no torch module of it here")
    if network.over_plain is not None:
        assert ratio >= network.over_plain
    if network.name == "vit_tiny":
        assert got.provenance.parameters["method"] == "plain"
        return
    for window, stride in ((32, 32), (32, 8), (16, 16), (16, 8)):
        other = setting.ours(window, stride)
        pairs = side_by_side(setting, window, stride, 1)
        print(f"  patch {window}, stride {stride:<2}   {pairs}\n    {plan_text(other, pairs.ratio)}")
    other, fine = timed(lambda: setting.ours(32, 4))
    print(f"  patch 32, stride 4    ours {fine.wall:.2f} s ({fine.cpu:.2f} CPU); {plan_text(other)}")
    alone = open_setting(network, tmp_path_factory.getbasetemp(), zoo, 1)
    alone.plain.batch = setting.plain.batch
    alone.ours(32, 16)  # plan and sessions are made
    print(f"  one core, 32 and 16   {side_by_side(alone, 32, 16, 1)}")


def _module(network: Network) -> Any:
    if not network.name.startswith("efficientnet"):
        return networks.module(network.name)
    try:
        return networks.efficientnet_lite0()
    except ImportError:
        return None
