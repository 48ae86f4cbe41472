"""A model and one image come in; how the output answers when random smooth masks hide parts of it goes out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet
from onnxviz.methods.substrates import Substrate, as_stored, substrate
from onnxviz.methods.target import TargetLike, resolve_target
from onnxviz.methods.variants import image_contract, one_view, variant_scores
from onnxviz.results import Provenance, Rise, RiseStep, relative_noise
from onnxviz.runtime.model import Model
from onnxviz.sums import exact_limbs, limbs_total

__all__ = ["BLOCK", "MaskBlock", "mask_block", "merge_rise", "rise", "rise_steps"]

BLOCK = 256
"""Masks that are drawn, and summed up, together. A seed's masks are the same however many of its blocks are used."""


def rise(
    model: Model,
    image: str | Path | NDArray[Any] | ImageSet | Any,
    target: TargetLike = "top1",
    *,
    masks: int = 4000,
    grid: int = 7,
    keep: float = 0.5,
    baseline: Substrate = "zero",
    tolerance: float | None = 0.1,
    seed: int = 0,
    first: int = 0,
) -> Rise:
    """Hide parts of the image under many random smooth masks and weigh the masks by what the network then says.

    Masks are drawn, run and added up batch by batch: memory does not grow with their number.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, or an ImageSet of one image
    target : int, str, tuple or callable
        The number that is explained, as for :func:`~onnxviz.methods.occlusion.occlusion`: a class index or label (its
        probability), ``"top1"``, ``("value", index)``, ``("value", "strongest")``, or a callable from
        ``{output name: array}`` to (n,) scores.
    masks : int
        The most masks that are used.
    grid : int
        Cells of a mask along each side of the image, 2 or more.
    keep : float
        Probability with which a cell shows the image, above 0 and below 1.
    baseline : str or (3,) numbers
        What a mask shows instead of the image: ``"zero"``, the number 0 in the model's input space, which is the mean
        colour where the contract subtracts one and black where it does not (the paper's choice: there the mask
        multiplies the normalised image); or ``"mean"``, ``"dataset"``, ``"grey"`` or an RGB colour as for occlusion.
    tolerance : float or None
        Stop as soon as the largest standard error of a pixel is at most this share of the map's range (largest minus
        smallest number). It is looked at after every 256 masks, from the second block on. None never stops early.
    seed : int
        Of the masks, 0 or more.
    first : int
        Number of the first mask in the seed's endless row of masks, a multiple of 256: several processes can share one
        row, and :func:`merge_rise` joins what they found.

    Returns
    -------
    Rise
        ``map`` and ``standard_error`` per pixel, and the number of masks that were used.

    Raises
    ------
    InputError
        A parameter is not one of those above, or the model takes no images.
    ContractError
        A class is asked of a model whose output is not a classifier's.

    Notes
    -----
    RISE is due to Petsiuk, Das and Saenko 2018 (arXiv 1806.07421): the map is the sum of score times mask, divided by
    masks × ``keep``. A mask is a grid of cells, each 1 with probability ``keep`` and 0 otherwise, interpolated linearly
    to (grid + 1) cells of ceil(side / grid) pixels a side and cut out at a random offset below one cell.

    The standard error is that of the mean over independent masks. All pixels share the masks, so neighbouring pixels
    err alike: differences between them are surer than their standard errors say.
    """
    asked = _Question(
        model, image, target=target, masks=masks, grid=grid, keep=keep, baseline=baseline, tolerance=tolerance,
        seed=seed, first=first,
    )  # fmt: skip
    for _ in asked.run():
        pass
    return asked.result()


def rise_steps(
    model: Model,
    image: str | Path | NDArray[Any] | ImageSet | Any,
    target: TargetLike = "top1",
    **parameters: Any,
) -> Iterator[RiseStep]:
    """Do what :func:`rise` does block by block.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, or an ImageSet of one image
    target : int, str, tuple or callable
    **parameters
        Those of :func:`rise`.

    Yields
    ------
    RiseStep
        The map after every 256 masks. The last step holds the whole result, which is that of :func:`rise`.

    Raises
    ------
    InputError, ContractError
        As :func:`rise` does.
    """
    unknown = sorted(set(parameters) - set(_DEFAULTS))
    if unknown:
        raise TypeError(f"rise_steps() got an unexpected keyword argument {unknown[0]!r}")
    return _walk(_Question(model, image, target=target, **(dict(_DEFAULTS) | parameters)))


