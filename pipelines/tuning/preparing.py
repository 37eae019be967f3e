"""Everything that is asked of an index before settings are compared: what to try, lists, readings, a judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.progress import StepCallback
from pipelines.quantization.queries import SampledQueries, evenly
from pipelines.tuning.gathering import affordable, plan, read, record_lists, settings_to_read, texts_to_read
from pipelines.tuning.judging import Judge, hits_of, likeness
from pipelines.tuning.record import Record
from pipelines.tuning.recording import RememberedReranker
from pipelines.tuning.replay import Replay
from pipelines.tuning.report import TunePlan
from pipelines.tuning.settings import QUANTIZATIONS, Grid, Setting, Variant
from pipelines.tuning.variants import Variants
from retrieval.config import MemoryStoreConfig, ServerStoreConfig
from retrieval.datatypes import Quantization
from retrieval.errors import StoreError

if TYPE_CHECKING:
    from pipelines.serving import Serving
    from pipelines.two_stage import TwoStagePipeline

MOST_PASSAGES = 100_000
"""Of a larger index no copies with other vectors are made."""

_PROBES = 12
_NOTHING_FOUND = "no query finds anything in {}; ask for words that it has"


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What settings are compared with.

    Args:
        queries: Text of each query that is used, by its name.
        record: Lists of the arms.
        replay: Over the record.
        judge: Measures hits.
        grid: What to try.
        notes: What is not tried, and why.
    """

    queries: Mapping[str, str]
    record: Record
    replay: Replay
    judge: Judge
    grid: Grid
    notes: tuple[str, ...]


