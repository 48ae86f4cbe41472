from collections.abc import Callable
from typing import Any, final, overload

import numpy as np
from numpy.typing import NDArray

__version__: str

@final
class LevelArrays:
    def __init__(
        self,
        *,
        columns: int,
        bits: int,
        random_access: bool,
        first_direction: int | None,
        codes: NDArray[np.uint8],
        norm: NDArray[np.float64] | None = None,
        sum: NDArray[np.float64] | None = None,
        scale: NDArray[np.float32] | None = None,
        zero: NDArray[np.float32] | None = None,
        radius: NDArray[np.float32] | None = None,
        parts: NDArray[np.float32] | None = None,
        origins: NDArray[np.float32] | None = None,
    ) -> None: ...

@final
class NeighborIndex:
    @overload
    def __init__(
        self,
        bank: NDArray[np.float32] | NDArray[np.float64],
        metric: str,
        mean: NDArray[np.float64],
        reference: NDArray[np.float64],
        scale: float,
        basis: NDArray[np.float32],
        levels: list[LevelArrays],
        directions: NDArray[np.float64] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        files: list[tuple[str, int, int]],
        columns: int,
        float64: bool,
        metric: str,
        mean: NDArray[np.float64],
        reference: NDArray[np.float64],
        scale: float,
        basis: NDArray[np.float32],
        levels: list[LevelArrays],
        directions: NDArray[np.float64] | None = None,
    ) -> None: ...
    def encode(self, first: int, count: int, threads: int = 0) -> None: ...
    def choose_start(self, threads: int = 0) -> None: ...
    @property
    def start(self) -> tuple[int, int, int]: ...
    @start.setter
    def start(self, start: tuple[int, int, int]) -> None: ...
    def query(
        self, queries: NDArray[np.float32] | NDArray[np.float64], k: int, threads: int = 0
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]: ...
    def query_all_rows(
        self, k: int, threads: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]: ...
    def within(
        self, queries: NDArray[np.float32] | NDArray[np.float64], radius: float, threads: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...

def row_bytes(columns: int, bits: int) -> int: ...
def accumulate_boxes(
    boxes: NDArray[np.int64], values: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]: ...
def build_facts() -> dict[str, str]: ...
def cpu_level() -> str: ...
def cpu_levels() -> list[str]: ...
def cpu_runs(level: str) -> bool: ...
def fill_occluded(
    image: NDArray[Any],
    fill: NDArray[Any],
    boxes: NDArray[np.int64],
    batch: NDArray[Any],
    *,
    channels_last: bool,
    previous: NDArray[np.int64] | None = None,
    threads: int = 0,
) -> None: ...
def overlay_windows(
    original: NDArray[Any],
    source: NDArray[Any],
    placements: NDArray[np.int64],
    windows: NDArray[Any],
    *,
    layout: tuple[int, int, int, int],
    source_size: tuple[int, int],
    window_size: tuple[int, int],
    shared_source: bool,
    border: NDArray[Any] | None = None,
) -> None: ...
