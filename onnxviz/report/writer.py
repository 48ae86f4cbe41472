"""A report's files in memory → its folder on disk, whole or not at all.

A report is built in a new folder beside the old one, synced, and exchanged with it in one step (robustness: a kill at
any time leaves the old report or the new one).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from onnxviz.disk import (
    STAGING_PREFIX,
    current_umask,
    disk_errors,
    remove,
    sync_folder,
    unfinished,
    write_synced,
    writing,
)
from onnxviz.errors import InputError

__all__ = ["REPORT_ENTRIES", "ReportFolder"]

REPORT_ENTRIES = frozenset({"index.html", "results.json", "run.json", "figures", "arrays"})
"""Everything that a report's folder holds at its top; a folder that holds more is not replaced."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h


class ReportFolder:
    """A report being built beside the place where it will stand.

    Use it as a context manager: `add` writes one file into the unfinished folder, `publish` exchanges it with ``out``,
    and leaving the ``with`` block without `publish` removes it and leaves ``out`` as it was.

    Parameters
    ----------
    out : str or Path
        The folder to make or replace. Its parent must exist. A folder that holds anything but a report is refused.

    Raises
    ------
    InputError
        ``out`` cannot be written, or replacing it would delete files that are no report.
    LimitError
        The disk is full.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(os.path.realpath(os.fspath(out)))
        self._shown = os.fspath(out)
        self._lock: int | None = None
        self._published = False

    def __enter__(self) -> ReportFolder:
        _refuse_foreign_folder(self.out, self._shown)
        with disk_errors(self._shown):
            _sweep_abandoned(self.out.parent)
            self.path = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=self.out.parent))
            unfinished.add(self.path)
            self._lock = _lock(self.path)
            self.path.chmod(0o777 & ~current_umask())
        return self

    def __exit__(self, *exception: object) -> None:
        with writing:
            # After an exchange this is the report that stood there before.
            remove(self.path)
            unfinished.discard(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def add(self, name: str, data: bytes) -> None:
        """Write ``data`` to the file ``name`` ("/" between folders) of the unfinished report, synced to disk."""
        target = self.path / name
        with writing, disk_errors(self._shown):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_synced(target, data)

    def publish(self) -> Path:
        """Put the finished folder in the place of ``out`` in one step, and return that place."""
        # What stands at ``out`` may have changed while the report was made.
        _refuse_foreign_folder(self.out, self._shown)
        with writing, disk_errors(self._shown):
            for folder, _, _ in os.walk(self.path):
                sync_folder(Path(folder))
            if self.out.exists():
                _exchange(self.path, self.out)
            else:
                self.path.rename(self.out)
            # The new report stands; that its folder's entry could not be forced to disk is no failure to report.
            with contextlib.suppress(OSError):
                sync_folder(self.out.parent)
        return self.out


def is_report(folder: Path) -> bool:
    """True where ``folder`` holds a report of onnxviz and nothing else."""
    try:
        entries = {entry.name for entry in folder.iterdir()}
        if not entries <= REPORT_ENTRIES or "results.json" not in entries:
            return False
        return bool(json.loads((folder / "results.json").read_bytes()).get("report") == "onnxviz")
    except (OSError, ValueError, AttributeError):
        return False


def _refuse_foreign_folder(out: Path, shown: str) -> None:
    if not out.parent.is_dir():
        raise InputError(
            "the folder to write into does not exist",
            where=shown,
            got=repr(os.fspath(out.parent)),
            next_step="Create it, or name another place",
        )
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise InputError("is a file", where=shown, allowed="the name of a folder", next_step="Name another place")
    if out.is_mount():
        raise InputError(
            "a mounted folder cannot be exchanged for a report", where=shown, next_step="Name a folder inside it"
        )
    try:
        entries = sorted(entry.name for entry in out.iterdir())
    except OSError as error:
        raise InputError(
            "cannot be read", where=shown, got=str(error.strerror), next_step="Name another place"
        ) from error
    if not entries or is_report(out):
        return
    foreign = [name for name in entries if name not in REPORT_ENTRIES] or entries
    raise InputError(
        "the folder holds files that are not an onnxviz report, and writing a report would delete them",
        where=shown,
        got=", ".join(repr(name) for name in foreign[:3]) + (", ..." if len(foreign) > 3 else ""),
        next_step="Name an empty folder, a new one, or an earlier report",
    )


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders of the same parent; afterwards ``new`` names what stood at ``old``."""
    if sys.platform == "linux":
        renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if renameat2 is not None:
            if renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
                return
            number = ctypes.get_errno()
            # Some network and overlay file systems, and old kernels, know no exchange.
            if number not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV):
                raise OSError(number, os.strerror(number), os.fspath(old))
    # Two renames: a kill exactly between them leaves the old report under the parked name, and nothing is deleted.
    parked = Path(tempfile.mkdtemp(prefix=old.name + ".previous-", dir=old.parent))
    old.rename(parked / "report")
    try:
        new.rename(old)
    except OSError:
        (parked / "report").rename(old)
        raise
    finally:
        with contextlib.suppress(OSError):
            parked.rmdir()
    shutil.rmtree(parked, ignore_errors=True)


def _lock(folder: Path) -> int | None:
    """Hold a lock on the folder as long as this process lives, so that others know it is not abandoned."""
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _sweep_abandoned(parent: Path) -> None:
    """Remove folders that killed runs left in ``parent``: those that no living process holds locked."""
    try:
        import fcntl
    except ImportError:
        return
    for folder in parent.glob(STAGING_PREFIX + "*"):
        if not folder.is_dir() or folder.is_symlink():
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
            finally:
                os.close(descriptor)