class Preparer:
    """Asks one index.

    Args:
        pipeline: Over the index.
        serving: What serves.
        metric: Name of the measure.
        seconds: How long everything may take, about.
        on_plan: Called before the cross-encoder reads.
        on_progress: Called with what is under way.
    """

    def __init__(
        self,
        pipeline: TwoStagePipeline,
        serving: Serving,
        metric: str,
        seconds: float,
        on_plan: Callable[[TunePlan], None],
        on_progress: StepCallback,
    ) -> None:
        self._pipeline = pipeline
        self._serving = serving
        self._metric = metric
        self._seconds = seconds
        self._on_plan = on_plan
        self._on_progress = on_progress
        # A threshold of the score is no part of what is tuned, and leaves out hits that count.
        search = pipeline.config.search.model_copy(update={"min_score": None})
        self.config = pipeline.config.model_copy(update={"search": search})
        self.present = Setting.present(
            self.config, serving.encoder.dim, serving.store.quantization, pipeline.manifest.dense_weight
        )
        self.variants = Variants(self.config, serving, self.present.variant, pipeline.manifest.passages)
        self.reranker = RememberedReranker(pipeline.reranker(), self.config.rerank.batch_size)

    def prepare(self, queries: SampledQueries) -> Prepared:
        """Ask, and let the cross-encoder read.

        Raises:
            ValueError: The judgements are of other documents.
            StoreError: No query finds anything, or the store failed.
            ModelError: The cross-encoder cannot be opened.
        """
        grid, notes = self._what_to_try()
        reference = None if queries.kind == "judged" else self._reference()
        texts = self._in_time(queries, grid, reference)
        record, missing = self._record(list(texts.values()), grid, reference)
        if missing:
            grid = replace(grid, variants=tuple(one for one in grid.variants if one in record.dense))
            kinds = ", ".join(dict.fromkeys(str(variant.quantization) for variant in missing))
            notes.append(f"not tried: {kinds}; the engine makes it only in segments above hnsw.threshold")
        replay = self._replay(record)
        wanted = texts_to_read(replay, settings_to_read(self.present, grid, reference), len(texts))
        self._on_plan(plan(wanted, len(queries.texts), self.reranker))
        read(record, self.reranker, wanted, self._on_progress)
        if len(texts) < len(queries.texts):
            notes.append(
                f"{len(texts):,} of {len(queries.texts):,} queries were used, what {self._seconds:,.0f} seconds allow"
            )
        if reference is None:
            return Prepared(texts, record, replay, self._judged(queries, texts, replay), grid, tuple(notes))
        return self._alike(texts, record, reference, grid, notes)

    def _what_to_try(self) -> tuple[Grid, list[str]]:
        config, notes, truncate = self.config, list[str](), True
        quantizations: tuple[Quantization, ...] = QUANTIZATIONS
        if self._pipeline.manifest.passages > MOST_PASSAGES:
            truncate, quantizations = False, ()
            notes.append(
                f"other vectors were not tried: of more than {MOST_PASSAGES:,} passages no copies are made; "
                "'retrieval quantize' measures compression in place"
            )
        elif self._pipeline.manifest.adapted_from is not None:
            truncate = False
            notes.append("fewer dimensions were not tried: they would cost the adapted encoder, and adapting anew")
        if isinstance(config.store, MemoryStoreConfig):
            quantizations = (Quantization(),)
        if isinstance(config.store, ServerStoreConfig) and (truncate or quantizations):
            notes.append("milliseconds of other vectors are those of the embedded engine, not of the server")
        if self.present.variant.exact:
            quantizations = (Quantization(),)
        grid = Grid.around(self.present, config.first_stage.candidates, quantizations=quantizations, truncate=truncate)
        return grid, notes

    def _reference(self) -> Setting:
        """The most careful search: whole vectors compared with all of them, and every candidate read."""
        variant = Variant(self.present.variant.dimensions, Quantization(), exact=True)
        return replace(self.present, variant=variant, depth=self.config.first_stage.candidates, budget_ms=None)

    def _in_time(self, queries: SampledQueries, grid: Grid, reference: Setting | None) -> dict[str, str]:
        """As many queries as there is time for."""
        probes = [queries.texts[name] for name in evenly(list(queries.texts), _PROBES)]
        small = replace(grid, variants=(self.present.variant,))
        record, _ = self._record(probes, small, reference)
        found = any(any(lists.points) for lists in record.dense.values()) or any(record.sparse)
        if not found and len(probes) == len(queries.texts):
            raise StoreError(f"no query finds anything in {self._serving.store.location}; ask for words that it has")
        settings = settings_to_read(self.present, small, reference)
        count = affordable(self._replay(record), record, self.reranker, settings, self._seconds)
        return {name: queries.texts[name] for name in evenly(list(queries.texts), count)}

    def _record(self, texts: list[str], grid: Grid, reference: Setting | None) -> tuple[Record, tuple[Variant, ...]]:
        wanted = [*grid.variants, *([] if reference is None else [reference.variant])]
        return record_lists(
            self.variants,
            list(dict.fromkeys(wanted)),
            texts,
            self.config.first_stage.candidates,
            self._pipeline.sparse,
            self._serving.store,
            self._on_progress,
        )

    def _replay(self, record: Record) -> Replay:
        return Replay(self.config, self.present, record, self.reranker, hits_of(self._metric))

    def _judged(self, queries: SampledQueries, texts: Mapping[str, str], replay: Replay) -> Judge:
        judge = Judge(self._metric, tuple(texts), {name: (queries.qrels or {})[name] for name in texts})
        results = replay.run(self.present)
        if results is None or not judge.values(results.results).any():
            raise ValueError(
                f"not one of {len(texts)} queries finds a document that is relevant for it; the judgements are "
                f"of other documents than those in {self._serving.store.location}"
            )
        return judge

    def _alike(
        self, texts: Mapping[str, str], record: Record, reference: Setting, grid: Grid, notes: list[str]
    ) -> Prepared:
        """Judge by the reference, with the queries for which it finds something."""
        found = self._replay(record).run(reference)
        qrels = likeness(found.results) if found is not None else {}
        if not qrels:
            raise StoreError(_NOTHING_FOUND.format(self._serving.store.location))
        if len(qrels) < len(texts):
            notes.append(f"{len(texts) - len(qrels):,} queries find nothing and were left out")
        names = [name for number, name in enumerate(texts) if str(number) in qrels]
        record = record.only([number for number in range(len(texts)) if str(number) in qrels])
        judge = Judge(self._metric, tuple(names), dict(zip(names, qrels.values(), strict=True)))
        queries = {name: texts[name] for name in names}
        return Prepared(queries, record, self._replay(record), judge, grid, tuple(notes))
