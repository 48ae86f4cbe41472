"""What hides what: where the patch lies at each position, and what the network is shown there instead of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.preprocess import Preprocess

__all__ = ["Patches", "baseline_fill", "filler", "grid_patches", "region_patches"]

BASELINES = ("mean", "dataset", "grey", "blur")
_GREY = 128.0

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Patches:
    """Every position of the patch."""

    boxes: Indices
    """(rows, columns, 4) top, left, bottom, right in pixels; (n, 1, 4) for regions."""
    regions: Indices | None = None
    """(height, width) number of the position that hides each pixel alone, -1 for none; None where boxes are hidden."""

    @property
    def flat(self) -> Indices:
        """(positions, 4) boxes."""
        return self.boxes.reshape(-1, 4)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of a sliding patch; None for what lies in one column, as regions do."""
        rows, columns = self.boxes.shape[:2]
        return (rows, columns) if columns > 1 else None

    def interlaced(self) -> list[Indices]:
        """Positions in passes, each twice as fine as those before: a picture of the whole comes early."""
        rows, columns = self.boxes.shape[:2]
        row, column = np.divmod(np.arange(rows * columns), columns)
        steps = [1 << power for power in range(max(rows, columns).bit_length() - 1, -1, -1)]
        # The first position is a pass by itself: something to show as soon as can be.
        passes, seen = [np.array([0])], np.arange(rows * columns) == 0
        for step in steps:
            new = (row % step == 0) & (column % step == 0) & ~seen
            if new.any():
                passes.append(np.flatnonzero(new))
                seen |= new
        return passes


def pair_of(name: str, given: Any) -> tuple[int, int]:
    """Pixels down and right, from one number or two."""
    pair = (given, given) if isinstance(given, int | np.integer) and not isinstance(given, bool) else given
    try:
        whole = tuple(int(number) for number in pair)
        fits = len(whole) == 2 and min(whole) >= 1 and all(a == b for a, b in zip(whole, pair, strict=True))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"not a {name}", where="occlusion", got=repr(given), allowed="pixels, or (down, right), 1 or more"
        )
    return whole[0], whole[1]


def grid_patches(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int], edge: str) -> Patches:
    """A window that slides over an image of ``size`` pixels."""
    if window[0] > size[0] or window[1] > size[1]:
        raise InputError(
            "the window is larger than the network's input", where="window", got=f"{window[0]} × {window[1]}",
            allowed=f"1 × 1 to {size[0]} × {size[1]}",
        )  # fmt: skip
    tops, bottoms = _spans(size[0], window[0], stride[0], edge)
    lefts, rights = _spans(size[1], window[1], stride[1], edge)
    boxes = np.empty((len(tops), len(lefts), 4), np.int64)
    boxes[..., 0], boxes[..., 2] = tops[:, np.newaxis], bottoms[:, np.newaxis]
    boxes[..., 1], boxes[..., 3] = lefts, rights
    return Patches(boxes)


