"""Collecting features on disk: the rows of ``features``, and the same bytes however often the run was stopped."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

import onnxviz as ov
from graphs import build, save, tiny_network
from onnxviz.cli import main
from onnxviz.errors import InputError, LimitError, ValueNotFoundError
from onnxviz.inputs.image_set import ImageSet, Skipped
from onnxviz.runtime.model import Model


def photos(folder: Path, count: int, *, start: int = 0) -> Path:
    """Class folders of small pictures that differ."""
    for index in range(start, start + count):
        place = folder / ("ant", "bee", "cat")[index % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{index:04d}.png")
    return folder


def tear(path: Path) -> None:
    """Leave the header, so that only decoding finds out."""
    path.write_bytes(path.read_bytes()[:-40])


def opened(path: Path, **options: Any) -> Model:
    return ov.load(path, **{"preprocess": "unit", "device": "cpu", "threads": 1, "batch_size": 4} | options)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return opened(save(tiny_network(), tmp_path / "tiny.onnx"))


@pytest.fixture
def images(tmp_path: Path, model: Model) -> ImageSet:
    return ov.load_images(photos(tmp_path / "photos", 30), model)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Stop(Exception):
    """Ends a run where a test wants it."""


def stop_at(count: int) -> Callable[[int, int], None]:
    def progress(done: int, of: int) -> None:
        if done >= count:
            raise Stop

    return progress


# -- what is collected -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "pool"), [(None, None), ("conv", False), ("conv", True), ("relu", None)])
@pytest.mark.parametrize("shard_rows", [1, 8, 1000])
def test_a_bank_holds_what_features_gives(
    value: str | None, pool: bool | None, shard_rows: int, model: Model, images: ImageSet, tmp_path: Path
) -> None:
    wanted = ov.features(model, images, value=value, pool=pool)
    bank = ov.collect_features(model, images, tmp_path / "bank", value=value, pool=pool, shard_rows=shard_rows)
    bank.verify()
    found = bank.features()
    np.testing.assert_array_equal(found.array, wanted.array)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_array_equal(found.classes, wanted.classes)
    for name in ("value", "pooled", "names", "class_names"):
        assert getattr(found, name) == getattr(wanted, name)
    assert found.provenance.model_sha256 == model.sha256
    # Whole batches of four.
    assert {shard.rows for shard in bank.shards[:-1]} <= {max(shard_rows, 4)}
    assert found.provenance.parameters["shard_rows"] == max(shard_rows, 4)
    assert bank.reached == 30


def test_a_model_that_computes_in_float64_fills_a_float64_bank(tmp_path: Path) -> None:
    node = helper.make_node
    network = build(
        [
            node("Cast", ["image"], ["wide"], to=onnx.TensorProto.DOUBLE),
            node("Mul", ["wide", "third"], ["scaled"]),
            node("ReduceMean", ["scaled"], ["pooled"], axes=[2, 3]),
            node("Flatten", ["pooled"], ["logits"]),
        ],
        inputs={"image": ("float", ["n", 3, 8, 8])},
        outputs={"logits": ("double", ["n", 3])},
        weights={"third": np.array(1 / 3)},
    )
    model = opened(save(network, tmp_path / "wide.onnx"))
    images = ov.load_images(photos(tmp_path / "photos", 9), model)
    bank = ov.collect_features(model, images, tmp_path / "bank", value="pooled")
    assert bank.dtype == np.float64
    np.testing.assert_array_equal(bank[:], ov.features(model, images, value="pooled").array)
    assert (bank[:] != bank[:].astype(np.float32)).any()


def test_images_without_a_row_are_listed_with_the_reason(model: Model, tmp_path: Path) -> None:
    """Torn in the middle, at the end of a shard and at the end of all; and one that is no image at all."""
    folder = photos(tmp_path / "photos", 24)
    (folder / "ant" / "notes.txt").write_text("no image")
    names = ov.load_images(folder, model).names
    torn = [names[3], names[4], names[9], names[22], names[23]]
    for name in torn:
        tear(folder / name)
    images = ov.load_images(folder, model)
    wanted = ov.features(model, ov.load_images(folder, model))
    bank = ov.collect_features(model, images, tmp_path / "bank", shard_rows=4)
    assert [skipped.name for skipped in bank.skipped] == ["ant/notes.txt", *torn]
    assert all(skipped.reason for skipped in bank.skipped)
    np.testing.assert_array_equal(bank[:], wanted.array)
    np.testing.assert_array_equal(bank.indices, wanted.indices)
    assert bank.names == wanted.names
    assert [shard.rows for shard in bank.shards] == [4, 4, 4, 4, 3]
    # Complete: nothing is read or written again.
    before = files(bank.folder)
    told: list[tuple[int, int]] = []
    again = ov.collect_features(
        model, ov.load_images(folder, model), bank.folder, shard_rows=4, progress=lambda *done: told.append(done)
    )
    assert files(bank.folder) == before
    assert told == [(24, 24)]
    assert again.skipped == bank.skipped


def test_rows_that_fill_their_shards_leave_torn_images_behind_them(model: Model, tmp_path: Path) -> None:
    """The last images have no row and no shard of rows to be listed in."""
    folder = photos(tmp_path / "photos", 10)
    names = ov.load_images(folder, model).names
    tear(folder / names[8])
    tear(folder / names[9])
    bank = ov.collect_features(model, ov.load_images(folder, model), tmp_path / "bank", shard_rows=4)
    assert [shard.rows for shard in bank.shards] == [4, 4]
    assert [skipped.name for skipped in bank.skipped] == [names[8], names[9]]
    assert (len(bank), bank.reached) == (8, 10)
    bank.verify()


def test_features_that_are_not_finite_are_no_rows(tmp_path: Path) -> None:
    """A division by a mean that is zero for black pictures only."""
    node = helper.make_node
    network = build(
        [
            node("GlobalAveragePool", ["image"], ["mean"]),
            node("Div", ["image", "mean"], ["divided"]),
            node("GlobalAveragePool", ["divided"], ["pooled"]),
            node("Flatten", ["pooled"], ["logits"]),
        ],
        inputs={"image": ("float", ["n", 3, 8, 8])},
        outputs={"logits": ("float", ["n", 3])},
    )
    model = opened(save(network, tmp_path / "divides.onnx"))
    folder = photos(tmp_path / "photos", 20)
    names = ov.load_images(folder, model).names
    for index in (5, 6, 12, 13, 14, 15):
        Image.new("RGB", (8, 8)).save(folder / names[index])
    images = ov.load_images(folder, model)
    bank = ov.collect_features(model, images, tmp_path / "bank", value="pooled", shard_rows=4)
    assert bank.skipped == tuple(
        Skipped(names[index], "its features hold NaN or infinity") for index in (5, 6, 12, 13, 14, 15)
    )
    kept = [index for index in range(20) if index not in (5, 6, 12, 13, 14, 15)]
    np.testing.assert_array_equal(bank.indices, kept)
    np.testing.assert_array_equal(bank[:], ov.features(model, images, value="pooled").array[kept])
    # A shard answers for four readable images, so that where a run goes on batches are cut as before.
    for count in (5, 9, 13, 17):
        other = tmp_path / f"stopped at {count}"
        with pytest.raises(Stop):
            ov.collect_features(model, images, other, value="pooled", shard_rows=4, progress=stop_at(count))
        ov.collect_features(model, images, other, value="pooled", shard_rows=4)
        assert files(other) == files(bank.folder)
    for path in folder.rglob("*.png"):
        Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(InputError, match="no image gives a feature vector; got its features hold NaN"):
        ov.collect_features(model, ov.load_images(folder, model), tmp_path / "none", value="pooled")


def test_nothing_that_can_be_read(model: Model, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 3)
    for path in folder.rglob("*.png"):
        tear(path)
    for _ in range(2):
        with pytest.raises(InputError, match="images: no image gives a feature vector"):
            ov.collect_features(model, ov.load_images(folder, model), tmp_path / "bank")


def test_wrong_arguments(model: Model, images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shard_rows: .* got 0"):
        ov.collect_features(model, images, tmp_path / "bank", shard_rows=0)
    with pytest.raises(ValueNotFoundError):
        ov.collect_features(model, images, tmp_path / "bank", value="no such")
    with pytest.raises(InputError, match="files that are no feature bank"):
        ov.collect_features(model, images, tmp_path / "photos")
    assert not (tmp_path / "bank").exists()


def test_parts_that_were_collected_apart_make_the_whole(model: Model, images: ImageSet, tmp_path: Path) -> None:
    whole = ov.collect_features(model, images, tmp_path / "whole", shard_rows=8)
    parts = [
        ov.collect_features(model, images.subset(np.arange(*ends)), tmp_path / f"{ends}", shard_rows=8)
        for ends in ((0, 16), (16, 24), (24, 30))
    ]
    for part in parts[1:]:
        parts[0].append_bank(part)
    assert parts[0].digest == whole.digest
    assert parts[0].names == whole.names
    np.testing.assert_array_equal(parts[0].classes, whole.classes)
    parts[0].close()
    with pytest.raises(InputError, match="not made by one collection"):
        ov.collect_features(model, images, parts[0].folder, shard_rows=8)
    by_hand = ov.FeatureBank.create(tmp_path / "by hand", columns=whole.shape[1], class_names=whole.class_names)
    by_hand.append(whole[:])
    by_hand.close()
    with pytest.raises(InputError, match="not made by one collection"):
        ov.collect_features(model, images, by_hand.folder, shard_rows=8)


# -- going on --------------------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_where_it_was(model: Model, images: ImageSet, tmp_path: Path) -> None:
    whole = ov.collect_features(model, images, tmp_path / "whole", shard_rows=8)
    told: list[int] = []

    def progress(done: int, of: int) -> None:
        assert of == 30
        told.append(done)
        if len(told) % 6 == 0:
            raise Stop

    for _ in range(20):
        told.append(-1)
        try:
            ov.collect_features(model, images, tmp_path / "bank", shard_rows=8, progress=progress)
            break
        except Stop:
            assert len(ov.FeatureBank.open(tmp_path / "bank")) % 8 == 0
    assert told.count(-1) > 3
    # Each run begins at the end of a shard that is there.
    assert {told[place + 1] for place, done in enumerate(told) if done == -1} <= {0, 8, 16, 24}
    assert files(tmp_path / "bank") == files(whole.folder)


def test_arrays_and_pictures_go_on_too(model: Model, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    for number, source in enumerate((pixels, [Image.fromarray(one) for one in pixels])):
        place = tmp_path / str(number)
        with pytest.raises(Stop):
            ov.collect_features(model, ov.load_images(source, model), place, shard_rows=4, progress=stop_at(8))
        changed = pixels.copy()
        changed[8, 0, 0, 0] ^= 1
        other = changed if number == 0 else [Image.fromarray(one) for one in changed]
        with pytest.raises(InputError, match="got sizes, times or pixels of the images"):
            ov.collect_features(model, ov.load_images(other, model), place, shard_rows=4)
        assert len(ov.collect_features(model, ov.load_images(source, model), place, shard_rows=4)) == 9


def remove_one(folder: Path) -> None:
    (folder / "bee" / "0001.png").unlink()


def rename_one(folder: Path) -> None:
    (folder / "bee" / "0001.png").rename(folder / "bee" / "0001b.png")


def exchange_one(folder: Path) -> None:
    """Another picture of the same size in bytes, saved later."""
    path = folder / "bee" / "0001.png"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


@pytest.mark.parametrize(
    ("change", "options", "collected", "sentence"),
    [
        (None, {}, {"value": "relu"}, "got columns 256, value relu; allowed: columns 4, value features."),
        (None, {}, {"value": "pooled"}, "got value pooled; allowed: value features."),
        (None, {}, {"shard_rows": 16}, "got shard_rows 16; allowed: shard_rows 8."),
        (None, {"batch_size": 2}, {}, "got batch_size 2; allowed: batch_size 4."),
        (None, {"threads": 2}, {}, "got threads 2; allowed: threads 1."),
        (None, {"preprocess": "tf"}, {}, "preprocess scale"),
        (remove_one, {}, {}, "got number of images 29; allowed: number of images 30."),
        (rename_one, {}, {}, "got names of the images "),
        (exchange_one, {}, {}, "got sizes, times or pixels of the images "),
        (lambda folder: photos(folder, 1, start=99), {}, {}, "got number of images 31; allowed"),
    ],
)  # fmt: skip
def test_what_differs_is_named(
    change: Callable[[Path], object] | None, options: dict, collected: dict, sentence: str, model: Model,
    images: ImageSet, tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(Stop):
        ov.collect_features(model, images, tmp_path / "bank", shard_rows=8, progress=stop_at(20))
    before = files(tmp_path / "bank")
    if change is not None:
        change(tmp_path / "photos")
    other = opened(model.path, **options)
    with pytest.raises(InputError) as error:
        ov.collect_features(
            other, ov.load_images(tmp_path / "photos", other), tmp_path / "bank", **{"shard_rows": 8} | collected
        )
    assert "begun with other settings, so this collection cannot go on with it; got " in str(error.value)
    assert sentence in str(error.value)
    assert str(error.value).endswith("Restore them, or name another folder.")
    assert files(tmp_path / "bank") == before
    # The refusal does not keep the bank locked.
    ov.FeatureBank.open(tmp_path / "bank", lock=True).close()


def test_another_model_labels_versions_or_provider_are_named(
    model: Model, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((12, 8, 8, 3), np.uint8)

    def collect(model: Model = model, labels: list[int] | None = None, **options: Any) -> None:
        labelled = ov.load_images(pixels, model, labels=labels or [0, 1] * 6, class_names=("ant", "bee", "cat"))
        ov.collect_features(model, labelled, tmp_path / "bank", shard_rows=4, **options)

    with pytest.raises(Stop):
        collect(progress=stop_at(8))
    other = tiny_network()
    other.doc_string = "trained for one epoch more"
    with pytest.raises(InputError, match=r"got model SHA-256 [0-9a-f]{24}; allowed: model SHA-256 [0-9a-f]{24}\."):
        collect(opened(save(other, tmp_path / "other.onnx")))
    with pytest.raises(InputError, match="got classes of the images "):
        collect(labels=[1, 0] * 6)
    monkeypatch.setattr(model, "provider", "CUDAExecutionProvider")
    with pytest.raises(InputError, match="got provider CUDAExecutionProvider; allowed: provider CPUExecutionProvider"):
        collect()
    monkeypatch.undo()
    provenance = model.provenance

    def newer(method: str, parameters: dict) -> object:
        made = provenance(method, parameters)
        return type(made)(**vars(made) | {"versions": {**made.versions, "pillow": "99.0", "scipy": "99.0"}})

    # A new pillow may decode otherwise; scipy has no part in a feature.
    monkeypatch.setattr(model, "provenance", newer)
    with pytest.raises(InputError, match=r"got pillow 99\.0; allowed: pillow [0-9.]+\. Restore"):
        collect()
    monkeypatch.undo()
    collect()


def test_who_said_how_images_are_prepared_does_not_matter(model: Model, images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        ov.collect_features(model, images, tmp_path / "bank", shard_rows=8, progress=stop_at(20))
    assert model.preprocess is not None
    plain = model.preprocess.to_json() | {"name": "mine", "why": "the training script says so"}
    other = opened(model.path, preprocess=ov.Preprocess.from_json(plain))
    bank = ov.collect_features(other, ov.load_images(tmp_path / "photos", other), tmp_path / "bank", shard_rows=8)
    assert len(bank) == 30


def test_two_collections_at_once(model: Model, images: ImageSet, tmp_path: Path) -> None:
    def meanwhile(done: int, of: int) -> None:
        if done == 8:
            with pytest.raises(InputError, match="somebody else is writing"):
                # Before anything is computed in vain.
                ov.collect_features(model, images, tmp_path / "bank", shard_rows=8, progress=pytest.fail)

    bank = ov.collect_features(model, images, tmp_path / "bank", shard_rows=8, progress=meanwhile)
    assert len(bank) == 30


def test_a_time_limit_keeps_what_was_collected(model: Model, images: ImageSet, tmp_path: Path) -> None:
    def run_out(done: int, of: int) -> None:
        if done == 20:
            model.set_timeout(0)

    with pytest.raises(LimitError):
        ov.collect_features(model, images, tmp_path / "bank", shard_rows=8, progress=run_out)
    model.set_timeout(None)
    assert len(ov.FeatureBank.open(tmp_path / "bank")) == 16
    assert len(ov.collect_features(model, images, tmp_path / "bank", shard_rows=8)) == 30


COLLECTS = """
import sys, onnxviz as ov
model = ov.load(sys.argv[1], preprocess="unit", device="cpu", threads=1, batch_size=4)
images = ov.load_images(sys.argv[2], model)
ov.collect_features(model, images, sys.argv[3], shard_rows=4, progress=lambda done, of: print(done, flush=True))
"""
IN_SHARD = 4


def start(model: Model, folder: Path, bank: Path) -> subprocess.Popen[str]:
    """A collection in a process of its own, which prints how far it is."""
    return subprocess.Popen(
        [sys.executable, "-c", COLLECTS, str(model.path), str(folder), str(bank)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_times_change_no_byte(kills: int, model: Model, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 160)
    names = ov.load_images(folder, model).names
    torn = {names[index] for index in (17, 50, 51, 52, 53, 159)}
    for name in torn:
        tear(folder / name)
    child = start(model, folder, tmp_path / "whole")
    assert child.stdout is not None
    assert child.stdout.readline() == "0\n"
    began = time.monotonic()
    _, err = child.communicate()
    takes = time.monotonic() - began
    assert child.returncode == 0, err
    whole = ov.FeatureBank.open(tmp_path / "whole")
    assert len(whole) == 154

    generator = random.Random(3)
    killed = finished = 0
    place = tmp_path / "0"
    while killed < kills:
        before = ov.FeatureBank.open(place).reached if (place / "bank.json").exists() else 0
        child = start(model, folder, place)
        assert child.stdout is not None
        first = child.stdout.readline()
        assert first == f"{before}\n", child.stderr.read() if child.stderr else ""
        time.sleep(generator.uniform(0, takes / 2))
        child.send_signal(signal.SIGKILL)
        out, _ = child.communicate()
        killed += child.returncode == -signal.SIGKILL
        bank = ov.FeatureBank.open(place)
        bank.verify()
        np.testing.assert_array_equal(bank[:], whole[: len(bank)])
        # Nothing that was finished is lost, and of what was computed at most one shard.
        computed = [before, *map(int, out.split())][-1]
        assert before <= bank.reached
        assert len(set(names[bank.reached : computed]) - torn) <= IN_SHARD
        if bank.reached == 160:
            assert files(place) == files(whole.folder)
            finished += 1
            place = tmp_path / str(finished)
    child = start(model, folder, place)
    _, err = child.communicate()
    assert child.returncode == 0, err
    assert files(place) == files(whole.folder)


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        assert isinstance(left.value.code, int)
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


def test_the_command(
    command: Callable[..., tuple[int, str, str]], model: Model, images: ImageSet, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    tear(tmp_path / "photos" / images.names[7])
    arguments = ("features", "tiny.onnx", "photos", "--preprocess", "unit", "-o", "bank", "--threads", 1)
    code, out, err = command(*arguments)
    assert code == 0
    bank = ov.FeatureBank.open("bank")
    assert out.splitlines() == [
        "rows     29", "columns  4 float32", "size     0.0 MB", "skipped  1", f"digest   {bank.digest}", "bank",
    ]  # fmt: skip
    assert err.splitlines() == ["[1/2] opening tiny.onnx", "[2/2] features"]
    # Once more: nothing to do, the same answer.
    assert command(*arguments)[:2] == (0, out)
    assert command(*arguments, "-q") == (0, "", "")
    code, out, err = command(*arguments, "--value", "pooled")
    assert (code, out) == (2, "")
    assert "onnxviz: bank: the feature bank was begun with other settings" in err
    code, out, err = command(*arguments[:-4], "-o", "few", "--limit", 6)
    assert code == 0
    assert re.search(r"^rows +6$", out, re.MULTILINE)
    code, _, err = command(*arguments[:-4], "-o", "photos")
    assert code == 2
    assert "files that are no feature bank" in err


def test_the_command_goes_on_after_an_interrupt(model: Model, images: ImageSet, tmp_path: Path) -> None:
    code = "from onnxviz.cli import main; main()"
    arguments = ["features", str(model.path), str(tmp_path / "photos"), "--preprocess", "unit", "-q", "-o"]
    slow = (
        "import time; from onnxviz.inputs.contract import Preprocess; view = Preprocess.view;"
        "Preprocess.view = lambda self, image: (time.sleep(0.2), view(self, image))[1];"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", slow + code, *arguments, str(tmp_path / "bank")], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "bank" / "bank.json").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate()
    assert (child.returncode, err) == (130, "onnxviz: interrupted\n")
    for place in ("bank", "whole"):
        subprocess.run([sys.executable, "-c", code, *arguments, str(tmp_path / place)], check=True)
    assert files(tmp_path / "bank") == files(tmp_path / "whole")