def _walk(asked: _Question) -> Iterator[RiseStep]:
    for last in asked.run():
        mean, error = asked.estimate()
        yield RiseStep(
            map=mean.astype(np.float32),
            noise=relative_noise(mean, error),
            done=asked.used,
            total=asked.masks,
            result=asked.result() if last else None,
        )


_DEFAULTS: Mapping[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(rise).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


@dataclass(frozen=True)
class MaskBlock:
    """Some masks, as the few numbers that they are made of."""

    cells: NDArray[np.bool_]
    """(masks, grid, grid) True where a cell shows the image."""
    offsets: NDArray[np.int64]
    """(masks, 2) rows and columns by which the enlarged grid is shifted."""
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.cells)

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """(stop - start, height, width) the masks themselves, 0 hidden to 1 shown."""
        down, across = self._windows
        chosen = slice(start, stop)
        upper = down[self.offsets[chosen, 0]].transpose(0, 2, 1)
        left = across[self.offsets[chosen, 1]]
        masks = upper @ self.cells[chosen].astype(np.float32) @ left
        return np.clip(masks, 0, 1, out=masks)

    @cached_property
    def _windows(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """For each offset (offsets, grid, side) how much every cell adds to every pixel, down and across."""
        grid = self.cells.shape[1]
        windows = [
            np.lib.stride_tricks.sliding_window_view(_interpolation(grid, cell_side(side, grid)), side, axis=0)
            for side in self.size
        ]
        return windows[0], windows[1]


def cell_side(side: int, grid: int) -> int:
    """Pixels of a mask's cell along a side of the image."""
    return -(-side // grid)


def _interpolation(grid: int, cell: int) -> NDArray[np.float32]:
    """((grid + 1) × cell, grid) linear interpolation between the middles of cells, mirrored about the outer middles."""
    pixels = (grid + 1) * cell
    place = np.abs((np.arange(pixels) + 0.5) * grid / pixels - 0.5)
    place = np.where(place > grid - 1, 2 * (grid - 1) - place, place)
    below = np.minimum(place.astype(np.int64), grid - 2)
    weights = np.zeros((pixels, grid))
    rows = np.arange(pixels)
    weights[rows, below] = 1 - (place - below)
    weights[rows, below + 1] = place - below
    return weights.astype(np.float32)


def mask_block(
    size: tuple[int, int], number: int, *, grid: int = 7, keep: float = 0.5, seed: int = 0, masks: int = BLOCK
) -> MaskBlock:
    """Draw the block of that number from a seed's endless row of masks.

    Parameters
    ----------
    size : (height, width)
        Of the image, in pixels.
    number : int
        0 holds the first 256 masks, 1 the next, and so on.
    grid, keep, seed
        As for :func:`rise`.
    masks : int
        Keep the first so many of the block.
    """
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number))))
    cells = random.random((BLOCK, grid, grid)) < keep
    offsets = np.stack([random.integers(0, cell_side(side, grid), BLOCK) for side in size], axis=1)
    return MaskBlock(cells[:masks], offsets[:masks], size)


