"""A graph comes in; the same graph with scores for outputs in place of ZipMaps, and the class names, go out."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, TensorProto, helper

from onnxviz.graph.values import infer_types

__all__ = ["take_off_zip_maps"]

_OPSET = 13  # of Identity and Flatten, for files that use no standard operator, and so state no version of them


def take_off_zip_maps(proto: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Have every output that a ZipMap makes be the scores that the ZipMap reads, in place.

    Azure Custom Vision, sklearn-onnx and the converters for Windows ML end a classifier in one: it turns each row of
    scores into a map of class name to score, which can be neither compared nor derived nor drawn, and tells nothing
    that scores and names do not.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model, functions inlined.

    Returns
    -------
    dict of output name to tuple of str
        The class names of each such output, integers as text.
    """
    outputs = {value.name: value for value in proto.graph.output}
    ends = [
        node
        for node in proto.graph.node
        if (node.domain, node.op_type) == ("ai.onnx.ml", "ZipMap")
        and len(node.input) == len(node.output) == 1
        and node.output[0] in outputs
    ]
    if not ends:
        return {}
    types = infer_types(proto)
    class_names = {}
    for node in ends:
        names = _names(node)
        class_names[node.output[0]] = names
        scores = types.get(node.input[0])
        del node.attribute[:]
        node.op_type, node.domain = "Identity", ""
        if scores is not None and len(scores.tensor_type.shape.dim) == 1:
            # A lone row, of which ZipMap makes one map.
            node.op_type = "Flatten"
            node.attribute.append(helper.make_attribute("axis", 0))
        if scores is None or len(scores.tensor_type.shape.dim) != 2:
            scores = helper.make_tensor_type_proto(TensorProto.FLOAT, (None, len(names) or None))
        outputs[node.output[0]].type.CopyFrom(scores)
    if not any(entry.domain in ("", "ai.onnx") for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("", _OPSET))
    return {output: names for output, names in class_names.items() if names}


def _names(node: onnx.NodeProto) -> tuple[str, ...]:
    given = {entry.name: entry for entry in node.attribute}
    texts, numbers = (given.get(name, AttributeProto()) for name in ("classlabels_strings", "classlabels_int64s"))
    return tuple(name.decode("utf-8", "replace") for name in texts.strings) or tuple(map(str, numbers.ints))
