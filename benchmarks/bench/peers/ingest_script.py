"""The indexing half of the usual script: encode with sentence-transformers, put into qdrant-client, index with bm25s.

Everything stays in memory: nothing is durable, and whole documents are the passages.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def open_system(*, static: str, corpus: str) -> Script:
    """Import the libraries and open the model."""
    return Script(static, Path(corpus))


class Script:
    """A model and a file."""

    def __init__(self, static: str, corpus: Path) -> None:
        import bm25s
        import qdrant_client
        import Stemmer
        from sentence_transformers import SentenceTransformer

        self._bm25s, self._qdrant, self._stemmer = bm25s, qdrant_client, Stemmer
        self._model = SentenceTransformer(static, device="cpu")
        self._corpus = corpus

    def ingest(self) -> dict[str, Any]:
        """Read, encode, upsert and index; returns the seconds of each step."""
        seconds: dict[str, float] = {}
        at = time.perf_counter()

        def passed(step: str) -> None:
            nonlocal at
            now = time.perf_counter()
            seconds[step], at = now - at, now

        with self._corpus.open(encoding="utf-8") as lines:
            records = [json.loads(line) for line in lines]
        texts = [record["text"] for record in records]
        passed("read")
        vectors = self._model.encode(texts, batch_size=1024, show_progress_bar=False)
        passed("encode")
        models = self._qdrant.models
        client = self._qdrant.QdrantClient(":memory:")
        client.create_collection(
            "docs", vectors_config=models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
        )
        client.upload_collection("docs", vectors=vectors, payload=records, ids=range(len(records)), batch_size=1024)
        passed("upsert")
        tokens = self._bm25s.tokenize(
            texts, stopwords="en", stemmer=self._stemmer.Stemmer("english"), show_progress=False
        )
        retriever = self._bm25s.BM25()
        retriever.index(tokens, show_progress=False)
        passed("bm25s")
        return {"passages": len(records), "steps": seconds}
