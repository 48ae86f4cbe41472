"""``onnxviz trust``: whether explanation methods can be believed on a model, by causes that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from onnxviz.cli.options import (
    JSON,
    Device,
    Images,
    Labels,
    Limit,
    ModelPath,
    Out,
    Preprocess,
    Quiet,
    Seed,
    Threads,
    Timeout,
)
from onnxviz.cli.single import read_images, run_shown

__all__ = ["trust"]

_DEFAULT = ["saliency", "gradient-x-input", "integrated-gradients", "guided-backprop"]


def trust(
    model: ModelPath,
    images: Images,
    check: Annotated[
        str,
        typer.Option(
            metavar="CHECK",
            help="planted-cause: the pattern that decides a class must be found; randomization: maps must change when "
            "the weights are shuffled.",
        ),
    ] = "planted-cause",
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD", help="A method of onnxviz explain; may be repeated. [default: four of them]"),
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="Images that the pattern is pasted into.")] = 200,
    labels: Labels = None,
    preprocess: Preprocess = None,
    out: Out = None,
    json: JSON = None,
    limit: Limit = 200,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Test explanation methods on a model against a known truth."""

    def compute(opened: Any, _: Callable[[int, int], None]) -> Any:
        from onnxviz.errors import InputError, near_misses
        from onnxviz.methods.explanations import EXPLANATIONS, explainer
        from onnxviz.methods.planted_cause import planted_cause
        from onnxviz.methods.randomization_check import randomization_check

        for name in method or ():
            if name not in EXPLANATIONS:
                raise InputError(
                    "no such method", where="--method", got=repr(name), allowed=near_misses(name, EXPLANATIONS)
                )
        methods = {name: explainer(name) for name in method or _DEFAULT}
        found = read_images(images, opened, limit, seed)
        if check == "planted-cause":
            return planted_cause(opened, methods, trials=trials, images=found, seed=seed)
        if check == "randomization":
            return randomization_check(opened, methods, found.subset([0]), seed=seed)
        raise InputError("no such check", where="--check", got=repr(check), allowed="'planted-cause', 'randomization'")

    run_shown(
        "trust", compute, model=model, out=out, json=json, timeout=timeout, quiet=quiet, preprocess=preprocess,
        labels=labels, device=device, threads=threads,
    )  # fmt: skip
