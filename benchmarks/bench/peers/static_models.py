"""The static model opened by other libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def open_system(*, kind: str, folder: str, texts: str) -> Model2Vec | SentenceTransformers:
    """Open a model and read the texts, a JSON list of strings."""
    lines = json.loads(Path(texts).read_text(encoding="utf-8"))
    return Model2Vec(folder, lines) if kind == "model2vec" else SentenceTransformers(folder, lines)


class Model2Vec:
    """`StaticModel.encode`; above 10,000 texts it starts processes unless told not to."""

    def __init__(self, folder: str, texts: list[str]) -> None:
        from model2vec import StaticModel

        self._model = StaticModel.from_pretrained(folder)
        self._texts = texts

    def encode(self, **options: Any) -> None:
        self._encoded(options)

    def _encoded(self, options: dict[str, Any]) -> Any:
        return self._model.encode(self._texts, max_length=None, **options)

    def save(self, path: str) -> None:
        """Write the vectors, to compare them."""
        np.save(path, np.asarray(self._encoded({}), np.float32))


class SentenceTransformers:
    """`SentenceTransformer.encode` with a `StaticEmbedding` and a `Normalize`."""

    def __init__(self, folder: str, texts: list[str]) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(folder, device="cpu")
        self._texts = texts

    def encode(self, **options: Any) -> None:
        self._encoded(options)

    def _encoded(self, options: dict[str, Any]) -> Any:
        return self._model.encode(self._texts, show_progress_bar=False, **options)

    def save(self, path: str) -> None:
        """Write the vectors, to compare them."""
        np.save(path, np.asarray(self._encoded({}), np.float32))
