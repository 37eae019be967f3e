"""A static model while it is being trained: a table of token vectors and its tokenizer.

What `retrieval.encoders` opens is the folder that `StaticTable.save` writes; `retrieval.training.static.formats` writes
those of other libraries.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from retrieval.datatypes import FloatArray
from retrieval.token_tables import FORMAT, Rules, open_static_model, unknown_id

Precision = Literal["int8", "float32"]


@dataclass(frozen=True, slots=True, eq=False)
class StaticTable:
    """Token vectors, row ``i`` for token id ``i``, and the tokenizer that gives the ids.

    Args:
        vectors: float32 (vocabulary, dim); token weights are part of the rows.
        tokenizer: Without truncation and padding.
        given_rules: What is read of a text; ``None`` for all of it without unknown tokens.
    """

    vectors: FloatArray
    tokenizer: Tokenizer
    given_rules: Rules | None = None

    @property
    def rules(self) -> Rules:
        """What is read of a text."""
        return self.given_rules or Rules("two-stage", self.unknown_id)

    @classmethod
    def open(cls, folder: str | Path) -> StaticTable:
        """Read a folder written by `save`, or one of the other formats; see `from_encoder_folder`."""
        return cls.from_encoder_folder(folder)

    @classmethod
    def from_encoder_folder(cls, folder: str | Path) -> StaticTable:
        """Read a folder of this project, of Model2Vec or of sentence-transformers.

        Texts are read by the rules of that format, and `save` keeps these rules.

        Args:
            folder: A folder that `StaticEncoder.open` opens too; both give the same vectors.

        Raises:
            ModelError: A file is missing or malformed; the message names it.
        """
        model = open_static_model(Path(folder))
        vectors = model.table.read(np.arange(model.table.tokens), model.table.embeddings.shape[1])
        return cls(vectors, model.tokenizer, model.rules)

    def with_vectors(self, vectors: FloatArray) -> StaticTable:
        """The same tokenizer and rules with other vectors of the same number of rows."""
        return replace(self, vectors=vectors)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the tokens that count of each text, without special tokens."""
        rules = self.rules
        cut = [text[: rules.max_characters].encode("utf-8", "replace").decode() for text in texts]
        encodings = self.tokenizer.encode_batch_fast(cut, add_special_tokens=False)
        return [[token for token in _cut(encoding.ids, rules) if token != rules.skip] for encoding in encodings]

    @property
    def unknown_id(self) -> int | None:
        """Id of the token that stands for everything outside the vocabulary, ``None`` when there is none."""
        return unknown_id(self.tokenizer)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Sums of token vectors at unit length, float32 (n, dim); a text without a known token is zero."""
        result = np.zeros((len(texts), self.vectors.shape[1]), dtype=np.float32)
        for start in range(0, len(texts), 1024):
            tokens = self.tokenize(texts[start : start + 1024])
            for row, ids in enumerate(tokens, start):
                result[row] = self.vectors[ids].sum(axis=0, dtype=np.float64)
        norms = np.linalg.norm(result, axis=1, keepdims=True)
        unit: FloatArray = np.divide(result, norms, out=np.zeros_like(result), where=norms > 0)
        return unit

    def save(
        self, folder: str | Path, *, name: str, matryoshka: Sequence[int] = (), precision: Precision = "int8"
    ) -> None:
        """Write the folder that `retrieval.encoders` opens.

        Args:
            folder: Created when absent; files of the same names are replaced.
            name: Name in the configuration.
            matryoshka: Numbers of leading dimensions that work alone, when the model was trained so.
            precision: ``int8`` rounds every row with its own scale, to a quarter of the size.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        save_file(self._tensors(precision), str(target / "model.safetensors"))
        self.tokenizer.save(str(target / "tokenizer.json"), pretty=False)
        rules = self.rules
        config: dict[str, object] = {
            "format": FORMAT,
            "version": 1,
            "dim": int(self.vectors.shape[1]),
            "unknown": rules.unknown,
            "max_tokens": rules.max_tokens,
            "normalize": True,
            "name": name,
        }
        if rules.max_characters is not None:
            config["max_characters"] = rules.max_characters
        if rules.keep_end:
            config["keep_end"] = True
        if matryoshka:
            config["matryoshka"] = sorted(matryoshka, reverse=True)
        (target / "model.safetensors").chmod(0o644)  # the writer of safetensors makes it private
        (target / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    def _tensors(self, precision: Precision) -> dict[str, NDArray[Any]]:
        if precision == "float32":
            return {"embeddings": np.ascontiguousarray(self.vectors, np.float32)}
        scales = np.abs(self.vectors).max(axis=1) / 127.0
        safe = np.where(scales > 0, scales, 1.0)
        rows = np.rint(self.vectors / safe[:, None]).astype(np.int8)
        return {"embeddings": rows, "scales": scales.astype(np.float32)}


def _cut(ids: list[int], rules: Rules) -> list[int]:
    if rules.max_tokens is None:
        return ids
    return ids[-rules.max_tokens :] if rules.keep_end else ids[: rules.max_tokens]


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
    return tables[0].with_vectors(np.stack([table.vectors for table in tables]).mean(axis=0, dtype=np.float32))
