"""``device="cuda"`` end to end on the emulator: the same numbers as on the CPU, and no image comes back to the host."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import incremental_runs
import onnxviz as ov
from embedded_cifar import pictures
from emulated_devices import device, emulation, open_on
from graphs import build, save
from onnxviz import backend
from onnxviz.errors import DeviceError, LimitError
from onnxviz.graph.incremental.plan import make_plan
from onnxviz.methods.device_features import searched_rows
from onnxviz.methods.patches import grid_patches
from onnxviz.runtime import incremental_plans
from onnxviz.runtime.bound_batch import BoundBatch
from onnxviz.runtime.devices import stream_of
from onnxviz.runtime.gradients import GradientSession
from onnxviz.runtime.model import Model
from onnxviz.runtime.spaces import HostSpace
from test_incremental import wide_graph

__all__ = ["emulation"]

pytestmark = [pytest.mark.emulated, pytest.mark.usefixtures("emulation")]

MODELS = Path(__file__).parents[1] / "models"
CIFAR = MODELS / "cifar10_7x7_4096.onnx"

Pair = tuple[Model, Model]


def network(layout: str, dtype: str = "float") -> onnx.ModelProto:
    """Two convolutions, a pool and a classifier, small enough for an emulator; NHWC has a Transpose in front."""
    random = np.random.default_rng(5)
    numbers = np.float16 if dtype == "float16" else np.float32
    node = onnx.helper.make_node
    weights = {
        "w": random.normal(size=(6, 3, 3, 3)), "v": random.normal(size=(5, 6, 3, 3)) / 5,
        "dense": random.normal(size=(5 * 6 * 5, 4)) / 8,
    }  # fmt: skip
    first = "image" if layout == "NCHW" else "planes"
    nodes = [
        node("Conv", [first, "w"], ["a"], pads=[1, 1, 1, 1]), node("Relu", ["a"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["c", "v"], ["d"], pads=[1, 1, 1, 1]), node("Relu", ["d"], ["maps"]),
        node("Flatten", ["maps"], ["features"]), node("MatMul", ["features", "dense"], ["logits"]),
        node("Softmax", ["logits"], ["prob"], axis=1),
    ]  # fmt: skip
    if layout == "NHWC":
        nodes.insert(0, node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]))
    shape = ["n", 3, 12, 10] if layout == "NCHW" else ["n", 12, 10, 3]
    return build(
        nodes, inputs={"image": (dtype, shape)}, outputs={"prob": (dtype, ["n", 4])},
        weights={name: array.astype(numbers) for name, array in weights.items()},
    )  # fmt: skip


@pytest.fixture(params=["embedded", "NHWC", "float16"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """The same model on the CPU and on an emulated device."""
    if request.param == "embedded":
        path, parameters = CIFAR, {"preprocess": "cifar10"}
    else:
        proto = network("NHWC") if request.param == "NHWC" else network("NCHW", "float16")
        path, parameters = save(proto, tmp_path / "model.onnx"), {"preprocess": "unit"}
    return (
        ov.load(path, device="cpu", threads=1, batch_size=5, **parameters),
        open_on(monkeypatch, (device(),), path, threads=1, batch_size=5, **parameters),
    )


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Model]:
    def opened(*numbers: int, **parameters: Any) -> Model:
        parameters = {"preprocess": "cifar10", "threads": 1, "batch_size": 5, **parameters}
        if not numbers:
            return ov.load(CIFAR, device="cpu", **parameters)
        return open_on(monkeypatch, tuple(device(number) for number in numbers), CIFAR, **parameters)

    return opened


def picture_for(model: Model) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (*model.preprocess.size, 3), dtype=np.uint8)


def assert_same_map(got: Any, wanted: Any) -> None:
    for name in ("probability", "label", "importance", "boxes"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name), err_msg=name)
    assert (got.clean, got.clean_label) == (wanted.clean, wanted.clean_label)
    assert np.ptp(got.probability) > 0


# -- occlusion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"window": 4, "stride": 3},
        {"window": (3, 5), "stride": 2, "edge": "shift", "baseline": "blur"},
        {"window": 4, "stride": 4, "channels": (1,)},
        {"regions": [[0, 0, 5, 5], [2, 3, 9, 10], [0, 0, 1, 1]]},
        {"regions": "halves"},
    ],
    ids=["grid", "blur", "channels", "boxes", "areas"],
)
def test_plain_occlusion(pair: Pair, parameters: dict[str, Any]) -> None:
    picture = picture_for(pair[0])
    if parameters.get("regions") == "halves":
        parameters = {
            "regions": np.repeat([[0], [1]], (picture.shape[0] // 2,), axis=0).repeat(picture.shape[1], axis=1)
        }
    wanted, got = (ov.occlusion(model, picture, method="plain", **parameters) for model in pair)
    assert_same_map(got, wanted)


def test_occlusion_steps_come_in_the_same_order(pair: Pair) -> None:
    picture = picture_for(pair[0])
    walks = [list(ov.occlusion_steps(model, picture, window=3, stride=3, method="plain")) for model in pair]
    # In steps of another size: see below.
    orders = [np.concatenate([step.positions for step in walk]).tolist() for walk in walks]
    assert orders[1] == orders[0]
    assert_same_map(walks[1][-1].result, walks[0][-1].result)


WORKS: dict[str, Callable[[Model, np.ndarray], Any]] = {
    "occlusion": lambda model, picture: (
        ov.occlusion(model, picture, target=2, window=9, stride=8, method="plain").probability
    ),
    "rise": lambda model, picture: ov.rise(model, picture, 2, masks=33).map,
    "smoothgrad": lambda model, picture: ov.smoothgrad(model, picture, target=2, samples=13).values,
    "run": lambda model, _: model.run(model.probe(13)["image"])["logits"],
}


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_a_device_runs_as_many_rows_every_time(
    work: Callable[[Model, np.ndarray], Any], cifar: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def counting(owner: type, name: str, count: Callable[[Any], int]) -> None:
        run = getattr(owner, name)

        def counted(self: Any, what: Any, *others: Any) -> Any:
            counts.append(count(what))
            return run(self, what, *others)

        monkeypatch.setattr(owner, name, counted)

    counting(BoundBatch, "run", int)
    counting(BoundBatch, "run_rows", len)
    counting(GradientSession, "run", lambda feeds: len(next(iter(feeds.values()))))
    found, sizes = [], []
    for model in (cifar(), cifar(0)):
        counts.clear()
        found.append(work(model, pictures(1)[0]))
        sizes.append(set(counts) - {1})  # the picture itself
    np.testing.assert_array_equal(found[1], found[0])
    assert len(sizes[0]) > 1
    assert sizes[1] == {5}


@pytest.mark.parametrize(("side", "host", "there"), [(32, 64, 64), (256, 8, 64), (1024, 8, 16)])
def test_a_batch_is_larger_where_a_device_has_room(
    side: int, host: int, there: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = build(
        [onnx.helper.make_node("Conv", ["image", "w"], ["maps"]), onnx.helper.make_node("GlobalMaxPool", ["maps"], ["top"])],
        inputs={"image": ("float", ["n", 3, side, side])}, outputs={"top": ("float", ["n", 16, 1, 1])},
        weights={"w": np.ones((16, 3, 1, 1), np.float32)},
    )  # fmt: skip
    path = save(proto, tmp_path / "wide.onnx")
    assert ov.load(path, device="cpu", preprocess="unit").batch_size == host
    assert open_on(monkeypatch, (device(),), path, preprocess="unit").batch_size == there


def test_a_fixed_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = network("NCHW")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    # A second output that states the batch once more keeps it from being made free.
    proto.graph.node.append(onnx.helper.make_node("Reshape", ["features", "fixed"], ["flat"]))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([4, 150]), "fixed"))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, [4, 150]))
    path = save(proto, tmp_path / "fixed.onnx")
    host = ov.load(path, device="cpu", threads=1, preprocess="unit", output="prob")
    there = open_on(monkeypatch, (device(),), path, threads=1, preprocess="unit", output="prob")
    assert there.fixed_batch == host.fixed_batch
    picture = picture_for(host)
    assert_same_map(
        ov.occlusion(there, picture, window=4, stride=3), ov.occlusion(host, picture, window=4, stride=3)
    )  # fmt: skip


class _Forbidden(Exception):
    pass


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Bytes that go to the device, and come from it, call by call."""
    moved: dict[str, list[int]] = {"up": [], "down": []}
    from_host, to_host = backend.Buffer.from_host.__func__, backend.Buffer.to_host

    def up(cls: type, array: np.ndarray, stream: Any) -> backend.Buffer:
        moved["up"].append(array.nbytes)
        return from_host(cls, array, stream)

    def down(self: backend.Buffer, stream: Any) -> np.ndarray:
        moved["down"].append(self.nbytes)
        return to_host(self, stream)

    monkeypatch.setattr(backend.Buffer, "from_host", classmethod(up))
    monkeypatch.setattr(backend.Buffer, "to_host", down)
    return moved


