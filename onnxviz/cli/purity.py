"""``onnxviz purity``: of which classes the neighbours of each class are."""

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

__all__ = ["purity"]


def purity(
    model: ModelPath,
    images: Images,
    value: Value = None,
    k: Annotated[
        int | None,
        typer.Option("-k", metavar="N", min=1, help="Neighbours of each image. [default: 20, or as many as there are]"),
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
    """Show how far the neighbours of each class are of the same class; the folders are the classes."""

    def method(opened: Any) -> Any:
        from onnxviz.methods.class_purity import class_purity
        from onnxviz.methods.features import features

        shown = read_images(images, opened, limit, seed)
        return class_purity(features(opened, shown, value=value), n_neighbors=neighbors_asked(k, 20, len(shown)))

    run_single(
        "purity", method, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        device=device, threads=threads,
    )  # fmt: skip
