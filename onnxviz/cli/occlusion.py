"""``onnxviz occlusion``: how an output answers when a patch hides part of one image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from onnxviz.cli.options import (
    JSON,
    Device,
    Images,
    Labels,
    ModelPath,
    Out,
    Preprocess,
    Quiet,
    Threads,
    Timeout,
    filling,
)
from onnxviz.cli.single import read_images, run_shown

__all__ = ["occlusion"]


def occlusion(
    model: ModelPath,
    image: Images,
    target: Annotated[
        str, typer.Option(metavar="TARGET", help="top1, a class number, a label, or an element such as 'boxes[0,4]'.")
    ] = "top1",
    window: Annotated[
        int | None, typer.Option(metavar="PIXELS", min=1, help="Side of the patch. [default: a seventh of the image]")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(metavar="PIXELS", min=1, help="Step of the patch. [default: a quarter of the window]")
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            metavar="FILL", help="What the patch holds: mean (of this image), dataset, grey, blur, or a colour R,G,B."
        ),
    ] = "mean",
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="incremental computes only what the patch can change, plain everything; auto the first on a CPU.",
        ),
    ] = "auto",
    labels: Labels = None,
    preprocess: Preprocess = None,
    out: Out = None,
    json: JSON = None,
    device: Device = "auto",
    threads: Threads = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Slide a patch over an image and draw the target's score at each position."""

    def compute(opened: Any, show: Callable[[int, int], None]) -> Any:
        from onnxviz.methods.occlusion import occlusion_steps

        images = read_images(image, opened, 0, 0)
        side = max(1, round(min(opened.preprocess.size) / 7)) if window is None else window
        step = max(1, side // 4) if stride is None else stride
        chosen: int | str = int(target) if target.lstrip("-").isdigit() else target
        result = None
        for part in occlusion_steps(
            opened, images, target=chosen, window=side, stride=step, baseline=filling(baseline) or "mean", method=method
        ):
            show(part.done, part.total)
            result = part.result
        return result

    run_shown(
        "occlusion", compute, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        labels=labels, device=device, threads=threads,
    )  # fmt: skip
