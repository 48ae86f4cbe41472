"""Derivatives of operators that move numbers: shapes, borders, slices and gathers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from operator_cases import FORMS, MOST, Cases, check_derivatives, ints
from random_arrays import RandomArrays

node = helper.make_node
random = RandomArrays(0)
floats, spaced = random.floats, random.spaced
CASES = Cases()
case, affine = CASES.case, CASES.affine

# Shapes.
affine("Reshape", "Reshape", {"x": floats(2, 3, 4)}, ["to"], constants={"to": ints(4, -1)})
affine("Reshape-zero", "Reshape", {"x": floats(2, 3, 4)}, ["to"], constants={"to": ints(0, -1)})
affine("Reshape-run", "Reshape", {"x": floats(2, 3, 4), "to": ints(4, 6)})
affine("Reshape-scalar", "Reshape", {"x": floats(1, 1)}, ["to"], constants={"to": ints()})
for axis in (0, 1, -1, 3):
    affine(f"Flatten-{axis}", "Flatten", {"x": floats(2, 3, 4)}, attributes={"axis": axis})
affine("Squeeze", "Squeeze", {"x": floats(1, 3, 1)}, free_sides={"x": [1, "m", 1]})
affine("Squeeze-axes", "Squeeze", {"x": floats(1, 3, 1)}, ["axes"], constants={"axes": ints(-1)})
affine("Unsqueeze", "Unsqueeze", {"x": floats(3, 2)}, ["axes"], constants={"axes": ints(0, -1)})
affine("Unsqueeze-scalar", "Unsqueeze", {"x": floats()}, ["axes"], constants={"axes": ints(0)})
affine("Transpose", "Transpose", {"x": floats(2, 3, 4)})
affine("Transpose-perm", "Transpose", {"x": floats(2, 3, 4, 1)}, attributes={"perm": [1, 2, 3, 0]})
affine("Transpose-same", "Transpose", {"x": floats(2, 3)}, attributes={"perm": [0, 1]})
for shape, to in (
    ((3, 1), (2, 3, 4)),
    ((1,), (2, 3)),
    ((2, 3), (1, 1)),
    ((2, 1, 3), (2, 4, 1)),
    ((), (2, 2)),
    ((2,), (2,)),
):
    affine(f"Expand-{shape}-{to}", "Expand", {"x": floats(*shape)}, ["to"], constants={"to": ints(*to)})
affine("Expand-run", "Expand", {"x": floats(3, 1), "to": ints(2, 3, 2)})
parts = {"x": floats(2, 3, 2), "z": floats(2, 1, 2), "w": floats(2, 2, 2)}
affine("Concat", "Concat", parts, wrt=["x", "z", "w"], attributes={"axis": 1})
affine("Concat-some", "Concat", parts, wrt=["z"], attributes={"axis": -2})
affine("Concat-ends", "Concat", parts, wrt=["x", "w"], attributes={"axis": 1})
affine("Concat-one", "Concat", {"x": floats(2, 3)}, attributes={"axis": 0})
affine("Concat-constant", "Concat", {"x": floats(2, 3)}, ["c"], constants={"c": floats(2, 2)}, attributes={"axis": 1})
case("Concat-twice", node("Concat", ["x", "x"], ["y"], axis=0), {"x": floats(2, 3)}, affine=True)
for used in (["a", "b", "c"], ["a"], ["b"], ["a", "c"]):
    split = node("Split", ["x", "sizes"], ["a", "b", "c"], axis=1)
    heads = [node("Mul", [name, name], [f"{name}2"]) for name in used]
    joined = node("Concat", [f"{name}2" for name in used], ["y"], axis=1)
    case(f"Split-{''.join(used)}", [split, *heads, joined], {"x": floats(2, 6)}, constants={"sizes": ints(1, 3, 2)})
split = node("Split", ["x"], ["a", "b", "c"], axis=-1, num_outputs=3)
case("Split-count", [split, node("Concat", ["c", "a"], ["y"], axis=-1)], {"x": floats(2, 7)}, affine=True)
case("Split-one", node("Split", ["x"], ["y"], num_outputs=1), {"x": floats(3, 2)}, affine=True)
for repeats in ([1, 2, 3], [1, 1, 1], [2, 1, 1], [1, 1, 2]):
    affine(f"Tile-{repeats}", "Tile", {"x": floats(2, 3, 2)}, ["r"], constants={"r": ints(*repeats)})
affine("Tile-run", "Tile", {"x": floats(2, 3), "r": ints(2, 3)})
affine("Tile-1d", "Tile", {"x": floats(3)}, ["r"], constants={"r": ints(3)})
for mode in ("DCR", "CRD"):
    affine(f"DepthToSpace-{mode}", "DepthToSpace", {"x": floats(2, 8, 2, 3)}, attributes={"blocksize": 2, "mode": mode})
affine("SpaceToDepth", "SpaceToDepth", {"x": floats(2, 3, 4, 6)}, attributes={"blocksize": 2})
for upper in (0, 1):
    affine(f"Trilu-{upper}", "Trilu", {"x": floats(2, 3, 4)}, ["k"], constants={"k": np.array(1)},
           attributes={"upper": upper})  # fmt: skip
affine("Trilu-plain", "Trilu", {"x": floats(3, 3)})
affine("ReverseSequence", "ReverseSequence", {"x": floats(4, 3, 2)}, ["lengths"], constants={"lengths": ints(1, 4, 3)})
affine("ReverseSequence-batch", "ReverseSequence", {"x": floats(3, 4)}, ["lengths"],
       constants={"lengths": ints(2, 4, 3)}, attributes={"batch_axis": 0, "time_axis": 1})  # fmt: skip
for to in ((7, 2), (2, 7), (5, 4), (4, 4)):
    affine(f"CenterCropPad-{to}", "CenterCropPad", {"x": floats(4, 5)}, ["to"], constants={"to": ints(*to)})
affine("CenterCropPad-axes", "CenterCropPad", {"x": floats(2, 5, 3)}, ["to"], constants={"to": ints(6, 2)},
       attributes={"axes": [-1, 1]})  # fmt: skip

# Borders.
for number, pads in enumerate(
    ([0, 1, 2, 0, 3, 1], [0, -1, 1, 0, 0, -1], [0] * 6, [1, 0, 0, 0, 0, 0], [0, -1, -1, 0, -1, 0])
):
    affine(f"Pad-{number}", "Pad", {"x": floats(2, 4, 3)}, ["pads"], constants={"pads": ints(*pads)})
    affine(f"Pad-run-{number}", "Pad", {"x": floats(2, 4, 3), "pads": ints(*pads)})
stored = {"pads": ints(1, 2, 0, 3), "axes": ints(-1, 1), "five": np.array(5, np.float32)}
affine("Pad-axes", "Pad", {"x": floats(2, 4, 3)}, ["pads", "five", "axes"], constants=stored)
case("Pad-axes-run", node("Pad", ["x", "pads", "", "axes"], ["y"]), {"x": floats(2, 4, 3), "axes": ints(-1, 1)},
     constants={"pads": ints(1, -1, 0, 3)}, affine=True)  # fmt: skip
for mode in ("reflect", "edge", "wrap"):
    for number, pads in enumerate(
        ([0, 1, 2, 0, 3, 1], [0, 0, 2, 0, 0, 0], [1, 3, 0, 1, 0, 0], [0, 2, 1, 0, 3, 2], [0] * 6)
    ):
        attributes = {"mode": mode}
        affine(f"Pad-{mode}-{number}", "Pad", {"x": floats(2, 4, 3)}, ["pads"], constants={"pads": ints(*pads)},
               attributes=attributes, opset=19)  # fmt: skip
    affine(f"Pad-{mode}-run", "Pad", {"x": floats(2, 4, 3), "pads": ints(0, 1, 2, 0, 3, 1)}, attributes=attributes,
           opset=19)  # fmt: skip
    case(f"Pad-{mode}-axes", node("Pad", ["x", "pads", "", "axes"], ["y"], mode=mode), {"x": floats(2, 4, 3)},
         constants={"pads": ints(1, 2, 0, 3), "axes": ints(-1, 1)}, affine=True, opset=19)  # fmt: skip

# Slices.


for number, (axes, starts, stops, steps) in enumerate((
    ([0], [1], [3], [1]), ([1], [-3], [-1], [1]), ([0, 1], [1, 0], [MOST, MOST], [1, 1]), ([1], [0], [MOST], [2]),
    ([1], [1], [5], [3]), ([0, 1], [0, 1], [MOST, MOST], [2, 2]), ([1], [-1], [-MOST], [-1]), ([1], [4], [0], [-2]),
    ([1], [MOST], [1], [-3]), ([0, 1], [-1, -2], [-MOST, -MOST], [-1, -2]), ([-1], [2], [2], [1]), ([1], [3], [1], [1]),
    ([1], [-100], [100], [1]), ([1], [-100], [-MOST], [-1]), ([0], [0], [100], [5]), ([1], [0], [MOST], [1]),
    ([0], [100], [-100], [-3]), ([1], [5], [6], [1]),
)):  # fmt: skip
    bounds = {"starts": ints(*starts), "stops": ints(*stops), "axes": ints(*axes), "steps": ints(*steps)}
    affine(f"Slice-{number}", "Slice", {"x": floats(4, 6)}, list(bounds), constants=bounds)
    affine(f"Slice-run-{number}", "Slice", {"x": floats(4, 6)} | bounds)
    clipped = {name: np.clip(held, -(2**31) + 1, 2**31 - 1).astype(np.int32) for name, held in bounds.items()}
    stored = {name: clipped.pop(name) for name in ("axes", "steps")}
    affine(f"Slice-bounds-run-{number}", "Slice", {"x": floats(4, 6)} | clipped, list(stored), constants=stored)
affine("Slice-no-axes", "Slice", {"x": floats(4, 3)}, ["a", "b"], constants={"a": ints(1, 1), "b": ints(3, 2)})
affine("Slice-3d", "Slice", {"x": floats(2, 3, 4)}, ["a", "b", "c", "d"],
       constants={"a": ints(3, 0), "b": ints(-MOST, 2), "c": ints(-1, 1), "d": ints(-2, 1)})  # fmt: skip

# Gathers.
for name, axis, indices in (
    ("repeated", 0, [0, 2, 2, -1]), ("matrix", 1, [[0, 1], [-1, 1]]), ("one", 1, [2]), ("negative", 1, [-2]),
    ("scalar", 0, 1), ("negative-scalar", -1, -1), ("order", 1, [2, 0, -2]), ("last", -1, [3, 3, 0]),
    ("single-matrix", 1, [[1]]), ("none", 1, []),
    ("same", 0, [1, 1, 1]),
):  # fmt: skip
    stored = {"i": np.array(indices, np.int64)}
    affine(f"Gather-{name}", "Gather", {"x": floats(3, 3, 4)}, ["i"], constants=stored, attributes={"axis": axis})
    affine(f"Gather-run-{name}", "Gather", {"x": floats(3, 3, 4)} | stored, attributes={"axis": axis})
affine("Gather-int32", "Gather", {"x": floats(4), "i": np.array([[0, -1], [0, 2]], np.int32)})
for axis, indices in ((0, [[0, 1, -1], [0, 0, 0]]), (1, [[0, -1], [2, 2], [1, 0]]), (-1, [[0, 0]])):
    numbers = {"x": floats(3, 3), "i": np.array(indices, np.int64)}
    affine(f"GatherElements-{axis}", "GatherElements", numbers, attributes={"axis": axis})
for name, shape, batch_dims, indices in (
    ("rows", (3, 4), 0, [[0], [-1], [0]]), ("elements", (3, 4), 0, [[0, 1], [-1, -2], [0, 1]]),
    ("batch", (2, 3, 4), 1, [[[0], [2]], [[-1], [-1]]]), ("batch-elements", (2, 3, 4), 1, [[[0, -1]], [[2, 0]]]),
    ("deep", (2, 3, 4), 0, [[[0, 1], [1, -1]], [[0, 1], [0, 0]]]),
    ("two-batches", (2, 2, 3), 2, [[[0], [1]], [[2], [-1]]]),
):  # fmt: skip
    numbers = {"x": floats(*shape), "i": np.array(indices, np.int64)}
    affine(f"GatherND-{name}", "GatherND", numbers, attributes={"batch_dims": batch_dims}, fixed=["i"])
for name, attributes in (
    ("last", {}),
    ("first", {"axis": 0}),
    ("smallest", {"axis": 1, "largest": 0}),
    ("any", {"sorted": 0}),
):
    case(f"TopK-{name}", node("TopK", ["x", "k"], ["y", "i"], **attributes), {"x": spaced(3, 4)}, pieces=True,
         constants={"k": ints(2)}, tolerance=1e-3)  # fmt: skip
for axis in (None, 0, -1):
    attributes = {} if axis is None else {"axis": axis}
    condition = {"c": np.array([True, False, True])}
    affine(f"Compress-{axis}", "Compress", {"x": floats(3, 4)} | condition, attributes=attributes)
for reduction in ("none", "add"):
    repeated = [[0, 2, -1], [1, 1, 0]] if reduction == "add" else [[0, 2, 1], [1, 0, -1]]
    numbers = {"x": floats(3, 3), "i": np.array(repeated, np.int64), "u": floats(2, 3)}
    attributes = {"axis": 1, "reduction": reduction}
    affine(f"ScatterElements-{reduction}", "ScatterElements", numbers, wrt=["x", "u"], attributes=attributes)
    rows = [[0], [-1], [0]] if reduction == "add" else [[0], [-1]]
    numbers = {"x": floats(3, 2), "i": np.array(rows, np.int64), "u": floats(len(rows), 2)}
    affine(f"ScatterND-{reduction}", "ScatterND", numbers, wrt=["x", "u"], attributes={"reduction": reduction})
pooled = [node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
          node("MaxUnpool", ["p", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2])]  # fmt: skip
case("MaxUnpool", pooled, {"x": spaced(1, 2, 4, 4)}, free_sides={"x": ["n", 2, "h", "w"]}, pieces=True, tolerance=1e-3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str, form: str) -> None:
    check_derivatives(CASES[name], form)
