"""An image file or picture of any mode comes in; an upright 8-bit RGB picture, with remarks on what was done, goes out.

The rules, for every reader of a report:

* EXIF orientation is applied; colour profiles are not (networks are trained on pictures decoded without them).
* Transparent pixels are composited on the contract's ``background``: a hidden colour never reaches the network.
* 16-bit grey is scaled, not clipped: 65535 is white (4095 for 12-bit TIFF). 32-bit integers within 0..65535 are read
  the same way; floating-point pictures are read as 0..1, or as 0..255 where they go beyond 1; wider ranges are refused.
* Of an animation or a file of several pages, the first picture is read.
"""

from __future__ import annotations

import os
import stat
import threading
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from onnxviz.errors import InputError

__all__ = ["check_file", "open_file", "to_rgb"]

# Every format that Pillow decodes inside this process. EPS is left out: Pillow hands it to a Ghostscript interpreter.
FORMATS = (
    "AVIF", "BMP", "CUR", "DDS", "DIB", "GIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000", "MSP", "PCX", "PNG",
    "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM",
)  # fmt: skip
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_Result = TypeVar("_Result")
_OPENING = threading.Lock()


def check_file(path: str | Path) -> None:
    """Find out from its header alone whether a file is an image that can be read.

    Raises
    ------
    InputError
        When it is not; ``what`` is the reason.
    """
    with _open_header(path):
        pass


def open_file(path: str | Path, *, background: tuple[int, int, int]) -> tuple[Image.Image, tuple[str, ...]]:
    """Read an image file.

    Parameters
    ----------
    path : path
        A regular file.
    background : (red, green, blue)
        What shows through transparent pixels, 0 to 255.

    Returns
    -------
    (PIL.Image.Image, tuple of str)
        The picture, upright, mode RGB; and what a reader should know about how it was read.

    Raises
    ------
    InputError
        When it cannot be read; ``what`` is the reason.
    """
    with _open_header(path) as image:
        return _guarded(str(path), lambda: to_rgb(image, background=background))


def _guarded(where: str, read: Callable[[], _Result]) -> _Result:
    """Run Pillow on untrusted bytes: whatever it raises becomes an InputError."""
    try:
        return read()
    except InputError as error:
        raise InputError(error.what, where=error.where or where, got=error.got) from error
    except UnidentifiedImageError as error:
        raise InputError("not an image in a format that is read here", where=where) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(_too_large(), where=where) from error
    except PermissionError as error:
        raise InputError("no permission to read it", where=where) from error
    except FileNotFoundError as error:
        raise InputError("the file does not exist", where=where) from error
    except MemoryError as error:
        raise InputError("not enough memory to decode it", where=where) from error
    # Decoders meet damaged bytes with many kinds of exception (struct.error, IndexError, SyntaxError, zlib.error, ...),
    # and none of them may end a run over thousands of files.
    except Exception as error:
        raise InputError(f"damaged or truncated: {_one_line(error)}", where=where) from error


def _too_large() -> str:
    return (
        f"more than {Image.MAX_IMAGE_PIXELS:,} pixels (PIL.Image.MAX_IMAGE_PIXELS), which may be a decompression bomb"
    )


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def _open_header(path: str | Path) -> Image.Image:
    return _guarded(str(path), lambda: _identify(path))


