"""The exports that gradients are tested on compute what torch computes, at any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exported_networks import (
    CHOSEN,
    EXPORTS,
    FAMILIES,
    OPSETS,
    QUICK,
    REFUSED,
    UNFAITHFUL,
    Export,
    Network,
    export,
    network,
)
from shared_fixtures import ORACLES_MISSING

REST = [entry for entry in EXPORTS if entry not in CHOSEN]


def by_id(entry: Export) -> str:
    return entry.id


def made(wanted: Export) -> tuple[Network, Path]:
    try:
        return network(wanted.family), export(wanted)
    except ImportError:
        pytest.skip(ORACLES_MISSING)


def largest_difference(torch: Any, built: Network, path: Path) -> float:
    """The largest difference as a share of the largest output, at a batch of 1 and of 3."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for batch in (1, 3):
        inputs = built.inputs(batch, seed=batch)
        with torch.no_grad():
            expected = built.module(*map(torch.from_numpy, inputs.values())).numpy()
        (found,) = session.run(["logits"], inputs)
        assert found.shape == expected.shape
        assert expected.shape[:2] == (batch, 10)
        assert np.ptp(expected, axis=1).min() > 0
        largest = max(largest, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return largest


def test_each_combination_is_in_one_list() -> None:
    combinations = sum(map(len, OPSETS.values())) * len(FAMILIES)
    assert len({*EXPORTS, *REFUSED, *UNFAITHFUL}) == len(EXPORTS) + len(REFUSED) + len(UNFAITHFUL) == combinations
    assert {(entry.exporter, entry.opset) for entry in CHOSEN} == {(name, o) for name in OPSETS for o in OPSETS[name]}


@pytest.mark.parametrize(
    "wanted", [pytest.param(entry, marks=() if entry in QUICK else pytest.mark.slow, id=entry.id) for entry in CHOSEN]
)
def test_equals_torch(wanted: Export, torch: Any) -> None:
    built, path = made(wanted)
    assert largest_difference(torch, built, path) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("wanted", REST, ids=by_id)
def test_the_rest_equal_torch(wanted: Export, torch: Any) -> None:
    built, path = made(wanted)
    assert largest_difference(torch, built, path) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("wanted", REFUSED, ids=by_id)
def test_torch_refuses(wanted: Export, torch: Any) -> None:
    with pytest.raises(Exception, match=r"is not supported|must be constant"):
        made(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", UNFAITHFUL, ids=by_id)
def test_torch_exports_something_else(wanted: Export, torch: Any) -> None:
    built, path = made(wanted)
    assert largest_difference(torch, built, path) > 1e-2


@pytest.mark.parametrize("exporter", OPSETS)
def test_embeddings_are_found(exporter: str, torch: Any) -> None:
    (wanted,) = [entry for entry in CHOSEN if (entry.family, entry.exporter) == ("bert", exporter)]
    built, path = made(wanted)
    model = onnx.load(path)
    assert built.wrt is not None
    name = built.wrt(model)
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = built.inputs(3)
    (found,) = session.run([name], inputs)
    with torch.no_grad():
        expected = built.module.get_submodule(built.embedding)(torch.from_numpy(inputs["ids"])).numpy()
    np.testing.assert_array_equal(found, expected)


def test_networks_are_the_same_at_every_call(torch: Any) -> None:
    first = network("smooth_cnn")
    first.module[0].weight.zero_()
    second = network("smooth_cnn")
    assert second.module[0].weight.abs().min() > 0
    np.testing.assert_array_equal(second.inputs(2, 1)["image"], first.inputs(2, 1)["image"])
    assert not any(parameter.requires_grad for parameter in second.module.parameters())
    assert not second.module.training
