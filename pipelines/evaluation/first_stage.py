"""What each arm of the first stage would have found alone, exactly, and with more candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.progress import StepCallback
from retrieval.config import FirstStageConfig
from retrieval.datatypes import Arm, FloatArray, ScoredPoint, SearchRequest, SparseVector
from retrieval.evaluation.losses import Trail
from retrieval.ordering import fuse
from retrieval.protocols import Encoder, SparseEncoder, Store

DEEPEST = 10_000
"""How far down ranks are looked for."""
TIMES_MORE = (2, 5, 10)
"""Multiples of the candidates that are tried."""

_POOL = 1_000
_QUERIES_PER_BATCH = 8


@dataclass(frozen=True, slots=True)
class ArmFindings:
    """The first stage of one query, looked at again.

    Args:
        trails: What the arms made of each passage that was asked about; without what became of it after fusion.
        with_more: Smallest number of candidates, of those tried, with which a passage would have been fetched; only
            for passages that would.
        exact: Passages that an exact first stage fetches, best first.
    """

    trails: Mapping[str, Trail]
    with_more: Mapping[str, int]
    exact: tuple[str, ...]


class FirstStageLook:
    """Looks at the first stage of queries again, with exact search.

    Where vectors are compressed and a graph is used as well, the two are told apart by ranking the 1,000 passages
    that are nearest in truth by their compressed vectors alone: a passage that this fetches was lost by the graph.

    Args:
        encoder: Static encoder of the index.
        sparse: BM25 encoder of the index.
        store: Store of the index.
        fusion: Weights and candidates as they were searched with.
        passages: How many there are.
    """

    def __init__(
        self, encoder: Encoder, sparse: SparseEncoder, store: Store, fusion: FirstStageConfig, passages: int
    ) -> None:
        self._encoder = encoder
        self._sparse = sparse
        self._store = store
        self._fusion = fusion
        self._deep = max(fusion.candidates, min(passages, DEEPEST))

    def look(
        self,
        queries: Mapping[str, str],
        wanted: Mapping[str, Sequence[str]],
        missed: Mapping[str, Sequence[str]],
        on_progress: StepCallback,
    ) -> dict[str, ArmFindings]:
        """Look for passages.

        Args:
            queries: Text of each query.
            wanted: Passages of relevant documents of each query.
            missed: Those of them whose documents are no candidates; only for these it is looked far down.
            on_progress: Called after every batch of queries.

        Raises:
            StoreError: The store failed.
        """
        found: dict[str, ArmFindings] = {}
        names = list(queries)
        for start in range(0, len(names), _QUERIES_PER_BATCH):
            on_progress("losses: first stage", start, len(names))
            batch = names[start : start + _QUERIES_PER_BATCH]
            texts = [queries[name] for name in batch]
            dense, sparse = self._encoder.encode_queries(texts), self._sparse.encode_queries(texts)
            limits = [self._deep if missed.get(name) else self._fusion.candidates for name in batch]
            for name, vector, arms in zip(batch, dense, self._arms(dense, sparse, limits), strict=True):
                found[name] = self._findings(vector, arms, wanted.get(name, ()), set(missed.get(name, ())))
        return found

    def _arms(
        self, dense: FloatArray, sparse: Sequence[SparseVector], limits: Sequence[int]
    ) -> list[dict[Arm, list[ScoredPoint]]]:
        arms: list[dict[Arm, list[ScoredPoint]]] = [{} for _ in sparse]
        plan: list[tuple[int, Arm]] = []
        requests: list[SearchRequest] = []
        for row, (weights, limit) in enumerate(zip(sparse, limits, strict=True)):
            if dense[row].any():
                plan.append((row, "dense"))
                requests.append(SearchRequest(dense[row], limit, exact=True))
            if len(weights.indices):
                plan.append((row, "bm25"))
                requests.append(SearchRequest(weights, limit, exact=True))
        for (row, arm), points in zip(plan, self._store.search(requests) if requests else (), strict=True):
            arms[row][arm] = points
        return arms

    def _findings(
        self, vector: FloatArray, arms: Mapping[Arm, list[ScoredPoint]], wanted: Sequence[str], missed: set[str]
    ) -> ArmFindings:
        dense, bm25 = (_ranks(arms.get(arm, ()), wanted) for arm in ("dense", "bm25"))
        exact = self._fused(arms, self._fusion.candidates)
        inside = set(exact)
        lost_by_search = [name for name in wanted if name in missed and name in inside]
        by_codes = self._near_by_codes(vector, arms.get("dense", ()), lost_by_search)
        more: dict[str, int] = {}
        for times in TIMES_MORE if missed else ():
            candidates = times * self._fusion.candidates
            for name in missed & set(self._fused(arms, candidates)):
                more.setdefault(name, candidates)
        return ArmFindings(
            trails={
                name: Trail(
                    dense_rank=dense.get(name),
                    bm25_rank=bm25.get(name),
                    with_exact=name in inside,
                    near_by_codes=by_codes.get(name),
                )
                for name in wanted
            },
            with_more=more,
            exact=tuple(exact),
        )

    def _fused(self, arms: Mapping[Arm, list[ScoredPoint]], candidates: int) -> list[str]:
        settings = self._fusion.model_copy(update={"candidates": candidates})
        return [one.id for one in fuse({arm: points[:candidates] for arm, points in arms.items()}, settings)]

    def _near_by_codes(
        self, vector: FloatArray, nearest: Sequence[ScoredPoint], lost: Sequence[str]
    ) -> dict[str, bool]:
        """Whether the compressed vectors of lost passages are among those that searches take."""
        quantization = self._store.quantization
        if not lost or quantization.kind == "none":
            return {}
        candidates = self._fusion.candidates
        taken = int(candidates * quantization.oversampling) if quantization.rescore else candidates
        pool = {point.id for point in nearest[: max(_POOL, taken)]} | set(lost)
        request = SearchRequest(vector, taken, {"must": [{"has_id": sorted(pool)}]}, rescore=False)
        fetched = {point.id for point in self._store.search([request])[0]}
        return {name: name in fetched for name in lost}


def _ranks(points: Iterable[ScoredPoint], wanted: Sequence[str]) -> dict[str, int]:
    names = set(wanted)
    return {point.id: rank for rank, point in enumerate(points, start=1) if point.id in names}
