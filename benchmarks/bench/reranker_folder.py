"""The bundled cross-encoder in the formats that other libraries load: the same weights for all.

The graph that ships has matrices of 8 bits. For torch they are multiplied out again, so what sentence-transformers
runs is the network that the graph stands for, in float32. `fastembed` and FlashRank are given the graph itself.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

Tensors = dict[str, NDArray[np.float32]]

MODEL_TYPE = "starter-reranker"
FLASHRANK_NAME = "ms-marco-MiniLM-L-12-v2"
"""FlashRank opens only models that it knows by name, and downloads those whose folder is not there."""

_FLASHRANK_FILE = "flashrank-MiniLM-L-12-v2_Q.onnx"
_READS = 512
_PLAIN = re.compile(r"embeddings__|encoder__layer__|across__|head__")
_WIDTH = 2  # dimensions of a matrix


def network_of_graph(graph: Path) -> tuple[Tensors, dict[str, int]]:
    """Parameters and shape of `retrieval.training.reranker.network`, read out of an exported and rounded graph.

    Raises:
        ValueError: The graph is not laid out as the export of this project lays it out.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(graph)).graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in model.initializer}
    tensors = {_dotted(name): value.astype(np.float32) for name, value in constants.items() if _PLAIN.match(name)}
    readers: dict[str, list[Any]] = {}
    makers: dict[str, Any] = {}
    for node in model.node:
        makers.update(dict.fromkeys(node.output, node))
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.node:
        if node.op_type == "MatMulInteger":
            bias, weight = _matrix(node, constants, readers, makers)
            tensors[bias.replace(".bias", ".weight")] = weight
    tensors["embeddings.word_embeddings.weight"] = _words(constants)
    openings = _openings(constants)
    tensors["across.opening"], tensors["across.match"] = np.stack(openings[::2]), np.stack(openings[1::2])
    tensors["head.scale"] = _head_scale(model, constants)
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer."))
    heads = tensors["across.opening"].shape[1]
    return tensors, {"layers": layers, "heads": heads, "separate": layers - len(openings) // 2}


def _dotted(name: str) -> str:
    return name.removesuffix("_float16").replace("__", ".")


def _matrix(
    node: Any, constants: Mapping[str, Any], readers: Mapping[str, list[Any]], makers: Mapping[str, Any]
) -> tuple[str, NDArray[np.float32]]:
    """Name of the bias that is added to a product of 8 bits, and its matrix in float32, (outputs, inputs)."""
    name = node.input[1].removesuffix("_quantized")
    whole = constants[f"{name}_quantized"].astype(np.float32) - constants[f"{name}_zero_point"].astype(np.float32)
    matrix = whole * constants[f"{name}_scale"].astype(np.float32)
    rounded = makers[node.input[0]]  # DynamicQuantizeLinear
    before = makers.get(rounded.input[0])
    even = [constants[part] for part in before.input if part in constants] if before is not None else []
    if before is not None and before.op_type == "Mul" and even:  # smoothing divides what the matrix multiplies
        matrix = matrix * even[0].astype(np.float32)[:, None]
    after = node.output[0]
    for _ in range(4):
        (reader,) = readers[after]
        found = [part for part in reader.input if part.endswith("__bias") and part in constants]
        if found:
            return _dotted(found[0]), np.ascontiguousarray(matrix.T)
        after = reader.output[0]
    raise ValueError(f"no bias is added to the product {node.name} of the graph")


def _words(constants: Mapping[str, Any]) -> NDArray[np.float32]:
    rows = [value for value in constants.values() if value.dtype == np.int8 and value.ndim == _WIDTH]
    table = max(rows, key=len)
    scales = [value for value in constants.values() if value.shape == (len(table), 1)]
    if len(scales) != 1:
        raise ValueError("the graph has no table of token vectors with one scale for each row")
    words: NDArray[np.float32] = table.astype(np.float32) * scales[0].astype(np.float32)
    return words


def _openings(constants: Mapping[str, Any]) -> list[NDArray[np.float32]]:
    """One weight a head for looking across and one for the same token, layer by layer, in the order of the export."""
    found = {name: value for name, value in constants.items() if value.ndim == 3 and value.shape[1:] == (1, 1)}
    names = sorted(found, key=lambda name: int(re.sub(r"\D", "", name)))
    if not names or len(names) % 2:
        raise ValueError(f"the graph has {len(names)} openings between the segments, not two for each layer")
    return [found[name].reshape(-1).astype(np.float32) for name in names]


def _head_scale(model: Any, constants: Mapping[str, Any]) -> NDArray[np.float32]:
    """The two numbers that multiply a sum at the head, in the order of the export."""
    scales = [
        constants[name]
        for node in model.node
        for name in node.input
        if node.op_type == "Mul" and name.startswith("select_") and name in constants
    ]
    if len(scales) != 2:
        raise ValueError(f"the head of the graph has {len(scales)} scales, not 2")
    return np.array([float(scale) for scale in scales], np.float32)


def write_folders(model: Path, target: Path) -> None:
    """``torch``, ``fastembed`` and ``flashrank`` in the target: the cross-encoder of a folder for each of them."""
    tensors, shape = network_of_graph(model / "model.onnx")
    _write_torch(tensors, shape, model, target / "torch")
    _write_onnx(model, target / "fastembed", "model.onnx")
    _write_onnx(model, target / "flashrank" / FLASHRANK_NAME, _FLASHRANK_FILE)


def _write_torch(tensors: Tensors, shape: Mapping[str, int], model: Path, folder: Path) -> None:
    _write_tokenizer(model, folder)
    named = {name.replace(".", "__"): np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(named, str(folder / "model.safetensors"), {"format": "pt"})
    config = {
        "model_type": MODEL_TYPE,
        "architectures": ["StarterReranker"],
        "num_labels": 1,
        "max_position_embeddings": _READS,
        "pad_token_id": 0,
        "network": dict(shape),
        "tensors": {name: list(value.shape) for name, value in named.items()},
    }
    _write_json(folder / "config.json", config)


def _write_onnx(model: Path, folder: Path, name: str) -> None:
    _write_tokenizer(model, folder)
    shutil.copyfile(model / "model.onnx", folder / name)
    _write_json(folder / "config.json", {"model_type": "bert", "pad_token_id": 0, "num_labels": 1})


def _write_tokenizer(model: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    special = {name: token for name, token in special.items() if tokenizer.token_to_id(token) is not None}
    _write_json(folder / "special_tokens_map.json", special)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": _READS, "model_input_names": inputs}
    settings |= special
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
