"""What is known about a model's image input comes in; the contract by which images are prepared, explained, goes out.

The first of these that says something decides: the caller's argument, the sidecar ``model.onnxviz.toml``, the file's
own metadata, the graph where it tells, and last a guess that is called one.

The sidecar is a TOML file beside the model, named like it with ``.onnxviz.toml`` in place of ``.onnx``::

    labels = "labels.txt"            # class names: a file (one name a line) beside the sidecar, or a list

    [preprocess]                     # or: preprocess = "imagenet"
    preset = "imagenet"              # start from a preset; what follows replaces parts of it
    size = [224, 224]                # height, width, or one number; only needed where the graph leaves it open
    fit = "crop"                     # "crop", "stretch" or "pad"
    crop_fraction = 0.875            # centre square of this fraction of the short side
    interpolation = "bilinear"       # nearest, box, bilinear, hamming, bicubic, lanczos
    channels = "RGB"                 # RGB, BGR, GRAY
    scale = 0.00392156862745098      # tensor = (pixel * scale - mean) / std, pixel 0 to 255
    mean = [0.485, 0.456, 0.406]     # one number, or one for each channel in the order of channels
    std = [0.229, 0.224, 0.225]
    background = [255, 255, 255]     # RGB behind transparent pixels, and of the padding
    quantization = { scale = 0.0186, zero_point = 114 }   # of an integer input; "none" to say that there is none
    layout = "NCHW"                  # checked against the graph, as is dtype
    dtype = "float32"

    [output]                         # read by the runtime
    name = "prob"
    kind = "probabilities"

The same fields, without the outer table, are what a mapping, a JSON file, a TOML file (outer table optional) and the
metadata key ``onnxviz.preprocess`` (JSON) hold. ``preprocessor_config.json`` of Hugging Face transformers and
``config.json`` of timm are understood too.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxviz.errors import ContractError, near_misses
from onnxviz.inputs.contract import INTEGER_DTYPES, Preprocess
from onnxviz.inputs.exporters import read_config, read_metadata
from onnxviz.inputs.graph_facts import DEFAULT_SIDE, SMALL_SIDE, GraphFacts, infer
from onnxviz.inputs.presets import PRESETS, find_preset

__all__ = ["PRESETS", "Preprocess", "choose_preprocess", "read_preprocess_file", "read_sidecar"]

_FIELDS = tuple(field.name for field in fields(Preprocess))
_DECIDES_NUMBERS = {"preset", "scale", "mean", "std"}
_FILE_LIMIT = 16 * 2**20


def choose_preprocess(
    *,
    argument: str | Path | Mapping[str, Any] | Preprocess | None = None,
    sidecar: Path | None = None,
    metadata: Mapping[str, str] | None = None,
    dtype: str | None = "float32",
    layout: str | None = "NCHW",
    channels: int | None = 3,
    size: tuple[int | None, int | None] = (None, None),
    normalises_itself: bool = False,
    quantization: tuple[float, int] | None = None,
) -> Preprocess:
    """Choose how images are prepared for a model, and say why.

    Parameters
    ----------
    argument : preset name, path, mapping, Preprocess or None
        What the caller states. A mapping that states none of preset, scale, mean and std only replaces parts of what
        would have been chosen without it.
    sidecar : path or None
        The file ``model.onnxviz.toml`` where there is one with a ``preprocess`` table.
    metadata : mapping of str to str
        ``metadata_props`` of the model.
    dtype, layout, channels, size, normalises_itself, quantization
        What the graph tells about its image input; height and width are None where they are open.

    Returns
    -------
    Preprocess
        ``source``, ``why`` and ``guessed`` tell where it comes from.

    Raises
    ------
    ContractError
        When a statement cannot be read, contradicts itself, or does not fit the graph.
    """
    graph = GraphFacts(dtype or "float32", layout or "NCHW", channels, size, normalises_itself, quantization)
    if channels not in (1, 3, None):
        raise ContractError(
            "images have one channel (grey) or three (colours)", where="image input", got=f"{channels} channels",
            allowed="1 or 3", next_step="Feed arrays of the input's own shape to Model.run instead of images",
        )  # fmt: skip
    if isinstance(argument, Preprocess):
        return _accept(argument, graph)
    statements: list[tuple[str, dict[str, Any], str]] = []
    if argument is not None:
        statements.append(("argument", *_read_argument(argument)))
    if sidecar is not None:
        stated = read_sidecar(sidecar).get("preprocess")
        if stated is not None:
            statements.append(("sidecar", _normalise(stated, sidecar.name), f"the sidecar {sidecar.name}"))
    found = read_metadata(metadata or {}) if not _decided(statements) else None
    if found is not None:
        statements.append(("metadata", _normalise(found[0], "metadata"), found[1]))
    return _combine(statements, graph)


def read_sidecar(path: str | Path) -> Mapping[str, Any]:
    """Read a sidecar file; its keys are ``preprocess``, ``output`` and ``labels``, all optional.

    Raises
    ------
    ContractError
        When the file cannot be read, is not TOML, or has another key at its top level.
    """
    tables = _read_toml(Path(path))
    allowed = ("preprocess", "output", "labels")
    for key in tables:
        if key not in allowed:
            raise ContractError(
                "no such table in a sidecar", where=f"{Path(path).name}: {key}", allowed=near_misses(key, allowed),
                next_step="Move the fields into their table, or correct its name",
            )  # fmt: skip
    return tables


def read_preprocess_file(path: str | Path) -> dict[str, Any]:
    """Fields of a contract from a TOML or JSON file (formats: see the module).

    Raises
    ------
    ContractError
        When the file cannot be read or understood.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        try:
            stated = json.loads(_read_text(path))
        except (ValueError, RecursionError) as error:
            raise ContractError("not valid JSON", where=str(path), got=str(error)) from error
    else:
        stated = _read_toml(path)
    if isinstance(stated, Mapping) and "preprocess" in stated:
        stated = stated["preprocess"]
    return _normalise(stated, path.name)


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise ContractError(
                "no such file", where=str(path), allowed="a TOML or JSON file, or a preset: " + ", ".join(PRESETS)
            )
        if path.stat().st_size > _FILE_LIMIT:
            raise ContractError("too large for a statement of preprocessing", where=str(path), allowed="16 MiB")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not UTF-8 text"
        raise ContractError(f"cannot be read: {reason}", where=str(path)) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ContractError(
            "not valid TOML", where=str(path), got=str(error), next_step="Correct the file, or move it away"
        ) from error


