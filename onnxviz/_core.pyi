from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__version__: str

@final
class NeighborIndex:
    def __init__(self, bank: NDArray[np.float32] | NDArray[np.float64], metric: str, threads: int = 0) -> None: ...
    def query(
        self, queries: NDArray[np.float32] | NDArray[np.float64], k: int, threads: int = 0
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...

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
