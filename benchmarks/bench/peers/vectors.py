"""The same vectors searched by others: qdrant-client in its process, and one matrix product of numpy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np


def open_system(*, kind: str, vectors: str, static: str = "", queries: list[str] | None = None) -> Numpy | Qdrant:
    """Read what `ours.search` has exported; the model is opened where the query is encoded too."""
    with np.load(vectors) as file:
        arrays = {name: file[name] for name in file.files}
    return Numpy(arrays, static, queries or []) if kind == "numpy" else Qdrant(arrays)


class Numpy:
    """Model2Vec encodes the query, a product and a partial sort find the best 100."""

    def __init__(self, arrays: dict[str, np.ndarray[Any, Any]], static: str, queries: list[str]) -> None:
        from model2vec import StaticModel

        self._model = StaticModel.from_pretrained(static)
        self._vectors = np.ascontiguousarray(arrays["dense"], np.float32)
        self._queries = queries

    def many(self, limit: int = 100) -> list[float]:
        """Milliseconds of each query."""
        times = []
        kept = min(limit, len(self._vectors))
        for query in self._queries:
            started = time.perf_counter()
            scores = self._vectors @ self._model.encode(query)
            best = np.argpartition(-scores, kept - 1)[:kept]
            best[np.argsort(-scores[best])]
            times.append((time.perf_counter() - started) * 1000)
        return times


class Qdrant:
    """A collection in memory with dense and sparse vectors; the vectors of the queries are given."""

    def __init__(self, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        from qdrant_client import QdrantClient, models

        self._models, self._arrays = models, arrays
        self._client = QdrantClient(":memory:")

    def upsert(self) -> int:
        """Put all points in, anew."""
        models, dense = self._models, self._arrays["dense"]
        if self._client.collection_exists("docs"):
            self._client.delete_collection("docs")
        self._client.create_collection(
            "docs",
            vectors_config={"dense": models.VectorParams(size=dense.shape[1], distance=models.Distance.DOT)},
            sparse_vectors_config={"bm25": models.SparseVectorParams()},
        )
        points = (
            models.PointStruct(id=row, vector={"dense": dense[row].tolist(), "bm25": self._sparse("", row)}, payload={})
            for row in range(len(dense))
        )
        self._client.upload_points("docs", points, batch_size=1024)
        return len(dense)

    def _sparse(self, prefix: str, row: int) -> Any:
        offsets = self._arrays[f"{prefix}offsets"]
        part = slice(int(offsets[row]), int(offsets[row + 1]))
        return self._models.SparseVector(
            indices=self._arrays[f"{prefix}indices"][part].tolist(),
            values=self._arrays[f"{prefix}weights"][part].tolist(),
        )

    def many(self, hybrid: bool, limit: int = 100) -> list[float]:
        """Milliseconds of each query: both arms and their fusion, or dense vectors alone."""
        times = []
        for row, dense in enumerate(self._arrays["query_dense"]):
            vector, sparse = dense.tolist(), self._sparse("query_", row)
            started = time.perf_counter()
            if hybrid:
                self._client.query_points(
                    "docs",
                    prefetch=[
                        self._models.Prefetch(query=vector, using="dense", limit=limit),
                        self._models.Prefetch(query=sparse, using="bm25", limit=limit),
                    ],
                    query=self._models.FusionQuery(fusion=self._models.Fusion.RRF),
                    limit=limit,
                )
            else:
                self._client.query_points("docs", query=vector, using="dense", limit=limit)
            times.append((time.perf_counter() - started) * 1000)
        return times
