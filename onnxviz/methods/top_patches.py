"""A value and any number of images come in; for every channel the image patches that excite it most go out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.graph.regions import ReceptiveField, receptive_field
from onnxviz.inputs.images import ImageSet
from onnxviz.results import TopPatches
from onnxviz.runtime.model import Model

__all__ = ["RunningTop", "empty_top", "merge_top", "top_of_batch", "top_patches"]

MID_GREY = 128
DRAWN = 24
"""Channels whose patches are kept as pixels unless the caller names some."""
_IMAGES_AT_ONCE = 32

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RunningTop:
    """The k strongest units of every channel over some images; two of disjoint images merge into one of both.

    The order is: higher score, then earlier image, then earlier position (row by row). Its size depends on the numbers
    of channels and k alone.
    """

    scores: FloatArray
    """(channels, k), strongest first; ``-inf`` where fewer were seen."""
    images: IntArray
    """(channels, k) image index; -1 where fewer were seen."""
    places: IntArray
    """(channels, k) row · width + column; 0 where fewer were seen."""
    weakest: FloatArray
    """(channels,) the lowest of the images' own maxima: equal to the best score where a channel never answers."""


def empty_top(channels: int, k: int) -> RunningTop:
    """Give the result of no image at all, which merges as zero adds."""
    return RunningTop(
        np.full((channels, k), -np.inf, np.float32),
        np.full((channels, k), -1, np.int64),
        np.zeros((channels, k), np.int64),
        np.full(channels, np.inf, np.float32),
    )


def top_of_batch(maps: NDArray[Any], indices: IntArray, *, k: int, per_image: int) -> RunningTop:
    """Find the strongest units of every channel of one batch.

    Parameters
    ----------
    maps : (images, channels, ...) array
        Activations, channel-first. NaN and minus infinity never count.
    indices : (images,) int64
        Index of each image, ascending.
    k : int
        Units kept for each channel.
    per_image : int
        Units that one image may give to one channel.

    Returns
    -------
    RunningTop
    """
    images, channels = maps.shape[:2]
    rows = np.ascontiguousarray(maps, dtype=np.float32).reshape(images, channels, -1)
    found_scores, found_places = [], []
    for turn in range(min(per_image, k, rows.shape[2])):
        places = rows.argmax(axis=2)
        scores = np.take_along_axis(rows, places[:, :, None], axis=2)[:, :, 0]
        if np.isnan(scores).any():
            # argmax stops at the first NaN, so that a clean score proves a clean row.
            rows = np.where(np.isnan(rows), -np.inf, rows)
            places = rows.argmax(axis=2)
            scores = np.take_along_axis(rows, places[:, :, None], axis=2)[:, :, 0]
        found_scores.append(scores)
        found_places.append(places)
        if turn + 1 < min(per_image, k, rows.shape[2]):
            rows = rows.copy() if turn == 0 else rows
            np.put_along_axis(rows, places[:, :, None], -np.inf, axis=2)
    # (channels, images × turns): image by image, and within an image from its strongest unit down.
    scores = np.stack(found_scores, axis=2).transpose(1, 0, 2).reshape(channels, -1)
    places = np.stack(found_places, axis=2).transpose(1, 0, 2).reshape(channels, -1)
    of_image = np.broadcast_to(np.repeat(indices, len(found_scores)), scores.shape)
    valid = scores > -np.inf
    scores, of_image, places = scores, np.where(valid, of_image, -1), np.where(valid, places, 0)
    best = found_scores[0]
    weakest = np.where(best > -np.inf, best, np.inf).min(axis=0, initial=np.inf)
    order = _order(scores, of_image, places)[:, :k]
    missing = k - order.shape[1]
    kept = RunningTop(
        np.take_along_axis(scores, order, axis=1),
        np.take_along_axis(of_image, order, axis=1),
        np.take_along_axis(places, order, axis=1).astype(np.int64),
        weakest.astype(np.float32),
    )
    if missing <= 0:
        return kept
    padding = ((0, 0), (0, missing))
    return RunningTop(
        np.pad(kept.scores, padding, constant_values=-np.inf),
        np.pad(kept.images, padding, constant_values=-1),
        np.pad(kept.places, padding),
        kept.weakest,
    )


