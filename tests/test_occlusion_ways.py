"""Occlusion the incremental way is occlusion the plain way; regions, channels, steps, and what is kept between images."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxviz as ov
from embedded_cifar import PATH, cifar_model, pictures
from graphs import build, save
from onnxviz.errors import InputError, ModelError
from onnxviz.results import Occlusion, OcclusionStep
from onnxviz.runtime.incremental import IncrementalRunner
from onnxviz.runtime.model import Model
from onnxviz.runtime.sessions import OutOfMemory

MODELS = Path(__file__).parents[1] / "models"
INNER = "/features/features.2/Relu_output_0"


@pytest.fixture(scope="module")
def squeezenet() -> Model:
    return ov.load(MODELS / "squeezenet1.1-imagenet.onnx", preprocess="caffe", device="cpu", threads=2)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(MODELS / "photos" / "chelsea.jpg").convert("RGB"))


def quarters(side: int) -> np.ndarray:
    """A map of five areas: a disc, and what it leaves of the quarters; a strip belongs to none."""
    y, x = np.mgrid[:side, :side]
    areas = (y >= side // 2) * 2 + (x >= side // 2)
    areas = np.where(np.hypot(y - side / 3, x - side / 2) < side / 5, 7, areas)
    return np.where(y >= side - 3, -1, areas)


BOXES = [[0, 0, 5, 9], [3, 4, 20, 12], [30, 30, 31, 31], [0, 0, 32, 32], [25, 0, 32, 32]]


def both(model: Model, picture: np.ndarray, **parameters: Any) -> tuple[Occlusion, Occlusion]:
    auto = ov.occlusion(model, picture, **parameters)
    plain = ov.occlusion(model, picture, method="plain", **parameters)
    assert plain.provenance.parameters["method"] == "plain"
    return auto, plain


def assert_same(auto: Occlusion, plain: Occlusion) -> None:
    np.testing.assert_allclose(auto.probability, plain.probability, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(auto.label, plain.label)
    np.testing.assert_allclose(
        auto.importance, plain.importance, rtol=0, atol=1e-5 * np.nanmax(np.abs(plain.importance))
    )
    np.testing.assert_allclose(auto.clean, plain.clean, rtol=1e-5)
    assert auto.clean_label == plain.clean_label
    assert np.ptp(plain.probability) > 0


# -- the two ways -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"window": 32, "stride": 24},
        {"window": (20, 50), "stride": (31, 17), "edge": "shift", "aggregate": "sum"},
        {"window": 41, "stride": 60, "edge": "drop", "baseline": "blur"},
        {"window": 32, "stride": 32, "channels": (2,), "baseline": (250.0, 0.0, 3.5)},
        {"window": 32, "stride": 32, "target": ("fire9/concat", "strongest")},
        {"window": 32, "stride": 32, "target": "fire2/concat[strongest]"},
        {"window": 48, "stride": 32, "target": ("logits", 281)},
        {"window": 48, "stride": 32, "target": lambda outputs: outputs["prob"][:, :300].sum(axis=1)},
        {"regions": quarters(224)},
    ],
    ids=["grid", "shift", "blur", "channels", "strongest", "strongest early", "logit", "function", "areas"],
)
def test_both_ways_give_the_same(parameters: dict[str, Any], squeezenet: Model, photo: np.ndarray) -> None:
    auto, plain = both(squeezenet, photo, **parameters)
    assert auto.provenance.parameters["method"] == "incremental", auto.provenance.parameters["plan"]
    assert_same(auto, plain)
    assert auto.target == plain.target


@pytest.mark.parametrize(
    "parameters",
    [{"window": 4, "stride": 3}, {"regions": BOXES}, {"regions": quarters(32)}, {"window": 5, "channels": (0, 1)}],
    ids=["grid", "boxes", "areas", "channels"],
)
def test_small_networks_too(parameters: dict[str, Any]) -> None:
    assert_same(*both(cifar_model(), pictures(2)[1], target=3, **parameters))


def test_weights_in_a_file_beside_the_model(tmp_path: Path, photo: np.ndarray) -> None:
    proto = onnx.load(MODELS / "squeezenet1.1-imagenet.onnx")
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)
    model = ov.load(tmp_path / "model.onnx", preprocess="caffe", device="cpu", threads=1)
    auto, plain = both(model, photo, window=32, stride=32)
    assert auto.provenance.parameters["method"] == "incremental"
    assert_same(auto, plain)


def test_weights_swapped_behind_our_back_change_nothing(tmp_path: Path, photo: np.ndarray) -> None:
    proto = onnx.load(MODELS / "squeezenet1.1-imagenet.onnx")
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)
    model = ov.load(tmp_path / "model.onnx", preprocess="caffe", device="cpu", threads=1)
    plain = ov.occlusion(model, photo, target=3, window=32, stride=32, method="plain")
    weights = tmp_path / "weights.bin"
    weights.write_bytes((2 * np.fromfile(weights, np.float32)).tobytes())
    auto = ov.occlusion(model, photo, target=3, window=32, stride=32)
    assert auto.provenance.parameters["method"] == "incremental"
    assert_same(auto, plain)


def test_few_positions_are_not_worth_moving_large_weights(tmp_path: Path) -> None:
    """A dense layer of 67 MB: four positions pay, three do not."""
    node = onnx.helper.make_node
    random = np.random.default_rng(0)
    network = build(
        [
            node("Conv", ["image", "w"], ["a"], pads=[1, 1, 1, 1]), node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "v"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["d"]),
            node("MaxPool", ["d"], ["e"], kernel_shape=[4, 4], strides=[4, 4]), node("Flatten", ["e"], ["f"]),
            node("MatMul", ["f", "dense"], ["logits"]),
        ],
        inputs={"image": ("float", ["n", 3, 128, 128])}, outputs={"logits": ("float", ["n", 256])},
        weights={
            "w": random.normal(size=(64, 3, 3, 3)).astype(np.float32),
            "v": random.normal(size=(64, 64, 3, 3)).astype(np.float32) / 24,
            "dense": random.normal(size=(64 * 32 * 32, 256)).astype(np.float32) / 256,
        },
    )  # fmt: skip
    model = ov.load(save(network, tmp_path / "wide.onnx"), preprocess="imagenet", device="cpu", threads=1)
    picture = random.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    boxes = [[8, 8, 12, 12], [40, 60, 44, 64], [90, 20, 94, 24], [100, 100, 104, 104]]
    few = ov.occlusion(model, picture, target=0, regions=boxes[:3])
    assert few.provenance.parameters["method"] == "plain"
    assert "3 positions are too few" in few.provenance.parameters["plan"]["why"]
    enough = ov.occlusion(model, picture, target=0, regions=boxes)
    assert enough.provenance.parameters["method"] == "incremental"
    np.testing.assert_allclose(enough.probability[:3], few.probability, rtol=1e-5)


def test_little_memory_and_fixed_batches_take_the_plain_way(squeezenet: Model, photo: np.ndarray) -> None:
    got = ov.occlusion(squeezenet, photo, window=32, stride=64, memory=100_000)
    assert got.provenance.parameters["method"] == "plain"
    assert "of 100,000 allowed" in got.provenance.parameters["plan"]["why"]
    for memory in (0, -5, True, "2 GB", 1.5, None):
        with pytest.raises(InputError, match="not a number of bytes"):
            ov.occlusion(squeezenet, photo, memory=memory)  # type: ignore[arg-type]


def test_memory_that_runs_out_leads_to_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, picture = ov.load(PATH, preprocess="cifar10", device="cpu"), pictures(1)[0]
    wanted = ov.occlusion(model, picture, target=2, window=8, stride=6, method="plain")
    positions = IncrementalRunner.positions

    def scarce(self: IncrementalRunner, *arguments: Any) -> Iterator[Any]:
        for number, part in enumerate(positions(self, *arguments)):
            if number == 1:
                raise OutOfMemory("memory", where="test", got="the second part")
            yield part

    monkeypatch.setattr(IncrementalRunner, "positions", scarce)
    got = ov.occlusion(model, picture, target=2, window=8, stride=6)
    np.testing.assert_array_equal(got.probability, wanted.probability)
    assert got.provenance.parameters["method"] == "plain"
    assert got.provenance.parameters["plan"]["why"] == "memory ran out: the second part"


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), ModelError("a stage failed", where="test")], ids=["memory", "model"]
)
def test_a_walk_that_breaks_off_goes_on_the_plain_way(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is shown twice, nothing is left out, and the last step holds the whole."""
    model, picture = ov.load(PATH, preprocess="cifar10", device="cpu"), pictures(1)[0]
    wanted = ov.occlusion(model, picture, target=2, window=4, stride=4, method="plain")
    positions = IncrementalRunner.positions

    def broken(self: IncrementalRunner, *arguments: Any) -> Iterator[Any]:
        for number, part in enumerate(positions(self, *arguments)):
            if number == 2:
                raise error
            yield part

    monkeypatch.setattr(IncrementalRunner, "positions", broken)
    steps = list(ov.occlusion_steps(model, picture, target=2, window=4, stride=4))
    places = np.concatenate([step.positions for step in steps])
    assert len(np.unique(places, axis=0)) == len(places) == steps[-1].done == steps[-1].total
    result = steps[-1].result
    assert result is not None
    np.testing.assert_allclose(result.probability, wanted.probability, rtol=1e-5)
    assert result.provenance.parameters["method"] == "plain"
    said = "memory ran out: no room" if isinstance(error, MemoryError) else "a stage did not run"
    assert said in result.provenance.parameters["plan"]["why"]


