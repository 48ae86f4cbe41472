"""``onnxviz explain``: which pixels of an image the network's answer hangs on, by derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxviz.cli.options import (
    JSON,
    Device,
    Images,
    Labels,
    Limit,
    ModelPath,
    Out,
    Preprocess,
    Quiet,
    Seed,
    Threads,
    Timeout,
    Value,
    filling,
)
from onnxviz.cli.single import read_images, run_shown
from onnxviz.errors import InputError

if TYPE_CHECKING:
    from onnxviz.inputs.images import ImageSet

__all__ = ["explain"]

_METHODS = (
    "saliency, gradient-x-input, guided-backprop, deconvnet, smoothgrad, integrated-gradients, gradcam, gradcam++ or "
    "guided-gradcam"
)


def explain(
    model: ModelPath,
    images: Images,
    method: Annotated[str, typer.Option(metavar="METHOD", help=f"{_METHODS}.")] = "integrated-gradients",
    target: Annotated[
        str, typer.Option(metavar="TARGET", help="top1, a class number, a label, or an element such as 'boxes[0,4]'.")
    ] = "top1",
    value: Value = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Points of integrated-gradients, copies of smoothgrad. [default: 50]"),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="FILL", help="Where integrated-gradients begin: mean, dataset, grey, zero, blur, or a colour R,G,B."
        ),
    ] = None,
    labels: Labels = None,
    preprocess: Preprocess = None,
    out: Out = None,
    json: JSON = None,
    limit: Limit = 8,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Draw which pixels of each image an answer hangs on, going back through the network from the target."""

    def compute(opened: Any, show: Callable[[int, int], None]) -> Any:
        from onnxviz.methods.explanations import EXPLANATIONS, check_options

        given = {"value": value, "steps": steps, "baseline": filling(baseline)}
        options = check_options(method, {name: stated for name, stated in given.items() if stated is not None}, seed)
        found = read_images(images, opened, limit, seed)
        chosen: int | str = int(target) if target.lstrip("-").isdigit() else target
        results = {}
        for index, name in enumerate(found.names):
            # Where there are others, a damaged image is left out and named.
            if len(found) == 1 or _can_be_read(found, index):
                results[name] = EXPLANATIONS[method](opened, found.subset([index]), chosen, **options)
            show(index + 1, len(found))
        if not results:
            raise InputError("none of the images can be read", where=str(images))
        return results if len(results) > 1 else next(iter(results.values()))

    run_shown(
        "explain", compute, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        labels=labels, device=device, threads=threads,
    )  # fmt: skip


def _can_be_read(images: ImageSet, index: int) -> bool:
    try:
        images[index]
    except InputError:
        return False
    return True
