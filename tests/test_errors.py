"""Errors say what, where, got, allowed and next, and survive a trip through pickle."""

from __future__ import annotations

import pickle

import pytest

from onnxviz import errors
from onnxviz.errors import InputError, OnnxvizError, ValueNotFoundError, near_misses


def test_the_sentence_has_every_part() -> None:
    error = InputError("too small", where="a.png", got="0", allowed="1 or more", next_step="Look again")
    assert str(error) == "a.png: too small; got 0; allowed: 1 or more. Look again."


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_every_error_pickles_whole(name: str) -> None:
    error = getattr(errors, name)("what", where="here", got="this", allowed="that", next_step="Go on")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_errors_are_also_the_builtins_that_callers_expect() -> None:
    assert issubclass(ValueNotFoundError, KeyError)
    assert issubclass(errors.ModelError, ValueError)
    assert issubclass(errors.UnsupportedOperatorError, NotImplementedError)
    assert issubclass(errors.DeviceError, RuntimeError)
    assert all(issubclass(getattr(errors, name), OnnxvizError) for name in errors.__all__ if name.endswith("Error"))


def test_a_key_error_prints_its_sentence_not_its_repr() -> None:
    assert str(ValueNotFoundError("no such value", got="'x'")) == "no such value; got 'x'."


def test_near_misses_come_first() -> None:
    assert near_misses("conv1_relu", ["pool", "conv1/relu", "fc"]) == "'conv1/relu'"
