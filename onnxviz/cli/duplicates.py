"""``onnxviz duplicates``: images that are nearly the same picture, in one set or across two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxviz.cli.options import JSON, Device, Images, ModelPath, Out, Preprocess, Quiet, Threads, Timeout, Value
from onnxviz.cli.single import read_images, run_single
from onnxviz.cli.supervise import DONE, FINDINGS

__all__ = ["duplicates"]

_LISTED = 10


def duplicates(
    model: ModelPath,
    images: Images,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGES", help="Other images to compare with, such as the training set. [default: IMAGES itself]"
        ),
    ] = None,
    value: Value = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Largest distance of a pair as a share of that of ordinary neighbours. [default: 0.25]",
        ),
    ] = None,
    preprocess: Preprocess = None,
    out: Out = None,
    json: JSON = None,
    device: Device = "auto",
    threads: Threads = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Find images that are nearly the same picture; leaves with 1 where there are some."""

    def method(opened: Any) -> Any:
        from onnxviz.methods.features import features
        from onnxviz.methods.near_duplicates import near_duplicates

        shown = read_images(images, opened, 0, 0)
        other = read_images(against, opened, 0, 0) if against is not None else None
        return near_duplicates(
            features(opened, shown, value=value),
            features(opened, other, value=value) if other is not None else None,
            threshold=threshold,
            images=shown,
            second_images=other,
        )

    run_single(
        "duplicates", method, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        device=device, threads=threads, verdict=_verdict,
    )  # fmt: skip


def _verdict(found: Any) -> tuple[list[str], int]:
    count = len(found.pairs)
    lines = [
        f"{ratio:.3f}  {found.names[first]}  {found.other_names[second]}"
        for (first, second), ratio in zip(found.pairs[:_LISTED].tolist(), found.ratios[:_LISTED], strict=True)
    ]
    more = [f"and {count - _LISTED:,} more"] if count > _LISTED else []
    pairs = f"{count:,} near-duplicate pair{'' if count == 1 else 's'}"
    return [*lines, *more, f"{pairs}, at most {found.threshold:g} of the scale apart"], FINDINGS if count else DONE
