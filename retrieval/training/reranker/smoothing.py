"""Making activations easy to round: large channels get smaller, and the matrices that read them larger.

A graph that is rounded to 8 bits when it runs has one scale for all activations of a product, so a few channels with
large values leave few steps for the others. Dividing each channel by a number and multiplying the row of the matrix
with it changes no result in float, and evens out the channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.telemetry import refuse_telemetry
from retrieval.training.reranker.batches import INPUTS, TokenPair, pad_pairs

SHARE = 0.8
"""How much of the range moves from the activations into the matrices; .75 to .9 agreed alike, .5 and 1 less."""

_SMALLEST = 1e-5


def smooth_graph(source: Path, target: Path, pairs: Sequence[TokenPair], share: float = SHARE) -> None:
    """Write a graph with the same results whose matrix products have channels of similar range.

    Args:
        source: Graph in float.
        target: Where the new one is written.
        pairs: Pairs whose activations are measured.
        share: From 0, everything stays in the activations, to 1.

    Source:
        SmoothQuant, https://arxiv.org/abs/2211.10438
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    constants = {constant.name: constant for constant in model.graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            readers.setdefault(node.input[0], []).append(node)
    ranges = channel_ranges(model, list(readers), pairs)
    before: dict[str, Any] = {}
    for name, nodes in readers.items():
        matrices = [numpy_helper.to_array(constants[node.input[1]]) for node in nodes]
        rows = np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0)
        scales = ranges[name] ** share / np.maximum(rows, _SMALLEST) ** (1.0 - share)
        scales = (scales / np.exp(np.log(scales).mean())).astype(np.float32)
        for node, matrix in zip(nodes, matrices, strict=True):
            scaled = numpy_helper.from_array((matrix * scales[:, None]).astype(np.float32), node.input[1])
            constants[node.input[1]].CopyFrom(scaled)
            node.input[0] = f"{name}_even"
        model.graph.initializer.append(numpy_helper.from_array(1.0 / scales, f"{name}_scales"))
        product = helper.make_node("Mul", [name, f"{name}_scales"], [f"{name}_even"], name=f"{name}_smoothing")
        before[nodes[0].output[0]] = product
    ordered = [part for node in model.graph.node for part in (before.get(node.output[0]), node) if part is not None]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    onnx.save(model, str(target))


def channel_ranges(model: Any, names: list[str], pairs: Sequence[TokenPair]) -> dict[str, FloatArray]:
    """Largest absolute value of each channel of activations.

    Args:
        model: A graph of ONNX.
        names: Activations of it.
        pairs: What is run.

    Returns:
        float32 (channels,) for each name.
    """
    refuse_telemetry()
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session: Any = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    ranges: dict[str, FloatArray] = {}
    for pair in pairs:
        values = session.run(names, dict(zip(INPUTS, pad_pairs([pair]), strict=True)))
        for name, value in zip(names, values, strict=True):
            most = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            ranges[name] = np.maximum(ranges.get(name, _SMALLEST), most)
    return ranges
