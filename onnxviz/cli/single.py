"""What the subcommands of one method share: open the model, read the images, write the picture and the numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxviz.cli.supervise import DONE, supervise
from onnxviz.cli.terminal import printable, progress, tolerant
from onnxviz.errors import InputError

if TYPE_CHECKING:
    from onnxviz.inputs.images import ImageSet
    from onnxviz.runtime.model import Model

__all__ = ["Steps", "read_images", "run_shown", "run_single", "write_numbers"]

FORMATS = (".png", ".svg", ".pdf")
_NAMED = 10
_READ: list[tuple[ImageSet, set[str]]] = []
"""The images that this command reads, and which files that were left out have been named."""


def run_single(name: str, method: Callable[[Model], Any], **options: Any) -> None:
    """Like :func:`run_shown`, for a method that does not say how far it is."""
    run_shown(name, lambda opened, _: method(opened), **options)


def run_shown(
    name: str,
    method: Callable[[Model, Callable[[int, int], None]], Any],
    *,
    model: Path,
    out: Path | None,
    json: Path | None,
    quiet: bool,
    timeout: float | None = None,
    verdict: Callable[[Any], tuple[list[str], int]] | None = None,
    **opening: Any,
) -> None:
    """Open ``model``, apply ``method``, write the picture and the numbers, and leave with the exit code.

    Parameters
    ----------
    name : str
        The subcommand's name, which also names the picture where ``out`` is None and no numbers are asked for.
    method : callable
        From the opened model, and a function that is told how many parts of how many are done, to a result, or to a
        mapping of names to results, each of which gets a picture.
    verdict : callable or None
        From the result to lines to print and the exit code, for a method that may have findings.
    """
    import typer

    def work() -> int:
        _READ.clear()
        place = out if out is not None or json is not None else Path(f"{name}.png")
        _check_places(place, json)
        with progress(quiet=quiet) as show:
            steps = Steps(show, 3)
            steps("opening " + model.name)
            from onnxviz.runtime.opening import load

            opened = load(model, timeout=timeout, **{key: value for key, value in opening.items() if value is not None})
            steps(name)
            try:
                result = method(opened, steps.within)
            finally:
                # Damage inside a file shows only when it is decoded.
                _name_skipped()
            steps("writing")
            written = _write(result, place, json)
        lines, code = verdict(result) if verdict is not None else ([], DONE)
        if not quiet:
            # Where the numbers go to standard output, nothing but JSON does.
            told = [] if str(json) == "-" else lines
            with tolerant():
                for line in (*map(str, written), *told):
                    print(printable(line))
        return code

    raise typer.Exit(supervise(work, timeout=timeout))


class Steps:
    """Tells a progress display which of so many steps begins, and how far the current one is."""

    def __init__(self, show: Callable[[str, int, int], None] | None, count: int) -> None:
        self._show, self._count, self._done, self._what = show, count, 0, ""

    def __call__(self, what: str) -> None:
        """Begin the next step."""
        if self._show is not None:
            self._show(what, self._done, self._count)
        self._what = what
        self._done += 1

    def within(self, done: int, of: int) -> None:
        """Move the bar of a terminal; a log gets one line per step, not one per part."""
        if self._show is not None and sys.stderr.isatty():
            self._show(self._what, done, of)


def read_images(source: Path, model: Model, limit: int, seed: int) -> ImageSet:
    """The images for a model, at most ``limit`` of them (0: all)."""
    from onnxviz.inputs.images import load_images

    images = load_images(source, model)
    images = images.sample(limit, seed) if 0 < limit < len(images) else images
    _READ.append((images, set()))
    _name_skipped()
    return images


def _name_skipped() -> None:
    """Name the files that were left out since the last time, of each set of images the first few."""
    for images, named in _READ:
        for skipped in images.skipped:
            if skipped.name in named:
                continue
            named.add(skipped.name)
            if len(named) <= _NAMED:
                sys.stderr.write(printable(f"skipped {skipped.name}: {skipped.reason}") + "\n")
            elif len(named) == _NAMED + 1:
                sys.stderr.write("skipped more: `onnxviz audit` lists them all\n")


def _check_places(out: Path | None, json: Path | None) -> None:
    """Refuse before the work what could not be written after it."""
    for path in (out, json):
        if path is None or str(path) == "-":
            continue
        if not path.absolute().parent.is_dir():
            raise InputError(
                "the folder to write into does not exist", where=str(path), next_step="Create it, or name another place"
            )
        if path.is_dir():
            raise InputError("is a folder", where=str(path), allowed="the name of a file")
    if out is not None and out.suffix.lower() not in FORMATS:
        raise InputError(
            "the ending does not name a format", where=str(out), got=repr(out.suffix), allowed=", ".join(FORMATS)
        )


def _write(result: Any, out: Path | None, json: Path | None) -> list[Path]:
    from onnxviz.pictures import plot, save_figure
    from onnxviz.report.numbers import result_numbers

    results = dict(result) if isinstance(result, Mapping) else {"": result}
    written = []
    if out is not None:
        for number, item in enumerate(results.values()):
            # Several values give several pictures: maps.png, maps-2.png, ...
            place = out if number == 0 else out.with_name(f"{out.stem}-{number + 1}{out.suffix}")
            written.append(save_figure(plot(item), place))
    if json is not None:
        numbers = [result_numbers(item) for item in results.values()]
        written += write_numbers(numbers if isinstance(result, Mapping) else numbers[0], json)
    return written


def write_numbers(numbers: Any, json: Path) -> list[Path]:
    """Write plain JSON types to ``json``, or to standard output where that is ``-``; the files that were written."""
    from onnxviz.disk import write_file
    from onnxviz.report.numbers import json_bytes

    data = json_bytes(numbers)
    if str(json) != "-":
        write_file(json, data)
        return [json]
    with tolerant():
        sys.stdout.write(data.decode("ascii"))
    return []
