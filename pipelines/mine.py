"""Mine hard negatives for pairs: from an index, from documents, or from the passages of the pairs themselves.

A stream with bounded memory: candidates come from the store, queries from the pair files, lists go to the disk batch by
batch. What stays in memory is a digest of each known answer.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from pipelines.mined_lists import MinedLists
from pipelines.mining_index import open_candidates
from pipelines.two_stage import Source
from retrieval.config import Config
from retrieval.datatypes import FloatArray
from retrieval.errors import ConfigError, DocumentError
from retrieval.models import find_model
from retrieval.protocols import Reranker
from retrieval.rerankers import open_reranker
from retrieval.training.known import KnownPositives
from retrieval.training.mine import MineCounts, Miner, MineSettings
from retrieval.training.pairs import Pair


@dataclass(frozen=True, slots=True)
class MineProgress:
    """How far it is.

    Args:
        stage: ``reading`` the pairs, ``indexing`` passages, or ``mining``.
        done: Pairs read, passages indexed, queries mined.
        of: How many there are; 0 when that is not known.
        read: Texts that the cross-encoder read in this run.
        seconds_left: Until the end, from the pace of this run; ``None`` before there is one.
        seconds_reading: Of these, how many the cross-encoder will take.
    """

    stage: str
    done: int
    of: int = 0
    read: int = 0
    seconds_left: float | None = None
    seconds_reading: float = 0.0


@dataclass(frozen=True, slots=True)
class MineReport:
    """What came of it.

    Args:
        out: File with the lists.
        counts: What became of queries and candidates, over all runs that made the file.
        resumed: Queries that an earlier run had done.
        passages: Passages of the index.
        index: Where the index is; empty for one that was made for this and is gone.
        reranker: Name of the cross-encoder, empty without.
        seconds: Wall-clock time of this run.
        first_stage_seconds: Of these, in encoders and store.
        reading_seconds: Of these, in the cross-encoder.
    """

    out: str
    counts: MineCounts
    resumed: int
    passages: int
    index: str
    reranker: str
    seconds: float
    first_stage_seconds: float
    reading_seconds: float


Progress = Callable[[MineProgress], None]


def mine_lists(
    pairs: Iterable[Pair],
    out: str | Path,
    config: Config | None = None,
    *,
    index: str | Path | None = None,
    corpus: Source | None = None,
    known: Iterable[Pair] = (),
    settings: MineSettings = MineSettings(),
    rerank: bool = True,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> MineReport:
    """Write a list of hard negatives for every pair; `retrieval.training.read_lists` reads them.

    The cross-encoder, which takes most of the time, reads only as many candidates as are needed to fill a list. A run
    that was stopped goes on when it is called again with the same arguments.

    Args:
        pairs: Queries with the passages that answer them; iterated more than once, so a generator will not do.
        out: ``NAME.jsonl.gz``; while it grows, ``NAME.jsonl.gz.mining`` beside it.
        config: Models and settings; ``None`` for those of the index, or the defaults.
        index: Folder of an index to mine; ``None`` makes one for this and removes it.
        corpus: What to put into that, as `TwoStagePipeline.ingest` takes it; ``None`` for the passages of the pairs.
        known: More pairs that tell what answers a query.
        settings: What is chosen.
        rerank: Whether the cross-encoder drops false negatives and scores the lists.
        overwrite: Whether to replace ``out``, and to forget an unfinished run that had other arguments.
        on_progress: Told how far it is.

    Raises:
        TypeError: ``pairs`` can be iterated only once.
        ConfigError: ``out`` exists, an unfinished run had other settings, or both index and corpus are given.
        DocumentError: There are no pairs, or a pair or the corpus cannot be read.
        RetrievalError: As for `TwoStagePipeline.open` and its ``ingest``.
    """
    if iter(pairs) is pairs or iter(known) is known:
        raise TypeError("the pairs are read more than once: give a list, or an object that can be iterated again")
    if index is not None and corpus is not None:
        raise ConfigError(f"the candidates come from the index {index} or from {corpus}, not from both")
    started = time.perf_counter()
    report_progress = on_progress or (lambda progress: None)
    with MinedLists(Path(out), overwrite=overwrite) as lists:
        facts = _read(pairs, known, report_progress)
        reranker = _open_reranker(config or Config()) if rerank else None
        source = f"index {index}" if index is not None else str(corpus) if isinstance(corpus, str | Path) else "given"
        models = {"reranker": None if reranker is None else reranker.name}
        lists.begin({"pairs": facts.digest, "candidates": source, **models, **asdict(settings)})
        resumed, folder = lists.queries, lists.folder / "index"
        with open_candidates(
            pairs, config, index, corpus, folder, lambda done: report_progress(MineProgress("indexing", done))
        ) as pipeline:
            manifest = pipeline.manifest
            lists.confirm(
                {"contents": manifest.ids_digest, "encoder": str(manifest.encoder), "bm25": dict(manifest.bm25)}
            )
            miner = Miner(pipeline.store, pipeline.encoder, pipeline.sparse, facts.answers, reranker, settings)
            mining = _mine(miner, pairs, lists, facts.pairs, reranker, settings, report_progress)
            passages = pipeline.manifest.passages
        lists.finish()
    reading = 0.0 if reranker is None else reranker.seconds
    return MineReport(
        out=str(out),
        counts=lists.counts,
        resumed=resumed,
        passages=passages,
        index="" if index is None else str(index),
        reranker="" if reranker is None else reranker.name,
        seconds=time.perf_counter() - started,
        first_stage_seconds=mining - reading,
        reading_seconds=reading,
    )


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a first look at the pairs tells."""

    pairs: int
    digest: str
    answers: KnownPositives


