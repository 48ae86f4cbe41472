"""How many variants of one image, and how each is written, come in; what the network answers to them goes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError, LimitError
from onnxviz.inputs.images import load_images
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.methods.target import Target
from onnxviz.runtime.model import Model
from onnxviz.runtime.sessions import OutOfMemory

__all__ = ["image_contract", "one_view", "variant_scores"]


def image_contract(model: Model, method: str) -> Preprocess:
    """The input contract of a model that takes images.

    Raises
    ------
    InputError
        The model takes none.
    """
    if model.preprocess is None:
        raise InputError(f"{method} needs a model that takes images", where=model.name)
    return model.preprocess


def one_view(model: Model, image: Any, method: str) -> tuple[NDArray[np.uint8], str]:
    """What the network sees of one image, (height, width, 3) uint8 RGB, and the image's name.

    Raises
    ------
    InputError
        There are several images, or it cannot be read.
    """
    images = load_images(image, model)
    if len(images) != 1:
        raise InputError(
            f"{method} looks at one image at a time", where="image", got=f"{len(images)} images",
            next_step="Pass one of them, for example images.subset([0])",
        )  # fmt: skip
    return images.views([0])[0], images.names[0]


def variant_scores(
    model: Model, target: Target, count: int, write: Callable[[int, NDArray[Any]], None]
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Run variants of one image in batches.

    Parameters
    ----------
    model : Model
    target : Target
    count : int
        Number of variants.
    write : callable
        ``write(first, rows)`` fills ``rows``, (n, *input shape), with the encoded variants ``first`` to ``first + n``.
        It may be called for a variant again, where memory ran out and smaller batches are tried.

    Yields
    ------
    (first, (n,) float64)
        The target's score of the variants from ``first``, in order.

    Raises
    ------
    LimitError
        Not even one image fits in memory.
    """
    size = model.batch_size
    start = 0
    while start < count:
        try:
            with model.filler(target.values) as bound:
                while start < count:
                    n = min(size, count - start)
                    rows = bound.buffer[: model.fixed_batch or (size if model.runs_alike and start > 0 else n)]
                    write(start, rows[:n])
                    # Rows that are too many repeat the last variant; their answers are dropped.
                    rows[n:] = rows[n - 1]
                    scores = np.asarray(target.score(bound.run_rows(rows))[:n], np.float64)
                    yield start, scores
                    start += n
        except OutOfMemory as error:
            if size == 1 or model.fixed_batch is not None:
                raise LimitError(
                    "not even one image fits in memory", where=model.name, got=error.got,
                    next_step="Run on a machine with more memory",
                ) from error  # fmt: skip
            size = max(1, size // 2)
