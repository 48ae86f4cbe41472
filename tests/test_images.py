"""Pictures and arrays of every kind: seen as they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from image_cases import RAMP, WHOLE
from onnxviz.errors import InputError
from onnxviz.inputs.images import load_images
from onnxviz.inputs.preprocess import Preprocess


def seen(path: Path) -> NDArray[np.int64]:
    """The full-size picture that the file is read as."""
    return np.asarray(load_images(path, WHOLE)[0], dtype=np.int64)


def notes_of(path: Path) -> list[str]:
    images = load_images(path, WHOLE)
    assert images[0].mode == "RGB"
    return [note.text for note in images.notes]


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