def merge_top(a: RunningTop, b: RunningTop) -> RunningTop:
    """Join the results of two disjoint sets of images; associative, and the order of the two makes no difference."""
    k = a.scores.shape[1]
    scores, images, places = a.scores.copy(), a.images.copy(), a.places.copy()
    # Channels that neither side can change keep what they have: most of them, once many images were seen.
    open_channels = np.flatnonzero(b.scores[:, 0] >= a.scores[:, -1])
    pairs = [
        np.concatenate([one[open_channels], other[open_channels]], axis=1)
        for one, other in ((a.scores, b.scores), (a.images, b.images), (a.places, b.places))
    ]
    order = _order(*pairs)[:, :k]
    scores[open_channels], images[open_channels], places[open_channels] = (
        np.take_along_axis(array, order, axis=1) for array in pairs
    )
    return RunningTop(scores, images, places, np.minimum(a.weakest, b.weakest))


def _order(scores: FloatArray, images: IntArray, places: IntArray) -> IntArray:
    # Absent entries have -inf and come last whatever their index.
    return np.lexsort((places, images, -scores), axis=1).astype(np.int64)


def top_patches(
    model: Model,
    images: ImageSet,
    *,
    value: str,
    channels: Sequence[int] | None = None,
    k: int = 9,
    per_image: int | None = 1,
    draw: int | None = None,
) -> TopPatches:
    """Find the image patches that excite every channel of a value most (Yosinski et al. 2015; Zeiler and Fergus 2013).

    One pass over the images keeps the k strongest units of every channel; a second one reads again only the images
    whose patches are drawn, and crops what the network saw by the receptive field of the unit.

    Parameters
    ----------
    model : Model
    images : ImageSet
        Any number; memory does not grow with it.
    value : str
        Name of the value. Its units may have rows and columns, be tokens, or be plain features.
    channels : sequence of int, optional
        The channels wanted; all of them when left out.
    k : int
        Patches for each channel.
    per_image : int or None
        Patches that one image may give to one channel; None for any number.
    draw : int, optional
        Channels whose patches are kept as pixels, taken at even distances from those that answer to the images at all.
        When left out: the channels that were asked for, or 24 when none were.

    Returns
    -------
    TopPatches
        Scores fall; ties go to the earlier image, then to the earlier position. A patch has the size of the field,
        mid-grey past the image's border, so that the unit keeps its place; on an axis where the field is as long as the
        image, the patch is the whole image.

    Raises
    ------
    ValueNotFoundError
        No value has that name, or it does not depend on the image.
    InputError
        A channel that does not exist, a k below 1, a model without image input, or no readable image.
    """
    name = model.value(value).name
    field = _field(model, name)
    chosen = _chosen(channels, field.channels, name)
    for parameter, number in (("k", k), ("per_image", per_image), ("draw", draw)):
        lowest = 0 if parameter == "draw" else 1
        if number is not None and number < lowest:
            raise InputError("too small", where=parameter, got=str(number), allowed=f"{lowest} or more")
    top = _first_pass(model, images, name, chosen, k=k, per_image=k if per_image is None else per_image)
    positions = np.stack(np.divmod(top.places, field.map_size[1]), axis=2)
    seen = top.images >= 0
    boxes = np.zeros((*top.scores.shape, 4), np.int64)
    boxes[seen] = field.boxes(
        positions[seen][:, 0], positions[seen][:, 1], np.broadcast_to(chosen[:, None], seen.shape)[seen]
    )
    drawn, why = _drawn(
        top, chosen, everything=channels is not None and draw is None, count=DRAWN if draw is None else draw
    )
    patches = _cut_patches(images, top.images[drawn], boxes[drawn], field.image_size)
    return TopPatches(
        value=name,
        channels=chosen,
        scores=top.scores,
        image_index=top.images,
        positions=positions,
        boxes=boxes,
        names=tuple(images.names),
        drawn=chosen[drawn],
        patches=patches,
        provenance=model.provenance(
            "top_patches",
            {
                "value": name,
                "channels": None if channels is None else [int(channel) for channel in chosen],
                "k": k,
                "per_image": per_image,
                "draw": draw,
                "drawn_why": why,
                "field_size": list(field.size),
                "field_stride": list(field.stride),
                "field_exact": field.exact,
                "field_why": field.why,
            },
        ),
    )


