"""``onnxviz rise``: how an output answers when random smooth masks hide parts of one image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from onnxviz.cli.options import JSON, Device, Images, Labels, ModelPath, Out, Preprocess, Quiet, Seed, Threads, Timeout
from onnxviz.cli.single import read_images, run_shown

__all__ = ["rise"]


def rise(
    model: ModelPath,
    image: Images,
    target: Annotated[
        str, typer.Option(metavar="TARGET", help="top1, a class number, a label, or an element such as 'boxes[0,4]'.")
    ] = "top1",
    masks: Annotated[int, typer.Option(metavar="N", min=2, help="Most masks to use.")] = 4000,
    grid: Annotated[int, typer.Option(metavar="N", min=1, help="Cells of a mask along each side.")] = 7,
    keep: Annotated[float, typer.Option(metavar="P", help="Probability with which a cell shows the image.")] = 0.5,
    tolerance: Annotated[
        float, typer.Option(metavar="SHARE", min=0, help="Stop at this standard error, as a share of the map's range.")
    ] = 0.1,
    labels: Labels = None,
    preprocess: Preprocess = None,
    out: Out = None,
    json: JSON = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Hide parts of an image by random masks and draw which pixels the target's score goes with."""

    def compute(opened: Any, show: Callable[[int, int], None]) -> Any:
        from onnxviz.methods.rise import rise_steps

        images = read_images(image, opened, 0, 0)
        chosen: int | str = int(target) if target.lstrip("-").isdigit() else target
        result = None
        for part in rise_steps(
            opened, images, target=chosen, masks=masks, grid=grid, keep=keep, tolerance=tolerance or None, seed=seed
        ):
            show(part.done, part.total)
            result = part.result
        return result

    run_shown(
        "rise", compute, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        labels=labels, device=device, threads=threads,
    )  # fmt: skip
