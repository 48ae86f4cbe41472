"""Occlusion as anybody would write it: whole runs of batches that the host fills, through bare onnxruntime sessions."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import backend
from onnxviz.graph.detached import take_inside
from onnxviz.graph.taps import expose

if TYPE_CHECKING:
    import onnxruntime

    from onnxviz.runtime.model import Model


class PlainLoop:
    """One output of a network for an image with a patch at each of many positions.

    Parameters
    ----------
    model : Model
        Whose graph is run.
    output : str
        The value that is asked for.
    image, fill : array
        One encoded image, and what stands in the patches.
    open_session : callable
        (serialized graph, number of workers) → the session that so many threads share.
    workers : iterable of int
        Numbers of threads to choose from; each fills batches of its own and runs them.
    fill_threads : int
        Threads that fill one batch; 0 for all cores.
    """

    def __init__(
        self, model: Model, output: str, image: NDArray[Any], fill: NDArray[Any],
        open_session: Callable[[bytes, int], onnxruntime.InferenceSession], *, workers: Iterable[int] = (1,),
        fill_threads: int = 0,
    ) -> None:  # fmt: skip
        assert model.image_input is not None
        self.output, self.source, self.image, self.fill = output, model.image_input.name, image, fill
        self.channels_last = model.preprocess is not None and model.preprocess.layout == "NHWC"
        self.fill_threads = fill_threads
        serialized = take_inside(expose(model.loaded.proto, [output]), model.loaded.weights).SerializeToString()
        self.sessions = {count: open_session(serialized, count) for count in workers}
        self.workers, self.batch = min(self.sessions), 8

    def run(self, boxes: NDArray[np.int64]) -> NDArray[Any]:
        """The output with the patch at each box."""
        session = self.sessions[self.workers]
        starts = iter(range(0, len(boxes), self.batch))
        parts: dict[int, NDArray[Any]] = {}
        lock = threading.Lock()

        def work() -> None:
            images = np.empty((self.batch, *self.image.shape), self.image.dtype)
            previous = None
            while True:
                with lock:
                    start = next(starts, None)
                if start is None:
                    return
                some = boxes[start : start + self.batch]
                backend.fill_occluded(
                    self.image, self.fill, some, images, channels_last=self.channels_last, previous=previous,
                    threads=self.fill_threads,
                )  # fmt: skip
                previous = some
                parts[start] = session.run([self.output], {self.source: images[: len(some)]})[0]

        helpers = [threading.Thread(target=work) for _ in range(self.workers - 1)]
        for helper in helpers:
            helper.start()
        work()
        for helper in helpers:
            helper.join()
        return np.concatenate([parts[start] for start in sorted(parts)])

    def tune(self, cost: Callable[[], float], batches: Iterable[int]) -> None:
        """Choose workers and batch by what something costs with them."""
        found = {}
        for workers, batch in itertools.product(self.sessions, batches):
            self.workers, self.batch = workers, batch
            found[workers, batch] = cost()
        self.workers, self.batch = min(found, key=lambda key: found[key])
