"""What was asked of an index: the lists of both arms for each query, and the payloads of what stands in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipelines.tuning.settings import Fusion, Variant
from pipelines.tuning.variants import DenseLists, Milliseconds
from retrieval.config import Config
from retrieval.datatypes import Arm, ScoredPoint, SparseVector
from retrieval.ordering import Candidates, fuse
from retrieval.protocols import Store


@dataclass(slots=True, eq=False)
class Record:
    """What was asked of the index, for each query in its place.

    Args:
        queries: The queries.
        dense: Lists of the static arm for each variant of the vectors.
        sparse_vectors: BM25 vectors of the queries.
        sparse: Lists of BM25.
        sparse_ms: float64 (queries,): what they took.
        store: The index, for payloads.
        payloads: Those that were fetched, by id.
    """

    queries: tuple[str, ...]
    dense: Mapping[Variant, DenseLists]
    sparse_vectors: tuple[SparseVector, ...]
    sparse: tuple[tuple[ScoredPoint, ...], ...]
    sparse_ms: Milliseconds
    store: Store
    payloads: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def only(self, numbers: Sequence[int]) -> Record:
        """The same of some of the queries."""
        places = np.array(numbers, np.int64)
        dense = {
            variant: replace(
                lists,
                vectors=lists.vectors[places],
                points=tuple(lists.points[number] for number in numbers),
                milliseconds=lists.milliseconds[places],
            )
            for variant, lists in self.dense.items()
        }
        return Record(
            tuple(self.queries[number] for number in numbers),
            dense,
            tuple(self.sparse_vectors[number] for number in numbers),
            tuple(self.sparse[number] for number in numbers),
            self.sparse_ms[places],
            self.store,
            self.payloads,
        )

    def payloads_of(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Payloads of passages, of the index where they are asked for the first time; of those that there are."""
        new = [name for name in ids if name not in self.payloads]
        if new:
            self.payloads.update((point.id, point.payload) for point in self.store.get(new))
        return {name: self.payloads[name] for name in ids if name in self.payloads}

    def fused(self, number: int, variant: Variant, fusion: Fusion, config: Config) -> Candidates:
        """Candidates of a query."""
        arms: dict[Arm, Sequence[ScoredPoint]] = {}
        if fusion.arms != "bm25" and self.dense[variant].vectors[number].any():
            arms["dense"] = self.dense[variant].points[number]
        if fusion.arms != "dense" and len(self.sparse_vectors[number].indices):
            arms["bm25"] = self.sparse[number]
        weights = {"fusion": fusion.fusion, "dense_weight": fusion.dense_weight}
        return fuse(arms, config.first_stage.model_copy(update=weights))

    def first_stage_ms(self, variant: Variant, fusion: Fusion) -> Milliseconds:
        """float64 (queries,): encoding and fetching."""
        times = np.zeros(len(self.queries))
        if fusion.arms != "bm25":
            times += self.dense[variant].milliseconds
        if fusion.arms != "dense":
            times += self.sparse_ms
        return times
