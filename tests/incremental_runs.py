"""Runs of a planned patch, whatever the planner thinks of its gain, and of the whole network on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnxruntime

from onnxviz import backend
from onnxviz.graph.detached import take_inside
from onnxviz.graph.incremental.plan import Plan, make_plan
from onnxviz.graph.taps import expose
from onnxviz.methods.patches import Patches
from onnxviz.runtime.devices import Device
from onnxviz.runtime.incremental import IncrementalRunner
from onnxviz.runtime.model import Model
from onnxviz.runtime.optimized import OptimizedGraph, optimize_graph
from onnxviz.runtime.sessions import Watch

CPU = Device("cpu", "CPUExecutionProvider", {}, "a test")
Arrays = dict[str, np.ndarray]


@dataclass
class Case:
    """A graph with a free batch, one image, and what hides its parts."""

    graph: onnx.ModelProto
    source: str
    names: tuple[str, ...]
    image: np.ndarray
    fill: np.ndarray
    patches: Patches
    layout: str = "NCHW"
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    def optimized(self, *, portable: bool = False) -> OptimizedGraph:
        return optimize_graph(
            expose(self.graph, self.names), where="a test", source=self.source, outputs=self.names,
            image=self.image[np.newaxis], image_layout=self.layout, device=CPU, weights=self.weights, portable=portable,
        )  # fmt: skip

    def plan(self, graph: OptimizedGraph, *, workers: int = 2, memory: int = 1 << 32, least_gain: float = 0.0) -> Plan:
        return make_plan(
            graph.facts, self.patches.flat, self.patches.grid, workers=workers, memory=memory, least_gain=least_gain
        )

    def incremental(
        self,
        positions: np.ndarray,
        *,
        portable: bool = False,
        workers: int = 2,
        change: Callable[[Plan], Plan] = replace,
    ) -> tuple[Arrays, Arrays, Plan]:
        """Values at some positions and without a patch; ``change`` may alter the plan."""
        graph = self.optimized(portable=portable)
        plan = change(self.plan(graph, workers=workers))
        assert plan.pays, plan.why
        runner = IncrementalRunner(plan, graph, where="a test", device=CPU, workers=workers)
        found: Arrays = {}
        with Watch(None) as watch:
            originals = runner.originals(self.image, watch)
            for some, arrays in runner.positions(originals, lambda _: self.fill, [positions], watch):
                for name, array in arrays.items():
                    whole = found.setdefault(name, np.empty((len(positions) + 1, *array.shape[1:]), array.dtype))
                    whole[np.where(some < 0, len(positions), np.searchsorted(positions, some))] = array
        clean = {name: array[-1:] for name, array in found.items()}
        found = {name: array[:-1] for name, array in found.items()}
        return found, clean, plan

    def plain(self, positions: np.ndarray, *, batch: int = 4) -> Arrays:
        """The same, by runs of the whole network on patched images."""
        session = onnxruntime.InferenceSession(
            take_inside(expose(self.graph, self.names), self.weights).SerializeToString(),
            _quiet(),
            providers=["CPUExecutionProvider"],
        )
        parts = []
        for start in range(0, len(positions), batch):
            some = positions[start : start + batch]
            images = np.empty((len(some), *self.image.shape), self.image.dtype)
            backend.fill_occluded(
                self.image, self.fill, self.patches.flat[some], images, channels_last=self.layout == "NHWC"
            )
            parts.append(session.run(list(self.names), {self.source: images}))
        return {name: np.concatenate(arrays) for name, arrays in zip(self.names, zip(*parts, strict=True), strict=True)}


def case_of(model: Model, names: Sequence[str], view: np.ndarray, patches: Patches, colour: float = 117.0) -> Case:
    """A model of the zoo, looking at a picture of the right size."""
    contract = model.preprocess
    flat = np.full_like(view, round(colour))
    return Case(
        model._runner._batched, model.image_input.name, tuple(names), contract.encode(view[np.newaxis])[0],
        contract.encode(flat[np.newaxis])[0], patches, model.image_input.layout, model.loaded.weights,
    )  # fmt: skip


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference over the largest number."""
    return float(np.abs(got.astype(np.float64) - wanted).max() / max(np.abs(wanted.astype(np.float64)).max(), 1e-30))


def _quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # The last bit of an LRN depends on the number of threads.
    options.intra_op_num_threads = 1
    return options
