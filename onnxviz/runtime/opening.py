"""A path and what the caller knows about the model come in; an opened Model with both contracts chosen goes out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import ContractError, InputError, ModelError
from onnxviz.graph.contract import explain_no_image_input, find_class_output, find_image_input
from onnxviz.graph.landmarks import find_logits_value
from onnxviz.graph.loading import read_model
from onnxviz.inputs.preprocess import Preprocess, choose_preprocess, read_sidecar
from onnxviz.runtime.devices import choose_devices
from onnxviz.runtime.labels import fit_labels, read_labels
from onnxviz.runtime.model import Model
from onnxviz.runtime.output import OutputContract, choose_output

__all__ = ["load", "reopen"]

_PROBE_IMAGES = 4
_IMAGE_CHANNELS = (1, 3)


def load(
    path: str | Path,
    *,
    preprocess: str | Path | Mapping[str, Any] | Preprocess | None = None,
    output: str | Mapping[str, Any] | OutputContract | None = None,
    labels: str | Path | Sequence[str] | Mapping[int, str] | None = None,
    device: str | Sequence[str] = "auto",
    threads: int | None = None,
    batch_size: int | str = "auto",
    external_data_root: str | Path | None = None,
    timeout: float | None = None,
) -> Model:
    """Open an exported model.

    Parameters
    ----------
    path : path
        The ``.onnx`` file.
    preprocess : preset name, path of a TOML or JSON file, mapping, Preprocess or None
        How images become the model's input. None: the sidecar ``model.onnxviz.toml``, the file's own metadata, what
        the graph tells, and last a guess that is called one.
    output : output name, mapping, OutputContract or None
        Which output answers for the classes, and whether it holds probabilities or logits. None: found as above.
    labels : path, sequence, mapping or None
        Class names. None: from the sidecar, the metadata or a ZipMap at the end of the graph, where they have them.
    device : str or sequence of str
        ``"auto"`` (the first CUDA device where one is usable, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; or
        several CUDA devices, ``"cuda:0,cuda:1"`` or a list, to which images and positions of a patch are dealt in turn.
    threads : int or None
        Threads inside one operator; None leaves the choice to onnxruntime.
    batch_size : int or "auto"
        Images per run.
    external_data_root : path or None
        A folder to be trusted: external data may lie anywhere inside it, symbolic links included (the layout of the
        Hugging Face cache). None: only beside the model.
    timeout : float or None
        Seconds from now after which every run, those of this function included, is stopped.

    Raises
    ------
    ModelError
        The file cannot be read, or is not a model that onnxruntime runs.
    ContractError
        A stated contract does not fit the model.
    DeviceError
        The device is not usable; what is missing is said.
    """
    if threads is not None and threads < 1:
        raise InputError("too few threads", where="threads", got=str(threads), allowed="1 or more")
    if batch_size != "auto" and (isinstance(batch_size, str) or batch_size < 1):
        raise InputError("not a batch size", where="batch_size", got=repr(batch_size), allowed="'auto', or 1 or more")
    devices = choose_devices(device)
    loaded = read_model(path, external_data_root=Path(external_data_root) if external_data_root else None)
    metadata = {entry.key: entry.value for entry in loaded.proto.metadata_props}
    sidecar_path = loaded.path.with_suffix(".onnxviz.toml")
    sidecar = read_sidecar(sidecar_path) if sidecar_path.is_file() else {}

    image = find_image_input(loaded.proto)
    if image is not None and image.channels not in _IMAGE_CHANNELS:
        image = None  # an input of two or four channels is no photograph: it can be fed arrays, but not image files
    if image is None and preprocess is not None:
        raise ContractError(
            f"{explain_no_image_input(loaded.proto)}; so it takes no preprocessing", where=loaded.path.name,
            next_step="Leave preprocess out, and run the model on arrays: Model.run",
        )  # fmt: skip
    contract = None
    if image is not None:
        contract = choose_preprocess(
            argument=preprocess,
            sidecar=sidecar_path if "preprocess" in sidecar else None,
            metadata=metadata,
            dtype=image.dtype,
            layout=image.layout,
            channels=image.channels,
            size=(image.height, image.width),
            normalises_itself=image.normalises_itself,
            quantization=image.quantization,
        )
    model = Model(
        loaded,
        image_input=image,
        preprocess=contract,
        devices=devices,
        threads=threads,
        batch_size=None if isinstance(batch_size, str) else batch_size,
        arguments={
            "preprocess": preprocess,
            "output": output,
            "labels": labels,
            "device": device,
            "threads": threads,
            "batch_size": batch_size,
            "external_data_root": external_data_root,
        },
    )
    model.set_timeout(timeout)
    found = find_class_output(loaded.proto, class_names=loaded.class_names)
    logits = find_logits_value(loaded.proto, found.name) if found else None
    probed: dict[str, NDArray[Any]] = {}

    def probe(name: str) -> NDArray[Any]:
        if name not in probed:
            probed[name] = _probe(model, name)
        return probed[name]

    with model.glance():
        if image is not None and contract is not None and (image.height is None or image.width is None):
            _check_assumed_size(model, contract)
        if found is not None and len(model.inputs) == 1 and len(probe(found.name)) != _PROBE_IMAGES:
            found = None  # a detector's list of boxes, perhaps: as many as it finds
        model.output = choose_output(
            argument=output,
            sidecar=sidecar.get("output"),
            metadata=_json(metadata, "onnxviz.output"),
            outputs=tuple(value.name for value in model.number_outputs),
            found=found,
            logits=logits.value if logits else None,
            probe=probe,
        )
    model.labels = fit_labels(
        _labels(labels, sidecar, metadata, sidecar_path.parent, loaded.class_names.get(model.output.output)),
        model.output.classes if model.output.kind != "values" else None,
    )
    return model


def _check_assumed_size(model: Model, contract: Preprocess) -> None:
    """Run once where the graph leaves the size of its images open: not every size that it admits runs."""
    if len(model.inputs) != 1:
        return
    try:
        model.run(next(iter(model.probe(1).values())))
    except ModelError as error:
        height, width = contract.size
        raise ContractError(
            f"the graph leaves the size of its images open, and it does not run on {height} × {width} pixels",
            where=model.name,
            got=error.got,
            next_step="State the size: size = [height, width] in the preprocessing",
        ) from error


def reopen(path: str, arguments: Mapping[str, Any]) -> Model:
    """Open a model again in another process, with the arguments it was opened with first."""
    return load(path, **arguments)


def _probe(model: Model, output: str) -> NDArray[Any]:
    if len(model.inputs) != 1:
        return model.run(model.probe(1), (output,))[output]
    feeds = model.probe(_PROBE_IMAGES)
    rows = model.run(next(iter(feeds.values())), (output,))[output]
    return np.atleast_1d(rows)


def _labels(
    argument: str | Path | Sequence[str] | Mapping[int, str] | None,
    sidecar: Mapping[str, Any],
    metadata: Mapping[str, str],
    folder: Path,
    in_graph: tuple[str, ...] | None,
) -> tuple[str, ...] | None:
    if argument is not None:
        return read_labels(argument)
    stated = sidecar.get("labels")
    if isinstance(stated, str):
        return read_labels(folder / stated)
    if stated is not None:
        return read_labels(stated)
    if "onnxviz.labels" in metadata:
        return read_labels(_json(metadata, "onnxviz.labels") or ())
    return in_graph


def _json(metadata: Mapping[str, str], key: str) -> Any:
    if key not in metadata:
        return None
    try:
        return json.loads(metadata[key])
    except json.JSONDecodeError as error:
        raise ContractError(f"the model's metadata {key!r} is not valid JSON", got=str(error)) from error
