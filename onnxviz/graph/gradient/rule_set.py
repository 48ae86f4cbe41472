"""Which rule a node gets: the one laid over it for this call, or the true derivative of its operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxviz.errors import UnsupportedOperatorError
from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules import RULES, Rule

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["Choice", "RuleSet"]

Choice = Callable[[Node], bool]
"""Whether a rule is meant for a node."""


@dataclass(frozen=True)
class RuleSet:
    """Rules of one call, layered over the true derivatives; nothing global changes.

    They are looked up by node name, then by predicate in the order given, then by operator, then in the table of true
    derivatives. A rule may ask for the true derivative with ``backward.base(node, adjoints)``.
    """

    name: str = "gradient"
    """What the set computes, for the record."""
    by_node: Mapping[str, Rule] = field(default_factory=dict)
    by_choice: Sequence[tuple[Choice, Rule]] = ()
    by_operator: Mapping[tuple[str, str], Rule] = field(default_factory=dict)
    """By (domain, operator)."""

    def find(self, node: Node) -> Rule | None:
        """The rule for a node; None where nothing covers it."""
        named = self.by_node.get(node.proto.name) if node.proto.name else None
        if named is not None:
            return named
        for chosen, rule in self.by_choice:
            if chosen(node):
                return rule
        return self.by_operator.get(node.key) or RULES.get(node.key)

    def apply(
        self, backward: Backward, node: Node, adjoints: Sequence[str | None], *, where: str = ""
    ) -> Sequence[str | None]:
        """Adjoints of a node's outputs to the adjoints of its inputs.

        Raises
        ------
        UnsupportedOperatorError
            No rule covers the node, or the rule that does not this use of it.
        """
        rule = self.find(node)
        place = f"{where}, node {node.label!r}".lstrip(", ")
        next_step = "Derive by a value behind this node, or explain with occlusion or rise, which need no derivative"
        if rule is None:
            raise UnsupportedOperatorError(
                "no rule tells the derivative of this operator", where=place, got=node.description, next_step=next_step
            )
        try:
            return rule(backward, node, adjoints)
        except (LookupError, NotImplementedError) as error:
            raise UnsupportedOperatorError(
                f"the derivative of this use of the operator is not known: {error.args[0] if error.args else error}",
                where=place, got=node.description, next_step=next_step,
            ) from error  # fmt: skip

    def apply_base(self, backward: Backward, node: Node, adjoints: Sequence[str | None]) -> Sequence[str | None]:
        """The true derivative, whatever is laid over it."""
        rule = RULES.get(node.key)
        if rule is None:
            raise LookupError("the operator has no true derivative here")
        return rule(backward, node, adjoints)