def test_steps_refuse_at_once() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'windw'"):
        ov.occlusion_steps(cifar_model(), pictures(1)[0], windw=3)
    with pytest.raises(InputError, match="not a window"):
        ov.occlusion_steps(cifar_model(), pictures(1)[0], window=0)


# -- what hides what --------------------------------------------------------------------------------------------------


def test_boxes_are_hidden_one_by_one() -> None:
    model, picture = cifar_model(), pictures(2)[1]
    got = ov.occlusion(model, picture, target=3, regions=BOXES, baseline="grey")
    assert got.probability.shape == got.label.shape == (5, 1)
    np.testing.assert_array_equal(got.boxes[:, 0], BOXES)
    encoded = model.preprocess.encode(picture[np.newaxis])[0]
    fill = model.preprocess.encode(np.full_like(picture, 128)[np.newaxis])[0]
    total, covered = np.zeros((32, 32)), np.zeros((32, 32))
    for number, (top, left, bottom, right) in enumerate(BOXES):
        patched = encoded.copy()
        patched[:, top:bottom, left:right] = fill[:, top:bottom, left:right]
        score = model.predict(patched[np.newaxis])[0, 3]
        np.testing.assert_allclose(got.probability[number, 0], score, rtol=1e-5)
        total[top:bottom, left:right] += got.clean - score
        covered[top:bottom, left:right] += 1
    np.testing.assert_allclose(got.importance, total / covered, atol=1e-5)
    # Each pixel of the picture belongs to the smallest box over it.
    assert got.regions[30, 30] == 2
    assert got.regions[0, 0] == 0
    assert got.regions[4, 5] == 0
    assert got.regions[10, 5] == 1
    assert got.regions[31, 30] == 4
    assert got.regions[22, 20] == 3


