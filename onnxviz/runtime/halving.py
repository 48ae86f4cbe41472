"""A number of rows and a way to run some of them come in; batch after batch, as large as memory allows, goes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from onnxviz.errors import LimitError
from onnxviz.runtime.sessions import OutOfMemory

__all__ = ["run_halving"]

T = TypeVar("T")


def run_halving(
    count: int, batch: int, run: Callable[[slice, int], T], *, fixed: bool, alike: bool, where: str, next_step: str
) -> Iterator[tuple[slice, T]]:
    """Run all rows in batches; when memory runs out, the batch is halved and its rows are run again.

    Parameters
    ----------
    count : int
        Rows in all.
    batch : int
        Rows per run.
    run : callable
        Which rows, and of how many the run is to be, those beyond them filled up → what is found for them.
    fixed : bool
        Whether every run takes as many, so that nothing can be halved.
    alike : bool
        Whether runs after the first are to be as large as it.
    where, next_step : str
        Of the error.

    Raises
    ------
    LimitError
        Not even one row fits.
    """
    start = 0
    while start < count:
        rows = slice(start, min(start + batch, count))
        try:
            found = run(rows, batch if fixed or (alike and start > 0) else rows.stop - rows.start)
        except OutOfMemory as error:
            if batch == 1 or fixed:
                raise LimitError(
                    "not even one image fits in memory with its gradient", where=where, got=error.got,
                    next_step=next_step,
                ) from error  # fmt: skip
            batch = max(1, batch // 2)
            continue
        yield rows, found
        start = rows.stop
