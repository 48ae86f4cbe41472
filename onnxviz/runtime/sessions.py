"""A model with chosen outputs comes in; an onnxruntime session goes out, its failures told in onnxviz's own errors."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from onnxviz.errors import DeviceError, LimitError, ModelError, OnnxvizError, UnsupportedOperatorError
from onnxviz.graph.detached import WEIGHTS_FILE
from onnxviz.runtime.devices import CPU_PROVIDER, Device

__all__ = ["OutOfMemory", "Session", "Watch", "open_session", "ort_values"]

_SILENT = 4  # onnxruntime's own log would repeat on stderr what the exception already says.

_OUT_OF_MEMORY = (
    "Failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "BFCArena",
    "bad array new length",
)


class OutOfMemory(LimitError, MemoryError):
    """A run did not fit in memory; with a smaller batch it might."""


class Session:
    """One onnxruntime session for one set of outputs."""

    def __init__(self, session: onnxruntime.InferenceSession, where: str) -> None:
        self._session = session
        self._where = where
        self.provider: str = session.get_providers()[0]
        self.input_types: dict[str, str] = {value.name: value.type for value in session.get_inputs()}
        self.output_names: tuple[str, ...] = tuple(value.name for value in session.get_outputs())
        self.weights: dict[str, onnxruntime.OrtValue] = {}
        """What was handed over to be used in place: alive as long as the session is."""

    def io_binding(self) -> onnxruntime.IOBinding:
        """A new binding: the buffers that one run at a time reads from and writes to."""
        return self._session.io_binding()

    def run(
        self, outputs: Sequence[str], feeds: dict[str, np.ndarray[Any, Any]], deadline: float | None
    ) -> list[np.ndarray[Any, Any]]:
        """Run on arrays; ``deadline`` is in seconds of ``time.monotonic``."""
        with Watch(deadline) as watch, _Translated(self._where, watch):
            return list(self._session.run(list(outputs), feeds, watch.options))

    def run_watched(
        self, outputs: Sequence[str], feeds: Mapping[str, np.ndarray[Any, Any]], watch: Watch
    ) -> list[np.ndarray[Any, Any]]:
        """Run on arrays under a watch that many runs share."""
        with _Translated(self._where, watch):
            return list(self._session.run(list(outputs), feeds, watch.options))

    def run_bound(self, binding: onnxruntime.IOBinding, deadline: float | None) -> None:
        """Run on bound buffers; the results stay in the binding."""
        with Watch(deadline) as watch, _Translated(self._where, watch):
            self._session.run_with_iobinding(binding, watch.options)


def open_session(
    serialized: bytes,
    *,
    where: str,
    device: Device,
    threads: int | None,
    data_directory: str | None,
    optimize: bool = True,
    weights: Mapping[str, onnxruntime.OrtValue] | None = None,
    alone: bool = True,
) -> Session:
    """Open a session on serialized model bytes.

    Parameters
    ----------
    serialized : bytes
        The model, its external data left where it is.
    where : str
        The model's name in error messages.
    threads : int or None
        Threads inside one operator; None leaves the choice to onnxruntime.
    data_directory : str or None
        Absolute folder of the external data.
    optimize : bool
        False keeps every value exactly as the file states it.
    weights : mapping of name to OrtValue, optional
        Numbers of the initializers that the bytes call external, in the file ``WEIGHTS_FILE``. Without ``optimize``
        (and other external data) they are used where they are, not copied, so that several sessions may share them.
    alone : bool
        False for a session that runs beside others: its threads then sleep instead of spinning while they wait, and it
        takes its memory from where the others do.

    Raises
    ------
    ModelError, UnsupportedOperatorError
        onnxruntime refuses the model.
    DeviceError
        The provider that was asked for is not the one that was got.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if data_directory is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", data_directory)
    in_place = weights if weights and not optimize and data_directory is None else {}
    if weights and not in_place:
        # The optimisers want to read the numbers, which only this call shows them.
        options.add_external_initializers(list(weights), list(weights.values()))
    if not alone:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Sizes change from run to run, so a plan of memory made for one of them is only in the way.
        options.enable_mem_pattern = False
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
    providers: list[Any] = [CPU_PROVIDER]
    if device.provider != CPU_PROVIDER:
        providers.insert(0, (device.provider, device.provider_options))
    with _Translated(where, None), _described_weights(options, in_place):
        session = onnxruntime.InferenceSession(serialized, options, providers=providers)
    got = session.get_providers()[0]
    if got != device.provider:
        raise DeviceError(
            "onnxruntime fell back to another provider",
            where=where,
            got=got,
            allowed=device.provider,
            next_step="Check driver, CUDA and cuDNN (`pip install 'onnxviz[cuda]'`), or pass device='cpu'",
        )
    kept = Session(session, where)
    kept.weights = dict(in_place)
    return kept