def test_areas_of_a_map_are_hidden_by_their_shape() -> None:
    model, picture = cifar_model(), pictures(2)[1]
    areas = quarters(32)
    got = ov.occlusion(model, picture, target=3, regions=areas)
    names = np.unique(areas[areas >= 0])
    assert got.probability.shape == (len(names), 1)
    encoded = model.preprocess.encode(picture[np.newaxis])[0]
    colour = picture.reshape(-1, 3).mean(axis=0)
    contract = model.preprocess
    fill = ((colour * contract.scale - np.asarray(contract.mean)) / np.asarray(contract.std)).astype(np.float32)
    for number, name in enumerate(names):
        patched = np.where(areas == name, fill[:, np.newaxis, np.newaxis], encoded)
        score = model.predict(patched[np.newaxis])[0, 3]
        np.testing.assert_allclose(got.probability[number, 0], score, rtol=1e-5)
        np.testing.assert_allclose(got.importance[areas == name], got.clean - score, atol=1e-6)
        np.testing.assert_array_equal(got.regions[areas == name], number)
    assert np.isnan(got.importance[areas < 0]).all()
    assert (got.regions[areas < 0] == -1).all()
    summed = ov.occlusion(model, picture, target=3, regions=areas, aggregate="sum")
    assert (summed.importance[areas < 0] == 0).all()


