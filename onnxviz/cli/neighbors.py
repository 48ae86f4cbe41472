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
)
from onnxviz.cli.single import read_images, run_single

__all__ = ["neighbors"]


def neighbors(
    model: ModelPath,
    images: Images,
    value: Value = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="Neighbours of each image.")] = 5,
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

        return compute(
            opened, read_images(images, opened, limit, seed), value=value, n_neighbors=k, queries=queries, seed=seed
        )

    run_single(
        "neighbors", method, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        device=device, threads=threads,
    )  # fmt: skip
