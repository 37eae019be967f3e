"""What has to be known of an index before settings can be replayed: lists, and what the cross-encoder says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipelines.progress import StepCallback
from pipelines.tuning.record import Record
from pipelines.tuning.recording import RememberedReranker
from pipelines.tuning.replay import Replay
from pipelines.tuning.report import TunePlan
from pipelines.tuning.settings import Grid, Setting, Variant
from pipelines.tuning.variants import Variants, sparse_lists
from retrieval.protocols import SparseEncoder, Store

_SHALLOW = 20
_FEWEST_QUERIES = 10
_TRIED_PAIRS = 24
_TIMED_SEARCHES = 6 * 12
_MS_PER_REPLAY = 1.5
_REPLAYS = 200
_OTHER_VARIANTS = 1.2  # what other vectors add to the pairs of the present ones
_LATER = 0.3  # what settings changed in several parts add
_MOST_LATER = 1.0


def record_lists(
    variants: Variants,
    wanted: Sequence[Variant],
    queries: Sequence[str],
    limit: int,
    sparse: SparseEncoder,
    store: Store,
    on_progress: StepCallback,
) -> tuple[Record, tuple[Variant, ...]]:
    """Ask every variant of the vectors, and BM25, for the candidates of every query.

    Args:
        variants: Makes them.
        wanted: The variants; the first one is asked for in any case.
        queries: The queries.
        limit: Candidates of each.
        sparse: BM25 encoder.
        store: The index.
        on_progress: Called after every query.

    Returns:
        What they said, and the variants that the engine does not make of an index of this size.
    """
    on_progress("BM25", 0, len(queries))
    vectors, points, milliseconds = sparse_lists(sparse, store, queries, limit)
    dense, missing = {}, []
    for variant in wanted:

        def show(number: int, stage: str = f"vectors: {variant}") -> None:
            on_progress(stage, number, len(queries))

        lists = variants.measure(variant, queries, limit, show)
        if variant != wanted[0] and variant.quantization.kind != "none" and not lists.in_effect:
            missing.append(variant)
            continue
        dense[variant] = lists
    return Record(tuple(queries), dense, vectors, points, milliseconds, store), tuple(missing)


def settings_to_read(present: Setting, grid: Grid, reference: Setting | None) -> list[Setting]:
    """The settings whose candidates are read before anything is chosen: each part changed alone.

    Args:
        present: The present setting.
        grid: What is tried.
        reference: What others are compared with where there are no judgements.
    """
    shallow = replace(present, depth=min(_SHALLOW, max(grid.depths)))
    settings = [replace(present, depth=max(grid.depths))]
    settings += [replace(shallow, fusion=fusion) for fusion in grid.fusions]
    settings += [replace(shallow, variant=variant) for variant in grid.variants]
    return settings if reference is None else [reference, *settings]


def texts_to_read(replay: Replay, settings: Sequence[Setting], queries: int) -> list[list[str]]:
    """What settings may have the cross-encoder read for each of so many queries, each text once."""
    found: list[dict[str, None]] = [{} for _ in range(queries)]
    for setting in settings:  # outside, because a replay remembers the candidates of a few settings for all queries
        for number, texts in enumerate(found):
            texts.update(dict.fromkeys(replay.texts(number, setting)))
    return [list(texts) for texts in found]


def affordable(
    replay: Replay, record: Record, reranker: RememberedReranker, settings: Sequence[Setting], seconds: float
) -> int:
    """For how many queries a time is enough, told by some of them; at least ten.

    Args:
        replay: Over the lists of these.
        record: The lists.
        reranker: Reads a few pairs, to see what they cost.
        settings: What will be read.
        seconds: The time.
    """
    texts = texts_to_read(replay, settings, len(record.queries))
    for query, own in zip(record.queries, texts, strict=True):
        if reranker.pairs < _TRIED_PAIRS:
            reranker.read(query, own[:_TRIED_PAIRS])
    per_query, pair = _OTHER_VARIANTS * sum(map(len, texts)) / len(texts), reranker.seconds_per_pair
    return max(_FEWEST_QUERIES, int((seconds - _timing(pair)) / _seconds(1, per_query, pair)))


def plan(texts: Sequence[Sequence[str]], available: int, reranker: RememberedReranker) -> TunePlan:
    """What is about to be read.

    Args:
        texts: For each query.
        available: Queries that there were.
        reranker: Knows what a pair costs.
    """
    pairs, pair = sum(map(len, texts)), reranker.seconds_per_pair
    return TunePlan(len(texts), available, pairs, pair * 1000, _seconds(len(texts), pairs, pair) + _timing(pair))


def read(
    record: Record, reranker: RememberedReranker, texts: Sequence[Sequence[str]], on_progress: StepCallback
) -> None:
    """Read it all, query by query; what comes up later is bounded by a part of it."""
    pairs, done = sum(map(len, texts)), 0
    for query, own in zip(record.queries, texts, strict=True):
        on_progress("reading pairs", done, pairs)
        reranker.read(query, own)
        done += len(own)
    reranker.limit = round(reranker.pairs + pairs * _MOST_LATER) + _TRIED_PAIRS


def _timing(pair: float) -> float:
    return _TIMED_SEARCHES * _SHALLOW / 2 * pair


def _seconds(queries: int, pairs: float, pair: float) -> float:
    return pairs * (1 + _LATER) * pair + queries * _REPLAYS * _MS_PER_REPLAY / 1000