def _field(model: Model, name: str) -> ReceptiveField:
    image = model.image_input
    if image is None:
        raise InputError(
            "the model has no image input, so there are no patches to cut", where=model.name,
            next_step="Use activations() for models of other inputs",
        )  # fmt: skip
    return receptive_field(
        model.loaded.proto,
        name,
        input_name=image.name,
        input_shape=model.shapes[image.name],
        shapes=model.shapes,
        layout=image.layout,
        channel_axis=model.channel_axis(name),
    )


def _chosen(channels: Sequence[int] | None, count: int, name: str) -> IntArray:
    if channels is None:
        return np.arange(count, dtype=np.int64)
    chosen = np.unique(np.asarray(channels, np.int64))
    if len(chosen) == 0 or chosen[0] < 0 or chosen[-1] >= count:
        raise InputError(
            "no such channel", where=f"value {name!r}", got=str(list(channels)), allowed=f"0 to {count - 1}"
        )
    return chosen


def _first_pass(model: Model, images: ImageSet, name: str, chosen: IntArray, *, k: int, per_image: int) -> RunningTop:
    top = empty_top(len(chosen), k)
    readable = False
    for batch, arrays in model.batches(images, [name]):
        maps = model.channel_first(name, arrays[name])
        if len(chosen) < maps.shape[1]:
            maps = maps[:, chosen]
        top = merge_top(top, top_of_batch(maps, batch.indices, k=k, per_image=per_image))
        readable = True
    if not readable:
        raise InputError("none of the images can be read", where="images")
    return top


def _drawn(top: RunningTop, chosen: IntArray, *, everything: bool, count: int) -> tuple[IntArray, str]:
    if everything:
        return np.arange(len(chosen), dtype=np.int64), "the channels that were asked for"
    live = np.flatnonzero(top.scores[:, 0] > top.weakest)
    kind = "that answer differently to different images"
    if len(live) == 0:
        # A single image, or nothing but dead channels: their patches still show where they look.
        live, kind = np.flatnonzero(top.images[:, 0] >= 0), "that have a score"
    count = min(count, len(live))
    places = (
        np.unique(np.linspace(0, len(live) - 1, count).round().astype(np.int64)) if count else np.zeros(0, np.int64)
    )
    return live[places], f"{len(places)} of the {len(live)} channels {kind}, at even distances"


def _cut_patches(
    images: ImageSet, wanted: IntArray, boxes: IntArray, size: tuple[int, int]
) -> tuple[tuple[NDArray[np.uint8], ...], ...]:
    cut: list[list[NDArray[np.uint8] | None]] = [[None] * len(row) for row in wanted]
    needed = np.unique(wanted[wanted >= 0])
    for start in range(0, len(needed), _IMAGES_AT_ONCE):
        chunk = needed[start : start + _IMAGES_AT_ONCE]
        views = dict(zip(chunk.tolist(), images.views(chunk), strict=True))
        for channel, place in np.argwhere(np.isin(wanted, chunk)):
            cut[channel][place] = _crop(views[int(wanted[channel, place])], boxes[channel, place], size)
    return tuple(tuple(patch for patch in row if patch is not None) for row in cut)


def _crop(view: NDArray[np.uint8], box: IntArray, size: tuple[int, int]) -> NDArray[np.uint8]:
    # Where the field is as long as the image nothing is left to show of the unit's place, only a grey frame.
    (top, bottom), (left, right) = (
        (0, length) if end - start >= length else (start, end)
        for start, end, length in ((int(box[0]), int(box[2]), size[0]), (int(box[1]), int(box[3]), size[1]))
    )
    patch = np.full((bottom - top, right - left, 3), MID_GREY, np.uint8)
    inside = view[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    patch[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return patch
