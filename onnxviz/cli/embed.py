"""``onnxviz embed``: the feature space in two dimensions, as points or as a grid of the images."""

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
from onnxviz.errors import InputError

__all__ = ["embed"]


def embed(
    model: ModelPath,
    images: Images,
    value: Value = None,
    method: Annotated[str, typer.Option(metavar="NAME", help="tsne or pca.")] = "tsne",
    grid: Annotated[
        str | None, typer.Option(metavar="LAYOUT", help="Draw the images on a grid instead: assignment or karpathy.")
    ] = None,
    size: Annotated[int, typer.Option(metavar="PIXELS", min=64, help="Width of the grid.")] = 4096,
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
    """Reduce the features of all images to two dimensions and draw them."""

    def compute(opened: Any) -> Any:
        from onnxviz.methods.embedding import embed as reduce
        from onnxviz.methods.features import features
        from onnxviz.methods.image_grid import image_grid

        shown = read_images(images, opened, limit, seed)
        found = features(opened, shown, value=value)
        embedding = reduce(found, method=method, random_state=seed)
        if grid is None:
            return embedding
        return image_grid(embedding, shown, layout=grid, features=found, size=size)

    if method not in ("tsne", "pca"):
        raise typer.BadParameter(
            str(InputError("unknown method", got=repr(method), allowed="tsne, pca")), param_hint="--method"
        )
    run_single(
        "embed", compute, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        device=device, threads=threads,
    )  # fmt: skip
