"""Writing to a feature bank: one writer at a time, and whatever interrupts it, whole or not at all."""

from __future__ import annotations

import errno
import io
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import onnxviz as ov
from feature_bank_cases import bank_of, files, rows
from onnxviz.errors import InputError, LimitError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "bank"


# -- one writer at a time --------------------------------------------------------------------------------------------

LOCKED = "somebody else is writing to this feature bank.*lock that another process.*Wait until it has ended"

HOLDS = """
import sys, numpy as np, onnxviz as ov
bank = ov.FeatureBank.open(sys.argv[1])
bank.append(np.ones((2, 5), np.float32))
print("holding", flush=True)
sys.stdin.read()
"""


def test_a_second_writer_is_refused_until_the_first_one_is_gone(place: Path) -> None:
    bank = bank_of(place, rows(3))
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "holding\n"
    with pytest.raises(InputError, match=LOCKED):
        bank.append(rows(1))
    with pytest.raises(InputError, match=LOCKED):
        ov.FeatureBank.open(place, lock=True)
    assert len(ov.FeatureBank.open(place)) == 5
    child.kill()
    child.communicate()
    # The dead process holds nothing, and what it appended is not lost though this object had not seen it.
    bank.append(rows(1, seed=9))
    np.testing.assert_array_equal(bank[:], np.concatenate([rows(3), np.ones((2, 5), np.float32), rows(1, seed=9)]))


def test_two_objects_of_one_process_are_two_writers(place: Path) -> None:
    first = ov.FeatureBank.create(place, columns=5)
    second = ov.FeatureBank.open(place)
    with pytest.raises(InputError, match=LOCKED):
        second.append(rows(1))
    first.append(rows(2))
    first.close()
    with second:
        second.append(rows(1))
        assert len(second) == 3
        with pytest.raises(InputError, match=LOCKED):
            first.append(rows(1))
    first.append(rows(1))
    del first
    second.append(rows(1))
    assert len(second) == 5


