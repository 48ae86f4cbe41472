"""What is no picture, or a damaged one: refused, or listed as skipped with the reason."""

from __future__ import annotations

import os
import struct
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from image_cases import RAMP, WHOLE
from onnxviz.errors import InputError
from onnxviz.inputs.images import load_images


def png(width: int, height: int, *, data: bytes = b"") -> bytes:
    """A PNG of any stated size, whatever its data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("side", [12_000, 65_500])
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    """Row 23: below half a second, and no warning escapes."""
    (tmp_path / "bomb.png").write_bytes(png(side, side, data=bytes(10_000_000)))
    (tmp_path / "good.png").write_bytes(png(1, 1, data=bytes(4)))
    begin = time.perf_counter()
    images = load_images(tmp_path, WHOLE)
    assert time.perf_counter() - begin < 0.5
    assert images.names == ("good.png",)
    assert [(skipped.name, "bomb" in skipped.reason) for skipped in images.skipped] == [("bomb.png", True)]


def folder_of_troubles(root: Path) -> dict[str, str]:
    """A folder with two good pictures and one of each trouble; name → what its reason must say."""
    Image.fromarray(RAMP).save(root / "good a.png")
    Image.fromarray(RAMP).save(root / "good b.png")
    (root / "empty.png").touch()
    (root / "garbage.jpg").write_bytes(np.random.default_rng(0).bytes(4000))
    (root / "notes.txt").write_text("nothing to see", encoding="utf-8")
    (root / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0 thumbs")
    (root / "drawing.eps").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", encoding="utf-8"
    )
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / ".DS_Store").write_bytes(b"hidden")
    (root / ".hidden.png").write_bytes(b"hidden")
    os.mkfifo(root / "pipe.png")
    return {
        "empty.png": "empty",
        "garbage.jpg": "not an image",
        "notes.txt": "not an image",
        "Thumbs.db": "not an image",
        "drawing.eps": "not an image",
        "dangling.png": "No such file",
        "loop": "read already",
        "pipe.png": "not a regular file",
    }


def test_troubles_are_listed_with_their_reason(tmp_path: Path) -> None:
    """Row 30: all listed, none hangs."""
    expected = folder_of_troubles(tmp_path)
    begin = time.perf_counter()
    images = load_images(tmp_path, WHOLE)
    assert time.perf_counter() - begin < 2
    assert images.names == ("good a.png", "good b.png")
    reasons = {skipped.name: skipped.reason for skipped in images.skipped}
    assert reasons.keys() == expected.keys()
    for name, words in expected.items():
        assert words in reasons[name], name
    assert [skipped.name for skipped in images.skipped] == sorted(expected)
    assert len(list(images)) == 2
    assert images.folder_classes is None


def test_unreadable_files_are_listed() -> None:
    # Not below tmp_path: root, who reads every file, becomes an ordinary user here, to whom that folder is closed.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        Image.fromarray(RAMP).save(root / "a.png")
        Image.fromarray(RAMP).save(root / "b.png")
        (root / "b.png").chmod(0)
        (root / "closed").mkdir(mode=0)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(65534)
        try:
            images = load_images(root, WHOLE)
            views = images.views([0])
        finally:
            if was_root:
                os.seteuid(0)
        assert (images.names, views.shape) == (("a.png",), (1, 8, 6, 3))
        assert [(s.name, "ermission" in s.reason) for s in images.skipped] == [("b.png", True), ("closed", True)]


def test_damage_is_found_while_reading_and_listed_once(tmp_path: Path) -> None:
    for index in range(9):
        Image.fromarray(np.full((640, 480, 3), index * 20, np.uint8)).save(tmp_path / f"{index}.jpg")
    for index in (2, 5):
        path = tmp_path / f"{index}.jpg"
        path.write_bytes(path.read_bytes()[: -200 * index])
    images = load_images(tmp_path, WHOLE)
    assert len(images) == 9
    for _ in range(2):
        batches = list(images.batches(3))
        assert [batch.indices.tolist() for batch in batches] == [[0, 1, 3], [4, 6, 7], [8]]
        assert [int(level) for batch in batches for level in np.rint(batch.views.mean(axis=(1, 2, 3)) / 20)] == [
            0, 1, 3, 4, 6, 7, 8,
        ]  # fmt: skip
        assert [skipped.name for skipped in images.skipped] == ["2.jpg", "5.jpg"]
        assert all("truncated" in skipped.reason for skipped in images.skipped)
    with pytest.raises(InputError, match="truncated"):
        images[2]
    with pytest.raises(InputError, match=r"5\.jpg"):
        images.views([4, 5, 6])
    with pytest.raises(InputError, match=r"5\.jpg"):
        images.thumbnails([5], 8)
    assert [skipped.name for skipped in images.subset([5, 6]).skipped] == ["5.jpg"]


def test_what_a_subset_finds_the_set_knows(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.fromarray(np.full((640, 480, 3), 99, np.uint8)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:-100])
    images = load_images(tmp_path, WHOLE)
    assert len(list(images.subset([1, 2]))) == 1
    assert [skipped.name for skipped in images.skipped] == ["b.jpg"]
    assert images.subset([0]).skipped == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["png", "jpg", "gif", "webp", "tif", "bmp", "ppm", "tga", "ico"]))
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_read_or_refused(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    Image.fromarray(np.tile(RAMP, (3, 3, 1))).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] or content)
    try:
        images = load_images(path, WHOLE)
    except InputError:
        return
    for batch in images.batches(1):
        assert batch.views.shape == (1, 8, 6, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "does not exist"), ("folder", "nothing at all"), ("empty.png", "is empty"), ("a.npy", "array file")],
)
def test_paths_that_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "a.npy").touch()
    with pytest.raises(InputError, match=message):
        load_images(tmp_path / name, WHOLE)
    with pytest.raises(InputError, match=message):
        load_images(str(tmp_path / name), WHOLE)


def test_sources_that_are_refused() -> None:
    refused: list[tuple[Any, str]] = [
        (None, "NoneType"),
        (b"bytes", "bytes"),
        ([], "nothing at all"),
        ([3], r"images\[0\]"),
        ([np.zeros((4, 5, 5), np.uint8)], "one image"),
        (np.zeros((2, 5, 5, 3), np.int64), "int64"),
        (np.full((2, 5, 5, 3), "a"), "<U1"),
        (np.zeros((2, 5, 5, 2), np.uint8), "not an array of images"),
        (np.zeros((5,), np.uint8), "not an array of images"),
        (np.zeros((0, 5, 5), np.uint8), "no pixels"),
        (np.zeros((2, 3, 5, 3), np.uint8), "channels may be first or last"),
        (np.full((2, 5, 5, 3), 1.01), r"\[0, 1\]"),
        (np.full((2, 5, 5, 3), np.nan), r"\[0, 1\]"),
        (np.full((2, 5, 5, 3), -0.01, np.float16), r"\[0, 1\]"),
    ]
    for source, message in refused:
        with pytest.raises(InputError, match=message):
            load_images(source, WHOLE)


def test_a_model_that_takes_no_image_is_refused() -> None:
    for model in (None, 3, type("Model", (), {"preprocess": None})()):
        with pytest.raises(InputError, match="how images are prepared"):
            load_images(RAMP, model)
    assert len(load_images(RAMP, type("Model", (), {"preprocess": WHOLE})())) == 1
