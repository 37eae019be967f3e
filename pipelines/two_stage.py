"""The pipeline: ingest, first stage, second stage, over one index.

```python
from pipelines import TwoStagePipeline

with TwoStagePipeline.open("my-index") as pipeline:
    pipeline.ingest("docs/")
    for hit in pipeline.search("pipe not broken but leaking"):
        print(hit.rank, hit.first_stage_rank, hit.score, hit.text)
```
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast

from pipelines.confidence import Confidence, stored_calibration
from pipelines.explain import Explanation, explain
from pipelines.opening import open_index_encoder, settings_of
from pipelines.search import Search
from pipelines.search_options import MinScore, SearchArguments, SearchOptions
from pipelines.second_stage import open_second_stage
from pipelines.serving import Serving, Switch, once
from pipelines.tracing import carry
from retrieval.config import Config, EdgeStoreConfig, load_config
from retrieval.datatypes import (
    Document,
    Filter,
    FirstStage,
    GroupBy,
    IndexManifest,
    IngestReport,
    Quantization,
    Results,
)
from retrieval.encoders import Bm25Encoder
from retrieval.errors import ConfigError, StoreInputError
from retrieval.manifest import (
    manifest_from_json,
    manifest_to_json,
    new_manifest,
    require_same_bm25,
    require_same_encoder,
)
from retrieval.protocols import Encoder, Reranker, SparseEncoder, Store
from retrieval.stores import open_store, peek_index
from retrieval.stores.filters import parse_filter

if TYPE_CHECKING:
    from pipelines.adapt import AdaptReport
    from pipelines.calibrate import CalibrateReport
    from pipelines.corpus_views.clusters import ClustersReport
    from pipelines.corpus_views.duplicates import DuplicatesReport
    from pipelines.corpus_views.similar import SimilarDocuments
    from pipelines.generations import Generation, RollbackReport
    from pipelines.ingest import ProgressCallback
    from pipelines.progress import StepCallback
    from pipelines.quantization.quantize import QuantizeReport
    from pipelines.tuning.report import TunePlan, TuneReport
    from retrieval.chunking import Chunker
    from retrieval.training.adapt import AdaptProgress

_KEYS_PER_FILTER = 1_000

Source = str | Path | Iterable[Document | dict[str, Any] | tuple[str, str]]


class TwoStagePipeline:
    """Ingest, search and rerank over one index.

    `open` and `from_config` build one; the constructor takes ready parts. Searching is safe from several threads;
    one ingest or delete runs at a time.

    Args:
        config: Settings of all parts.
        encoder: Static encoder.
        sparse: BM25 encoder.
        store: Open store; the pipeline closes it.
        open_reranker: Called at the first search that reranks.
    """

    def __init__(
        self,
        config: Config,
        *,
        encoder: Encoder,
        sparse: SparseEncoder,
        store: Store,
        open_reranker: Callable[[], Reranker],
    ) -> None:
        self.config = config
        self.sparse = sparse
        self._reranker = once(open_reranker)
        self._write_lock: AbstractContextManager[Any] = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None
        stored = store.read_manifest()
        if stored is None:
            self._manifest = new_manifest(
                config, encoder.fingerprint, self._chunker(encoder).fingerprint, generation=store.generation
            )
            store.write_manifest(manifest_to_json(self._manifest))
        else:
            self._manifest = manifest_from_json(stored, store.location)
            require_same_encoder(self._manifest, encoder.fingerprint, store.location)
            require_same_bm25(self._manifest, config, store.location)
        self._switch = Switch(self._serving(encoder, store, self._manifest))

    @classmethod
    def open(
        cls,
        path: str | Path = "index",
        config: Config | None = None,
        *,
        second_stage: Callable[[], Reranker] | None = None,
        read_only: bool = False,
    ) -> Self:
        """Open the index in a folder, or start one there.

        Args:
            path: Folder of the embedded index; ignored by configurations of a server or of memory.
            config: Settings; ``None`` takes the encoder, BM25 and chunking settings that an existing index was built
                with, and the defaults for everything else.
            second_stage: Gives the cross-encoder, for whoever has begun to load it (`begin_second_stage`); ``None``
                loads it at the first search that reranks.
            read_only: Search the last complete state, beside any number of other readers and one process that writes,
                and turn to each newer one; changing it is refused. An embedded index must be there.

        Raises:
            ModelError: A model is missing or malformed.
            IndexMismatchError: The index was built with another encoder or other BM25 settings.
            StoreBusyError: Another process holds the index.
            StoreCorruptError: Files of the index are damaged or missing.
        """
        given = config
        if config is None:
            config = settings_of(path)
        store_config = config.store
        if isinstance(store_config, EdgeStoreConfig) and store_config.path is not None:
            path = store_config.path
        if second_stage is None:
            second_stage = partial(open_second_stage, config)
        if read_only and isinstance(store_config, EdgeStoreConfig):
            from pipelines.reader import IndexReader

            return cast("Self", IndexReader(given, Path(path), second_stage))
        stored = peek_index(config, path)
        encoder = open_index_encoder(config, stored)
        if stored is not None:
            # Before the store looks at vector sizes: this message names both encoders.
            require_same_encoder(stored.manifest, encoder.fingerprint, stored.location)
        store = open_store(config, dim=encoder.dim, path=Path(path), read_only=read_only)
        try:
            return cls(
                config,
                encoder=encoder,
                sparse=Bm25Encoder(config.bm25),
                store=store,
                open_reranker=second_stage,
            )
        except BaseException:
            store.close()
            raise

    @classmethod
    def from_config(cls, path: str | Path, *, overrides: Sequence[str] = (), index: str | Path = "index") -> Self:
        """Open the index that a configuration file describes.

        Args:
            path: YAML file.
            overrides: ``section.key=value`` each.
            index: Folder of an embedded index whose path the file does not give.

        Raises:
            ConfigError: The file cannot be used.
            RetrievalError: As for `open`.
        """
        return cls.open(index, load_config(path, overrides))

    @property
    def encoder(self) -> Encoder:
        """The static encoder that serves; adapting the index puts another one in its place."""
        return self._switch.serving.encoder

    @property
    def store(self) -> Store:
        """The store that serves; adapting the index puts another one in its place."""
        return self._switch.serving.store

    @property
    def manifest(self) -> IndexManifest:
        """What the index holds and was built with."""
        return self._manifest

    def ingest(
        self,
        source: Source,
        *,
        sync: bool = False,
        duplicates: Literal["keep", "report", "skip"] | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> IngestReport:
        """Add what is new in a source, replace what changed, skip the rest.

        A stream with bounded memory. What cannot be used lands in the report and the run goes on; a run that was
        killed is finished by calling it again.

        Args:
            source: A file, a folder, or an iterable of Documents, dicts with ``text`` (and ``id``, ``title``, other
                keys as metadata) or ``(id, text)`` pairs.
            sync: Also remove documents of this file or folder that are no longer in it.
            duplicates: What becomes of new documents that are near-equal to one that is there: ``report`` tells of
                them, ``skip`` also puts them on the rejected list; ``None`` as configured.
            on_progress: Called after every batch.

        Raises:
            DocumentError: The source cannot be read at all.
            ValueError: ``sync`` with a source that is not a path, or ``duplicates`` is unknown.
            StoreError: The store refused; what was written stays.
        """
        # Searching does not need the readers.
        from pipelines.ingest import Ingest
        from pipelines.second_process import SecondProcess
        from retrieval.documents import from_python, open_documents, sample_documents

        is_path = isinstance(source, (str, Path))
        if sync and not is_path:
            raise ValueError("sync=True needs a file or folder, not documents handed over in Python")
        treatment = self.config.documents.duplicates if duplicates is None else duplicates
        if treatment not in {"keep", "report", "skip"}:
            raise ValueError(f"duplicates is 'keep', 'report' or 'skip', not {treatment!r}")
        with self._write_lock:
            second = SecondProcess(self.config, self.encoder, self.sparse)
            run = Ingest(
                self.store,
                self.encoder,
                self.sparse,
                self._chunker(self.encoder),
                self._manifest,
                on_progress,
                treatment,
                second,
            )
            path = sample = None
            if isinstance(source, (str, Path)):
                path = Path(source)
                documents = open_documents(path, self.config.documents, on_rejected=run.reject)
                sample = partial(sample_documents, path, self.config.documents)
            else:
                documents = from_python(source, on_rejected=run.reject)
            root = str(Path(str(source)).resolve()) if sync else None
            try:
                return run.run(documents, path=path, sync_root=root, sample=sample)
            finally:
                self._manifest = run.manifest

    def ingest_distributed(
        self,
        path: str | Path,
        *,
        address: str,
        sync: bool = False,
        workers: int | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> IngestReport:
        """`ingest` with the workers of a Ray cluster, into an index on a Qdrant server.

        Ids, counts and results are those of `ingest`. A worker that is killed loses and doubles nothing; a run that was
        killed as a whole is finished by calling this or `ingest` again.

        Args:
            path: A file or folder that every machine of the cluster sees under the same name.
            address: Of the cluster: ``local``, ``auto``, ``HOST:6379`` or ``ray://HOST:10001``.
            sync: Also remove documents of this file or folder that are no longer in it.
            workers: Processes that write; ``None`` for one on each CPU of the cluster.
            on_progress: Called after every part of the source.

        Raises:
            MissingExtraError: Ray is not installed.
            ConfigError: The store is no server, or the cluster cannot be reached.
            DocumentError: The source cannot be read at all.
            StoreError: The store refused; what was written stays.
        """
        from pipelines.ray_ingest.driver import DistributedIngest

        if self.config.documents.duplicates != "keep":
            raise ConfigError(
                f"documents.duplicates is {self.config.documents.duplicates!r}, which needs one process that sees all "
                "documents; leave it out and look for them afterwards with 'retrieval duplicates'"
            )
        with self._write_lock:
            run = DistributedIngest(
                self.config,
                self.store,
                self.encoder,
                self.sparse,
                self._chunker(self.encoder),
                self._manifest,
                on_progress,
            )
            try:
                return run.run(path, address=address, sync=sync, workers=workers)
            finally:
                self._manifest = run.manifest

    def search(
        self,
        query: str,
        top_k: int | None = None,
        *,
        candidates: int | None = None,
        depth: int | None = None,
        budget_ms: float | None = None,
        rerank: bool | None = None,
        first_stage: FirstStage | None = None,
        where: Filter | None = None,
        group_by: GroupBy | None = None,
        min_score: MinScore | None = None,
        exact: bool | None = None,
    ) -> Results:
        """Find the passages that answer a query.

        Every argument that is ``None`` takes its value from the configuration.

        Args:
            query: The query; an empty one gives no hits and a warning.
            top_k: How many hits, at least 1.
            candidates: How many passages the first stage fetches.
            depth: How many of them the cross-encoder may read.
            budget_ms: Milliseconds after which it stops reading.
            rerank: ``False`` keeps the order of the first stage.
            first_stage: Arms that fetch candidates: ``hybrid``, ``dense`` or ``bm25``.
            where: Qdrant REST filter; metadata stands under ``metadata.``.
            group_by: ``document`` for the best passage of each document, ``passage`` for all.
            min_score: Hits with a lower `Hit.probability` are left out, and so is what the cross-encoder did not read,
                which has none; the result says so. ``"auto"`` takes the threshold that `calibrate` stored with the
                index, 0 leaves out nothing.
            exact: Search all vectors as they were given, without the graph and without quantization.

        Returns:
            The hits, best first, with timings and warnings.

        Raises:
            ValueError: An argument is out of range; or ``min_score`` is given without reranking, with a cross-encoder
                that has no calibration, or as ``"auto"`` for an index that has no threshold.
            StoreError: The store failed or the filter is not usable.
        """
        return self.search_many(
            [query],
            top_k,
            candidates=candidates,
            depth=depth,
            budget_ms=budget_ms,
            rerank=rerank,
            first_stage=first_stage,
            where=where,
            group_by=group_by,
            min_score=min_score,
            exact=exact,
        )[0]

    def search_many(
        self, queries: Sequence[str], top_k: int | None = None, **arguments: Unpack[SearchArguments]
    ) -> list[Results]:
        """Search for several queries with one call to the encoders and one to the store.

        Arguments, results and errors are those of `search`; ``budget_ms`` holds for each query.
        """
        options = SearchOptions.from_config(self.config, top_k, arguments)
        with self._switch.use() as serving:
            return serving.search.run(queries, options)

    async def asearch(self, query: str, top_k: int | None = None, **arguments: Unpack[SearchArguments]) -> Results:
        """`search` on the pipeline's worker thread; takes the same arguments."""
        import asyncio  # with ssl, which searching does without

        if self._worker is None:
            self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="retrieval-search")
        call = carry(partial(self.search, query, top_k, **arguments))
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    def explain(self, query: str, top_k: int | None = None, **arguments: Unpack[SearchArguments]) -> Explanation:
        """Search and tell why: what each arm and the cross-encoder made of every candidate, and which words matched.

        Args:
            query: The query.
            top_k: How many candidates are told about; ``None`` for all.
            arguments: As for `search`; candidates are always told passage by passage.

        Raises:
            ValueError: An argument is out of range.
            StoreError: The store failed or the filter is not usable.
        """
        return explain(self, query, top_k, arguments)

    def similar(
        self,
        document_id: str,
        top_k: int | None = None,
        *,
        where: Filter | None = None,
        first_stage: FirstStage | None = None,
    ) -> SimilarDocuments:
        """The nearest documents of a document, without itself, and why.

        Args:
            document_id: Id as results show it, or the source of the document.
            top_k: How many; ``None`` as configured.
            where: Qdrant REST filter on what is found.
            first_stage: ``hybrid``, ``dense`` or ``bm25``; ``None`` as configured.

        Raises:
            ValueError: An argument is out of range.
            StoreInputError: No document has this id, or the filter is not usable.
        """
        from pipelines.corpus_views.similar import Similar

        config = self.config
        with self._switch.use() as serving:
            return Similar(serving.store, self.sparse, config.first_stage, self._manifest.dense_weight).run(
                document_id,
                config.search.top_k if top_k is None else top_k,
                where=where,
                first_stage=config.first_stage.arms if first_stage is None else first_stage,
            )

    def duplicates(
        self,
        *,
        of: Literal["document", "passage"] = "document",
        within: Literal["corpus", "document"] = "corpus",
        threshold: float | None = None,
        where: Filter | None = None,
        on_progress: StepCallback | None = None,
    ) -> DuplicatesReport:
        """Groups of near-equal documents or passages; nothing is removed.

        Args:
            of: Compare whole documents, or single passages.
            within: ``document`` compares passages only with those of the same document.
            threshold: Share of word triples from which two are near-equal; ``None`` for the measured default.
            where: Qdrant REST filter on what is compared.
            on_progress: Called with what is under way.

        Raises:
            ValueError: An argument is out of range.
            StoreError: The store failed or the filter is not usable.
        """
        from pipelines.corpus_views.duplicates import Duplicates

        with self._switch.use() as serving:
            return Duplicates(serving.store, where, on_progress).run(of, within, threshold)

    def clusters(
        self,
        *,
        by: Literal["document", "passage"] = "document",
        count: int | None = None,
        limit: int = 3_000,
        seed: int = 0,
        where: Filter | None = None,
        mapped: bool = False,
        on_progress: StepCallback | None = None,
    ) -> ClustersReport:
        """Clusters with labels, and places on a plane for a map.

        Args:
            by: Cluster documents or passages.
            count: How many clusters; ``None`` takes the number with the best silhouette.
            limit: A uniform sample of so many where there are more.
            seed: Of sample, clusters and map.
            where: Qdrant REST filter.
            mapped: Give every point a place.
            on_progress: Called with what is under way.

        Raises:
            ValueError: An argument is out of range.
            StoreError: There is nothing to put into clusters, or the filter is not usable.
            MissingExtraError: scikit-learn is not installed.
        """
        from pipelines.corpus_views.clusters import find_clusters

        with self._switch.use() as serving:
            return find_clusters(
                serving.store,
                self.sparse,
                by=by,
                count=count,
                limit=limit,
                seed=seed,
                where=where,
                mapped=mapped,
                on_progress=on_progress,
            )

    @contextmanager
    def reading(self) -> Iterator[Serving]:
        """The encoder and the store that serve, kept open together until the end of the block."""
        with self._switch.use() as serving:
            yield serving

    def publish(self) -> None:
        """Let processes that only read have an embedded index as it is now, also before its first change.

        What changes leave is published by itself, once anything is. Does nothing where ``store.publish`` is false, or
        for other stores.

        Raises:
            StoreError: The copy cannot be made; who reads keeps the state before.
        """
        from retrieval.stores.edge import EdgeStore

        with self._write_lock:
            if isinstance(self.store, EdgeStore):
                self.store.publish()

    def reranker(self) -> Reranker:
        """The cross-encoder; opened at the first call.

        Raises:
            ModelError: It is missing or malformed.
        """
        return self._reranker()

    def confidence(self) -> Confidence:
        """What the logits of the cross-encoder mean for this index: probabilities, and where a good answer begins.

        Raises:
            ModelError: The cross-encoder is missing or malformed.
        """
        with self._switch.use() as serving:
            return serving.search.confidence()

    def delete(self, document_ids: Sequence[str]) -> int:
        """Remove documents by id.

        Args:
            document_ids: Ids as shown in results.

        Returns:
            How many documents were removed; ids that are not in the index do not count.

        Raises:
            TypeError: A bare string was given.
            StoreError: The store refused.
        """
        if isinstance(document_ids, str):
            raise TypeError(f"delete takes a list of document ids, got the string {document_ids!r}")
        if not document_ids:
            return 0
        return self._remove([{"must": [{"key": "document_id", "match": {"any": list(document_ids)}}]}])

    def delete_where(self, where: Filter) -> int:
        """Remove the documents of which a passage matches, as a whole.

        Args:
            where: Qdrant REST filter.

        Returns:
            How many documents were removed.

        Raises:
            StoreInputError: The filter is not usable, or excludes nothing.
            StoreError: The store refused.
        """
        if parse_filter(where).matches_everything:
            raise StoreInputError("a deletion needs a filter that excludes something; this one matches everything")
        keys = sorted({str(point.payload["document"]) for point in self.store.scan(where, payload=["document"])})
        batches = [keys[start : start + _KEYS_PER_FILTER] for start in range(0, len(keys), _KEYS_PER_FILTER)]
        return self._remove([{"must": [{"key": "document", "match": {"any": batch}}]} for batch in batches])

    def _remove(self, filters: Sequence[Filter]) -> int:
        removed = 0
        with self._write_lock:
            from pipelines.writer import IndexWriter

            writer = IndexWriter(self.store, self.sparse, self._manifest, lambda rejection: None)
            try:
                writer.repair()
                for where in filters:
                    if self.store.count(where):
                        writer.begin()
                        removed += writer.remove_where(where)
                writer.commit()
            finally:
                self._manifest = writer.manifest
        return removed

    def adapt(
        self,
        *,
        seconds: float = 150.0,
        seed: int = 0,
        teacher: Encoder | None = None,
        on_progress: Callable[[AdaptProgress], None] | None = None,
        force: bool = False,
        dry_run: bool = False,
        passages: int = 200_000,
        steps: int | None = None,
    ) -> AdaptReport:
        """Train the static model on the documents of the index, without labels, and make all vectors anew with it.

        Searches go on meanwhile over the old vectors; those that are under way when the new ones are complete end on
        the old. `ingest` and `delete` wait. Where the self-check shows a loss the vectors stay; in both cases the
        weights of the fusion become those chosen for these documents. The previous generation is kept for `rollback`
        until the next adaptation, or `discard_previous`.

        Args:
            seconds: Time limit of sampling and training; encoding every passage comes on top.
            seed: Of the sample and the training.
            teacher: An encoder whose similarities are learned too; ``None`` learns from the documents alone.
            on_progress: Called after every step.
            force: Switch even if the self-check shows a loss.
            dry_run: Train and check, and change nothing.
            passages: At most so many are read, a uniform sample; memory is bounded by it.
            steps: Training steps, for a result that does not depend on the speed of the machine; ``None`` for what
                the time allows.

        Raises:
            StoreError: There are fewer than 50 passages, or the store failed; nothing has changed.
            StoreFullError: There is no room for a second set of vectors.
            MissingExtraError: A package for training is not installed.
        """
        from pipelines.adapt import Adapter, AdaptOptions

        options = AdaptOptions(seconds, seed, passages, steps, force, dry_run)
        with self._write_lock:
            self._settle()
            run = Adapter(self.config, self.encoder, self.sparse, self.store, self._manifest, on_progress)
            report, generation = run.run(options, teacher)
            if generation is not None:
                self._make_live(generation)
            elif not dry_run and report.dense_weight != self._manifest.dense_weight:
                self._weigh(report.dense_weight)
        # A collection that was not behind an alias cannot be kept.
        return replace(report, previous=self._manifest.previous)

    def rollback(self, *, on_progress: Callable[[AdaptProgress], None] | None = None) -> RollbackReport:
        """Return to the generation before the last adaptation; again, to the one after it.

        The old vectors are used as they are. Where documents came or went since, all are made anew with the old
        encoder, so that none is lost.

        Args:
            on_progress: Called while vectors are made.

        Raises:
            StoreError: There is no previous generation.
            ModelError: Its encoder cannot be opened any more.
        """
        from pipelines.generations import RollbackReport, previous_generation
        from retrieval.training.adapt import AdaptProgress

        started = time.monotonic()

        def show(done: int, of: int) -> None:
            if on_progress is not None:
                on_progress(AdaptProgress("encoding", done, of, None, None, time.monotonic() - started))

        with self._write_lock:
            self._settle()
            generation = previous_generation(self.store, self._manifest, self.config, show)
            self._make_live(generation)
        encoder = self._manifest.encoder
        return RollbackReport(
            generation=self._manifest.generation,
            previous=self._manifest.previous,
            encoder=f"{encoder.name}@{encoder.digest}",
            encoded=generation.encoded,
            seconds=time.monotonic() - started,
        )

    def discard_previous(self) -> int | None:
        """Erase the previous generation, which frees its disk; there is nothing to roll back to then.

        Returns:
            Its number, ``None`` when there was none.
        """
        with self._write_lock:
            number = self._manifest.previous
            if number is not None:
                self._manifest = replace(self._manifest, previous=None)
                self.store.write_manifest(manifest_to_json(self._manifest))
                self.store.tidy()
        return number

    def quantize(
        self,
        quantization: Quantization | None = None,
        *,
        queries: Mapping[str, str] | Sequence[str] | None = None,
        qrels: Mapping[str, Mapping[str, int]] | None = None,
        sample: int | None = None,
        max_loss: float | None = None,
        on_progress: StepCallback | None = None,
    ) -> QuantizeReport:
        """Compress the vectors that the static arm searches, measured before and after, or take that back.

        It is kept when no more than ``max_loss`` is lost, and taken back otherwise, also where the engine does not
        compress an index as small as this one. `ingest` and `delete` wait meanwhile. Searches are answered by a server
        all the time; the embedded engine rebuilds its segments in a process of its own, for which they wait. Other
        processes that use the same server compare whole vectors until they open the index again.

        Args:
            quantization: What to try; ``None`` for TurboQuant with two bits, rescored from three times the candidates;
                kind ``none`` takes it back without a measurement.
            queries: Real queries, by id where they are judged; ``None`` makes some of titles and sentences.
            qrels: Judgements by query and document id: nDCG@10 then decides, else the overlap with exact search.
            sample: How many queries at most; ``None`` for 1,000 real ones, or 200 that were made.
            max_loss: How much may be lost; ``None`` for 0.005 of nDCG@10, or 0.02 of the overlap.
            on_progress: Called with what is under way.

        Raises:
            ValueError: An argument is out of range, or the judgements are of other documents.
            StoreError: There are no vectors, or the store failed; the index has the old quantization, or none.
            StoreFullError: There is no room to rebuild segments; nothing has changed.
        """
        from pipelines.quantization.quantize import DEFAULT_QUANTIZATION, Quantizer
        from pipelines.quantization.queries import SampledQueries

        wanted = DEFAULT_QUANTIZATION if quantization is None else quantization
        with self._write_lock:
            run = Quantizer(self.config, self._switch.serving, self._manifest, on_progress)
            if wanted.kind == "none":
                return run.off()
            return run.run(wanted, SampledQueries.of(self.store, queries, qrels, sample), max_loss)

    def calibrate(
        self,
        *,
        queries: Mapping[str, str] | None = None,
        qrels: Mapping[str, Mapping[str, int]] | None = None,
        target_precision: float = 0.8,
        no_answer: float | None = None,
        unanswerable: Sequence[str] = (),
        sample: int | None = None,
        on_progress: StepCallback | None = None,
    ) -> CalibrateReport:
        """Fit from which probability on a hit is a good answer, and store it with the index.

        With judgements, what logits mean is fitted to them too; without, both are taken from the cross-encoder. After
        it `Results.answered` is told, ``min_score="auto"`` works, and every `Hit.probability` is of this fit.

        Args:
            queries: Queries by id; ``None`` takes what the cross-encoder brings along.
            qrels: Judgements by query and document id.
            target_precision: Share of the answered queries that shall have a relevant hit, one that reaches the
                threshold.
            no_answer: Share of queries that the index has no answer to, from 0 to below 1; ``None`` for one half.
            unanswerable: Queries that the index does not answer; without any the judged queries are asked again and
                their judged documents left out.
            sample: How many judged queries at most; ``None`` for 1,000.
            on_progress: Called with what is under way.

        Raises:
            ValueError: Too few judged passages are found, the target cannot be reached, or the cross-encoder is off.
            ModelError: The cross-encoder is missing or malformed.
            StoreError: The store failed; nothing has changed.
        """
        from pipelines.calibrate import NO_ANSWER, Calibrator
        from pipelines.quantization.queries import SampledQueries

        if not (self.config.rerank.enabled and self.config.rerank.depth):
            raise ValueError(
                "a threshold is one of the cross-encoder, and it is off: set rerank.enabled and rerank.depth"
            )
        share = NO_ANSWER if no_answer is None else no_answer
        with self._write_lock:
            before = self._switch.serving.search.calibration
            run = Calibrator(self.config, self._switch.serving.search, self.reranker(), on_progress)
            if queries is None and qrels is None:
                if unanswerable or sample is not None or no_answer is not None:
                    raise ValueError("without judged queries the threshold is the model's; leave the other options out")
                calibration, report = run.of_model(target_precision)
            else:
                asked = SampledQueries.of(self.store, queries, qrels, sample)
                calibration, report = run.of_labels(asked, target_precision, share, unanswerable)
            self._note_calibration(calibration.to_json())
        return replace(report, stored=True, before=None if before is None else before.threshold)

    def forget_calibration(self) -> bool:
        """Erase what `calibrate` stored; whether there was something."""
        with self._write_lock:
            there = self._manifest.calibration is not None
            if there:
                self._note_calibration(None)
        return there

    def tune(
        self,
        *,
        queries: Mapping[str, str] | Sequence[str] | None = None,
        qrels: Mapping[str, Mapping[str, int]] | None = None,
        sample: int | None = None,
        metric: str = "nDCG@10",
        folds: int = 5,
        seed: int = 0,
        latency_ms: float | None = None,
        max_bytes: float | None = None,
        max_loss: float | None = None,
        seconds: float = 180.0,
        on_plan: Callable[[TunePlan], None] | None = None,
        on_progress: StepCallback | None = None,
    ) -> TuneReport:
        """Find settings for the documents of the index by measurement; the index and the configuration stay.

        Dimensions, quantization, fusion, depth, blend and budget. With judgements by cross-validation: the figure that
        is reported is that of queries which did not choose. Without, by likeness to exact search at full depth, which
        is not relevance: then nothing dearer than the present settings is chosen. Where queries cannot tell settings
        apart the cheaper one is taken. `ingest` and `delete` wait meanwhile.

        Args:
            queries: Real queries, by id where they are judged; ``None`` makes some of titles and sentences.
            qrels: Judgements by query and document id.
            sample: How many queries at most; ``None`` for 1,000 real ones, or 200 that were made.
            metric: Name of a measure as ``ir_measures`` has it.
            folds: Parts of the queries, each held out once, at least 2.
            seed: Of the parts.
            latency_ms: Median milliseconds that a search may take; ``None`` for any.
            max_bytes: Bytes a passage that the first stage may read; ``None`` for any.
            max_loss: How much a cheaper setting may lose where that is not distinguishable from chance; ``None`` for
                0.01 of the measure, or 0.02 of the likeness.
            seconds: How long it may take, about; fewer queries are used where that is not enough for all.
            on_plan: Called once it is known how much there is to read.
            on_progress: Called with what is under way.

        Raises:
            ValueError: An argument is out of range, or the judgements are of other documents.
            StoreError: No query finds anything, or the store failed.
            ModelError: The cross-encoder cannot be opened.
        """
        from pipelines.quantization.queries import SampledQueries
        from pipelines.tuning.tune import TuneOptions, Tuner

        options = TuneOptions(metric, folds, seed, latency_ms, max_bytes, max_loss, seconds)
        with self._write_lock, self.reading() as serving:
            sampled = SampledQueries.of(serving.store, queries, qrels, sample)
            tell, show = on_plan or (lambda plan: None), on_progress or (lambda stage, done, total: None)
            return Tuner(self, serving, options, tell, show).run(sampled)

    def close(self) -> None:
        """Release the index; closing twice is fine."""
        self.retire()
        self.store.close()

    def retire(self) -> None:
        """End the worker thread and leave the store open, which another pipeline uses from now on."""
        if self._worker is not None:
            self._worker.shutdown()
            self._worker = None

    def _chunker(self, encoder: Encoder) -> Chunker:
        from retrieval.chunking import Chunker

        return Chunker.of_encoder(self.config.chunking, encoder)

    def _settle(self) -> None:
        """Finish what an interrupted ingest or delete has begun."""
        from pipelines.writer import IndexWriter

        writer = IndexWriter(self.store, self.sparse, self._manifest, lambda rejection: None)
        try:
            writer.repair()
            writer.commit()
        finally:
            self._manifest = writer.manifest

    def _make_live(self, generation: Generation) -> None:
        """Let a complete generation serve; the one before is closed when the last search in it has ended."""
        store = generation.store
        before = self._switch.to(self._serving(generation.encoder, store, generation.manifest))
        try:
            store.make_live(manifest_to_json(generation.manifest))
        except BaseException:
            self._switch.to(before)
            if generation.encoded:
                store.abandon()
            else:
                store.close()
            raise
        self._manifest = manifest_from_json(store.read_manifest() or {}, store.location)
        before.store.close()
        store.tidy()

    def _weigh(self, dense_weight: float) -> None:
        self._manifest = replace(self._manifest, dense_weight=dense_weight)
        self.store.write_manifest(manifest_to_json(self._manifest))
        self._switch.to(self._serving(self.encoder, self.store, self._manifest))

    def _note_calibration(self, calibration: Mapping[str, Any] | None) -> None:
        self._manifest = replace(self._manifest, calibration=calibration)
        self.store.write_manifest(manifest_to_json(self._manifest))
        self._switch.to(self._serving(self.encoder, self.store, self._manifest))

    def _serving(self, encoder: Encoder, store: Store, manifest: IndexManifest) -> Serving:
        calibration = stored_calibration(manifest.calibration, store.location)
        search = Search(
            self.config,
            encoder,
            self.sparse,
            store,
            self._reranker,
            manifest.dense_weight,
            calibration=calibration,
        )
        return Serving(encoder, store, search)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