FORKS = """
import os, sys, time, numpy as np, onnxviz as ov
bank = ov.FeatureBank.create(sys.argv[1], columns=5)
bank.append(np.ones((2, 5), np.float32))
if os.fork() == 0:
    time.sleep(60)
elif os.fork() == 0:
    try:
        bank.append(np.ones((2, 5), np.float32))
    except ov.InputError as error:
        bank.close()
        print(error, flush=True)
    time.sleep(60)
else:
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_neither_writes_nor_keeps_the_lock_of_a_dead_parent(place: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", FORKS, str(place)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert "somebody else is writing" in parent.stdout.readline()
    with pytest.raises(InputError, match=LOCKED):
        ov.FeatureBank.open(place, lock=True)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    orphans = [int(child) for child in children.read_text().split()]
    parent.kill()
    parent.wait()
    try:
        with ov.FeatureBank.open(place) as bank:
            bank.append(rows(1))
        assert len(bank) == 3
    finally:
        for child in orphans:
            os.kill(child, 9)
        parent.stdout.close()


def test_threads_read_while_one_appends(place: Path) -> None:
    block = rows(600)
    bank = bank_of(place, block[:300])
    wrong: list[str] = []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(60):
            chosen = random.integers(0, len(bank), 8)
            if not np.array_equal(bank[chosen], block[chosen]):
                wrong.append(f"{chosen}")

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for start in range(300, 600, 50):
        bank.append(block[start : start + 50])
    for thread in threads:
        thread.join()
    assert not wrong
    np.testing.assert_array_equal(bank[:], block)


# -- whole or not at all ---------------------------------------------------------------------------------------------

STEPS = ("open", "fsync", "replace", "mkdir", "unlink", "chmod")


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing that costs nothing: only a power cut, which no test can make, tells the difference."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Interrupted(BaseException):
    """What ends a process in the middle, for a test that goes on."""


def interrupt(
    patch: pytest.MonkeyPatch, at: int, stop: Callable[[], None], *, after: bool = False, ever: bool = False
) -> list[str]:
    """Call ``stop`` before, or right after, the file-system step number ``at``, or at each step from then on.

    Returns the names of the steps, which grow while they are taken.
    """
    taken: list[str] = []

    def hit(number: int) -> bool:
        return number >= at if ever else number == at

    def wrapped(name: str, plainly: Callable) -> Callable:
        def step(*arguments: object, **options: object) -> object:
            number = len(taken)
            taken.append(name)
            if hit(number) and not after:
                stop()
            result = None
            try:
                result = plainly(*arguments, **options)
            finally:
                if hit(number) and after:
                    if hasattr(result, "close"):
                        result.close()
                    stop()
            return result

        return step

    for name in STEPS:
        patch.setattr(os, name, wrapped(name, getattr(os, name)))
    # Path.open
    patch.setattr(io, "open", wrapped("io.open", io.open))
    return taken


def grow(place: Path) -> None:
    """What the tests below interrupt: create, append, merge two shards in."""
    with ov.FeatureBank.create(place, columns=5, class_names=("ant", "bee")) as bank:
        bank.append(rows(3), ["a", "b", "c"], [0, 1, 0])
        bank.append_bank(ov.FeatureBank.open(place.parent / "other"))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    with ov.FeatureBank.create(tmp_path / "other", columns=5, class_names=("bee", "cat")) as bank:
        bank.append(rows(2, seed=1), classes=[0, 1])
        bank.append(rows(4, seed=2), ["u", "v", "w", "x"])
    return tmp_path / "other"


def go_on(place: Path) -> None:
    """Finish what ``grow`` began, from whatever it left, and append one row more."""
    if not (place / "bank.json").exists():
        grow(place)
    bank = ov.FeatureBank.open(place)
    bank.verify()
    assert len(bank) in (0, 3, 9)
    np.testing.assert_array_equal(bank[:], np.concatenate([rows(3), rows(2, seed=1), rows(4, seed=2)])[: len(bank)])
    with bank:
        if len(bank) == 0:
            bank.append(rows(3), ["a", "b", "c"], [0, 1, 0])
        if len(bank) == 3:
            bank.append_bank(ov.FeatureBank.open(place.parent / "other"))
        bank.append(rows(1))


def undisturbed(folder: Path, other: Path) -> dict[str, bytes]:
    folder.mkdir()
    (folder / "other").symlink_to(other)
    grow(folder / "bank")
    with ov.FeatureBank.open(folder / "bank") as bank:
        bank.append(rows(1))
    return files(folder / "bank")


KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
sys.path.insert(0, sys.argv[1])
from test_feature_bank_writing import go_on, grow, interrupt
place, after = Path(sys.argv[2]), sys.argv[3] == "after"
os.fsync = lambda descriptor: None
at = 0
while True:
    folder = place / f"{at}"
    folder.mkdir()
    (folder / "other").symlink_to(place / "other")
    child = os.fork()
    if child == 0:
        interrupt(pytest.MonkeyPatch(), at, lambda: os.kill(os.getpid(), signal.SIGKILL), after=after)
        grow(folder / "bank")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        print(at)
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    at += 1
"""


@pytest.mark.usefixtures("unsynced")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_any_two_steps_loses_and_doubles_nothing(when: str, tmp_path: Path, other: Path) -> None:
    """Each step in a process of its own that is killed there, so that no clean-up of Python's can help."""
    wanted = undisturbed(tmp_path / "undisturbed", other)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), when],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    assert steps > 30
    lengths = set()
    for at in range(steps):
        place = tmp_path / str(at) / "bank"
        if (place / "bank.json").exists():
            lengths.add(len(ov.FeatureBank.open(place)))
        go_on(place)
        # Byte for byte what an undisturbed run leaves, and no file beside it.
        assert files(place) == wanted, at
    assert lengths == {0, 3, 9}


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_step_leaves_the_bank_as_it_was(number: int, tmp_path: Path, other: Path) -> None:
    """The same object goes on after the error: what it says went in is in, once; what it refused is not."""
    wanted = undisturbed(tmp_path / "undisturbed", other)

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for at in itertools.count():
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / "other").symlink_to(other)
        second = ov.FeatureBank.open(folder / "other")
        assert second.names is not None
        bank = ov.FeatureBank.create(folder / "bank", columns=5, class_names=("ant", "bee"))
        bank.append(rows(3), ["a", "b", "c"], [0, 1, 0])
        before = files(folder / "bank")
        with pytest.MonkeyPatch.context() as patch:
            taken = interrupt(patch, at, fail)
            error = attempt(lambda: bank.append_bank(second))  # noqa: B023
        if error is not None:
            full = number == errno.ENOSPC and "cannot be read" not in str(error)
            assert isinstance(error, LimitError if full else InputError)
            assert one_sentence(str(error))
            assert files(folder / "bank") == before, (at, taken)
            assert len(bank) == 3
            bank.append_bank(second)
        bank.append(rows(1))
        bank.verify()
        assert files(folder / "bank") == wanted, (at, taken)
        if at >= len(taken):
            break
    assert at > 20


