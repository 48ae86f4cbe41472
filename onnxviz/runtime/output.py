"""What the graph tells about its outputs comes in; the output contract, and the class scores it decodes, go out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import ContractError, near_misses
from onnxviz.graph.contract import ClassOutput

__all__ = ["OutputContract", "choose_output"]

KINDS = ("probabilities", "logits", "values")
_FIELDS = ("output", "kind", "quantization", "classes", "logits")


@dataclass(frozen=True)
class OutputContract:
    """Which output answers for the classes, and how its numbers are read."""

    output: str
    """Name of the graph output."""
    kind: str
    """``"probabilities"``, ``"logits"``, or ``"values"`` where the output is not a classifier's."""
    quantization: tuple[float, int] | None
    """(scale, zero point) of an integer output: real number = (stored - zero point) × scale."""
    classes: int | None
    logits: str | None
    """The value that holds the logits, where the graph has them before a Softmax."""
    source: str
    """``"argument"``, ``"sidecar"``, ``"metadata"``, ``"graph"``, ``"probe"`` or ``"guess"``."""
    why: str
    guessed: bool

    def to_json(self) -> dict[str, Any]:
        """The contract as plain JSON types."""
        return dataclasses.asdict(self)

    def decode(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """The output's numbers as real numbers, (n, classes) float32, quantisation undone."""
        real = np.asarray(raw)
        if self.quantization is not None:
            scale, zero_point = self.quantization
            real = (real.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
        return real.reshape(len(real), -1).astype(np.float32, copy=False)

    def probabilities(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Class probabilities, (n, classes) float32: decoded, and passed through a softmax where they are logits.

        Raises
        ------
        ContractError
            The output is not a classifier's.
        """
        real = self.decode(raw)
        if self.kind == "probabilities":
            return real
        if self.kind == "logits":
            with np.errstate(invalid="ignore"):  # rows with an infinite logit become NaN
                shifted = np.exp(real - real.max(axis=1, keepdims=True))
                return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
        raise ContractError(
            "the output is not a classifier's", where=f"output {self.output!r}", got=self.why,
            next_step="Pass output={'output': NAME, 'kind': 'logits'} or 'probabilities', or give an element of it"
            f" as the target, such as ({self.output!r}, (0, ...)), an index for each axis but the batch",
        )  # fmt: skip


def choose_output(
    *,
    argument: str | Mapping[str, Any] | OutputContract | None,
    sidecar: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
    outputs: tuple[str, ...],
    found: ClassOutput | None,
    logits: str | None,
    probe: Callable[[str], NDArray[Any]],
) -> OutputContract:
    """Choose the output contract: the argument, then the sidecar, the metadata, the graph, and last a probe.

    Parameters
    ----------
    argument, sidecar, metadata
        The name of an output, or a mapping with any of ``output``, ``kind``, ``quantization``.
    outputs : tuple of str
        Names of the graph's outputs.
    found : ClassOutput or None
        What the graph tells.
    logits : str or None
        The value before the Softmax.
    probe : callable
        Output name to its raw numbers on a few random images, (n, ...).

    Raises
    ------
    ContractError
        A stated contract names an unknown output, kind or field.
    """
    if isinstance(argument, OutputContract):
        _check_output(argument.output, outputs, "argument")
        return argument
    for source, stated in (("argument", argument), ("sidecar", sidecar), ("metadata", metadata)):
        if stated:
            return _stated(source, stated, outputs, found, logits, probe)
    if found is None:
        first = outputs[0]
        return OutputContract(
            first, "values", None, None, None, "graph", "no output has the shape of class scores", guessed=False
        )
    return _probed(found, logits, probe)


def _stated(
    source: str,
    stated: str | Mapping[str, Any],
    outputs: tuple[str, ...],
    found: ClassOutput | None,
    logits: str | None,
    probe: Callable[[str], NDArray[Any]],
) -> OutputContract:
    fields = {"output": stated} if isinstance(stated, str) else dict(stated)
    unknown = sorted(set(fields) - set(_FIELDS))
    if unknown:
        raise ContractError(
            "unknown field in the output contract", where=source, got=unknown[0], allowed=", ".join(_FIELDS)
        )
    name = str(fields.get("output", found.name if found else outputs[0]))
    _check_output(name, outputs, source)
    kind = fields.get("kind")
    if kind is not None and kind not in KINDS:
        raise ContractError("unknown kind of output", where=source, got=repr(kind), allowed=", ".join(KINDS))
    same = found is not None and found.name == name
    quantization = fields.get("quantization", found.quantization if found and same else None)
    raw = probe(name)
    classes = int(np.prod(raw.shape[1:]))
    stated_fully = OutputContract(
        name, str(kind), tuple(quantization) if quantization else None, classes,
        fields.get("logits", logits if same else None), source, f"stated by the {source}", guessed=False,
    )  # fmt: skip
    known = "logits" in fields or (same and found is not None and found.softmax)
    if kind == "probabilities" and not known:
        stated_fully = dataclasses.replace(stated_fully, logits=None)
    if kind is not None:
        return stated_fully
    looks = _looks_like_probabilities(dataclasses.replace(stated_fully, kind="values").decode(raw))
    return dataclasses.replace(
        stated_fully,
        kind="probabilities" if looks else "logits",
        logits=stated_fully.logits if known or not looks else None,
        why=f"output named by the {source}; on random images its rows {'sum' if looks else 'do not sum'} to 1",
    )


def _probed(found: ClassOutput, logits: str | None, probe: Callable[[str], NDArray[Any]]) -> OutputContract:
    raw = probe(found.name)
    classes = int(np.prod(raw.shape[1:]))
    draft = OutputContract(
        found.name, "values", found.quantization, classes, logits, "graph", found.why, guessed=found.guessed
    )
    real = draft.decode(raw)
    if not np.isfinite(real).all():
        # Nothing can be told from NaN; the graph's own word stands.
        return dataclasses.replace(draft, kind="probabilities" if found.softmax else "logits")
    if found.softmax and real.min() >= 0 and real.max() <= 1.01:
        # The sum is not asked for: 8-bit probabilities of many classes round to 0 wherever the network is unsure.
        return dataclasses.replace(
            draft, kind="probabilities", why=f"{found.why}; probabilities: between 0 and 1 on random images"
        )
    if _looks_like_probabilities(real):
        why = f"{found.why}; probabilities: rows sum to 1 on random images"
        # What makes them so was not recognised (the mean of several networks' answers, perhaps): no logits are known.
        return dataclasses.replace(
            draft, kind="probabilities", source="probe", why=why, logits=logits if found.softmax else None
        )
    if (total := _common_total(real)) is not None:
        why = f"{found.why}, but every row sums to {total:g}: they are neither probabilities nor logits (percentages?)"
        return dataclasses.replace(draft, source="probe", why=why, logits=None)
    return dataclasses.replace(
        draft, kind="logits", source="probe", why=f"{found.why}; logits: rows do not sum to 1 on random images"
    )


def _common_total(rows: NDArray[np.float32]) -> float | None:
    """What all rows of shares sum to, where they differ otherwise; None where they are no shares."""
    totals = rows.sum(axis=1, dtype=np.float64)
    differ = float(np.ptp(rows, axis=0).max())
    if len(rows) < 2 or rows.min() < 0 or totals.min() <= 0 or differ <= 1e-3 * float(rows.max()):
        return None
    return float(totals.mean()) if float(np.ptp(totals)) <= 1e-5 * totals.mean() else None


def _looks_like_probabilities(rows: NDArray[np.float32]) -> bool:
    # 8-bit probabilities of 1,000 classes each lose up to half a step, so their sum may miss 1 by a few percent.
    return bool(
        rows.shape[1] > 1
        and np.isfinite(rows).all()
        and rows.min() >= -1e-6
        and rows.max() <= 1.01
        and np.abs(rows.sum(axis=1) - 1).max() < 0.1
    )


def _check_output(name: str, outputs: tuple[str, ...], source: str) -> None:
    if name not in outputs:
        raise ContractError(
            "the model has no such output of numbers", where=source, got=repr(name), allowed=near_misses(name, outputs)
        )
