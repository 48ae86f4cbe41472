"""Break every barrier and every bound of the CUDA kernels in turn, and see that the emulated tests notice.

A mutant is one change to one line of ``csrc/cuda``: a barrier taken away (``__syncthreads``, ``__syncwarp``,
``wait_for_copies``), or a rewrite that a comment ``// bound: s/old/new/`` asks for, on its own line or on the nearest
one below that has ``old``; one comment may ask for several. Each is compiled as the tests of its topics compile it, in
a copy of the sources, and run in the emulator's orders of threads. Exit code 1 where one survives that has no reason
here to.

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
CUDA = ROOT / "csrc" / "cuda"
ORDERS = ("forward", "reversed", "strided", "random:1")

# The tests that have to notice, the quicker first. Every other file is judged by all of the neighbours.
TOPICS = {
    "async_copy.cuh": ("emulator",),
    "dialect.cuh": ("emulator",),
    "tensor_core.cuh": ("emulator",),
    "occlusion.cu": ("occlusion",),
    "occlusion.cuh": ("occlusion",),
    "elements.cuh": ("top_values",),
    "top_values.cu": ("top_values",),
    "top_values.cuh": ("top_values",),
}
NEIGHBORS = ("neighbor_bounds", "neighbor_lists", "neighbor_answers")

# Survivors, by file, line and what is replaced in it, with the reason why no test can tell them from the original.
ALLOWED = {
    (
        "encode.cuh",
        "terms.residual_high = __double2float_ru(sqrt(fmax(0.0, most)));",
        "fmax(0.0, ",
    ): "`most` is not below 0: |B X|² ≤ (1 + excess) |X|², and what is rounded in it is less than its 2⁻³⁰",
    (
        "refine.cuh",
        "const int there = __shfl_sync(whole_warp, row, max(source, 0));",
        "max(source, 0)",
    ): "lanes are taken modulo 32, every lane has a row of the bank, and what is measured without a source is not used",
}

BARRIER = re.compile(r"\b(?:__syncthreads|__syncwarp|wait_for_copies<[^>]*>)\s*\([^()]*\)\s*;")
DEFINITION = re.compile(r"\binline\b|__forceinline__|^\s*template|^\s*//|^\s*#")
REWRITE = re.compile(r"s(?P<edge>[^\w\s])(?P<old>.+?)(?P=edge)(?P<new>.*?)(?P=edge)(?=\s|$)")
BOUND = "// bound: "
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
    def topics(self) -> tuple[str, ...]:
        """The tests of which one has to notice."""
        return TOPICS.get(self.file.name, NEIGHBORS)

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
        return ALLOWED.get((self.file.name, text.strip(), self.before), "")


def mutants_of(file: Path) -> Iterator[Mutant]:
    """Every mutant of one header."""
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not DEFINITION.search(line):
            for barrier in BARRIER.finditer(line):
                yield Mutant(file, number, barrier.group(), "", is_barrier=True)
        code, bound, rewrites = line.partition(BOUND)
        if not bound:
            continue
        if re.sub(REWRITE, "", rewrites).strip():
            raise SystemExit(f"{file.name}:{number}: no list of s/old/new/: {rewrites}")
        below = range(number, min(number + LINES_BELOW, len(lines)))
        for rewrite in REWRITE.finditer(rewrites):
            old, new = rewrite["old"], rewrite["new"]
            if old in code:
                yield Mutant(file, number, old, new, is_barrier=False)
                continue
            found = next((i for i in below if old in lines[i] and BOUND not in lines[i]), None)
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

    def test(self, topic: str) -> Unit:
        """The source of one test."""
        return next(unit for unit in self.units if unit.source.name == f"test_cuda_{topic}.cpp")

    def affected(self, file: Path) -> list[Unit]:
        """What has to be compiled anew when a file changes, but for the tests."""
        return [
            unit for unit in self.units if not unit.source.name.startswith("test_") and self.depends(unit.source, file)
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


class Programs:
    """The test programs of the copy as it is now. What no change to ``file`` can change is compiled once."""

    def __init__(self, build: Build, folder: Path, file: Path) -> None:
        self.build, self.folder, self.file = build, folder, file
        self.objects: list[Path] | None = None

    def make(self, topic: str) -> Path | None:
        """None where something does not compile."""
        if self.objects is None:
            self.objects = []
            for number, unit in enumerate(self.build.affected(self.file)):
                self.objects.append(self.folder / f"{number}.o")
                if self.build.compile(unit, self.objects[-1]).returncode != 0:
                    return None
        test = self.build.test(topic)
        changes = self.build.depends(test.source, self.file)
        target = self.folder / (f"{topic}.changed.o" if changes else f"{topic}.o")
        if (changes or not target.exists()) and self.build.compile(test, target).returncode != 0:
            return None
        program = self.folder / topic
        done = self.build.link(test, [target, *self.objects], program)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return program


def try_mutant(mutant: Mutant, build: Build, folder: Path, limits: dict[str, float], orders: tuple[str, ...]) -> None:
    """Compile and run it; barriers in all orders, bounds until one notices."""
    copied = build.copy / mutant.file.relative_to(ROOT)
    lines = mutant.file.read_text(encoding="utf-8").splitlines(keepends=True)
    at = mutant.line - 1
    lines[at] = lines[at].replace(mutant.before, mutant.after, 1)
    copied.write_text("".join(lines), encoding="utf-8")
    programs = Programs(build, folder, mutant.file)
    made: dict[str, Path] = {}
    try:
        for order in orders:
            for topic in mutant.topics:
                program = made.get(topic) or programs.make(topic)
                if program is None:
                    # Nothing is learned from that: the rewrite has to be a better one.
                    print(f"{mutant.place}: {mutant.change}: does not compile", flush=True)
                    return
                made[topic] = program
                how = run(program, order, limits[topic])
                if how:
                    mutant.caught[order] = how
                    break
            if mutant.caught and not mutant.is_barrier:
                return
    finally:
        shutil.copyfile(mutant.file, copied)


def time_of(topic: str, build: Build, folder: Path, file: Path, orders: tuple[str, ...]) -> float:
    """Seconds that a test takes in all orders, which has to pass as it is."""
    program = Programs(build, folder, file).make(topic)
    if program is None:
        raise SystemExit(f"test_cuda_{topic} does not compile as it is")
    start = time.monotonic()
    for order in orders:
        if run(program, order, 3600):
            raise SystemExit(f"test_cuda_{topic} fails in order {order} as it is")
    return time.monotonic() - start


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
    parser.add_argument("files", nargs="*", help="names in csrc/cuda or its kernels; default: all")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "default", help="default: build/default")
    parser.add_argument("--orders", nargs="+", default=ORDERS, help=f"default: {' '.join(ORDERS)}")
    parser.add_argument("--only", choices=("barriers", "bounds"), help="default: both")
    parser.add_argument("--write", type=Path, help="file for the table")
    parser.add_argument("--list", action="store_true", help="name the mutants and stop")
    chosen = parser.parse_args()

    files = [*sorted(CUDA.glob("kernels/*.cuh")), *sorted(CUDA.glob("*.cu"))]
    if chosen.files:
        files = [file for file in files if file.name in chosen.files]
        if len(files) != len(set(chosen.files)):
            parser.error(f"not all of these are in csrc/cuda: {', '.join(chosen.files)}")
    mutants = [mutant for file in files for mutant in mutants_of(file)]
    if chosen.only:
        mutants = [mutant for mutant in mutants if mutant.is_barrier == (chosen.only == "barriers")]
    if chosen.list:
        for mutant in mutants:
            print(f"{mutant.place}: {mutant.change} ({', '.join(mutant.topics)})")
        return 0

    with tempfile.TemporaryDirectory(prefix="onnxviz-mutants-") as name:
        folder = Path(name)
        copy = folder / "copy"
        for part in ("csrc", "tests/cpp"):
            shutil.copytree(ROOT / part, copy / part)
        build = Build(chosen.build.resolve(), copy)
        orders = tuple(chosen.orders)
        limits: dict[str, float] = {}
        for mutant in mutants:
            for topic in mutant.topics:
                if topic not in limits:
                    limits[topic] = 60 + 5 * time_of(topic, build, folder, mutant.file, orders)
            try_mutant(mutant, build, folder, limits, orders)
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
