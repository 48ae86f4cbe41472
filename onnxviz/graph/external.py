"""A model that keeps weights in files beside it comes in; their numbers, and a digest of each file, go out.

The names of those files come from the model, which nobody vouches for. Four layers, as in ``onnx``'s own
``Security.md``: the path stays inside the folder, no symbolic link is followed, nothing but a regular file is opened,
and that file has no second name (a hard link may lead to any file of the same disk; onnxruntime does not look). Each
file is read once, here: what was digested is what is computed with, whatever becomes of the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxviz.errors import ModelError
from onnxviz.graph.detached import can_lie_beside
from onnxviz.graph.streamed import HEAVY, aligned_empty
from onnxviz.graph.wiring import subgraphs

__all__ = ["every_tensor", "read_data_files"]

_CHUNK = 1 << 22
_LARGEST_INSIDE = (1 << 31) - 1
_MOST_CLAIMS = 4
"""How often the bytes of a data file may be claimed on average, by tensors that do not begin and end alike."""


def every_tensor(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every stored tensor: weights, node attributes, bodies of If, Loop and Scan, local functions, training graphs."""
    graphs = [proto.graph]
    for training in proto.training_info:
        graphs += [training.initialization, training.algorithm]
    for graph in graphs:
        yield from _tensors_of_graph(graph)
    for function in proto.functions:
        for node in function.node:
            yield from _tensors_of_node(node)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for entry in node.attribute:
        if entry.HasField("t"):
            yield entry.t
        yield from entry.tensors
        for sparse in (*([entry.sparse_tensor] if entry.HasField("sparse_tensor") else []), *entry.sparse_tensors):
            yield from (sparse.values, sparse.indices)
    for body in subgraphs(node):
        yield from _tensors_of_graph(body)


def read_data_files(
    proto: onnx.ModelProto, model: Path, *, root: Path | None
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, str]]:
    """Check every reference to a data file, then read each file once.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model as parsed; its tensors get their bytes, but for those of heavy weights.
    model : Path
        Absolute path of the model file; locations are relative to its folder.
    root : Path or None
        A folder the caller trusts: with it, symbolic links are followed as long as they end inside that folder (the
        cache of Hugging Face is built like that). None: no symbolic link at all.

    Returns
    -------
    (dict of name to bytes, dict of location to SHA-256)
        Heavy weights of the main graph, and all data files. Both empty where the model keeps everything inside.

    Raises
    ------
    ModelError
        A path that leaves the folder, a link, something not a regular file, a missing or unreadable file, or an offset
        or length that does not fit the file; the message names the tensor.
    """
    references: dict[str, list[TensorProto]] = {}
    for tensor in every_tensor(proto):
        if tensor.data_location == TensorProto.EXTERNAL:
            references.setdefault(_location(tensor, model), []).append(tensor)
    # All names are judged before the first file is opened.
    paths = {location: _resolve(location, users[0], model, root) for location, users in references.items()}
    weights = [tensor for tensor in proto.graph.initializer if can_lie_beside(tensor)]
    beside = {id(tensor) for tensor in weights}
    heavy, digests, inside = {}, {}, 0
    for location, users in sorted(references.items()):
        contents, digests[location] = _read(paths[location], users, model, follow=root is not None)
        for tensor, content in zip(users, contents, strict=True):
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            if id(tensor) in beside and content.nbytes >= HEAVY:
                heavy[tensor.name] = content
                continue
            inside += content.nbytes
            if inside > _LARGEST_INSIDE:
                raise _refuse_more_inside(tensor, model)
            tensor.raw_data = content.tobytes()
    return heavy, digests


