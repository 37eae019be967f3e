"""Follow every relevant document of a collection through both stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipelines.evaluation.advice import advice_of
from pipelines.evaluation.first_stage import ArmFindings, FirstStageLook
from pipelines.evaluation.loss_report import LossReport
from pipelines.evaluation.loss_summary import Followed, Traced, summarize
from pipelines.evaluation.reading import SecondLook
from pipelines.evaluation.traces import PLACES
from pipelines.progress import StepCallback
from pipelines.serving import Serving
from pipelines.two_stage import TwoStagePipeline
from retrieval.errors import RetrievalError
from retrieval.evaluation.losses import ORDERING, READING, Fate, RelevantDocument, fates_of, merge_trails
from retrieval.protocols import Store

_KEYS_PER_FILTER = 1_000
_Key = tuple[str, str]


def find_losses(pipeline: TwoStagePipeline, traced: Traced, on_progress: StepCallback) -> LossReport:
    """Tell for every relevant document that is not in the top where it was lost.

    Args:
        pipeline: Over the ingested collection.
        traced: The system and its searches.
        on_progress: Called while searching and reading again.

    Raises:
        StoreError: The store failed.
    """
    with pipeline.reading() as serving:
        followed = _Search(pipeline, serving, traced, on_progress).follow()
        config = pipeline.config
        report = summarize(traced, followed, candidates=config.first_stage.candidates, depth=config.rerank.depth)
        return replace(report, advice=advice_of(report, config, pipeline.manifest, serving.store.quantization))


class _Search:
    """Looks at the searches of one system again."""

    def __init__(self, pipeline: TwoStagePipeline, serving: Serving, traced: Traced, on_progress: StepCallback) -> None:
        self._pipeline = pipeline
        self._serving = serving
        self._traced = traced
        self._on_progress = on_progress
        fusion = pipeline.config.first_stage
        if fusion.dense_weight is None:
            fusion = fusion.model_copy(update={"dense_weight": pipeline.manifest.dense_weight})
        self._fusion = fusion
        self._relevant = traced.relevant()
        self._passages = _passages_of(serving.store, {one for grades in self._relevant.values() for one in grades})

    def follow(self) -> Followed:
        found = self._look_again()
        documents = self._documents(found)
        rises = self._read_again(self._fates(documents))
        documents = [
            replace(one, trail=replace(one.trail, elsewhere=one.trail.read and rises.get(_key(one), False)))
            for one in documents
        ]
        needed = {_key(one): self._needed(one, found[one.query]) for one in documents}
        return Followed(
            fates=self._fates(documents),
            found=found,
            needed={key: candidates for key, candidates in needed.items() if candidates is not None},
            rises=rises,
            exact=self._exact_order(found),
        )

    def _fates(self, documents: Sequence[RelevantDocument]) -> tuple[Fate, ...]:
        unread = {query: trace.unread for query, trace in self._traced.traces.items()}
        return fates_of(documents, candidates=self._fusion.candidates, unread=unread, places=PLACES)

    def _look_again(self) -> dict[str, ArmFindings]:
        traces = self._traced.traces
        wanted: dict[str, list[str]] = {}
        missed: dict[str, list[str]] = {}
        for query, grades in self._relevant.items():
            wanted[query] = [name for document in grades for name in self._passages.get(document, ())]
            lost = [document for document in grades if document not in traces[query].ranks]
            missed[query] = [name for document in lost for name in self._passages.get(document, ())]
        encoder, store = self._serving.encoder, self._serving.store
        passages = self._pipeline.manifest.passages
        look = FirstStageLook(encoder, self._pipeline.sparse, store, self._fusion, passages)
        return look.look(self._traced.queries, wanted, missed, self._on_progress)

    def _documents(self, found: Mapping[str, ArmFindings]) -> list[RelevantDocument]:
        documents = []
        for query, grades in self._relevant.items():
            trace = self._traced.traces[query]
            candidates = {passage.id: passage for passage in trace.passages}
            for document, grade in grades.items():
                trails = []
                for name in self._passages.get(document, ()):
                    trail, candidate = found[query].trails[name], candidates.get(name)
                    if candidate is not None:
                        trail = replace(trail, first_stage_rank=candidate.rank, read=candidate.read is not None)
                    trails.append(trail)
                rank, whole = trace.ranks.get(document), merge_trails(trails)
                documents.append(RelevantDocument(query, document, grade, bool(trails), rank, whole))
        return documents

    def _needed(self, one: RelevantDocument, found: ArmFindings) -> int | None:
        names = self._passages.get(one.document, ())
        return min((found.with_more[name] for name in names if name in found.with_more), default=None)

    def _read_again(self, fates: Sequence[Fate]) -> dict[_Key, bool]:
        """Whether one more reading would have lifted the candidates that were lost."""
        lost: dict[str, list[str]] = {}
        for fate in fates:
            failed = self._traced.traces[fate.relevant.query].unread == "failed"
            if fate.stage in (*READING, *ORDERING) and not failed:
                lost.setdefault(fate.relevant.query, []).append(fate.relevant.document)
        try:
            reranker = self._pipeline.reranker()
        except (RetrievalError, OSError):
            return {}  # the searches have said so
        look = SecondLook(self._serving.encoder, self._serving.store, reranker, self._pipeline.config.rerank)
        rises: dict[_Key, bool] = {}
        for done, (query, documents) in enumerate(lost.items()):
            self._on_progress("losses: reading", done, len(lost))
            lifted = look.lifted(self._traced.queries[query], self._traced.traces[query], documents)
            rises |= {(query, document): document in lifted for document in documents}
        return rises

    def _exact_order(self, found: Mapping[str, ArmFindings]) -> dict[str, list[str]] | None:
        """Top documents of an exact first stage; ``None`` where search is exact anyway."""
        store, config = self._serving.store, self._pipeline.config
        if store.quantization.kind == "none" and self._pipeline.manifest.passages < config.hnsw.threshold:
            return None
        names = sorted({name for one in found.values() for name in one.exact})
        documents = {
            point.id: str(point.payload["document_id"])
            for start in range(0, len(names), _KEYS_PER_FILTER)
            for point in store.get(names[start : start + _KEYS_PER_FILTER], payload=["document_id"])
        }
        return {
            query: list(dict.fromkeys(documents[name] for name in one.exact if name in documents))[:PLACES]
            for query, one in found.items()
        }


def _key(document: RelevantDocument) -> _Key:
    return document.query, document.document


def _passages_of(store: Store, documents: set[str]) -> dict[str, list[str]]:
    """Ids of the passages of each document that is in the index."""
    passages: dict[str, list[str]] = {}
    names = sorted(documents)
    for start in range(0, len(names), _KEYS_PER_FILTER):
        keys = names[start : start + _KEYS_PER_FILTER]
        where = {"must": [{"key": "document_id", "match": {"any": keys}}]}
        for point in store.scan(where, payload=["document_id"]):
            passages.setdefault(str(point.payload["document_id"]), []).append(point.id)
    return passages
