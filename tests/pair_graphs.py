"""Writes cross-encoders whose logits can be worked out on paper: small ONNX graphs over a tokenizer of whole words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "copper", "pipe", "leak", "star", "night", "bread"]
FIRST_WORD = 4

_INTEGERS = {"zero": 0, "one": 1, "lowest": FIRST_WORD, "separator": 3}

# How many pairs of equal words stand in query and text. Everything that is not a word of its side is masked out.
_SHARED_WORDS = [
    ("Cast", ["attention_mask"], "read", {"to": TensorProto.BOOL}),
    ("GreaterOrEqual", ["input_ids", "lowest"], "is_word", {}),
    ("And", ["read", "is_word"], "word", {}),
    ("Equal", ["token_type_ids", "one"], "second", {}),
    ("Not", ["second"], "first", {}),
    ("And", ["word", "first"], "in_query", {}),
    ("And", ["word", "second"], "in_text", {}),
    ("Unsqueeze", ["input_ids", "column"], "ids_down", {}),
    ("Unsqueeze", ["input_ids", "row"], "ids_across", {}),
    ("Equal", ["ids_down", "ids_across"], "same", {}),
    ("Unsqueeze", ["in_query", "column"], "query_down", {}),
    ("Unsqueeze", ["in_text", "row"], "text_across", {}),
    ("And", ["query_down", "text_across"], "across", {}),
    ("And", ["same", "across"], "shared", {}),
    ("Cast", ["shared"], "ones", {"to": TensorProto.FLOAT}),
    ("ReduceSum", ["ones", "cells"], "count", {"keepdims": 0}),
    ("Unsqueeze", ["count", "row"], "logits", {}),
]
# The sum of the token ids, rounded to 255 steps over the whole batch as dynamic int8 graphs round activations.
_ROUNDED_SUM = [
    ("Mul", ["input_ids", "attention_mask"], "kept", {}),
    ("Cast", ["kept"], "numbers", {"to": TensorProto.FLOAT}),
    ("Mul", ["numbers", "numbers"], "squares", {}),
    ("DynamicQuantizeLinear", ["squares"], ("steps", "scale", "offset"), {}),
    ("DequantizeLinear", ["steps", "scale", "offset"], "rounded", {}),
    ("ReduceSum", ["rounded", "row"], "logits", {"keepdims": 1}),
]
_LENGTH = [
    ("Mul", ["input_ids", "zero"], "nothing", {}),
    ("Add", ["nothing", "attention_mask"], "tokens", {}),
    ("ReduceSum", ["tokens", "row"], "count", {"keepdims": 1}),
    ("Cast", ["count"], "logits", {"to": TensorProto.FLOAT}),
]
_SEPARATORS = [
    ("Equal", ["input_ids", "separator"], "separates", {}),
    ("Cast", ["separates"], "marks", {"to": TensorProto.INT64}),
    ("Mul", ["marks", "attention_mask"], "tokens", {}),
    *_LENGTH[2:],
]
_TAILS: dict[str, list[tuple[str, list[str], Any, dict[str, Any]]]] = {
    # Two classes: the count and twice the count, so that the difference is the count again.
    "two": [("Add", ["logits", "logits"], "twice", {}), ("Concat", ["logits", "twice"], "out", {"axis": 1})],
    "three": [("Concat", ["logits", "logits", "logits"], "out", {"axis": 1})],
    # Zero by zero where nothing is shared, one otherwise.
    "nan": [("Div", ["logits", "logits"], "out", {})],
}


def write_shared_words(folder: Path, *, file: str = "model.onnx", tail: str = "", **config: Any) -> Path:
    """A logit is the number of pairs of equal words in query and text; ``tail`` changes the output."""
    return _write(folder, file, [*_SHARED_WORDS, *_TAILS.get(tail, [])], "out" if tail else "logits", config)


def write_rounded_sum(folder: Path) -> Path:
    """A logit is the sum of the squares of the token ids, rounded as the largest id of the batch asks for."""
    return _write(folder, "model.onnx", _ROUNDED_SUM, "logits", {})


def write_length(folder: Path, **config: Any) -> Path:
    """A logit is the number of tokens; the graph takes no ``token_type_ids``."""
    return _write(folder, "model.onnx", _LENGTH, "logits", config)


def write_separators(folder: Path) -> Path:
    """A logit is the number of ``[SEP]`` tokens, 2 for a pair."""
    return _write(folder, "model.onnx", _SEPARATORS, "logits", {})


def _write(folder: Path, file: str, nodes: Sequence[tuple[Any, ...]], output: str, config: dict[str, Any]) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    made: list[NodeProto] = [
        helper.make_node(kind, inputs, [outputs] if isinstance(outputs, str) else list(outputs), **attributes)
        for kind, inputs, outputs, attributes in nodes
    ]
    used = {name for node in made for name in node.input}
    constants = {name: np.array(value, dtype=np.int64) for name, value in _INTEGERS.items()}
    constants |= {"row": np.array([1]), "column": np.array([2]), "cells": np.array([1, 2])}
    graph = helper.make_graph(
        made,
        "pairs",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
            if name in used
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    _tokenizer().save(str(folder / "tokenizer.json"))
    if config:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(WORDS[:FIRST_WORD])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer
