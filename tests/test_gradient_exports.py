"""Gradients of torch exports: sixteen families, two exporters, operator sets 9 to 25, each with a free batch.

Every export is compared with torch's own gradient in float64. A network with kinks is judged against the error that
torch makes in float32: near a kink rounding decides on which side a unit falls.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import onnxviz as ov
from exported_networks import EXPORTS, QUICK, Export, Network, export, network
from onnxviz.methods.gradient import derive

ROWS = 3
SMOOTH = 2e-6
"""Relative L2 error against float64 where the derivative is continuous."""
ROUNDING = 2
"""How many times torch's own float32 error is allowed where that is larger: some networks amplify rounding."""
FLIPS = 2e-2
"""Relative L2 error of a few units on the other side of their kinks."""


@functools.cache
def expected(family: str) -> tuple[Network, dict[str, np.ndarray], np.ndarray, np.ndarray, float]:
    """The network, a batch, the seed, torch's gradient in float64, and torch's float32 error."""
    built = network(family)
    feeds = built.inputs(ROWS, seed=1)
    weights = np.random.default_rng(2).standard_normal(logits_shape(built, feeds)).astype(np.float32)
    exact = torch_gradient(built, feeds, weights, "float64")
    single = torch_gradient(built, feeds, weights, "float32")
    return built, feeds, weights, exact, relative(single, exact)


def logits_shape(built: Network, feeds: dict[str, np.ndarray]) -> tuple[int, ...]:
    import torch

    with torch.no_grad():
        return tuple(built.module(*(torch.from_numpy(array) for array in feeds.values())).shape)


def torch_gradient(built: Network, feeds: dict[str, np.ndarray], weights: np.ndarray, precision: str) -> np.ndarray:
    import torch

    dtype = getattr(torch, precision)
    module = network(built.family).module.to(dtype)
    (array,) = feeds.values()
    given = torch.from_numpy(array)
    if given.is_floating_point():
        given = given.to(dtype).requires_grad_(True)
    held: list[Any] = []
    if built.embedding is not None:

        def keep(_module: Any, _inputs: Any, output: Any) -> Any:
            leaf = output.detach().requires_grad_(True)
            held.append(leaf)
            return leaf

        module.get_submodule(built.embedding).register_forward_hook(keep)
    logits = module(given)
    by = held[0] if held else given
    (found,) = torch.autograd.grad(logits, by, torch.from_numpy(weights).to(dtype))
    return found.to(torch.float64).numpy()


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - wanted) / np.linalg.norm(wanted))


def error_of(wanted: Export) -> tuple[float, float, bool]:
    """Our error, torch's float32 error, and whether the network is smooth."""
    built, feeds, weights, exact, single = expected(wanted.family)
    path = export(wanted)
    model = ov.load(path)
    wrt = None
    if built.wrt is not None:
        wrt = [built.wrt(model.loaded.proto)]
    (array,) = feeds.values()
    found = derive(model, array, {"logits": weights}, wrt=wrt)
    (gradient,) = found.gradients.values()
    assert gradient.shape == exact.shape
    return relative(gradient, exact), single, built.smooth


@pytest.mark.parametrize(
    "wanted",
    [pytest.param(wanted, id=wanted.id, marks=() if wanted in QUICK else pytest.mark.slow) for wanted in EXPORTS],
)
def test_gradient_of_an_export_is_torchs(wanted: Export, torch: Any) -> None:
    error, single, smooth = error_of(wanted)
    assert error <= allowed(single, smooth=smooth), f"{error:.1e}, torch {single:.1e}"


def allowed(single: float, *, smooth: bool) -> float:
    """The error that is nobody's fault, from torch's float32 error."""
    return max(SMOOTH, ROUNDING * single) if smooth else max(SMOOTH, ROUNDING * single, FLIPS)
