"""Features of 500 photos through ``Model.run`` beside a bare onnxruntime loop on the same arrays and the same batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import onnxviz as ov
from onnxviz.graph.detached import take_inside
from onnxviz.graph.taps import expose

NETWORKS = {"squeezenet1.1-imagenet": "caffe", "efficientnet-lite0-torchscript-op13": "efficientnet-lite"}
PHOTOS = 500
PAIRS = 7


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.benchmark(group="features")
@pytest.mark.parametrize("name", NETWORKS)
def test_features_cost_no_more_than_a_bare_loop(name: str, zoo: Path, request: pytest.FixtureRequest) -> None:
    timed = request.config.getoption("benchmark_enable", default=False)
    model = ov.load(zoo / "models" / f"{name}.onnx", preprocess=NETWORKS[name], device="cpu")
    images = ov.load_images(zoo / "images" / "imagenet", model, limit=PHOTOS if timed else 16)
    tensor = np.concatenate([batch.tensor for batch in images.batches(32)])
    value = str(model.feature_value)
    whole = take_inside(expose(model.loaded.proto, [value]), model.loaded.weights)
    bare = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = bare.get_inputs()[0].name
    size = model.batch_size

    def loop() -> np.ndarray:
        return np.concatenate([bare.run([value], {feed: tensor[i : i + size]})[0] for i in range(0, len(tensor), size)])

    def ours() -> np.ndarray:
        return model.run(tensor, (value,))[value]

    np.testing.assert_array_equal(ours(), loop())
    if not timed:
        return
    ratios = []
    for pair in range(PAIRS):
        first, second = (ours, loop) if pair % 2 else (loop, ours)
        seconds = {first: cpu_seconds(first), second: cpu_seconds(second)}
        ratios.append(seconds[loop] / seconds[ours])
    median = statistics.median(ratios)
    print(f"\n{name}: bare / onnxviz CPU seconds {median:.3f} (spread {min(ratios):.3f} to {max(ratios):.3f})")
    assert median >= 0.95
