"""A model with chosen outputs comes in; an onnxruntime session goes out, its failures told in onnxviz's own errors."""

from __future__ import annotations

import ctypes
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
from numpy.typing import NDArray

from onnxviz.errors import DeviceError, LimitError, ModelError, OnnxvizError, UnsupportedOperatorError
from onnxviz.graph.detached import WEIGHTS_FILE, product_factors, with_inputs
from onnxviz.graph.streamed import HEAVY
from onnxviz.runtime.devices import CPU_PROVIDER, Device

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["OutOfMemory", "Session", "Watch", "give_memory_back", "open_session", "ort_values"]

_SILENT = 4  # onnxruntime's own log would repeat on stderr what the exception already says.

_MUCH = 1 << 26
"""Bytes of copied weights from which it matters what the C library keeps of the copying."""

_OUT_OF_MEMORY = (
    "Failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "BFCArena",
    "bad array new length",
)

_DEVICE_FAILED = ("CUDA failure", "CUDNN failure", "CUBLAS failure", "CUFFT failure")


class OutOfMemory(LimitError, MemoryError):
    """A run did not fit in memory; with a smaller batch it might."""


class Session:
    """One onnxruntime session for one set of outputs."""

    def __init__(self, session: onnxruntime.InferenceSession, where: str) -> None:
        self._session = session
        self._where = where
        self.provider: str = session.get_providers()[0]
        self.output_names: tuple[str, ...] = tuple(value.name for value in session.get_outputs())
        self.weights: dict[str, onnxruntime.OrtValue] = {}
        """What was handed over to be used in place: alive as long as the session is."""
        self.fed: dict[str, NDArray[Any]] = {}
        """Weights that are inputs of the graph, given to each run."""

    def io_binding(self) -> onnxruntime.IOBinding:
        """A new binding: the buffers that one run at a time reads from and writes to."""
        binding = self._session.io_binding()
        for name, value in ort_values(self.fed).items():
            binding.bind_ortvalue_input(name, value)
        return binding

    def run(self, outputs: Sequence[str], feeds: dict[str, NDArray[Any]], deadline: float | None) -> list[Any]:
        """Run on arrays; ``deadline`` is in seconds of ``time.monotonic``. What is no tensor comes as no array."""
        with Watch(deadline) as watch, _Translated(self._where, watch):
            return list(self._session.run(list(outputs), feeds | self.fed, watch.options))

    def run_watched(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], watch: Watch) -> list[Any]:
        """Run on arrays under a watch that many runs share."""
        with _Translated(self._where, watch):
            return list(self._session.run(list(outputs), dict(feeds) | self.fed, watch.options))

    def run_bound(self, binding: onnxruntime.IOBinding, watch: Watch) -> None:
        """Run on bound buffers; the results stay in the binding."""
        with _Translated(self._where, watch):
            self._session.run_with_iobinding(binding, watch.options)


def open_session(
    graph: ModelProto,
    *,
    where: str,
    device: Device,
    threads: int | None,
    weights: Mapping[str, NDArray[Any]],
    optimize: bool = True,
    lean: bool = False,
    alone: bool = True,
) -> Session:
    """Open a session on a graph.

    Parameters
    ----------
    graph : ModelProto
        The model; it is left as it is.
    where : str
        The model's name in error messages.
    threads : int or None
        Threads inside one operator; None leaves the choice to onnxruntime.
    weights : mapping of name to array
        Numbers of the initializers that the graph calls external; more names do no harm. Without ``optimize`` the CPU
        uses them where they are, not copied, so that several sessions may share them.
    optimize : bool
        False keeps every value exactly as the file states it.
    lean : bool
        True neither copies nor packs the heavy factors of matrix products: each run takes them from where they are.
        That costs products of few rows some speed, and adds in another order.
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
    beside = {tensor.name: weights[tensor.name] for tensor in graph.graph.initializer if tensor.name in weights}
    fed: dict[str, NDArray[Any]] = {}
    if lean:
        # The plan of a second run would lie beside what the first one took.
        options.enable_mem_pattern = False
        # Another device would be sent them anew for each run.
        if device.provider == CPU_PROVIDER:
            heavy = [name for name, array in beside.items() if array.nbytes >= HEAVY]
            fed = {name: beside.pop(name) for name in product_factors(graph, heavy)}
            graph = with_inputs(graph, fed) if fed else graph
    # The optimisers want to read the numbers, and a device wants to have them.
    is_copied = optimize or device.provider != CPU_PROVIDER
    copied = ort_values(beside) if is_copied else {}
    in_place = {} if is_copied else ort_values(beside)
    if copied:
        options.add_external_initializers(list(copied), list(copied.values()))
    if not alone:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Sizes change from run to run, so a plan of memory made for one of them is only in the way.
        options.enable_mem_pattern = False
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
    providers: list[Any] = [CPU_PROVIDER]
    if device.provider != CPU_PROVIDER:
        providers.insert(0, (device.provider, device.provider_options))
        options.use_deterministic_compute = True
    with _Translated(where, None), _described_weights(options, in_place):
        # Else it prints, and tries the CPU, where the provider fails.
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=providers, enable_fallback=0
        )
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
    kept.weights, kept.fed = in_place, fed
    if sum(weights[name].nbytes for name in copied) >= _MUCH:
        give_memory_back()
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


def ort_values(arrays: Mapping[str, NDArray[Any]]) -> dict[str, onnxruntime.OrtValue]:
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
        if any(sign in str(error) for sign in _DEVICE_FAILED):
            raise DeviceError(
                "the device failed", where=self._where, got=message,
                next_step="Look at `nvidia-smi`, or pass device='cpu'",
            ) from error  # fmt: skip
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


def give_memory_back() -> None:
    """Have the C library return what onnxruntime's optimisers freed: glibc keeps it otherwise, 230 MB for VGG16."""
    with suppress(Exception):  # other C libraries have no such call, and no such habit
        ctypes.CDLL(None).malloc_trim(0)


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
