"""``onnxviz neighbors``: the nearest images of some, in feature space and in pixel space."""

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

__all__ = ["neighbors"]


def neighbors(
    model: ModelPath,
    images: Images,
    value: Value = None,
    k: Annotated[
        int | None,
        typer.Option("-k", metavar="N", min=1, help="Neighbours of each image. [default: 5, or as many as there are]"),
    ] = None,
    queries: Annotated[int, typer.Option(metavar="N", min=1, help="Images whose neighbours are drawn.")] = 8,
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
    """Draw images with their nearest in the network's feature space, and in pixel space."""

    def method(opened: Any) -> Any:
        from onnxviz.methods.neighbors import neighbors as compute

        shown = read_images(images, opened, limit, seed)
        return compute(
            opened, shown, value=value, n_neighbors=neighbors_asked(k, 5, len(shown)), queries=queries, seed=seed
        )

    run_single(
        "neighbors", method, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        device=device, threads=threads,
    )  # fmt: skip
