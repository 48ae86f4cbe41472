"""``onnxviz hubs``: images that are neighbours of very many others, or of none."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from onnxviz.cli.options import (
    JSON,
    Device,
    Images,
    Limit,
    ModelPath,
    Out,
    Preprocess,
    Quiet,
    Seed,
    Threads,
    Timeout,
    Value,
    neighbors_asked,
)
from onnxviz.cli.single import read_images, run_single

__all__ = ["hubs"]


def hubs(
    model: ModelPath,
    images: Images,
    value: Value = None,
    k: Annotated[
        int | None,
        typer.Option("-k", metavar="N", min=1, help="Neighbours of each image. [default: 10, or as many as there are]"),
    ] = None,
    limit: Limit = 0,
    preprocess: Preprocess = None,
    out: Out = None,
    json: JSON = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Count how often each image is among the nearest neighbours of the others."""

    def method(opened: Any) -> Any:
        from onnxviz.methods.features import features
        from onnxviz.methods.hubness import hubness

        shown = read_images(images, opened, limit, seed)
        return hubness(
            features(opened, shown, value=value), n_neighbors=neighbors_asked(k, 10, len(shown)), images=shown
        )

    run_single(
        "hubs", method, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        device=device, threads=threads,
    )  # fmt: skip
