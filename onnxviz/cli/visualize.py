"""``onnxviz visualize``: pictures, made by gradient ascent, of what a class or a channel of a network looks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxviz.cli.options import (
    JSON,
    Device,
    Labels,
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
from onnxviz.cli.single import read_images, run_shown

__all__ = ["visualize"]

MOST_CLASSES = 12
"""Classes that are shown where none are named, spread evenly over their numbers."""


def visualize(
    model: ModelPath,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            "--classes",
            metavar="CLASS",
            help="A class number or label; may be repeated. [default: up to 12 of all]",
        ),
    ] = None,
    value: Value = None,
    channels: Annotated[
        list[int] | None,
        typer.Option(
            "--channel",
            "--channels",
            metavar="N",
            min=0,
            help="With --value, a channel; may be repeated. [default: 16 of all]",
        ),
    ] = None,
    unit: Annotated[str, typer.Option(metavar="UNIT", help="With --value: channel, or neuron.")] = "channel",
    method: Annotated[str, typer.Option(metavar="METHOD", help="fourier, simonyan, yosinski or nguyen.")] = "fourier",
    steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Steps of the ascent. [default: the method's]")
    ] = None,
    objective: Annotated[
        str, typer.Option(metavar="WHAT", help="What is raised of a class: logit or probability.")
    ] = "logit",
    start: Annotated[
        str, typer.Option(metavar="START", help="mean (of the contract), grey, black, white, or images (their mean).")
    ] = "mean",
    images: Annotated[
        Path | None,
        typer.Option(metavar="IMAGES", help="Photographs for --start images or --facets; class folders give labels."),
    ] = None,
    facets: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Pictures of each class, one for each cluster of its images; 0: one without."
        ),
    ] = 0,
    regularization: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=NUMBER", help="A number of the method, such as noise=0.2; may be repeated."
        ),
    ] = None,
    limit: Limit = 0,
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
    """Make pictures that a class, or a channel of a value, answers to most strongly."""

    def compute(opened: Any, show: Callable[[int, int], None]) -> Any:
        from onnxviz.errors import InputError
        from onnxviz.methods.class_visualization import class_visualization_steps
        from onnxviz.methods.feature_visualization import feature_visualization_steps

        numbers = _numbers(regularization)
        if value is None and (channels or unit != "channel"):
            raise InputError("channels and units are of a value", where="--value", got="nothing", allowed="its name")
        if value is not None and (classes or images is not None or facets or objective != "logit"):
            raise InputError("a value has no classes, and no images of them", where="--value", got=value)
        if value is not None:
            steps_made = feature_visualization_steps(
                opened, value, unit=unit, channels=channels or None, method=method, steps=steps, seed=seed, start=start,
                regularization=numbers,
            )  # fmt: skip
        else:
            photos = None if images is None else read_images(images, opened, limit, seed)
            steps_made = class_visualization_steps(
                opened, [*map(_class, classes)] if classes else _some(opened), method=method, steps=steps, seed=seed,
                objective=objective, start=start, images=photos, facets=facets, regularization=numbers,
            )  # fmt: skip
        result = None
        for step in steps_made:
            show(step.done, step.total)
            result = step.result
        return result

    run_shown(
        "visualize", compute, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        labels=labels, device=device, threads=threads,
    )  # fmt: skip


def _class(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _some(opened: Any) -> list[int]:
    """Classes spread evenly over their numbers; of a model without classes, one that is refused in a sentence."""
    from onnxviz.report.examination import spread

    return [int(number) for number in spread(range(opened.output.classes or 1), MOST_CLASSES)]


def _numbers(stated: list[str] | None) -> dict[str, float]:
    from onnxviz.errors import InputError

    numbers = {}
    for text in stated or ():
        name, _, number = text.partition("=")
        try:
            numbers[name.strip()] = float(number)
        except ValueError:
            raise InputError("not a number of a method", where="--set", got=text, allowed="NAME=NUMBER") from None
    return numbers