@contextmanager
def _described_weights(
    options: onnxruntime.SessionOptions, weights: Mapping[str, onnxruntime.OrtValue]
) -> Iterator[None]:
    """Hand weights over to be used in place.

    onnxruntime wants to see the file that the graph names, though it reads nothing from it.
    """
    if not weights:
        yield
        return
    for name, value in weights.items():
        options.add_initializer(name, value)
    with tempfile.TemporaryDirectory(prefix="onnxviz-") as folder:
        (Path(folder) / WEIGHTS_FILE).touch()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        yield


def ort_values(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, onnxruntime.OrtValue]:
    """Arrays as onnxruntime takes them; nothing is copied."""
    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}


class Watch:
    """Ends runs that pass their deadline: onnxruntime polls ``terminate`` between nodes and loop iterations."""

    def __init__(self, deadline: float | None) -> None:
        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = _SILENT
        self.expired = False
        self._timer: threading.Timer | None = None
        if deadline is not None:
            self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._expire)
            self._timer.daemon = True

    def _expire(self) -> None:
        self.expired = True
        self.options.terminate = True

    def __enter__(self) -> Watch:
        if self._timer is not None:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


class _Translated:
    """Turns what onnxruntime raises into one sentence of ours."""

    def __init__(self, where: str, watch: Watch | None) -> None:
        self._where = where
        self._watch = watch

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, OnnxvizError):
            return
        message = first_sentence(str(error))
        if self._watch is not None and self._watch.expired:
            raise LimitError(
                "the run passed its time limit and was stopped",
                where=self._where,
                next_step="Give a longer timeout, fewer images, or look for a Loop that never ends",
            ) from error
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY):
            raise OutOfMemory("a run did not fit in memory", where=self._where, got=message) from error
        if (
            kind is not None
            and kind.__name__ in ("NotImplemented", "InvalidGraph")
            and "is not a registered" in message
        ):
            raise UnsupportedOperatorError(message, where=self._where) from error
        if self._watch is None:
            raise ModelError("onnxruntime cannot load the model", where=self._where, got=message) from error
        raise ModelError("onnxruntime cannot run the model on this input", where=self._where, got=message) from error


def first_sentence(message: str) -> str:
    """Onnxruntime's message without its error code and the path of its source file."""
    with suppress(IndexError):
        if message.startswith("[ONNXRuntimeError]"):
            message = message.split(" : ", 3)[3]
    text = " ".join(message.split())
    head, marker, tail = text.partition("Status Message: ")
    return (tail if marker else head)[:400].rstrip(". ")


@cache
def _share_memory() -> None:
    """Make one arena for all sessions that run beside others: each with its own would hold what others could use."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    grow_by_doubling, as_onnxruntime_likes = 0, -1
    # Refused where the program around us has made one already: that one then serves.
    with suppress(Exception):
        onnxruntime.create_and_register_allocator(
            memory, onnxruntime.OrtArenaCfg(0, grow_by_doubling, as_onnxruntime_likes, as_onnxruntime_likes)
        )
