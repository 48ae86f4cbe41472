"""Exact sums: the same bytes in whatever order numbers come."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxviz.sums import exact_limbs, limbs_total

numbers = st.lists(st.floats(-1e70, 1e70, allow_subnormal=False), min_size=1, max_size=30)


@given(numbers)
def test_equals_the_correctly_rounded_sum(values: list[float]) -> None:
    kept = [value if abs(value) > 1e-60 else 0.0 for value in values]
    total = limbs_total(exact_limbs(np.array(kept)[:, None]))
    assert total[0] == math.fsum(kept)


@given(numbers, st.randoms(use_true_random=False))
def test_any_order_and_grouping_gives_the_same_limbs(values: list[float], random: object) -> None:
    array = np.array(values)[:, None]
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = array[order]
    cut = len(values) // 2
    parts = exact_limbs(shuffled[:cut]) + exact_limbs(shuffled[cut:]) if cut else exact_limbs(shuffled)
    assert np.array_equal(parts, exact_limbs(array))
