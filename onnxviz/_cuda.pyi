from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

@final
class Device:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def compute_capability(self) -> tuple[int, int]: ...
    @property
    def memory(self) -> int: ...
    @property
    def multiprocessors(self) -> int: ...

@final
class Stream:
    def __init__(self, device: int) -> None: ...
    @property
    def handle(self) -> int: ...
    @property
    def device(self) -> int: ...
    def synchronize(self) -> None: ...

@final
class Memory:
    def __init__(self, nbytes: int, device: int) -> None: ...
    @property
    def pointer(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def device(self) -> int: ...
    def copy_from_host(self, array: NDArray[Any], stream: int) -> None: ...
    def copy_to_host(self, array: NDArray[Any], stream: int) -> None: ...
    def to_dlpack(self, shape: list[int], code: int, bits: int, versioned: bool, copied: bool) -> object: ...

@final
class Borrowed:
    def __init__(self, capsule: object) -> None: ...
    @property
    def pointer(self) -> int: ...
    @property
    def shape(self) -> list[int]: ...
    @property
    def strides(self) -> list[int] | None: ...
    @property
    def dtype(self) -> tuple[int, int, int]: ...
    @property
    def read_only(self) -> bool: ...

@final
class NeighborIndex:
    def __init__(
        self,
        bank: int,
        rows: int,
        columns: int,
        dtype: str,
        metric: str,
        mean: NDArray[np.float64],
        reference: NDArray[np.float64],
        scale: float,
        basis: NDArray[np.float32],
        device: int,
        stream: int,
    ) -> None: ...
    def query(
        self,
        queries: int,
        rows: int,
        columns: int,
        dtype: str,
        k: int,
        distances: int,
        indices: int,
        device: int,
        stream: int,
    ) -> None: ...
    def query_all_rows(
        self,
        k: int,
        distances: int,
        indices: int,
        device: int,
        stream: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None: ...
    @property
    def start(self) -> tuple[bool, bool]: ...
    @start.setter
    def start(self, start: tuple[bool, bool]) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def directions(self) -> int: ...

def neighbor_index_bytes(rows: int, columns: int, directions: int, metric: str) -> int: ...
def neighbor_search_bytes(rows: int, columns: int, directions: int, queries: int, k: int) -> int: ...
def device_type() -> int: ...
def device_of(pointer: int) -> int: ...
def synchronize(device: int, stream: int) -> None: ...
def wait_for(device: int, later: int, earlier: int) -> None: ...
def copy_on_device(to: int, source: int, nbytes: int, device: int, stream: int) -> None: ...
def memory_info(device: int) -> tuple[int, int]: ...
def fill_occluded(
    image: int,
    fill: int,
    layout: tuple[int, int, int, int],
    boxes: NDArray[np.int64],
    previous: NDArray[np.int64] | None,
    batch: int,
    device: int,
    stream: int,
) -> None: ...
def overlay_windows(
    original: int,
    layout: tuple[int, int, int, int],
    source: int,
    source_size: tuple[int, int],
    source_stride: int,
    placements: NDArray[np.int64],
    window_size: tuple[int, int],
    border: int,
    windows: int,
    device: int,
    stream: int,
) -> None: ...
def channel_maxima(
    maps: int,
    dtype: str,
    images: int,
    channels: int,
    positions_per_map: int,
    channels_last: bool,
    values: int,
    positions: int,
    device: int,
    stream: int,
) -> None: ...
def clear_top_values(
    values: int, images: int, positions: int, channels: int, k: int, device: int, stream: int
) -> None: ...
def merge_top_values(
    new_values: int,
    new_positions: int,
    numbers: NDArray[np.int64],
    values: int,
    images: int,
    positions: int,
    channels: int,
    k: int,
    device: int,
    stream: int,
) -> None: ...
def compiled() -> bool: ...
def device_count() -> int: ...
def devices() -> list[Device]: ...
def driver_version() -> int: ...
def runtime_version() -> int: ...
def status() -> str: ...
def why_not_compiled() -> str: ...
