"""A model and one image come in; how the output answers when a patch hides each part of the image goes out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import backend
from onnxviz.errors import InputError, ModelError
from onnxviz.inputs.images import ImageSet, load_images
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.methods.occlusion_scores import Experiment, Scores, incremental_scores, plain_scores
from onnxviz.methods.patches import (
    Patches,
    baseline_fill,
    filler,
    grid_patches,
    keep_other_channels,
    pair_of,
    region_patches,
)
from onnxviz.methods.target import TargetLike, resolve_target
from onnxviz.results import Occlusion, OcclusionStep
from onnxviz.runtime.devices import CPU_PROVIDER
from onnxviz.runtime.incremental import IncrementalRunner
from onnxviz.runtime.incremental_plans import PlannedPatch
from onnxviz.runtime.model import Model

__all__ = ["occlusion", "occlusion_steps"]

METHODS = ("auto", "plain", "incremental")
AGGREGATES = ("mean", "sum")
EDGES = ("clip", "shift", "drop")

MEMORY = 2 << 30
"""Bytes that the incremental way may take for maps and buffers, unless told otherwise."""


def occlusion(
    model: Model,
    image: str | Path | NDArray[Any] | ImageSet | Any,
    *,
    target: TargetLike = "top1",
    window: int | tuple[int, int] = 32,
    stride: int | tuple[int, int] = 8,
    baseline: str | Sequence[float] | NDArray[np.floating[Any]] = "mean",
    regions: NDArray[np.integer[Any]] | Sequence[Sequence[int]] | None = None,
    channels: Sequence[int] | None = None,
    method: str = "auto",
    aggregate: str = "mean",
    edge: str = "clip",
    memory: int = MEMORY,
) -> Occlusion:
    """Slide a patch over the image and record what the network then says.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, or an ImageSet of one image
        Calls for other images of the same positions share plan and sessions, which the model keeps.
    target : int, str, tuple or callable
        The number that is explained: a class index, a label, ``"top1"`` (the most likely class of the clean image),
        ``("value", index)`` or ``"value[i, j]"`` (one element of any value), ``("value", "strongest")`` (the total
        activation of the channel of a value that the clean image excites most), or a callable from
        ``{output name: array}`` to (n,) scores.
    window : int or (int, int)
        Height and width of the patch in input pixels.
    stride : int or (int, int)
        Step of the patch, down and right.
    baseline : str or (3,) numbers
        What the patch holds: ``"mean"``, the mean colour of this image's pixels, as the network sees them;
        ``"dataset"``, the mean of the preprocessing contract; ``"grey"``, 128; ``"blur"``, the image itself under a
        Gaussian blur whose standard deviation is half the patch's longer side; or an RGB colour, 0..255.
    regions : (n, 4) or (height, width) int, optional
        What is hidden in turn instead of a sliding window: boxes (top, left, bottom, right in input pixels, bottom and
        right exclusive), or the areas of a map that numbers them, superpixels for instance (negative: never hidden).
        Positions are then the boxes, or the areas in the order of their numbers, in one column.
    channels : sequence of int, optional
        Colours that the patch replaces: 0 red, 1 green, 2 blue; the others show through. All when left out.
    method : str
        ``"plain"``: every position is a run of the whole network. ``"incremental"``: only what the patch can change is
        computed, where that is predicted to pay by a CPU's measure; the numbers are the same (see Notes). ``"auto"``:
        incremental on the CPU, plain on a GPU, which runs whole images sooner than many small parts of them.
    aggregate : str
        ``importance`` of a pixel is the ``"mean"`` (Captum) or the ``"sum"`` (Xplique) of clean minus occluded score
        over the patches that cover it.
    edge : str
        Where the last patch would reach past the border: ``"clip"`` it (Captum), ``"shift"`` it inwards, or ``"drop"``
        it (Xplique).
    memory : int
        Bytes that the incremental way may take for maps and buffers, weights left out; where that is too little, the
        plain way is taken.

    Returns
    -------
    Occlusion
        ``probability`` and ``label`` per position, ``importance`` per pixel (NaN, with ``aggregate="mean"``, where no
        patch covers it, which a stride beyond the window, regions or ``edge="drop"`` can leave).

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
    ``probability`` is panel (d), ``label`` panel (e) of the figure in Zeiler and Fergus 2013, section 4.2, panel (b) is
    ``target=("value", "strongest")``, and the mean colour of the image's own pixels their grey square as the lecture
    notes have it.

    On onnxruntime's CPU provider the incremental way cuts the very graph that onnxruntime has optimised, and gives the
    same bits as the plain one where convolutions run in its blocked layout (float32 on x86), or in integers; elsewhere,
    and on other providers, the products of a convolution may be added in another order: a relative difference of 1e-5
    at most. That activations which a change cannot reach need not be computed again is due to Cavigelli, Degen and
    Benini 2017 (arXiv 1704.04313). Which way was taken, and why, stands in ``provenance.parameters["plan"]``.
    """
    asked = _Question(
        model, image, target=target, window=window, stride=stride, baseline=baseline, regions=regions,
        channels=channels, method=method, aggregate=aggregate, edge=edge, memory=memory, interlaced=False,
    )  # fmt: skip
    for part in asked.run():
        asked.take(part)
    return asked.result()


def occlusion_steps(
    model: Model,
    image: str | Path | NDArray[Any] | ImageSet | Any,
    **parameters: Any,
) -> Iterator[OcclusionStep]:
    """Do what :func:`occlusion` does step by step, the whole image coarsely first.

    Parameters
    ----------
    model : Model
    image : file, PIL image, array, or an ImageSet of one image
    **parameters
        Those of :func:`occlusion`.

    Yields
    ------
    OcclusionStep
        Some positions, in an interlaced order: first those on a coarse grid over the whole image, then those between
        them, again and again. The order depends on the parameters alone. The last step holds the whole result, whose
        numbers are those of :func:`occlusion`.

    Raises
    ------
    InputError, ContractError
        As :func:`occlusion` does.
    """
    unknown = sorted(set(parameters) - set(_DEFAULTS))
    if unknown:
        raise TypeError(f"occlusion_steps() got an unexpected keyword argument {unknown[0]!r}")
    return _walk(_Question(model, image, **(dict(_DEFAULTS) | parameters), interlaced=True))


def _walk(asked: _Question) -> Iterator[OcclusionStep]:
    columns = asked.patches.boxes.shape[1]
    done = np.zeros(len(asked.patches.flat), bool)
    for part in asked.run():
        asked.take(part)
        # Where the incremental way breaks off, the plain one begins anew: what was shown is not shown twice.
        new = (part.positions >= 0) & ~done[part.positions]
        done[part.positions[new]] = True
        if new.any():
            yield OcclusionStep(
                positions=np.stack(np.divmod(part.positions[new], columns), axis=1),
                probability=part.scores[new].astype(np.float32),
                label=part.labels[new] if part.labels is not None else None,
                done=int(done.sum()),
                total=len(done),
                result=asked.result() if done.all() else None,
            )


_DEFAULTS: Mapping[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(occlusion).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


class _Question:
    """The parameters of one call, checked; the scores gathered so far; and the result made of them."""

    def __init__(
        self, model: Model, image: Any, *, target: TargetLike, window: Any, stride: Any, baseline: Any, regions: Any,
        channels: Any, method: str, aggregate: str, edge: str, memory: Any, interlaced: bool,
    ) -> None:  # fmt: skip
        for name, given, allowed in (
            ("method", method, METHODS), ("aggregate", aggregate, AGGREGATES), ("edge", edge, EDGES),
        ):  # fmt: skip
            if given not in allowed:
                raise InputError(
                    f"no such {name}", where="occlusion", got=repr(given), allowed=", ".join(map(repr, allowed))
                )
        if not _is_bytes(memory):
            raise InputError("not a number of bytes", where="memory", got=repr(memory), allowed="1 or more")
        preprocess = _image_contract(model)
        self.model, self.method, self.aggregate, self.memory = model, method, aggregate, int(memory)
        self.view, self.name = _view(model, image)
        size = self.view.shape[:2]
        self.window, stride = pair_of("window", window), pair_of("stride", stride)
        self.patches = (
            region_patches((size[0], size[1]), regions)
            if regions is not None
            else grid_patches((size[0], size[1]), self.window, stride, edge)
        )
        self.fill, encoded = baseline_fill(preprocess, self.view, baseline, self._largest_box())
        tensor = preprocess.encode(self.view[np.newaxis])
        encoded = keep_other_channels(preprocess, tensor[0], encoded, channels)
        self.target = resolve_target(model, target, tensor)
        positions = len(self.patches.flat)
        self.experiment = Experiment(
            model, self.target, tensor[0], self.patches, encoded,
            filler(self.patches, tensor[0], encoded, preprocess.layout),
            self.patches.interlaced() if interlaced else [np.arange(positions)],
        )  # fmt: skip
        self.parameters: dict[str, Any] = {
            "target": self.target.text,
            "class_index": self.target.class_index,
            "window": list(self.window) if regions is None else None,
            "stride": list(stride) if regions is None else None,
            "regions": None if regions is None else "areas of a map" if self.patches.regions is not None else "boxes",
            "channels": None if channels is None else sorted(int(channel) for channel in channels),
            "baseline": baseline if isinstance(baseline, str) else [float(number) for number in baseline],
            "aggregate": aggregate,
            "edge": edge if regions is None else None,
        }
        self.scores = np.full(positions + 1, np.nan)
        self.labels = np.zeros(positions + 1, np.int64) if model.output.kind != "values" else None

    def _largest_box(self) -> tuple[int, int]:
        boxes = self.patches.flat
        return int((boxes[:, 2] - boxes[:, 0]).max()), int((boxes[:, 3] - boxes[:, 1]).max())

    def run(self) -> Iterator[Scores]:
        """Scores, part by part."""
        planned = self._planned()
        runner = planned.runner
        self.parameters |= {"method": "plain" if runner is None else "incremental", "plan": _plan_numbers(planned)}
        if runner is None:
            yield from plain_scores(self.experiment)
            return
        try:
            yield from incremental_scores(self.experiment, [runner, *self._other_runners()])
        except (ModelError, MemoryError) as error:
            # Whatever is wrong with the stages, whole runs may still be right; if not, they say so themselves.
            what = "memory ran out" if isinstance(error, MemoryError) else "a stage did not run"
            self.parameters |= {"method": "plain", "plan": {"why": f"{what}: {getattr(error, 'got', '') or error}"}}
            yield from plain_scores(self.experiment)

    def _planned(self) -> PlannedPatch:
        if self.method == "plain":
            return PlannedPatch(None, None, "asked for")
        if self.method == "auto" and self.model.provider != CPU_PROVIDER:
            return PlannedPatch(None, None, "a GPU runs whole images sooner than many small parts of them")
        return self._plan_on(self.model.parts[0])

    def _other_runners(self) -> list[IncrementalRunner]:
        """Those of the model's other devices; one that cannot be is done without."""
        planned = [self._plan_on(part) for part in self.model.parts[1:]]
        return [other.runner for other in planned if other.runner is not None]

    def _plan_on(self, part: Model) -> PlannedPatch:
        return part.plan_patches(
            self.experiment.values, self.experiment.image, self.patches.flat, self.patches.grid, memory=self.memory
        )

    def take(self, part: Scores) -> None:
        """Keep the scores; position -1, the last place, is the image without a patch."""
        self.scores[part.positions] = part.scores
        if self.labels is not None and part.labels is not None:
            self.labels[part.positions] = part.labels

    def result(self) -> Occlusion:
        """What all scores say together."""
        shape = self.patches.boxes.shape[:2]
        labels = self.labels
        return Occlusion(
            probability=self.scores[:-1].reshape(shape).astype(np.float32),
            label=labels[:-1].reshape(shape) if labels is not None else None,
            importance=self._importance().astype(np.float32),
            clean=float(self.scores[-1]),
            clean_label=int(labels[-1]) if labels is not None else None,
            boxes=self.patches.boxes,
            regions=_regions(self.patches, self.view.shape[:2]) if self.parameters["regions"] else None,
            fill=self.fill.astype(np.float32),
            image=self.view,
            name=self.name,
            target=self.target.text,
            scale=self.target.scale,
            labels=self.model.labels,
            provenance=self.model.provenance("occlusion", self.parameters),
        )

    def _importance(self) -> NDArray[np.float64]:
        differences = self.scores[-1] - self.scores[:-1]
        regions = self.patches.regions
        if regions is not None:
            empty = np.nan if self.aggregate == "mean" else 0.0
            return np.where(regions >= 0, differences[np.maximum(regions, 0)], empty)
        height, width = self.view.shape[:2]
        total, covered = backend.accumulate_boxes(self.patches.flat, differences, height, width)
        if self.aggregate == "mean":
            total = np.divide(total, covered, out=np.full_like(total, np.nan), where=covered > 0)
        return total


def _is_bytes(given: Any) -> bool:
    return isinstance(given, int | np.integer) and not isinstance(given, bool) and int(given) >= 1


def _regions(patches: Patches, size: tuple[int, ...]) -> NDArray[np.int64]:
    """Which position a picture shows at each pixel: of boxes that overlap the smallest."""
    if patches.regions is not None:
        return patches.regions
    shown = np.full(size, -1, np.int64)
    boxes = patches.flat
    for number in np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable"):
        top, left, bottom, right = boxes[number]
        shown[top:bottom, left:right] = number
    return shown


def _plan_numbers(planned: PlannedPatch) -> dict[str, Any]:
    plan = planned.plan
    if plan is None or planned.runner is None:
        return {"why": planned.why}
    return {
        "why": planned.why,
        "predicted_gain": round(plan.gain, 3),
        "mac_ratio": round(plan.mac_ratio, 3),
        "ideal_mac_ratio": round(plan.ideal_mac_ratio, 3),
        "memory_bytes": plan.memory,
    }


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
