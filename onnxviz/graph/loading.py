"""The path of an ONNX file comes in; a checked model, with its digest, or one clear sentence of refusal, goes out."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from numpy.typing import NDArray

from onnxviz.errors import ModelError
from onnxviz.graph.detached import can_lie_beside, put_beside, stated_bytes
from onnxviz.graph.external import every_tensor, read_data_files
from onnxviz.graph.streamed import StreamedModel, read_streamed
from onnxviz.graph.structure import check_names, check_operators, inline_functions, normalize_graph
from onnxviz.graph.wiring import tensor_to_array
from onnxviz.graph.zip_maps import take_off_zip_maps

__all__ = ["LoadedModel", "load_tensor", "read_model"]

_LARGEST_PROTOBUF = (1 << 31) - 1

# First bytes of files that people hand over instead of an ONNX file, and what to do about each.
_OTHER_FORMATS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xff\xd8\xff", "a JPEG picture", ""),
    (0, b"\x89PNG", "a PNG picture", ""),
    (0, b"PK\x03\x04", "a zip archive, as PyTorch and Keras write them", "Export the network to ONNX first"),
    (0, b"\x89HDF", "an HDF5 file, such as a Keras model", "Export the network to ONNX first"),
    (4, b"TFL3", "a TensorFlow Lite model", "Convert it with tf2onnx first"),
    (4, b"ORTM", "a model in onnxruntime's own .ort format", "Keep the .onnx file it was made from and pass that"),
    (0, b"GGUF", "a GGUF file", ""),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run `git lfs pull`"),
    (0, b"<!DOCTYPE", "a web page", "The download went wrong; fetch the file itself"),
    (0, b"<html", "a web page", "The download went wrong; fetch the file itself"),
    (0, b"\x80\x02", "a Python pickle, such as a PyTorch checkpoint", "Export the network to ONNX first"),
)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A checked model, ready for graph surgery."""

    path: Path
    """Absolute path of the file."""
    proto: onnx.ModelProto
    """In computing order, local functions written out, weights off the list of inputs, heavy ones called external,
    scores as outputs where the file has ZipMaps."""
    weights: Mapping[str, NDArray[Any]] = field(repr=False)
    """The heavy weights by name, read-only: held once, for whoever computes with them."""
    sha256: str
    """Digest of the file; with external data, of the file's digest and those of its data files."""
    data_digests: Mapping[str, str]
    """SHA-256 of every external data file, by its location relative to the file's folder."""
    class_names: Mapping[str, tuple[str, ...]]
    """By output: the names of the classes whose scores it holds, where a ZipMap in the file gave them."""


def read_model(path: str | os.PathLike[str], *, external_data_root: Path | None = None) -> LoadedModel:
    """Read and check a model file; nothing outside its folder is opened and no operator library is loaded.

    Parameters
    ----------
    path : path
        The ``.onnx`` file.
    external_data_root : Path, optional
        A folder that you trust: symbolic links of external data may lead into it (the Hugging Face cache).

    Returns
    -------
    LoadedModel

    Raises
    ------
    ModelError
        Missing, unreadable, empty, cut short, of another format, above 2 GiB, structurally broken, or with external
        data that cannot be trusted.
    UnsupportedOperatorError
        Operators that onnxruntime does not have.
    """
    file = Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow the links that are checked later)
    streamed = _read(file)
    proto = _parse(streamed, file)
    where = file.name
    check_names(proto, where=where)
    check_operators(proto, where=where)
    heavy, digests = read_data_files(proto, file, root=external_data_root)
    weights = _weights(proto, streamed.heavy, heavy)
    proto = inline_functions(proto, where=where)
    normalize_graph(proto, where=where)
    class_names = take_off_zip_maps(proto)
    return LoadedModel(
        path=file,
        proto=proto,
        weights=weights,
        sha256=_digest_of_all(streamed.sha256, digests),
        data_digests=digests,
        class_names=class_names,
    )