def _read_argument(argument: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    if isinstance(argument, Mapping):
        return _normalise(argument, "preprocess"), "stated by the caller"
    if not isinstance(argument, (str, Path)):
        raise ContractError(
            "not a statement of preprocessing", where="preprocess", got=type(argument).__name__,
            allowed="a preset's name, a path, a mapping, or a Preprocess",
        )  # fmt: skip
    if isinstance(argument, Path) or argument.lower().endswith((".toml", ".json")):
        return read_preprocess_file(argument), f"stated by the caller in {Path(argument).name}"
    return {"preset": find_preset(argument)[0]}, "named by the caller"


def _normalise(stated: object, where: str) -> dict[str, Any]:
    """Statement of any supported form → fields of a Preprocess, plus ``preset``."""
    if isinstance(stated, str):
        return {"preset": find_preset(stated)[0]}
    if not isinstance(stated, Mapping):
        raise ContractError(
            "not a statement of preprocessing", where=where, got=type(stated).__name__,
            allowed="a preset's name, or a table of fields",
        )  # fmt: skip
    fields_ = read_config(stated)
    allowed = ("preset", *_FIELDS)
    for key in fields_:
        if key not in allowed:
            raise ContractError(
                "no such field of a preprocessing contract", where=f"{where}: {key}",
                allowed=near_misses(str(key), allowed), next_step="Correct the name, or remove it",
            )  # fmt: skip
    if "preset" in fields_:
        if not isinstance(fields_["preset"], str):
            raise ContractError("a preset is a name", where=f"{where}: preset", got=repr(fields_["preset"]))
        fields_["preset"] = find_preset(fields_["preset"])[0]
    # A contract that onnxviz itself wrote carries where it came from; what counts now is who states it.
    return {key: value for key, value in fields_.items() if key not in ("source", "why", "guessed")}


def _decided(statements: list[tuple[str, dict[str, Any], str]]) -> bool:
    return any(_DECIDES_NUMBERS & stated.keys() for _, stated, _ in statements)


def _combine(statements: list[tuple[str, dict[str, Any], str]], graph: GraphFacts) -> Preprocess:
    """Lay the statements over the first one that decides the numbers, or over what the graph tells, or a guess."""
    overlays: list[tuple[str, dict[str, Any], str]] = []
    for source, stated, why in statements:
        if _DECIDES_NUMBERS & stated.keys():
            base, basis, guessed = dict(stated), (source, why), False
            break
        overlays.append((source, stated, why))
    else:
        base, basis, guessed = infer(graph)
    for _, stated, _ in reversed(overlays):
        base.update(stated)
    source, why = basis
    if overlays:
        changed = ", ".join(sorted({key for _, stated, _ in overlays for key in stated}))
        why = f"{why}; {changed} {overlays[0][2]}"
    return _complete(base, graph, source=source, why=why, guessed=guessed)


def _complete(stated: dict[str, Any], graph: GraphFacts, *, source: str, why: str, guessed: bool) -> Preprocess:
    """Fill what is not stated from the preset and the graph, refuse contradictions, and finish the explanation."""
    stated = dict(stated)
    preset_name = stated.pop("preset", None)
    preset = PRESETS[preset_name] if preset_name else None
    combined: dict[str, Any] = dict(preset.fields) if preset else {}
    _fit_channels(combined, _wanted_channels(stated.get("channels"), combined.get("channels", "RGB"), graph.channels))
    if "crop_fraction" in stated and "fit" not in stated:
        stated["fit"] = "crop"
    combined.update(stated)
    combined.setdefault("mean", 0.0)
    combined.setdefault("std", 1.0)
    combined.setdefault("layout", graph.layout)
    combined.setdefault("dtype", graph.dtype)
    combined.setdefault("name", preset_name or "custom")
    if "size" not in combined:
        combined["size"], open_side = _open_size(graph, preset.size if preset else None)
        if open_side:
            why += f"; {open_side}"
            guessed = guessed or preset_name in (None, "raw", "raw-bgr", "unit")
    side = combined["size"] if isinstance(combined["size"], (int, np.integer)) else None
    sides = (side, side) if side is not None else combined["size"]
    if "fit" not in stated and combined.get("fit", "crop") == "crop" and _is_small(sides):
        combined["fit"] = "stretch"
    if combined.get("quantization") in ("none", False):
        combined["quantization"] = None
    elif "quantization" not in combined and graph.dtype in INTEGER_DTYPES:
        bytes_as_they_are = preset_name in ("raw", "raw-bgr") and not {"scale", "mean", "std"} & stated.keys()
        as_bytes = (1.0, -128) if graph.dtype == "int8" else None
        combined["quantization"] = as_bytes if bytes_as_they_are else graph.quantization
    contract = Preprocess(**combined, source=source, guessed=guessed)
    _check_against_graph(contract, graph)
    if source not in ("guess", "graph"):
        why = f"{why}: {preset.title}" if preset else why
        if preset and contract.channels == "GRAY" and preset.fields.get("channels") != "GRAY":
            why += "; here of the grey picture, with the mean of the three numbers where there are three"
    return replace(contract, why=why)


def _is_small(sides: object) -> bool:
    # A thumbnail-sized input was trained on thumbnails as they are; cutting an eighth off each side would change them.
    return isinstance(sides, (tuple, list)) and all(
        isinstance(side, (int, np.integer)) and side <= SMALL_SIDE for side in sides
    )


def _wanted_channels(stated: str | None, usual: str, count: int | None) -> str:
    if stated is not None:
        return stated
    if count == 1:
        return "GRAY"
    return "RGB" if count == 3 and usual == "GRAY" else usual


def _fit_channels(preset: dict[str, Any], wanted: str) -> None:
    """Bring a preset's numbers to the number and order of channels that is wanted."""
    usual = preset.get("channels", "RGB")
    preset["channels"] = wanted
    for name in ("mean", "std"):
        numbers = preset.get(name)
        if numbers is None or wanted == usual:
            continue
        if wanted == "GRAY":
            preset[name] = (sum(numbers) / len(numbers),)
        elif usual == "GRAY":
            preset[name] = numbers * 3
        else:
            preset[name] = numbers[::-1]


def _open_size(graph: GraphFacts, preset_side: int | None) -> tuple[tuple[int, int], str]:
    height, width = graph.size
    if height is not None and width is not None:
        return (height, width), ""
    side = height or width or preset_side or DEFAULT_SIDE
    chosen = (height or side, width or side)
    return chosen, f"the graph leaves the size open, {chosen[0]} × {chosen[1]} is used; state size=[height, width]"


def _accept(contract: Preprocess, graph: GraphFacts) -> Preprocess:
    _check_against_graph(contract, graph)
    return contract if contract.why else replace(contract, why="stated by the caller", name=contract.name or "custom")


def _check_against_graph(contract: Preprocess, graph: GraphFacts) -> None:
    count = 1 if contract.channels == "GRAY" else 3
    height, width = contract.size
    contradictions = (
        ("channels", graph.channels is not None and graph.channels != count,
         f"{contract.channels}, {count} channel{'s' if count > 1 else ''}", f"{graph.channels} channel(s)"),
        ("layout", contract.layout != graph.layout, contract.layout, graph.layout),
        ("dtype", contract.dtype != graph.dtype, contract.dtype, graph.dtype),
        ("size", (graph.size[0] or height, graph.size[1] or width) != contract.size,
         f"{height} × {width}", f"{graph.size[0] or 'any height'} × {graph.size[1] or 'any width'}"),
    )  # fmt: skip
    for name, contradicts, got, allowed in contradictions:
        if contradicts:
            raise ContractError(
                "the stated preprocessing contradicts the model's input", where=f"preprocess: {name}", got=got,
                allowed=f"{allowed}, as in the graph", next_step=f"Correct {name}, or leave it out: the graph tells it",
            )  # fmt: skip
