"""Small graphs whose derivatives by our rules are compared with central differences of the reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxviz.graph.gradient.backward import GradientGraph, build_gradient_graph
from onnxviz.graph.gradient.facts import ValueFacts, infer_facts, unknown_values, with_measured
from onnxviz.graph.gradient.rule_set import RuleSet

Arrays = Mapping[str, NDArray[Any]]
STEP = 1e-5


def graph_of(
    nodes: Sequence[onnx.NodeProto], feeds: Arrays, outputs: Sequence[str], *, constants: Arrays | None = None,
    opset: int = 18, sides: Mapping[str, Sequence[int | str]] | None = None, domains: Sequence[str] = (),
) -> onnx.ModelProto:  # fmt: skip
    """A model of some nodes; ``sides`` states inputs' shapes where they should be symbolic."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), list((sides or {}).get(name, array.shape))
        )
        for name, array in feeds.items()
    ]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "case", inputs, made, stored)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(
    model: onnx.ModelProto,
    names: Sequence[str],
    feeds: Arrays,
    *,
    weights: Arrays | None = None,
    optimized: bool = False,
) -> list[Any]:
    """Run in onnxruntime, unless asked otherwise unoptimised so that a failure names the node that it is in."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    values = [
        onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in (weights or {}).values()
    ]
    if weights:
        options.add_external_initializers(list(weights), values)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(list(names), dict(feeds)))


def gradient_graph(
    model: onnx.ModelProto, feeds: Arrays, targets: Sequence[str], wrt: Sequence[str], *, rules: RuleSet | None = None,
    free: bool = False,
) -> GradientGraph:  # fmt: skip
    """Both passes in one graph, unknown facts measured by one run as the runtime does.

    With ``free`` only ranks and types are: sides that do not follow from the graph stay unknown.
    """
    facts = infer_facts(model)
    if unknown := unknown_values(model, facts):
        tapped = onnx.ModelProto()
        tapped.CopyFrom(model)
        del tapped.graph.output[:]
        tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in unknown)
        rows = next(iter(feeds.values())).shape[0] if next(iter(feeds.values())).ndim else 1
        measured = with_measured(model, facts, [(rows, dict(zip(unknown, run(tapped, unknown, feeds), strict=True)))])
        if free:
            ranks = {name: (None,) * len(sides) for name, sides in measured.shapes.items()}
            measured = ValueFacts(measured.types, ranks | dict(facts.shapes))
        facts = measured
    return build_gradient_graph(model, facts, targets=targets, wrt=wrt, rules=rules, where="case.onnx")


def gradients(
    model: onnx.ModelProto, feeds: Arrays, targets: Sequence[str], wrt: Sequence[str], *, rules: RuleSet | None = None,
    seeds: Arrays | None = None, free: bool = False, optimized: bool = False,
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:  # fmt: skip
    """Derivatives of Σ seed · target by each value, and the seeds (random where none are given)."""
    built = gradient_graph(model, feeds, targets, wrt, rules=rules, free=free)
    onnx.checker.check_model(_with_weights(built), full_check=True)
    assert not any(
        node.op_type == "ScatterND" and any(entry.name == "reduction" and entry.s == b"add" for entry in node.attribute)
        for node in built.proto.graph.node
    )
    assert not any(entry.name == "output_shape" for node in built.proto.graph.node for entry in node.attribute)
    random = np.random.default_rng(7)
    if seeds is None:
        plain = run(_exposing(model, targets), list(targets), feeds)
        seeds = {
            name: random.standard_normal(np.shape(y)).astype(y.dtype if y.dtype.kind == "f" else np.float32)
            for name, y in zip(targets, plain, strict=True)
        }
    fed = dict(feeds) | {built.seeds[name]: seed for name, seed in seeds.items()}
    found = run(built.proto, list(built.gradients.values()), fed, weights=built.weights, optimized=optimized)
    return dict(zip(built.gradients, found, strict=True)), dict(seeds)


def _with_weights(built: GradientGraph) -> onnx.ModelProto:
    whole = onnx.ModelProto()
    whole.CopyFrom(built.proto)
    for tensor in whole.graph.initializer:
        if tensor.name in built.weights:
            tensor.CopyFrom(numpy_helper.from_array(built.weights[tensor.name], tensor.name))
    return whole


def _exposing(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    have = {value.name for value in tapped.graph.output}
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    return tapped


def differences(
    model: onnx.ModelProto, feeds: Arrays, seeds: Arrays, wrt: str, *, step: float = STEP
) -> NDArray[np.float64]:
    """Central differences of Σ seed · target by every element of one input, in float64 by ``onnx.reference``."""
    evaluator = ReferenceEvaluator(model)
    wide = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in feeds.items()}

    def total(array: NDArray[np.float64]) -> float:
        results = evaluator.run(list(seeds), wide | {wrt: array})
        return sum(float(np.sum(np.asarray(y, np.float64) * s)) for y, s in zip(results, seeds.values(), strict=True))

    slope = np.empty(wide[wrt].shape)
    for place in np.ndindex(*wide[wrt].shape):
        above, below = wide[wrt].copy(), wide[wrt].copy()
        above[place] += step
        below[place] -= step
        slope[place] = (total(above) - total(below)) / (2 * step)
    return slope


def check(
    model: onnx.ModelProto, feeds: Arrays, targets: Sequence[str], wrt: Sequence[str], *, tolerance: float = 2e-4,
    step: float = STEP,
) -> None:  # fmt: skip
    """Compare the rules' derivatives with central differences, relative to the largest of them.

    The reference evaluator must keep float64 (some operators of it do not: give ``step=1e-2`` and a wider tolerance, or
    compare with torch instead).
    """
    found, seeds = gradients(model, feeds, targets, wrt)
    for name in wrt:
        expected = differences(model, feeds, seeds, name, step=step)
        assert found[name].shape == expected.shape, name
        assert np.isfinite(found[name]).all()
        scale = max(float(np.abs(expected).max()), 1e-3)
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=tolerance * scale, err_msg=name)
