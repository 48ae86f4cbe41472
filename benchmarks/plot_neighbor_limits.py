"""Banks of growing size are searched; the picture shows how each search compares with the physical limit of float32.

``python benchmarks/plot_neighbor_limits.py docs/neighbors.png`` measures up to 100,000 rows (a quarter of an hour on
two cores) and writes the numbers beside the picture, as ``.json``; ``--redraw`` only draws them again. Real features
are measured at the sizes of ``--real``; simulated ones, cheaper to make, take over at those of ``--simulated``; 300,000
and 1,000,000 take half an hour more, and 16 GB of disk. ``--keep`` takes the points of other sizes from the file there.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import feature_banks
from neighbor_peers import CORES, PEERS, Child, installed, machine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("onnxviz", "faiss", "scikit-learn", "limit")
TOGETHER = 100_000
"""Rows up to which all processes hold the bank at once and take turns; more would not fit in 24 GB."""
IN_MEMORY = 300_000
"""Rows up to which each process reads the bank into memory of its own. Of more it maps the file, which the system keeps
in memory for it; faiss copies that, and the limit, which keeps nothing else, still reads."""
ROUNDS = {1: 7, 1000: 3}
ROUNDS_ALONE = {1: 3, 1000: 1}
"""Of more rows than :data:`TOGETHER`: they take longer, and are in nobody's turn."""
CALLS = {1: 60, 1000: 1}
BUDGET = 1.0
REST = 0.2

INK, QUIET, RULE = "#1b1f24", "#5b6570", "#d5dae0"
COLORS = {"onnxviz": "#0072b2", "faiss": "#d55e00", "scikit-learn": "#7a7f87"}  # of Okabe and Ito (2008), and grey


