"""``onnxviz inspect``: inputs, outputs, contracts and values of a model as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxviz.cli.options import JSON, Labels, ModelPath, Preprocess, Quiet, Timeout
from onnxviz.cli.single import write_numbers
from onnxviz.cli.supervise import supervise
from onnxviz.cli.terminal import output, printable

if TYPE_CHECKING:
    from onnxviz.graph.values import GraphInput, Value
    from onnxviz.methods.gradient_coverage import GradientCoverage
    from onnxviz.runtime.model import Model

__all__ = ["inspect"]


def inspect(
    model: ModelPath,
    values: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Values to list, by name or glob; may be repeated. [default: all]"),
    ] = None,
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Tell which operators have a derivative, before any work starts.")
    ] = False,
    labels: Labels = None,
    preprocess: Preprocess = None,
    json: JSON = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """List a model's inputs, outputs, contracts and values."""

    def work() -> None:
        from onnxviz.methods.gradient_coverage import gradient_coverage
        from onnxviz.report.numbers import plain
        from onnxviz.runtime.opening import load

        opened = load(model, preprocess=preprocess, labels=labels, timeout=timeout)
        found = {value.name: value for pattern in values or ["*"] for value in opened.values(pattern)}
        coverage = gradient_coverage(opened) if gradients else None
        if json is not None:
            write_numbers(plain(_numbers(opened, found, coverage))[0], json)
        if not quiet and str(json) != "-":
            with output() as show:
                _print(show, opened, found, coverage)

    raise typer.Exit(supervise(work, timeout=timeout))


def _numbers(model: Model, found: dict[str, Value], coverage: GradientCoverage | None) -> dict[str, Any]:
    shapes = model.shapes()

    def interface(value: GraphInput | Value) -> dict[str, Any]:
        return {
            "name": value.name,
            "dtype": value.dtype,
            "shape": value.shape,
            "shape_for_one_image": shapes.get(value.name),
        }

    def entry(value: Value) -> dict[str, Any]:
        return interface(value) | {"operator": value.op_type, "node": value.node, "kind": value.kind}

    return {
        "model": model.name,
        "sha256": model.sha256,
        "inputs": [interface(value) for value in model.inputs],
        "outputs": [entry(value) for value in model.outputs],
        "input_contract": model.preprocess.to_json() if model.preprocess else None,
        "output_contract": model.output.to_json(),
        "feature_value": model.feature_value,
        "logits_value": model.logits_value,
        "macs": model.macs,
        "values": [entry(value) for value in found.values()],
    } | ({"gradients": dataclasses.asdict(coverage) | {"complete": coverage.complete}} if coverage else {})


def _print(
    show: Callable[[Any], None], model: Model, found: dict[str, Value], coverage: GradientCoverage | None
) -> None:
    from rich.table import Table
    from rich.text import Text

    from onnxviz.methods.gradient_coverage import summary

    shapes = model.shapes()
    facts = Table(box=None, show_header=False, pad_edge=False)
    preprocess, output = model.preprocess, model.output
    rows = [
        ("model", f"{model.name}, SHA-256 {model.sha256[:16]}..., {model.macs:,} multiply-accumulates an image"),
        *(("input", f"{value.name}: {value.dtype} {_shape(value.shape)}") for value in model.inputs),
        *(("output", f"{value.name}: {_type(value, shapes)}") for value in model.outputs),
        (
            "preprocess",
            preprocess.why + (" (a guess)" if preprocess.guessed else "") if preprocess else "takes no image",
        ),
        ("scores", f"{output.output} holds {output.kind}: {output.why}" + (" (a guess)" if output.guessed else "")),
        (
            "features",
            f"{model.feature_landmark.value}: {model.feature_landmark.why}" if model.feature_landmark else "none found",
        ),
        *(("gradients", line) for line in (summary(coverage) if coverage else ())),
    ]
    for name, text in rows:
        facts.add_row(Text(name, style="bold"), Text(printable(text)))
    show(facts)
    show("")
    table = Table(box=None, pad_edge=False)
    for column in ("value", "kind", "operator", "dtype", "shape for one image"):
        table.add_column(column, no_wrap=column == "value", overflow="fold")
    for value in found.values():
        shape = shapes.get(value.name, value.shape)
        table.add_row(
            *(
                Text(printable(cell))
                for cell in (value.name, value.kind, value.op_type, value.dtype or "?", _shape(shape))
            )
        )
    show(table)


def _type(value: Value, shapes: Mapping[str, tuple[int, ...]]) -> str:
    tensor = value.shape is not None or value.name in shapes
    return f"{value.dtype} {_shape(value.shape)}" if tensor else str(value.dtype)


def _shape(shape: Any) -> str:
    if shape is None:
        return "?"
    return " x ".join("?" if size is None else str(size) for size in shape) or "scalar"
