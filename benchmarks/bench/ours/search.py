"""Searches of this project over an index that is there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import TwoStagePipeline


def open_system(*, index: str) -> Ours:
    """Open the index."""
    return Ours(index)


class Ours:
    """A pipeline that can be opened anew, so that no repeat finds what the one before has kept."""

    def __init__(self, index: str) -> None:
        self._index = index
        self._pipeline = TwoStagePipeline.open(index)

    def open_again(self, warm_up: list[str], options: dict[str, Any]) -> None:
        """Begin with a new pipeline, and with queries that are not timed: they load what is loaded once."""
        self._pipeline.close()
        self._pipeline = TwoStagePipeline.open(self._index)
        for query in warm_up:
            self._pipeline.search(query, **options)

    def many(self, queries: list[str], options: dict[str, Any]) -> list[float]:
        """Milliseconds of each query, one after the other, the whole call."""
        times = []
        for query in queries:
            started = time.perf_counter()
            self._pipeline.search(query, **options)
            times.append((time.perf_counter() - started) * 1000)
        return times

    def found(self, queries: list[str], options: dict[str, Any]) -> list[dict[str, Any]]:
        """Document ids of the hits, best first, how many passages were read, and milliseconds, query by query."""
        found = []
        for query in queries:
            started = time.perf_counter()
            result = self._pipeline.search(query, **options)
            milliseconds = (time.perf_counter() - started) * 1000
            ids = [hit.document_id for hit in result]
            found.append({"ids": ids, "reranked": result.reranked, "ms": milliseconds})
        return found

    def export(self, path: str, queries: list[str]) -> int:
        """Write the vectors of all passages and of queries, to search for the same elsewhere; returns how many."""
        dense, offsets, indices, weights = [], [0], [], []
        for point in self._pipeline.store.scan(payload=False, vectors=["dense", "bm25"]):
            if point.dense is None or point.sparse is None:
                continue
            dense.append(point.dense)
            indices.append(point.sparse.indices)
            weights.append(point.sparse.values)
            offsets.append(offsets[-1] + len(point.sparse.indices))
        sparse = self._pipeline.sparse.encode_queries(queries)
        np.savez(
            Path(path),
            dense=np.stack(dense),
            offsets=np.array(offsets),
            indices=np.concatenate(indices),
            weights=np.concatenate(weights),
            query_dense=self._pipeline.encoder.encode_queries(queries),
            query_offsets=np.cumsum([0, *(len(vector.indices) for vector in sparse)]),
            query_indices=np.concatenate([vector.indices for vector in sparse]),
            query_weights=np.concatenate([vector.values for vector in sparse]),
        )
        return len(dense)

    def score(self, query: str, texts: list[str]) -> list[float]:
        """Logits of the cross-encoder for texts that are given."""
        return [float(score) for score in self._pipeline.reranker().score(query, texts)]
