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

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from pipelines.explain import Explanation, explain
from pipelines.ingest import Ingest, ProgressCallback
from pipelines.opening import open_index_encoder, settings_of
from pipelines.search import Search
from pipelines.search_options import SearchArguments, SearchOptions
from pipelines.serving import Serving, Switch, once
from pipelines.tracing import carry
from pipelines.writer import IndexWriter
from retrieval.chunking import Chunker
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
from retrieval.errors import StoreInputError
from retrieval.manifest import (
    manifest_from_json,
    manifest_to_json,
    new_manifest,
    require_same_bm25,
    require_same_encoder,
)
from retrieval.models import find_model
from retrieval.protocols import Encoder, Reranker, SparseEncoder, Store
from retrieval.rerankers import open_reranker
from retrieval.stores import open_store, peek_index
from retrieval.stores.filters import parse_filter

if TYPE_CHECKING:
    from pipelines.adapt import AdaptReport
    from pipelines.generations import Generation, RollbackReport
    from pipelines.progress import StepCallback
    from pipelines.quantization.quantize import QuantizeReport
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
        self._chunker = Chunker(config.chunking, encoder.count_tokens)
        self._reranker = once(open_reranker)
        self._write_lock = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None
        stored = store.read_manifest()
        if stored is None:
            self._manifest = new_manifest(
                config, encoder.fingerprint, self._chunker.fingerprint, generation=store.generation
            )
            store.write_manifest(manifest_to_json(self._manifest))
        else:
            self._manifest = manifest_from_json(stored, store.location)
            require_same_encoder(self._manifest, encoder.fingerprint, store.location)
            require_same_bm25(self._manifest, config, store.location)
        self._switch = Switch(self._serving(encoder, store, self._manifest))

    @classmethod
    def open(cls, path: str | Path = "index", config: Config | None = None) -> Self:
        """Open the index in a folder, or start one there.

        Args:
            path: Folder of the embedded index; ignored by configurations of a server or of memory.
            config: Settings; ``None`` takes the encoder, BM25 and chunking settings that an existing index was built
                with, and the defaults for everything else.

        Raises:
            ModelError: A model is missing or malformed.
            IndexMismatchError: The index was built with another encoder or other BM25 settings.
            StoreBusyError: Another process holds the index.
            StoreCorruptError: Files of the index are damaged or missing.
        """
        if config is None:
            config = settings_of(path)
        store_config = config.store
        if isinstance(store_config, EdgeStoreConfig) and store_config.path is not None:
            path = store_config.path
        stored = peek_index(config, path)
        encoder = open_index_encoder(config, stored)
        if stored is not None:
            # Before the store looks at vector sizes: this message names both encoders.
            require_same_encoder(stored.manifest, encoder.fingerprint, stored.location)
        store = open_store(config, dim=encoder.dim, path=Path(path))
        try:
            return cls(
                config,
                encoder=encoder,
                sparse=Bm25Encoder(config.bm25),
                store=store,
                open_reranker=partial(_open_reranker, config),
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
        self, source: Source, *, sync: bool = False, on_progress: ProgressCallback | None = None
    ) -> IngestReport:
        """Add what is new in a source, replace what changed, skip the rest.

        A stream with bounded memory. What cannot be used lands in the report and the run goes on; a run that was
        killed is finished by calling it again.

        Args:
            source: A file, a folder, or an iterable of Documents, dicts with ``text`` (and ``id``, ``title``, other
                keys as metadata) or ``(id, text)`` pairs.
            sync: Also remove documents of this file or folder that are no longer in it.
            on_progress: Called after every batch.

        Raises:
            DocumentError: The source cannot be read at all.
            ValueError: ``sync`` with a source that is not a path.
            StoreError: The store refused; what was written stays.
        """
        # Searching does not need the readers.
        from retrieval.documents import from_python, open_documents, sample_documents

        is_path = isinstance(source, (str, Path))
        if sync and not is_path:
            raise ValueError("sync=True needs a file or folder, not documents handed over in Python")
        with self._write_lock:
            run = Ingest(self.store, self.encoder, self.sparse, self._chunker, self._manifest, on_progress)
            sample = None
            if isinstance(source, (str, Path)):
                documents = open_documents(source, self.config.documents, on_rejected=run.reject)
                sample = partial(sample_documents, source, self.config.documents)
            else:
                documents = from_python(source, on_rejected=run.reject)
            root = str(Path(str(source)).resolve()) if sync else None
            try:
                return run.run(documents, sync_root=root, sample=sample)
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

        with self._write_lock:
            run = DistributedIngest(
                self.config, self.store, self.encoder, self.sparse, self._chunker, self._manifest, on_progress
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
        min_score: float | None = None,
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
            min_score: Hits below this final score are left out.

        Returns:
            The hits, best first, with timings and warnings.

        Raises:
            ValueError: An argument is out of range.
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

    @contextmanager
    def reading(self) -> Iterator[Serving]:
        """The encoder and the store that serve, kept open together until the end of the block."""
        with self._switch.use() as serving:
            yield serving

    def reranker(self) -> Reranker:
        """The cross-encoder; opened at the first call.

        Raises:
            ModelError: It is missing or malformed.
        """
        return self._reranker()

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

    def close(self) -> None:
        """Release the index; closing twice is fine."""
        self.retire()
        self.store.close()

    def retire(self) -> None:
        """End the worker thread and leave the store open, which another pipeline uses from now on."""
        if self._worker is not None:
            self._worker.shutdown()
            self._worker = None

    def _settle(self) -> None:
        """Finish what an interrupted ingest or delete has begun."""
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
        self._chunker = Chunker(self.config.chunking, generation.encoder.count_tokens)
        before.store.close()
        store.tidy()

    def _weigh(self, dense_weight: float) -> None:
        self._manifest = replace(self._manifest, dense_weight=dense_weight)
        self.store.write_manifest(manifest_to_json(self._manifest))
        self._switch.to(self._serving(self.encoder, self.store, self._manifest))

    def _serving(self, encoder: Encoder, store: Store, manifest: IndexManifest) -> Serving:
        search = Search(self.config, encoder, self.sparse, store, self._reranker, manifest.dense_weight)
        return Serving(encoder, store, search)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_reranker(config: Config) -> Reranker:
    return open_reranker(config.rerank, find_model(config.rerank.model))
