"""A model comes in; which of its operators have a derivative, and where the way from target to input ends, goes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onnxviz.errors import OnnxvizError
from onnxviz.graph.gradient.backward import gradient_coverage as coverage_of_graph
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.runtime.model import Model

__all__ = ["GradientCoverage", "gradient_coverage"]


@dataclass(frozen=True)
class GradientCoverage:
    """What can be derived, told before anything is computed."""

    target: str
    """The value that is derived; ``""`` where none was found."""
    wrt: str
    """The value by which it is derived; ``""`` where none was found."""
    operators: dict[str, int]
    """Operators on the way and how many nodes of each."""
    refused: tuple[tuple[str, str], ...]
    """(node, reason) of those without a derivative."""
    straight_through: int
    """Nodes that round or decode, through which the derivative is handed as it is."""
    why_not: str
    """Why nothing can be derived; ``""`` where it can."""

    @property
    def complete(self) -> bool:
        """Whether a gradient can be computed."""
        return not self.why_not


def gradient_coverage(
    model: Model, target: str | None = None, wrt: str | None = None, *, rules: RuleSet | None = None
) -> GradientCoverage:
    """Tell which operators between two values have a derivative.

    Parameters
    ----------
    model : Model
    target : str, optional
        Name of the value to derive; the class scores without it.
    wrt : str, optional
        Name of the value to derive by; the input without it.
    rules : RuleSet, optional
        Rules laid over the true derivatives.

    Returns
    -------
    GradientCoverage
        Never raises for what the model is: reasons are told in it.

    Raises
    ------
    ValueNotFoundError
        ``target`` or ``wrt`` is not a value of the graph.
    """
    derived = model.value(target).name if target is not None else ""
    by = model.value(wrt).name if wrt is not None else ""
    try:
        derived = derived or model.class_scores[0]
        by = by or model.gradient_input
        shapes = {value.name: model.shapes()[value.name] for value in model.inputs}
        found = coverage_of_graph(
            model.gradients.normalized.proto, model.gradients.facts(shapes), targets=[derived], wrt=[by], rules=rules,
            tensors=model.gradients.normalized.weights, where=model.name,
        )  # fmt: skip
    except OnnxvizError as error:
        return GradientCoverage(derived, by, {}, (), 0, str(error))
    operators = Counter(node.op_type for node in found.nodes)
    refused = tuple((node.label, reason) for node, reason in found.refused)
    why_not = ""
    if not found.nodes and derived != by:
        why_not = f"{derived!r} does not depend on {by!r} in a way that has a derivative"
    elif refused:
        why_not = refused[0][1]
    straight = sum(operators[name] for name in ("QuantizeLinear", "DequantizeLinear"))
    return GradientCoverage(derived, by, dict(sorted(operators.items())), refused, straight, why_not)


def summary(coverage: GradientCoverage) -> Sequence[str]:
    """The coverage in sentences."""
    if coverage.why_not and not coverage.refused:
        return [f"no gradient: {coverage.why_not}"]
    count = sum(coverage.operators.values())
    lines = [f"{count} nodes of {len(coverage.operators)} operators between {coverage.wrt} and {coverage.target}"]
    if coverage.straight_through:
        lines.append(f"{coverage.straight_through} of them quantise or decode: the derivative goes straight through")
    lines += [f"no derivative: {reason}" for _, reason in coverage.refused] or ["every one of them has a derivative"]
    return lines