def _entries(tensor: TensorProto) -> Mapping[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _refuse(what: str, tensor: TensorProto, model: Path, *, got: str = "", next_step: str = "") -> ModelError:
    return ModelError(
        what, where=f"{model.name}, tensor {tensor.name!r}", got=got,
        allowed="a regular file inside the model's folder", next_step=next_step,
    )  # fmt: skip


def _location(tensor: TensorProto, model: Path) -> str:
    location = _entries(tensor).get("location", "")
    if not location or "\0" in location:
        raise _refuse("the tensor lies outside the file, but no data file is named", tensor, model, got=repr(location))
    windows, posix = PureWindowsPath(location), PurePosixPath(location)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or windows.root or location.startswith("*"):
        raise _refuse("the data file's path is not relative to the model's folder", tensor, model, got=repr(location))
    if ".." in posix.parts or ".." in windows.parts:
        raise _refuse("the data file's path leaves the model's folder", tensor, model, got=repr(location))
    return location


def _resolve(location: str, tensor: TensorProto, model: Path, root: Path | None) -> Path:
    """Where the data file really is; only looks at directory entries, opens nothing."""
    folder = model.parent
    path = folder / location
    real_folder, real = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    if root is None:
        walked = folder
        for part in PurePosixPath(location).parts:
            walked /= part
            if walked.is_symlink():
                raise _refuse(
                    "the data file is reached through a symbolic link", tensor, model, got=repr(location),
                    next_step="Pass external_data_root= a folder that you trust and that holds the file itself",
                )  # fmt: skip
        if not real.is_relative_to(real_folder):
            raise _refuse("the data file lies outside the model's folder", tensor, model, got=repr(location))
    elif not real.is_relative_to(os.path.realpath(root)):
        raise ModelError(
            "the data file lies outside the trusted folder", where=f"{model.name}, tensor {tensor.name!r}",
            got=repr(location), allowed=f"files inside {root}",
        )  # fmt: skip
    try:
        facts = os.lstat(real)
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        raise _refuse(
            "the data file cannot be found" if missing else "the data file cannot be read",
            tensor, model, got=repr(location),
            next_step="Models with external data are several files: put them all into one folder",
        ) from error  # fmt: skip
    _check_kind(facts, location, tensor, model)
    return real


def _check_kind(facts: os.stat_result, location: str, tensor: TensorProto, model: Path) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise _refuse("the data file is not a regular file", tensor, model, got=repr(location))
    if facts.st_nlink > 1:
        raise _refuse(
            "the data file has a second name (hard link) and may belong to somebody else", tensor, model,
            got=f"{location!r} with {facts.st_nlink} names", next_step="Copy the file instead of linking it",
        )  # fmt: skip


def _read(
    path: Path, users: Sequence[TensorProto], model: Path, *, follow: bool
) -> tuple[list[NDArray[np.uint8]], str]:
    """The bytes of each tensor, tied ones as one array, and the file's SHA-256.

    What was opened is checked again, as it may have been swapped since its name was judged.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        raise _refuse("the data file cannot be read", users[0], model, got=error.strerror or str(error)) from error
    digest = hashlib.sha256()
    with os.fdopen(handle, "rb", buffering=0) as file:
        facts = os.fstat(file.fileno())
        _check_kind(facts, path.name, users[0], model)
        spans = [_checked_span(tensor, facts.st_size, model) for tensor in users]
        _refuse_overlaps(set(spans), facts.st_size, users[0], model)
        arrays = {span: aligned_empty((span[1],), np.dtype(np.uint8)) for span in sorted(set(spans))}
        waiting = deque(arrays.items())
        filling: list[tuple[tuple[int, int], NDArray[np.uint8]]] = []
        chunk, start = np.empty(_CHUNK, np.uint8), 0
        while count := file.readinto(chunk.data):
            digest.update(chunk[:count].data)
            while waiting and waiting[0][0][0] < start + count:
                filling.append(waiting.popleft())
            for (offset, length), array in filling:
                first, last = max(offset, start), min(offset + length, start + count)
                array[first - offset : last - offset] = chunk[first - start : last - start]
            start += count
            filling = [(span, array) for span, array in filling if sum(span) > start]
    if waiting or filling:
        raise _refuse("the data file became shorter while it was read", users[0], model, got=repr(path.name))
    return [arrays[span] for span in spans], digest.hexdigest()


def _refuse_overlaps(spans: Collection[tuple[int, int]], size: int, tensor: TensorProto, model: Path) -> None:
    """A small file must not become many times its size in memory because a thousand tensors claim the same bytes."""
    claimed = sum(length for _, length in spans)
    if claimed > _MOST_CLAIMS * size:
        raise _refuse(
            "tensors claim the same bytes of the data file over and over", tensor, model,
            got=f"{claimed} bytes in a file of {size}", next_step="The file is damaged; export it anew",
        )  # fmt: skip


def _refuse_more_inside(tensor: TensorProto, model: Path) -> ModelError:
    return ModelError(
        "constants, and weights of types that numpy lacks, take more than ONNX's file format can hold",
        where=f"{model.name}, tensor {tensor.name!r}", allowed="2 GiB",
        next_step="Export with weights of float32 or float16",
    )  # fmt: skip


def _checked_span(tensor: TensorProto, size: int, model: Path) -> tuple[int, int]:
    """Offset and length of the tensor's bytes."""
    offset, length = _span(tensor, model)
    needed = _needed_bytes(tensor, model)
    if length is not None and length != needed:
        raise _refuse(
            "the stated length of the data does not fit the tensor's shape and type", tensor, model,
            got=f"length {length}, shape needs {needed} bytes",
        )  # fmt: skip
    if offset + needed > size:
        raise _refuse(
            "the tensor's data reaches past the end of the data file", tensor, model,
            got=f"offset {offset} and {needed} bytes in a file of {size}",
            next_step="The data file is cut short or belongs to another model",
        )  # fmt: skip
    return offset, needed


def _span(tensor: TensorProto, model: Path) -> tuple[int, int | None]:
    entries = _entries(tensor)
    numbers: list[int | None] = []
    for key in ("offset", "length"):
        text = entries.get(key)
        # Not int(): it takes "1_000", blanks and digits of other scripts, and onnxruntime would read another number.
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise _refuse(f"the data's {key} is not a count of bytes", tensor, model, got=repr(text[:40]))
        numbers.append(None if text is None else int(text))
    return numbers[0] or 0, numbers[1]


def _needed_bytes(tensor: TensorProto, model: Path) -> int:
    if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise _refuse("a tensor of this type cannot lie in a data file", tensor, model, got=f"type {tensor.data_type}")
    elements = 1
    for side in tensor.dims:
        if side < 0:
            raise _refuse("the tensor's shape has a negative side", tensor, model, got=str(list(tensor.dims)))
        elements *= side
    bits = _bits(tensor, model)
    return (elements * bits + 7) // 8


def _bits(tensor: TensorProto, model: Path) -> int:
    try:
        name = TensorProto.DataType.Name(tensor.data_type)
        if name.endswith(("INT4", "FLOAT4E2M1")):
            return 4
        if name.endswith("INT2"):
            return 2
        return int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize) * 8
    except (KeyError, ValueError) as error:
        raise _refuse("the tensor's type is not known", tensor, model, got=f"type {tensor.data_type}") from error
