"""A model and one image come in; how the output answers when a patch hides each part of the image goes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import backend
from onnxviz.errors import InputError, LimitError
from onnxviz.inputs.images import ImageSet, load_images
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.methods.target import Target, TargetLike, resolve_target
from onnxviz.results import Occlusion
from onnxviz.runtime.model import Model
from onnxviz.runtime.sessions import OutOfMemory

__all__ = ["occlusion"]

BASELINES = ("mean", "dataset", "grey", "blur")
METHODS = ("auto", "plain")
AGGREGATES = ("mean", "sum")
EDGES = ("clip", "shift", "drop")

_GREY = 128.0
Box = tuple[int, int, int, int]


def occlusion(
    model: Model,
    image: str | Path | NDArray[Any] | ImageSet | Any,
    *,
    target: TargetLike = "top1",
    window: int | tuple[int, int] = 32,
    stride: int | tuple[int, int] = 8,
    baseline: str | Sequence[float] | NDArray[np.floating[Any]] = "mean",
    method: str = "auto",
    aggregate: str = "mean",
    edge: str = "clip",
) -> Occlusion:
    """Slide a patch over the image and record what the network then says.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, or an ImageSet of one image
    target : int, str, tuple or callable
        The number that is explained: a class index, a label, ``"top1"`` (the most likely class of the clean image),
        ``("value", index)`` or ``"value[i, j]"`` (one element of any value), or a callable from
        ``{output name: array}`` to (n,) scores.
    window : int or (int, int)
        Height and width of the patch in input pixels.
    stride : int or (int, int)
        Step of the patch, down and right.
    baseline : str or (3,) numbers
        What the patch holds: ``"mean"``, the mean colour of this image's pixels, as the network sees them;
        ``"dataset"``, the mean of the preprocessing contract; ``"grey"``, 128; ``"blur"``, the image itself under a
        Gaussian blur whose standard deviation is half the patch's longer side; or an RGB colour, 0..255.
    method : str
        ``"plain"``: every position is a run of the whole network. ``"auto"`` chooses it.
    aggregate : str
        ``importance`` of a pixel is the ``"mean"`` (Captum) or the ``"sum"`` (Xplique) of clean minus occluded score
        over the patches that cover it.
    edge : str
        Where the last patch would reach past the border: ``"clip"`` it (Captum), ``"shift"`` it inwards, or ``"drop"``
        it (Xplique).

    Returns
    -------
    Occlusion
        ``probability`` and ``label`` per position, ``importance`` per pixel (NaN, with ``aggregate="mean"``, where no
        patch covers it, which a stride beyond the window or ``edge="drop"`` can leave).

    Raises
    ------
    InputError
        The window does not fit the image, or a parameter is not one of those above.
    ContractError
        A class is asked of a model whose output is not a classifier's.

    Notes
    -----
    Positions per axis are those of Captum's ``Occlusion``: ceil((size - window) / stride) + 1, the patch at multiples
    of the stride. The importance with ``aggregate="mean"`` and ``edge="clip"`` equals Captum's to float32 rounding.
    ``probability`` is panel (d), ``label`` panel (e) of the figure in Zeiler and Fergus 2013, section 4.2, and the mean
    colour of the image's own pixels their grey square as the lecture notes have it.
    """
    for name, given, allowed in (
        ("method", method, METHODS), ("aggregate", aggregate, AGGREGATES), ("edge", edge, EDGES),
    ):  # fmt: skip
        if given not in allowed:
            raise InputError(
                f"no such {name}", where="occlusion", got=repr(given), allowed=", ".join(map(repr, allowed))
            )
    preprocess = _image_contract(model)
    view, name = _view(model, image)
    height, width = view.shape[:2]
    window_size, step = _pair("window", window), _pair("stride", stride)
    boxes = _boxes((height, width), window_size, step, edge)
    fill, encoded_fill = _fill(preprocess, view, baseline, window_size)
    clean = preprocess.encode(view[np.newaxis])
    wanted = resolve_target(model, target, clean)

    # The first box is empty: the clean image is scored in the same batches as all others.
    flat = np.concatenate([np.zeros((1, 4), np.int64), boxes.reshape(-1, 4)])
    scores, labels = _scores(model, wanted, clean[0], encoded_fill, flat)
    differences = scores[0] - scores[1:]
    total, covered = backend.accumulate_boxes(flat[1:], differences, height, width)
    if aggregate == "mean":
        total = np.divide(total, covered, out=np.full_like(total, np.nan), where=covered > 0)
    shape = boxes.shape[:2]
    return Occlusion(
        probability=scores[1:].reshape(shape).astype(np.float32),
        label=labels[1:].reshape(shape) if labels is not None else None,
        importance=total.astype(np.float32),
        clean=float(scores[0]),
        clean_label=int(labels[0]) if labels is not None else None,
        boxes=boxes,
        fill=fill.astype(np.float32),
        image=view,
        name=name,
        target=wanted.text,
        scale=wanted.scale,
        labels=model.labels,
        provenance=model.provenance(
            "occlusion",
            {
                "target": wanted.text,
                "class_index": wanted.class_index,
                "window": list(window_size),
                "stride": list(step),
                "baseline": baseline if isinstance(baseline, str) else [float(number) for number in baseline],
                "method": "plain",
                "aggregate": aggregate,
                "edge": edge,
            },
        ),
    )


def _image_contract(model: Model) -> Preprocess:
    if model.preprocess is None:
        raise InputError("occlusion needs a model that takes images", where=model.name)
    return model.preprocess


def _view(model: Model, image: Any) -> tuple[NDArray[np.uint8], str]:
    images = load_images(image, model)
    if len(images) != 1:
        raise InputError(
            "occlusion looks at one image at a time", where="image", got=f"{len(images)} images",
            next_step="Pass one of them, for example images.subset([0])",
        )  # fmt: skip
    return images.views([0])[0], images.names[0]


def _pair(name: str, given: Any) -> tuple[int, int]:
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


def _boxes(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int], edge: str) -> NDArray[np.int64]:
    """(rows, columns, 4) top, left, bottom, right of the patch at every position."""
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
    return boxes


def _spans(size: int, window: int, stride: int, edge: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    whole = (size - window) // stride + 1
    count = whole if edge == "drop" else -(-(size - window) // stride) + 1
    first = np.arange(count, dtype=np.int64) * stride
    if edge == "shift":
        first = np.minimum(first, size - window)
    # A stride beyond the window can step over the border, where there is nothing left to hide.
    first = first[first < size]
    return first, np.minimum(first + window, size)


def _fill(
    preprocess: Preprocess, view: NDArray[np.uint8], baseline: Any, window: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """What the patch holds, as RGB 0..255, and encoded as a whole image."""
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


def _scores(
    model: Model, target: Target, image: NDArray[Any], fill: NDArray[Any], boxes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    """Score, and most likely class, of the image with the patch at each of the boxes (n, 4)."""
    output = model.output
    classifies = output.kind != "values"
    values = tuple(dict.fromkeys((*target.values, output.output) if classifies else target.values))
    channels_last = model.preprocess is not None and model.preprocess.layout == "NHWC"
    scores = np.empty(len(boxes), np.float64)
    labels = np.empty(len(boxes), np.int64) if classifies else None
    size = model.batch_size
    start = 0
    while start < len(boxes):
        try:
            with model.filler(values) as bound:
                previous: NDArray[np.int64] | None = None
                while start < len(boxes):
                    block = boxes[start : start + size]
                    rows = model.fixed_batch or len(block)
                    # Rows that a fixed batch has too many repeat the last box; their answers are dropped.
                    padded = np.concatenate([block, np.repeat(block[-1:], rows - len(block), axis=0)])
                    backend.fill_occluded(
                        image, fill, padded, bound.buffer,
                        channels_last=channels_last, previous=previous, threads=model.threads or 0,
                    )  # fmt: skip
                    outputs = bound.run(rows)
                    part = slice(start, start + len(block))
                    scores[part] = target.score(outputs)[: len(block)]
                    if labels is not None:
                        labels[part] = output.probabilities(outputs[output.output])[: len(block)].argmax(axis=1)
                    previous = padded
                    start += len(block)
        except OutOfMemory as error:
            if size == 1 or model.fixed_batch is not None:
                raise LimitError(
                    "not even one image fits in memory", where=model.name, got=error.got,
                    next_step="Run on a machine with more memory",
                ) from error  # fmt: skip
            size = max(1, size // 2)
    return scores, labels
