"""A model's graph comes in; the graph that onnxruntime makes of it, its weights and the shape of every value go out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnxviz.errors import ModelError
from onnxviz.graph.detached import LARGE, WEIGHTS_FILE, StoredWeight, detach_weights, stored_weights
from onnxviz.graph.incremental.facts import GraphFacts
from onnxviz.graph.incremental.shuffles import gather_shuffled_channels
from onnxviz.graph.optimized import blocked_probe, expose_every_value, fix_input_shape, read_graph
from onnxviz.graph.streamed import aligned_empty
from onnxviz.runtime.devices import CPU_PROVIDER, Device
from onnxviz.runtime.sessions import Watch, open_session, ort_values

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["OptimizedGraph", "optimize_graph"]

Weights = Mapping[str, NDArray[Any]]

_SILENT = 4


class OptimizedGraph:
    """What onnxruntime runs when it runs a model: facts for planning, and the weights that its stages share."""

    def __init__(self, facts: GraphFacts, weights: Weights) -> None:
        self.facts = facts
        self.weights = weights


def optimize_graph(
    graph: ModelProto,
    *,
    where: str,
    source: str,
    outputs: Sequence[str],
    image: NDArray[Any],
    image_layout: str,
    device: Device,
    weights: Weights,
    portable: bool | None = None,
    deadline: float | None = None,
) -> OptimizedGraph:
    """Let onnxruntime optimise a graph, and find out what there is to know about the result.

    Parameters
    ----------
    graph : ModelProto
        A model whose outputs are the wanted values and whose batch is free; it is changed.
    where : str
        The model's name in error messages.
    source : str
        Name of the input that takes the image.
    outputs : sequence of str
        The wanted values.
    image : (1, *input shape)
        An encoded image; its sides become the graph's.
    image_layout : str
        ``"NCHW"`` or ``"NHWC"``.
    device : Device
    weights : mapping of name to array
        What lies beside the graph.
    portable : bool or None
        True stops at what every provider understands; stages are then optimised one by one. None: only where the
        provider is not the CPU.
    deadline : float or None
        ``time.monotonic`` second after which the run that measures the graph is stopped. It computes every value of one
        image and holds all of them.

    Raises
    ------
    ModelError
        onnxruntime does not give the graph back in a form that it runs.
    """
    portable = not device.is_cpu if portable is None else portable
    fix_input_shape(graph, source, image.shape)
    with tempfile.TemporaryDirectory(prefix="onnxviz-") as folder:
        path = Path(folder) / "optimized.onnx"
        _write_optimized(graph, path, where=where, weights=weights, everything=not portable)
        proto = read_graph(path)
        weights = _read_weights(stored_weights(proto), path.with_name(WEIGHTS_FILE), known=weights)
    every = expose_every_value(proto)
    names = [value.name for value in every.graph.output]
    session = open_session(every, where=where, device=_CPU, threads=None, optimize=False, weights=weights)
    with Watch(deadline) as watch:
        arrays = dict(zip(names, session.run_watched(names, {source: image}, watch), strict=True))
    arrays = {source: image} | {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    facts = GraphFacts(
        gather_shuffled_channels(proto, shapes, keep=outputs),
        source,
        tuple(outputs),
        shapes,
        {name: array.dtype for name, array in arrays.items()},
        blocked_channels(),
        image_layout,
        not portable,
    )
    return OptimizedGraph(facts, weights)


_CPU = Device("cpu", CPU_PROVIDER, {}, "graphs are optimised and measured there")


def _write_optimized(graph: ModelProto, path: Path, *, where: str, weights: Weights, everything: bool) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if everything else levels.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    entries = {
        "session.optimized_model_external_initializers_file_name": WEIGHTS_FILE,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(LARGE),
        # The session is never run.
        "session.disable_prepacking": "1",
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    stored = {tensor.name for tensor in graph.graph.initializer}
    beside = ort_values({name: array for name, array in weights.items() if name in stored} | detach_weights(graph))
    if beside:
        options.add_external_initializers(list(beside), list(beside.values()))
    try:
        onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=[CPU_PROVIDER])
    except Exception as error:
        # Whatever onnxruntime cannot write down, it can still run: the caller then takes the plain way.
        raise ModelError("onnxruntime does not give its optimised graph back", where=where, got=str(error)) from error
    if not path.is_file():
        raise ModelError("onnxruntime does not give its optimised graph back", where=where)


def _read_weights(stored: Mapping[str, StoredWeight], file: Path, *, known: Weights) -> dict[str, NDArray[Any]]:
    """The weights that were written down; those that are as they were come as the array that is there already."""
    weights: dict[str, NDArray[Any]] = {}
    if not stored:
        return weights
    with file.open("rb") as stream:
        for name, weight in stored.items():
            array = aligned_empty(weight.shape, weight.dtype)
            stream.seek(weight.offset)
            if stream.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                raise ModelError("onnxruntime's optimised graph lacks weights", where=name)
            before = known.get(name)
            as_before = before is not None and before.dtype == array.dtype and np.array_equal(before, array)
            weights[name] = before if before is not None and as_before else array
    return weights


@cache
def blocked_channels() -> int:
    """Channels that lie side by side in the blocked layout on this processor; 0 where there is no such layout.

    A convolution with 24 channels tells: they are filled up to whole blocks of 8 or 16.
    """
    proto = blocked_probe()
    with tempfile.TemporaryDirectory(prefix="onnxviz-") as folder:
        path = Path(folder) / "probe.onnx"
        _write_optimized(proto, path, where="a probe", weights={}, everything=True)
        optimized = read_graph(path)
        blocked = next((node for node in optimized.graph.node if node.domain == "com.microsoft.nchwc"), None)
        if blocked is None:
            return 0
        weights = _read_weights(stored_weights(optimized), path.with_name(WEIGHTS_FILE), known={})
        every = expose_every_value(optimized)
        session = open_session(every, where="a probe", device=_CPU, threads=1, optimize=False, weights=weights)
        with Watch(None) as watch:
            (found,) = session.run_watched([blocked.output[0]], {"image": np.zeros((1, 8, 6, 6), np.float32)}, watch)
    return 16 if found.shape[1] == 32 else 8