def measure(kind: feature_banks.Kind, rows: int, held: int) -> list[dict[str, Any]]:
    """Seconds of one query and of 1,000, for every peer at its better number of threads; the file has rows to spare."""
    bank, queries = feature_banks.bank(kind, max(rows, held)), feature_banks.queries(kind, 1000)
    names = [name for name in NAMES if installed(name)]
    counts = sorted({1, CORES})
    rounds = ROUNDS if rows <= TOGETHER else ROUNDS_ALONE
    seconds: dict[tuple[int, str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for group in [names] if rows <= TOGETHER else [[name] for name in names]:
            with contextlib.ExitStack() as stack:
                children = {name: stack.enter_context(Child(name)) for name in group}
                for child in children.values():
                    child.call("read", path=str(bank), rows=rows, mapped=rows > IN_MEMORY and child.name != "limit")
                    child.call("build", threads=CORES)
                for size, calls in CALLS.items():
                    for turn, name, threads in itertools.product(range(rounds[size]), group, counts):
                        time.sleep(REST)
                        answer = children[name].call(
                            "search", queries=str(queries), save=str(Path(folder) / "found.npz"), size=size,
                            start=turn * calls * size, calls=calls, budget=BUDGET, threads=threads,
                        )  # fmt: skip
                        median = statistics.median(answer["seconds"])
                        seconds.setdefault((size, name, threads), []).append(median)
    points = []
    for size in CALLS:
        medians = {
            name: {threads: statistics.median(seconds[size, name, threads]) for threads in counts} for name in names
        }
        best = {name: min(found, key=lambda threads: found[threads]) for name, found in medians.items()}
        points.append({
            "kind": kind, "rows": rows, "queries": size, "threads": best,
            "seconds": {name: medians[name][best[name]] for name in names},
        })  # fmt: skip
        print(points[-1], flush=True)
    return points


def draw(numbers: dict[str, Any], path: Path) -> None:
    """Two charts: one query, limited by memory, and 1,000, limited by arithmetic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.6), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    ratios = [ratio for size in CALLS for line in _lines(numbers["points"], size).values() for _, ratio in line]
    span = min(*ratios, 0.1) / 1.4, max(*ratios, 10) * 1.4
    titles = {
        1: "One query: the limit is reading the bank once",
        1000: "1,000 queries: the limit is the matrix product",
    }
    for place, size in enumerate(CALLS):
        ax = figure.add_axes((0.07 + 0.47 * place, 0.225, 0.325, 0.56))
        _chart(ax, _lines(numbers["points"], size), span)
        ax.set_title(titles[size], loc="left", fontsize=11, color=INK, pad=10)
    figure.axes[0].set_ylabel("speed, in speeds of the limit", color=QUIET, fontsize=10)
    figure.axes[1].tick_params(labelleft=False)
    figure.text(0.03, 0.925, "Exact neighbours of 4,096 features, beside what float32 allows", fontsize=16, color=INK)
    figure.text(
        0.03, 0.875, "10 nearest of each query; every library in a process of its own, at its better number of "
        "threads. Higher is faster.", fontsize=10, color=QUIET,
    )  # fmt: skip
    notes = ["Features of EfficientNet-Lite0's head convolution, of random crops of photos; queries from other photos."]
    if any(point["kind"] == "simulated" for point in numbers["points"]):
        notes[0] += " Hollow and dashed: simulated features."
    if any(point["rows"] > IN_MEMORY for point in numbers["points"]):
        notes.append(f"Beyond {IN_MEMORY:,} rows onnxviz and scikit-learn view the file, which the system caches.")
    for place, note in enumerate(reversed(notes)):
        figure.text(0.03, 0.055 + 0.033 * place, note, fontsize=8.5, color=QUIET)
    figure.text(0.03, 0.022, numbers["machine"], fontsize=8.5, color=QUIET)
    figure.savefig(path)


def _lines(points: list[dict[str, Any]], size: int) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Rows and times the limit's speed, by peer and kind of features."""
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for point in sorted(points, key=lambda point: point["rows"]):
        for name, seconds in point["seconds"].items():
            if name != "limit" and point["queries"] == size:
                ratio = point["seconds"]["limit"] / seconds
                lines.setdefault((name, point["kind"]), []).append((point["rows"], ratio))
    return lines


def _chart(ax: Axes, lines: dict[tuple[str, str], list[tuple[int, float]]], span: tuple[float, float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    rows = sorted({count for line in lines.values() for count, _ in line})
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(rows[0] / 1.2, rows[-1] * 1.2)
    ax.set_ylim(*span)
    ax.axhline(1, color=INK, linewidth=1.1)
    ends: dict[str, tuple[int, float]] = {}
    for (name, kind), line in lines.items():
        ours, real = name == "onnxviz", kind == "real"
        ax.plot(
            *zip(*line, strict=True), "-" if real else "--", color=COLORS[name], marker="o", clip_on=False,
            markerfacecolor=COLORS[name] if real else "white", linewidth=2.2 if ours else 1.5,
            markersize=6.5 if ours else 5, zorder=4 if ours else 3,
        )  # fmt: skip
        ends[name] = max(ends.get(name, (0, 0.0)), line[-1])
    # Labels side by side move apart, away from the limit's: a line of text is a sixteenth of the height.
    step = (span[1] / span[0]) ** (1 / 16)
    heights = {"limit": 1.0}
    lowest = highest = 1.0
    for name, (_, ratio) in sorted(ends.items(), key=lambda end: abs(math.log(end[1][1]))):
        if ratio >= 1:
            highest = heights[name] = max(ratio, highest * step)
        else:
            lowest = heights[name] = min(ratio, lowest / step)
    for name, height in heights.items():
        label = PEERS[name].title.replace(" IndexFlatL2", "").replace(" brute", "")
        if name != "limit":
            ratio = ends[name][1]
            label += f"  {ratio:.0f}×" if ratio >= 10 else f"  {ratio:.2g}×"
        ax.annotate(
            label, (rows[-1] * 1.2, height), (4, 0), textcoords="offset points", color=COLORS.get(name, INK),
            fontsize=10, va="center", annotation_clip=False, fontweight="bold" if name == "onnxviz" else "normal",
        )  # fmt: skip
    ax.set_xlabel("rows of the bank", color=QUIET, fontsize=10)
    ax.set_xticks(rows, [f"{count // 1000}k" if count < 1_000_000 else f"{count // 1_000_000}M" for count in rows])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    ax.grid(axis="y", color=RULE, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(colors=QUIET, length=0, labelsize=9.5)
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--real", type=int, nargs="*", default=[1000, 3000, 10_000, 30_000, 100_000], metavar="ROWS")
    parser.add_argument("--simulated", type=int, nargs="*", default=[], metavar="ROWS", help="e.g. 100000 300000")
    parser.add_argument("--keep", action="store_true", help="points of other sizes that the file beside has")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    file = chosen.picture.with_suffix(".json")
    if not chosen.redraw:
        points = []
        if chosen.keep:
            asked = {("real", rows) for rows in chosen.real} | {("simulated", rows) for rows in chosen.simulated}
            kept = json.loads(file.read_text())["points"]
            points = [point for point in kept if (point["kind"], point["rows"]) not in asked]
        for kind, sizes in (("real", chosen.real), ("simulated", chosen.simulated)):
            for rows in sizes:
                points += measure(kind, rows, max(sizes))
        numbers = {"machine": machine([name for name in NAMES if installed(name)]), "points": points}
        file.write_text(json.dumps(numbers, indent=1) + "\n")
    draw(json.loads(file.read_text()), chosen.picture)


if __name__ == "__main__":
    _main()
