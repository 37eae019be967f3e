"""Writes a static model as a folder that Model2Vec, sentence-transformers and this project open.

One ``model.safetensors`` serves all three: ``embeddings``, and for int8 one number a token in ``weights``, with which
each of them multiplies the row. Tokens that do not count have a row of zeros, because sentence-transformers adds up all
tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from retrieval.datatypes import FloatArray
from retrieval.token_tables.formats import Rules, StaticModel, unknown_id
from retrieval.token_tables.table import TokenTable

Precision = Literal["int8", "float32"]
_LARGEST = 127.0


@dataclass(frozen=True, slots=True)
class Portable:
    """What was written.

    Args:
        tokens: Token ids with a row.
        dim: Dimensions of a vector.
        lowest_cosine: Between a token's vector and what was stored of it, the worst of all tokens; 1.0 is lossless.
        exact: Whether every stored number is the same as before.
        limits: Sentences on texts of which another library makes another vector than this project.
    """

    tokens: int
    dim: int
    lowest_cosine: float
    exact: bool
    limits: tuple[str, ...]


def write_portable(model: StaticModel, folder: Path, *, dim: int, precision: Precision = "int8") -> Portable:
    """Write weights, tokenizer and the configuration of both libraries into a folder.

    An int8 table of one row a token is kept bit by bit; others are rounded, each row with its own scale.

    Args:
        model: An opened model.
        folder: An empty folder.
        dim: Dimensions to keep, the first ones.
        precision: ``int8``, or ``float32`` at four times the size.

    Raises:
        ValueError: The precision is unknown.
    """
    if precision not in {"int8", "float32"}:
        raise ValueError(f"precision is 'int8' or 'float32', not {precision!r}")
    vocabulary = model.tokenizer.get_vocab(with_added_tokens=True)
    tokens = max(vocabulary.values()) + 1
    before = model.table.read(np.arange(tokens), dim)
    if model.rules.skip is not None:
        before[model.rules.skip] = 0.0
    tensors = _tensors(model, before, precision)
    if len(vocabulary) != tokens:  # Model2Vec insists on one row for each token, unless a mapping says otherwise
        tensors["mapping"] = np.arange(tokens)
    save_file(tensors, str(folder / "model.safetensors"))
    (folder / "model.safetensors").chmod(0o644)  # the writer of safetensors makes it private
    _write_tokenizer(model, folder / "tokenizer.json")
    _write_json(folder / "config.json", _config(model, dim, tensors))
    _write_json(folder / "modules.json", _MODULES)
    _write_json(folder / "config_sentence_transformers.json", {"prompts": {}, "similarity_fn_name": "cosine"})
    stored = TokenTable(tensors["embeddings"], tensors.get("weights")).read(np.arange(tokens), dim)
    return Portable(
        tokens=tokens,
        dim=dim,
        lowest_cosine=_lowest_cosine(before, stored),
        exact=bool(np.array_equal(before, stored)),
        limits=_limits(model.rules, before, unknown_id(model.tokenizer)),
    )


_MODULES = [
    {"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"},
    {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def _tensors(model: StaticModel, vectors: FloatArray, precision: Precision) -> dict[str, NDArray[Any]]:
    if precision == "float32":
        return {"embeddings": np.ascontiguousarray(vectors)}
    table, (tokens, dim) = model.table, vectors.shape
    if table.embeddings.dtype == np.int8 and table.mapping is None:
        rows = np.array(table.embeddings[:tokens, :dim])
        scales = np.ones(tokens, np.float32) if table.weights is None else np.array(table.weights[:tokens])
        if model.rules.skip is not None:
            rows[model.rules.skip] = 0
        return {"embeddings": rows, "weights": scales}
    scales = (np.abs(vectors).max(axis=1) / _LARGEST).astype(np.float32)
    safe = np.where(scales > 0, scales, np.float32(1))
    rows = np.clip(np.rint(vectors / safe[:, None]), -_LARGEST, _LARGEST).astype(np.int8)
    return {"embeddings": rows, "weights": scales}


def _write_tokenizer(model: StaticModel, path: Path) -> None:
    tokenizer, rules = Tokenizer.from_str(model.tokenizer.to_str()), model.rules
    tokenizer.no_padding()
    if rules.max_tokens is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(rules.max_tokens, direction="left" if rules.keep_end else "right")
    tokenizer.save(str(path), pretty=False)


def _config(model: StaticModel, dim: int, tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "tokenizer_name": model.name,
        "hidden_dim": dim,
        "normalize": True,
        "max_length": model.rules.max_tokens,
        "embedding_dtype": tensors["embeddings"].dtype.name,
    }
    if "mapping" in tensors:
        config["vocabulary_quantization"] = len(tensors["embeddings"])
    return config


def _limits(rules: Rules, vectors: FloatArray, unknown: int | None) -> tuple[str, ...]:
    limits = []
    if rules.skip is None and unknown is not None and vectors[unknown].any():
        limits.append("model2vec leaves unknown tokens out, and this model counts them: texts with such tokens differ")
    if rules.max_tokens is not None:
        if rules.keep_end:
            limits.append(f"model2vec reads the first {rules.max_tokens} tokens of a text, this model the last ones")
        if rules.max_characters is None:
            limits.append(
                f"model2vec cuts the characters of a text first, to {rules.max_tokens} median lengths of a token"
            )
        elif rules.loader != "model2vec":
            limits.append(f"neither library cuts texts to {rules.max_characters:,} characters, as this model does")
        else:
            limits.append(
                f"sentence-transformers cuts texts to {rules.max_tokens} tokens, but not to {rules.max_characters:,} "
                "characters before, as model2vec and this model do"
            )
    return tuple(limits)


def _lowest_cosine(before: FloatArray, after: FloatArray) -> float:
    lowest = 1.0
    for start in range(0, len(before), 2**14):
        one, other = (table[start : start + 2**14].astype(np.float64) for table in (before, after))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        used = norms > 0
        if used.any():
            lowest = min(lowest, float(((one * other).sum(axis=1)[used] / norms[used]).min()))
    return lowest


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
