"""A model, images and a value come in; for every channel the image patches that excite it most go out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import backend
from onnxviz.errors import InputError
from onnxviz.graph.regions import ReceptiveField, receptive_field
from onnxviz.inputs.images import ImageSet
from onnxviz.results import TopPatches
from onnxviz.runtime.model import Model
from onnxviz.runtime.spaces import CudaSpace

__all__ = ["merge_top_patches", "top_patches"]

MOST_DRAWN = 24
"""Channels whose patches are kept as pixels where the caller names none."""

_MID_GREY = 128
_VIEWS_AT_ONCE = 32


def top_patches(
    model: Model,
    images: ImageSet,
    *,
    value: str,
    channels: Sequence[int] | None = None,
    k: int = 9,
    per_image: int = 1,
) -> TopPatches:
    """Find the patches that excite each channel of a value most (Zeiler and Fergus 2013; Yosinski et al. 2015).

    All channels are followed in one pass over the images, in memory that does not grow with their number. A second,
    small pass reads the images again whose patches are kept as pixels.

    Parameters
    ----------
    model : Model
    images : ImageSet
    value : str
        Name or glob of one value. A value without spatial axes has one unit per channel, which sees the whole image.
    channels : sequence of int or None
        None follows every channel and keeps the pixels of at most 24 live ones, spread evenly over their numbers.
    k : int
        Patches per channel.
    per_image : int
        Most patches that one image may give to one channel.

    Returns
    -------
    TopPatches
        Strongest first; ties go to the earlier image, then to the earlier unit (row by row). NaN never enters. Each
        patch is cut from what the network saw, at the unit's receptive field; along an axis on which the field is
        longer than the image, the whole image is kept.

    Raises
    ------
    ValueNotFoundError
        No such value, or it does not depend on the image.
    InputError
        No such channel, ``k`` or ``per_image`` below 1, a model without an image input, or no image that can be read.
    """
    for name, number in (("k", k), ("per_image", per_image)):
        if number < 1:
            raise InputError("too few", where=name, got=str(number), allowed="1 or more")
    name = model.value_of_images(value)
    field = _field(model, name)
    followed = _channels(channels, field.channels, name)
    on_device = per_image == 1 and _maxima_on_device(model, name)
    best, seen = (
        _best_on_device(model, images, name, followed, k)
        if on_device
        else _best_on_host(model, images, name, followed, k, per_image)
    )
    if not seen:
        raise InputError("none of the images can be read", where="images")
    found = best.image >= 0
    rows, columns = np.divmod(np.where(found, best.unit, 0), field.map_size[1])
    boxes = field.boxes(rows.ravel(), columns.ravel(), np.repeat(followed, k)).reshape(len(followed), k, 4)
    boxes[~found] = 0
    drawn = followed if channels is not None else _spread(followed[found[:, 0] & ~_constant(best, seen)])
    return TopPatches(
        value=name,
        channels=followed,
        scores=best.score,
        image_index=best.image,
        positions=np.stack([rows, columns], axis=2),
        boxes=boxes,
        names=tuple(images.names),
        drawn=drawn,
        patches=_cut(images, best.image, boxes, np.searchsorted(followed, drawn)),
        provenance=model.provenance(
            "top_patches",
            {
                "value": name,
                "channels": None if channels is None else followed.tolist(),
                "k": k,
                "per_image": per_image,
                "receptive_field": {"size": field.size, "stride": field.stride, "exact": field.exact, "why": field.why},
            },
        ),
    )


def _best_on_host(
    model: Model, images: ImageSet, name: str, followed: NDArray[np.int64], k: int, per_image: int
) -> tuple[_Best, int]:
    """The strongest units of all images, and how many images there were."""
    best = _Best.empty(len(followed), k)
    seen = 0
    for batch, arrays in model.batches(images, (name,)):
        maps = model.channel_first(name, arrays[name])
        best = best.after(maps, followed, batch.indices, per_image)
        seen += len(batch.indices)
    return best, seen


def _maxima_on_device(model: Model, name: str) -> bool:
    """Whether the maps can stay where they were computed: of a kind, and in an order, that its kernels read."""
    axes = len(model.shapes()[name])
    return (
        model.stays_on_device
        and model.dtypes()[name] in ("float32", "float16", "bfloat16")
        and axes >= 2
        and model.channel_axis(name) in (1, axes - 1)
    )


def _best_on_device(
    model: Model, images: ImageSet, name: str, followed: NDArray[np.int64], k: int
) -> tuple[_Best, int]:
    """The same, and only the best come to the host."""
    assert isinstance(model.space, CudaSpace)
    shape = model.shapes()[name]
    axis = model.channel_axis(name)
    top = backend.TopValuesOnDevice(shape[axis], k, model.space.stream)
    seen = 0
    for batch, arrays in model.batches(images, (name,), to_host=False):
        top.take(arrays[name], batch.indices, channels_last=axis > 1)
        model.space.settle()
        seen += len(batch.indices)
    score, image, unit = top.best()
    return _Best(score[followed], image[followed], unit[followed]), seen


@dataclass(frozen=True)
class _Best:
    """The strongest units of every channel so far; (channels, k) arrays, strongest first."""

    score: NDArray[np.float32]
    image: NDArray[np.int64]
    """-1 where there are fewer than k."""
    unit: NDArray[np.int64]
    """Position in the map, row by row."""

    @classmethod
    def empty(cls, channels: int, k: int) -> _Best:
        shape = (channels, k)
        return cls(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64), np.zeros(shape, np.int64))

    @classmethod
    def of_batch(
        cls, maps: NDArray[Any], channels: NDArray[np.int64], images: NDArray[np.int64], k: int, per_image: int
    ) -> _Best:
        """The best units of a batch of (n, channels[, height, width]) activations."""
        chosen = maps if len(channels) == maps.shape[1] else maps[:, channels]
        units = chosen.astype(np.float32, copy=False).reshape(len(maps), len(channels), -1)
        if np.isnan(units.max()):
            units = np.where(np.isnan(units), -np.inf, units)
        if per_image == 1:
            place = units.argmax(axis=2)[:, :, None]  # the first of equals
        else:
            place = np.argsort(-units, axis=2, kind="stable")[:, :, :per_image]
        score = np.take_along_axis(units, place, axis=2)
        image = np.broadcast_to(images[:, None, None], place.shape)
        # (n, channels, per image) → (channels, n × per image)
        flat = [
            np.ascontiguousarray(np.moveaxis(part, 1, 0)).reshape(len(channels), -1) for part in (score, image, place)
        ]
        return cls.empty(len(channels), k).merge(cls(flat[0], np.where(flat[0] > -np.inf, flat[1], -1), flat[2]))

    def after(
        self, maps: NDArray[Any], channels: NDArray[np.int64], images: NDArray[np.int64], per_image: int
    ) -> _Best:
        """The best units so far and of one more batch: ``merge`` of ``of_batch``, left out where nothing can change."""
        chosen = maps if len(channels) == maps.shape[1] else maps[:, channels]
        spatial = tuple(range(2, chosen.ndim))
        # fmax passes NaN by, and after many images few channels find anything stronger than what they hold.
        strongest = np.fmax.reduce(chosen, axis=(0, *spatial)).astype(np.float32)
        weakest = self.score[:, -1]
        tie = (strongest == weakest) & (images.min() < self.image[:, -1])
        rows = np.flatnonzero((strongest > weakest) | tie)
        if len(rows) == 0:
            return self
        part = _Best(self.score[rows], self.image[rows], self.unit[rows])
        new = part.merge(_Best.of_batch(maps, channels[rows], images, self.score.shape[1], per_image))
        score, image, unit = self.score.copy(), self.image.copy(), self.unit.copy()
        score[rows], image[rows], unit[rows] = new.score, new.image, new.unit
        return _Best(score, image, unit)

    def merge(self, other: _Best) -> _Best:
        """The k best of both; associative, and the same whichever comes first."""
        score = np.concatenate([self.score, other.score], axis=1)
        image = np.concatenate([self.image, other.image], axis=1)
        unit = np.concatenate([self.unit, other.unit], axis=1)
        order = np.lexsort((unit, np.where(image < 0, np.iinfo(np.int64).max, image), -score))[:, : self.score.shape[1]]
        score, image, unit = (np.take_along_axis(part, order, axis=1) for part in (score, image, unit))
        return _Best(score, image, np.where(image < 0, 0, unit))


def merge_top_patches(a: TopPatches, b: TopPatches) -> TopPatches:
    """Two results over different images of one listing become the result over both; associative and order-free.

    Images are numbered anew by the order of their names, so ties go to the earlier name. Patches are kept for the
    channels for which both hold them.

    Raises
    ------
    InputError
        They are not of the same value, channels and k of the same model, or share an image.
    """
    same = (
        a.value == b.value
        and a.scores.shape == b.scores.shape
        and np.array_equal(a.channels, b.channels)
        and a.provenance.model_sha256 == b.provenance.model_sha256
    )
    if not same:
        raise InputError(
            "results of different values cannot be merged", where="merge_top_patches",
            got=f"{a.value!r} and {b.value!r}", allowed="the same model, value, channels and k",
        )  # fmt: skip
    names = tuple(sorted({*a.names, *b.names}))
    if len(names) != len(a.names) + len(b.names):
        raise InputError("both results have seen the same image", where="merge_top_patches", allowed="disjoint images")
    number = {name: index for index, name in enumerate(names)}
    k = a.scores.shape[1]
    image = np.concatenate([_renumbered(part, number) for part in (a, b)], axis=1)
    score = np.concatenate([a.scores, b.scores], axis=1)
    positions = np.concatenate([a.positions, b.positions], axis=1)
    last = np.where(image < 0, len(names), image)
    order = np.lexsort((positions[:, :, 1], positions[:, :, 0], last, -score))[:, :k]
    drawn = np.intersect1d(a.drawn, b.drawn)
    patches = []
    for channel in drawn:
        row = int(np.searchsorted(a.channels, channel))
        kept = [part.patches[int(np.searchsorted(part.drawn, channel))] for part in (a, b)]
        patches.append(
            tuple(
                kept[at // k][at % k]
                for at in order[row].tolist()
                if image[row, at] >= 0 and at % k < len(kept[at // k])
            )
        )
    return TopPatches(
        value=a.value,
        channels=a.channels,
        scores=np.take_along_axis(score, order, axis=1),
        image_index=np.take_along_axis(image, order, axis=1),
        positions=np.take_along_axis(positions, order[:, :, None], axis=1),
        boxes=np.take_along_axis(np.concatenate([a.boxes, b.boxes], axis=1), order[:, :, None], axis=1),
        names=names,
        drawn=drawn,
        patches=tuple(patches),
        provenance=a.provenance,
    )


def _renumbered(part: TopPatches, number: dict[str, int]) -> NDArray[np.int64]:
    new = np.array([number[name] for name in part.names] + [-1], np.int64)
    return new[part.image_index]  # -1 reads the entry behind the last name


def _field(model: Model, name: str) -> ReceptiveField:
    if model.image_input is None:
        raise InputError("the model takes no image, so there are no patches", where=model.name)
    shapes = model.shapes()
    return receptive_field(
        model.loaded.proto,
        name,
        input_name=model.image_input.name,
        input_shape=shapes[model.image_input.name],
        shapes=shapes,
        layout=model.image_input.layout,
        channel_axis=model.channel_axis(name),
    )


def _channels(wished: Sequence[int] | None, count: int, name: str) -> NDArray[np.int64]:
    if wished is None:
        return np.arange(count)
    chosen = np.unique(np.asarray(wished, np.int64))
    if len(chosen) == 0 or chosen[0] < 0 or chosen[-1] >= count:
        raise InputError("no such channel", where=f"value {name!r}", got=str(list(wished)), allowed=f"0 to {count - 1}")
    return chosen


def _constant(best: _Best, seen: int) -> NDArray[np.bool_]:
    """Channels whose best units are all the same number: nothing excites them more than anything else."""
    held = min(seen, best.score.shape[1])
    return np.asarray((best.score[:, 0] == best.score[:, held - 1]) & (held > 1))


def _spread(channels: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(channels) <= MOST_DRAWN:
        return channels
    return channels[np.linspace(0, len(channels) - 1, MOST_DRAWN).round().astype(np.int64)]


def _cut(
    images: ImageSet, image: NDArray[np.int64], boxes: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[tuple[NDArray[np.uint8], ...], ...]:
    """Cut the patches of the channels in ``rows``; each image is read once, a few at a time."""
    wanted = image[rows]
    needed = np.unique(wanted[wanted >= 0])
    cut: dict[tuple[int, int], NDArray[np.uint8]] = {}
    for start in range(0, len(needed), _VIEWS_AT_ONCE):
        numbers = needed[start : start + _VIEWS_AT_ONCE]
        for number, view in zip(numbers, images.views(numbers), strict=True):
            for row, rank in np.argwhere(wanted == number):
                cut[int(row), int(rank)] = _patch(view, boxes[rows[row], rank])
    return tuple(
        tuple(cut[row, rank] for rank in range(wanted.shape[1]) if (row, rank) in cut) for row in range(len(rows))
    )


def _patch(view: NDArray[np.uint8], box: NDArray[np.int64]) -> NDArray[np.uint8]:
    height, width = view.shape[:2]
    top, left, bottom, right = box.tolist()
    if bottom - top >= height:
        top, bottom = 0, height
    if right - left >= width:
        left, right = 0, width
    patch = np.full((max(bottom - top, 1), max(right - left, 1), 3), _MID_GREY, np.uint8)
    inside = view[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    down, across = max(-top, 0), max(-left, 0)
    patch[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
    return patch
