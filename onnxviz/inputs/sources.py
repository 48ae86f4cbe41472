"""Files, folders, pictures and arrays come in; one source per picture, which opens it when it is asked to, goes out."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxviz.errors import InputError
from onnxviz.inputs.decode import check_file, open_file, to_rgb

__all__ = [
    "ArraySource",
    "FileSource",
    "PictureSource",
    "Source",
    "array_sources",
    "file_sources",
    "printable_name",
    "walk_folder",
]

_JOINERS = "\u200c\u200d"
_LOADING = threading.Lock()


class Source(Protocol):
    """One picture that can be opened again and again."""

    @property
    def name(self) -> str:
        """What the picture is called in results; printable."""
        ...

    @property
    def path(self) -> str | None:
        """The file it comes from, as the system knows it; None where it comes from memory."""
        ...

    def check(self) -> None:
        """Raise InputError where the header alone tells that it cannot be opened."""
        ...

    def open(self, background: tuple[int, int, int]) -> tuple[Image.Image, tuple[str, ...]]:
        """Upright 8-bit RGB, and remarks; raises InputError with the reason."""
        ...

    def stamp(self) -> str:
        """A text that changes when the picture does; made without decoding it."""
        ...


@dataclass(frozen=True)
class FileSource:
    """An image file."""

    name: str
    path: str

    def check(self) -> None:
        """Look at the header."""
        check_file(self.path)

    def open(self, background: tuple[int, int, int]) -> tuple[Image.Image, tuple[str, ...]]:
        """Decode the file."""
        return open_file(self.path, background=background)

    def stamp(self) -> str:
        """Size and time of change."""
        try:
            status = os.stat(self.path)  # noqa: PTH116
        except OSError as error:
            return str(error.strerror)
        return f"{status.st_size} {status.st_mtime_ns}"


@dataclass(frozen=True, eq=False)
class PictureSource:
    """A picture of Pillow's that the caller holds."""

    name: str
    picture: Image.Image
    path: None = None

    def check(self) -> None:
        """Nothing to look at: it is open."""

    def open(self, background: tuple[int, int, int]) -> tuple[Image.Image, tuple[str, ...]]:
        """Convert a copy of the frame that it stands at."""
        try:
            # Pillow reads an opened file on first use, which no two threads may do at once; the copy leaves the
            # caller's picture at the frame where it stands.
            with _LOADING:
                picture = self.picture.copy()
            return to_rgb(picture, background=background)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"the picture cannot be read: {error}", where=self.name) from error

    def stamp(self) -> str:
        """Digest of the frame that it stands at."""
        try:
            with _LOADING:
                pixels = self.picture.tobytes()
        except Exception as error:
            return str(error)
        return f"{self.picture.mode} {self.picture.size} {hashlib.sha256(pixels).hexdigest()}"


@dataclass(frozen=True, eq=False)
class ArraySource:
    """One picture of an array."""

    name: str
    pixels: NDArray[Any]
    """(h, w), (h, w, 1), (h, w, 3) or (h, w, 4); uint8, uint16, bool, or float in [0, 1]."""
    path: None = None

    def check(self) -> None:
        """Nothing to look at: dtype and shape were checked for the whole array."""

    def open(self, background: tuple[int, int, int]) -> tuple[Image.Image, tuple[str, ...]]:
        """Convert to bytes."""
        pixels = np.asarray(self.pixels)
        if pixels.dtype == np.uint16:
            pixels = (pixels.astype(np.uint32) + 128) // 257
        elif pixels.dtype == np.bool_:
            pixels = pixels * np.uint8(255)
        elif pixels.dtype != np.uint8:
            pixels = np.rint(pixels.astype(np.float64) * 255)
        pixels = np.ascontiguousarray(pixels, dtype=np.uint8)
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        return to_rgb(Image.fromarray(pixels), background=background)

    def stamp(self) -> str:
        """Digest of the pixels."""
        pixels = np.ascontiguousarray(self.pixels)
        return f"{pixels.dtype} {pixels.shape} {hashlib.sha256(pixels.data).hexdigest()}"


