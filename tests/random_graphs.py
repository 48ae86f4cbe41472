"""Small random graphs with dense random weights: every family of operator that moves or mixes positions, and branches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

Draw = Callable[..., object]


class Builder:
    """Appends nodes to a graph while it keeps the shape (1, channels, height, width) of the value that was made last."""

    def __init__(self, draw: Draw, shape: tuple[int, int, int, int]) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape = shape
        self.value = "x"
        self.jumps = False
        """Whether positions are folded, picked or hidden, so that a hull may hold some that are not seen to change."""
        self.uneven = False
        """Whether channels of one value reach differently far, so that one hull over all of them holds too much."""
        self.exchanged = False
        self.seed = int(draw(st.integers(0, 2**31)))  # type: ignore[call-overload]
        self.rng = np.random.default_rng(self.seed)

    def pick(self, *choices: object) -> object:
        return self.draw(st.sampled_from(choices))

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))  # type: ignore[call-overload]

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(self.rng.normal(size=shape).astype(np.float32))

    def add(self, op_type: str, *more: str, shape: tuple[int, ...] | None = None, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, [self.value, *more], [name], **attributes))
        self.value = name
        if shape is not None:
            self.shape = shape  # type: ignore[assignment]
        return name

    # -- one step of the graph: each returns False where the shape does not allow it -----------------------------------

    def convolution(self) -> bool:
        _, c, h, w = self.shape
        kernel, stride, dilation = self.number(1, 3), self.number(1, 3), self.number(1, 2)
        reach = (kernel - 1) * dilation + 1
        group = c if self.pick(True, False) else 1
        outputs = c if group > 1 else self.number(2, 4)
        weights = self.weights(outputs, c // group, kernel, kernel)
        # onnxruntime refuses SAME together with a dilation.
        auto = self.pick("NOTSET", "VALID", *(("SAME_UPPER", "SAME_LOWER") if dilation == 1 else ()))
        attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "group": group, "auto_pad": auto}
        pads = [0, 0, 0, 0]
        if auto == "NOTSET":
            pads = [self.number(0, 2) for _ in range(4)]
            attributes["pads"] = pads
        if str(auto).startswith("SAME"):
            shape = (1, outputs, -(-h // stride), -(-w // stride))
        else:
            shape = (
                1,
                outputs,
                (h + pads[0] + pads[2] - reach) // stride + 1,
                (w + pads[1] + pads[3] - reach) // stride + 1,
            )
        if min(shape) < 1:
            return False
        self.jumps |= dilation > 1 or stride > kernel
        self.add("Conv", weights, shape=shape, **attributes)
        return True

    def transposed_convolution(self) -> bool:
        _, c, h, w = self.shape
        kernel, stride, dilation = self.number(1, 3), self.number(1, 2), self.number(1, 2)
        pad, extra = self.number(0, 1), self.number(0, stride - 1)
        reach = (kernel - 1) * dilation + 1
        shape = (1, 3, *(stride * (n - 1) + extra + reach - 2 * pad for n in (h, w)))
        if min(shape) < 1 or max(shape) > 24:
            return False
        self.jumps |= dilation > 1 or stride > kernel
        self.add(
            "ConvTranspose", self.weights(c, 3, kernel, kernel), shape=shape, strides=[stride] * 2,
            dilations=[dilation] * 2, pads=[pad] * 4, output_padding=[extra] * 2,
        )  # fmt: skip
        return True

    def pool(self) -> bool:
        _, c, h, w = self.shape
        kernel, stride = self.number(1, 3), self.number(1, 3)
        ceil = self.number(0, 1)
        pad = self.number(0, kernel // 2)
        sizes = []
        for n in (h, w):
            room = n + 2 * pad - kernel
            if room < 0:
                return False
            size = -(-room // stride) + 1 if ceil else room // stride + 1
            # A window that would begin in the far padding is dropped.
            sizes.append(size - (ceil and (size - 1) * stride >= n + pad))
        if min(sizes) < 1:
            return False
        self.jumps |= stride > kernel
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": ceil}
        if self.pick(True, False):
            # With few channels a maximum hides a change more often than not; the averages below have the same reach.
            self.jumps = True
            self.add("MaxPool", shape=(1, c, *sizes), **attributes)
        else:
            self.add("AveragePool", shape=(1, c, *sizes), count_include_pad=self.number(0, 1), **attributes)
        return True

    def elementwise(self) -> bool:
        kind = self.pick("LeakyRelu", "scale", "Identity", "BatchNormalization", "LRN")
        c = self.shape[1]
        if kind == "scale":
            self.add("Mul", self.weights(c, 1, 1))
        elif kind == "BatchNormalization":
            positive = self.constant(np.ones(c, np.float32))
            self.add("BatchNormalization", positive, self.weights(c), self.weights(c), positive)
        elif kind == "LRN":
            # Small numbers, so that the normaliser neither vanishes nor swallows what it divides.
            self.add("LRN", size=3, alpha=1e-9, beta=0.5)
        else:
            self.add(str(kind))
        return True

    def branches(self) -> bool:
        """Two convolutions of different kernels side by side, joined over channels or added."""
        c = self.shape[1]
        start = self.value
        parts = []
        for kernel in (1, self.pick(3, 5)):
            self.value = start
            weights = self.weights(c, c, kernel, kernel)  # type: ignore[arg-type]
            parts.append(self.add("Conv", weights, pads=[kernel // 2] * 4))  # type: ignore[operator]
        self.value = parts[0]
        if self.pick(True, False):
            self.uneven = True
            self.add("Concat", parts[1], axis=1, shape=(1, 2 * c, *self.shape[2:]))
        else:
            self.add("Add", parts[1])
        return True

    def pad(self) -> bool:
        _, c, h, w = self.shape
        mode = self.pick("constant", "edge", "reflect")
        before, after = self.number(0, 2), self.number(0, 2)
        if mode == "reflect" and max(before, after) >= min(h, w):
            return False
        self.jumps |= mode == "reflect"
        amounts = self.constant(np.array([0, 0, before, after, 0, 0, after, before], np.int64))
        self.add("Pad", amounts, shape=(1, c, h + before + after, w + before + after), mode=mode)
        return True

    def cut(self) -> bool:
        _, c, h, w = self.shape
        step = int(self.pick(1, 2, -1))  # type: ignore[call-overload]
        if min(h, w) < 4:
            return False
        first, last = (1, h) if step > 0 else (h - 2, -(h + 1))
        length = len(range(h)[slice(first, last if step > 0 else None, step)])
        self.jumps |= step == 2
        self.add(
            "Slice", *(self.constant(np.array([n], np.int64)) for n in (first, last, 2, step)), shape=(1, c, length, w)
        )
        return True

    def resize(self) -> bool:
        c = self.shape[1]
        sizes = (self.number(2, 14), self.number(2, 14))
        mode = self.pick("nearest", "linear", "cubic")
        coordinates = self.pick("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        attributes: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": coordinates}
        if mode == "nearest":
            attributes["nearest_mode"] = self.pick("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        self.jumps = True
        self.add(
            "Resize", "", "", self.constant(np.array([1, c, *sizes], np.int64)), shape=(1, c, *sizes), **attributes
        )
        return True

    def blocks(self) -> bool:
        _, c, h, w = self.shape
        # A second exchange turns every other channel back into every other position: the hull between is too large.
        self.jumps |= self.exchanged
        self.exchanged = self.uneven = True
        if c % 4 == 0:
            self.add("DepthToSpace", blocksize=2, mode=self.pick("DCR", "CRD"), shape=(1, c // 4, 2 * h, 2 * w))
            return True
        if h % 2 or w % 2:
            return False
        self.add("SpaceToDepth", blocksize=2, shape=(1, 4 * c, h // 2, w // 2))
        return True

    def shuffle(self) -> bool:
        _, c, h, w = self.shape
        if c % 2:
            return False
        self.jumps |= self.exchanged
        self.add("Reshape", self.constant(np.array([0, 2, c // 2, h, w], np.int64)))
        self.add("Transpose", perm=[0, 2, 1, 3, 4])
        self.add("Reshape", self.constant(np.array([0, c, h, w], np.int64)))
        return True

    def other_layout(self) -> bool:
        """Channels last, a product over channels, and back."""
        _, c, h, w = self.shape
        self.add("Transpose", perm=[0, 2, 3, 1])
        self.add("MatMul", self.weights(c, 3))
        self.add("Transpose", perm=[0, 3, 1, 2], shape=(1, 3, h, w))
        return True

    def rows_only(self) -> bool:
        """Something that looks along one axis only: a mean over the width is added to every position."""
        start = self.value
        self.add("ReduceMean", axes=[3], keepdims=1)
        self.add("Add", start)
        return True

    def split(self) -> bool:
        """The two halves of the channels go different ways."""
        _, c, h, w = self.shape
        if c % 2:
            return False
        self.jumps |= self.exchanged
        self.uneven = True
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node("Split", [self.value], [name, name + "b"], axis=1))
        self.value = name
        self.add("Conv", self.weights(c // 2, c // 2, 3, 3), pads=[1] * 4)
        self.add("Concat", name + "b", axis=1, shape=(1, c, h, w))
        return True

    def model(self, shape: tuple[int, int, int, int]) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(shape))
        y = helper.make_value_info(self.value, onnx.TypeProto())
        graph = helper.make_graph(self.nodes, "random", [x], [y], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


STEPS = (
    "convolution", "convolution", "transposed_convolution", "pool", "elementwise", "branches", "pad", "cut", "resize",
    "blocks", "shuffle", "other_layout", "rows_only", "split",
)  # fmt: skip


@st.composite
def random_graphs(draw: Draw) -> tuple[onnx.ModelProto, Builder]:
    shape = (1, draw(st.integers(2, 4)), draw(st.integers(5, 12)), draw(st.integers(5, 12)))
    builder = Builder(draw, shape)  # type: ignore[arg-type]
    for _ in range(draw(st.integers(1, 4))):  # type: ignore[call-overload]
        getattr(builder, draw(st.sampled_from(STEPS)))()  # type: ignore[arg-type, call-overload]
    if not builder.nodes:
        builder.add("Identity")
    return builder.model(shape), builder  # type: ignore[arg-type]