class _Question:
    """The parameters of one call, checked; the sums gathered so far; and the result made of them."""

    def __init__(
        self, model: Model, image: Any, *, target: TargetLike, masks: Any, grid: Any, keep: Any, baseline: Substrate,
        tolerance: Any, seed: Any, first: Any,
    ) -> None:  # fmt: skip
        for name, given, least in (("masks", masks, 1), ("grid", grid, 2), ("seed", seed, 0), ("first", first, 0)):
            if not _is_whole(given) or not least <= given < 1 << 63:
                raise InputError(
                    f"not a value of {name}", where="rise", got=repr(given), allowed=f"a whole number from {least}"
                )
        if first % BLOCK:
            raise InputError("masks are counted in blocks", where="first", got=str(first), allowed="multiples of 256")
        if not _is_number(keep) or not 0 < keep < 1:
            raise InputError("not a probability", where="keep", got=repr(keep), allowed="above 0 and below 1")
        if tolerance is not None and not (_is_number(tolerance) and tolerance > 0):
            raise InputError("not a tolerance", where="tolerance", got=repr(tolerance), allowed="above 0, or None")
        preprocess = image_contract(model, "RISE")
        self.model, self.masks, self.grid, self.keep = model, int(masks), int(grid), float(keep)
        self.tolerance, self.seed, self.first = tolerance, int(seed), int(first)
        self.view, self.name = one_view(model, image, "RISE")
        height, width = self.view.shape[:2]
        self.size = height, width
        if self.grid > min(self.size):
            raise InputError("more cells than pixels", where="grid", got=str(grid), allowed=f"2 to {min(self.size)}")
        tensor = preprocess.encode(self.view[np.newaxis])
        self.target = resolve_target(model, target, tensor)
        fill = substrate(preprocess, self.view, baseline)
        self.dtype = tensor.dtype
        # Between whole numbers it is the blend that is rounded; in float64 it is exact before that.
        wide = self.dtype.kind in "iu" or self.dtype.itemsize == 8
        self.fill = fill.astype(np.float64 if wide else np.float32)
        self.difference = tensor[0].astype(self.fill.dtype) - self.fill
        self.channel_axis = 1 if preprocess.layout == "NCHW" else 3
        self.clean = float(self.target.score(model.run(tensor, self.target.values))[0])
        self.parameters: dict[str, Any] = {
            "target": self.target.text,
            "class_index": self.target.class_index,
            "grid": self.grid,
            "keep": self.keep,
            "baseline": baseline if isinstance(baseline, str) else [float(number) for number in baseline],
            "tolerance": None if tolerance is None else float(tolerance),
        }
        self.total, self.squares = np.zeros(height * width), np.zeros(height * width)
        self.limbs, self.limbs_of_squares = exact_limbs(self.total[np.newaxis]), exact_limbs(self.squares[np.newaxis])
        self.used = self.non_finite = 0

    def run(self) -> Iterator[bool]:
        """Use block after block; each time, say whether it was the last."""
        blocks = -(-self.masks // BLOCK)
        for index in range(blocks):
            asked = min(BLOCK, self.masks - index * BLOCK)
            self._add(
                mask_block(
                    self.size, self.first // BLOCK + index, grid=self.grid, keep=self.keep, seed=self.seed, masks=asked
                )
            )
            last = index + 1 == blocks or (index > 0 and self._converged())
            yield last
            if last:
                return

    def _add(self, block: MaskBlock) -> None:
        held: dict[int, NDArray[np.float32]] = {}

        def write(start: int, rows: NDArray[Any]) -> None:
            held.clear()
            held[start] = block.rows(start, start + len(rows))
            masks = np.expand_dims(held[start], self.channel_axis)
            if rows.dtype == self.fill.dtype:
                np.multiply(masks, self.difference, out=rows)
                rows += self.fill
            else:
                rows[...] = as_stored(masks * self.difference + self.fill, self.dtype)

        total, squares = np.zeros_like(self.total), np.zeros_like(self.squares)
        for start, scores in variant_scores(self.model, self.target, len(block), write):
            finite = np.isfinite(scores)
            self.non_finite += int((~finite).sum())
            weights = np.where(finite, scores, 0.0) / self.keep
            masks = held[start].reshape(len(scores), -1).astype(np.float64)
            total += weights @ masks
            squares += weights**2 @ np.square(masks, out=masks)
        self.used += len(block)
        self.total += total
        self.squares += squares
        # Whole blocks are added exactly, so that their order and grouping do not show in any bit of a merged result.
        self.limbs += exact_limbs(total[np.newaxis])
        self.limbs_of_squares += exact_limbs(squares[np.newaxis])

    def estimate(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Map and standard error of the masks so far."""
        mean, error = _estimate(self.total, self.squares, self.used - self.non_finite)
        return mean.reshape(self.size), error.reshape(self.size)

    def _converged(self) -> bool:
        # A map without any score above 0 has neither range nor error: it is as sure as it will ever be.
        return self.tolerance is not None and relative_noise(*self.estimate()) <= self.tolerance

    def result(self) -> Rise:
        """What all masks so far say together."""
        parts = np.array([[self.seed, self.first, self.used]], np.int64)
        return _result(
            self.limbs, self.limbs_of_squares, parts, self.non_finite,
            clean=self.clean, grid=self.grid, keep=self.keep, image=self.view, name=self.name, target=self.target.text,
            scale=self.target.scale, provenance=self.model.provenance("rise", self.parameters),
        )  # fmt: skip


def merge_rise(a: Rise, b: Rise) -> Rise:
    """Two results for one image, of different masks, become the result of all; associative and order-free to the bit.

    Parameters
    ----------
    a, b : Rise
        Of other seeds, or of other masks of one seed (``first``). Masks that do not fill a block of 256 end a part.

    Raises
    ------
    InputError
        They are not of the same model, image, target, grid, keep and baseline, or share a mask.
    """
    differing = [
        what
        for what, same in (
            ("model", a.provenance.model_sha256 == b.provenance.model_sha256),
            ("image", np.array_equal(a.image, b.image)),
            *((name, _parameter(a, name) == _parameter(b, name)) for name in ("target", "grid", "keep", "baseline")),
        )
        if not same
    ]
    if differing:
        raise InputError(
            "results of different questions cannot be merged", where="merge_rise",
            got=f"another {differing[0]}", allowed="the same model, image, target, grid, keep and baseline",
        )  # fmt: skip
    parts = _joined(np.concatenate([a.parts, b.parts]))
    earlier = a if tuple(a.parts[0]) <= tuple(b.parts[0]) else b
    return _result(
        a.sums + b.sums, a.sums_of_squares + b.sums_of_squares, parts, a.non_finite + b.non_finite,
        clean=earlier.clean, grid=a.grid, keep=a.keep, image=a.image, name=earlier.name, target=a.target, scale=a.scale,
        provenance=earlier.provenance,
    )  # fmt: skip


def _parameter(result: Rise, name: str) -> Any:
    return result.provenance.parameters.get(name)


def _joined(parts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Parts in ascending order, those that follow each other made one."""
    joined: list[list[int]] = []
    for seed, first, count in sorted(parts.tolist()):
        if joined and joined[-1][0] == seed and joined[-1][1] + joined[-1][2] > first:
            raise InputError(
                "both results have used the same mask", where="merge_rise", got=f"mask {first} of seed {seed} twice",
                allowed="other seeds, or other masks of one seed", next_step="Pass another seed, or first=, to rise",
            )  # fmt: skip
        if joined and joined[-1][0] == seed and joined[-1][1] + joined[-1][2] == first:
            joined[-1][2] += count
        else:
            joined.append([seed, first, count])
    return np.array(joined, np.int64)


def _result(
    sums: NDArray[np.int64], sums_of_squares: NDArray[np.int64], parts: NDArray[np.int64], non_finite: int, *,
    image: NDArray[np.uint8], provenance: Provenance, **others: Any,
) -> Rise:  # fmt: skip
    count = int(parts[:, 2].sum())
    mean, error = _estimate(limbs_total(sums), limbs_total(sums_of_squares), count - non_finite)
    size = image.shape[:2]
    parameters = dict(provenance.parameters) | {"masks": count, "seeds_first_masks": parts.tolist()}
    made = Provenance(**{**vars(provenance), "parameters": parameters})
    return Rise(
        map=mean.reshape(size).astype(np.float32), standard_error=error.reshape(size).astype(np.float32), masks=count,
        sums=sums, sums_of_squares=sums_of_squares, parts=parts, non_finite=non_finite, image=image, provenance=made,
        **others,
    )  # fmt: skip


def _estimate(
    total: NDArray[np.float64], squares: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of ``count`` numbers and its standard error, from their sum and the sum of their squares."""
    if count == 0:
        return np.full_like(total, np.nan), np.full_like(total, np.nan)
    mean = total / count
    if count == 1:
        return mean, np.full_like(total, np.inf)
    variance = np.maximum(squares / count - mean**2, 0) * (count / (count - 1))
    return mean, np.sqrt(variance / count)


def _is_whole(given: Any) -> bool:
    return isinstance(given, int | np.integer) and not isinstance(given, bool)


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float | np.number) and not isinstance(given, bool) and math.isfinite(given)
