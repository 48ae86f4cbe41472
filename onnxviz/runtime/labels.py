"""A file, a sequence or the model's metadata comes in; one name for each class goes out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxviz.errors import ContractError

__all__ = ["fit_labels", "read_labels"]

BACKGROUND = "background"


def read_labels(source: str | Path | Sequence[str] | Mapping[Any, str]) -> tuple[str, ...]:
    """Read class names.

    Parameters
    ----------
    source : path, sequence or mapping
        A text file with one name a line (blank lines at its end do not count), a JSON file with a list or with an
        object of index to name, a sequence of names, or a mapping of index to name.

    Raises
    ------
    ContractError
        The file cannot be read, or holds something else.
    """
    if isinstance(source, Mapping):
        return _from_mapping(source, "labels")
    if not isinstance(source, str | Path):
        return tuple(str(name) for name in source)
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ContractError(
            "the labels file cannot be read", where=str(path), got=error.strerror or str(error),
            next_step="Give a text file with one class name a line, or a JSON list",
        ) from error  # fmt: skip
    except UnicodeDecodeError as error:
        raise ContractError("the labels file is not UTF-8 text", where=str(path)) from error
    if path.suffix.lower() == ".json" or text.lstrip().startswith(("[", "{")):
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError as error:
            raise ContractError("the labels file is not valid JSON", where=str(path), got=str(error)) from error
        if isinstance(parsed, Mapping):
            return _from_mapping(parsed, str(path))
        if isinstance(parsed, list):
            return tuple(str(name) for name in parsed)
        raise ContractError(
            "the labels file holds no list", where=str(path), got=type(parsed).__name__, allowed="a JSON list or object"
        )
    return tuple(line.strip() for line in text.rstrip().splitlines())


def fit_labels(labels: tuple[str, ...] | None, classes: int | None) -> tuple[str, ...] | None:
    """Match class names to the number of classes; networks with a leading background class get its name added.

    Raises
    ------
    ContractError
        There are more or fewer names than classes.
    """
    if labels is None or classes is None or len(labels) == classes:
        return labels
    if len(labels) == classes - 1:
        return (BACKGROUND, *labels)
    raise ContractError(
        "the labels do not fit the model", where="labels", got=f"{len(labels)} names",
        allowed=f"{classes} names, or {classes - 1} when class 0 is the background",
        next_step="Give the labels file that belongs to this model",
    )  # fmt: skip


def _from_mapping(names: Mapping[Any, Any], where: str) -> tuple[str, ...]:
    try:
        # ImageNet's usual JSON maps an index to [WordNet id, name].
        by_index = {int(key): str(name[-1] if isinstance(name, list) else name) for key, name in names.items()}
    except (TypeError, ValueError) as error:
        raise ContractError(
            "the labels do not map class indices to names", where=where, allowed="keys 0, 1, 2, ..."
        ) from error
    if sorted(by_index) != list(range(len(by_index))):
        raise ContractError(
            "the labels leave out a class index", where=where, got=f"{len(by_index)} names up to index {max(by_index)}",
            allowed="every index from 0 on",
        )  # fmt: skip
    return tuple(by_index[index] for index in range(len(by_index)))