@cache
def _formats() -> tuple[str, ...]:
    # Pillow can be built without some of them, and stumbles over the names of those that it does not have.
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _identify(path: str | Path) -> Image.Image:
    status = os.stat(path)  # noqa: PTH116 - a path may hold bytes that are not UTF-8, which str keeps and Path does too
    if not stat.S_ISREG(status.st_mode):
        raise InputError("a folder, not a file" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    if status.st_size == 0:
        raise InputError("the file is empty")
    # The filters of warnings belong to the whole process, and changing them is not safe between threads; under the lock
    # at least no two readers here undo each other's. Headers are parsed under the GIL anyway, so it costs no time.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(path, formats=_formats())
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        image.close()
        raise InputError(_too_large())
    return image


def to_rgb(image: Image.Image, *, background: tuple[int, int, int]) -> tuple[Image.Image, tuple[str, ...]]:
    """Bring an open picture to upright 8-bit RGB by the rules of this module.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode; not changed.
    background : (red, green, blue)
        What shows through transparent pixels, 0 to 255.

    Returns
    -------
    (PIL.Image.Image, tuple of str)
        The picture, and remarks.

    Raises
    ------
    InputError
        When its numbers have no stated meaning as a picture.
    """
    notes: list[str] = []
    # An MPO's other pictures are a camera's previews and depth maps of the same photo: nothing is left out.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        kind = "file of several pages" if image.format in ("TIFF", "PSD", "ICO", "ICNS") else "animation"
        notes.append(f"{kind}: the first picture is used")
        image.seek(0)
    image.load()
    # Asked after loading: Pillow turns TIFF itself while it loads, and PNG may carry EXIF behind its pixels.
    orientation = _orientation(image)
    if 0 in image.size:
        raise InputError("the picture has no pixels")
    rgb, alpha = _split(image, notes)
    if alpha is not None:
        lowest = int(np.asarray(alpha).min())
        if lowest < 255:
            notes.append(f"transparent pixels: composited on RGB {background}")
            canvas = Image.new("RGB", rgb.size, background)
            canvas.paste(rgb, mask=alpha)
            rgb = canvas
    if orientation in _TRANSPOSITIONS:
        rgb = rgb.transpose(_TRANSPOSITIONS[orientation])
    return rgb, tuple(notes)


def _orientation(image: Image.Image) -> int:
    # A picture is no less a picture for a damaged EXIF block, which Pillow reports by many kinds of exception.
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _split(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """Colours as RGB, and opacity as L where the picture has any."""
    if image.mode.startswith("I;16"):
        return _sixteen_bits(image)
    if image.mode == "I":
        return _from_integers(np.asarray(image), notes), None
    if image.mode == "F":
        return _from_floats(np.asarray(image), notes), None
    if image.mode == "LAB":
        return _from_lab(image), None
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    return image.convert("RGB"), None


def _grey(levels: NDArray[Any]) -> Image.Image:
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def _sixteen_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    numbers = np.asarray(image).astype(np.uint32)
    white = 65535
    bits = getattr(image, "tag_v2", {}).get(258)
    if bits is not None and int(np.ravel(bits)[0]) in (10, 12, 14):
        white = 2 ** int(np.ravel(bits)[0]) - 1
    rgb = _grey((np.minimum(numbers, white) * 255 + white // 2) // white)
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return rgb, None
    return rgb, Image.fromarray(np.where(numbers == transparent, 0, 255).astype(np.uint8))


def _from_integers(numbers: NDArray[Any], notes: list[str]) -> Image.Image:
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > 65535:
        raise InputError("32-bit integers beyond 0..65535 have no stated white", got=f"{low} to {high}")
    notes.append("integer pixels: read as 16-bit grey, 65535 is white")
    return _grey((numbers.astype(np.uint32) * 255 + 32767) // 65535)


def _from_floats(numbers: NDArray[Any], notes: list[str]) -> Image.Image:
    if not np.isfinite(numbers).all():
        raise InputError("floating-point pixels that are NaN or infinite")
    low, high = float(numbers.min()), float(numbers.max())
    if low < 0 or high > 255:
        raise InputError("floating-point pixels beyond 0..255 have no stated white", got=f"{low:.4g} to {high:.4g}")
    white = 1 if high <= 1 else 255
    notes.append(f"floating-point pixels: read as grey, {white} is white")
    return _grey(np.rint(numbers * (255 / white)))


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    # sRGB, which LAB is converted to, has the same white for every reader, unlike the device spaces of other modes.
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(*profiles, "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise InputError("a LAB picture that cannot be converted")
    return converted
