"""The handle of an opened model: its values and contracts can be asked for, and any of its values computed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.graph.contract import ImageInput
from onnxviz.graph.gradient.ends import real_value_before, real_value_behind
from onnxviz.graph.loading import LoadedModel
from onnxviz.graph.tensors import tensors_among
from onnxviz.inputs.images import ImageBatch, ImageSet
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.results import Provenance
from onnxviz.runtime.bound_batch import BoundBatch
from onnxviz.runtime.devices import Device
from onnxviz.runtime.feeds import checked_array, checked_feeds
from onnxviz.runtime.gathering import gather
from onnxviz.runtime.gradients import GradientSessions
from onnxviz.runtime.incremental_plans import PlannedPatch
from onnxviz.runtime.model_values import ModelValues
from onnxviz.runtime.output import OutputContract
from onnxviz.runtime.probing import probe_feeds, relative_difference
from onnxviz.runtime.runner import Runner
from onnxviz.runtime.sessions import Watch
from onnxviz.runtime.several import in_turn, shares
from onnxviz.runtime.spaces import Array, Space
from onnxviz.runtime.versions import versions

__all__ = ["Model"]

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")
K = TypeVar("K")

# Bytes of the largest map of a batch.
_CACHE, _DEVICE_ROOM = 32 << 20, 1 << 30


class Model(ModelValues):
    """An opened ``.onnx`` file. Made by :func:`onnxviz.load`; may be used from several threads.

    Attributes
    ----------
    path : Path
    name : str
        The file's name.
    sha256 : str
        Digest of the file and of its external data.
    preprocess : Preprocess or None
        The input contract; None where the model takes no image.
    output : OutputContract
        The output contract.
    labels : tuple of str or None
        One name for each class.
    device, provider : str
        Where it runs (``"cuda:0,cuda:1"`` for several), and the onnxruntime execution provider that was got.
    image_input : ImageInput or None
        The input that takes the images.
    """

    # Chosen by `load`, because they need a model that runs.
    preprocess: Preprocess | None
    output: OutputContract
    labels: tuple[str, ...] | None

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        image_input: ImageInput | None,
        preprocess: Preprocess | None,
        devices: Sequence[Device],
        threads: int | None,
        batch_size: int | None,
        arguments: Mapping[str, Any],
    ) -> None:
        self.loaded = loaded
        self.path: Path = loaded.path
        self.name = loaded.path.name
        self.sha256 = loaded.sha256
        self.device = ",".join(device.name for device in devices)
        self.provider = devices[0].provider
        self.threads = threads
        self.image_input = image_input
        self.preprocess = preprocess
        self._wished_batch_size = batch_size
        self._arguments = dict(arguments)
        self._runners: list[Runner] = []
        for device in devices:
            self._runners.append(
                Runner(
                    loaded,
                    outputs=[value.name for value in self.number_outputs],
                    only_input=self.inputs[0].name if len(self.inputs) == 1 else None,
                    device=device,
                    threads=threads,
                    probe=self.probe,
                    like=self._runners[0] if self._runners else None,
                )
            )

    def __repr__(self) -> str:
        return f"<onnxviz.Model {self.name!r}: {len(self._values)} values, {self.provider}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A model travels as its path and the contracts it was opened with; the other side opens it anew.
        from onnxviz.runtime.opening import reopen

        return reopen, (str(self.path.absolute()), self._arguments)

    # -- running -------------------------------------------------------------------------------------------------

    @property
    def _runner(self) -> Runner:
        """That of the first device."""
        return self._runners[0]

    @property
    def space(self) -> Space:
        """Where batches and maps of the first device are made."""
        return self._runner.space

    @property
    def stays_on_device(self) -> bool:
        """Whether maps can go from the network to our kernels without a look at the host: on one CUDA device."""
        return len(self._runners) == 1 and not self.space.on_host

    @cached_property
    def parts(self) -> tuple[Model, ...]:
        """The model on each of its devices alone."""
        if len(self._runners) == 1:
            return (self,)
        parts = []
        for runner in self._runners:
            part = copy.copy(self)
            part._runners, part.device = [runner], runner.device.name
            parts.append(part)
        return tuple(parts)

    def _on_devices(
        self, items: Iterable[T], work: Callable[[Runner, T], Iterator[tuple[K, dict[str, Array]]]]
    ) -> Iterator[tuple[K, dict[str, Array]]]:
        """Results for all items, in their order; several devices take items in turn, each in a thread of its own."""
        if len(self._runners) == 1:
            for item in items:
                yield from work(self._runner, item)
            return

        def kept(runner: Runner, share: Iterator[T]) -> Iterator[list[tuple[K, Arrays]]]:
            # The device goes on with its next item before anybody has looked at this one: copies.
            for item in share:
                yield [(key, {n: np.array(a) for n, a in arrays.items()}) for key, arrays in work(runner, item)]

        dealt = zip(self._runners, shares(items, len(self._runners)), strict=True)
        for steps in in_turn([kept(runner, share) for runner, share in dealt]):
            yield from steps

    def run(
        self,
        x: NDArray[Any] | ImageBatch | ImageSet | Mapping[str, NDArray[Any]],
        values: str | Sequence[str] = (),
    ) -> Arrays:
        """Compute values of the graph.

        Parameters
        ----------
        x : array, ImageBatch, ImageSet or mapping
            Encoded images (n, *input shape) in the model's dtype and layout, images to be encoded by the contract, or
            input name to array for a model with several inputs.
        values : str or sequence of str
            Names or globs; the graph's outputs that hold numbers when empty. A value of text comes as an array of str.

        Returns
        -------
        dict of value name to array
            Rows in the order of the images. The caller owns the arrays. Those of :attr:`blocked_values` come as they
            lie in memory.

        Raises
        ------
        ValueNotFoundError
            No value has the name.
        InputError
            The array does not fit the input, or a value that is named is a sequence or a map, which no array can hold.
        LimitError
            Not even one image fits in memory, or the time limit passed.
        """
        names = self._names(values)
        if isinstance(x, Mapping):
            return self._runner.run_feeds(names, self.checked_feeds(x))
        if isinstance(x, ImageSet):
            read = ((len(batch.indices), arrays) for batch, arrays in self.batches(x, names))
            gathered = gather(read, names, len(x), self._axes_beside_first(names))
            if gathered is None:
                raise InputError("none of the images can be read", where="images")
            return gathered
        tensor = self.checked_images(x)

        axes = self._axes_beside_first(names)

        def work(runner: Runner, part: slice) -> Iterator[tuple[slice, Arrays]]:
            for rows, arrays in runner.stream(tensor[part], names, self.batch_size, axes=axes):
                yield slice(part.start + rows.start, part.start + rows.stop), arrays

        step = len(tensor) if len(self._runners) == 1 else self.batch_size
        steps = self._on_devices([slice(at, at + step) for at in range(0, len(tensor), step)] if step else [], work)
        gathered = gather(((step.stop - step.start, arrays) for step, arrays in steps), names, len(tensor), axes)
        if gathered is None:
            raise InputError("there is nothing to run on", where=self.name, got=f"an array of shape {tensor.shape}")
        return gathered

    def batches(
        self, images: ImageSet, values: str | Sequence[str] = (), *, to_host: bool = True
    ) -> Iterator[tuple[ImageBatch, dict[str, Array]]]:
        """Stream images through the network; with several devices each takes the next batch in turn.

        Parameters
        ----------
        images : ImageSet
        values : str or sequence of str
            Names or globs; the graph's outputs that hold numbers when empty.
        to_host : bool
            False leaves the arrays in :attr:`space`, which must be that of the only device.

        Yields
        ------
        (ImageBatch, dict of value name to array)
            The arrays are valid until the next step of the iteration only: copy what has to last.
        """
        names = self._names(values)
        self._require_only_input()
        axes = self._axes_beside_first(names)

        def work(runner: Runner, batch: ImageBatch) -> Iterator[tuple[ImageBatch, dict[str, Array]]]:
            for rows, arrays in runner.stream(batch.tensor, names, self.batch_size, to_host=to_host, axes=axes):
                yield ImageBatch(batch.indices[rows], batch.tensor[rows], batch.views[rows]), arrays

        yield from self._on_devices(images.batches(self.batch_size), work)

    def predict(self, x: NDArray[Any] | ImageBatch | ImageSet) -> NDArray[np.float32]:
        """Class probabilities, (n, classes) float32, by the output contract.

        Raises
        ------
        ContractError
            The model's output is not a classifier's.
        """
        return self.output.probabilities(self.run(x, (self.output.output,))[self.output.output])

    @contextmanager
    def filler(self, values: str | Sequence[str] = ()) -> Iterator[BoundBatch]:
        """A batch to write into and run, for methods that make many variants of one image.

        It has :attr:`batch_size` rows. Where the file fixes the batch, every run must use all of them.
        """
        names = self._names(values)
        self._require_only_input()
        with self._runner.bound(names, self.batch_size) as bound:
            yield bound

    def plan_patches(
        self, values: Sequence[str], image: NDArray[Any], patches: NDArray[np.int64], grid: tuple[int, int] | None, *,
        memory: int,
    ) -> PlannedPatch:  # fmt: skip
        """Plan how values are computed with a patch at each position, without what the patch cannot change.

        Parameters
        ----------
        values : sequence of str
            The wanted values.
        image : (*input shape without the batch)
            An encoded image. Plan and sessions are kept, and serve any image.
        patches : (positions, 4) int64
            Top, left, bottom, right in pixels; none is empty.
        grid : (rows, columns) or None
            How the positions lie, row by row.
        memory : int
            Bytes that original maps and buffers may take, weights left out.
        """
        assert self.image_input is not None
        return self._runner.plan_patches(values, image, self.image_input.layout, patches, grid, memory)

    def glance(self) -> AbstractContextManager[None]:
        """Runs inside are few: what they need is not kept where that would be heavy."""
        return self._runner.glance()

    def watch(self) -> Watch:
        """A watch over many runs, which ends them when the model's time limit passes."""
        return Watch(self._runner.deadline)

    @cached_property
    def batch_size(self) -> int:
        """Images per run."""
        if self._only_input_name is not None and self._runner.fixed_batch is not None:
            return self._runner.fixed_batch
        if self._wished_batch_size is not None:
            return self._wished_batch_size
        # Large activations spill from a CPU's cache when many images share a run; small ones leave the cores idle when
        # few do. Fully connected layers want at least a few rows for each pass over their weights. A device wants many
        # rows, and has memory for them.
        largest = 4 * max((_units(value.shape) for value in self._values), default=1)
        fitting = max(1, (_CACHE if self._runner.device.is_cpu else _DEVICE_ROOM) // largest)
        return min(64, max(8, 1 << (fitting.bit_length() - 1)))

    @property
    def fixed_batch(self) -> int | None:
        """Rows that every run must have because the file fixes them and rewriting failed; None where any number may."""
        return self._runner.fixed_batch

    @property
    def runs_alike(self) -> bool:
        """Whether runs of one work are better all of as many rows: see :attr:`Runner.runs_alike`."""
        return self._runner.runs_alike

    def set_timeout(self, seconds: float | None) -> None:
        """Stop every run that is still going ``seconds`` from now with a ``LimitError``; None lifts the limit."""
        for runner in self._runners:
            runner.deadline = None if seconds is None else time.monotonic() + seconds

    def probe(self, batch: int = 1) -> Arrays:
        """Seeded random feeds for every input, encoded by the contract."""
        image = self.image_input.name if self.image_input else None
        return probe_feeds(self.inputs, batch, image=image, preprocess=self.preprocess)

    # -- gradients -----------------------------------------------------------------------------------------------

    @property
    def gradients(self) -> GradientSessions:
        """Sessions that run forward and backward; :func:`onnxviz.gradient` is the way to use them."""
        return self._runner.gradients

    @cached_property
    def gradient_batch_size(self) -> int:
        """Images per run of the forward and backward pass, whose maps all stay in memory until they have been used."""
        return self.fixed_batch or max(1, min(8, self.batch_size))

    @cached_property
    def gradient_input(self) -> str:
        """The input; the first value behind it that holds real numbers where it takes integers.

        Raises
        ------
        InputError
            There is no such value, or the model has several inputs.
        """
        found: str | None = real_value_behind(self.loaded.proto, self.only_input)
        if found is None:
            raise InputError(
                "the input holds integers, and no value behind it is the same in real numbers", where=self.name,
                got=repr(self.only_input), next_step="Name the values to derive by with wrt=...",
            )  # fmt: skip
        return found

    @cached_property
    def class_scores(self) -> tuple[str, str]:
        """The value whose elements are the classes' scores, and their scale, ``"logit"`` or ``"probability"``.

        Raises
        ------
        ContractError
            The model's output is not a classifier's.
        """
        if self.output.kind == "values":
            self.output.probabilities(np.zeros((1, 1), np.float32))  # raises the sentence that says why
        if self.output.logits is not None:
            logits: str | None = real_value_before(self.loaded.proto, self.output.logits)
            if logits is not None:
                return logits, "logit"
        scores: str | None = real_value_before(self.loaded.proto, self.output.output)
        return scores or self.output.output, "logit" if self.output.kind == "logits" else "probability"

    def tap_difference(self, values: str | Sequence[str] = "*") -> float:
        """Largest relative difference of the outputs with values tapped from the outputs without.

        A tap can stop onnxruntime from fusing operators, so a small difference is expected. It is measured on a
        random image and relative to the largest number of each output.
        """
        outputs = [value.name for value in self.number_outputs]
        names = list(dict.fromkeys((*outputs, *self._names(values))))
        feeds = self.probe(self.fixed_batch or 1) if self._only_input_name else self.probe(1)
        plain = self._runner.run_feeds(outputs, feeds)
        tapped = self._runner.run_feeds(names, feeds)
        return max((relative_difference(tapped[name], plain[name]) for name in outputs), default=0.0)

    # -- for the record ------------------------------------------------------------------------------------------

    @property
    def notes(self) -> tuple[str, ...]:
        """What happened on the way that a reader should know, such as images that are run one by one."""
        hidden = [self.blocked_reason] if self.blocked_values else []
        return tuple(dict.fromkeys([*hidden, *(note for runner in self._runners for note in runner.notes)]))

    def provenance(self, method: str, parameters: Mapping[str, Any]) -> Provenance:
        """What made a result, to be stored in it."""
        return Provenance(
            method=method,
            model=self.name,
            model_sha256=self.sha256,
            preprocess=self.preprocess.to_json() if self.preprocess else {},
            output=self.output.to_json(),
            parameters=dict(parameters),
            versions=versions(),
            # A CPU has no number.
            provider=self.provider if self.device == "cpu" else f"{self.provider} on {self.device}",
        )

    # -- inside --------------------------------------------------------------------------------------------------

    @property
    def only_input(self) -> str:
        """Name of the model's input.

        Raises
        ------
        InputError
            It has several, so images alone do not feed it.
        """
        return self._require_only_input()

    def _require_only_input(self) -> str:
        if self._only_input_name is None:
            listed = ", ".join(f"{value.name!r} {list(value.shape or ())}" for value in self.inputs)
            raise InputError(
                f"the model has {len(self.inputs)} inputs, so images alone do not feed it",
                where=self.name,
                allowed=f"a mapping with {listed}",
                next_step="Call model.run({name: array, ...})",
            )
        return self._only_input_name

    def _names(self, values: str | Sequence[str]) -> tuple[str, ...]:
        patterns = (values,) if isinstance(values, str) else tuple(values)
        if not patterns:
            return tuple(value.name for value in self.number_outputs)
        found = [value for pattern in patterns for value in tensors_among(self.values(pattern), self.name)]
        return tuple(dict.fromkeys(value.name for value in found))

    def checked_images(self, x: NDArray[Any] | ImageBatch) -> NDArray[Any]:
        """Encoded images as the model's only input takes them, (n, *input shape).

        Raises
        ------
        InputError
            The array does not fit the input.
        """
        tensor = x.tensor if isinstance(x, ImageBatch) else np.asarray(x)
        self._require_only_input()
        return checked_array(self.inputs[0], tensor, self.name, free_batch=True)

    def checked_feeds(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Arrays for all inputs, as the model takes them.

        Raises
        ------
        InputError
            An input is missing, unknown, or its array does not fit.
        """
        return checked_feeds(self.inputs, feeds, self.name)


def _units(shape: tuple[int | str | None, ...] | None) -> int:
    """Number of units of one row, as far as the shape is known."""
    units = 1
    for size in (shape or ())[1:]:
        units *= size if isinstance(size, int) else 1
    return units
