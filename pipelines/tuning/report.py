"""What a choice of settings was based on, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.tuning.settings import Change, Setting
from retrieval.datatypes import FirstStage
from retrieval.evaluation import Comparison

Asked = Literal["judged", "real", "pseudo"]


@dataclass(frozen=True, slots=True)
class TunePlan:
    """What is about to be done, told before the long part of it.

    Args:
        queries: Queries that are used.
        available: Queries that there were.
        pairs: Pairs of query and passage that the cross-encoder has to read.
        ms_per_pair: What one takes, tried out.
        seconds: How long it will take about.
    """

    queries: int
    available: int
    pairs: int
    ms_per_pair: float
    seconds: float


@dataclass(frozen=True, slots=True)
class TunePoint:
    """One setting with what was measured of it.

    Args:
        name: ``present``, ``chosen``, ``present, chosen``, or empty.
        dimensions: Of the vectors.
        quantization: Of the vectors, in words.
        arms: Which arms fetch candidates.
        fusion: ``minmax`` or ``rrf``.
        dense_weight: Of the static arm in the fusion.
        depth: Candidates that the cross-encoder reads; 0 where it is off.
        first_stage_weight: Share of the first stage in the final score.
        budget_ms: For reading; ``None`` for no limit.
        quality: Mean over all queries: those that it was chosen by, so the chosen one looks better than it is.
        interval: 95 % bootstrap interval of it.
        p50: Median milliseconds of a real search.
        p95: 95th percentile.
        bytes_per_passage: Of what the first stage reads: the vector and the BM25 entries.
        reranked: Candidates that were read on average while its quality was measured.
    """

    name: str
    dimensions: int
    quantization: str
    arms: FirstStage
    fusion: str
    dense_weight: float
    depth: int
    first_stage_weight: float
    budget_ms: float | None
    quality: float
    interval: tuple[float, float]
    p50: float
    p95: float
    bytes_per_passage: float
    reranked: float


@dataclass(frozen=True, slots=True)
class Fold:
    """What was chosen without some of the queries, and what it gave on these.

    Args:
        queries: How many were held out.
        chosen: What changed against the present setting, in words; empty for nothing.
        quality: Mean of the choice over the queries that were held out.
        present: Mean of the present setting over them.
    """

    queries: int
    chosen: str
    quality: float
    present: float


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What `TwoStagePipeline.tune` found.

    Args:
        outcome: ``changed``, or ``kept`` where the present settings are the best that can be shown.
        reason: One or two sentences for a person, with numbers.
        asked: Kind of the queries: judged ones, real ones without judgements, or pseudo-queries.
        metric: Name of the measure, of relevance with judgements, else of likeness to the exact search at full depth.
        queries: How many were used.
        present: The present setting.
        chosen: The chosen one; equal to ``present`` where that is kept.
        frontier: From the best to the cheapest, with both of these.
        held_out: What the way of choosing gives on queries that it was not chosen by: the figure to report; ``None``
            with fewer than two queries.
        held_out_interval: 95 % bootstrap interval of it.
        comparison: Of ``held_out`` with the present setting on the same queries; ``None`` with fewer than two.
        folds: The parts that it is made of.
        changes: Keys of the configuration that change.
        needs: What has to be done to the index first: ``rebuild``, ``quantize`` or nothing.
        notes: Sentences about what was not tried or not reached.
        settings_tried: How many settings were measured.
        pairs: Pairs that the cross-encoder read.
        ms_per_pair: What reading one took on average.
        passages: Passages of the index.
        seconds: Wall-clock time of everything.
        setting: The chosen setting as a record.
        base: The present one.
    """

    outcome: Literal["changed", "kept"]
    reason: str
    asked: Asked
    metric: str
    queries: int
    present: TunePoint
    chosen: TunePoint
    frontier: tuple[TunePoint, ...]
    held_out: float | None
    held_out_interval: tuple[float, float] | None
    comparison: Comparison | None
    folds: tuple[Fold, ...]
    changes: tuple[Change, ...]
    needs: Literal["rebuild", "quantize"] | None
    notes: tuple[str, ...]
    settings_tried: int
    pairs: int
    ms_per_pair: float
    passages: int
    seconds: float
    setting: Setting
    base: Setting
