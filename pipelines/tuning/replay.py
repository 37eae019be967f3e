"""Searches over recorded parts: what `pipelines.search.Search` does, with nothing read or fetched twice.

Only the lists of the arms are taken from a record instead of a store. Fusion, reading, blending, budgets, grouping and
ordering are those of every search, so that a replayed search gives the hits of a real one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.hits import Fetched
from pipelines.points import readable_text
from pipelines.search import Search
from pipelines.search_options import SearchOptions
from pipelines.tuning.record import Record
from pipelines.tuning.recording import RememberedReranker
from pipelines.tuning.settings import Fusion, Setting, Variant, config_with
from pipelines.tuning.variants import DenseLists
from pipelines.twins import Twins
from retrieval.config import Config
from retrieval.datatypes import (
    EncoderFingerprint,
    FloatArray,
    Results,
    SparseVector,
    StoredPoint,
)
from retrieval.negation import negation_cues
from retrieval.ordering import Candidates
from retrieval.protocols import Encoder, Reranker, SparseEncoder, Store
from retrieval.rerankers import choose_windows

Floats = NDArray[np.float64]

_FUSIONS_KEPT = 12
_NEGATION_DEPTH = 2


@dataclass(slots=True, eq=False)
class _QueryEncoder:
    """Gives the recorded vector of the query that is replayed."""

    lists: DenseLists
    number: int = 0

    @property
    def dim(self) -> int:
        return self.lists.encoder.dim

    @property
    def fingerprint(self) -> EncoderFingerprint:
        return self.lists.encoder.fingerprint

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        return self.lists.vectors[self.number : self.number + 1]

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        return self.lists.encoder.encode_documents(texts)

    def count_tokens(self, text: str) -> int:
        return self.lists.encoder.count_tokens(text)


@dataclass(slots=True, eq=False)
class _QuerySparse:
    """Gives the recorded BM25 vector of the query that is replayed."""

    vectors: tuple[SparseVector, ...]
    number: int = 0

    def encode_queries(self, texts: Sequence[str]) -> list[SparseVector]:
        return [self.vectors[self.number]]


@dataclass(slots=True, eq=False)
class _Payloads:
    """Stands for the store of a search, which asks it for payloads alone."""

    record: Record

    def get(self, ids: Sequence[str]) -> list[StoredPoint]:
        return [StoredPoint(name, payload) for name, payload in self.record.payloads_of(ids).items()]


@dataclass(slots=True, eq=False)
class Memory:
    """What searches found out about queries and texts, and need not find out again.

    Args:
        words: Words of a window; ``None`` for whole texts.
    """

    words: int | None
    twins: dict[tuple[int, tuple[str, ...]], Twins] = field(default_factory=dict)
    spans: dict[tuple[int, int, str], tuple[int, int]] = field(default_factory=dict)

    def windows(self, number: int, vector: FloatArray, texts: Sequence[str], encoder: Encoder) -> list[tuple[int, int]]:
        """What the cross-encoder reads of texts for the query at a place."""
        dim = encoder.dim
        new = [text for text in dict.fromkeys(texts) if (number, dim, text) not in self.spans]
        if new:
            found = choose_windows(vector, new, encoder, self.words)
            self.spans.update(((number, dim, text), span) for text, span in zip(new, found, strict=True))
        return [self.spans[number, dim, text] for text in texts]


class _RecordedSearch(Search):
    """A search whose first stage is a recorded list, and that remembers what it needs time for."""

    def prepare(self, memory: Memory, encoder: _QueryEncoder) -> None:
        """Say what is remembered, and who knows the place of the query."""
        self._memory = memory
        self._query = encoder

    def over(self, candidates: Candidates) -> Self:
        """Take these for what the first stage returns."""
        self._found = candidates
        return self

    def _first_stage(self, dense: FloatArray, sparse: Sequence[SparseVector], options: SearchOptions) -> list[Fetched]:
        return [Fetched(self._found, dense[0], [])]

    def _twins(self, query: str, found: Fetched) -> Twins:
        key = self._query.number, tuple(found.candidates.ids[: len(found.payloads)])
        if key not in self._memory.twins:
            self._memory.twins[key] = super()._twins(query, found)
        return self._memory.twins[key]

    def _windows(self, found: Fetched, texts: Sequence[str]) -> list[tuple[int, int]]:
        return self._memory.windows(self._query.number, found.vector, texts, self._encoder)


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """What a setting gives for each query.

    Args:
        results: The hits.
        milliseconds: float64 (queries,): first stage and reading, as they were measured part by part.
        reranked: How many candidates were read on average.
    """

    results: tuple[Results, ...]
    milliseconds: Floats
    reranked: float


class Replay:
    """Replays settings over one record.

    Args:
        config: What the index is searched with now.
        present: The setting that it gives.
        record: What was asked of the index.
        reranker: Remembers what it has read.
        hits: How many hits are wanted.
    """

    def __init__(
        self, config: Config, present: Setting, record: Record, reranker: RememberedReranker, hits: int
    ) -> None:
        search = config.search.model_copy(update={"top_k": hits, "group_by": "document"})
        self._config = config.model_copy(update={"search": search})
        self._present = present
        self._record = record
        self._reranker = reranker
        self._memory = Memory(config.rerank.window_words)
        self._fused: OrderedDict[tuple[Variant, Fusion], list[Candidates]] = OrderedDict()

    def run(self, setting: Setting) -> Replayed | None:
        """Search for every query with a setting.

        Returns:
            ``None`` where more would have to be read than the reranker's limit allows.
        """
        lists = self._record.dense[setting.variant]
        fused = self._candidates(setting.variant, setting.fusion)
        encoder, sparse = _QueryEncoder(lists), _QuerySparse(self._record.sparse_vectors)

        config = config_with(self._config, self._present, setting)
        search = _RecordedSearch(
            config,
            cast(Encoder, encoder),
            cast(SparseEncoder, sparse),
            cast(Store, _Payloads(self._record)),
            lambda: cast(Reranker, self._reranker),
            setting.fusion.dense_weight,
            self._reranker.clock,
        )
        search.prepare(self._memory, encoder)
        options = SearchOptions.from_config(config, None, {})
        self._reranker.refused = False
        results: list[Results] = []
        reading = np.zeros(len(self._record.queries))
        for number, query in enumerate(self._record.queries):
            encoder.number = sparse.number = number
            before = self._reranker.clock()
            results += search.over(fused[number]).run([query], options)
            reading[number] = (self._reranker.clock() - before) * 1000
            if self._reranker.refused:
                return None
        milliseconds = self._record.first_stage_ms(setting.variant, setting.fusion) + reading
        return Replayed(tuple(results), milliseconds, float(np.mean([one.reranked for one in results])))

    def texts(self, number: int, setting: Setting) -> list[str]:
        """What the cross-encoder would read for a query if nothing made it stop, but for twins of what it reads."""
        candidates = self._candidates(setting.variant, setting.fusion)[number]
        depth = setting.depth * (_NEGATION_DEPTH if negation_cues(self._record.queries[number]) else 1)
        payloads = self._record.payloads_of(candidates.ids[:depth]).values()
        texts = [str(payload["text"]) for payload in payloads]
        lists = self._record.dense[setting.variant]
        spans = self._memory.windows(number, lists.vectors[number], texts, lists.encoder)
        return [
            readable_text(payload, text[start:end])
            for payload, text, (start, end) in zip(payloads, texts, spans, strict=True)
        ]

    def _candidates(self, variant: Variant, fusion: Fusion) -> list[Candidates]:
        key = (variant, fusion)
        if key not in self._fused:
            numbers = range(len(self._record.queries))
            self._fused[key] = [self._record.fused(number, variant, fusion, self._config) for number in numbers]
            if len(self._fused) > _FUSIONS_KEPT:
                self._fused.popitem(last=False)
        self._fused.move_to_end(key)
        return self._fused[key]
