"""Matrix products: the adjoint of one operand is the product of the adjoint with the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule, first

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]


def _swapped(b: Backward, value: str, rank: int) -> str:
    """The last two axes exchanged."""
    order = [*range(rank - 2), rank - 1, rank - 2]
    return b.once("Transpose", value, perm=order)


def _matmul(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (left, right) = first(adjoints), node.inputs
    left_rank, right_rank = b.rank(left), b.rank(right)
    # Vectors are matrices of one row (left) or one column (right), as the operator itself treats them.
    row = b.emit("Unsqueeze", left, b.integers([0])) if left_rank == 1 else left
    column = b.emit("Unsqueeze", right, b.integers([1])) if right_rank == 1 else right
    if right_rank == 1:
        g = b.emit("Unsqueeze", g, b.integers([-1]))
    if left_rank == 1:
        g = b.emit("Unsqueeze", g, b.integers([-2]))
    rows, columns = max(left_rank, 2), max(right_rank, 2)
    of_left = of_right = None
    if b.wants(left):
        of_left = b.emit("MatMul", g, _swapped(b, column, columns))
        of_left = _reduced(b, of_left, left, right, promoted=left_rank == 1)
    if b.wants(right):
        if left_rank > 2 and right_rank <= 2:
            of_right = _summed_rows(b, g, row, right)
        else:
            of_right = b.emit("MatMul", _swapped(b, row, rows), g)
            of_right = _reduced(b, of_right, right, left, promoted=right_rank == 1)
    return [of_left, of_right]


def _reduced(b: Backward, product: str, operand: str, other: str, *, promoted: bool) -> str:
    """Sum a product over the batch axes along which its operand was broadcast."""
    own, others = b.sides(operand)[:-2], b.sides(other)[:-2]
    extra = len(others) - len(own)
    pairs = zip(own[len(own) - len(others) :], others, strict=True) if extra <= 0 else ()
    if extra <= 0 and all(theirs == 1 or (theirs is not None and mine == theirs) for mine, theirs in pairs):
        return b.reshape_like(product, operand) if promoted else product
    if not own:
        # Only batch axes are in the way: they are summed, and what is left has the operand's elements.
        total = b.sum_over(product, range(extra), drop=extra)
        return b.reshape_like(total, operand) if promoted else total
    return b.sum_to_shape(product, operand)


def _summed_rows(b: Backward, g: str, left: str, right: str) -> str:
    """Adjoint of a right operand without batch axes: all rows of all batches make one product."""
    inner = b.side(right, 0)
    flat_left = b.emit("Reshape", left, b.emit("Concat", b.integers([-1]), inner, axis=0))
    width = b.integers([1]) if b.rank(right) == 1 else b.side(right, 1)
    flat_g = b.emit("Reshape", g, b.emit("Concat", b.integers([-1]), width, axis=0))
    product = b.emit("MatMul", b.emit("Transpose", flat_left, perm=[1, 0]), flat_g)
    return b.reshape_like(product, right) if b.rank(right) == 1 else product


def _gemm(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (left, right) = first(adjoints), node.inputs[:2]
    turned_left, turned_right = node.attribute("transA", 0), node.attribute("transB", 0)
    alpha = node.attribute("alpha", 1.0)
    of_left = of_right = of_bias = None
    if b.wants(left):
        if turned_left:
            of_left = b.emit("Gemm", right, g, alpha=alpha, transA=turned_right, transB=1)
        else:
            of_left = b.emit("Gemm", g, right, alpha=alpha, transB=1 - turned_right)
    if b.wants(right):
        if turned_right:
            of_right = b.emit("Gemm", g, left, alpha=alpha, transA=1, transB=turned_left)
        else:
            of_right = b.emit("Gemm", left, g, alpha=alpha, transA=1 - turned_left)
    if node.has_input(2) and b.wants(node.inputs[2]):
        beta = node.attribute("beta", 1.0)
        scaled = g if beta == 1 else b.emit("Mul", g, b.number(beta, node.outputs[0]))
        of_bias = b.sum_to(scaled, node.inputs[2], node.outputs[0])
    return [of_left, of_right, of_bias]


def _einsum(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g = first(adjoints)
    equation = str(node.attribute("equation")).replace(" ", "")
    if "." in equation:
        raise LookupError(f"equation {equation!r} with an ellipsis")
    terms, arrow, result = equation.partition("->")
    operands = terms.split(",")
    if not arrow:
        letters = terms.replace(",", "")
        result = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    incoming: list[str | None] = []
    for place, (term, operand) in enumerate(zip(operands, node.inputs, strict=True)):
        if not b.wants(operand):
            incoming.append(None)
            continue
        others = [other for other in range(len(operands)) if other != place]
        elsewhere = set(result).union(*(operands[other] for other in others))
        if len(set(term)) < len(term):
            raise LookupError(f"equation {equation!r}, which takes a diagonal")
        kept = "".join(letter for letter in term if letter in elsewhere)
        swapped = ",".join([result, *(operands[other] for other in others)]) + f"->{kept}"
        adjoint = b.emit("Einsum", g, *(node.inputs[other] for other in others), equation=swapped)
        if kept != term:
            # An index that is summed within the operand alone: every element has the same adjoint along it.
            missing = [axis for axis, letter in enumerate(term) if letter not in elsewhere]
            adjoint = b.emit("Expand", b.emit("Unsqueeze", adjoint, b.integers(missing)), b.shape(operand))
        incoming.append(adjoint)
    return incoming


RULES: Mapping[str, Rule] = {"MatMul": _matmul, "Gemm": _gemm, "Einsum": _einsum}
