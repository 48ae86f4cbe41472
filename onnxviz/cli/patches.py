"""``onnxviz patches``: the image patches that excite the channels of a value most."""

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

__all__ = ["patches"]


def patches(
    model: ModelPath,
    images: Images,
    value: Value = None,
    channels: Annotated[
        list[int] | None,
        typer.Option(
            "--channel", metavar="N", min=0, help="A channel to draw; may be repeated. [default: some of all]"
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="Patches for each channel.")] = 9,
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
    """Draw, for channels of one value, the patches of all images that excite them most."""

    def method(opened: Any) -> Any:
        from onnxviz.errors import ValueNotFoundError
        from onnxviz.methods.top_patches import top_patches
        from onnxviz.report.examination import Examination, Options

        name = value
        if name is None:
            maps = Examination(opened, None, "", Options()).maps
            if not maps:
                raise ValueNotFoundError(
                    "no value with channels and positions was found",
                    where=opened.name,
                    next_step="Name one with --value",
                )
            name = maps[-1].name
        return top_patches(opened, read_images(images, opened, limit, seed), value=name, channels=channels or None, k=k)

    run_single(
        "patches", method, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        device=device, threads=threads,
    )  # fmt: skip
