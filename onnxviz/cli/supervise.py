"""Work in, an exit code out: the work runs in a thread so that a time limit and Ctrl-C also end a model that hangs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from onnxviz.errors import LimitError, OnnxvizError

__all__ = ["DONE", "ERROR", "FINDINGS", "INTERRUPTED", "fail", "report_crash", "supervise"]

DONE, FINDINGS, ERROR, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

_GRACE = 0.5
"""Seconds that the runtime gets to stop a run by itself before the process ends."""
_POLL = 0.2


class _Terminated(BaseException):
    """The operating system, or a batch system's time limit, asks the process to end."""


def _on_terminate(*_: object) -> NoReturn:
    raise _Terminated


def supervise(work: Callable[[], int | None], *, timeout: float | None = None) -> int:
    """Run ``work`` and return its exit code.

    A run inside onnxruntime cannot be interrupted from its own thread: a signal would wait until it returns. So the
    work has a thread of its own while this one waits for its end, the limit, or Ctrl-C. In the latter two cases what is
    half written is removed and the process ends at once.
    """
    outcome: list[int | BaseException] = []

    def body() -> None:
        try:
            outcome.append(work() or DONE)
        except BaseException as error:
            outcome.append(error)

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and threading.current_thread() is threading.main_thread():
            signal.signal(getattr(signal, name), _on_terminate)
    thread = threading.Thread(target=body, name="onnxviz work", daemon=True)
    limit = None if timeout is None else time.monotonic() + timeout + _GRACE
    try:
        thread.start()
        while thread.is_alive():
            if limit is not None and time.monotonic() >= limit:
                _abandon(str(_time_is_up(timeout)), ERROR)
            thread.join(_POLL)
    except KeyboardInterrupt:
        _abandon("interrupted", INTERRUPTED)
    except _Terminated:
        _abandon("terminated", TERMINATED)
    result = outcome[0]
    if isinstance(result, int):
        return result
    return _failed(result)


def _failed(error: BaseException) -> int:
    if isinstance(error, OnnxvizError):
        _show_traceback(error)
        return fail(str(error))
    if isinstance(error, KeyboardInterrupt):
        return fail("interrupted", code=INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        raise error
    return report_crash(error)


def fail(sentence: str, *, code: int = ERROR) -> int:
    """Print one line on the error stream and return the exit code."""
    # Names come from files and models: control characters would let them write on the terminal.
    line = "".join(
        part if part.isprintable() else " " if part in "\n\r\t" else f"\\x{ord(part):02x}" for part in sentence
    )
    text = f"onnxviz: {' '.join(line.split())}\n"
    sys.stderr.write(
        text.encode(sys.stderr.encoding or "utf-8", "backslashreplace").decode(sys.stderr.encoding or "utf-8")
    )
    sys.stderr.flush()
    return code


def report_crash(error: BaseException) -> int:
    """Say that something went wrong that nobody foresaw; the traceback only where it is asked for."""
    if isinstance(error, MemoryError):
        return fail("memory ran out. Use fewer images with --limit, or a smaller batch.")
    _show_traceback(error)
    shown = "" if os.environ.get("ONNXVIZ_TRACEBACK") else " Set ONNXVIZ_TRACEBACK=1 to see where."
    return fail(f"internal error: {type(error).__name__}: {error}.{shown}")


def _show_traceback(error: BaseException) -> None:
    if os.environ.get("ONNXVIZ_TRACEBACK"):
        traceback.print_exception(error)


def _time_is_up(timeout: float | None) -> LimitError:
    return LimitError(
        "the time is up", where="--timeout", got=f"{timeout:g} seconds", next_step="Allow more, or use fewer images"
    )


def _abandon(sentence: str, code: int) -> NoReturn:
    from onnxviz.disk import discard_unfinished

    discard_unfinished()
    fail(sentence, code=code)
    os._exit(code)
