"""Sets of pictures: named, told their classes, read lazily, in order, once."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from image_cases import RAMP, WHOLE, save
from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet, load_images
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.inputs.sources import printable_name

# --- folders, names, classes -----------------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path) -> None:
    for name in ("dog/2.png", "dog/1.png", "cat/deep/er/1.png", "top.png", "ant/1.png"):
        save(tmp_path / name)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("no class", encoding="utf-8")
    images = load_images(tmp_path, WHOLE)
    assert images.names == ("ant/1.png", "cat/deep/er/1.png", "dog/1.png", "dog/2.png", "top.png")
    assert images.folder_names == ("ant", "cat", "dog")
    assert images.folder_classes is not None
    assert images.folder_classes.tolist() == [0, 1, 2, 2, -1]
    assert [skipped.name for skipped in images.skipped] == ["docs/readme.txt"]
    part = images.subset([3, 0])
    assert (part.names, part.folder_classes.tolist()) == (("dog/2.png", "ant/1.png"), [2, 0])  # type: ignore[union-attr]
    with pytest.raises(InputError, match="already"):
        load_images(tmp_path, WHOLE, labels=[0] * 5)


def test_file_names_give_no_classes(tmp_path: Path) -> None:
    save(tmp_path / "0000_tench.png")
    images = load_images(tmp_path, WHOLE)
    assert images.folder_classes is None
    assert images.folder_names is None


def test_links_are_followed_once(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "x.png")
    root = tmp_path / "root"
    save(root / "a" / "1.png")
    (root / "a" / "up").symlink_to(root, target_is_directory=True)
    (root / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "c.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    images = load_images(root, WHOLE)
    assert images.names == ("a/1.png", "b/x.png", "c.png")
    assert [(skipped.name, skipped.reason) for skipped in images.skipped] == [
        ("a/up", "a link to a folder that is read already")
    ]


AWKWARD = [
    "ünï©ødé 漢字.png", "שלום.png", "مرحبا.png", "line\nbreak.png", "tab\t.png", "back\\slash.png", "<script>&\"'.png",
    "\u202egnp.exe.png", "\x1b[31mred.png", "\udcff\udc80.png", "👩\u200d🔬.png", "a\\nb.png",
    " lead.png", "-dash.png", "%41.png",
]  # fmt: skip


def test_awkward_names(tmp_path: Path) -> None:
    """Row 31: shown in one printable line, told apart, and read."""
    for level, name in enumerate(AWKWARD):
        save(Path(os.fsdecode(os.fsencode(str(tmp_path / name)))), level * 10)
    images = load_images(tmp_path, WHOLE)
    assert len(set(images.names)) == len(AWKWARD)
    for shown, path in zip(images.names, images.paths, strict=True):
        assert path is not None
        name = Path(path).name
        assert name in AWKWARD
        assert shown == printable_name(name)
        shown.encode("utf-8")
        assert all(character.isprintable() or character in "\u200c\u200d" for character in shown)
    (batch,) = images.batches(32)
    levels = [AWKWARD.index(Path(path).name) * 10 for path in images.paths if path]
    assert batch.views[:, 0, 0, 0].tolist() == levels
    alone = [load_images(path, WHOLE) for path in images.paths if path]
    assert [one.names[0] for one in alone] == list(images.names)


@given(names=st.lists(st.text(max_size=12), min_size=2, max_size=2, unique=True))
def test_different_names_stay_different(names: list[str]) -> None:
    first, second = map(printable_name, names)
    assert first != second
    assert "\n" not in first
    (first + second).encode("utf-8")


def test_sequences(tmp_path: Path) -> None:
    save(tmp_path / "x" / "1.png", 10)
    save(tmp_path / "y" / "2.png", 20)
    items = [tmp_path / "y" / "2.png", str(tmp_path / "x" / "1.png"), Image.new("L", (3, 3), 30), RAMP]
    images = load_images(items, WHOLE, labels=[1, 0, -1, 1], class_names=["x", "y"])
    assert images.names == ("y/2.png", "x/1.png", "image 2", "image 3")
    assert images.paths[2:] == (None, None)
    assert images.folder_names == ("x", "y")
    assert images.folder_classes is not None
    assert images.folder_classes.tolist() == [1, 0, -1, 1]
    (batch,) = images.batches(9)
    assert batch.views[:3, 0, 0, 0].tolist() == [20, 10, 30]
    np.testing.assert_array_equal(batch.views[3], RAMP)


def test_labels_follow_the_images_that_are_left(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    save(tmp_path / "3.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    images = load_images([tmp_path / f"{n}.png" for n in (1, 2, 3)], WHOLE, labels=np.array([4, 5, 6]))
    assert images.folder_classes is not None
    assert images.folder_classes.tolist() == [4, 6]
    assert images.folder_names == ("0", "1", "2", "3", "4", "5", "6")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0], None, "one class number for each image"),
        ([0.5, 1], None, "whole numbers"),
        (["a", "b"], None, "whole numbers"),
        ([0, 2], ["a", "b"], "a class has no name"),
        ([0, -2], None, "a class has no name"),
        (None, ["a", "b"], "without classes"),
    ],
)
def test_labels_that_are_refused(labels: Any, names: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_images(np.zeros((2, 5, 5), np.uint8), WHOLE, labels=labels, class_names=names)


# --- reading many ----------------------------------------------------------------------------------------------------


def many(tmp_path: Path, count: int = 60) -> ImageSet:
    for index in range(count):
        save(tmp_path / f"class{index % 3}" / f"{index:03d}.png", index)
    return load_images(tmp_path, WHOLE)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [1, 7, 60, 1000])
def test_batches_keep_the_order(tmp_path: Path, size: int, threads: int) -> None:
    images = many(tmp_path)
    images._threads = threads
    for start in (0, 13, 60):
        batches = list(images.batches(size, start=start))
        assert [index for batch in batches for index in batch.indices.tolist()] == list(range(start, 60))
        assert [len(batch.indices) for batch in batches[:-1]] == [size] * (len(batches) - 1)
        for batch in batches:
            levels = [int(images.names[index].split("/")[1][:3]) for index in batch.indices]
            assert batch.views[:, 4, 3, 1].tolist() == levels
            np.testing.assert_array_equal(batch.tensor, images.preprocess.encode(batch.views))
    with pytest.raises(InputError):
        next(images.batches(0))


def test_several_threads_may_read(tmp_path: Path) -> None:
    images = many(tmp_path)
    expected = images.views(range(60))
    results: list[NDArray[np.uint8]] = []

    def read() -> None:
        results.append(np.concatenate([batch.views for batch in images.batches(7)]))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, expected)


class CountingSource:
    """A source that counts how often it is opened."""

    path = None
    opened = 0

    def __init__(self, index: int) -> None:
        self.name = f"image {index}"

    def check(self) -> None:
        pass

    def open(self, background: tuple[int, int, int]) -> tuple[Image.Image, tuple[str, ...]]:
        CountingSource.opened += 1
        return Image.new("RGB", (6, 8), background), ()


def test_reading_ahead_is_bounded_and_stops_with_the_caller() -> None:
    CountingSource.opened = 0
    images = ImageSet([CountingSource(index) for index in range(10_000)], WHOLE, threads=3)
    stream = images.batches(10)
    next(stream)
    time.sleep(0.1)
    assert CountingSource.opened <= 10 + 2 * 10 + 3 * 8
    stream.close()
    settled = CountingSource.opened
    assert not any(thread.name.startswith("onnxviz-decode") for thread in threading.enumerate())
    time.sleep(0.05)
    assert CountingSource.opened == settled


def test_nothing_is_kept_in_memory() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    contract = Preprocess((64, 64), fit="stretch")
    images = ImageSet([CountingSource(index) for index in range(3_000)], contract, threads=2)
    tracemalloc.start()
    try:
        for batch in images.batches(16):
            assert len(batch.views)
            if batch.indices[0] == 480:
                early = tracemalloc.get_traced_memory()[1]
        late = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All views together would be 37 MB, all tensors 147 MB.
    assert late < early + 1_000_000
    assert late < 12_000_000


def test_listing_reads_no_pixels(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    header = (tmp_path / "a.png").read_bytes()[:60]
    (tmp_path / "cut.png").write_bytes(header)
    images = load_images(tmp_path, WHOLE)
    assert images.names == ("a.png", "cut.png")
    assert images.skipped == []


def test_sample_is_balanced_and_repeatable(tmp_path: Path) -> None:
    for index in range(40):
        save(tmp_path / ("big" if index < 34 else "small") / f"{index:02d}.png")
    images = load_images(tmp_path, WHOLE)
    sample = images.sample(10, seed=3)
    assert sample.folder_classes is not None
    assert np.bincount(sample.folder_classes).tolist() == [5, 5]
    assert list(sample.names) == sorted(sample.names)
    assert images.sample(10, seed=3).names == sample.names
    assert images.sample(10, seed=4).names != sample.names
    all_small = images.sample(30)
    assert all_small.folder_classes is not None
    assert np.bincount(all_small.folder_classes).tolist() == [24, 6]
    assert images.sample(99) is images
    with pytest.raises(InputError):
        images.sample(0)


def test_limit_takes_images_that_can_be_opened(tmp_path: Path) -> None:
    for index in range(20):
        save(tmp_path / f"c{index % 2}" / f"{index:02d}.png")
    for index in range(0, 20, 4):
        (tmp_path / "c0" / f"{index:02d}.png").write_bytes(b"no image")
    images = load_images(tmp_path, WHOLE, limit=8)
    assert len(images) == len(list(images)) == 8
    assert images.folder_classes is not None
    assert np.bincount(images.folder_classes).min() >= 2
    assert images.folder_names == ("c0", "c1")
    assert load_images(tmp_path, WHOLE, limit=8).names == images.names
    assert len(load_images(tmp_path, WHOLE, limit=99)) == 15
    assert len(load_images(np.zeros((9, 5, 5), np.uint8), WHOLE, limit=4)) == 4
    with pytest.raises(InputError):
        load_images(tmp_path, WHOLE, limit=0)


def test_a_set_can_be_prepared_for_another_model(tmp_path: Path) -> None:
    images = many(tmp_path, 6)
    other = load_images(images, Preprocess((4, 4), fit="stretch"), limit=5)
    assert other.views(range(5)).shape == (5, 4, 4, 3)
    assert images.views([0]).shape == (1, 8, 6, 3)


def test_access_by_position(tmp_path: Path) -> None:
    images = many(tmp_path, 5)
    assert len(images) == 5
    assert images[-1].size == (6, 8)
    with pytest.raises(IndexError):
        images[5]
    for bad in ([5], [-1]):
        with pytest.raises(InputError, match="0 to 4"):
            images.subset(bad)
    assert images.subset(np.array([True, False, False, False, True])).names == (images.names[0], images.names[4])
    assert images.views([]).shape == (0, 8, 6, 3)


def test_thumbnails_are_centre_squares() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    thumbnails = load_images([wide, wide], WHOLE).thumbnails([1, 0, 1], 5)
    assert thumbnails.shape == (3, 5, 5, 3)
    # The filter reaches a little past the square, as it would if the picture were resized first.
    assert (np.abs(thumbnails.astype(int) - 200) <= 15).all()
