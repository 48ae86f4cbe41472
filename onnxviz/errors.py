"""What can go wrong, as one tree of exceptions; every message says what, where, got, allowed and what to do next.

OnnxvizError
├── ModelError (ValueError)                    the file is not a model that can be loaded or run
│   └── UnsupportedOperatorError (NotImplementedError)   an operator or domain nobody here knows
├── ValueNotFoundError (KeyError)              no value of the graph has that name
├── InputError (ValueError)                    an image, array, folder or parameter that cannot be used
├── ContractError (ValueError)                 preprocessing or output: contradictory, incomplete or unfit for the model
├── DeviceError (RuntimeError)                 a device or provider that is not usable
└── LimitError (RuntimeError)                  memory, time or disk ran out
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "ContractError",
    "DeviceError",
    "InputError",
    "LimitError",
    "ModelError",
    "OnnxvizError",
    "UnsupportedOperatorError",
    "ValueNotFoundError",
    "near_misses",
]


class OnnxvizError(Exception):
    """Base of every error that onnxviz raises on purpose.

    Parameters
    ----------
    what : str
        What is wrong, without a final full stop.
    where : str
        The file, value, node or parameter that it concerns.
    got, allowed : str
        What was found, and what would have been accepted.
    next_step : str
        What the reader can do now, as a sentence without a final full stop.
    """

    def __init__(self, what: str, *, where: str = "", got: str = "", allowed: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.got = got
        self.allowed = allowed
        self.next_step = next_step

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}" if self.where else self.what
        if self.got:
            sentence += f"; got {self.got}"
        if self.allowed:
            sentence += f"; allowed: {self.allowed}"
        return f"{sentence}. {self.next_step}." if self.next_step else f"{sentence}."

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by their positional arguments alone, which would lose the keyword-only parts.
        return _rebuild, (type(self), self.what, self.where, self.got, self.allowed, self.next_step)


def _rebuild(kind: type[OnnxvizError], what: str, where: str, got: str, allowed: str, next_step: str) -> OnnxvizError:
    return kind(what, where=where, got=got, allowed=allowed, next_step=next_step)


class ModelError(OnnxvizError, ValueError):
    """The file is not a model that can be loaded or run."""


class UnsupportedOperatorError(ModelError, NotImplementedError):
    """An operator or operator domain is not known here."""


class ValueNotFoundError(OnnxvizError, KeyError):
    """No value of the graph has the name, or matches the pattern, that was asked for."""


class InputError(OnnxvizError, ValueError):
    """An image, array, folder or parameter cannot be used."""


class ContractError(OnnxvizError, ValueError):
    """A preprocessing or output contract is contradictory, incomplete, or does not fit the model."""


class DeviceError(OnnxvizError, RuntimeError):
    """A device or onnxruntime provider is not usable on this machine."""


class LimitError(OnnxvizError, RuntimeError):
    """Memory, time or disk space ran out."""


def near_misses(name: str, candidates: Iterable[str], count: int = 5) -> str:
    """The candidates most like ``name``, as text for an error's ``allowed``, e.g. ``"'conv1', 'conv2'"``."""
    names = list(candidates)
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.4) or names[:count]
    return ", ".join(repr(candidate) for candidate in close)