def test_the_image_goes_up_once_and_never_comes_down(
    cifar: Callable[..., Model], watched: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, picture = cifar(0), pictures(1)[0]
    wanted = ov.occlusion(cifar(), picture, target=2, window=6, stride=2, method="plain")

    def forbidden(*_: Any, **__: Any) -> None:
        raise _Forbidden

    # Nothing of the host's may make a batch, and onnxruntime is given none of the host's images.
    for name in ("fill_occluded", "bind_input", "empty", "write"):
        monkeypatch.setattr(HostSpace, name, forbidden)
    monkeypatch.setattr("onnxviz.runtime.bound_batch.aligned_empty", forbidden)
    got = ov.occlusion(model, picture, target=2, window=6, stride=2, method="plain")
    assert_same_map(got, wanted)
    image = 3 * 32 * 32 * 4
    assert watched["up"] == [image, image]  # the image, and what the patch holds
    assert watched["down"] == []
    # What onnxruntime brings to the host are scores.
    assert model.stays_on_device


def test_memory_of_the_device_that_runs_out_halves_the_batch(
    cifar: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, picture = cifar(0, batch_size=16), pictures(1)[0]
    wanted = ov.occlusion(cifar(), picture, target=2, window=8, stride=6, method="plain")
    asked: list[int] = []
    buffer = backend.Buffer.__init__

    def small_device(self: backend.Buffer, shape: Any, dtype: Any, device: int = 0) -> None:
        if len(shape) == 4:
            asked.append(shape[0])
            if shape[0] > 4:
                raise LimitError("the memory of the CUDA device does not suffice", where="Buffer", got="a test")
        buffer(self, shape, dtype, device)

    monkeypatch.setattr(backend.Buffer, "__init__", small_device)
    got = ov.occlusion(model, picture, target=2, window=8, stride=6, method="plain")
    assert asked[:3] == [16, 8, 4]
    np.testing.assert_allclose(got.probability, wanted.probability, rtol=1e-5)
    monkeypatch.setattr(backend.Buffer, "__init__", lambda *_: (_ for _ in ()).throw(LimitError("no room", where="x")))
    with pytest.raises(LimitError, match="no room"):
        ov.occlusion(cifar(0), picture, target=2, window=8, stride=6, method="plain")


# -- incremental occlusion ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_incremental_runs_are_those_of_the_cpu(
    layout: str, monkeypatch: pytest.MonkeyPatch, watched: dict[str, list[int]]
) -> None:
    random = np.random.default_rng(7)
    proto = network(layout)
    shape = (3, 12, 10) if layout == "NCHW" else (12, 10, 3)
    image, fill = (random.normal(size=shape).astype(np.float32) for _ in range(2))
    # Values behind the tail, at its entrance and before it.
    case = incremental_runs.Case(
        proto, "image", ("prob", "maps", "b"), image, fill, grid_patches((12, 10), (3, 2), (2, 3), "clip"), layout
    )
    positions = np.arange(len(case.patches.flat))
    wanted, wanted_clean, _ = case.incremental(positions, portable=True, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(incremental_runs, "CPU", device())
        found, clean, plan = case.incremental(positions, portable=True, workers=1)
    assert plan.pays
    for name in case.names:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
        np.testing.assert_array_equal(clean[name], wanted_clean[name], err_msg=name)
    plain = case.plain(positions)
    np.testing.assert_allclose(found["prob"], plain["prob"], rtol=1e-5)
    # Up go the image, the fill, and the pixels beyond a border; a value that is wanted as a map comes down as one.
    large = [size for size in watched["up"] if size > 64]
    assert large == [image.nbytes, fill.nbytes]
    assert image.nbytes not in watched["down"]


def test_wide_graphs_on_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operator that runs on windows, borders of every kind among them."""
    random = np.random.default_rng(3)
    image, fill = (random.normal(size=(3, 67, 53)).astype(np.float32) for _ in range(2))
    names = ("y", "k", "m", "b")
    case = incremental_runs.Case(
        wide_graph(random), "x", names, image, fill, grid_patches((67, 53), (20, 7), (23, 25), "clip")
    )
    positions = np.arange(len(case.patches.flat))
    wanted, wanted_clean, _ = case.incremental(positions, portable=True, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(incremental_runs, "CPU", device())
        found, clean, _ = case.incremental(positions, portable=True, workers=1)
    for name in names:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
        np.testing.assert_array_equal(clean[name], wanted_clean[name], err_msg=name)


@pytest.mark.parametrize("parameters", [{"window": 6, "stride": 3}, {"regions": "quarters"}], ids=["grid", "areas"])
def test_auto_takes_the_incremental_way_on_a_device(
    cifar: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any]
) -> None:
    # The planner decides by gains of a CPU, which a network this small does not promise.
    monkeypatch.setattr(incremental_plans, "make_plan", partial(make_plan, least_gain=0.0))
    if parameters.get("regions") == "quarters":
        parameters = {"regions": np.kron([[0, 1], [2, 3]], np.ones((16, 16), int))}
    wanted = ov.occlusion(cifar(), pictures(1)[0], target=2, method="plain", **parameters)
    got = ov.occlusion(cifar(0), pictures(1)[0], target=2, **parameters)
    assert got.provenance.parameters["method"] == "incremental", got.provenance.parameters
    np.testing.assert_allclose(got.probability, wanted.probability, rtol=1e-5)
    np.testing.assert_array_equal(got.label, wanted.label)


# -- several devices ---------------------------------------------------------------------------------------------------


def test_two_devices_are_one(cifar: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = cifar(0), cifar(0, 1)
    assert two.device == "cuda:0,cuda:1"
    assert [part.device for part in two.parts] == ["cuda:0", "cuda:1"]
    assert not two.stays_on_device
    views = pictures(23)
    for values in ((), ("*Relu*", "logits")):
        wanted, got = (model.run(ov.load_images(views, model), values) for model in (one, two))
        for name, array in wanted.items():
            np.testing.assert_array_equal(got[name], array, err_msg=name)
    encoded = one.preprocess.encode(views)
    np.testing.assert_array_equal(two.run(encoded)["logits"], one.run(encoded)["logits"])
    np.testing.assert_array_equal(two.predict(encoded), one.predict(encoded))
    ran = ov.top_patches(two, ov.load_images(views, two), value=two.values("*Relu*")[1].name, k=2)
    assert ran.provenance.provider == "CPUExecutionProvider on cuda:0,cuda:1"


@pytest.mark.parametrize("method", ["plain", "auto"])
def test_occlusion_on_two_devices(cifar: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(incremental_plans, "make_plan", partial(make_plan, least_gain=0.0))
    wanted, got = (
        ov.occlusion(model, pictures(1)[0], target=2, window=6, stride=3, method=method)
        for model in (cifar(0), cifar(0, 1))
    )
    assert got.provenance.parameters["method"] == ("plain" if method == "plain" else "incremental")
    if method == "plain":
        assert_same_map(got, wanted)
    else:
        # Other batches: the CPU provider adds the products of its matrices in another order.
        np.testing.assert_allclose(got.probability, wanted.probability, rtol=1e-5)
    steps = [
        list(ov.occlusion_steps(cifar(0, 1), pictures(1)[0], target=2, window=6, stride=3, method=method))
        for _ in range(2)
    ]
    assert [s.positions.tolist() for s in steps[0]] == [s.positions.tolist() for s in steps[1]]
    np.testing.assert_array_equal(steps[0][-1].result.probability, steps[1][-1].result.probability)
    assert steps[0][-1].done == steps[0][-1].total


def test_a_time_limit_holds_on_every_device(cifar: Callable[..., Model]) -> None:
    model = cifar(0, 1)
    model.set_timeout(0.0)
    with pytest.raises(LimitError, match="time limit"):
        model.run(model.preprocess.encode(pictures(20)))


def forked(model: Model, queue: multiprocessing.Queue) -> None:
    try:
        model.run(next(iter(model.probe(1).values())))
    except DeviceError as error:
        queue.put(str(error))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_in_one_sentence(cifar: Callable[..., Model]) -> None:
    model = cifar(0)
    model.run(next(iter(model.probe(1).values())))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=forked, args=(model, queue))
    child.start()
    assert "a CUDA device cannot be used in a process that was forked" in queue.get(timeout=60)
    child.join(30)


def test_a_build_without_kernels_says_so_in_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    without = dataclasses.replace(device(), stream=None, note="built without CUDA kernels")
    model = open_on(monkeypatch, (without,), CIFAR, preprocess="cifar10", threads=1)
    assert "built without CUDA kernels" in model.notes
    assert model.space.on_host


# -- strongest patches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [None, (1, 3)])
@pytest.mark.parametrize("k", [1, 4])
def test_top_patches(
    pair: Pair, watched: dict[str, list[int]], channels: tuple[int, ...] | None, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = np.random.default_rng(1).integers(0, 256, (11, *pair[0].preprocess.size, 3), dtype=np.uint8)
    views[7] = views[2]  # a tie, which goes to the earlier image
    name = next(value.name for value in pair[0].values() if value.kind == "relu")
    wanted, got = (
        ov.top_patches(model, ov.load_images(views, model), value=name, channels=channels, k=k) for model in pair
    )
    for field in ("channels", "scores", "image_index", "positions", "boxes", "drawn"):
        np.testing.assert_array_equal(getattr(got, field), getattr(wanted, field), err_msg=field)
    for one, other in zip(got.patches, wanted.patches, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)
    # Scores, images and units of the best come to the host, no map does.
    count = pair[0].shapes()[name][pair[0].channel_axis(name)]
    assert sorted(watched["down"]) == sorted([count * k * 4, count * k * 8, count * k * 8])


def test_more_patches_of_an_image_than_one_are_found_on_the_host(pair: Pair) -> None:
    views = np.random.default_rng(1).integers(0, 256, (6, *pair[0].preprocess.size, 3), dtype=np.uint8)
    name = next(value.name for value in pair[0].values() if value.kind == "relu")
    wanted, got = (ov.top_patches(model, ov.load_images(views, model), value=name, k=5, per_image=2) for model in pair)
    np.testing.assert_array_equal(got.scores, wanted.scores)
    np.testing.assert_array_equal(got.positions, wanted.positions)


# -- features ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [None, True, False])
def test_features(pair: Pair, pool: bool | None) -> None:
    views = np.random.default_rng(1).integers(0, 256, (11, *pair[0].preprocess.size, 3), dtype=np.uint8)
    for name in (None, next(value.name for value in pair[0].values() if value.kind == "relu")):
        wanted, got = (ov.features(model, ov.load_images(views, model), value=name, pool=pool) for model in pair)
        np.testing.assert_array_equal(got.array, wanted.array)
        assert got.array.dtype == wanted.array.dtype
        np.testing.assert_array_equal(got.indices, wanted.indices)


def test_features_without_room_on_the_device_are_made_on_the_host(
    cifar: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    views = pictures(9)
    wanted = ov.features(cifar(), ov.load_images(views, cifar()))
    buffer = backend.Buffer.__init__

    def small_device(self: backend.Buffer, shape: Any, dtype: Any, device: int = 0) -> None:
        if tuple(shape) == wanted.array.shape:
            raise LimitError("the memory of the CUDA device does not suffice", where="Buffer", got="a test")
        buffer(self, shape, dtype, device)

    monkeypatch.setattr(backend.Buffer, "__init__", small_device)
    model = cifar(0)
    got = ov.features(model, ov.load_images(views, model))
    np.testing.assert_array_equal(got.array, wanted.array)
    rows, place = searched_rows(got)
    assert rows is got.array
    assert place == "cuda:0"


def test_images_that_cannot_be_read_have_no_row(cifar: Callable[..., Model], tmp_path: Path) -> None:
    from PIL import Image

    for number, view in enumerate(pictures(7)):
        Image.fromarray(view).save(tmp_path / f"{number}.png")
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    found = []
    for model in (cifar(), cifar(0)):
        found.append(ov.features(model, ov.load_images(tmp_path, model)))
    np.testing.assert_array_equal(found[1].indices, [0, 1, 2, 4, 5, 6])
    np.testing.assert_array_equal(found[1].array, found[0].array)
    rows, place = searched_rows(found[1])
    assert place == "cuda:0"
    np.testing.assert_array_equal(rows.to_host(stream_of(0)), found[0].array)


# -- neighbours --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["neighbors", "hubness", "near_duplicates", "label_suspects", "class_purity", "embed"]
)
def test_methods_search_where_the_features_are(
    cifar: Callable[..., Model], method: str, watched: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    views = pictures(40)
    views[31] = views[4]
    found = []
    for model in (cifar(), cifar(0)):
        images = ov.load_images(views, model, labels=np.arange(40) % 3)
        if method == "neighbors":
            watched["up"].clear()
            found.append(ov.neighbors(model, images, n_neighbors=3, queries=5))
            continue
        features = ov.features(model, images)
        watched["up"].clear()
        if model.device != "cpu":
            monkeypatch.setattr(backend, "NeighborIndex", None)  # nobody asks the CPU
        found.append(
            ov.embed(features, perplexity=4.0) if method == "embed" else getattr(ov, method)(features, n_neighbors=4)
        )
    for field in dataclasses.fields(found[0]):
        wanted, got = (getattr(result, field.name) for result in found)
        if isinstance(wanted, np.ndarray):
            np.testing.assert_array_equal(got, wanted, err_msg=field.name)
    # The feature vectors are 4096 numbers each; no matrix of them is carried to the device.
    assert all(size < 40 * 4096 * 4 for size in watched["up"])


def test_a_device_without_room_for_an_index_leaves_the_search_to_the_cpu(
    cifar: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise LimitError("the memory of the CUDA device does not suffice", where="neighbours")

    model = cifar(0)
    features = ov.features(model, ov.load_images(pictures(20), model))
    wanted = ov.hubness(features)
    monkeypatch.setattr(backend, "CudaNeighborIndex", full)
    again = ov.features(model, ov.load_images(pictures(20), model))
    np.testing.assert_array_equal(ov.hubness(again).occurrences, wanted.occurrences)
    with pytest.raises(LimitError):
        ov.NearestNeighbors(device="cuda").fit(features.array)


# -- what goes through the host ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [(0,), (0, 1)], ids=["one", "two"])
def test_everything_else_gives_the_numbers_of_the_cpu(cifar: Callable[..., Model], numbers: tuple[int, ...]) -> None:
    picture = pictures(1)[0]
    found = [
        (
            ov.rise(model, picture, 2, masks=33).map,
            ov.saliency(model, picture, target=2).values,
            ov.smoothgrad(model, picture, target=2, samples=3).values,
            {
                name: shown.maps
                for name, shown in ov.activations(model, ov.load_images(pictures(7), model), values=("*Relu*",)).items()
            },
        )
        for model in (cifar(), cifar(*numbers))
    ]
    for wanted, got in zip(*found, strict=True):
        np.testing.assert_equal(got, wanted)
