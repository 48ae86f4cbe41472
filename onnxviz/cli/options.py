"""The options that several subcommands share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "JSON", "Device", "Images", "Labels", "Limit", "ModelPath", "Out", "Preprocess", "Quiet", "Seed", "Threads",
    "Timeout", "Value", "filling", "neighbors_asked",
]  # fmt: skip

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.")]
Images = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="An image, or a folder of images; class folders give labels.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o", "--out", metavar="FILE", help="Picture to write: .png, .svg or .pdf. [default: the command's name .png]"
    ),
]
JSON = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers as JSON; - prints them.")]
Labels = Annotated[Path | None, typer.Option(metavar="FILE", help="Class names, one a line, or JSON.")]
Preprocess = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="How images become the input: a preset (imagenet, tf, caffe, unit, raw, ...) or a TOML or JSON file.",
    ),
]
Value = Annotated[
    str | None, typer.Option(metavar="NAME", help="A value of the graph, by name or glob; see onnxviz inspect.")
]
Limit = Annotated[
    int, typer.Option(metavar="N", min=0, help="Most images to use, drawn evenly over the classes; 0 uses all.")
]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")]
Threads = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Threads inside one operator. [default: onnxruntime's choice]")
]
Timeout = Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop after this time, a model that hangs too.")]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        help="auto (the first GPU that works, else the CPU), cpu, cuda, cuda:N, or several: cuda:0,cuda:1.",
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]


def filling(stated: str | None) -> str | tuple[float, ...] | None:
    """What an option for a substitute of pixels says: a name, or a colour as ``128,128,128``."""
    parts = (stated or "").split(",")
    try:
        return tuple(float(part) for part in parts) if len(parts) == 3 else stated
    except ValueError:
        return stated


def neighbors_asked(k: int | None, usual: int, images: int) -> int:
    """What ``-k`` says; left out, the usual number, or all the others where there are fewer."""
    return k if k is not None else max(1, min(usual, images - 1))
