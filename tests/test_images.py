"""Pictures of every kind: seen as they should be, or listed as skipped with the reason; read lazily, in order, once."""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image

from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet, load_images
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.inputs.sources import printable_name

WHOLE = Preprocess((8, 6), fit="stretch", interpolation="nearest")
RAMP = np.random.default_rng(3).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def seen(path: Path) -> NDArray[np.int64]:
    """The full-size picture that the file is read as."""
    return np.asarray(load_images(path, WHOLE)[0], dtype=np.int64)


def notes_of(path: Path) -> list[str]:
    images = load_images(path, WHOLE)
    assert images[0].mode == "RGB"
    return [note.text for note in images.notes]


def png(width: int, height: int, *, data: bytes = b"") -> bytes:
    """A PNG of any stated size, whatever its data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


# --- golden: what a picture is seen as -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, ending: str) -> None:
    """Row 27: the same upright picture for all eight; how each is stored is written out from the EXIF standard."""
    upright = RAMP if ending != "jpg" else np.asarray(Image.fromarray(RAMP).resize((48, 64), Image.Resampling.BICUBIC))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    lossless: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    options = lossless.get(ending, {})
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    picture = seen(path)
    assert picture.shape == upright.shape
    assert np.abs(picture - upright).max() <= (12 if ending == "jpg" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_passed_over(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(seen(tmp_path / "a.png"), RAMP)


def test_a_damaged_exif_block_does_not_cost_the_picture(tmp_path: Path) -> None:
    Image.fromarray(RAMP).resize((48, 64)).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff\x01")
    assert seen(tmp_path / "a.jpg").shape == (64, 48, 3)


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 20, 30)])
def test_alpha_is_composited(tmp_path: Path, background: tuple[int, int, int]) -> None:
    """Row 26: a hidden colour never reaches the network; at most one level from the exact mixture."""
    rgba = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    rgba[0] = [255, 0, 0, 0]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    images = load_images(tmp_path / "a.png", Preprocess((16, 16), background=background))
    opacity = rgba[..., 3:] / 255
    expected = rgba[..., :3] * opacity + np.array(background) * (1 - opacity)
    assert np.abs(np.asarray(images[0]) - expected).max() <= 1
    assert (np.asarray(images[0])[0] == background).all()
    assert [note.text for note in images.notes] == [f"transparent pixels: composited on RGB {background}"]


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RAMP, np.full((8, 6), 255, np.uint8)])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(seen(tmp_path / "a.png"), RAMP)
    assert notes_of(tmp_path / "a.png") == []


def test_grey_with_alpha(tmp_path: Path) -> None:
    grey = RAMP[..., 0]
    alpha = np.where(RAMP[..., 1] > 127, 255, 0).astype(np.uint8)
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(seen(tmp_path / "a.png")[..., 2], np.where(alpha == 255, grey, 255))


def test_palette_with_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "index.png", transparency=0)
    assert seen(tmp_path / "index.png").tolist() == [[[255, 255, 255], [0, 255, 0], [0, 0, 255]]]
    palette.save(tmp_path / "bytes.png", transparency=bytes([0, 255, 128]))
    picture = seen(tmp_path / "bytes.png")
    assert picture[0, :2].tolist() == [[255, 255, 255], [0, 255, 0]]
    assert np.abs(picture[0, 2] - [127, 127, 255]).max() <= 1
    palette.save(tmp_path / "plain.png")
    assert seen(tmp_path / "plain.png").tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


def test_a_transparent_colour_of_a_picture_without_alpha(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8)).save(tmp_path / "a.png", transparency=(1, 2, 3))
    assert seen(tmp_path / "a.png").tolist() == [[[255] * 3, [9] * 3]]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, ending: str) -> None:
    """Row 25: scaled, not clipped: within half a level of v / 257 for every level of a ramp."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / f"a.{ending}")
    picture = seen(tmp_path / f"a.{ending}")
    assert np.abs(picture - ramp[..., np.newaxis] / 257).max() <= 0.5
    assert notes_of(tmp_path / f"a.{ending}") == []


def test_sixteen_bit_grey_with_a_transparent_level(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 40000, 65535]], dtype=np.uint16)).save(tmp_path / "a.png", transparency=40000)
    assert seen(tmp_path / "a.png")[0, :, 0].tolist() == [0, 255, 255]


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="needs the extra 'oracles'")
    ramp = np.random.default_rng(0).integers(0, 65536, (32, 32, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", ramp, photometric="rgb")
    assert np.abs(seen(tmp_path / "a.tif") - ramp / 257).max() <= 1


def test_sixteen_bit_portable_greymap(tmp_path: Path) -> None:
    ramp = np.arange(0, 65536, 257, dtype=">u2").reshape(16, 16)
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 65535\n" + ramp.tobytes())
    np.testing.assert_array_equal(seen(tmp_path / "a.pgm")[..., 1].reshape(-1), np.arange(256))


def test_integers(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 40000, 65535]], dtype=np.int32)).save(tmp_path / "a.tif")
    assert seen(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 1, 156, 255]
    assert notes_of(tmp_path / "a.tif") == ["integer pixels: read as 16-bit grey, 65535 is white"]
    for wild in ([[0, 65536]], [[-1, 5]]):
        Image.fromarray(np.array(wild, dtype=np.int32)).save(tmp_path / "wild.tif")
        with pytest.raises(InputError, match="no stated white"):
            seen(tmp_path / "wild.tif")


