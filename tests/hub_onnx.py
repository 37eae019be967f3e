"""The ONNX graph of the tiny cross-encoders: one transformer layer, written out operation by operation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

HIDDEN = 16
HEADS = 2
INTERMEDIATE = 32
POSITIONS = {"bert": 64, "xlm-roberta": 64}
"""Tokens that each family reads."""


class _Graph:
    """Collects nodes and constants; every operation returns the name of its result."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]], epsilon: float) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
        self._epsilon = epsilon

    def constant(self, value: object, dtype: type[np.generic]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def linear(self, name: str, x: str) -> str:
        return self.op("Add", self.op("MatMul", x, self.op("Transpose", f"{name}.weight")), f"{name}.bias")

    def norm(self, name: str, x: str) -> str:
        return self.op("LayerNormalization", x, f"{name}.weight", f"{name}.bias", epsilon=self._epsilon)

    def heads(self, x: str, order: tuple[int, ...]) -> str:
        shape = self.constant([0, 0, HEADS, HIDDEN // HEADS], np.int64)
        return self.op("Transpose", self.op("Reshape", x, shape), perm=order)


def write_onnx(path: Path, weights: Mapping[str, NDArray[np.float32]], family: str) -> None:
    """Write the graph; BERT takes ``token_type_ids`` as a third input, XLM-R does not."""
    bert = family == "bert"
    root = "bert" if bert else "roberta"
    graph = _Graph(weights, epsilon=1e-12 if bert else 1e-5)
    x = _encoder_layer(graph, f"{root}.encoder.layer.0", _embeddings(graph, root))
    first = graph.op("Gather", x, graph.constant(0, np.int64), axis=1)
    pooled = graph.op("Tanh", graph.linear("bert.pooler.dense" if bert else "classifier.dense", first))
    graph.op("Identity", graph.linear("classifier" if bert else "classifier.out_proj", pooled))

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if bert else [])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    graph.nodes[-1].output[0] = "logits"
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])
    body = helper.make_graph(graph.nodes, f"tiny-{family}", inputs, [output], graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True)
    onnx.save(model, str(path))


def _embeddings(graph: _Graph, root: str) -> str:
    table = f"{root}.embeddings"
    words = graph.op("Gather", f"{table}.word_embeddings.weight", "input_ids")
    if root == "bert":
        types = graph.op("Gather", f"{table}.token_type_embeddings.weight", "token_type_ids")
        length = graph.op("Gather", graph.op("Shape", "input_ids"), graph.constant(1, np.int64))
        zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
        positions = graph.op("Range", zero, length, one)
    else:
        types = graph.op("Gather", f"{table}.token_type_embeddings.weight", graph.constant([0], np.int64))
        counted = graph.op("CumSum", "attention_mask", graph.constant(1, np.int64))
        padding = graph.constant(1, np.int64)
        positions = graph.op("Add", graph.op("Mul", counted, "attention_mask"), padding)
    places = graph.op("Gather", f"{table}.position_embeddings.weight", positions)
    return graph.norm(f"{table}.LayerNorm", graph.op("Add", graph.op("Add", words, types), places))


def _encoder_layer(graph: _Graph, layer: str, x: str) -> str:
    attention = f"{layer}.attention"
    query = graph.heads(graph.linear(f"{attention}.self.query", x), (0, 2, 1, 3))
    key = graph.heads(graph.linear(f"{attention}.self.key", x), (0, 2, 3, 1))
    value = graph.heads(graph.linear(f"{attention}.self.value", x), (0, 2, 1, 3))
    scale = graph.constant((HIDDEN // HEADS) ** 0.5, np.float32)
    scores = graph.op("Div", graph.op("MatMul", query, key), scale)
    seen = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden = graph.op("Mul", graph.op("Sub", graph.constant(1, np.float32), seen), graph.constant(-1e30, np.float32))
    mask = graph.op("Unsqueeze", hidden, graph.constant([1, 2], np.int64))
    mixed = graph.op("MatMul", graph.op("Softmax", graph.op("Add", scores, mask), axis=-1), value)
    joined = graph.op("Transpose", mixed, perm=(0, 2, 1, 3))
    joined = graph.op("Reshape", joined, graph.constant([0, 0, HIDDEN], np.int64))
    x = graph.norm(
        f"{attention}.output.LayerNorm", graph.op("Add", x, graph.linear(f"{attention}.output.dense", joined))
    )
    inner = graph.op("Gelu", graph.linear(f"{layer}.intermediate.dense", x))
    return graph.norm(f"{layer}.output.LayerNorm", graph.op("Add", x, graph.linear(f"{layer}.output.dense", inner)))
