"""A graph comes in; which input is the image and which output holds the class scores go out, each with the reason."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxviz.graph.landmarks import is_normalized_embedding, squashing_node
from onnxviz.graph.values import GraphInput, Shape, Value, graph_inputs, graph_outputs
from onnxviz.graph.wiring import PASS_THROUGH, Wiring, attribute

__all__ = ["ClassOutput", "ImageInput", "explain_no_image_input", "find_class_output", "find_image_input"]

_IMAGE_TYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int8", "uint16", "int16")
_COLOURS = (1, 3, 4)
_CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv")
# Operators of which the standard says that axis 1 holds the channels.
_CHANNEL_FIRST = (
    *_CONVOLUTIONS, "MaxPool", "AveragePool", "BatchNormalization", "InstanceNormalization", "LRN",
    "GroupNormalization", "ConvTranspose", "SpaceToDepth", "GlobalAveragePool", "Upsample",
)  # fmt: skip
_ARITHMETIC = (
    "Sub", "Mul", "Div", "Add", "BatchNormalization", "InstanceNormalization", "ImageScaler", "Affine", "Scale",
)  # fmt: skip
_TRANSPARENT = PASS_THROUGH - {"Reshape", "Flatten", "Squeeze", "Unsqueeze"} | {
    "Pad", "Resize", "Clip", "Gather", "Slice", "Concat", "Split", "Relu", "Neg", "Sqrt", "Pow", "LeakyRelu",
}  # fmt: skip
_QUANTIZED_ONE_INPUT = ("QLinearSoftmax", "QLinearSigmoid", "QLinearGlobalAveragePool", "QLinearAveragePool")
# Numbers of classes that well-known sets have; a fully connected layer of another width may make an embedding.
_KNOWN_CLASSES = frozenset(
    {2, 5, 6, 7, 10, 20, 21, 37, 43, 47, 62, 80, 81, 90, 91, 100, 101, 102, 120, 196, 200, 257, 345, 365, 397, 400, 600,
     1000, 1001, 10450, 11221, 11821, 21841, 21843}
)  # fmt: skip
_CLASS_WORDS = ("prob", "logit", "class", "softmax", "score", "pred", "label")


@dataclass(frozen=True)
class ImageInput:
    """The input that takes the image."""

    name: str
    dtype: str
    layout: str
    """``"NCHW"`` or ``"NHWC"``."""
    channels: int
    """1, 3 or 4."""
    height: int | None
    width: int | None
    """Pixels; None where the graph leaves them open."""
    why: str
    guessed: bool
    normalises_itself: bool
    """The graph begins by scaling or shifting the pixels by constants."""
    quantization: tuple[float, int] | None
    """(scale, zero point) of an integer input: real number = (stored - zero point) × scale."""


@dataclass(frozen=True)
class ClassOutput:
    """The output that holds one score per class."""

    name: str
    dtype: str
    classes: int | None
    softmax: bool
    """The scores leave a Softmax or a Sigmoid: they are probabilities."""
    quantization: tuple[float, int] | None
    """(scale, zero point) of an integer output: real number = (stored - zero point) × scale."""
    why: str
    guessed: bool


@dataclass(frozen=True)
class _Path:
    """What the first operators that read an input tell about it."""

    layout: str | None = None
    told_by: str = ""
    channels: int | None = None
    arithmetic: bool = False
    quantization: tuple[float, int] | None = None


def find_image_input(proto: onnx.ModelProto) -> ImageInput | None:
    """Find the input that takes the image, and its layout.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.

    Returns
    -------
    ImageInput or None
        Among the inputs of four axes with 1, 3 or 4 channels, the one that a convolution sees. None where there is
        none; :func:`explain_no_image_input` then says why.
    """
    wiring = Wiring(proto)
    found = [image for entry in graph_inputs(proto) if (image := _judge(entry, wiring)) is not None]
    if not found:
        return None
    if len(found) == 1:
        return found[0][1]
    ranked = sorted(found, key=lambda pair: -pair[0])
    best, chosen = ranked[0]
    if best > ranked[1][0]:
        return chosen
    others = ", ".join(repr(other.name) for _, other in ranked[1:])
    return ImageInput(
        chosen.name, chosen.dtype, chosen.layout, chosen.channels, chosen.height, chosen.width,
        f"{chosen.why}; the first of several like it (also {others})", guessed=True,
        normalises_itself=chosen.normalises_itself, quantization=chosen.quantization,
    )  # fmt: skip


def explain_no_image_input(proto: onnx.ModelProto) -> str:
    """Why none of the inputs can take a photograph, in words for the reader of a report."""
    found = find_image_input(proto)
    if found is not None:
        return f"the model takes no photograph: {found.name!r} has {found.channels} channels, a photograph has 1 or 3"
    reasons = []
    for entry in graph_inputs(proto):
        if entry.dtype not in _IMAGE_TYPES:
            reasons.append(f"{entry.name!r} takes {entry.dtype or 'values of an unknown type'}, not pixels")
        elif entry.shape is not None and len(entry.shape) != 4:
            axes = len(entry.shape)
            reasons.append(f"{entry.name!r} has {axes} axes, an image has four (batch, channels, height, width)")
        else:
            reasons.append(f"{entry.name!r} has shape {_written(entry.shape)}, without an axis of 1, 3 or 4 channels")
    return f"the model takes no image: {'; '.join(reasons) if reasons else 'it has no input'}"


def _judge(entry: GraphInput, wiring: Wiring) -> tuple[int, ImageInput] | None:
    if entry.dtype not in _IMAGE_TYPES:
        return None
    if entry.shape is not None and len(entry.shape) != 4:
        return None
    path = _follow(entry.name, wiring)
    if entry.shape is None and path.layout is None:
        return None
    sides = entry.shape or (None, None, None, None)
    first, last = (side if isinstance(side, int) else None for side in (sides[1], sides[3]))
    guessed = False
    if path.layout is not None and _fits(sides, path):
        layout, why = path.layout, path.told_by
    elif first in _COLOURS and last not in _COLOURS:
        layout, why = "NCHW", f"its shape {_written(entry.shape)} has the channels in second place"
    elif last in _COLOURS and first not in _COLOURS:
        layout, why = "NHWC", f"its shape {_written(entry.shape)} has the channels in last place"
    elif first in _COLOURS or first is None:
        layout, why, guessed = "NCHW", f"neither the graph nor the shape {_written(entry.shape)} tells the layout", True
    else:
        return None
    axis = 1 if layout == "NCHW" else 3
    stated = sides[axis] if isinstance(sides[axis], int) else path.channels
    channels = stated if isinstance(stated, int) and stated > 0 else None
    if channels is None:
        if path.layout is None:
            return None
        channels, guessed = 3, True
        why += "; the number of channels is not stated, three are assumed"
    if channels not in _COLOURS:
        return None
    height, width = sides[2:4] if layout == "NCHW" else sides[1:3]
    image = ImageInput(
        name=entry.name, dtype=entry.dtype, layout=layout, channels=channels,
        height=height if isinstance(height, int) and height > 0 else None,
        width=width if isinstance(width, int) and width > 0 else None,
        why=why, guessed=guessed, normalises_itself=path.arithmetic, quantization=path.quantization,
    )  # fmt: skip
    rank = 4 * (path.channels is not None) + 2 * (channels == 3) + (path.layout is not None)
    return rank, image


def _fits(sides: Shape, path: _Path) -> bool:
    side = sides[1 if path.layout == "NCHW" else 3]
    return not isinstance(side, int) or side in _COLOURS


def _written(shape: Shape | None) -> str:
    if shape is None:
        return "unknown"
    return "×".join("?" if side is None else str(side) for side in shape)


def _follow(name: str, wiring: Wiring) -> _Path:
    """Walk from an input through scaling, casting and transposing to the first operator that knows channels."""
    layout, told_by, arithmetic = None, "", False
    quantization = None
    queue = deque([name])
    seen = {name}
    while queue:
        current = queue.popleft()
        for node in wiring.readers.get(current, []):
            if not node.input or (node.input[0] != current and node.op_type not in _ARITHMETIC):
                continue
            if node.op_type in _ARITHMETIC:
                others = [other for other in node.input if other and other != current]
                arithmetic = arithmetic or all(other in wiring.constant_names for other in others)
            elif node.op_type == "DequantizeLinear":
                quantization = quantization or quantization_of(node, wiring)
            elif node.op_type == "Transpose" and layout is None and tuple(attribute(node, "perm", ())) == (0, 3, 1, 2):
                layout = "NHWC"
                told_by = "its first Transpose moves the channels from the last place to the second"
            if node.op_type in _CHANNEL_FIRST and node.op_type not in _ARITHMETIC:
                if node.op_type == "QLinearConv":
                    quantization = quantization or _stated_quantization(node.input[1], node.input[2], wiring)
                if layout is None:
                    layout, told_by = "NCHW", f"its first {node.op_type} has the channels in second place"
                return _Path(layout, told_by, _input_channels(node, wiring), arithmetic, quantization)
            if node.op_type in _TRANSPARENT or node.op_type in _ARITHMETIC or node.op_type == "Transpose":
                fresh = [output for output in node.output if output and output not in seen]
                seen.update(fresh)
                queue.extend(fresh)
    return _Path(layout, told_by, None, arithmetic, quantization)


def _input_channels(node: onnx.NodeProto, wiring: Wiring) -> int | None:
    """Channels that a convolution reads: its weights are (out, in / groups, ...)."""
    if node.op_type not in _CONVOLUTIONS:
        return None
    weights = node.input[3 if node.op_type == "QLinearConv" else 1]
    stored = wiring.initializers.get(weights)
    shape = list(stored.dims) if stored is not None else None
    if shape is None:
        folded = wiring.constant(weights)
        shape = list(folded.shape) if folded is not None else None
    return int(shape[1]) * int(attribute(node, "group", 1)) if shape is not None and len(shape) > 1 else None


def quantization_of(node: onnx.NodeProto, wiring: Wiring) -> tuple[float, int] | None:
    """(scale, zero point) of a QuantizeLinear or DequantizeLinear with one scale for the whole tensor."""
    return _stated_quantization(node.input[1], node.input[2] if len(node.input) > 2 else "", wiring)


def _stated_quantization(scale_name: str, zero_name: str, wiring: Wiring) -> tuple[float, int] | None:
    scale = wiring.constant(scale_name)
    zero = wiring.constant(zero_name) if zero_name else None
    if scale is None or scale.size != 1 or (zero_name and (zero is None or zero.size != 1)):
        return None
    return float(scale.ravel()[0]), int(zero.ravel()[0]) if zero is not None else 0


def find_class_output(
    proto: onnx.ModelProto, *, class_names: Mapping[str, Sequence[str]] | None = None
) -> ClassOutput | None:
    """Find the output that holds one score per class.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    class_names : mapping of output name to names, optional
        Outputs of which the file itself says that they hold the scores of these classes.

    Returns
    -------
    ClassOutput or None
        An output with one row of at least two numbers per image (one number where it leaves a Sigmoid), preferring
        those whose classes the file names, then those that leave a Softmax; boxes, maps and sequences are not class
        scores. ``guessed`` where a feature vector would look the same.
    """
    wiring = Wiring(proto)
    inputs, outputs, names = graph_inputs(proto), graph_outputs(proto), class_names or {}
    judged = [
        entry for value in outputs if (entry := _judge_output(value, wiring, inputs, names.get(value.name))) is not None
    ]
    if not judged:
        return None
    judged.sort(key=lambda entry: -entry[0])
    best, output = judged[0]
    if len(judged) > 1:
        rivals = [other.name for rank, other in judged[1:] if rank == best]
        if rivals:
            output = ClassOutput(
                output.name, output.dtype, output.classes, output.softmax, output.quantization,
                f"{output.why}; the first of several like it (also {', '.join(map(repr, rivals))})", guessed=True,
            )  # fmt: skip
    return output


def _judge_output(
    value: Value, wiring: Wiring, inputs: Sequence[GraphInput], names: Sequence[str] | None
) -> tuple[int, ClassOutput] | None:
    quantized = value.dtype in ("uint8", "int8", "uint16", "int16")
    if not quantized and value.dtype not in ("float32", "float64", "float16", "bfloat16"):
        return None
    if value.kind in ("constant", "selection") or is_normalized_embedding(value.name, wiring):
        return None
    rows = value.shape[0] if value.shape else None
    if isinstance(rows, int) and rows != 1 and rows not in {entry.shape[0] for entry in inputs if entry.shape}:
        return None  # steps of a recurrent layer, perhaps, or boxes of one image
    squashed = squashing_node(wiring, value.name)
    softmax = squashed is not None and squashed != "LogSoftmax"
    classes = len(names) if names else _row_width(value.shape)
    layer = _last_layer(value.name, wiring)
    if classes is None:
        if value.shape is not None and not _open_row(value.shape):
            return None
        if squashed is None and layer is None:
            return None
    elif classes < 2 and not (classes == 1 and squashed == "Sigmoid"):
        return None
    quantization = _final_quantization(value.name, wiring) if quantized else None
    if quantized and quantization is None:
        return None  # integers whose meaning the graph does not tell, such as labels or a picture
    named = any(word in value.name.lower() for word in _CLASS_WORDS)
    if squashed is not None:
        why, guessed = f"one number for each of {_count(classes)} classes, leaving a {squashed}", False
    elif names:
        why, guessed = f"one number for each of {classes} classes", False
    elif layer is not None:
        guessed = classes not in _KNOWN_CLASSES and not named
        why = f"one number for each of {_count(classes)} classes, leaving the last {layer} without a Softmax"
        if guessed:
            why += "; a feature vector would look the same"
    else:
        why, guessed = f"{_count(classes)} numbers per image; no layer of a classifier was recognised", True
    if names:
        why += ", which the file names in a ZipMap"
    guessed = guessed or classes is None
    squashes_many = squashed is not None and classes != 1
    rank = 16 * bool(names) + 8 * squashes_many + 4 * (layer is not None) + 2 * named + (classes in _KNOWN_CLASSES)
    found = ClassOutput(value.name, value.dtype or "", classes, softmax, quantization, why, guessed)
    return rank, found


def _count(classes: int | None) -> str:
    return "an unstated number of" if classes is None else str(classes)


def _row_width(shape: Shape | None) -> int | None:
    """C for (N, C), (N, C, 1, 1), (N, 1, 1, C), (N, 1, C) and (1, N, C, 1): one row per image; None otherwise."""
    if shape is None or len(shape) < 2:
        return None
    wide = [side for side in shape[1:] if side != 1]
    if not wide:
        return 1
    return wide[0] if len(wide) == 1 and isinstance(wide[0], int) else None


def _open_row(shape: Shape) -> bool:
    """Whether the shape could be one row per image with an unstated width."""
    return len(shape) >= 2 and len([side for side in shape[1:] if side != 1]) == 1


def _last_layer(name: str, wiring: Wiring) -> str | None:
    passed = PASS_THROUGH | {
        "Transpose",
        "Relu",
        "Clip",
        "GlobalAveragePool",
        "AveragePool",
        "ReduceMean",
        "Normalizer",
    }
    while (node := wiring.producer.get(name)) is not None:
        if node.op_type in ("Gemm", "MatMul", "QGemm", "QLinearMatMul", "FusedMatMul", "MatMulNBits", "MatMulInteger"):
            return "fully connected layer"
        if node.op_type in _CONVOLUTIONS:
            return "convolution"
        if node.op_type in ("TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier"):
            return "classifier"
        constants = [entry for entry in node.input if entry in wiring.constant_names]
        shifted = node.op_type in ("Add", "Sub", "Mul", "Div") and len(constants) == len(node.input) - 1
        if node.op_type not in passed and not shifted:
            return None
        name = wiring.data_input(node)
    return None


def _final_quantization(name: str, wiring: Wiring) -> tuple[float, int] | None:
    while (node := wiring.producer.get(name)) is not None:
        if node.op_type == "QuantizeLinear":
            return quantization_of(node, wiring)
        if node.op_type in ("QLinearConv", "QLinearMatMul") and len(node.input) > 7:
            return _stated_quantization(node.input[6], node.input[7], wiring)
        if node.op_type in ("QLinearAdd", "QLinearMul") and len(node.input) > 7:
            return _stated_quantization(node.input[6], node.input[7], wiring)
        if node.op_type == "QGemm" and len(node.input) > 8:
            return _stated_quantization(node.input[7], node.input[8], wiring)
        if node.op_type in _QUANTIZED_ONE_INPUT and len(node.input) > 3:
            return _stated_quantization(node.input[3], node.input[4] if len(node.input) > 4 else "", wiring)
        if node.op_type not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose"):
            return None
        name = wiring.data_input(node)
    return None
