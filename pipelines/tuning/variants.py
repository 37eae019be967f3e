"""The vectors of an index with other dimensions or another compression, in a store of their own for a while.

The index itself is only read. BM25, texts and the present vectors are asked of it; everything else of a passing copy
in the same engine, so that what is measured is what the engine does.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pipelines.plan import code_bytes
from pipelines.quantization.measure import Measurer
from pipelines.quantization.queries import SampledQueries
from pipelines.serving import Serving
from pipelines.tuning.settings import Variant
from retrieval.config import Config, EdgeStoreConfig, MemoryStoreConfig, QuantizationConfig
from retrieval.datatypes import FloatArray, Point, Quantization, ScoredPoint, SearchRequest, SparseVector, StoredPoint
from retrieval.errors import StoreError
from retrieval.models import open_encoder
from retrieval.protocols import Encoder, SparseEncoder, Store
from retrieval.stores import open_store

_BATCH = 2_000
_PROBES = 20

Milliseconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DenseLists:
    """What the static arm returns for each query with one variant of the vectors.

    Args:
        encoder: Encoder of its queries.
        vectors: float32 (queries, dim).
        points: The candidates of each query; empty where the encoder knows no word of it.
        milliseconds: float64 (queries,): encoding and searching, one query at a time.
        in_effect: Share of the vectors that are compared in compressed form; 0 without compression.
        bytes_per_passage: Of the vectors that a search reads.
    """

    encoder: Encoder
    vectors: FloatArray
    points: tuple[tuple[ScoredPoint, ...], ...]
    milliseconds: Milliseconds
    in_effect: float
    bytes_per_passage: float


class SplitStore:
    """Asks one store for dense vectors and another one for everything else.

    Args:
        dense: Has the vectors.
        rest: Has BM25 and the payloads.
    """

    def __init__(self, dense: Store, rest: Store) -> None:
        self._dense = dense
        self._rest = rest

    @property
    def location(self) -> str:
        """Of the index."""
        return self._rest.location

    @property
    def quantization(self) -> Quantization:
        """Of the dense vectors."""
        return self._dense.quantization

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        """See `Store.search`."""
        sparse = [isinstance(request.vector, SparseVector) for request in requests]
        parts = {
            kind: iter(
                store.search(own) if (own := [r for r, s in zip(requests, sparse, strict=True) if s is kind]) else []
            )
            for kind, store in ((True, self._rest), (False, self._dense))
        }
        return [next(parts[kind]) for kind in sparse]

    def get(
        self, ids: Sequence[str], *, payload: bool | Sequence[str] = True, vectors: bool = False
    ) -> list[StoredPoint]:
        """See `Store.get`; there are no vectors."""
        return self._rest.get(ids, payload=payload)


class Variants:
    """Makes the variants of one index.

    Args:
        config: Settings of the index.
        serving: What serves.
        present: The variant that the index has.
        passages: How many there are.
    """

    def __init__(self, config: Config, serving: Serving, present: Variant, passages: int) -> None:
        self._config = config
        self._serving = serving
        self._present = present
        self._passages = passages
        self._encoders: dict[int, Encoder] = {present.dimensions: serving.encoder}

    def encoder(self, dimensions: int) -> Encoder:
        """Encoder of the queries of so many dimensions."""
        if dimensions not in self._encoders:
            settings = self._config.encoder.model_copy(update={"dimensions": dimensions})
            self._encoders[dimensions] = open_encoder(settings)
        return self._encoders[dimensions]

    @contextmanager
    def opened(self, variant: Variant) -> Iterator[Store]:
        """A store that searches the vectors of a variant: the index, or a copy that is gone at the end of the block.

        Raises:
            StoreFullError: There is no room for a copy.
            StoreError: The store failed.
        """
        if variant == self._present or (variant.exact and variant.dimensions == self._present.dimensions):
            yield self._serving.store
            return
        with tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True) as folder:
            store = open_store(self._settings(variant), dim=variant.dimensions, path=Path(folder) / "vectors")
            try:
                points = self._points(variant.dimensions)
                while batch := list(islice(points, _BATCH)):
                    store.upsert(batch)
                if self._passages >= self._config.hnsw.threshold:
                    store.optimize()
                yield cast(Store, SplitStore(store, self._serving.store))
            finally:
                store.close()

    def measure(
        self, variant: Variant, queries: Sequence[str], limit: int, on_query: Callable[[int], None]
    ) -> DenseLists:
        """Ask every query of the vectors of a variant.

        Args:
            variant: The vectors.
            queries: The queries.
            limit: Candidates of each.
            on_query: Called with the number of each query.

        Raises:
            StoreError: The store failed.
        """
        encoder = self.encoder(variant.dimensions)
        vectors, points, times = [], [], []
        with self.opened(variant) as store:
            _search(encoder, store, queries[0], limit, variant.exact)  # the first search of a store reads it from disk
            for number, query in enumerate(queries):
                on_query(number)
                started = time.perf_counter()
                vector, found = _search(encoder, store, query, limit, variant.exact)
                times.append((time.perf_counter() - started) * 1000)
                vectors.append(vector)
                points.append(tuple(found))
            share = self._in_effect(variant, encoder, store, queries)
        size = share * code_bytes(variant.quantization, variant.dimensions) + (1 - share) * variant.dimensions * 4
        return DenseLists(encoder, np.array(vectors), tuple(points), np.array(times), share, size)

    def _settings(self, variant: Variant) -> Config:
        store = self._config.store
        passing = MemoryStoreConfig() if isinstance(store, MemoryStoreConfig) else EdgeStoreConfig()
        quantization = QuantizationConfig.model_validate(asdict(variant.quantization))
        return self._config.model_copy(update={"store": passing, "quantization": quantization})

    def _points(self, dimensions: int) -> Iterator[Point]:
        """The vectors of the index, cut to their first dimensions and brought to unit length again."""
        for stored in self._serving.store.scan(payload=False, vectors=["dense"]):
            vector = stored.dense
            if vector is not None and dimensions < len(vector):
                head = vector[:dimensions].astype(np.float64)
                vector = (head / (np.sqrt((head**2).sum()) or 1.0)).astype(np.float32)
            yield Point(stored.id, vector, None, {})

    def _in_effect(self, variant: Variant, encoder: Encoder, store: Store, queries: Sequence[str]) -> float:
        if variant.exact or variant.quantization.kind == "none":
            return 0.0
        texts = dict(enumerate(queries[:_PROBES]))
        probes = SampledQueries({str(number): text for number, text in texts.items()}, "real")
        serving = Serving(encoder, store, self._serving.search)
        try:
            measurer = Measurer(self._config, serving, self._passages, probes, lambda stage, done, total: None)
        except StoreError:  # not one of these queries has a word that the encoder knows
            return 0.0
        return measurer.in_effect()


def sparse_lists(
    sparse: SparseEncoder, store: Store, queries: Sequence[str], limit: int
) -> tuple[tuple[SparseVector, ...], tuple[tuple[ScoredPoint, ...], ...], Milliseconds]:
    """What BM25 returns for each query: its vectors, its candidates, and the milliseconds of each."""
    vectors, points, times = [], [], []
    for query in (queries[0], *queries):  # the first one is asked twice, to warm up
        started = time.perf_counter()
        vector = sparse.encode_queries([query])[0]
        points.append(tuple(store.search([SearchRequest(vector, limit)])[0] if len(vector.indices) else ()))
        times.append((time.perf_counter() - started) * 1000)
        vectors.append(vector)
    return tuple(vectors[1:]), tuple(points[1:]), np.array(times[1:])


def _search(
    encoder: Encoder, store: Store, query: str, limit: int, exact: bool
) -> tuple[FloatArray, list[ScoredPoint]]:
    vector = encoder.encode_queries([query])[0]
    return vector, store.search([SearchRequest(vector, limit, exact=exact)])[0] if vector.any() else []
