"""What is being done → a bar on a terminal, plain lines in a pipe, nothing when quiet; always on the error stream."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["output", "printable", "progress", "tolerant"]

Progress = Callable[[str, int, int], None]


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress | None]:
    """A function (what, done, of) that shows how far the work is; None when quiet."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield _line
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )  # fmt: skip
    from rich.text import Text

    class Description(TextColumn):
        # A model's name is text, not markup.
        def render(self, task: Task) -> Text:
            return Text(printable(task.description), overflow="ellipsis", no_wrap=True)

    with Progress(
        SpinnerColumn(), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), Description(""),
        console=Console(stderr=True), transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=None)

        def show(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        yield show


def _line(what: str, done: int, of: int) -> None:
    encoding = sys.stderr.encoding or "utf-8"
    line = f"[{done + 1:>{len(str(of))}}/{of}] {printable(what)}\n"
    sys.stderr.write(line.encode(encoding, "backslashreplace").decode(encoding))
    sys.stderr.flush()


@contextmanager
def tolerant() -> Iterator[None]:
    """Print inside: a reader of standard output that leaves, as ``head`` does, is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Whatever is still buffered would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def output() -> Iterator[Callable[[Any], None]]:
    """A function that prints text or a rich table on standard output."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    with tolerant():
        # In a pipe the lines are as long as they need to be: a program reads them.
        yield Output(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False).print


def printable(text: str) -> str:
    """Text without control characters: names of files and values must not write on the terminal."""
    return "".join(part if part.isprintable() else "�" for part in text)
