"""Bytes in memory → a file on disk, whole or not at all; and a lock by which one process writes at a time.

A file is written beside its place under another name, synced, and renamed: a reader, and whoever comes after a kill,
sees what was there before or the whole new file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from onnxviz.errors import InputError, LimitError, OnnxvizError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = [
    "STAGING_PREFIX", "FileLock", "current_umask", "discard_unfinished", "disk_error", "disk_errors", "remove",
    "replace_file", "sync_folder", "unfinished", "write_file", "write_synced", "writing",
]  # fmt: skip

STAGING_PREFIX = ".onnxviz-"
"""How the names of unfinished files and folders begin."""

unfinished: set[Path] = set()
"""What this process has half written."""
writing = threading.RLock()
"""Held during every single write, so that an exit can make sure that nothing is written after it cleaned up."""


def discard_unfinished() -> None:
    """Remove what is half written, for a process that ends at once: from here on no write of this process begins."""
    # Never released. A disk that hangs in a write must not keep the process from ending, hence the limit.
    writing.acquire(timeout=2)
    for path in tuple(unfinished):
        remove(path)


def write_file(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write ``data`` to ``path`` so that a reader sees the old file or the whole new one.

    Raises
    ------
    InputError
        The path cannot be written.
    LimitError
        The disk is full.
    """
    shown = os.fspath(path)
    target = Path(os.path.realpath(shown))
    if target.is_dir():
        raise InputError("is a folder", where=shown, allowed="the path of a file", next_step="Add a file name")
    with disk_errors(shown):
        replace_file(target, data)
        with contextlib.suppress(OSError):
            sync_folder(target.parent)
    return target


def replace_file(target: Path, *parts: bytes | memoryview) -> None:
    """Put a file that holds ``parts``, one after the other, in the place of ``target`` in one step.

    The file is on disk when this returns; its folder's entry is once :func:`sync_folder` has returned too.
    """
    with writing:
        descriptor, name = tempfile.mkstemp(prefix=STAGING_PREFIX, dir=target.parent)
        os.close(descriptor)
        partial = Path(name)
        unfinished.add(partial)
        try:
            write_synced(partial, *parts)
            partial.chmod(0o666 & ~current_umask())
            partial.replace(target)
        finally:
            # Whatever this meets is no failure: after the renaming the file stands.
            remove(partial)
            unfinished.discard(partial)


def write_synced(path: Path, *parts: bytes | memoryview) -> None:
    """Write ``parts`` to a file that nobody reads yet, and force it to disk."""
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force the names of a folder's files to disk."""
    if os.name == "nt":  # Windows opens no folders; its renames are journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder as far as that is possible."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def current_umask() -> int:
    """Permissions that new files do not get."""
    # The mask can only be read by setting it; the moment in between is harmless because it only tightens.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def disk_errors(shown: str) -> Iterator[None]:
    """Raise what the operating system refuses inside as an error of the tree that names ``shown``."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, shown) from error


def disk_error(error: OSError, shown: str) -> OnnxvizError:
    """Name the error of the tree for what the operating system refused while ``shown`` was written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LimitError(
            "the disk is full; what was there before is unchanged",
            where=shown,
            next_step="Free some space, or name a place on another disk",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(
            "no permission to write there", where=shown, got=os.strerror(error.errno), next_step="Name another place"
        )
    reason = error.strerror or type(error).__name__
    return InputError("cannot be written", where=shown, got=reason, next_step="Name another place")


class FileLock:
    """A file that one owner at a time holds: until `release`, or the end of this object or of the process.

    Parameters
    ----------
    path : Path
        Made where it is missing, and left there: removing it could part two owners.

    Raises
    ------
    BlockingIOError
        Somebody else holds it.
    """

    # A process may take a POSIX lock of its own twice, so its own are remembered here. They suit because, unlike
    # those of flock, they end with the process that took them even where a forked child lives on.
    _owned: ClassVar[set[tuple[int, str]]] = set()
    _guard: ClassVar = threading.RLock()

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._owner = os.getpid(), os.path.realpath(path)
        with FileLock._guard:
            if self._owner in FileLock._owned:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), os.fspath(path))
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
            FileLock._owned.add(self._owner)

    @property
    def held(self) -> bool:
        """False after `release`, and in a forked child, which has not inherited it."""
        return self._descriptor >= 0 and self._owner[0] == os.getpid()

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            with FileLock._guard:
                os.close(self._descriptor)
                self._descriptor = -1
                FileLock._owned.discard(self._owner)

    def __del__(self) -> None:
        self.release()


def _lock(descriptor: int) -> None:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:
        # Some systems say EACCES where others say EAGAIN.
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
