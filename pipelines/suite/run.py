"""Measure a pipeline on minimal pairs: does the first stage keep both twins, and who puts the right one first.

All twins lie in one temporary embedded index, with distractors from a collection or another index if wanted. Four
searches for each query (BM25, static vectors, both, both with the cross-encoder), and the cross-encoder alone over the
two twins.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from pipelines.progress import StepCallback
from pipelines.search_options import SearchArguments
from pipelines.serving import once
from pipelines.suite.haystack import open_haystack
from pipelines.suite.report import ALL, CROSS_ENCODER, SYSTEMS, KindResult, SuiteReport
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import Config
from retrieval.evaluation.contrast import (
    ACCURACY_BY_CHANCE,
    BOTH_BY_CHANCE,
    Order,
    order_of,
    summarize_orders,
    topic_interval,
)
from retrieval.evaluation.minimal_pairs import MinimalPair, Suite, open_suite
from retrieval.evaluation.permutation import PermutationResult, permutation_test
from retrieval.manifest import timestamp
from retrieval.models import find_model
from retrieval.protocols import Reranker
from retrieval.rerankers import open_reranker

SEARCHES: Mapping[str, SearchArguments] = {
    "BM25": {"first_stage": "bm25", "rerank": False},
    "static": {"first_stage": "dense", "rerank": False},
    "hybrid": {"first_stage": "hybrid", "rerank": False},
    "two-stage": {"first_stage": "hybrid", "rerank": True},
}


def run_suite(
    suite: Suite | str | Path = "negation",
    config: Config | None = None,
    *,
    index: str | Path | None = None,
    distractors: str | Path | None = None,
    on_progress: StepCallback | None = None,
) -> SuiteReport:
    """Measure all `SYSTEMS` on a suite of minimal pairs.

    Texts are cut into passages as in any index. Of a long text the best passage counts, which may be one that its twin
    has as well; the cross-encoder alone reads the whole text.

    Args:
        suite: A suite, or what `retrieval.evaluation.minimal_pairs.open_suite` opens.
        config: Settings; ``None`` for the defaults. The store that it names is neither read nor written.
        index: Folder of an embedded index whose passages become distractors and whose encoder, adapted or not, and
            weights of the fusion are used; it is not changed. ``None`` for none.
        distractors: A BEIR folder whose documents become distractors; ``None`` for none.
        on_progress: Called while ingesting and measuring.

    Raises:
        DocumentError: The suite or the collection is missing or malformed.
        ModelError: A model is missing or malformed.
        ValueError: A text of the suite cannot be indexed.
        RetrievalError: As for `TwoStagePipeline.open`.
    """
    started = time.monotonic()
    if not isinstance(suite, Suite):
        suite = open_suite(suite)
    config = config or Config()
    progress = on_progress or (lambda stage, done, total: None)
    reranker = once(partial(open_reranker, config.rerank, find_model(config.rerank.model)))
    documents = {text: f"suite:{number}" for number, text in enumerate(_texts(suite))}
    with open_haystack(
        documents, config, reranker, index=index, distractors=distractors, on_progress=progress
    ) as haystack:
        measured = _Measured(suite, documents, haystack, reranker(), progress)
        return SuiteReport(
            suite=suite.name,
            digest=suite.digest,
            texts=len(documents),
            distractors=haystack.manifest.documents - len(documents),
            passages=haystack.manifest.passages,
            source=", ".join(str(place) for place in (distractors, index) if place is not None),
            candidates=haystack.config.first_stage.candidates,
            depth=config.rerank.depth,
            chance={"right": ACCURACY_BY_CHANCE, "both": BOTH_BY_CHANCE},
            kinds=measured.by_kind(),
            permutation=measured.permutation(),
            orders=measured.orders,
            kept=tuple(measured.kept["hybrid"]),
            names=tuple(f"{pair.id}/{side + 1}" for pair, side in suite.queries),
            kind_of=tuple(pair.kind for pair, _ in suite.queries),
            topics=tuple(pair.topic for pair, _ in suite.queries),
            encoder=str(haystack.encoder.fingerprint),
            reranker=config.rerank.model,
            config=haystack.config.model_dump(mode="json"),
            seconds=time.monotonic() - started,
            date=timestamp(),
        )


class _Measured:
    """Runs every query against every system."""

    def __init__(
        self,
        suite: Suite,
        documents: Mapping[str, str],
        haystack: TwoStagePipeline,
        reranker: Reranker,
        progress: StepCallback,
    ) -> None:
        self._suite = suite
        self._haystack = haystack
        self._reranker = reranker
        self._progress = progress
        self._documents = documents
        self.kept: dict[str, list[bool]] = {}
        self.read: list[bool] = []
        self.orders: dict[str, tuple[Order, ...]] = {}
        for system in SYSTEMS:
            self.orders[system] = tuple(self._alone() if system == CROSS_ENCODER else self._searched(system))

    def _searched(self, system: str) -> Iterator[Order]:
        arguments: SearchArguments = {**SEARCHES[system], "group_by": "document"}
        candidates = self._haystack.config.first_stage.candidates
        for done, (pair, side) in enumerate(self._suite.queries):
            self._progress(system, done, len(self._suite.queries))
            results = self._haystack.search(_query(pair, side), candidates, **arguments)
            found = {hit.document_id: hit for hit in results}
            answer, other = (found.get(self._documents[pair.texts[place]]) for place in (side, 1 - side))
            if arguments["rerank"]:
                self.read.append(all(hit is not None and hit.rerank_score is not None for hit in (answer, other)))
            else:
                self.kept.setdefault(system, []).append(answer is not None and other is not None)
            yield order_of(None if answer is None else answer.score, None if other is None else other.score)

    def _alone(self) -> Iterator[Order]:
        for done, (pair, side) in enumerate(self._suite.queries):
            self._progress(CROSS_ENCODER, done, len(self._suite.queries))
            logits = self._reranker.score(_query(pair, side), [pair.texts[side], pair.texts[1 - side]])
            yield order_of(float(logits[0]), float(logits[1]))

    def by_kind(self) -> tuple[KindResult, ...]:
        """Results of each kind, and of all pairs where there are several kinds."""
        kinds = self._suite.kinds
        return tuple(self._kind(kind) for kind in (*(kinds if len(kinds) > 1 else ()), ALL))

    def _kind(self, kind: str) -> KindResult:
        queries = self._suite.queries
        places = [place for place, (pair, _) in enumerate(queries) if kind in (ALL, pair.kind)]
        topics = [queries[place][0].topic for place in places]
        couples = [
            (number, number + 1)
            for number in range(len(places) - 1)
            if queries[places[number]][0] is queries[places[number + 1]][0]
        ]
        kept = {arm: [values[place] for place in places] for arm, values in self.kept.items()}
        orders = {system: [values[place] for place in places] for system, values in self.orders.items()}
        return KindResult(
            kind=kind,
            pairs=len({queries[place][0].id for place in places}),
            queries=len(places),
            kept={arm: sum(values) / len(values) for arm, values in kept.items()},
            kept_intervals={arm: topic_interval(values, topics) for arm, values in kept.items()},
            read=sum(self.read[place] for place in places) / len(places),
            systems={
                system: summarize_orders([order == "right" for order in values], couples, topics)
                for system, values in orders.items()
            },
            ties={system: values.count("tie") / len(values) for system, values in orders.items()},
        )

    def permutation(self) -> PermutationResult:
        """The words of every text that answers a query, shuffled."""
        asked = [(_query(pair, side), pair.texts[side]) for pair, side in self._suite.queries]
        return permutation_test(
            asked,
            self._haystack.encoder,
            self._haystack.sparse,
            self._reranker.score,
            on_progress=partial(self._progress, "permutation test"),
        )


def _texts(suite: Suite) -> Sequence[str]:
    return list(dict.fromkeys(text for pair in suite.pairs for text in pair.texts))


def _query(pair: MinimalPair, side: int) -> str:
    query = pair.queries[side]
    assert query is not None  # Suite.queries has only those that are there.
    return query