def attempt(act: Callable[[], None]) -> BaseException | None:
    """What it raised."""
    try:
        act()
    except BaseException as error:
        return error
    return None


def one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and "Traceback" not in text


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("ever", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_at_any_step_leaves_an_object_that_goes_on(
    after: bool, ever: bool, tmp_path: Path, other: Path
) -> None:
    """Interrupted once, or again and again while it cleans up."""
    wanted = undisturbed(tmp_path / "undisturbed", other)

    def stop() -> None:
        raise Interrupted

    found = set()
    for at in itertools.count():
        folder = tmp_path / str(at)
        folder.mkdir()
        second = ov.FeatureBank.open(other)
        assert second.names is not None
        bank = ov.FeatureBank.create(folder / "bank", columns=5, class_names=("ant", "bee"))
        bank.append(rows(3), ["a", "b", "c"], [0, 1, 0])
        with pytest.MonkeyPatch.context() as patch:
            taken = interrupt(patch, at, stop, after=after, ever=ever)
            error = attempt(lambda: bank.append_bank(second))  # noqa: B023
        assert isinstance(error, Interrupted) == (at < len(taken))
        count = len(ov.FeatureBank.open(folder / "bank"))
        found.add(count)
        if not ever:
            assert len(bank) == count
        if count == 3:
            bank.append_bank(second)
        bank.append(rows(1))
        bank.verify()
        assert files(folder / "bank") == wanted, (at, taken)
        if at >= len(taken):
            break
    assert found == {3, 9}


def test_names_are_on_disk_before_what_relies_on_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut needs: each file is synced before it is renamed, and the folder before the manifest is."""
    bank = ov.FeatureBank.create(place, columns=5)
    happened: list[tuple[str, str]] = []
    synced: set[int] = set()
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        synced.add(status.st_ino)
        if status.st_ino == place.stat().st_ino:
            happened.append(("sync", "folder"))

    def noted_replace(source: str, target: str) -> None:
        assert Path(source).stat().st_ino in synced
        replace(source, target)
        happened.append(("rename", Path(target).name))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    bank.append(rows(3), ["a", "b", "c"])
    assert happened == [
        ("rename", "shard-000000.npy"), ("rename", "shard-000000.json"), ("sync", "folder"),
        ("rename", "bank.json"), ("sync", "folder"),
    ]  # fmt: skip


def test_leftovers_of_a_kill_are_ignored_and_swept_away(place: Path) -> None:
    bank_of(place, rows(3))
    for name in (".onnxviz-abc", "shard-000001.npy", "shard-000001.json", "shard-000007.npy"):
        (place / name).write_bytes(b"torn")
    (place / "notes.txt").write_text("mine")
    bank = ov.FeatureBank.open(place)
    np.testing.assert_array_equal(bank[:], rows(3))
    bank.verify()
    bank.append(rows(2, seed=1))
    assert set(files(place)) == {"bank.json", "bank.lock", "shard-000000.npy", "shard-000001.npy", "notes.txt"}
    np.testing.assert_array_equal(bank[:], np.concatenate([rows(3), rows(2, seed=1)]))


def test_a_disk_that_is_full(limited_disk: Path, small_disk: Path | None) -> None:
    block = rows(1000, 64)
    bank = ov.FeatureBank.create(limited_disk / "bank", columns=64)
    appended = 0
    while (error := attempt(lambda: bank.append(block))) is None:
        appended += 1
    assert isinstance(error, LimitError)
    assert "bank: the disk is full; what was there before is unchanged. Free some" in str(error)
    assert 1 <= appended <= 4
    assert len(bank) == len(ov.FeatureBank.open(limited_disk / "bank")) == 1000 * appended
    assert len(files(limited_disk / "bank")) == 2 + appended
    bank.verify()
    if small_disk is not None:
        # A smaller block fits: the disk was given back what the torn shard took.
        bank.append(block[:10])
        np.testing.assert_array_equal(bank[-10:], block[:10])
    bank.close()
