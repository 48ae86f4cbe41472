"""Break every barrier and every bound of the CUDA kernels in turn, and see that the emulated tests notice.

A mutant is one change to one line of ``csrc/cuda/kernels``: a barrier taken away (``__syncthreads``, ``__syncwarp``,
``wait_for_copies``), or the rewrite that a comment ``// bound: s/old/new/`` asks for, on its own line or on the nearest
one below that has ``old``. Each is compiled as the tests of its topic compile it, in a copy of the sources, and run in
the emulator's orders of threads. Exit code 1 where one survives that has no reason here to.

The build folder gives the compile commands and everything that is not mutated:
``cmake --preset default && cmake --build --preset default``, then ``python tests/cpp/mutate_cuda.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "csrc" / "cuda" / "kernels"
ORDERS = ("forward", "reversed", "strided", "random:1")

# Headers whose tests are not those of the neighbours.
TOPICS = {
    "async_copy.cuh": "emulator",
    "dialect.cuh": "emulator",
    "tensor_core.cuh": "emulator",
    "occlusion.cuh": "occlusion",
    "elements.cuh": "top_values",
    "top_values.cuh": "top_values",
}

# Survivors, by file and by what the line has, with the reason why no test can tell them from the original.
ALLOWED: dict[tuple[str, str], str] = {}

BARRIER = re.compile(r"\b(?:__syncthreads|__syncwarp|wait_for_copies<[^>]*>)\s*\([^()]*\)\s*;")
DEFINITION = re.compile(r"\binline\b|__forceinline__|^\s*template|^\s*//|^\s*#")
BOUND = re.compile(r"// bound: s(?P<edge>[^\w\s])(?P<old>.+?)(?P=edge)(?P<new>.*?)(?P=edge)\s*$")
LINES_BELOW = 6


@dataclass
class Mutant:
    """One changed line."""

    file: Path
    line: int
    """Of the file, from 1."""
    before: str
    after: str
    is_barrier: bool
    caught: dict[str, str] = field(default_factory=dict)
    """How each order noticed; those that did not are left out."""

    @property
    def topic(self) -> str:
        """The test that has to notice."""
        return TOPICS.get(self.file.name, "neighbors")

    @property
    def change(self) -> str:
        """What was done, in few words."""
        if self.is_barrier:
            return f"`{self.before}` removed"
        return f"`{self.before}` → `{self.after}`"

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.file.name}:{self.line}"

    @property
    def excuse(self) -> str:
        """Why it may survive; empty where it may not."""
        text = self.file.read_text(encoding="utf-8").splitlines()[self.line - 1]
        return next(
            (why for (name, part), why in ALLOWED.items() if name == self.file.name and part in (self.before, text)), ""
        )


def mutants_of(file: Path) -> Iterator[Mutant]:
    """Every mutant of one header."""
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not DEFINITION.search(line):
            for barrier in BARRIER.finditer(line):
                yield Mutant(file, number, barrier.group(), "", is_barrier=True)
        bound = BOUND.search(line)
        if bound is None:
            continue
        old, new = bound["old"], bound["new"]
        code = line[: bound.start()]
        if old in code:
            yield Mutant(file, number, old, new, is_barrier=False)
            continue
        below = range(number, min(number + LINES_BELOW, len(lines)))
        found = next((i for i in below if old in lines[i] and not BOUND.search(lines[i])), None)
        if found is None:
            raise SystemExit(f"{file.name}:{number}: no line below has {old!r}")
        yield Mutant(file, found + 1, old, new, is_barrier=False)


@dataclass(frozen=True)
class Unit:
    """A source that the emulated tests are made of."""

    source: Path
    command: tuple[str, ...]
    target: str


class Build:
    """Compile commands of a build folder, turned to a copy of the sources."""

    def __init__(self, folder: Path, copy: Path) -> None:
        self.folder, self.copy = folder, copy
        commands = folder / "compile_commands.json"
        if not commands.is_file():
            raise SystemExit(f"{commands} is missing: configure the build with ONNXVIZ_TESTS=ON first")
        self.units = []
        for entry in json.loads(commands.read_text(encoding="utf-8")):
            words = shlex.split(entry["command"])
            source = Path(entry["file"])
            if "-DONNXVIZ_CUDA_EMULATED" in words and ROOT in source.parents and "bindings" not in source.parts:
                target = words[words.index("-o") + 1]
                self.units.append(Unit(source, tuple(words), target))

    def archive(self, name: str) -> Path:
        """A library of the build."""
        found = sorted(self.folder.rglob(name))
        if not found:
            raise SystemExit(f"{name} is not in {self.folder}: build it first")
        return found[0]

    def depends(self, source: Path, header: Path, seen: set[Path] | None = None) -> bool:
        """Whether a source includes a header, however far below."""
        seen = set() if seen is None else seen
        if source == header:
            return True
        if source in seen or not source.is_file():
            return False
        seen.add(source)
        for name in re.findall(r'^\s*#include "([^"]+)"', source.read_text(encoding="utf-8"), re.MULTILINE):
            for folder in (source.parent, ROOT / "csrc" / "cuda", ROOT / "csrc", ROOT / "tests" / "cpp"):
                if self.depends((folder / name).resolve(), header, seen):
                    return True
        return False

    def affected(self, topic: str, header: Path) -> list[Unit]:
        """What has to be compiled anew for one test, the test itself first."""
        test = f"test_cuda_{topic}.cpp"
        return [
            unit
            for unit in sorted(self.units, key=lambda unit: unit.source.name != test)
            if unit.source.name == test
            or (not unit.source.name.startswith("test_") and self.depends(unit.source, header))
        ]

    def compile(self, unit: Unit, target: Path) -> subprocess.CompletedProcess[str]:
        """One object, of the copy."""
        words = [self._moved(word) for word in unit.command]
        words[words.index("-o") + 1] = os.fspath(target)
        words = [word for word in words if not word.startswith(("-W", "-pedantic")) and word not in {"-MD"}]
        for option in ("-MT", "-MF"):
            while option in words:
                at = words.index(option)
                del words[at : at + 2]
        # Kernels are run a few times, so compiling them well is not worth it.
        return subprocess.run([*words, "-O1"], cwd=self.folder, capture_output=True, text=True, check=False)

    def _moved(self, word: str) -> str:
        for part in ("csrc", "tests"):
            word = word.replace(f"{ROOT}/{part}", f"{self.copy}/{part}")
        return word

    def link(self, unit: Unit, objects: list[Path], target: Path) -> subprocess.CompletedProcess[str]:
        """The test; what is not among the objects comes from the build."""
        sanitizers = [word for word in unit.command if word.startswith("-fsanitize")]
        libraries = [self.archive("libonnxviz_cuda_emulated.a"), self.archive("libonnxviz_cpu.a")]
        # Twice: the device side has parts of the core for a CPU in it, and the test needs both.
        words = [unit.command[0], *sanitizers, *objects, *libraries, *libraries, "-pthread", "-o", target]
        return subprocess.run(
            [os.fspath(word) for word in words], cwd=self.folder, capture_output=True, text=True, check=False
        )


def run(program: Path, order: str, limit: float) -> str:
    """How the test failed; empty where it passed."""
    try:
        done = subprocess.run(
            [program], env=os.environ | {"ONNXVIZ_CUDA_EMULATOR_ORDER": order}, capture_output=True, timeout=limit,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "no end"
    if done.returncode == 0:
        return ""
    if done.returncode in {-11, -7}:
        return "guard"
    return "wrong" if b"does not hold" in done.stdout else "refused"


def try_mutant(mutant: Mutant, build: Build, folder: Path, limit: float, orders: tuple[str, ...]) -> None:
    """Compile and run it; barriers in all orders, bounds until one notices."""
    copied = build.copy / mutant.file.relative_to(ROOT)
    lines = mutant.file.read_text(encoding="utf-8").splitlines(keepends=True)
    at = mutant.line - 1
    lines[at] = lines[at].replace(mutant.before, mutant.after, 1)
    copied.write_text("".join(lines), encoding="utf-8")
    try:
        program = make(mutant.topic, mutant.file, build, folder)
    finally:
        shutil.copyfile(mutant.file, copied)
    if program is None:
        mutant.caught["compiler"] = "refused"
        return
    for order in orders:
        how = run(program, order, limit)
        if how:
            mutant.caught[order] = how
            if not mutant.is_barrier:
                return


def make(topic: str, header: Path, build: Build, folder: Path) -> Path | None:
    """The test program of the copy as it is now; None where it does not compile."""
    units = build.affected(topic, header)
    objects = []
    for number, unit in enumerate(units):
        target = folder / f"{number}.o"
        # The test alone does not change, unless it includes the header.
        kept = folder / f"{topic}.test.o"
        if number == 0 and not build.depends(unit.source, header):
            if not kept.exists() and build.compile(unit, kept).returncode != 0:
                return None
            objects.append(kept)
            continue
        if build.compile(unit, target).returncode != 0:
            return None
        objects.append(target)
    program = folder / "mutant"
    done = build.link(units[0], objects, program)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return program


def table(mutants: list[Mutant]) -> str:
    """Markdown."""
    lines = ["| place | change | noticed by |", "|---|---|---|"]
    for mutant in mutants:
        if mutant.caught:
            noticed = ", ".join(f"{order} ({how})" for order, how in mutant.caught.items())
        else:
            noticed = f"nobody: {mutant.excuse}" if mutant.excuse else "**nobody**"
        lines.append(f"| {mutant.place} | {mutant.change.replace('|', chr(92) + '|')} | {noticed} |")
    return "\n".join(lines) + "\n"


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("headers", nargs="*", help="names in csrc/cuda/kernels; default: all")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "default", help="default: build/default")
    parser.add_argument("--orders", nargs="+", default=ORDERS, help=f"default: {' '.join(ORDERS)}")
    parser.add_argument("--only", choices=("barriers", "bounds"), help="default: both")
    parser.add_argument("--write", type=Path, help="file for the table")
    parser.add_argument("--list", action="store_true", help="name the mutants and stop")
    chosen = parser.parse_args()

    files = [KERNELS / name for name in chosen.headers] if chosen.headers else sorted(KERNELS.glob("*.cuh"))
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    if chosen.only:
        mutants = [mutant for mutant in mutants if mutant.is_barrier == (chosen.only == "barriers")]
    if chosen.list:
        for mutant in mutants:
            print(f"{mutant.place}: {mutant.change} ({mutant.topic})")
        return 0

    with tempfile.TemporaryDirectory(prefix="onnxviz-mutants-") as name:
        folder = Path(name)
        copy = folder / "copy"
        for part in ("csrc", "tests/cpp"):
            shutil.copytree(ROOT / part, copy / part)
        build = Build(chosen.build.resolve(), copy)
        limits: dict[str, float] = {}
        for mutant in mutants:
            if mutant.topic not in limits:
                program = make(mutant.topic, mutant.file, build, folder)
                if program is None:
                    raise SystemExit(f"test_cuda_{mutant.topic} does not compile as it is")
                start = time.monotonic()
                for order in chosen.orders:
                    if run(program, order, 3600):
                        raise SystemExit(f"test_cuda_{mutant.topic} fails in order {order} as it is")
                limits[mutant.topic] = 60 + 5 * (time.monotonic() - start)
            try_mutant(mutant, build, folder, limits[mutant.topic], tuple(chosen.orders))
            noticed = ", ".join(mutant.caught) or "NOBODY"
            print(f"{mutant.place}: {mutant.change}: {noticed}", flush=True)

    text = table(mutants)
    if chosen.write:
        chosen.write.write_text(text, encoding="utf-8")
    survivors = [mutant for mutant in mutants if not mutant.caught and not mutant.excuse]
    print(f"{len(mutants)} mutants, {len(survivors)} survive that may not")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(_main())
