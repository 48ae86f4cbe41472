"""``onnxviz suspects``: images whose neighbours bear another label."""

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

__all__ = ["suspects"]


def suspects(
    model: ModelPath,
    images: Images,
    value: Value = None,
    k: Annotated[
        int | None,
        typer.Option(
            "-k", metavar="N", min=1, help="Neighbours that vote on each image. [default: 20, or as many as there are]"
        ),
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
    """Rank images by how many of their nearest neighbours bear another label; the folders are the labels."""

    def method(opened: Any) -> Any:
        from onnxviz.methods.features import features
        from onnxviz.methods.label_suspects import label_suspects

        shown = read_images(images, opened, limit, seed)
        return label_suspects(
            features(opened, shown, value=value), n_neighbors=neighbors_asked(k, 20, len(shown)), images=shown
        )

    run_single(
        "suspects", method, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        device=device, threads=threads,
    )  # fmt: skip
