"""Positions of a patch come in; the target's score and the most likely class at each go out, run by run.

Two ways give the same numbers: the plain one runs the whole network at every position, the incremental one only what
the patch can change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import LimitError
from onnxviz.methods.patches import Patches
from onnxviz.methods.target import Target
from onnxviz.runtime.incremental import IncrementalRunner
from onnxviz.runtime.model import Model
from onnxviz.runtime.sessions import OutOfMemory, Watch
from onnxviz.runtime.several import in_turn

__all__ = ["Experiment", "Scores", "incremental_scores", "plain_scores"]

Indices = NDArray[np.int64]
CLEAN = np.array([-1])
"""The position that stands for the image without a patch."""


@dataclass(frozen=True)
class Experiment:
    """One image, what is asked of it, and where it is hidden."""

    model: Model
    target: Target
    image: NDArray[Any]
    """Encoded."""
    patches: Patches
    fill: NDArray[Any]
    """Encoded: what the patch holds."""
    fills: Callable[[Indices], NDArray[Any]]
    """Positions to what is shown inside their boxes."""
    order: Sequence[Indices]
    """Positions in passes."""

    @property
    def values(self) -> tuple[str, ...]:
        """The values that are needed for score and label."""
        output = self.model.output
        classifies = output.kind != "values"
        return tuple(dict.fromkeys((*self.target.values, output.output) if classifies else self.target.values))

    def read(self, positions: Indices, outputs: dict[str, NDArray[Any]]) -> Scores:
        """Score and label of some positions."""
        output = self.model.output
        count = len(positions)
        scores = np.asarray(self.target.score(outputs)[:count], np.float64)
        if output.kind == "values":
            return Scores(positions, scores, None)
        probabilities = output.probabilities(outputs[output.output])[:count]
        # NaN is no answer.
        label = np.where(np.isfinite(probabilities).all(axis=1), probabilities.argmax(axis=1), -1)
        return Scores(positions, scores, label)


@dataclass(frozen=True)
class Scores:
    """What some positions answered."""

    positions: Indices
    scores: NDArray[np.float64]
    labels: Indices | None


def incremental_scores(experiment: Experiment, runners: Sequence[IncrementalRunner]) -> Iterator[Scores]:
    """Compute only what the patch can change; the image without a patch is in the first part, as position -1.

    Several runners, one for each device, take a share of every pass.
    """

    def share(number: int, watch: Watch) -> Iterator[Scores]:
        runner = runners[number]
        split = [np.array_split(positions, len(runners))[number] for positions in experiment.order]
        passes = [positions for positions in split if len(positions)]
        originals = runner.originals(experiment.image, watch)
        for positions, outputs in runner.positions(originals, experiment.fills, passes, watch):
            yield experiment.read(positions, outputs)

    with experiment.model.watch() as watch:
        yield from in_turn([share(number, watch) for number in range(len(runners))])


def plain_scores(experiment: Experiment) -> Iterator[Scores]:
    """Run the whole network at every position, in batches; the image without a patch is in the first, as -1.

    Several devices take the batches in turn.
    """
    parts, size = experiment.model.parts, experiment.model.batch_size
    order = np.concatenate([CLEAN, *experiment.order])
    if len(parts) == 1:
        yield from _plain_share(experiment, parts[0], order)
        return
    batches = np.split(order, range(size, len(order), size))
    dealt = [batches[number :: len(parts)] for number in range(len(parts))]
    yield from in_turn(
        [
            _plain_share(experiment, part, np.concatenate(share))
            for part, share in zip(parts, dealt, strict=True)
            if share
        ]
    )


def _plain_share(experiment: Experiment, model: Model, order: Indices) -> Iterator[Scores]:
    """Positions on one device."""
    channels_last = model.preprocess is not None and model.preprocess.layout == "NHWC"
    # An empty box leaves the image as it is: it is scored in the same batches as all others.
    boxes = np.concatenate([experiment.patches.flat, np.zeros((1, 4), np.int64)])
    own_fills = experiment.patches.regions is not None
    # Carried to the device once; batches are made there.
    image, fill = model.space.put(experiment.image), model.space.put(experiment.fill)
    alike = model.runs_alike
    size = min(model.batch_size, len(order)) if alike else model.batch_size
    start = 0
    while start < len(order):
        try:
            with model.filler(experiment.values) as bound:
                previous: Indices | None = None
                while start < len(order):
                    # Somebody looks on where there are several passes: the first answer is not to wait for a batch.
                    early = start == 0 and len(experiment.order) > 1 and not alike
                    at_once = min(size, 2) if early else size
                    positions = order[start : start + at_once]
                    rows = model.fixed_batch or (size if alike else len(positions))
                    # Rows that are too many repeat the last box; their answers are dropped.
                    padded = np.concatenate([positions, np.repeat(positions[-1:], rows - len(positions))])
                    batch = bound.room(rows)
                    if own_fills:
                        bound.space.write(batch, experiment.fills(padded))
                    else:
                        bound.space.fill_occluded(
                            image, fill, boxes[padded], batch, channels_last=channels_last, previous=previous,
                            threads=model.threads or 0,
                        )  # fmt: skip
                        # Rows beyond a smaller first batch hold nothing yet.
                        previous = boxes[padded] if at_once == size else None
                    outputs = bound.run(rows)
                    yield experiment.read(positions, outputs)
                    start += len(positions)
        except OutOfMemory as error:
            if size == 1 or model.fixed_batch is not None:
                raise LimitError(
                    "not even one image fits in memory", where=model.name, got=error.got,
                    next_step="Run on a machine with more memory",
                ) from error  # fmt: skip
            size = max(1, size // 2)
