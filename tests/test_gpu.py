"""``device="cuda"`` on a real GPU, by onnxruntime's own CUDA provider; skipped, with the reason, where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import emulated_cuda
import onnxviz as ov
from embedded_cifar import pictures
from onnxviz.errors import DeviceError
from onnxviz.runtime.devices import choose_devices
from onnxviz.runtime.model import Model

pytestmark = pytest.mark.gpu

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    """Skips where onnxruntime cannot use one."""
    if emulated_cuda.folder():
        pytest.skip("the emulated CUDA module stands where the real one would")
    try:
        choose_devices("cuda")
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def pair() -> tuple[Model, Model]:
    """A model on the CPU and on the GPU."""
    return tuple(
        ov.load(MODELS / "cifar10_7x7_4096.onnx", preprocess="cifar10", device=device) for device in ("cpu", "cuda")
    )


def close(got: np.ndarray, wanted: np.ndarray, bound: float = 1e-4) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0, atol=bound * max(float(np.abs(wanted).max()), 1e-30))


def test_values_are_those_of_the_cpu(pair: tuple[Model, Model]) -> None:
    cpu, gpu = pair
    assert gpu.provider == "CUDAExecutionProvider"
    encoded = cpu.preprocess.encode(pictures(40))
    wanted, got = (model.run(encoded, ("*Relu*", "logits")) for model in pair)
    for name, array in wanted.items():
        close(got[name], array)
    # The same bits again: no algorithm is chosen by a clock.
    again = gpu.run(encoded, ("*Relu*", "logits"))
    for name, array in got.items():
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize("method", ["plain", "auto", "incremental"])
def test_occlusion(pair: tuple[Model, Model], method: str) -> None:
    wanted, got = (ov.occlusion(model, pictures(1)[0], target=2, window=6, stride=2, method=method) for model in pair)
    close(got.probability, wanted.probability)
    close(got.importance, wanted.importance, 1e-3)
    steps = list(ov.occlusion_steps(pair[1], pictures(1)[0], target=2, window=6, stride=2, method=method))
    close(steps[-1].result.probability, wanted.probability)


def test_occlusion_of_a_larger_network() -> None:
    maps = []
    for device, method in (("cpu", "plain"), ("cuda", "auto"), ("cuda", "incremental")):
        model = ov.load(MODELS / "squeezenet1.1-imagenet.onnx", preprocess="caffe", device=device)
        photo = MODELS / "photos" / "chelsea.jpg"
        maps.append(ov.occlusion(model, photo, target=3, window=32, stride=24, method=method).probability)
    close(maps[1], maps[0])
    close(maps[2], maps[0])


def test_top_patches(pair: tuple[Model, Model]) -> None:
    name = next(value.name for value in pair[0].values() if value.kind == "relu")
    wanted, got = (ov.top_patches(model, ov.load_images(pictures(40), model), value=name, k=3) for model in pair)
    close(got.scores, wanted.scores)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_features_are_searched_where_they_are(pair: tuple[Model, Model], metric: str) -> None:
    wanted, got = (ov.features(model, ov.load_images(pictures(60), model)) for model in pair)
    close(got.array, wanted.array)
    # The search itself is exact: that of the CPU among the same numbers.
    there = ov.near_duplicates(got, metric=metric, threshold=1.0)
    expected = ov.NearestNeighbors(20, metric=metric, device="cpu").fit(got.array).kneighbors()
    found = ov.NearestNeighbors(20, metric=metric, device="cuda").fit(got.array).kneighbors()
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert len(there.names) == 60


def test_gradients(pair: tuple[Model, Model]) -> None:
    wanted, got = (ov.saliency(model, pictures(1)[0], target=2) for model in pair)
    close(got.values, wanted.values, 1e-3)


def test_every_gpu_gives_the_same(pair: tuple[Model, Model]) -> None:
    from onnxviz import backend

    count = backend.cuda_status().device_count
    if count < 2:
        pytest.skip("there is one CUDA device only")
    names = [f"cuda:{number}" for number in range(count)]
    several = ov.load(MODELS / "cifar10_7x7_4096.onnx", preprocess="cifar10", device=names)
    images = [ov.load_images(pictures(100), model) for model in (pair[1], several)]
    np.testing.assert_array_equal(several.run(images[1])["logits"], pair[1].run(images[0])["logits"])
