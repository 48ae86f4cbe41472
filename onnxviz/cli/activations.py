"""``onnxviz activations``: what values of the graph hold on a few images."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from onnxviz.cli.options import JSON, Device, Images, ModelPath, Out, Preprocess, Quiet, Seed, Threads, Timeout
from onnxviz.cli.single import read_images, run_single

__all__ = ["activations"]


def activations(
    model: ModelPath,
    images: Images,
    values: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB", help="Values to draw, by name or glob; may be repeated. [default: the first activation]"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Images to draw.")] = 2,
    preprocess: Preprocess = None,
    out: Out = None,
    json: JSON = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Draw the activation maps of values on a few images, one picture for each value."""

    def method(opened: Any) -> Any:
        from onnxviz.errors import ValueNotFoundError
        from onnxviz.methods.activations import activations as compute
        from onnxviz.report.examination import Examination, Options

        chosen = tuple(values or ())
        if not chosen:
            maps = Examination(opened, None, "", Options()).maps
            if not maps:
                raise ValueNotFoundError(
                    "no value with channels and positions was found",
                    where=opened.name,
                    next_step="Name one with --values",
                )
            chosen = (maps[0].name,)
        return compute(opened, read_images(images, opened, limit, seed), values=chosen)

    run_single(
        "activations", method, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        device=device, threads=threads,
    )  # fmt: skip
