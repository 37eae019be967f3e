"""A static model while it is being trained: a table of token vectors and its tokenizer.

What `retrieval.encoders` opens is the folder that `StaticTable.save` writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from retrieval.datatypes import FloatArray

FORMAT = "two-stage-static"


@dataclass(frozen=True, slots=True, eq=False)
class StaticTable:
    """Token vectors, row ``i`` for token id ``i``, and the tokenizer that gives the ids.

    Args:
        vectors: float32 (vocabulary, dim); token weights are part of the rows.
        tokenizer: Without truncation and padding.
    """

    vectors: FloatArray
    tokenizer: Tokenizer

    @classmethod
    def open(cls, folder: str | Path) -> StaticTable:
        """Read a folder written by `save`."""
        tensors = load_file(str(Path(folder) / "model.safetensors"))
        vectors = tensors["embeddings"].astype(np.float32) * tensors["scales"][:, None]
        return cls(vectors, Tokenizer.from_file(str(Path(folder) / "tokenizer.json")))

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special and unknown tokens."""
        unknown = self.unknown_id
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[token for token in encoding.ids if token != unknown] for encoding in encodings]

    @property
    def unknown_id(self) -> int | None:
        """Id of the token that stands for everything outside the vocabulary, ``None`` when there is none."""
        model = json.loads(self.tokenizer.to_str())["model"]
        token = model.get("unk_token")
        return None if token is None else self.tokenizer.token_to_id(token)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Sums of token vectors at unit length, float32 (n, dim); a text without a known token is zero."""
        result = np.zeros((len(texts), self.vectors.shape[1]), dtype=np.float32)
        for start in range(0, len(texts), 1024):
            tokens = self.tokenize(texts[start : start + 1024])
            for row, ids in enumerate(tokens, start):
                result[row] = self.vectors[ids].sum(axis=0)
        norms = np.linalg.norm(result, axis=1, keepdims=True)
        unit: FloatArray = np.divide(result, norms, out=np.zeros_like(result), where=norms > 0)
        return unit

    def save(self, folder: str | Path, *, name: str, matryoshka: Sequence[int] = ()) -> None:
        """Write the folder that `retrieval.encoders` opens; every row is rounded to int8 with its own scale.

        Args:
            folder: Created when absent; files of the same names are replaced.
            name: Name in the configuration.
            matryoshka: Numbers of leading dimensions that work alone, when the model was trained so.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        scales = np.abs(self.vectors).max(axis=1) / 127.0
        safe = np.where(scales > 0, scales, 1.0)
        rows = np.rint(self.vectors / safe[:, None]).astype(np.int8)
        save_file({"embeddings": rows, "scales": scales.astype(np.float32)}, str(target / "model.safetensors"))
        self.tokenizer.save(str(target / "tokenizer.json"), pretty=False)
        config = {
            "format": FORMAT,
            "version": 1,
            "dim": int(self.vectors.shape[1]),
            "unknown": "skip",
            "max_tokens": None,
            "normalize": True,
            "name": name,
        }
        if matryoshka:
            config["matryoshka"] = sorted(matryoshka, reverse=True)
        (target / "model.safetensors").chmod(0o644)  # the writer of safetensors makes it private
        (target / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def average_tables(tables: Sequence[StaticTable]) -> StaticTable:
    """Mean of the vectors of tables that were trained from the same start; often better than each of them.

    Raises:
        ValueError: There is no table, or the shapes differ.

    Source:
        Model soups, https://arxiv.org/abs/2203.05482
    """
    shapes = {table.vectors.shape for table in tables}
    if len(shapes) != 1:
        raise ValueError(f"tables to average have one shape, not {sorted(shapes)}")
    mean = np.stack([table.vectors for table in tables]).mean(axis=0, dtype=np.float32)
    return StaticTable(mean, tables[0].tokenizer)