@pytest.mark.parametrize(
    ("regions", "sentence"),
    [
        ([[0, 0, 5]], r"\(n, 4\) boxes, or a 32 × 32 map"),
        ([[0.0, 0.0, 5.0, 5.0]], "whole numbers"),
        ([[0, 0, 5, 5], [3, 3, 3, 9]], r"box 1 is empty.*\[3, 3, 3, 9\]"),
        ([[0, 0, 33, 5]], "box 0"),
        ([[-1, 0, 3, 5]], "box 0"),
        (np.zeros((0, 4), int), "there is no box"),
        (np.full((32, 32), -1), "the map numbers no area"),
        (np.zeros((31, 32), int), "not regions"),
        ("everything", "not regions"),
    ],
    ids=str,
)
def test_regions_that_cannot_be_are_refused(regions: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ov.occlusion(cifar_model(), pictures(1)[0], regions=regions)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [(), (3,), (-1,), (0, 0), "red", (1.5,), 1])
def test_channels_that_cannot_be_are_refused(channels: object) -> None:
    with pytest.raises(InputError, match="0 red, 1 green, 2 blue"):
        ov.occlusion(cifar_model(), pictures(1)[0], window=8, channels=channels)  # type: ignore[arg-type]


@pytest.mark.parametrize("network", ["cifar10_7x7_4096", "squeezenet1.1-imagenet"])
def test_one_channel_at_a_time_is_captums(network: str, torch: Any, captum: Any, photo: np.ndarray) -> None:
    """Captum's window of (1, height, width) hides the channels one after the other, in the order of the tensor."""
    preset = "cifar10" if "cifar" in network else "caffe"
    model = ov.load(MODELS / f"{network}.onnx", preprocess=preset, device="cpu")
    side = model.preprocess.size[0] // 2
    maps = [
        ov.occlusion(model, photo, target=6, window=side, stride=side // 2, baseline="dataset", channels=(channel,))
        for channel in (0, 1, 2)
    ]
    encoded = torch.from_numpy(model.preprocess.encode(maps[0].image[np.newaxis]))
    attribution = captum.Occlusion(lambda tensor: torch.from_numpy(model.predict(tensor.numpy()))).attribute(
        encoded, target=6, sliding_window_shapes=(1, side, side), strides=(1, side // 2, side // 2), baselines=0
    )
    # red, green, blue; this network takes the colours the other way round
    wanted = attribution.numpy()[0][:: -1 if preset == "caffe" else 1]
    for got, expected in zip(maps, wanted, strict=True):
        assert np.abs(got.importance - expected).max() <= 1e-5 * np.abs(wanted).max()


# -- the strongest feature map ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [(INNER, "strongest"), f"{INNER}[strongest]"], ids=["pair", "text"])
def test_the_strongest_feature_map_is_followed(target: Any) -> None:
    """Zeiler and Fergus 2013, section 4.2, panel (b): chosen on the clean image, its activations added up over space."""
    model, picture = cifar_model(), pictures(2)[1]
    got = ov.occlusion(model, picture, target=target, window=8, stride=8)
    encoded = model.preprocess.encode(picture[np.newaxis])
    maps = model.run(encoded, (INNER,))[INNER][0]
    channel = int(maps.sum(axis=(1, 2)).argmax())
    assert got.target == f"total activation of channel {channel} of {INNER}, the strongest on the clean image"
    assert got.scale == "value"
    np.testing.assert_allclose(got.clean, maps[channel].sum(), rtol=1e-5)
    colour = picture.reshape(-1, 3).mean(axis=0)
    contract = model.preprocess
    fill = ((colour * contract.scale - np.asarray(contract.mean)) / np.asarray(contract.std)).astype(np.float32)
    for (row, column), score in np.ndenumerate(got.probability):
        top, left, bottom, right = got.boxes[row, column]
        patched = encoded.copy()
        patched[0, :, top:bottom, left:right] = fill[:, np.newaxis, np.newaxis]
        np.testing.assert_allclose(score, model.run(patched, (INNER,))[INNER][0, channel].sum(), rtol=1e-4)
    assert got.label is not None


def test_other_words_for_an_element_are_refused() -> None:
    with pytest.raises(InputError, match="an index, or 'strongest'"):
        ov.occlusion(cifar_model(), pictures(1)[0], target=(INNER, "weakest"), window=8)


# -- step by step -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "plain"])
def test_steps_come_interlaced_and_end_with_the_whole(method: str, squeezenet: Model, photo: np.ndarray) -> None:
    parameters = {"window": 32, "stride": 24, "method": method}
    steps = list(ov.occlusion_steps(squeezenet, photo, **parameters))
    whole = ov.occlusion(squeezenet, photo, **parameters)
    assert all(isinstance(step, OcclusionStep) for step in steps)
    assert [step.result is None for step in steps] == [True] * (len(steps) - 1) + [False]
    result = steps[-1].result
    assert result is not None
    np.testing.assert_allclose(result.probability, whole.probability, rtol=1e-5)
    np.testing.assert_array_equal(result.label, whole.label)
    positions = np.concatenate([step.positions for step in steps])
    assert steps[-1].done == steps[-1].total == len(positions) == result.probability.size
    assert len(np.unique(positions, axis=0)) == len(positions)
    for step in steps:
        rows, columns = step.positions.T
        np.testing.assert_array_equal(step.probability, result.probability[rows, columns])
        np.testing.assert_array_equal(step.label, result.label[rows, columns])
    # Coarse before fine: the pass of a position is how often both of its coordinates can be halved.
    fineness = [min((int(n) & -int(n)).bit_length() if n else 99 for n in place) for place in positions]
    assert fineness == sorted(fineness, reverse=True)
    again = np.concatenate([step.positions for step in ov.occlusion_steps(squeezenet, photo, **parameters)])
    np.testing.assert_array_equal(positions, again)


def test_an_abandoned_walk_leaves_everything_usable(squeezenet: Model, photo: np.ndarray) -> None:
    parameters = {"window": 32, "stride": 24}
    for step in ov.occlusion_steps(squeezenet, photo, **parameters):
        assert step.done < step.total
        break
    assert_same(*both(squeezenet, photo, **parameters))


def test_the_first_step_is_a_small_part_of_the_work(squeezenet: Model, photo: np.ndarray) -> None:
    ov.occlusion(squeezenet, photo, window=32, stride=8)
    first = next(iter(ov.occlusion_steps(squeezenet, photo, window=32, stride=8)))
    assert first.done <= 0.05 * first.total


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_images_share_plan_and_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxviz.runtime import incremental, optimized

    model = ov.load(PATH, preprocess="cifar10", device="cpu", threads=1)
    opened = []

    def counted(*arguments: Any, **options: Any) -> Any:
        opened.append(options.get("where"))
        return open_session(*arguments, **options)

    open_session = incremental.open_session
    monkeypatch.setattr(incremental, "open_session", counted)
    monkeypatch.setattr(optimized, "open_session", counted)
    results = [ov.occlusion(model, picture, target=2, window=4, stride=2) for picture in pictures(3)]
    first = len(opened)
    assert first > 3
    for picture, wanted in zip(pictures(3), results, strict=True):
        again = ov.occlusion(model, picture, target=2, window=4, stride=2)
        np.testing.assert_array_equal(again.probability, wanted.probability)
    assert len(opened) == first
    # Other positions need another plan, not another graph.
    ov.occlusion(model, pictures(1)[0], target=2, window=4, stride=3)
    assert first < len(opened) < 2 * first


def _after_fork(model: Model, picture: np.ndarray, queue: Any) -> None:
    queue.put(ov.occlusion(model, picture, target=2, window=4, stride=4).probability)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_plans_anew() -> None:
    model, picture = ov.load(PATH, preprocess="cifar10", device="cpu", threads=1), pictures(1)[0]
    wanted = ov.occlusion(model, picture, target=2, window=4, stride=4)
    assert wanted.provenance.parameters["method"] == "incremental"
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_after_fork, args=(model, picture, queue))
    child.start()
    got = queue.get(timeout=60)
    child.join(timeout=60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(got, wanted.probability)


def test_several_threads_may_ask_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = ov.load(PATH, preprocess="cifar10", device="cpu", threads=2)
    jobs = [(picture, window) for picture in pictures(3) for window in (4, 6)]
    wanted = [ov.occlusion(model, picture, target=2, window=window, stride=4) for picture, window in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: ov.occlusion(model, job[0], target=2, window=job[1], stride=4), jobs))
    for got, expected in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got.probability, expected.probability)


