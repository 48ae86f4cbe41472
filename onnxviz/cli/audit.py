"""``onnxviz audit``: the whole examination as a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxviz.cli.options import Device, Labels, Preprocess, Quiet, Seed, Threads, Timeout
from onnxviz.cli.supervise import supervise
from onnxviz.cli.terminal import output, printable, progress

if TYPE_CHECKING:
    from onnxviz.report import AuditResult

__all__ = ["audit"]


def audit(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL]", help="The .onnx file. [default: the models that come with onnxviz]"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Argument(metavar="[IMAGES]", help="An image, or a folder of images; class folders give labels."),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="OUT", help="Folder of the report; an earlier report there is replaced."),
    ] = Path("report"),
    labels: Labels = None,
    preprocess: Preprocess = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Values whose activations and patches are shown; may be repeated. [default: some over the depth]",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="TARGET",
            help="What occlusion explains: top1, a class number, a label, or an element such as 'boxes[0,4]'.",
        ),
    ] = "top1",
    limit: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Most images to examine, drawn evenly over the classes; 0 examines all."),
    ] = 2000,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    timeout: Timeout = None,
    occlusion_budget: Annotated[
        float,
        typer.Option(
            metavar="GMACS", min=0, help="Billions of multiply-accumulates to spend on one model's occlusion maps."
        ),
    ] = 1000,
    quiet: Quiet = False,
) -> None:
    """Examine a model on images and write the report: OUT/index.html, results.json, run.json, figures/, arrays/."""

    def work() -> int:
        with progress(quiet=quiet) as report_progress:
            from onnxviz.report import audit as examine

            result = examine(
                model,
                images,
                out=out,
                labels=labels,
                preprocess=preprocess,
                values=values or None,
                target=int(target) if target.lstrip("-").isdigit() else target,
                limit=limit or None,
                seed=seed,
                device=device,
                threads=threads,
                timeout=timeout,
                occlusion_budget=int(occlusion_budget * 1e9),
                progress=report_progress,
            )
        if not quiet:
            with output() as show:
                _print(show, result, out)
        return result.exit_code

    raise typer.Exit(supervise(work, timeout=timeout))


def _print(show: Callable[[Any], None], result: AuditResult, out: Path) -> None:
    from rich.text import Text

    for name, verdicts in result.verdicts.items():
        for line in verdicts:
            if line.status == "finding":
                prefix = f"{name}: " if len(result.verdicts) > 1 else ""
                show(Text.assemble(("finding  ", "bold red"), printable(f"{prefix}{line.title}: {line.found}")))
    lines = [line for verdicts in result.verdicts.values() for line in verdicts]
    passed = sum(line.status == "passed" for line in lines)
    unchecked = sum(line.status == "not checked" for line in lines)
    show(Text(f"{len(result.findings)} findings, {passed} checks passed, {unchecked} not checked"))
    show(Text(printable(str(out / "index.html"))))