def test_floating_point(tmp_path: Path) -> None:
    cases: list[tuple[list[float], list[int], str]] = [
        ([0, 0.5, 1], [0, 128, 255], "1 is white"),
        ([0, 100.4, 255], [0, 100, 255], "255 is white"),
    ]
    for numbers, levels, note in cases:
        Image.fromarray(np.array([numbers], dtype=np.float32)).save(tmp_path / "a.tif")
        assert seen(tmp_path / "a.tif")[0, :, 0].tolist() == levels
        assert note in notes_of(tmp_path / "a.tif")[0]
    for wild in ([0, 256.0], [-0.1, 1], [0, np.nan], [0, np.inf]):
        Image.fromarray(np.array([wild], dtype=np.float32)).save(tmp_path / "wild.tif")
        with pytest.raises(InputError, match="floating-point"):
            seen(tmp_path / "wild.tif")


def test_cmyk(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    cmyk.paste((255, 0, 0, 0), (0, 0, 8, 16))
    for ending in ("tif", "jpg"):
        cmyk.save(tmp_path / f"a.{ending}")
        picture = seen(tmp_path / f"a.{ending}")
        assert np.abs(picture[:, 12:] - 255).max() <= (2 if ending == "jpg" else 0)
        assert np.abs(picture[:, :4] - [0, 255, 255]).max() <= (2 if ending == "jpg" else 0)


def test_one_bit(tmp_path: Path) -> None:
    bits = RAMP[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(seen(tmp_path / "a.png")[..., 0], np.where(bits, 255, 0))


def test_lab(tmp_path: Path) -> None:
    lab = Image.merge("LAB", [Image.new("L", (1, 1), level) for level in (255, 128, 128)])
    lab.save(tmp_path / "a.tif")
    assert np.abs(seen(tmp_path / "a.tif") - 255).max() <= 2


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_of_an_animation_the_first_picture(tmp_path: Path, ending: str) -> None:
    """Row 28."""
    frames = [Image.new("RGB", (6, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], duration=50, **options)
    assert np.abs(seen(tmp_path / f"a.{ending}") - [250, 0, 0]).max() == 0
    assert notes_of(tmp_path / f"a.{ending}") == ["animation: the first picture is used"]


def test_of_several_pages_the_first(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (6, 8), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert np.abs(seen(tmp_path / "a.tif") - [250, 0, 0]).max() == 0
    assert notes_of(tmp_path / "a.tif") == ["file of several pages: the first picture is used"]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 37), (37, 1), (20000, 1), (1, 20000)])
@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_extreme_shapes(tmp_path: Path, width: int, height: int, fit: str) -> None:
    """Row 29."""
    Image.new("RGB", (width, height), (9, 99, 199)).save(tmp_path / "a.png")
    contract = Preprocess((24, 16), fit=fit, background=(9, 99, 199))
    (batch,) = load_images(tmp_path / "a.png", contract).batches(4)
    assert batch.views.shape == (1, 24, 16, 3)
    assert np.abs(batch.views.astype(int) - [9, 99, 199]).max() <= 1


# --- what cannot be read ---------------------------------------------------------------------------------------------


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


# --- folders, names, classes -----------------------------------------------------------------------------------------


def save(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 6, 3), level, np.uint8)).save(path)


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


# --- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 8, 6), (5, 8, 6, 1), (5, 1, 8, 6), (8, 6)])
def test_grey_arrays(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (batch,) = load_images(array, WHOLE).batches(9)
    expected = array.reshape(-1, 8, 6)
    for channel in range(3):
        np.testing.assert_array_equal(batch.views[..., channel], expected)


def test_colour_arrays() -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    for source in (array, np.moveaxis(array, -1, 1), np.moveaxis(array, -1, 1).copy(), list(array)):
        images = load_images(source, WHOLE)
        assert images.names == tuple(f"image {index}" for index in range(5))
        np.testing.assert_array_equal(images.views(np.arange(5)), array)
    np.testing.assert_array_equal(load_images(array[0], WHOLE).views([0])[0], array[0])


def test_other_dtypes_of_arrays() -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)
    same: list[NDArray[Any]] = [array / 255, (array / 255).astype(np.float32), array.astype(np.uint16) * 257]
    for source in same:
        np.testing.assert_array_equal(load_images(source, WHOLE).views(range(4)), array)
    np.testing.assert_array_equal(load_images(array > 127, WHOLE).views([0]), np.where(array[:1] > 127, 255, 0))


def test_alpha_in_arrays() -> None:
    array = np.zeros((2, 8, 6, 4), np.uint8)
    array[1, ..., 3] = 255
    assert load_images(array, WHOLE).views([0, 1])[:, 0, 0].tolist() == [[255] * 3, [0] * 3]


def test_array_files_are_mapped(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 8, 6), dtype=np.uint8)
    np.save(tmp_path / "a.npy", array)
    images = load_images(tmp_path / "a.npy", WHOLE, labels=[0, 1, 0, 1])
    np.testing.assert_array_equal(images.views(range(4))[..., 0], array)
    np.save(tmp_path / "object.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(InputError, match="array file"):
        load_images(tmp_path / "object.npy", WHOLE)


def test_a_picture_is_left_as_it_was(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 8), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as picture:
        picture.seek(1)
        images = load_images([picture, picture], WHOLE)
        assert images.views([0, 1])[:, 0, 0].tolist() == [[0, 250, 0]] * 2
        assert picture.tell() == 1
        assert images.names == ("a.gif", "a.gif")


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