def test_a_time_limit_ends_it() -> None:
    from onnxviz.errors import LimitError

    model = ov.load(MODELS / "squeezenet1.1-imagenet.onnx", preprocess="caffe", device="cpu", threads=1)
    photo = np.asarray(Image.open(MODELS / "photos" / "chelsea.jpg").convert("RGB"))
    ov.occlusion(model, photo, window=32, stride=64)
    model.set_timeout(0.05)
    with pytest.raises(LimitError, match="time limit"):
        ov.occlusion(model, photo, window=32, stride=4)
    model.set_timeout(None)
    ov.occlusion(model, photo, window=32, stride=64)


MEMORY_SCRIPT = """
import sys, threading, time
import numpy as np
import onnxviz as ov

model = ov.load(sys.argv[1], preprocess="caffe", device="cpu", threads=2)
photo = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
model.predict(model.preprocess.encode(photo[np.newaxis]))

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def peak(work):
    most, stop = [resident()], threading.Event()
    def watch():
        while not stop.is_set():
            most[0] = max(most[0], resident())
            time.sleep(0.001)
    watcher = threading.Thread(target=watch)
    watcher.start()
    before = resident()
    result = work()
    stop.set()
    watcher.join()
    return result, most[0] - before

for memory in (1 << 31, 48 << 20):
    ov.occlusion(model, photo, target=3, window=32, stride=112, memory=memory)
    found, grown = peak(lambda: ov.occlusion(model, photo, target=3, window=32, stride=16, memory=memory))
    print(found.provenance.parameters["plan"].get("memory_bytes", 0), grown)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_stays_below_what_is_stated(tmp_path: Path) -> None:
    script = tmp_path / "memory.py"
    script.write_text(MEMORY_SCRIPT)
    run = subprocess.run(
        [sys.executable, script, MODELS / "squeezenet1.1-imagenet.onnx"], capture_output=True, text=True, check=True
    )
    (usual, grown), (bounded, _) = (map(int, line.split()) for line in run.stdout.splitlines())
    assert 0 < usual < 200 << 20
    # A few MiB are the weights that sessions repack, and Python's own.
    assert grown <= usual + (24 << 20)
    assert 0 < bounded <= 48 << 20


def test_a_gpu_runs_whole_images_unless_asked(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ov.load(MODELS / "squeezenet1.1-imagenet.onnx", preprocess="caffe", device="cpu")
    monkeypatch.setattr(model, "provider", "CUDAExecutionProvider")
    taken = {}
    for method in ("auto", "incremental"):
        found = ov.occlusion(model, photo, target=("logits", 281), window=32, stride=64, method=method)
        taken[method] = found.provenance.parameters["method"]
    assert taken == {"auto": "plain", "incremental": "incremental"}


@pytest.mark.gpu
def test_on_the_cuda_provider(photo: np.ndarray) -> None:
    """There is no blocked layout there: stages are optimised one by one, and sums may be added in another order."""
    from onnxviz.errors import DeviceError

    try:
        model = ov.load(MODELS / "squeezenet1.1-imagenet.onnx", preprocess="caffe", device="cuda")
    except DeviceError as error:
        pytest.skip(f"no usable CUDA device: {error}")
    asked: dict[str, Any] = {"target": ("logits", 281), "window": 32, "stride": 32}
    auto, plain = (ov.occlusion(model, photo, method=method, **asked) for method in ("incremental", "auto"))
    assert auto.provenance.parameters["method"] == "incremental"
    assert plain.provenance.parameters["method"] == "plain"
    assert "a GPU runs whole images sooner" in plain.provenance.parameters["plan"]["why"]
    assert np.abs(auto.probability - plain.probability).max() <= 1e-5 * np.abs(plain.probability).max()