def _spans(size: int, window: int, stride: int, edge: str) -> tuple[Indices, Indices]:
    whole = (size - window) // stride + 1
    count = whole if edge == "drop" else -(-(size - window) // stride) + 1
    first = np.arange(count, dtype=np.int64) * stride
    if edge == "shift":
        first = np.minimum(first, size - window)
    # A stride beyond the window can step over the border, where there is nothing left to hide.
    first = first[first < size]
    return first, np.minimum(first + window, size)


def region_patches(size: tuple[int, int], regions: Any) -> Patches:
    """Boxes, or the areas of a map, each hidden in turn.

    Parameters
    ----------
    size : (height, width)
        Of the image.
    regions : (n, 4) or (height, width) int
        Top, left, bottom, right of each box; or a map that numbers the pixels of each area, negative where nothing is
        ever hidden.
    """
    array = np.asarray(regions)
    if array.dtype.kind not in "iu" or array.ndim != 2 or (array.shape[1] != 4 and array.shape != size):
        raise InputError(
            "not regions", where="regions", got=f"{array.dtype} of shape {array.shape}",
            allowed=f"whole numbers: (n, 4) boxes, or a {size[0]} × {size[1]} map that numbers areas",
        )  # fmt: skip
    array = array.astype(np.int64)
    if array.shape == size:
        return _areas(array)
    outside = (
        (array[:, :2] < 0).any(axis=1) | (array[:, 2:] > size).any(axis=1) | (array[:, :2] >= array[:, 2:]).any(axis=1)
    )
    if outside.any() or not len(array):
        worst = int(outside.argmax()) if len(array) else 0
        raise InputError(
            f"box {worst} is empty or not inside the image" if len(array) else "there is no box", where="regions",
            got=str(array[worst].tolist()) if len(array) else "an empty list",
            allowed=f"top < bottom ≤ {size[0]}, left < right ≤ {size[1]}, from 0",
        )  # fmt: skip
    return Patches(array[:, np.newaxis])


def _areas(numbers: Indices) -> Patches:
    names, place = np.unique(numbers, return_inverse=True)
    place = place.reshape(numbers.shape) - int((names < 0).sum())
    count = int(place.max()) + 1
    if count < 1:
        raise InputError("the map numbers no area", where="regions", allowed="a number from 0 for every area")
    boxes = np.empty((count, 1, 4), np.int64)
    for number in range(count):
        rows, columns = np.nonzero(place == number)
        boxes[number, 0] = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    return Patches(boxes, np.maximum(place, -1))


def baseline_fill(
    preprocess: Preprocess, view: NDArray[np.uint8], baseline: Any, window: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """What is shown instead, as RGB 0..255, and encoded as a whole image."""
    if isinstance(baseline, str):
        if baseline == "blur":
            from PIL import Image, ImageFilter

            blurred = np.asarray(Image.fromarray(view).filter(ImageFilter.GaussianBlur(max(window) / 2)))
            return blurred.astype(np.float64), np.ascontiguousarray(preprocess.encode(blurred[np.newaxis])[0])
        if baseline not in BASELINES:
            raise InputError(
                "no such baseline", where="occlusion", got=repr(baseline),
                allowed=", ".join(map(repr, BASELINES)) + ", or three numbers from 0 to 255",
            )  # fmt: skip
        colour = {
            "mean": view.mean(axis=(0, 1), dtype=np.float64),
            "dataset": np.asarray(preprocess.dataset_mean, np.float64),
            "grey": np.full(3, _GREY),
        }[baseline]
    else:
        try:
            colour = np.asarray(baseline, np.float64)
        except (TypeError, ValueError):
            colour = np.zeros(0)
        if colour.shape != (3,) or not np.all((colour >= 0) & (colour <= 255)):
            raise InputError(
                "not a colour", where="baseline", got=repr(baseline), allowed="red, green, blue from 0 to 255"
            )
    return colour, _encode_color(preprocess, colour, preprocess.encode(view[np.newaxis])[0])


def _encode_color(preprocess: Preprocess, colour: NDArray[np.float64], like: NDArray[Any]) -> NDArray[Any]:
    """An encoded image, shaped as ``like``, of one colour."""
    numbers = preprocess.encode_color(colour)
    if like.dtype.kind in "iu":
        limits = np.iinfo(like.dtype)
        numbers = np.clip(np.rint(numbers), limits.min, limits.max)
    channels = numbers.astype(like.dtype)
    if preprocess.layout == "NCHW":
        channels = channels[:, np.newaxis, np.newaxis]
    return np.ascontiguousarray(np.broadcast_to(channels, like.shape))


def keep_other_channels(
    preprocess: Preprocess, image: NDArray[Any], fill: NDArray[Any], channels: Sequence[int] | None
) -> NDArray[Any]:
    """The fill, with the image's own numbers in the colours that are not hidden."""
    if channels is None:
        return fill
    count = 1 if preprocess.channels == "GRAY" else 3
    try:
        chosen = sorted({int(channel) for channel in channels})
        fits = bool(chosen) and chosen == sorted(channels) and chosen[0] >= 0 and chosen[-1] < count
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            "not channels", where="channels", got=repr(channels),
            allowed="numbers of colours, each once: 0 red, 1 green, 2 blue" if count == 3 else "0: the image is grey",
        )  # fmt: skip
    if preprocess.channels == "BGR":
        chosen = [count - 1 - channel for channel in chosen]
    axis = 0 if preprocess.layout == "NCHW" else 2
    kept = np.moveaxis(np.array(image), axis, 0)
    kept[chosen] = np.moveaxis(fill, axis, 0)[chosen]
    return np.ascontiguousarray(np.moveaxis(kept, 0, axis))


def filler(patches: Patches, image: NDArray[Any], fill: NDArray[Any], layout: str) -> Callable[[Indices], NDArray[Any]]:
    """From positions to what the network is shown inside their boxes: one image for all, or one for each position."""
    regions = patches.regions
    if regions is None:
        return lambda _: fill
    places = regions if layout == "NCHW" else regions[:, :, np.newaxis]

    def of_areas(positions: Indices) -> NDArray[Any]:
        # Position -1 is the image as it is, -1 in the map a pixel that is never hidden.
        hidden = (places == positions.reshape(-1, *(1,) * image.ndim)) & (places >= 0)
        return np.where(hidden, fill, image)

    return of_areas