def _weights(
    proto: onnx.ModelProto, inside: Mapping[int, NDArray[np.uint8]], beside: Mapping[str, NDArray[np.uint8]]
) -> dict[str, NDArray[Any]]:
    """The heavy weights as arrays; what cannot be one goes back into the message."""
    weights = {}
    for place, tensor in enumerate(proto.graph.initializer):
        content = beside.get(tensor.name)
        if content is None and not tensor.raw_data:
            content = inside.get(place)
        if content is None:
            continue
        if can_lie_beside(tensor) and stated_bytes(tensor) == content.nbytes:
            weights[tensor.name] = put_beside(tensor, content)
        else:
            tensor.raw_data = content.tobytes()
    return weights


def load_tensor(model: LoadedModel, tensor: onnx.TensorProto) -> NDArray[Any]:
    """The numbers of a stored tensor, from the file or from its external data file.

    Parameters
    ----------
    model : LoadedModel
        The model that the tensor belongs to.
    tensor : onnx.TensorProto
        A weight or a constant of it.

    Returns
    -------
    ndarray
        In the stored type; bfloat16 and float8 as float32, 4-bit integers as 8-bit. It may be read-only.

    Raises
    ------
    ModelError
        The bytes do not fit shape and type.
    """
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return tensor_to_array(tensor)
    if tensor.name not in model.weights:
        raise ModelError("the tensor's numbers were not read", where=f"{model.path.name}, tensor {tensor.name!r}")
    return model.weights[tensor.name]


def _read(file: Path) -> StreamedModel:
    try:
        facts = file.stat()
    except FileNotFoundError as error:
        raise ModelError("there is no such file", where=str(file), next_step="Check the path") from error
    except (OSError, ValueError) as error:
        raise ModelError("the file cannot be read", where=str(file), got=_reason(error)) from error
    if not stat.S_ISREG(facts.st_mode):
        what = "a folder" if stat.S_ISDIR(facts.st_mode) else "neither a file nor a folder"
        raise ModelError("not a regular file", where=str(file), got=what, allowed="an .onnx file")
    if facts.st_size > _LARGEST_PROTOBUF:
        raise ModelError(
            "the file is larger than the 2 GiB that ONNX's file format can hold", where=file.name,
            got=f"{facts.st_size / 2**30:.1f} GiB",
            next_step="Export again and use external data: the weights then lie in files beside the model",
        )  # fmt: skip
    if facts.st_size == 0:
        raise ModelError("the file is empty", where=file.name, next_step="Export or download it again")
    try:
        with file.open("rb") as stream:
            return read_streamed(stream, facts.st_size)
    except OSError as error:
        raise ModelError("the file cannot be read", where=str(file), got=_reason(error)) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _parse(streamed: StreamedModel, file: Path) -> onnx.ModelProto:
    content = streamed.content
    for start, magic, what, next_step in _OTHER_FORMATS:
        if content[start : start + len(magic)] == magic:
            raise ModelError("not an ONNX model", where=file.name, got=what, next_step=next_step)
    if file.suffix == ".ort":
        raise ModelError(
            "onnxruntime's own .ort format cannot be opened up", where=file.name,
            next_step="Keep the .onnx file it was made from and pass that",
        )  # fmt: skip
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except (DecodeError, RecursionError, ValueError) as error:
        raise ModelError(
            "not an ONNX model, cut short, or nested too deeply", where=file.name, got=f"{streamed.size} bytes",
            next_step="Export or download it again",
        ) from error  # fmt: skip
    if not proto.HasField("graph"):
        raise ModelError(
            "the file holds no graph", where=file.name, got=f"{streamed.size} bytes",
            next_step="The file is cut short or is not an ONNX model; export or download it again",
        )  # fmt: skip
    for tensor in every_tensor(proto):
        if any(side < 0 for side in tensor.dims):
            raise ModelError(
                "a stored tensor has a negative side", where=f"{file.name}, tensor {tensor.name!r}",
                got=str(list(tensor.dims)), next_step="The file is damaged; export it anew",
            )  # fmt: skip
    return proto


def _digest_of_all(own: str, digests: Mapping[str, str]) -> str:
    if not digests:
        return own
    listing = "".join(f"{digest}  {location}\n" for location, digest in digests.items())
    return hashlib.sha256(f"{own}\n{listing}".encode()).hexdigest()