def array_sources(array: NDArray[Any], *, where: str = "images") -> list[ArraySource]:
    """One source per picture of an array.

    Parameters
    ----------
    array : (n, h, w), (n, h, w, 1 | 3 | 4), (n, 1 | 3, h, w), (h, w) or (h, w, 3 | 4)
        uint8, bool, uint16 (65535 is white), or float in [0, 1].
    where : str
        What errors call it.

    Raises
    ------
    InputError
        When shape, dtype or range leave open how to read it.
    """
    stack = _as_stack(array, where)
    if stack.dtype not in (np.uint8, np.uint16, np.bool_) and stack.dtype.kind != "f":
        raise InputError(
            "pixels of this dtype have no stated white", where=where, got=str(stack.dtype),
            allowed="uint8, uint16, bool, or float in [0, 1]", next_step="Convert the array, for instance to uint8",
        )  # fmt: skip
    if stack.dtype.kind == "f":
        # Picture by picture: an array mapped from a file must not be read into memory at once.
        for index, pixels in enumerate(stack):
            low, high = float(np.min(pixels)), float(np.max(pixels))
            if not (low >= 0 and high <= 1):
                raise InputError(
                    "floating-point pixels must lie in [0, 1]", where=f"{where}, image {index}",
                    got=f"{low:.4g} to {high:.4g}", allowed="0 to 1",
                    next_step="Divide by the white level, or convert to uint8; tensors that are already normalised"
                    " belong in Model.run",
                )  # fmt: skip
    return [ArraySource(f"image {index}", pixels) for index, pixels in enumerate(stack)]


def _as_stack(array: NDArray[Any], where: str) -> NDArray[Any]:
    shape = array.shape
    if 0 in shape:
        raise InputError("the array holds no pixels", where=where, got=f"shape {shape}")
    if array.ndim == 2:
        return array[np.newaxis]
    if array.ndim == 3:
        return array[np.newaxis] if shape[2] in (3, 4) else array
    if array.ndim == 4:
        channels_last, channels_first = shape[3] in (1, 3, 4), shape[1] in (1, 3)
        if channels_last and not channels_first:
            return array
        if channels_first and not channels_last:
            return np.moveaxis(array, 1, -1)
        if channels_first and channels_last:
            raise InputError(
                "channels may be first or last in this shape", where=where, got=str(shape),
                next_step="Pass a list of (h, w, channels) arrays or PIL images",
            )  # fmt: skip
    raise InputError(
        "not an array of images", where=where, got=f"shape {shape}",
        allowed="(n, h, w), (n, h, w, 1 | 3 | 4), (n, 1 | 3, h, w), (h, w), (h, w, 3 | 4)",
    )  # fmt: skip


def walk_folder(root: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Every file below a folder, in the order of names.

    Names that begin with a dot are passed over. Links are followed, but no folder is entered twice.

    Returns
    -------
    files, rejected : lists of (relative name, path) and (relative name, reason)
        Names with "/" between their parts, as the system spells them.

    Raises
    ------
    InputError
        When the folder itself cannot be listed.
    """
    files: list[tuple[str, str]] = []
    rejected: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()
    pending = [("", root)]
    while pending:
        prefix, folder = pending.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116
            identity = status.st_dev, status.st_ino
            if identity in seen:
                rejected.append((prefix.rstrip("/"), "a link to a folder that is read already"))
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            reason = f"the folder cannot be listed: {error.strerror or error}"
            if not prefix:
                raise InputError(reason, where=root) from error
            rejected.append((prefix.rstrip("/"), reason))
            continue
        folders = []
        for entry in listed:
            if entry.name.startswith("."):
                continue
            name = prefix + entry.name
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                rejected.append((name, f"cannot be looked at: {error.strerror or error}"))
                continue
            if stat.S_ISDIR(mode):
                folders.append((name + "/", entry.path))
            elif stat.S_ISREG(mode):
                files.append((name, entry.path))
            else:
                rejected.append((name, "not a regular file"))
        pending.extend(reversed(folders))
    return sorted(files), sorted(rejected)


def printable_name(name: str) -> str:
    r"""Write a name as one printable line, from which the name can be told back.

    Control characters, line breaks, characters that change the writing direction, and bytes that are not UTF-8 are
    written as Python escapes, and a backslash as two: different names stay different.
    """
    return "".join(_printable(name))


def _printable(name: str) -> Iterator[str]:
    for character in name:
        if character == "\\":
            yield "\\\\"
        elif character.isprintable() or character in _JOINERS:
            yield character
        else:
            yield character.encode("unicode_escape").decode("ascii")


def file_sources(paths: Sequence[str | Path]) -> list[FileSource]:
    """One source per path, named by what follows the folder that all of them share."""
    spelled = [os.fspath(path) for path in paths]
    folders = {os.path.dirname(os.path.abspath(path)) for path in spelled}  # noqa: PTH100, PTH120
    common = os.path.commonpath(folders) if folders else ""
    names = [os.path.relpath(os.path.abspath(path), common).replace(os.sep, "/") for path in spelled]  # noqa: PTH100
    return [FileSource(printable_name(name), path) for name, path in zip(names, spelled, strict=True)]
