"""The output contract: what the graph, a probe, or the caller says about the class scores."""

from __future__ import annotations

import numpy as np
import pytest

from onnxviz.errors import ContractError
from onnxviz.graph.contract import ClassOutput
from onnxviz.runtime.output import OutputContract, choose_output


def found(**fields: object) -> ClassOutput:
    known = {
        "name": "y",
        "dtype": "float32",
        "classes": 4,
        "softmax": False,
        "quantization": None,
        "why": "w",
        "guessed": False,
    }
    return ClassOutput(**(known | fields))  # type: ignore[arg-type]


def choose(rows: np.ndarray, *, stated: object = None, **fields: object) -> OutputContract:
    return choose_output(
        argument=stated,  # type: ignore[arg-type]
        sidecar=None,
        metadata=None,
        outputs=("y", "boxes"),
        found=found(**fields),
        logits="z",
        probe=lambda _: rows,
    )


LOGITS = np.float32([[3, -1, 0, 2], [9, 1, 1, 1]])
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def test_rows_that_sum_to_one_are_probabilities() -> None:
    got = choose(PROBABILITIES)
    assert got.kind == "probabilities"
    np.testing.assert_array_equal(got.probabilities(PROBABILITIES), PROBABILITIES)


def test_probabilities_that_no_softmax_makes_are_no_logits() -> None:
    """As of an ensemble: the mean of several networks' probabilities."""
    assert choose(PROBABILITIES).logits is None
    assert choose(PROBABILITIES, softmax=True).logits == "z"
    assert choose(PROBABILITIES, stated="y").logits is None
    assert choose(PROBABILITIES, stated={"output": "y", "kind": "probabilities"}).logits is None
    assert choose(PROBABILITIES, stated={"output": "y", "kind": "probabilities", "logits": "a"}).logits == "a"
    assert choose(PROBABILITIES, stated={"kind": "probabilities"}, softmax=True).logits == "z"
    assert choose(LOGITS).logits == choose(LOGITS, stated="y").logits == "z"


def test_percentages_are_not_taken_for_logits() -> None:
    """A softmax over them would call the best class certain."""
    got = choose(100 * PROBABILITIES)
    assert got.kind == "values"
    assert "every row sums to 100" in got.why
    assert choose(100 * PROBABILITIES, stated={"output": "y", "kind": "logits"}).kind == "logits"
    # A network that always answers the same is not one that gives shares.
    assert choose(np.float32([[1, 2, 3, 0]] * 2)).kind == "logits"


def test_other_rows_are_logits_and_go_through_a_softmax() -> None:
    got = choose(LOGITS)
    assert got.kind == "logits"
    np.testing.assert_allclose(got.probabilities(LOGITS), PROBABILITIES, rtol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    got = choose(LOGITS).probabilities(np.float32([[1000, 999, -1000, 0]]))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got.sum(), 1, rtol=1e-6)


def test_a_softmax_of_8_bits_is_believed_even_where_its_rows_round_away() -> None:
    raw = np.uint8([[3, 1, 0, 2], [0, 1, 0, 0]])
    got = choose(raw, softmax=True, quantization=(1 / 256, 0), dtype="uint8")
    assert got.kind == "probabilities"
    np.testing.assert_allclose(got.probabilities(raw), raw / np.float32(256))


def test_signed_quantised_scores_are_dequantised_first() -> None:
    raw = np.int8([[-128, 127, -100, 0]])
    got = choose(raw, quantization=(0.5, -128), dtype="int8")
    np.testing.assert_allclose(got.decode(raw), [[0, 127.5, 14, 64]])


def test_the_caller_is_believed() -> None:
    got = choose(LOGITS, stated={"output": "y", "kind": "probabilities"})
    assert (got.kind, got.source, got.guessed) == ("probabilities", "argument", False)
    assert choose(LOGITS, stated="boxes").output == "boxes"
    assert choose(LOGITS, stated=got) is got


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        ("x", "no such output of numbers; got 'x'; allowed: 'y', 'boxes'"),
        ({"kind": "odds"}, "unknown kind"),
        ({"form": "logits"}, "unknown field"),
    ],
)
def test_what_contradicts_the_model_is_refused(stated: object, sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        choose(LOGITS, stated=stated)


def test_a_model_without_class_scores_says_so() -> None:
    got = choose_output(
        argument=None, sidecar=None, metadata=None, outputs=("boxes",), found=None, logits=None, probe=lambda _: LOGITS
    )
    assert got.kind == "values"
    with pytest.raises(ContractError, match="no output has the shape of class scores"):
        got.probabilities(LOGITS)