class _TimedReranker:
    """A cross-encoder that knows how long it has read."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker
        self.seconds = 0.0
        self.texts = 0

    @property
    def name(self) -> str:
        return self._reranker.name

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        started = time.perf_counter()
        scores = self._reranker.score(query, texts)
        self.seconds += time.perf_counter() - started
        self.texts += len(texts)
        return scores


def _open_reranker(config: Config) -> _TimedReranker:
    return _TimedReranker(open_reranker(config.rerank, find_model(config.rerank.model)))


def _read(pairs: Iterable[Pair], known: Iterable[Pair], on_progress: Progress) -> _Facts:
    answers, digest, count = KnownPositives(), hashlib.blake2b(digest_size=16), 0
    for pair in pairs:
        answers.add(pair)
        digest.update(json.dumps(asdict(pair)).encode("ascii"))
        count += 1
        if count % 1000 == 0:
            on_progress(MineProgress("reading", count))
    if not count:
        raise DocumentError("there are no pairs to mine negatives for")
    for pair in known:
        answers.add(pair)
        digest.update(json.dumps(asdict(pair)).encode("ascii"))
    return _Facts(count, digest.hexdigest(), answers)


def _mine(
    miner: Miner,
    pairs: Iterable[Pair],
    lists: MinedLists,
    of: int,
    reranker: _TimedReranker | None,
    settings: MineSettings,
    on_progress: Progress,
) -> float:
    """Mine what is not done yet, batch by batch; returns how long that took."""
    started, first = time.perf_counter(), lists.queries

    def show(ahead: int = 0) -> None:
        done = lists.queries - first + ahead
        seconds, reading = time.perf_counter() - started, 0.0 if reranker is None else reranker.seconds
        left = (of - first - done) / done if done else 0.0
        on_progress(
            MineProgress(
                stage="mining",
                done=first + done,
                of=of,
                read=0 if reranker is None else reranker.texts,
                seconds_left=seconds * left if done else None,
                seconds_reading=reading * left,
            )
        )

    stream = islice(iter(pairs), first, None)
    show()
    while batch := list(islice(stream, settings.batch_size)):
        lists.append(*miner.mine(batch, lists.queries, show))
        show()
    return time.perf_counter() - started
